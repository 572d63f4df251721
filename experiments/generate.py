"""Continue a prompt with a trained model, its memory live while it writes.

python experiments/generate.py runs/stdlib --prompt "import os" --temperature 0.8 --top-p 0.95
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

from memgpt_jax import data
from memgpt_jax.command_line import one_line_errors, parse_arguments
from memgpt_jax.config import TextConfig
from memgpt_jax.generation import check_sampling, generate
from memgpt_jax.training import RunError, checkpoint


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this script."""

    workdir: tyro.conf.Positional[Path]
    """Folder of the run."""
    prompt: str = ""
    """How the document begins; `@FILE` reads it from a file, as long as you like."""
    max_new_tokens: int = 256
    """Tokens to write at most; the end of the document ends it earlier."""
    temperature: float = 0.8
    """Softmax temperature; 0: always the most probable token."""
    top_k: int | None = None
    """Draw among the k most probable tokens only."""
    top_p: float | None = None
    """Draw among the fewest tokens that hold this probability together."""
    seed: int = 0
    """Seed of the draws."""
    step: int | None = None
    """Which checkpoint; default: the latest."""

    def __post_init__(self):
        check_sampling(self.temperature, self.top_k, self.top_p)


def continue_text(saved, tokenizer, prompt: str, **options) -> str:
    """The text that follows the prompt at the start of a document, up to the document's end.

    All new tokens are decoded at once, so that a character of several bytes, and tokens, comes out whole; one that the
    limit on tokens cut in the middle is left out.
    """
    tokens = [tokenizer.document_id, *tokenizer.encode(prompt)]
    new = np.asarray(generate(saved.config.model, saved.params, [tokens], **options).tokens)[0].tolist()
    if tokenizer.document_id in new:
        new = new[: new.index(tokenizer.document_id)]
    return tokenizer.decode(new).rstrip("\N{REPLACEMENT CHARACTER}")


@one_line_errors(RunError)
def main() -> None:
    arguments = parse_arguments(Arguments, __doc__)
    options = {name: value for name, value in vars(arguments).items() if name not in ("workdir", "prompt", "step")}
    prompt = arguments.prompt
    if prompt.startswith("@"):
        prompt = Path(prompt.removeprefix("@")).read_text(encoding="utf-8")
    saved = checkpoint.load(arguments.workdir, arguments.step)
    if not isinstance(saved.config.data, TextConfig):
        raise RunError(f"{arguments.workdir} was trained on a generated task, and not to write text")
    tokenizer = data.load_saved_tokenizer(arguments.workdir / "tokenizer")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(prompt, style="dim", end="")
    console.print(continue_text(saved, tokenizer, prompt, **options))


if __name__ == "__main__":
    main()
