"""Train the same GPT with and without memory at equal parameter counts, and compare. About five minutes.

    memgpt-jax demo

Two tasks: the source of the Python standard library, and recall of pairs far outside the attention window. A second
call reads finished runs back; remove the folder to train again."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from memgpt_jax.config.checks import instance_of
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.models.parameters import count_parameters, match_parameters
from memgpt_jax.studies.command_line import load_config, one_line_errors, override, parse_arguments
from memgpt_jax.studies.commands.generate import open_session
from memgpt_jax.studies.plots import plot_curves
from memgpt_jax.training import RunError, train

PROMPT = 'import os\n\n\ndef read_lines(path):\n    """'


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this command."""

    workdir: Path = Path("runs/demo")
    """Folder of the runs and the plot."""


TASKS = {"quickstart": [], "recall": ["--training.steps", "230"]}
"""The config of each task, and its changes: fewer steps, so that the demo takes less than five minutes."""


def experiments() -> dict[str, ExperimentConfig]:
    """Each task with memory, and without memory at an equal parameter count."""
    configs = {}
    for task, changes in TASKS.items():
        config = override(load_config(task), changes)
        configs[task] = config
        plain = match_parameters(instance_of(config.model, ModelConfig, "model"))
        configs[f"{task}_none"] = dataclasses.replace(config, model=plain)
    return configs


def comparison(configs: dict[str, ExperimentConfig], results: dict[str, dict[str, Any]]) -> Table:
    """Held-out results side by side; lower bits per byte and higher accuracy are better."""
    table = Table("task", "measure", "without memory", "with memory", "parameters without / with")
    for task, title, metric in (
        ("quickstart", "Python standard library", "bits_per_byte"),
        ("recall", "recall from far outside the window", "accuracy"),
    ):
        without, with_memory = results[f"{task}_none"][metric], results[task][metric]
        counts = [f"{count_parameters(configs[name].model):,}" for name in (f"{task}_none", task)]
        measure = metric.replace("_", " ")
        table.add_row(title, measure, f"{without:.3f}", f"[bold]{with_memory:.3f}[/bold]", " / ".join(counts))
    return table


@one_line_errors(RunError)
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(Arguments, __doc__, argv)
    workdir, console, start = arguments.workdir, Console(), time.monotonic()
    configs, results = experiments(), {}
    for name, config in configs.items():
        console.print(f"[bold]{name}[/bold]: {config.training.steps} steps")
        results[name] = train(config, workdir / name)["evaluation"]
        jax.clear_caches()

    console.print(comparison(configs, results))
    curves = {"without memory": [results["quickstart_none"]["curve"]], "with memory": [results["quickstart"]["curve"]]}
    plot_curves(curves, workdir / "curves.png", "Python standard library, held-out files")

    session = open_session(workdir / "quickstart")
    session.feed(PROMPT)
    text = session.generate(max_new_tokens=128, temperature=0.7, top_p=0.95)
    console.print(Panel.fit(Text(PROMPT + text), title="generated with memory"))
    console.print(f"plot: {workdir / 'curves.png'}; {time.monotonic() - start:.0f} seconds")
