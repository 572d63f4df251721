"""The state of a training run, one pytree that each step takes and returns."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memgpt_jax import data, models, parallel
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.ops.trees import tree_bytes
from memgpt_jax.training.optimizer import make_optimizer, parameter_groups
from memgpt_jax.training.teachers import initial_model_state


class Totals(NamedTuple):
    """Sums over scored targets (float32 scalars), as a loss function returns them for one batch."""

    loss: jax.Array
    """Sum of losses times weights, in nats."""
    weight: jax.Array
    """Sum of weights."""
    target_bytes: jax.Array | float = math.nan
    """Sum of the UTF-8 bytes of the targets times weights; NaN: unknown, and no bits per byte are logged."""
    correct: jax.Array | float = math.nan
    """Sum of the weights of targets that were the most likely ones; NaN: unknown, and no accuracy is logged."""


class DistilledTotals(NamedTuple):
    """`Totals` with the part of the loss that comes from the teachers of `DistillConfig`."""

    loss: jax.Array
    weight: jax.Array
    target_bytes: jax.Array | float
    correct: jax.Array | float
    distillation: jax.Array
    """Sum of the losses that come from the teachers, w T^2 KL and that of hidden states, times weights."""


LossFunction = Callable[[Any, data.Batch, Any, jax.Array], tuple[Totals, Any]]
"""`(model, batch, state, key) -> (totals, new state)` for one batch of B rows, inside the compiled step.

The step minimises sum of `totals.loss` / sum of `totals.weight` over all accumulated batches, so accumulation is exact
whatever the weights are, if the losses of a row do not depend on the other rows.
`model` is the module with the current parameters (those that `optimizer.trainable` excludes
are constants); `state` is the model's state before the batch; `key` is a PRNG key for dropout. A
`jax.tree_util.Partial(function, *arrays)`, such as a teacher's parameters, passes its arrays to the compiled step as
arguments: they are not embedded in the program, and get no gradient.
"""


class TrainState(NamedTuple):
    """State of a run between two steps. Together with the position in the data, it determines all later steps."""

    step: jax.Array
    """Steps taken, skipped ones included; int32."""
    params: Any
    """Parameters of the model, float32."""
    opt_state: Any
    """State of the optax chain."""
    model_state: Any
    """State of the model for each batch row: windows, memories, positions; with teachers in each step, `Taught`."""
    key: jax.Array
    """PRNG key of dropout; each step folds its number in."""
    totals: Totals | DistilledTotals
    """Sums since the last logged step, without skipped steps."""
    skipped: jax.Array
    """Updates that were skipped so far; int32."""
    skipped_in_a_row: jax.Array
    """Updates that were skipped since the last good one; int32."""


@functools.lru_cache(maxsize=4)
def abstract_state(config: ExperimentConfig) -> TrainState:
    """Shapes and dtypes of `create(config)`. Nothing is allocated, and the initialisation is not traced again."""
    return jax.eval_shape(functools.partial(state_of, config), models.functional(config.model).param_shapes())


def shardings(config: ExperimentConfig, mesh: jax.sharding.Mesh) -> TrainState:
    """Shardings of a run's state: how its arrays are split over a mesh."""
    shapes = abstract_state(config)
    split = {name: parallel.parameter_shardings(tree, mesh) for name, tree in shapes._asdict().items()}
    return TrainState(**split | {"model_state": parallel.state_shardings(shapes.model_state, mesh)})


def totals_type(config: ExperimentConfig) -> type[Totals] | type[DistilledTotals]:
    """The class of the sums of a run."""
    return DistilledTotals if config.distill.active else Totals


def checkpoint_bytes(config: ExperimentConfig) -> int:
    """Bytes of parameters and optimizer state, the part of a checkpoint that hardly compresses."""
    state = abstract_state(config)
    return tree_bytes((state.params, state.opt_state))


def create(config: ExperimentConfig) -> TrainState:
    """The state of a run before its first step."""
    params_key, _ = jax.random.split(jax.random.key(config.seed))
    return state_of(config, models.functional(config.model).init(params_key))


def state_of(config: ExperimentConfig, params: models.Params) -> TrainState:
    """The state of a run that begins with the given parameters."""
    _, dropout_key = jax.random.split(jax.random.key(config.seed))
    optimizer = make_optimizer(config.optimizer, config.training.steps, parameter_groups(config.model))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        model_state=initial_model_state(config),
        key=dropout_key,
        totals=totals_type(config)(*(jnp.zeros((), jnp.float32) for _ in totals_type(config)._fields)),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
    )
