"""Verify the checksums of the files of runs, sessions, tokenized corpora, models and tokenizers.

    memgpt-jax verify runs/quickstart ~/.cache/memgpt_jax

Exit code: 0 if no file is damaged, 1 if one is, 2 if a folder has no checksums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from memgpt_jax.files.paths import shown
from memgpt_jax.studies.command_line import one_line_errors, parse_arguments
from memgpt_jax.studies.verification import verify_folder


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this command."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that the library wrote."""


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> int:
    folders = parse_arguments(Arguments, __doc__, argv).folders
    if not folders:
        raise ValueError("folders is empty: give at least one folder that the library wrote")
    console, damaged = Console(markup=False, highlight=False), []
    for folder in folders:
        table = Table("part", "kind", "result")
        for part in verify_folder(folder):
            table.add_row(part.name, part.kind, "damaged" if part.problem else "whole")
            damaged += [part.problem] if part.problem else []
        console.print(shown(folder), soft_wrap=True)
        console.print(table)
    for problem in damaged:
        print(problem)
    return 1 if damaged else 0
