"""Continue a prompt with a trained model that reads and writes its memory while generating.

    memgpt-jax generate runs/stdlib --prompt "import os" --temperature 0.8 --top-p 0.95
    memgpt-jax generate runs/stdlib --prompt @story.txt --stream
    memgpt-jax generate runs/stdlib --interactive

With --interactive, each line that you type is appended to the document and answered; /help lists the commands.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console

from memgpt_jax.checkpoint import load_run
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.errors import RunError
from memgpt_jax.generation import Sampling, Session
from memgpt_jax.studies.command_line import one_line_errors, parse_arguments, text_argument

COMMANDS = """\
/memory      show occupancy and bytes of each layer's memory
/fork        save a point of the session
/back        return to the last saved point
/save PATH   save the session in a file
/load PATH   load a saved session
/reset       start a new document
/quit        quit"""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this command."""

    workdir: tyro.conf.Positional[Path]
    """Folder of the run."""
    prompt: str = ""
    """Start of the document; `@FILE` reads it from a file of any length."""
    interactive: bool = False
    """Read lines from standard input and answer each."""
    stream: bool = False
    """Print the answer token by token."""
    max_new_tokens: int = 256
    """Maximum number of generated tokens; the end of the document ends the answer earlier."""
    ignore_eos: bool = False
    """Continue after the end of the document."""
    temperature: float = 0.8
    """Softmax temperature; 0: always the most probable token."""
    top_k: int | None = None
    """Sample from the k most probable tokens."""
    top_p: float | None = None
    """Sample from the smallest set of tokens with this total probability."""
    min_p: float | None = None
    """Sample from tokens with at least this fraction of the highest probability."""
    repetition_penalty: float | None = None
    """Above 1: tokens that occur already become less likely."""
    no_repeat_ngram_size: int | None = None
    """No n-gram of this number of tokens is twice in an answer."""
    seed: int = 0
    """Seed of sampling."""
    step: int | None = None
    """Step of the checkpoint; default: the best of the run's validations, else the latest."""

    def __post_init__(self) -> None:
        Sampling(**{name: vars(self)[name] for name in vars(Sampling())})

    @property
    def options(self) -> dict[str, Any]:
        """The options of `Session.generate`."""
        names = ("max_new_tokens", "ignore_eos", "seed", *vars(Sampling()))
        return {name: getattr(self, name) for name in names}


def open_session(workdir: Path, step: int | None = None) -> Session:
    """A session with the model and the tokenizer of a run, at the start of a document."""
    saved = load_run(workdir, step)
    if not isinstance(saved.config.data, TextConfig):
        raise RunError(
            f"{workdir} was trained on {type(saved.config.data).__name__}; generate continues texts with runs on "
            "TextConfig: use memgpt-jax predict"
        )
    model = saved.config.model
    if not isinstance(model, ModelConfig):
        raise RunError(f"{workdir} holds a model of {type(model).__name__}, which cannot generate text")
    if saved.tokenizer is None:
        raise RunError(f"{workdir} has no tokenizer/: restore the folder from a copy")
    return Session((model, saved.params), saved.tokenizer)


def answer(session: Session, options: dict[str, Any]) -> None:
    """Print an answer token by token; an interrupt ends it."""
    try:
        for piece in session.stream(**options):
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pass
    print()


def interact(session: Session, options: dict[str, Any]) -> None:
    """Read lines and commands until the end of input."""
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
                    console.print(f"point {len(points)} saved", style="dim")
                case "/back" if points:
                    session = points.pop()
                    console.print(f"back at point {len(points) + 1}", style="dim")
                case "/back":
                    console.print("there is no saved point: /fork saves one", style="dim")
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
    """Print one line for each layer with a memory."""
    console.print(f"{session.num_tokens:,} tokens read", style="dim")
    for layer, stats in enumerate(session.memory()):
        numbers = {name: value for name, value in stats.items() if np.ndim(value) == 0}
        if numbers:
            text = ", ".join(f"{name.replace('_', ' ')} {value:,.3g}" for name, value in numbers.items())
            console.print(f"layer {layer}: {text}", style="dim")


@one_line_errors((RunError, ValueError))
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(Arguments, __doc__, argv)
    prompt = text_argument("prompt", arguments.prompt)
    session = open_session(arguments.workdir, arguments.step)
    session.feed(prompt)
    print(prompt, end="", flush=True)
    if arguments.interactive:
        interact(session, arguments.options)
    elif arguments.stream:
        answer(session, arguments.options)
    else:
        print(session.generate(**arguments.options))
