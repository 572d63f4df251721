"""Folders of runs, made without training."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from memgpt_jax.checkpoint import Checkpoints
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.training.saving import save_run
from memgpt_jax.training.start import run_tokenizer
from memgpt_jax.training.state import abstract_state
from tests.laws.models import random_params


def untrained_run(config: ExperimentConfig, workdir: Path, params: Any = None, position: Any = None) -> Path:
    """Make the folder of a run whose last checkpoint is that of step 0, and return it. No program is compiled.

    The states of the optimizer and of the model are zeros.

    Args:
        config: the experiment.
        workdir: the folder.
        params: the parameters of the model; default: drawn by `random_params`.
        position: the position in the data, a JSON value.
    """
    run_tokenizer(config, workdir)
    shapes = abstract_state(config)._replace(key=None)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    params = random_params(config.model) if params is None else params
    state = zeros._replace(params=params, key=jax.random.key(config.seed))
    with Checkpoints(workdir) as checkpoints:
        save_run(checkpoints, config, state, position)
    return workdir
