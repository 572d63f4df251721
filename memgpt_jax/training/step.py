"""One training step, a pure function of arrays."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from memgpt_jax import data, models
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.model import BaseModelConfig
from memgpt_jax.ops import Scores
from memgpt_jax.ops.int8_vectors import NOT_FINITE, is_int8
from memgpt_jax.ops.trees import where_rows
from memgpt_jax.training.optimizer import is_trained, learning_rate_schedule, make_optimizer, parameter_groups
from memgpt_jax.training.privacy import private_gradients
from memgpt_jax.training.state import DistilledTotals, LossFunction, Totals, TrainState, totals_type
from memgpt_jax.training.teachers import initial_model_state


class StepMetrics(NamedTuple):
    """Measurements of a step (scalars, unless a shape is given)."""

    totals: Totals | DistilledTotals
    """Sums since the last logged step, this one included."""
    learning_rate: jax.Array
    """Learning rate of this update, before the multiplier of gates."""
    gradient_norm: jax.Array
    """Global norm of the gradient, before clipping."""
    skipped: jax.Array
    """Updates skipped so far; int32."""
    skipped_in_a_row: jax.Array
    """Updates skipped since the last good one, this one included; int32. Positive: this update was skipped."""
    finite_loss: jax.Array
    """Whether this step's loss is finite."""
    finite_model_state: jax.Array
    """Whether the model state after this step has neither NaN nor +inf."""
    finite_gradients: jax.Array
    """[number of parameter arrays, in the order of `jax.tree.leaves`] Whether the gradient of each is finite."""


def train_step(
    config: ExperimentConfig, state: TrainState, batches: data.Batch, loss_fn: LossFunction | None = None
) -> tuple[TrainState, StepMetrics]:
    """One update from A = `optimizer.accumulate_steps` consecutive batches of B rows of L tokens.

        loss = Σ losses · weights / Σ weights      over all heads and A batches

    This equals the loss of one batch of A·B rows, unless a loss compares the rows of a batch (`accumulate_steps`).

    With teachers, the losses are those of `DistillConfig`.

    The model state is carried from batch to batch and to the next step as a value: no gradient flows through it. With
    `training.carry_state=False` every batch starts from a fresh one. If the loss, a gradient or the new model state is
    not finite, the update is skipped: parameters, optimizer state and model state do not change.

    Args:
        config: static; bind it with `functools.partial` before `jax.jit`.
        state: the state of the run; may be donated.
        batches: arrays [A, B, ...].

    Returns:
        The state after the step, and its metrics.
    """
    training = config.training
    fresh = initial_model_state(config)
    keys = jax.random.split(jax.random.fold_in(state.key, state.step), config.optimizer.accumulate_steps)

    def accumulate(carry: tuple, inputs: tuple):
        gradients, totals, model_state = carry
        batch, key = inputs
        start = model_state if training.carry_state else fresh
        new_gradients, (new_totals, model_state) = batch_gradients(config, state.params, start, batch, key, loss_fn)
        return (optax.tree.add(gradients, new_gradients), optax.tree.add(totals, new_totals), model_state), None

    if config.optimizer.private is None:
        zeros = optax.tree.zeros_like((state.params, state.totals))
        (gradients, totals, model_state), _ = scan_batches(accumulate, (*zeros, state.model_state), (batches, keys))
        gradients = optax.tree.scale(1 / jnp.where(totals.weight > 0, totals.weight, 1), gradients)
    else:
        batch, model_state = jax.tree.map(lambda array: array[0], batches), state.model_state
        gradients, totals = private_gradients(config, state.params, batch, keys[0], partial(row_loss, config, loss_fn))

    norms = jnp.stack([jnp.linalg.norm(leaf) for leaf in jax.tree.leaves(gradients)])
    norm = jnp.linalg.norm(norms)
    finite_loss = jnp.isfinite(totals.loss)
    accumulated, _, length = batches.inputs["tokens"].shape
    longest = max(stack.segment_length for stack in config.model.stacks.values())  # may have been pending
    finite_model_state = ~has_nan_or_inf(model_state, accumulated * length + longest)
    good = finite_loss & finite_model_state & jnp.isfinite(norm)

    def update():
        optimizer = make_optimizer(config.optimizer, training.steps, parameter_groups(config.model))
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts with floats
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        return optax.apply_updates(state.params, updates), opt_state, model_state, totals

    def skip():
        # Rows in which a document began must not continue with the model state of the document before.
        kept_memory = where_rows(batches.inputs["reset"].any(axis=(0, 2)), fresh, state.model_state)
        return state.params, state.opt_state, kept_memory, optax.tree.zeros_like(totals)

    params, opt_state, model_state, totals = jax.lax.cond(good, update, skip)

    every = config.evaluation.every
    logged = state.step % training.log_every == 0  # also after steps that are evaluated
    logged = logged if every is None else logged | (state.step % every == 0)
    totals = jax.tree.map(lambda past, now: jnp.where(logged, now, past + now), state.totals, totals)
    skipped = state.skipped + (~good).astype(jnp.int32)
    skipped_in_a_row = jnp.where(good, 0, state.skipped_in_a_row + 1)
    metrics = StepMetrics(
        totals=totals,
        learning_rate=learning_rate_schedule(config.optimizer, training.steps)(state.step - state.skipped),
        gradient_norm=norm,
        skipped=skipped,
        skipped_in_a_row=skipped_in_a_row,
        finite_loss=finite_loss,
        finite_model_state=finite_model_state,
        finite_gradients=jnp.isfinite(norms),
    )
    new_state = TrainState(
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        model_state=model_state if training.carry_state else state.model_state,
        key=state.key,
        totals=totals,
        skipped=skipped,
        skipped_in_a_row=skipped_in_a_row,
    )
    return new_state, metrics


