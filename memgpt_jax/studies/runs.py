"""Folders of runs: their names by swept fields, and opening a run under other settings."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.studies.command_line import assignments, override, sweep_words
from memgpt_jax.training import load
from memgpt_jax.training.process.workdir import load_run_tokenizer


class Trained(NamedTuple):
    """What `reopen` returns."""

    config: ExperimentConfig
    """The run's config, with the changes."""
    params: Any
    """Its parameters."""
    tokenizer: Any
    """Its tokenizer; None where all of its data is generated."""


def run_name(values: Mapping[str, str]) -> str:
    """The folder name of a combination of swept values, such as `model.memory.memory_size=64,seed=0`."""
    return ",".join(f"{field}={value}" for field, value in values.items()).replace("/", "_").replace(" ", "_")


def reopen(workdir: str | Path, change: Sequence[str] = (), step: int | None = None) -> Trained:
    """Open a run with changed settings, to measure it.

    Arguments:
        workdir: the folder of the run.
        change: changes of the config, each `field=value`.
        step: step of the checkpoint; default: the latest.

    Raises:
        RunError: there is no such checkpoint, or it cannot be read.
        ValueError: a change is not of this form, or the tokenizer is damaged.
    """
    saved = load(workdir, step)
    saved_config = dataclasses.replace(saved.config, model=saved.config.model.with_kernels("auto"))
    config = override(saved_config, sweep_words(assignments(change))) if change else saved_config
    tokenizer = load_run_tokenizer(workdir) if config.text else None
    return Trained(config, saved.params, tokenizer)
