"""Continue a prompt with a trained model, its memory live while it writes.

    memgpt-jax generate runs/stdlib --prompt "import os" --temperature 0.8 --top-p 0.95
    memgpt-jax generate runs/stdlib --prompt @story.txt --stream
    memgpt-jax generate runs/stdlib --interactive

With --interactive, each line that you type is read as what comes next, and answered; /help names the commands.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

from memgpt_jax.config.data import TextConfig
from memgpt_jax.generation import Sampling, Session
from memgpt_jax.studies.command_line import one_line_errors, parse_arguments
from memgpt_jax.training import RunError, checkpoint
from memgpt_jax.training.process.workdir import load_run_tokenizer

COMMANDS = """\
/memory      how full each layer's memory is, and what it costs
/fork        remember this point
/back        return to the point remembered last
/save PATH   write the session into a folder
/load PATH   go on with a saved session
/reset       begin a new document
/quit        leave"""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this command."""

    workdir: tyro.conf.Positional[Path]
    """Folder of the run."""
    prompt: str = ""
    """How the document begins; `@FILE` reads it from a file, as long as you like."""
    interactive: bool = False
    """Read and answer line by line."""
    stream: bool = False
    """Show the answer while it is written."""
    max_new_tokens: int = 256
    """Tokens to write at most; the end of the document ends it earlier."""
    ignore_eos: bool = False
    """Continue after the end of the document."""
    temperature: float = 0.8
    """Softmax temperature; 0: always the most probable token."""
    top_k: int | None = None
    """Draw among the k most probable tokens only."""
    top_p: float | None = None
    """Draw among the fewest tokens that hold this probability together."""
    min_p: float | None = None
    """Draw among tokens with at least this share of the most probable one's probability."""
    repetition_penalty: float | None = None
    """Above 1: what was written becomes less likely."""
    seed: int = 0
    """Seed of the draws."""
    step: int | None = None
    """Which checkpoint; default: the latest."""

    def __post_init__(self):
        Sampling(**{name: vars(self)[name] for name in vars(Sampling())})

    @property
    def options(self) -> dict:
        """What `Session.generate` takes."""
        names = ("max_new_tokens", "ignore_eos", "seed", *vars(Sampling()))
        return {name: getattr(self, name) for name in names}


def open_session(workdir: Path, step: int | None = None) -> Session:
    """A new document with the model and the tokenizer of a run."""
    saved = checkpoint.load(workdir, step)
    if not isinstance(saved.config.data, TextConfig):
        raise RunError(f"{workdir} was trained on a generated task, which has no text to write")
    if not saved.config.model.causal:
        kind = type(saved.config.model).__name__
        raise RunError(f"{workdir} holds a model of {kind}, which cannot generate text")
    tokenizer = load_run_tokenizer(workdir)
    return Session((saved.config.model, saved.params), tokenizer)


def answer(session: Session, options: dict) -> None:
    """Write an answer as it comes; an interrupt ends it there."""
    try:
        for piece in session.stream(**options):
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pass
    print()


def interact(session: Session, options: dict) -> None:
    """Read lines and commands until the end of the input."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    model, points, turn = (session.config, session.params), [], 0
    console.print("[text, or /help]", style="dim")
    while True:
        try:
            line = console.input("> ")
        except (EOFError, KeyboardInterrupt):
            return
        command, _, path = line.partition(" ")
        try:
            match command:
                case "/quit":
                    return
                case "/help":
                    console.print(COMMANDS, style="dim")
                case "/memory":
                    show_memory(session, console)
                case "/fork":
                    points.append(session.fork())
                    console.print(f"point {len(points)} remembered", style="dim")
                case "/back" if points:
                    session = points.pop()
                    console.print(f"back at point {len(points) + 1}", style="dim")
                case "/back":
                    console.print("there is no point to go back to: /fork remembers one", style="dim")
                case "/save":
                    session.save(path)
                    console.print(f"saved in {path}", style="dim")
                case "/load":
                    session = Session.load(path, model, session.tokenizer)
                case "/reset":
                    session.reset()
                case _ if command.startswith("/"):
                    console.print(f"there is no command {command}\n{COMMANDS}", style="dim")
                case _:
                    turn += 1
                    session.feed(line + "\n")
                    answer(session, options | {"seed": options["seed"] + turn})
        except ValueError as error:
            console.print(str(error), style="red")


def show_memory(session: Session, console: Console) -> None:
    """One line for each layer with a memory."""
    console.print(f"{session.num_tokens:,} tokens so far", style="dim")
    for layer, stats in enumerate(session.memory()):
        numbers = {name: value for name, value in stats.items() if np.ndim(value) == 0}
        if numbers:
            text = ", ".join(f"{name.replace('_', ' ')} {value:,.3g}" for name, value in numbers.items())
            console.print(f"layer {layer}: {text}", style="dim")


@one_line_errors((RunError, ValueError))
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(Arguments, __doc__, argv)
    prompt = arguments.prompt
    if prompt.startswith("@"):
        try:
            prompt = Path(prompt.removeprefix("@")).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"prompt {prompt} cannot be read as UTF-8 text: {error}") from None
    session = open_session(arguments.workdir, arguments.step)
    session.feed(prompt)
    print(prompt, end="", flush=True)
    if arguments.interactive:
        interact(session, arguments.options)
    elif arguments.stream:
        answer(session, arguments.options)
    else:
        print(session.generate(**arguments.options))
