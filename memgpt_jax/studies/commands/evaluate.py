"""Evaluate runs on held-out documents: a table, a JSON file and a plot, side by side.

    memgpt-jax evaluate runs/stdlib runs/stdlib_none --memory-size 0 256 1024
    memgpt-jax evaluate runs/recall --memory-size 1024 --change data.context_length=1024
    memgpt-jax evaluate runs/sst2 --split test --report sst2.md
    memgpt-jax evaluate runs/copy-0 runs/copy-1 runs/copy-2 --lengths 20 40 80 160

Results on texts and histories are also given by length, in four groups of about equal size, as a table and a plot.
`--lengths` evaluates tasks at other lengths than in training, texts by their first tokens, and plots accuracy or loss
against length; runs whose configs differ only in the seed become one line. All results are written to
`comparison.json` and `comparison.png` in the folder of the first run or in `--output`."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from memgpt_jax.config.checks import instance_of
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.evaluation import evaluate
from memgpt_jax.evaluation.metrics.by_length import ByLength, LengthGroup
from memgpt_jax.studies.command_line import one_line_errors, parse_arguments
from memgpt_jax.studies.comparison import (
    Lines,
    RunsArguments,
    check_failed,
    check_runs,
    others_go_on,
    shared_metric,
    write_results,
)
from memgpt_jax.studies.plots import plot_by_length, plot_curves, plot_recall
from memgpt_jax.studies.report import write_report
from memgpt_jax.studies.runs import reopen
from memgpt_jax.training import RunError

COLUMNS = (
    "length",
    "bits_per_byte",
    "accuracy",
    "f1",
    "micro_f1",
    "macro_f1",
    "bleu",
    "chrf",
    "rouge1",
    "rouge2",
    "rouge_l",
    "exact_match",
    "word_f1",
    "phrase",
    "wer",
    "l1",
    "finished",
    "begins",
    "triple_f1",
    "seconds_per_question",
    "seconds_per_question_read_again",
    "same_answers",
    "source_right",
    "source_chance",
    "questions",
    "failed_tasks",
    "answers",
    "rmse",
    "mae",
    "pearson",
    "spearman",
    "hit_rate_10",
    "ndcg_10",
    "average_precision",
    "mrr",
    "hits_1",
    "hits_3",
    "hits_10",
    "cited",
    "edited",
    "kept",
    "reachable",
    "triples",
    "recall_100",
    "recall_1",
    "queries",
    "replies",
    "candidates",
    "preferred",
    "preferred_error",
    "difference",
    "predictions",
    "loss",
    "unigram_loss",
    "next_sentence_accuracy",
    "next_sentence_loss",
    "pairs",
    "perplexity_per_token",
    "perplexity_per_word",
    "examples",
    "numbers",
    "users",
    "documents",
    "tokens",
)


@dataclass(frozen=True, kw_only=True)
class Arguments(RunsArguments):
    """Options of this command; everything else is as in the run's own config."""

    memory_size: tuple[int, ...] = ()
    """Evaluate with memories of these sizes; default: the size in training. Runs without memory are evaluated once."""
    lengths: tuple[int, ...] = ()
    """Evaluate tasks at these lengths, in the unit of the task: symbols to copy, items, definitions, or tokens to which
    texts are cut."""
    split: Literal["valid", "test"] | None = None
    """The split to read."""
    max_documents: int | Literal["config"] | None = "config"
    """Number of documents, None: all; default: as in the run's config."""
    max_tokens: int | Literal["config"] | None = "config"
    """Tokens read of each document, None: all; default: as in the run's config."""
    report: Path | None = None
    """Markdown file for a report on labels, tags or answers: results by class, confusion matrix, the 20 worst
    mistakes."""


def settings_of(config: ExperimentConfig, arguments: Arguments) -> ExperimentConfig:
    """The run's config with this command's options in place."""
    changes: dict[str, Any] = {} if arguments.split is None else {"split": arguments.split}
    for name in ("max_documents", "max_tokens"):
        value = getattr(arguments, name)
        if value != "config":
            changes[name] = value
    return dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, **changes))


def with_memory_size(config: ExperimentConfig, size: int) -> ExperimentConfig:
    """The same experiment with another size of each memory that has a size."""
    stacks = dict(config.model.stacks)
    for name, stack in stacks.items():
        if hasattr(stack.memory, "memory_size"):
            memory = dataclasses.replace(stack.memory, memory_size=size, match_state_bytes=None)
            stacks[name] = dataclasses.replace(stack, memory=memory)
    return dataclasses.replace(config, model=config.model.with_stacks(stacks))


def with_length(config: ExperimentConfig, workdir: Path, length: int) -> ExperimentConfig:
    """The same experiment with its task at another length; `RunError` if the task has no length or refuses it."""
    if not isinstance(config.data, TaskConfig) or not config.data.length_fields:
        raise RunError(
            f"{workdir} was trained on {type(config.data).__name__}, which has no length for --lengths to set"
        )
    try:
        return dataclasses.replace(config, data=config.data.at_length(length))
    except ValueError as error:
        raise RunError(f"{workdir} at length {length}: {error}") from None


