"""Folders of runs: their names by swept fields, and opening a run under other settings."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from memgpt_jax.checkpoint import Checkpoints, Run, load_run
from memgpt_jax.models.parameters import count_parameters
from memgpt_jax.studies.command_line import assignments, override, sweep_words
from memgpt_jax.training.start import LEARNED, check_outputs


def run_name(values: Mapping[str, str]) -> str:
    """The folder name of a combination of swept values, such as `model.memory.memory_size=64,seed=0`."""
    return ",".join(f"{field}={value}" for field, value in values.items()).replace("/", "_").replace(" ", "_")


def trained_parameters(workdir: Path) -> int:
    """Number of parameters of a run's model, with what its data and its pretrained model determine."""
    with Checkpoints(workdir, read_only=True) as checkpoints:
        return count_parameters(checkpoints.config(checkpoints.find(None)).model)


def reopen(workdir: str | Path, change: Sequence[str] = (), step: int | None = None) -> Run:
    """`load_run`, with kernels chosen for this machine and changed settings.

    Args:
        workdir: the folder of the run.
        change: changes of the run's config, each `field=value`.
        step: the step of the checkpoint; default: the best of the run's validations, else the latest.

    Raises:
        RunError: there is no such checkpoint, or it cannot be read.
        ValueError: a change has another form, is not valid, or needs another head than the run has, or a run on text
            has no tokenizer.
    """
    run = load_run(workdir, step)
    if run.config.text is not None and run.tokenizer is None:
        raise ValueError(f"{workdir} has no tokenizer/: restore the folder from a copy")
    config = dataclasses.replace(run.config, model=run.config.model.with_kernels("auto"))
    if change:
        config = override(config, sweep_words(assignments(change)))
        remedy = "leave out the change, or train a run on such data"
        check_outputs(run.config.model, config.data, str(workdir), remedy, LEARNED)
    return run._replace(config=config)
