"""A Markdown report of an evaluation of labels, tags or answers: results by class, confusion matrix, worst mistakes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memgpt_jax.files.replacement import replace_file
from memgpt_jax.studies.plots import plot_confusion

MOST_CLASSES = 40
"""Classes up to which the confusion matrix is drawn."""


def write_report(path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a report with one section for each result, and beside it a PNG of each confusion matrix.

    Args:
        path: the Markdown file; its folder is created.
        results: a `LabelResult`, `TagResult` or `SpanResult` for each label.

    Raises:
        ValueError: no result has mistakes to report.
    """
    reported = {label: result for label, result in results.items() if "mistakes" in result}
    if not reported:
        raise ValueError("report: only runs on labelled texts, tagged words and questions have a report of mistakes")
    path.parent.mkdir(parents=True, exist_ok=True)
    sections = []
    for number, (label, result) in enumerate(reported.items(), start=1):
        sections += [f"# {label}", _numbers(result)]
        if classes := result.get("classes") or result.get("types"):
            sections.append(_by_class(classes))
        if 1 < len(result.get("confusion", ())) <= MOST_CLASSES:
            plot = path.with_name(f"{path.stem}-{number}.png")
            plot_confusion(result["confusion"], list(result["classes"]), plot, label)
            sections.append(f"![Confusion matrix]({plot.name})")
        sections += [f"## The {len(result['mistakes'])} worst mistakes", *map(_mistake, result["mistakes"])]
    replace_file(path, "\n\n".join(sections) + "\n")


def _numbers(result: Mapping[str, Any]) -> str:
    rows = [(name.replace("_", " "), value) for name, value in result.items() if isinstance(value, int | float)]
    return _table(("result", "value"), rows)


def _by_class(classes: Mapping[str, Mapping[str, Any]]) -> str:
    header = ("class", "precision", "recall", "f1", "support")
    return _table(header, [(name, *(found[column] for column in header[1:])) for name, found in classes.items()])


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else _plain(str(value))


def _mistake(mistake: Mapping[str, Any]) -> str:
    expected, predicted = (_plain(mistake[side]) or "nothing" for side in ("expected", "predicted"))
    head = f"**{expected}**, predicted **{predicted}**"
    return f"{head}, loss {mistake['loss']:.2f} nats ({_plain(mistake['where'])})\n\n> {_plain(mistake['text'])}"


def _plain(text: str) -> str:
    """A text as one line of Markdown that shows its characters as they are."""
    escaped = "".join(f"\\{character}" if character in "\\`*_[]<>|#&" else character for character in text)
    return " ".join(escaped.split())
