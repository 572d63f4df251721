"""Plots are written, with labelled axes and error bars where there are seeds."""

from pathlib import Path

import pytest
from matplotlib.text import Text

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.tasks.copy import CopyConfig
from memgpt_jax.studies import plots
from memgpt_jax.studies.comparison import Lines, shared_metric

COPY = CopyConfig()


def curve(value: float) -> list[dict]:
    return [
        {"start": 0, "end": 64, "bits_per_byte": value, "tokens": 10, "bytes": 10},
        {"start": 64, "end": 128, "bits_per_byte": value / 2, "tokens": 10, "bytes": 10},
    ]


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved."""
    saved, save = [], plots.save
    monkeypatch.setattr(plots, "save", lambda figure, path: (saved.append(figure), save(figure, path)))
    return saved


def test_curves(tmp_path, figures):
    plots.plot_curves({"a": [curve(2.0), curve(3.0)], "b": [curve(1.0)[:1]]}, tmp_path / "new" / "curves.png", "title")
    assert (tmp_path / "new" / "curves.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figures[0].axes
    assert axes.get_xlabel() == "position in the document (tokens)" and axes.get_ylabel() == "bits per byte"
    line = axes.containers[0].lines[0]
    assert line.get_xdata().tolist() == [32, 96] and line.get_ydata().tolist() == [2.5, 1.25]
    assert axes.containers[0].has_yerr and not axes.containers[1].has_yerr


def test_results_by_length(tmp_path, figures):
    """One seed has the interval of its groups as error bars, two seeds have their standard deviation."""

    def result(*values):
        groups = [
            {"mean_length": 10.0**place, "value": value, "interval": [value - 0.1, value + 0.3]}
            for place, value in enumerate(values)
        ]
        return {"metric": "hit_rate_10", "unit": "items before", "groups": groups}

    lines = {"a": [result(0.4, 0.5)], "b": [result(0.2, 0.4), result(0.4, 0.4)]}
    plots.plot_by_length(lines, tmp_path / "lengths.png")
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figures[0].axes
    assert axes.get_xlabel() == "items before" and axes.get_ylabel() == "hit rate 10"
    one, two = axes.containers
    assert one.lines[0].get_xdata().tolist() == [1, 10] and two.lines[0].get_ydata().tolist() == pytest.approx(
        [0.3, 0.4]
    )
    bars = [[y for _, y in segment] for segment in one.lines[2][0].get_segments()]
    assert bars == [pytest.approx([0.3, 0.7]), pytest.approx([0.4, 0.8])]
    bars = [[y for _, y in segment] for segment in two.lines[2][0].get_segments()]
    assert bars == [pytest.approx([0.3 - 0.02**0.5, 0.3 + 0.02**0.5]), pytest.approx([0.4, 0.4])]


def test_ablation(tmp_path, figures):
    lines = {"": {"0": [0.5, 0.7], "64": [0.9]}}
    plots.plot_ablation(lines, tmp_path / "results.png", "model.memory.memory_size", "accuracy")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figures[0].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "64"]
    assert axes.containers[0].lines[0].get_ydata().tolist() == pytest.approx([0.6, 0.9])
    assert axes.get_legend() is None


def test_recall(tmp_path, figures):
    seeds = [[{"length": 10, "accuracy": a}, {"length": 1000, "accuracy": b}] for a, b in ((1.0, 0.5), (1.0, 0.7))]
    plots.plot_recall({"a": seeds, "b": seeds[:1]}, tmp_path / "recall.png", "title")
    assert (tmp_path / "recall.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figures[0].axes
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "tokens of the stream"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "1,000"]
    line = axes.containers[0].lines[0]
    assert line.get_xdata().tolist() == [10, 1000] and line.get_ydata().tolist() == pytest.approx([1.0, 0.6])
    losses = [[{"length": 10, "loss": 3.0}, {"length": 100, "loss": 5.0}]]
    plots.plot_recall({"a": losses}, tmp_path / "recall.png", x_label="items", metric="loss")
    (axes,) = figures[1].axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("items", "loss") and axes.get_ylim()[1] > 5


def test_dollars_are_no_formulas(tmp_path, figures):
    labels = [r"$\frac$", "$5 to $9"]
    plots.plot_confusion([[1, 2], [3, 4]], labels, tmp_path / "dollars.png", title="$x_$")
    plots.plot_ablation({label: {label: [1.0]} for label in labels}, tmp_path / "dollars.png", "field", "loss")
    assert (tmp_path / "dollars.png").is_file()
    drawn = [text for figure in figures for text in figure.findobj(Text) if "$" in text.get_text()]
    assert len(drawn) >= 9 and not any(text.get_parse_math() for text in drawn)


def test_numbers_are_compared_by_their_error():
    assert shared_metric([{"loss": 1.0, "rmse": 2.0}, {"loss": 1.0, "rmse": 3.0}]) == "rmse"


def test_runs_that_differ_in_their_seed_share_a_label():
    assert plots.label_of_seeds(["runs/copy-0"]) == "runs/copy-0"
    assert plots.label_of_seeds(["runs/copy-0", "runs/copy-1"]) == "runs/copy"
    assert plots.label_of_seeds(["sweep/model=kv,seed=0", "sweep/model=kv,seed=10"]) == "sweep/model=kv,seed"


def test_lines_of_equal_labels_have_the_names_of_folders():
    lines = Lines()
    for number, config in enumerate([ExperimentConfig(), ExperimentConfig(seed=1), *[ExperimentConfig(data=COPY)] * 2]):
        lines.add(Path(f"runs/n{number}"), config, [{"length": number}])
    points = [[{"length": number}] for number in range(4)]
    assert lines.labelled() == {"runs/n0": points[:2], "runs/n2": points[2:]}
    lines.add(Path("runs/other"), ExperimentConfig(seed=2), [{"length": 0}], " memory 8")
    assert [*lines.labelled()] == ["runs/n0", "runs/n2", "runs/other memory 8"]


def test_state_bytes(tmp_path, figures):
    lines = {"memory none": {0: [0.1, 0.3]}, "memory kv": {4096: [0.9, 0.7], 1024: [0.5, 0.5]}}
    plots.plot_state_bytes(lines, tmp_path / "state_bytes.png", "accuracy", "title")
    (axes,) = figures[0].axes
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "state of a layer (bytes per row)"
    line = axes.containers[0].lines[0]
    assert line.get_xdata().tolist() == [1024, 4096] and line.get_ydata().tolist() == pytest.approx([0.5, 0.8])
    (level,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert level.get_ydata() == pytest.approx([0.2, 0.2]) and level.get_label() == "memory none"
