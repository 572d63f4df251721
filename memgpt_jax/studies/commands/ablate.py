r"""Train and evaluate every combination of a sweep: one folder per run, one CSV, plots with seeds as error bars.

    memgpt-jax ablate ablate_memory --sweep model.memory.memory_size=0,64,256 seed=0,1,2 --workdir runs/size
    memgpt-jax ablate recall --workdir runs/mechanisms \
        --sweep model.memory=none,kv model.memory.match_state_bytes=4096,16384 seed=0,1,2

    memgpt-jax ablate shapes --sweep config=shapes,shapes_concat,shapes_graph seed=0,1,2 --workdir runs/fusion

The field `config` is the name of the config itself, to which all other options are applied.
The first field is the axis of the plot, seeds give error bars (standard deviation), further fields give lines. If runs
differ in the size of their state, a second plot has the size as its axis and a line for each mechanism. A mechanism
without a swept field (`none` has no size) runs once for all values of the field. The same command resumes an
interrupted sweep: finished runs are read back, an unfinished run is resumed. A failed run does not stop the others.
Losses of runs with another tokenizer, objective or loss of the head are not compared, and a note says if runs were not
evaluated on the same amount of text.
"""

import csv
import statistics
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.memory import layer_memory_bytes
from memgpt_jax.studies.command_line import one_line_errors, override, parse, sweep, sweep_words
from memgpt_jax.studies.comparison import shared_metric
from memgpt_jax.studies.plots import plot_ablation, plot_curves, plot_state_bytes
from memgpt_jax.studies.runs import run_name, trained_parameters
from memgpt_jax.training import RunError, train

LENGTH = "training.sequence_length"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this command."""

    workdir: Path
    """Folder of the ablation: `FIELD=VALUE,...` for each run, `results.csv`, `results.png`, `state_bytes.png` and
    `curves.png`."""
    sweep: tuple[str, ...]
    """Fields and their values, `field=value,value,...`; every combination is run."""

    def __post_init__(self) -> None:
        sweep(self.sweep)


def fields_of(combinations: list[dict[str, str]]) -> list[str]:
    """All swept fields; a combination may lack some."""
    return list(dict.fromkeys(field for values in combinations for field in values))


def label_of(values: dict[str, str], fields: list[str]) -> str:
    """The values of some fields as words, such as `memory kv, seed 0`."""
    return ", ".join(f"{field.rpartition('.')[2]} {values[field]}" for field in fields if field in values)


def grouped(
    combinations: list[dict[str, str]], results: list[dict[str, Any]]
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Results of all seeds by (value of the first field, words for the other fields)."""
    axis, *others = [field for field in fields_of(combinations) if field != "seed"] or ["seed"]
    groups = {}
    for values, result in zip(combinations, results, strict=True):
        groups.setdefault((values.get(axis, "-"), label_of(values, others)), []).append(result)
    return groups


def by_state_bytes(
    combinations: list[dict[str, str]], results: list[dict[str, Any]], metric: str
) -> dict[str, dict[int, list[float]]]:
    """The metric of all seeds by (label of the fields other than sizes, bytes of the state)."""
    fields, lines = fields_of(combinations), {}
    others = [field for field in fields if field.rpartition(".")[2] not in ("memory_size", "match_state_bytes", "seed")]
    for values, result in zip(combinations, results, strict=True):
        points = lines.setdefault(label_of(values, others), {})
        points.setdefault(result["state_bytes"], []).append(result[metric])
    return lines


def write_csv(path: Path, combinations: list[dict[str, str]], results: list[dict[str, Any]]) -> None:
    """One line for each run: the swept fields, every number of its evaluation, state bytes and parameters."""
    rows = [
        values
        | {name: value for name, value in result.items() if isinstance(value, int | float)}
        | {f"groups.{name}": value for name, value in result.get("groups", {}).items()}
        for values, result in zip(combinations, results, strict=True)
    ]
    names = dict.fromkeys([*fields_of(combinations), *(name for row in rows for name in row)])
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(rows)


def loss_unit(config: ExperimentConfig) -> tuple[Any, ...]:
    """What a loss measures, nats for each of these: tokens of a tokenizer, targets of an objective or of a head."""
    text, head = config.text, getattr(config.model, "head", None)
    tokens = None if text is None else (text.tokenizer, text.tokenizer_vocab_size)
    pretrained = config.pretrained if text is not None and text.tokenizer == "pretrained" else None
    return tokens, pretrained, config.data.objective, getattr(head, "loss", None)


def unequal_text(results: Sequence[Mapping[str, Any]]) -> str | None:
    """A note if runs were evaluated on other amounts of text; tokens are compared where bytes are not known."""
    known = all(result.get("bytes") is not None for result in results)
    for name in ("documents", "bytes" if known else "tokens"):
        found = dict.fromkeys(f"{result[name]:,}" for result in results if result.get(name) is not None)
        if len(found) > 1:
            return f"note: the runs were not evaluated on the same text: {', '.join(found)} {name}"
    return None


