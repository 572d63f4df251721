"""Softmax cross-entropy that never holds the logits of a whole batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32


class Scores(NamedTuple):
    """How well each target was predicted."""

    losses: Float32[Array, "B L"]  # negative log-likelihood of the target, in nats
    correct: Bool[Array, "B L"]  # whether the target has the highest logit


def cross_entropy(
    hidden: Float[Array, "B L D"],
    embedding: Float[Array, "V D"],
    targets: Int32[Array, "B L"],
    chunk_size: int = 1024,
    bias: Float32[Array, "V"] | None = None,
) -> Scores:
    """-log softmax(embedding @ h + bias)[target] for each token, in chunks of tokens that the backward pass repeats.

    Memory: chunk_size * V logits, whatever B and L are. Logits and losses are float32.
    """
    batch, length, width = hidden.shape
    tokens = batch * length
    chunks = -(-tokens // chunk_size)
    size = -(-tokens // chunks)
    padding = chunks * size - tokens

    def chunk(args):
        hidden, targets = args
        logits = jnp.einsum("nd,vd->nv", hidden, embedding, preferred_element_type=jnp.float32)
        logits = logits if bias is None else logits + bias[None]
        chosen = jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
        highest = jax.lax.stop_gradient(jnp.max(logits, axis=1))
        total = jnp.log(jnp.sum(jnp.exp(logits - highest[:, None]), axis=1)) + highest
        return Scores(total - chosen, chosen >= highest)

    hidden = jnp.pad(hidden.reshape(tokens, width), ((0, padding), (0, 0))).reshape(chunks, size, width)
    targets = jnp.pad(targets.reshape(tokens), (0, padding)).reshape(chunks, size)
    scores = jax.lax.map(jax.checkpoint(chunk), (hidden, targets))
    return jax.tree.map(lambda x: x.reshape(-1)[:tokens].reshape(batch, length), scores)
