"""Predict with a trained run: next tokens, masked tokens, or the answers of a task, one JSON object per line.

    memgpt-jax predict runs/quickstart --text "import os" --top 3
    memgpt-jax predict runs/masked --text "def <mask>(self):"
    memgpt-jax predict runs/quickstart --input prompts.txt --output predictions.jsonl
    memgpt-jax predict runs/recall --rows 4

A decoder predicts the token after each text; an encoder with a `masked` head predicts the token at each `<mask>`.
A run on a generated task answers rows of its held-out set.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from memgpt_jax.config.data import TaskConfig
from memgpt_jax.errors import RunError
from memgpt_jax.files.replacement import replace_file
from memgpt_jax.studies.command_line import one_line_errors, parse_arguments
from memgpt_jax.studies.predictions import predict_text, task_answers
from memgpt_jax.studies.runs import reopen


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this command."""

    workdir: tyro.conf.Positional[Path]
    """Folder of the run."""
    text: tuple[str, ...] = ()
    """Texts, one or more."""
    input: Path | None = None
    """A file with one text per line; `-`: standard input."""
    rows: int = 8
    """Rows of a task's held-out set."""
    top: int = 5
    """Tokens listed for each prediction."""
    step: int | None = None
    """Step of the checkpoint; default: the latest."""
    output: Path | None = None
    """The file for the predictions; default: standard output."""

    def __post_init__(self) -> None:
        if min(self.rows, self.top) < 1:
            raise ValueError(f"rows and top must be at least 1, got {self.rows} and {self.top}")

    def texts(self) -> list[str]:
        """The texts of the command line and of the input."""
        if self.input is None:
            return list(self.text)
        try:
            content = sys.stdin.read() if str(self.input) == "-" else self.input.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"input {self.input} cannot be read as UTF-8 text: {error}") from None
        return [*self.text, *content.splitlines()]


def predictions(arguments: Arguments) -> Iterator[dict[str, Any]]:
    """One object for each text or row."""
    texts = arguments.texts()
    config, params, tokenizer, _ = reopen(arguments.workdir, step=arguments.step)
    if isinstance(config.data, TaskConfig) and not texts:
        yield from task_answers(config, params, tokenizer, arguments.rows)
        return
    if not texts:
        raise ValueError("--text or --input is missing: give at least one text")
    for text in texts:
        yield predict_text(config, params, tokenizer, text, arguments.top)


@one_line_errors((RunError, ValueError))
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(Arguments, __doc__, argv)
    lines = []
    for prediction in predictions(arguments):
        lines.append(json.dumps(prediction, ensure_ascii=False))
        if arguments.output is None:
            print(lines[-1], flush=True)
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        replace_file(arguments.output, "".join(f"{line}\n" for line in lines))
