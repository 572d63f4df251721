"""Show what the memories of a model do with a text: one HTML file, which needs no server and no network.

    memgpt-jax inspect runs/stdlib --text "import os" --html inspect.html
    memgpt-jax inspect runs/stdlib --text @story.txt --html story.html --json story.json

The page colours the text by gates, bits and reads; a token shows the entries that it reads, and the tokens that read
its own. The JSON file holds the same values (`mg.Trace.load`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from memgpt_jax.config.checks import at_least, check, check_positive
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.errors import RunError
from memgpt_jax.files.paths import shown
from memgpt_jax.inspector import trace, write_page
from memgpt_jax.pipelines.base import load
from memgpt_jax.studies.command_line import one_line_errors, parse_arguments, text_argument


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this command."""

    model: tyro.conf.Positional[str]
    """Folder of a run or of a saved model, GGUF file, or name on the Hugging Face Hub."""
    text: str
    """The text; `@FILE` reads it from a file."""
    html: Path | None = None
    """The page to write."""
    json: Path | None = None
    """The file of the trace to write."""
    top: int = 8
    """Entries that are kept for each token."""
    max_tokens: int | None = None
    """Most tokens of the text; default: all."""
    step: int | None = at_least(0)
    """Of a run: the step of the checkpoint; default: the best of its validations, else the latest."""

    def __post_init__(self) -> None:
        check_positive(self)
        check(self.html is not None or self.json is not None, "give --html FILE, --json FILE or both")


@one_line_errors((RunError, ValueError, OSError))
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(Arguments, __doc__, argv)
    text = text_argument("text", arguments.text)
    loaded = load(arguments.model, step=arguments.step)
    if not isinstance(loaded.config, ModelConfig) or loaded.tokenizer is None:
        raise RunError(f"{arguments.model} is no decoder that reads text")
    ids = loaded.tokenizer.encode(text)[: arguments.max_tokens]
    found, _ = trace(
        (loaded.config, loaded.params), ids, tokenizer=loaded.tokenizer, top=arguments.top, noun="segments"
    )
    if arguments.html is not None:
        write_page(found, arguments.html)
        print(f"page: {shown(arguments.html)}")
    if arguments.json is not None:
        found.save(arguments.json)
        print(f"trace: {shown(arguments.json)}")
