"""Several runs measured side by side: the options that such commands share, and their JSON file and plot.

Runs whose configs differ in the seed alone become one line of the plot, with seeds as error bars.
"""

import contextlib
import dataclasses
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from memgpt_jax.checkpoint import check_run
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.errors import RunError
from memgpt_jax.files.replacement import replace_file
from memgpt_jax.studies.command_line import assignments
from memgpt_jax.studies.plots import label_of_seeds

METRICS = (
    "accuracy",
    "next_sentence_accuracy",
    "bits_per_byte",
    "f1",
    "micro_f1",
    "rmse",
    "ndcg_10",
    "hit_rate_10",
    "mrr",
    "recall_1",
    "exact_match",
    "rouge_l",
    "bleu",
    "loss",
)
"""The metrics by which runs are compared, the first that all have."""


@dataclass(frozen=True, kw_only=True)
class RunsArguments:
    """Options of a command that measures runs; all other settings are those of each run's own config."""

    workdirs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of the runs, one or more; of all runs of an ablation: `FOLDER/*/`."""
    step: int | None = None
    """Step of the checkpoint to read; default: the best of the run's validations, else the latest."""
    change: tuple[str, ...] = ()
    """Changes of the runs' configs, each `field=value`, such as `model.memory.memory_size=1024`."""
    output: Path | None = None
    """Folder of the JSON file and the plot; default: the folder of the first run."""

    def __post_init__(self) -> None:
        if not self.workdirs:
            raise ValueError("workdirs is empty: give the folder of at least one run")
        assignments(self.change)

    @property
    def folder(self) -> Path:
        """The folder of the JSON file and the plot."""
        return self.output or self.workdirs[0]


def check_runs(arguments: RunsArguments) -> None:
    """Raise `RunError` unless each folder holds a run with the checkpoint to read."""
    for workdir in arguments.workdirs:
        if workdir.is_file():
            raise RunError(
                f"{workdir} is a file, not the folder of a run; all runs of an ablation: {workdir.parent}/*/"
            )
        check_run(workdir, arguments.step)


@contextlib.contextmanager
def others_go_on(failed: list[str]) -> Iterator[None]:
    """Add the message of a run that fails to the list, so that the other runs are measured."""
    try:
        yield
    except (RunError, ValueError) as error:
        failed.append(str(error))


def check_failed(failed: list[str], number: int) -> None:
    """Raise `RunError` with the messages of the runs, of `number`, that failed, if any."""
    if failed:
        first = f"{len(failed)} of {number} runs failed:\n" if number > 1 else ""
        raise RunError(first + "\n".join(failed))


class Lines:
    """Results by line of a plot, where the runs of one config with different seeds share a line."""

    def __init__(self):
        self._groups: dict[tuple[ExperimentConfig, str], dict[str, list[Mapping[str, Any]]]] = {}

    def add(self, run: Path, config: ExperimentConfig, points: Sequence[Mapping[str, Any]], label: str = "") -> None:
        """Add the points of a run; `label` distinguishes several lines of the same run."""
        runs = self._groups.setdefault((dataclasses.replace(config, seed=0), label), {})
        runs.setdefault(str(run), []).extend(points)

    def labelled(self) -> dict[str, list[list[Mapping[str, Any]]]]:
        """For each line its label and the points of each seed, as `plot_recall` takes them.

        Labels that would be equal have the full name of the first folder.
        """
        names = [
            (label_of_seeds([*runs]) + label, next(iter(runs)) + label) for (_, label), runs in self._groups.items()
        ]
        labels = [short for short, _ in names]
        return {
            (short if labels.count(short) == 1 else full): [*runs.values()]
            for (short, full), runs in zip(names, self._groups.values(), strict=True)
        }


def shared_metric(results: Iterable[Mapping[str, Any]], without: Collection[str] = ()) -> str | None:
    """The first of METRICS, but for some, that every result has; None: there is none."""
    found, names = [*results], [name for name in METRICS if name not in without]
    return next((name for name in names if all(result.get(name) is not None for result in found)), None)


def write_results(folder: Path, stem: str, results: Mapping[str, Any]) -> Path:
    """Write `FOLDER/STEM.json`, and return the path of the plot beside it, `FOLDER/STEM.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / f"{stem}.json", json.dumps(results, indent=2) + "\n")
    return folder / f"{stem}.png"
