"""Train and evaluate every combination of a sweep: one folder per run, one CSV, plots with seeds as error bars.

    python experiments/ablate.py ablate_memory --sweep model.memory.memory_size=0,64,256 seed=0,1,2 --workdir runs/size

The first field is the plot's axis, seeds its error bars (standard deviation), further fields its lines. The same
command again goes on where it was stopped: finished runs are read back, and an unfinished one is resumed.
"""

import csv
import statistics
from dataclasses import dataclass
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from memgpt_jax.command_line import one_line_errors, override, parse, sweep, sweep_words
from memgpt_jax.plots import plot_ablation, plot_curves
from memgpt_jax.training import RunError, train


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this script."""

    workdir: Path
    """Folder of the ablation: `FIELD=VALUE,...` for each run, `results.csv`, `results.png` and `curves.png`."""
    sweep: tuple[str, ...]
    """Fields and their values, `field=value,value,...`; every combination is run."""

    def __post_init__(self):
        sweep(self.sweep)


def run_name(values: dict[str, str]) -> str:
    """The folder of a combination, such as `model.memory.memory_size=64,seed=0`."""
    return ",".join(f"{field}={value}" for field, value in values.items()).replace("/", "_")


def metric_of(results: list[dict]) -> str:
    """What is compared: `accuracy` of tasks, else `bits_per_byte`."""
    return "accuracy" if "accuracy" in results[0] else "bits_per_byte"


def grouped(combinations: list[dict[str, str]], results: list[dict]) -> dict[tuple[str, str], list[dict]]:
    """Results of all seeds by (value of the first field, words for the other fields)."""
    groups = {}
    for values, result in zip(combinations, results, strict=True):
        axis, *others = [field for field in values if field != "seed"] or ["seed"]
        label = ", ".join(f"{field.rpartition('.')[2]} {values[field]}" for field in others)
        groups.setdefault((values[axis], label), []).append(result)
    return groups


def write_csv(path: Path, combinations: list[dict[str, str]], results: list[dict]) -> None:
    """One line for each run: the swept fields, then every number of its evaluation."""
    rows = [
        values | {name: value for name, value in result.items() if name != "curve"}
        for values, result in zip(combinations, results, strict=True)
    ]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0])
        writer.writeheader()
        writer.writerows(rows)


def report(combinations: list[dict[str, str]], results: list[dict], workdir: Path, title: str) -> Table:
    """Write CSV and plots of the runs so far, and return the table of means over seeds."""
    write_csv(workdir / "results.csv", combinations, results)
    metric, groups = metric_of(results), grouped(combinations, results)
    axis = next((field for field in combinations[0] if field != "seed"), "seed")
    lines, curves, table = {}, {}, Table(axis, "other fields", metric, "± (seeds)", "runs")
    for (value, label), runs in groups.items():
        scores = [run[metric] for run in runs]
        lines.setdefault(label, {})[value] = scores
        spread = f"{statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
        table.add_row(value, label, f"{statistics.mean(scores):.4f}", spread, str(len(scores)))
        if "curve" in runs[0]:
            name = f"{axis.rpartition('.')[2]} {value}" + (f", {label}" if label else "")
            curves[name] = [run["curve"] for run in runs]
    plot_ablation(lines, workdir / "results.png", axis, metric, title)
    if curves:
        plot_curves(curves, workdir / "curves.png", title)
    return table


@one_line_errors(RunError)
def main() -> None:
    config, arguments = parse(Arguments, __doc__)
    combinations = sweep(arguments.sweep)
    configs = [override(config, sweep_words(values)) for values in combinations]  # a wrong value ends it here, at once
    console, results = Console(), []
    for number, (values, run_config) in enumerate(zip(combinations, configs, strict=True), start=1):
        console.print(f"run {number} of {len(combinations)}: {run_name(values)}")
        results.append(train(run_config, arguments.workdir / run_name(values))["evaluation"])
        jax.clear_caches()  # the compiled functions of a finished run are of no use to the next
        table = report(combinations[:number], results, arguments.workdir, arguments.workdir.name)
    console.print(table)


if __name__ == "__main__":
    main()
