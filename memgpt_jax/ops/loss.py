"""Softmax cross-entropy, computed in chunks of tokens."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax.ops.mesh import num_row_parts, split_rows, split_vocabulary
from memgpt_jax.ops.quantized import StoredMatrix, stored_matmul
from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32


class Scores(NamedTuple):
    """How well each target was predicted: [B, L] of tokens, [B] of a label of each row."""

    losses: Float32[Array, "B ..."]  # negative log-likelihood of the target, in nats
    correct: Bool[Array, "B ..."]  # the target has the highest logit; of equal logits, the lowest id wins


def logit_scores(logits: Float32[Array, "B V"], targets: Int32[Array, "B"]) -> Scores:
    """-log softmax(logits)[target], and whether the target has the highest logit; of equal logits, the first counts.

    Targets outside the vocabulary and logits that are not finite give a loss of NaN or infinity, and are not correct.
    """
    known = (targets >= 0) & (targets < logits.shape[1])
    chosen = jnp.where(known, jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0], jnp.nan)
    total = jax.nn.logsumexp(logits, axis=1)
    # Equal to argmax(logits) == target. XLA on CPU fuses this form with the other reductions, but not an argmax.
    has_lower_id = jnp.arange(logits.shape[1])[None] < targets[:, None]
    best = jnp.where(has_lower_id, logits < chosen[:, None], logits <= chosen[:, None]).all(axis=1)
    return Scores(total - chosen, best & jnp.isfinite(total))


def cross_entropy(
    hidden: Float[Array, "B L D"],
    embedding: Float[Array | np.ndarray, "V D"] | StoredMatrix,
    targets: Int32[Array, "B L"],
    chunk_size: int = 1024,
    bias: Float32[Array, "V"] | None = None,
) -> Scores:
    """-log softmax(embedding @ h + bias)[target] for each token, in chunks that the backward pass recomputes.

    Targets outside the vocabulary and logits that are not finite give a loss of NaN or infinity, and are not correct.

    Memory: chunk_size * V logits, independent of B and L. Logits and losses are float32. On a mesh, each chunk has the
    same number of tokens of every device's own rows.
    """
    embedding = split_vocabulary(embedding)

    def scores(hidden: Array, targets: Array):
        return logit_scores(token_logits(hidden, embedding, bias), targets)

    return by_chunks(scores, (hidden, targets), chunk_size)


def token_logits(
    hidden: Float[Array, "N D"],
    embedding: Float[Array | np.ndarray, "V D"] | StoredMatrix,
    bias: Float32[Array, "V"] | None = None,
) -> Float32[Array, "N V"]:
    """embedding @ h + bias."""
    if isinstance(embedding, StoredMatrix):
        logits = stored_matmul(hidden, embedding)
    else:
        logits = jnp.einsum("nd,vd->nv", hidden, embedding, preferred_element_type=jnp.float32)
    return logits if bias is None else logits + bias[None]


def by_chunks(function: Callable[..., Any], arrays: tuple[Array, ...], chunk_size: int = 1024) -> Any:
    """function(*arrays) of a function of single tokens, in chunks that the backward pass recomputes.

    Args:
        function: takes arrays [N, ...] of N tokens; its results are arrays [N, ...].
        arrays: [B, L, ...]; the results have the same first two axes.
        chunk_size: the largest number of tokens of a chunk on each device. On a mesh, each chunk has the same number of
            tokens of every device's own rows.
    """
    batch, length = arrays[0].shape[:2]
    parts = num_row_parts(batch)
    tokens = batch * length // parts
    chunks = -(-tokens // chunk_size)
    size = -(-tokens // chunks)
    padding = chunks * size - tokens

    def in_chunks(x: Array):
        """[B, L, ...] -> [chunks, parts size, ...], padded at the end of each part."""
        x = x.reshape(parts, tokens, *x.shape[2:])
        x = jnp.pad(x, ((0, 0), (0, padding), *((0, 0),) * (x.ndim - 2)))
        x = x.reshape(parts, chunks, size, *x.shape[2:]).swapaxes(0, 1)
        return x.reshape(chunks, parts * size, *x.shape[3:])

    def in_rows(x: Array):
        """[chunks, parts size, ...] -> [B, L, ...]."""
        x = x.reshape(chunks, parts, size, *x.shape[2:]).swapaxes(0, 1)
        return x.reshape(parts, -1, *x.shape[3:])[:, :tokens].reshape(batch, length, *x.shape[3:])

    def chunk(arrays: tuple[Array, ...]):
        return function(*split_rows(arrays))

    results = jax.lax.map(jax.checkpoint(chunk), tuple(in_chunks(split_rows(array)) for array in arrays))
    return jax.tree.map(in_rows, results)
