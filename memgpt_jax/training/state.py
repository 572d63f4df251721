"""Everything that a training run carries from step to step, in one pytree."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memgpt_jax import models, parallel
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.ops.trees import tree_bytes
from memgpt_jax.training.optimizer import make_optimizer, parameter_groups


class Totals(NamedTuple):
    """Sums over scored tokens (float32 scalars)."""

    loss: jax.Array
    """Of losses times weights, in nats."""
    weight: jax.Array
    """Of weights."""
    target_bytes: jax.Array
    """Of the UTF-8 bytes that targets stand for, times weights."""
    correct: jax.Array
    """Of weights where the most likely token was the target."""


class TrainState(NamedTuple):
    """State of a run between two steps; a checkpoint of it and of the data position is a run's whole past."""

    step: jax.Array
    """Steps taken, skipped ones included; int32."""
    params: Any
    """Parameters of the model, float32."""
    opt_state: Any
    """State of the optax chain."""
    memory: Any
    """State of the model for each batch row: windows, memories, positions."""
    key: jax.Array
    """PRNG key of dropout; each step folds its number in."""
    totals: Totals
    """Since the last logged step; skipped steps left out."""
    skipped: jax.Array
    """Updates that were skipped so far; int32."""
    skipped_in_a_row: jax.Array
    """Updates that were skipped since the last good one; int32."""


@functools.lru_cache(maxsize=4)
def abstract_state(config: ExperimentConfig) -> TrainState:
    """Shapes and types of `create(config)`: nothing is allocated."""
    return jax.eval_shape(functools.partial(create, config))


def shardings(config: ExperimentConfig, mesh: jax.sharding.Mesh) -> TrainState:
    """How the arrays of a run's state are split over a mesh."""
    shapes = abstract_state(config)
    split = {name: parallel.parameter_shardings(tree, mesh) for name, tree in shapes._asdict().items()}
    return TrainState(**split | {"memory": parallel.state_shardings(shapes.memory, mesh)})


def checkpoint_bytes(config: ExperimentConfig) -> int:
    """Bytes of parameters and optimizer state, the part of a checkpoint that hardly compresses."""
    state = abstract_state(config)
    return tree_bytes((state.params, state.opt_state))


def create(config: ExperimentConfig) -> TrainState:
    """The state of a run that has not taken a step."""
    params_key, dropout_key = jax.random.split(jax.random.key(config.seed))
    optimizer = make_optimizer(config.optimizer, config.training.steps, parameter_groups(config.model))
    params = models.functional(config.model).init(params_key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        memory=models.functional(config.model).init_state(config.training.batch_size),
        key=dropout_key,
        totals=Totals(*(jnp.zeros((), jnp.float32) for _ in Totals._fields)),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
    )