def evaluate_run(workdir: Path, arguments: Arguments) -> Iterator[tuple[str, ExperimentConfig, dict[str, Any]]]:
    """(label, config, result) of each memory size and length; the label follows the name of the run."""
    config, params, tokenizer, _ = reopen(workdir, arguments.change, arguments.step)
    config = settings_of(config, arguments)
    has_size = any(hasattr(stack.memory, "memory_size") for stack in config.model.stacks.values())
    sizes = arguments.memory_size if has_size else ()
    for label, sized in {f" memory {size}": with_memory_size(config, size) for size in sizes}.items() or [("", config)]:
        for length in arguments.lengths:
            result = evaluate(with_length(sized, workdir, length), params, tokenizer)
            yield label, sized, {"length": length} | result
        if not arguments.lengths:
            yield label, sized, dict(evaluate(sized, params, tokenizer))


def results_table(results: dict[str, dict[str, Any]]) -> Table:
    """One row for each result, with the columns that any result has."""
    columns = [name for name in COLUMNS if any(name in result for result in results.values())]
    table = Table("run", *(name.replace("_", " ") for name in columns))
    for label, result in results.items():
        table.add_row(label, *(number(result.get(name)) for name in columns))
    return table


def groups_table(results: dict[str, dict[str, Any]]) -> Table:
    """One row for each group of a multi-task run, one column for each result."""
    table = Table("task", *results)
    for name in dict.fromkeys(name for result in results.values() for name in result["groups"]):
        table.add_row(name, *(number(result["groups"].get(name)) for result in results.values()))
    return table


def lengths_table(results: dict[str, ByLength]) -> Table:
    """One row for each result, one column for each range of lengths that any result has."""
    metric, unit = next((found["metric"].replace("_", " "), found["unit"]) for found in results.values())
    ranges = sorted({_range(group) for found in results.values() for group in found["groups"]})
    table = Table(f"{metric} by {unit}", *(f"{first:,} to {last:,}" for first, last in ranges))
    for label, found in results.items():
        values = {_range(group): group["value"] for group in found["groups"]}
        table.add_row(label, *(number(values.get(range_)) for range_ in ranges))
    return table


def _range(group: LengthGroup) -> tuple[int, int]:
    return group["shortest"], group["longest"]


def comparable(results: Mapping[str, Mapping[str, Any]]) -> dict[str, ByLength]:
    """The results by length that have several groups, if they are of one metric and one unit; otherwise none."""
    found = {label: result["by_length"] for label, result in results.items() if "by_length" in result}
    kinds = {(each["metric"], each["unit"]) for each in found.values()}
    return {label: each for label, each in found.items() if len(each["groups"]) > 1} if len(kinds) == 1 else {}


def number(value: float | int | None) -> str:
    """Counts in full, other numbers with four decimals, or four digits from 1,000 on; empty for None."""
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if value < 1000 else f"{value:.4g}"


def show(
    arguments: Arguments, results: dict[str, dict[str, Any]], lines: Lines, groups: Lines, units: dict[str, bool]
) -> None:
    """Print the tables, and write the JSON file, the report and the plots.

    Args:
        arguments: of the command.
        results: by the label of each row.
        lines: with `lengths`: the results of each line of the plot.
        groups: the results by length of the runs.
        units: with `lengths`: the names of their units.
    """
    console, grouped = Console(markup=False), {label: result for label, result in results.items() if "groups" in result}
    console.print(results_table(results))
    if grouped:
        console.print(groups_table(grouped))
    divided = comparable(results)
    if divided:
        console.print(lengths_table(divided))
    plot = write_results(arguments.folder, "comparison", results)
    curves = {label: [result["curve"]] for label, result in results.items() if result.get("curve")}
    if curves:
        plot_curves(curves, plot, "Held-out documents, each from an empty memory")
    if divided and not arguments.lengths:
        seeds = {label: [points[-1] for points in runs] for label, runs in groups.labelled().items()}
        plot_by_length(seeds, plot, "Held-out results by length")
    metric = shared_metric(results.values())
    if arguments.lengths and metric is not None:
        plot_recall(lines.labelled(), plot, "Tasks at other lengths than in training", ", ".join(units), metric)
    if arguments.report is not None:
        write_report(arguments.report, results)


@one_line_errors((RunError, ValueError))
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(Arguments, __doc__, argv)
    check_runs(arguments)
    results, lines, groups, units, failed = {}, Lines(), Lines(), {}, []
    for workdir in arguments.workdirs:
        with others_go_on(failed):
            for label, config, result in evaluate_run(workdir, arguments):
                results[f"{workdir}{label}" + (f" length {result['length']}" if arguments.lengths else "")] = result
                if "by_length" in result:
                    groups.add(workdir, config, [result["by_length"]], label)
                if arguments.lengths:
                    lines.add(workdir, config, [result], label)
                    units[instance_of(config.data, TaskConfig, "data").length_fields[-1]] = True
    if results:
        show(arguments, results, lines, groups, units)
    check_failed(failed, len(arguments.workdirs))
