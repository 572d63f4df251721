"""Distillation: a loss of one's own, with the parameters of a teacher as arguments of the compiled step."""

import jax
import jax.numpy as jnp

import memgpt_jax as mg
from memgpt_jax.training import LossFunction, Totals


def distillation_loss(teacher_config: mg.ModelConfig, teacher_params, temperature: float = 2.0) -> LossFunction:
    """Cross-entropy with the teacher's distribution; the teacher starts each batch from a fresh state."""

    def loss(teacher_params, model, batch, state, key):
        tokens, reset, weights = batch.inputs["tokens"], batch.inputs["reset"], batch.weights["tokens"]
        teacher = mg.from_params(teacher_config, teacher_params)
        expected, _ = teacher(tokens, teacher.init_state(tokens.shape[0]), reset)
        logits, state = model(tokens, state, reset)
        expected = jax.nn.softmax(expected / temperature)
        losses = -jnp.sum(expected * jax.nn.log_softmax(logits / temperature), axis=-1)
        correct = jnp.argmax(logits, axis=-1) == batch.targets["tokens"]
        totals = Totals(jnp.sum(losses * weights), jnp.sum(weights), correct=jnp.sum(jnp.where(correct, weights, 0)))
        return totals, state

    return jax.tree_util.Partial(loss, teacher_params)
