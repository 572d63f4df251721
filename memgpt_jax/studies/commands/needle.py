"""Ask trained runs for needles after long streams of held-out text: a table, a JSON file and a plot.

    memgpt-jax needle runs/needle-0 runs/needle-1 runs/needle_none-0 --lengths 1000 10000 100000 1000000

One pass over the longest stream gives recall at every length. Runs whose configs differ only in the seed become one
line. Results are written to `needle.json` and `needle.png` in the folder of the first run or in `--output`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.tasks.needle import NeedleConfig
from memgpt_jax.evaluation import RecallPoint, recall_along_stream
from memgpt_jax.studies.command_line import one_line_errors, parse_arguments
from memgpt_jax.studies.comparison import (
    Lines,
    RunsArguments,
    check_failed,
    check_runs,
    others_go_on,
    write_results,
)
from memgpt_jax.studies.plots import plot_recall
from memgpt_jax.studies.runs import reopen
from memgpt_jax.training import RunError


@dataclass(frozen=True, kw_only=True)
class Arguments(RunsArguments):
    """Options of this command; everything else is as in the run's own config."""

    lengths: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    """Lengths of the stream in tokens after which the needles are asked for; rounded up to whole chunks."""
    num_needles: int = 16
    """Needles in the first chunk of each stream."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError(f"lengths must be at least 1, got {self.lengths}")


def recall_of_run(
    workdir: Path, arguments: Arguments, progress: Progress
) -> tuple[ExperimentConfig, list[RecallPoint]]:
    """The run's config, and its recall at each length."""
    config, params, tokenizer, _ = reopen(workdir, arguments.change, arguments.step)
    if not isinstance(config.data, NeedleConfig):
        raise RunError(f"{workdir} was not trained on needles, as `configs/needle.py` is")
    bar = progress.add_task(str(workdir), total=max(arguments.lengths))

    def advance(tokens: int) -> None:
        progress.update(bar, completed=tokens)

    try:
        needles = dataclasses.replace(config.data, num_needles=arguments.num_needles)
        config = dataclasses.replace(config, data=needles)
        return config, recall_along_stream(config, params, arguments.lengths, tokenizer, advance)
    except ValueError as error:  # too many needles for a chunk, or a missing corpus
        raise RunError(str(error)) from error


@one_line_errors((RunError, ValueError))
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(Arguments, __doc__, argv)
    check_runs(arguments)
    console, results, lines, table, failed = Console(markup=False), {}, Lines(), None, []
    with Progress(console=console) as progress:
        for workdir in arguments.workdirs:
            with others_go_on(failed):
                config, recall = recall_of_run(workdir, arguments, progress)
                results[str(workdir)] = recall
                lines.add(workdir, config, recall)
                lengths = [f"{point['length']:,}" for point in recall]
                table = table or Table(Column("run", overflow="fold"), *lengths, "answers")
                accuracies = (f"{point['accuracy']:.3f}" for point in recall)
                table.add_row(str(workdir), *accuracies, str(recall[0]["answers"]))
            jax.clear_caches()  # later runs do not use these compiled functions
    if results:
        console.print(table)
        plot = write_results(arguments.folder, "needle", results)
        plot_recall(lines.labelled(), plot, "Needles in the first chunk, asked for after held-out text")
    check_failed(failed, len(arguments.workdirs))
