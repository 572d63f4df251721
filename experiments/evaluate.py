"""Evaluate runs on held-out documents: a table, a JSON file and a plot, side by side.

    python experiments/evaluate.py runs/stdlib runs/stdlib_none --memory-size 0 256 1024
    python experiments/evaluate.py runs/recall --memory-size 1024 --change data.context_length=1024

All results together go to `comparison.json` and `comparison.png`, in the folder of the first run or in `--output`.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Table

from memgpt_jax.command_line import assignments, one_line_errors, parse_arguments
from memgpt_jax.config import ExperimentConfig
from memgpt_jax.evaluate import evaluate
from memgpt_jax.plots import plot_curves
from memgpt_jax.runs import reopen
from memgpt_jax.training import RunError

COLUMNS = (
    "bits_per_byte",
    "accuracy",
    "answers",
    "loss",
    "perplexity_per_token",
    "perplexity_per_word",
    "documents",
    "tokens",
)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this script; everything else is as in the run's own config."""

    workdirs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of the runs, one or more."""
    step: int | None = None
    """Which checkpoint; default: the latest."""
    memory_size: tuple[int, ...] = ()
    """Read with memories of these sizes; default: the size of training. Runs without memory are read as they are."""
    split: Literal["valid", "test"] | None = None
    """Which split."""
    max_documents: int | None = None
    """How many documents; 0: all."""
    max_tokens: int | None = None
    """How many tokens of each document; 0: all."""
    change: tuple[str, ...] = ()
    """Other changes of the run's config, each `field=value`, such as `data.context_length=1024`."""
    output: Path | None = None
    """Folder of `comparison.json` and `comparison.png`; default: the first run's."""

    def __post_init__(self):
        if not self.workdirs:
            raise ValueError("name the folder of at least one run")
        assignments(self.change)


def settings_of(config: ExperimentConfig, arguments: Arguments) -> ExperimentConfig:
    """The run's config with this script's options in place."""
    changes = {} if arguments.split is None else {"split": arguments.split}
    for name in ("max_documents", "max_tokens"):
        value = getattr(arguments, name)
        if value is not None:
            changes[name] = value or None
    return dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, **changes))


def with_memory_size(config: ExperimentConfig, size: int) -> ExperimentConfig:
    """The same experiment, read with another memory size."""
    memory = dataclasses.replace(config.model.memory, memory_size=size, match_state_bytes=None)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, memory=memory))


def evaluate_run(workdir: Path, arguments: Arguments) -> dict[str, dict]:
    """Results of one run by label, one for each memory size."""
    config, params, tokenizer = reopen(workdir, arguments.change, arguments.step)
    config = settings_of(config, arguments)
    if not hasattr(config.model.memory, "memory_size") or not arguments.memory_size:
        return {str(workdir): evaluate(config, params, tokenizer)}
    return {
        f"{workdir} memory {size}": evaluate(with_memory_size(config, size), params, tokenizer)
        for size in arguments.memory_size
    }


def results_table(results: dict[str, dict]) -> Table:
    """One row for each result, with the columns that any of them has."""
    columns = [name for name in COLUMNS if any(name in result for result in results.values())]
    table = Table("run", *(name.replace("_", " ") for name in columns))
    for label, result in results.items():
        table.add_row(label, *(number(result.get(name)) for name in columns))
    return table


def number(value: float | int | None) -> str:
    """Counts in full, measurements with four decimals, or four digits where they are large; empty if there is none."""
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if value < 1000 else f"{value:.4g}"


@one_line_errors(RunError)
def main() -> None:
    arguments = parse_arguments(Arguments, __doc__)
    results = {}
    for workdir in arguments.workdirs:
        results |= evaluate_run(workdir, arguments)
    Console().print(results_table(results))
    output = arguments.output or arguments.workdirs[0]
    output.mkdir(parents=True, exist_ok=True)
    (output / "comparison.json").write_text(json.dumps(results, indent=2) + "\n")
    curves = {label: [result["curve"]] for label, result in results.items() if "curve" in result}
    if curves:
        plot_curves(curves, output / "comparison.png", "Held-out documents, each from an empty memory")


if __name__ == "__main__":
    main()
