"""Ask trained runs bAbI questions at the end of long rows of held-out text: a table, a JSON file and a plot.

    memgpt-jax babilong runs/babilong --lengths 1024 4096 32768 --num-rows 128

Rows are read in chunks, so rows of any length use the same memory. Runs whose configs differ only in the seed become
one line. Results are written to `babilong.json` and `babilong.png` in the folder of the first run or in `--output`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import jax
from rich.console import Console
from rich.table import Column, Table

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.tasks.babilong import BabiLongConfig
from memgpt_jax.evaluation import evaluate
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

    lengths: tuple[int, ...] = (1_024, 4_096, 32_768)
    """Lengths of a row in tokens."""
    num_rows: int = 128
    """Rows, each with one answer, at each length; rounded up to whole batches."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.lengths or min(self.lengths) < 1 or self.num_rows < 1:
            raise ValueError(f"lengths and num_rows must be at least 1, got {self.lengths} and {self.num_rows}")


def at_length(config: ExperimentConfig, length: int, num_rows: int) -> ExperimentConfig:
    """The experiment with rows of a whole number of segments, at least `length` tokens."""
    length += -length % config.model.segment_length
    batches = -(-num_rows // config.evaluation.batch_size)
    return dataclasses.replace(
        config,
        training=dataclasses.replace(config.training, sequence_length=length),
        evaluation=dataclasses.replace(config.evaluation, num_batches=batches),
    )


@one_line_errors((RunError, ValueError))
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(Arguments, __doc__, argv)
    lengths = sorted(set(arguments.lengths))
    table = Table(Column("run", overflow="fold"), *(f"{length:,}" for length in lengths), "answers")
    check_runs(arguments)
    results, lines, failed = {}, Lines(), []
    for workdir in arguments.workdirs:
        with others_go_on(failed):
            config, params, tokenizer, _ = reopen(workdir, arguments.change, arguments.step)
            if not isinstance(config.data, BabiLongConfig):
                raise RunError(f"{workdir} was not trained on BABILong, as `configs/babilong.py` is")
            points = []
            for length in lengths:
                result = evaluate(at_length(config, length, arguments.num_rows), params, tokenizer)
                points.append({"length": length} | result)
                print(f"{workdir}: {length:,} tokens: {points[-1]['accuracy']:.3f}", flush=True)
            results[str(workdir)] = points
            lines.add(workdir, config, points)
            accuracies = (f"{point['accuracy']:.3f}" for point in points)
            table.add_row(str(workdir), *accuracies, str(points[0]["answers"]))
        jax.clear_caches()  # later runs do not use these compiled functions
    if results:
        Console(markup=False).print(table)
        plot = write_results(arguments.folder, "babilong", results)
        plot_recall(lines.labelled(), plot, "bAbI's questions at the end of held-out text")
    check_failed(failed, len(arguments.workdirs))