def report(
    combinations: list[dict[str, str]],
    results: list[dict[str, Any]],
    workdir: Path,
    title: str,
    without: Collection[str] = (),
) -> Table:
    """Write CSV and plots of the runs so far, and return the table of means over seeds.

    Without a metric that all runs have, except those in `without`, the table has none, and there is no plot of it.
    """
    write_csv(workdir / "results.csv", combinations, results)
    metric, groups = shared_metric(results, without), grouped(combinations, results)
    axis = next((field for field in fields_of(combinations) if field != "seed"), "seed")
    lines, curves = {}, {}
    parts = list(dict.fromkeys(name for run in results for name in run.get("groups", {})))
    table = Table(
        axis, "other fields", "state bytes", "parameters", metric or "no shared metric", "± (seeds)", "runs", *parts
    )
    for (value, label), runs in groups.items():
        scores = [run[metric] for run in runs] if metric else []
        lines.setdefault(label, {})[value] = scores
        mean = f"{statistics.mean(scores):.4f}" if scores else ""
        spread = f"{statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
        sizes = [", ".join(dict.fromkeys(f"{run[name]:,}" for run in runs)) for name in ("state_bytes", "parameters")]
        row = [value, label, *sizes, mean, spread, str(len(runs))]
        found = [[run["groups"][name] for run in runs if name in run.get("groups", {})] for name in parts]
        table.add_row(*row, *(f"{statistics.mean(values):.4f}" if values else "" for values in found))
        if runs[0].get("curve"):
            name = f"{axis.rpartition('.')[2]} {value}" + (f", {label}" if label else "")
            curves[name] = [run["curve"] for run in runs]
    if metric is not None:
        plot_ablation(lines, workdir / "results.png", axis, metric, title)
        if len({run["state_bytes"] for run in results}) > 1:
            points = by_state_bytes(combinations, results, metric)
            plot_state_bytes(points, workdir / "state_bytes.png", metric, title)
    if curves:
        plot_curves(curves, workdir / "curves.png", title)
    return table


def check_lengths(configs: Sequence[ExperimentConfig]) -> None:
    """Raise `ValueError` if the task of a config that sweeps `training.sequence_length` has its own row length."""
    for config in configs:
        if config.row_length is not None:
            fields = " or ".join(f"data.{name}" for name in getattr(config.data, "length_fields", ()))
            raise ValueError(
                f"{LENGTH} has no effect: rows of {type(config.data).__name__} have "
                f"{config.row_length} tokens" + (f"; sweep {fields}" if fields else "")
            )


def config_of(
    config: ExperimentConfig, named: Mapping[str, ExperimentConfig], values: Mapping[str, str]
) -> tuple[ExperimentConfig, int]:
    """The config of a combination, with its swept fields, and the bytes of its layers' state.

    Args:
        config: the config to change, unless `config` is swept.
        named: the swept configs by name.
        values: the combination.

    Raises:
        ValueError: a field or a value is wrong; the message begins with the name of the run.
    """
    fields = {name: word for name, word in values.items() if name != "config"}
    try:
        changed = override(named.get(values.get("config", ""), config), sweep_words(fields))
        return changed, layer_memory_bytes(changed.model)
    except ValueError as error:
        raise ValueError(f"{run_name(values)}: {error}") from None


@one_line_errors((RunError, ValueError))
def main(argv: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)
    config, arguments = parse(Arguments, __doc__, words)
    combinations = sweep(arguments.sweep)
    names = {values["config"] for values in combinations if "config" in values}
    named = {name: parse(Arguments, __doc__, [name, *words[1:]])[0] for name in names}
    configs = [config_of(config, named, values) for values in combinations]  # refuses wrong values
    swept = [run_config for (run_config, _), values in zip(configs, combinations, strict=True) if LENGTH in values]
    check_lengths(swept)
    units = [loss_unit(run_config) for run_config, _ in configs]
    without = () if all(unit == units[0] for unit in units) else ("loss",)
    console, done, results, failed, table = Console(markup=False), [], [], [], ""
    for number, (values, (run_config, size)) in enumerate(zip(combinations, configs, strict=True), start=1):
        name = run_name(values)
        console.print(f"run {number} of {len(combinations)}: {name}")
        try:
            result = train(run_config, arguments.workdir / name)["evaluation"]
        except (RunError, ValueError) as error:
            failed.append(f"{name}: {error}")
            continue
        finally:
            jax.clear_caches()  # later runs do not use these compiled functions
        done.append(values)
        counts = {"state_bytes": size, "parameters": trained_parameters(arguments.workdir / name)}
        results.append(result | counts)
        table = report(done, results, arguments.workdir, arguments.workdir.name, without)
    console.print(table)
    if without:
        console.print("note: the losses are not compared: the tokenizer, the objective or the loss of the head differs")
    if note := unequal_text(results):
        console.print(note)
    if failed:
        listed = "\n".join(failed)
        raise RunError(f"{len(failed)} of {len(combinations)} runs failed:\n{listed}")
