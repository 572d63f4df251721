"""The loss of a student (`DistillConfig`), and the outputs of its teachers."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memgpt_jax import data, models
from memgpt_jax.config.distill import DistillConfig
from memgpt_jax.models.headed import Headed
from memgpt_jax.ops.distillation import (
    Likeliest,
    binary_divergence,
    divergence,
    likeliest,
    likeliest_divergence,
    mean_log_probs,
    projection_errors,
    relation_divergence,
    span_sums,
)
from memgpt_jax.ops.loss import by_chunks, logit_scores, token_logits
from memgpt_jax.ops.mesh import split_vocabulary
from memgpt_jax.training.state import DistilledTotals
from memgpt_jax.training.step import call_options, totals_of
from memgpt_jax.training.teacher_spans import SPAN_LOG_PROBS, SPAN_TOKENS
from memgpt_jax.training.teachers import Taught, student_state, teacher_models

IDS, LOG_PROBS = "teacher_ids", "teacher_log_probs"
"""Names in `Batch.info` of the arrays of a cache: the `Likeliest` of each token."""


class Outputs(NamedTuple):
    """The outputs of a call, from which `logits_of` makes the logits of single tokens."""

    stream: jax.Array
    """[B, L, ...]: the last hidden states of a decoder, the logits of a model with a head."""
    logits_of: Callable[[jax.Array], jax.Array]
    """[N, ...] -> [N, V]."""
    state: Any
    """The state after the call."""
    heads: tuple[jax.Array, ...] = ()
    """Queries, keys and values of the last layer, for `DistillConfig.attention_weight`."""


def outputs_of(distill: DistillConfig, model: Any, state: Any, options: dict[str, Any]) -> Outputs:
    """Call a decoder or a model with a head; `options` are those of `call_options`."""
    if isinstance(model, Headed):
        logits, state = model(state=state, **options)
        return Outputs(logits, jnp.asarray, state)
    hidden = model.hidden(state=state, **options)
    embedding, heads = split_vocabulary(model.output_embedding()), ()
    if distill.attention_weight:
        last = model.blocks[-1]
        heads = last.attention.heads(last.attention_input(hidden.last_input))
    return Outputs(hidden.stream, functools.partial(token_logits, embedding=embedding), hidden.state, heads)


def teachers_outputs(
    distill: DistillConfig, params: tuple[models.Params, ...], states: tuple[Any, ...], batch: data.Batch
) -> list[Outputs]:
    """The outputs of each teacher for a batch; they have no gradient."""
    found = []
    for config, tree, state in zip(teacher_models(distill), params, states, strict=True):
        model = models.from_params(config, jax.lax.stop_gradient(tree))
        found.append(outputs_of(distill, model, state, call_options(config, batch, None)))
    return found


def teachers_log_probs(distill: DistillConfig, found: list[Outputs], streams: tuple[jax.Array, ...]) -> jax.Array:
    """[N, V]: log of the mean of the teachers' probabilities, from the `stream` of N tokens of each."""
    logits = [outputs.logits_of(stream) for outputs, stream in zip(found, streams, strict=True)]
    return mean_log_probs(logits, distill.temperature)


@functools.cache
def distilled(distill: DistillConfig) -> Callable[..., tuple[DistilledTotals, Any]]:
    """The loss of a student: a `LossFunction` with the teachers' parameters as a further first argument.

    With a cache, these are (). Equal configurations give the same object, so that a step is compiled once.
    """
    return functools.partial(_loss_by_spans if distill.by_spans else _loss, distill)


def _loss(
    distill: DistillConfig, params: tuple[models.Params, ...], model: Any, batch: data.Batch, state: Any, key: jax.Array
) -> tuple[DistilledTotals, Any]:
    teachers = [] if distill.cached else teachers_outputs(distill, params, state.teachers, batch)
    student = outputs_of(distill, model, student_state(state), call_options(model.config, batch, key))
    (name,) = batch.targets
    targets, weights = batch.targets[name], batch.weights[name]

    def losses(stream: jax.Array, targets: jax.Array, *given):
        logits = student.logits_of(stream)
        if distill.top_k is not None:
            loss = likeliest_divergence(Likeliest(*given), logits, distill.temperature)
        else:
            loss = divergence(teachers_log_probs(distill, teachers, given), logits, distill.temperature)
        return logit_scores(logits, targets), loss

    cached = (batch.info[IDS], batch.info[LOG_PROBS]) if distill.top_k is not None else ()
    given = (*cached, *(outputs.stream for outputs in teachers))
    scores, loss = by_chunks(losses, (student.stream, targets, *given))
    if isinstance(model, Headed):  # its targets may be none, smoothed or weighted
        flags = {name: batch.inputs.get(name) for name in ("reset", "valid")}
        scores = model.head.score(student.stream, targets, **flags)
    loss = distill.weight * distill.temperature**2 * loss
    if distill.hidden_weight:
        for outputs in teachers:
            errors = projection_errors(student.stream, outputs.stream, weights)
            loss = loss + distill.hidden_weight / len(teachers) * errors
    if distill.attention_weight:
        document = jnp.cumsum(batch.inputs["reset"], axis=1, dtype=jnp.int32)
        pairs = [pair for outputs in teachers for pair in zip(student.heads, outputs.heads, strict=True)]
        for ours, theirs in pairs:
            relations = relation_divergence(ours, theirs, document, distill.relation_heads)
            loss = loss + distill.attention_weight / len(pairs) * relations
    totals = totals_of({name: scores}, batch)
    after = Taught(student.state, tuple(outputs.state for outputs in teachers)) if teachers else student.state
    return DistilledTotals(*totals, distillation=jnp.sum(loss * weights)), after


def _loss_by_spans(
    distill: DistillConfig, params: tuple[models.Params, ...], model: Any, batch: data.Batch, state: Any, key: jax.Array
) -> tuple[DistilledTotals, Any]:
    """As `_loss`, from the cached probabilities of spans of text: the divergence of each, at its last token."""
    scores, after = model.score(targets=batch.targets, state=state, **call_options(model.config, batch, key))
    (name,) = batch.targets
    tokens, log_p = batch.info[SPAN_TOKENS], batch.info[SPAN_LOG_PROBS]
    known = (tokens > 0) & (tokens <= jnp.arange(1, tokens.shape[1] + 1)[None])  # others began in the batch before
    nats = span_sums(scores[name].losses, tokens)
    found = jnp.where(known, binary_divergence(log_p, -nats, distill.temperature), 0)
    loss = distill.weight * distill.temperature * found
    return DistilledTotals(*totals_of(scores, batch), distillation=jnp.sum(loss * batch.weights[name])), after


def teachers_likeliest(
    distill: DistillConfig, params: tuple[models.Params, ...], states: tuple[Any, ...], batch: data.Batch
) -> tuple[Likeliest, tuple[Any, ...]]:
    """The likeliest `distill.top_k` outcomes of each token of a batch, and the states of the teachers after it."""
    teachers = teachers_outputs(distill, params, states, batch)
    assert distill.top_k is not None
    k = distill.top_k

    def top(*streams):
        return likeliest(teachers_log_probs(distill, teachers, streams), k)

    found = by_chunks(top, tuple(outputs.stream for outputs in teachers))
    return found, tuple(outputs.state for outputs in teachers)
