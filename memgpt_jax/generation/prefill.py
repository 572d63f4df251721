"""Reading prompts of any length into a state, in pieces, in the parallel form."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from memgpt_jax import models
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.generation.sampling import can_be_chosen_from, check_rows
from memgpt_jax.models import ModelState

PIECE_LENGTH = 1024
"""Prompts are read in pieces of about this many tokens: the working memory does not grow with the prompt."""


def prefill(
    config: ModelConfig, params: Any, prompts: list[np.ndarray], state: ModelState
) -> tuple[Float32[Array, "B V"], ModelState]:
    """Read prompts, one a row, of any lengths; the logits of an empty one are 0.

    Returns the logits after the last token of each row, and the state; the one given is not modified. Pieces in which
    every row is whole and at a segment boundary take the aligned path of training. The last piece is padded to a
    power of two segments, so that prompts of all lengths share a few compiled shapes.

    Raises `ValueError` if logits are not finite.
    """
    lengths = np.array([len(prompt) for prompt in prompts])
    segment = config.segment_length
    piece = segment * max(1, PIECE_LENGTH // segment)
    at_boundary = all((np.asarray(layer.memory.offset) == 0).all() for layer in state.layers if layer.memory)
    logits = jnp.zeros((len(prompts), config.vocab_size), jnp.float32)
    for start in range(0, lengths.max(), piece):
        rest = lengths.max() - start
        size = 1 if rest == 1 else min(piece, power_of_two(-(-rest // segment)) * segment)
        tokens = np.zeros((len(prompts), size), np.int32)
        present = np.clip(lengths - start, 0, size)
        for row, (prompt, number) in enumerate(zip(prompts, present, strict=True)):
            tokens[row, :number] = prompt[start : start + number]
        aligned = at_boundary and size % segment == 0 and bool((present == size).all())
        logits, state = compiled_read(config, "aligned" if aligned else "any", params, tokens, present, logits, state)
    check_rows(can_be_chosen_from(logits))
    return logits, state


@functools.partial(jax.jit, static_argnums=(0, 1))
def compiled_read(config, alignment, params, tokens, present, logits, state):
    """One piece: rows in which nothing is `present` any more keep their logits."""
    valid = jnp.arange(tokens.shape[1])[None, :] < present[:, None]
    new, state = models.merge(config, params).next_logits(tokens, state, valid=valid, alignment=alignment)
    return jnp.where(present[:, None] > 0, new, logits), state


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below the number."""
    return 1 << int(number - 1).bit_length()
