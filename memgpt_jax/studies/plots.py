"""Plots of evaluations and ablations, as PNG files."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import StrMethodFormatter

METRIC_LABELS = {
    "bits_per_byte": "bits per byte",
    "rmse": "root mean square error",
    "accuracy": "accuracy",
    "perplexity_per_token": "perplexity per token",
    "perplexity_per_word": "perplexity per word",
}


def plot_curves(curves: Mapping[str, Sequence[Sequence[dict[str, Any]]]], path: str | Path, title: str = "") -> None:
    """Bits per byte against position in the document, one line for each label.

    `curves` maps a label to one curve (see `evaluate`) for each seed; several seeds give their mean, with the
    standard deviation as error bars. Only position ranges that every seed has are drawn.
    """
    figure, axes = new_figure(title, "position in the document (tokens)", METRIC_LABELS["bits_per_byte"])
    for label, seeds in curves.items():
        number = min(len(curve) for curve in seeds)
        # The first range starts at 0, which a logarithmic axis cannot show: points are drawn at the middle of each
        # range.
        middles = [(bucket["start"] + bucket["end"]) / 2 for bucket in seeds[0][:number]]
        values = [[curve[i]["bits_per_byte"] for curve in seeds] for i in range(number)]
        draw_line(axes, middles, values, label)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.legend(frameon=False)
    save(figure, path)


def plot_ablation(
    lines: Mapping[str, Mapping[str, Sequence[float]]], path: str | Path, field: str, metric: str, title: str = ""
) -> None:
    """A metric against the values of the swept field, with the standard deviation over seeds as error bars.

    `lines` maps a label (of the other swept fields; "" if there are none) to {value of `field`: the metric of each
    seed}. Values are placed at equal distances in the order given, so that 0, 64, 1024 and words are all legible.
    """
    figure, axes = new_figure(title, field, METRIC_LABELS.get(metric, metric.replace("_", " ")))
    ticks = list(dict.fromkeys(value for points in lines.values() for value in points))
    for label, points in lines.items():
        draw_line(axes, [ticks.index(value) for value in points], list(points.values()), label)
    axes.set_xticks(range(len(ticks)), ticks)
    if any(lines):
        axes.legend(frameon=False)
    save(figure, path)


def plot_recall(
    lines: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    path: str | Path,
    title: str = "",
    x_label: str = "tokens of the stream",
    metric: str = "accuracy",
) -> None:
    """A metric against a length, one line for each label, seeds as error bars.

    `lines` maps a label to one list of `{length, METRIC, ...}` (see `recall_along_stream`) for each seed.
    """
    figure, axes = new_figure(title, x_label, METRIC_LABELS.get(metric, metric.replace("_", " ")))
    ticks = sorted({point["length"] for seeds in lines.values() for point in seeds[0]})
    for label, seeds in lines.items():
        lengths = [point["length"] for point in seeds[0]]
        values = [[points[i][metric] for points in seeds] for i in range(len(lengths))]
        draw_line(axes, lengths, values, label)
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{length:,}" for length in ticks])
    axes.minorticks_off()
    if metric == "accuracy":
        axes.set_ylim(-0.03, 1.03)
    axes.legend(frameon=False)
    save(figure, path)


def plot_by_length(lines: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path, title: str = "") -> None:
    """A metric by length, one line for each label.

    `lines` maps a label to one `ByLength` for each seed. The error bars of one seed are its 95% confidence intervals,
    those of several seeds the standard deviation around their mean.
    """
    first = next(iter(lines.values()))[0]
    figure, axes = new_figure(title, first["unit"], first["metric"].replace("_", " "))
    for label, seeds in lines.items():
        lengths = [group["mean_length"] for group in seeds[0]["groups"]]
        groups = list(zip(*(result["groups"] for result in seeds), strict=True))
        values = [[group["value"] for group in of_seeds] for of_seeds in groups]
        if len(seeds) > 1:
            draw_line(axes, lengths, values, label)
            continue
        below, above = ([abs(group["value"] - group["interval"][side]) for (group,) in groups] for side in (0, 1))
        means = [value for (value,) in values]
        axes.errorbar(lengths, means, yerr=[below, above], label=label, marker="o", markersize=4, capsize=3)
    ticks = sorted({group["mean_length"] for seeds in lines.values() for group in seeds[0]["groups"]})
    axes.set_xscale("log" if ticks[0] > 0 else "symlog")
    axes.set_xticks(ticks, [f"{length:,.0f}" for length in ticks])
    axes.minorticks_off()
    figure.legend(frameon=False, loc="outside lower center", ncols=min(3, len(lines)))
    save(figure, path)


def plot_confusion(counts: Sequence[Sequence[int]], labels: Sequence[str], path: str | Path, title: str = "") -> None:
    """A confusion matrix: the share of each class (row) by predicted class (column); up to 12 classes with counts."""
    size = max(4.0, 0.35 * len(labels) + 2)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.add_subplot()
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(title=title, xlabel="predicted", ylabel="expected")
    axes.set_xticks(range(len(labels)), labels, rotation=90 if max(map(len, labels)) > 3 else 0)
    axes.set_yticks(range(len(labels)), labels)
    if len(labels) <= 12:
        for row, shares_of_row in enumerate(shares):
            for column, share in enumerate(shares_of_row):
                color = "white" if share > 0.5 else "black"
                axes.text(column, row, f"{counts[row][column]:,}", ha="center", va="center", color=color)
    figure.colorbar(image, ax=axes, label="share of the class")
    save(figure, path)


def label_of_seeds(runs: Sequence[str]) -> str:
    """The label of runs that differ in the seed: the folder of one run, or the first folder without its number."""
    return runs[0] if len(runs) == 1 else runs[0].rstrip("0123456789").rstrip("-_=,")


def plot_state_bytes(
    lines: Mapping[str, Mapping[int, Sequence[float]]], path: str | Path, metric: str, title: str = ""
) -> None:
    """A metric against the bytes of state of a layer and row, one line for each mechanism, seeds as error bars.

    `lines` maps a label to {bytes: the metric of each seed}. A mechanism without state is a dashed horizontal line.
    """
    figure, axes = new_figure(
        title, "state of a layer (bytes per row)", METRIC_LABELS.get(metric, metric.replace("_", " "))
    )
    for label, points in lines.items():
        sizes = sorted(size for size in points if size > 0)
        if sizes:
            draw_line(axes, sizes, [points[size] for size in sizes], label)
        if 0 in points:
            axes.axhline(statistics.mean(points[0]), linestyle="--", color="gray", label=label)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if any(lines):
        axes.legend(frameon=False)
    save(figure, path)


def draw_line(axes: Axes, x: Sequence[float], values: Sequence[Sequence[float]], label: str) -> None:
    """A line through the means over seeds of `values` (one list per point), with error bars for several seeds."""
    spread = [statistics.stdev(seeds) if len(seeds) > 1 else 0.0 for seeds in values]
    means = [statistics.mean(seeds) for seeds in values]
    axes.errorbar(x, means, yerr=spread if any(spread) else None, label=label, marker="o", markersize=4, capsize=3)


def new_figure(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """An empty figure. It is made without pyplot, which would set the backend of the whole process."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure as PNG, with `$` in labels as it is; its folder is created."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_figure(str(path), dpi=160)
