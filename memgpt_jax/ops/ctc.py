"""Connectionist temporal classification: Graves et al., "Connectionist Temporal Classification" (2006).

Each token of a sound has a probability of every label and of a blank. A path gives one of them to each token; its
labels are what remains when repeated ones are merged and blanks removed. p(labels) is the sum over all such paths.
"""

from typing import Any

import jax.numpy as jnp
import optax

from memgpt_jax.shapes import Array, Bool, Flags, Float32, Int32


def ctc_losses(
    logits: Float32[Array, "B L C"], valid: Flags, labels: Int32[Array, "B N"], present: Bool[Array, "B N"]
) -> Float32[Array, "B"]:
    """-ln p(labels) of each row, in nats; the last class is the blank.

    Args:
        logits: of every token.
        valid: False for padding on the right.
        labels: class numbers.
        present: False for padding of labels on the right.
    """
    paddings = [jnp.where(flags, 0.0, 1.0) for flags in (valid, present)]
    return optax.ctc_loss(logits, paddings[0], labels, paddings[1], blank_id=logits.shape[-1] - 1)


def is_label(best: Any, last: Any, blank: int) -> Any:
    """Which tokens add a label to the best path's: neither the blank nor that of the token before. bool [B, L].

    Args:
        best: the class of each token with the highest probability, int [B, L] of NumPy or JAX.
        last: that of the last token before, [B]; `blank` before the first token.
        blank: number of the blank.
    """
    xp = best.__array_namespace__()
    return (best != blank) & (best != xp.concat([last[:, None], best[:, :-1]], axis=1))