def has_nan_or_inf(memory: Any, tokens: int) -> jax.Array:
    """Whether a state holds NaN or +inf, a bool, also in vectors of 8 bits. It may hold -inf, the log of a closed gate.

    Every step is checked, because a NaN that is found later cannot be undone. Of a large store, whose class has a
    method `newest`, only the entries of the last `tokens` tokens are read: the others were checked when they were
    written. A maximum propagates NaN and takes half the time of testing each value.
    """

    def is_store(part: Any) -> bool:
        return hasattr(part, "newest")

    parts = jax.tree.leaves(memory, is_leaf=lambda part: is_store(part) or is_int8(part))
    parts = [part.newest(tokens) if is_store(part) else part for part in parts]
    leaves = jax.tree.leaves(parts, is_leaf=is_int8)
    found = [jnp.any(leaf.exponent == NOT_FINITE) for leaf in leaves if is_int8(leaf)]
    others = (leaf for leaf in leaves if not is_int8(leaf))
    found += [~(leaf.max() < jnp.inf) for leaf in others if leaf.size and jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack(found).any() if found else jnp.bool_(False)  # an encoder without memory has no state


def train_steps(
    config: ExperimentConfig, state: TrainState, batches: data.Batch, loss_fn: LossFunction | None = None
) -> tuple[TrainState, StepMetrics]:
    """N = `training.steps_per_call` times `train_step`, each on A of N A batches.

    Returns:
        The state after the last step, and its metrics; but `skipped_in_a_row` is the largest of all N steps, and what
        is finite was so in each.
    """
    number = config.training.steps_per_call
    if number == 1:
        return train_step(config, state, batches, loss_fn)
    by_step = jax.tree.map(lambda array: array.reshape(number, -1, *array.shape[1:]), batches)
    state, metrics = scan_batches(partial(train_step, config, loss_fn=loss_fn), state, by_step)
    last = jax.tree.map(lambda array: array[-1], metrics)
    return state, last._replace(
        skipped_in_a_row=metrics.skipped_in_a_row.max(),
        finite_loss=metrics.finite_loss.all(),
        finite_model_state=metrics.finite_model_state.all(),
        finite_gradients=metrics.finite_gradients.all(axis=0),
    )


def scan_batches(step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, batches: Any) -> tuple[Any, Any]:
    """`jax.lax.scan` over batches; a single batch is processed without a loop.

    The batch of an iteration is carried. Otherwise XLA fuses the choice of the batch into whatever reads it, and on CPU
    jaxlib 0.10.2 crashes in such fusions of many arrays.
    """

    def carried(carry: Any, following: Any) -> tuple[Any, Any]:
        carry, outputs = step(*carry)
        return (carry, following), outputs

    first = jax.tree.map(lambda array: array[0], batches)
    if len(jax.tree.leaves(batches)[0]) == 1:
        carry, outputs = step(carry, first)
        return carry, jax.tree.map(lambda array: array[None], outputs)
    following = jax.tree.map(lambda array: jnp.roll(array, -1, axis=0), batches)
    (carry, _), outputs = jax.lax.scan(carried, (carry, first), following)
    return carry, outputs


def batch_gradients(
    config: ExperimentConfig,
    params: Any,
    memory: Any,
    batch: data.Batch,
    key: jax.Array,
    loss_fn: LossFunction | None = None,
) -> tuple[Any, tuple[Totals | DistilledTotals, Any]]:
    """The gradient of `batch_loss`, with (its totals, the model's state after it).

    With `training.skip_backward`, a batch without targets is read by the forward pass alone: its gradient is 0.
    """
    loss = partial(batch_loss, config, memory=memory, batch=batch, key=key, loss_fn=loss_fn)
    differentiated = jax.grad(loss, has_aux=True)
    if not config.training.skip_backward:
        return differentiated(params)
    has_targets = jnp.stack([jnp.any(weights != 0) for weights in batch.weights.values()]).any()
    return jax.lax.cond(
        has_targets, differentiated, lambda params: (optax.tree.zeros_like(params), loss(params)[1]), params
    )


def batch_loss(
    config: ExperimentConfig,
    params: Any,
    memory: Any,
    batch: data.Batch,
    key: jax.Array,
    loss_fn: LossFunction | None = None,
) -> tuple[jax.Array, tuple[Totals | DistilledTotals, Any]]:
    """The sum of losses times weights of one batch, in nats, with (its totals, the model's state after it).

    With teachers: (1 - w) times the sum of the task's losses, plus the sum of those that come from the teachers.
    """
    trained = is_trained(config.optimizer, params)
    params = jax.tree.map(lambda kept, leaf: leaf if kept else jax.lax.stop_gradient(leaf), trained, params)
    model = models.from_params(config.model, params)
    if loss_fn is None:
        totals, memory = cross_entropy(model, batch, memory, key)
    else:
        totals, memory = loss_fn(model, batch, memory, key)
        totals = totals_type(config)(*(jnp.asarray(value, jnp.float32) for value in totals))
    if isinstance(totals, DistilledTotals):
        return (1 - config.distill.weight) * totals.loss + totals.distillation, (totals, memory)
    return totals.loss, (totals, memory)


def row_loss(
    config: ExperimentConfig, loss_fn: LossFunction | None, params: Any, row: data.Batch, key: jax.Array
) -> tuple[jax.Array, Any]:
    """`batch_loss` of a batch of one row, from an empty memory."""
    fresh = models.functional(config.model).init_state(1)
    loss, (totals, _) = batch_loss(config, params, fresh, row, key, loss_fn)
    return loss, totals


def cross_entropy(model: Any, batch: data.Batch, state: Any, key: jax.Array) -> tuple[Totals, Any]:
    """The default `LossFunction`: cross-entropy times weights, over all heads of the batch."""
    asked = {"asked": batch.weights[model.config.heads[0]] > 0} if model.config.mixes_texts else {}
    scores, state = model.score(targets=batch.targets, state=state, **asked, **call_options(model.config, batch, key))
    return totals_of(scores, batch), state


def call_options(config: BaseModelConfig, batch: data.Batch, key: jax.Array | None) -> dict[str, Any]:
    """The arguments of a model's call for a batch, but its state; key: of dropout, None: no dropout."""
    # Rows start at a segment boundary and advance by L tokens per batch: if L is whole segments, they stay at one.
    alignment = config.alignment_of_inputs(batch.inputs)
    return {"alignment": alignment, "dropout_key": key if config.has_dropout else None, **batch.inputs}


def totals_of(scores: dict[str, Scores], batch: data.Batch) -> Totals:
    """The sums over the targets of all heads of a batch."""
    weights, bytes_ = batch.weights, batch.info.get("target_bytes")
    return Totals(
        loss=jnp.asarray(sum(jnp.sum(scores[head].losses * weights[head]) for head in weights)),
        weight=jnp.asarray(sum(jnp.sum(weights[head]) for head in weights)),
        target_bytes=jnp.float32(0) if bytes_ is None else jnp.sum(bytes_.astype(jnp.float32) * weights["tokens"]),
        correct=sum(jnp.sum(jnp.where(scores[head].correct, weights[head], 0)) for head in weights),
    )
