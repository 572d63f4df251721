"""Reading prompts of any length into a state, in pieces, each in parallel over its tokens."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.memory import Alignment
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.generation.sampling import can_be_chosen_from, check_rows
from memgpt_jax.models import ModelState, Params
from memgpt_jax.shapes import Array, Float32, Int, Tokens

PIECE_LENGTH = 1024
"""Approximate number of tokens of a piece: the device memory needed does not grow with the prompt."""
SHORTEST = 32
"""Fewest tokens of a piece that is shorter than a segment, if it has more than one."""


def prefill(
    config: ModelConfig, params: Params, prompts: list[np.ndarray], state: ModelState
) -> tuple[Float32[Array, "B V"], ModelState]:
    """Read one prompt of any length per row.

    Args:
        config, params: the decoder.
        prompts: ids of each row.
        state: B rows; it is not modified.

    Returns:
        The logits after the last token of each row (0 for an empty prompt), and the new state.

    Raises:
        ValueError: logits are not finite.
    """
    logits = jnp.zeros((len(prompts), config.vocab_size), jnp.float32)
    for read in prefill_pieces(config, params, prompts, state, PIECE_LENGTH):
        logits, state = read
    check_rows(can_be_chosen_from(logits))
    return logits, state


def prefill_pieces(
    config: ModelConfig,
    params: Params,
    prompts: list[np.ndarray],
    state: ModelState,
    piece_length: int,
    logits: Float32[Array, "B V"] | None = None,
) -> Iterator[tuple[Float32[Array, "B V"], ModelState]]:
    """`prefill` one piece at a time: the logits so far, and the state after each piece.

    Args: logits: of empty prompts; default: 0.

    A piece without padding that begins at a segment boundary in every row is read on the aligned path, as in training;
    a short one that fills no segment, on a path that writes nothing. The last piece is padded to one of the
    `piece_sizes`, so that few shapes are compiled. Logits are not checked.
    """
    lengths, segment = np.array([len(prompt) for prompt in prompts]), config.segment_length
    sizes = piece_sizes(config, piece_length)
    stream = next((layer.stream for layer in state.layers if layer.stream), None)  # the offsets of all layers are equal
    first, fresh = (0, False) if stream is None else (np.asarray(stream.offset), np.asarray(stream.fresh))
    found = jnp.zeros((len(prompts), config.vocab_size), jnp.float32) if logits is None else logits
    for start in range(0, lengths.max(), sizes[-1]):
        size = next((size for size in sizes if size >= lengths.max() - start), sizes[-1])
        tokens = np.zeros((len(prompts), size), np.int32)
        present = np.clip(lengths - start, 0, size)
        for row, (prompt, number) in enumerate(zip(prompts, present, strict=True)):
            tokens[row, :number] = prompt[start : start + number]
        offset = (first + np.minimum(lengths, start)) % segment
        alignment = "any" if stream is None else _alignment(segment, size, offset, present)
        if alignment == "mid_segment" and np.any(fresh & (start == 0)):
            if np.any(fresh & (present == 0)):
                alignment = "any"  # a row without tokens keeps its state
            else:
                state = begin(config, params, state)
        found, state = compiled_read(config, alignment, params, tokens, present, found, state)
        yield found, state


def _alignment(segment: int, size: int, offset: np.ndarray, present: np.ndarray) -> Alignment:
    """What holds for a piece of `size` tokens, of which `present` [B] of each row are tokens, from `offset` [B] on."""
    if size % segment == 0 and ((offset == 0) & (present == size)).all():
        return "aligned"
    return "mid_segment" if size < segment and (offset + present < segment).all() else "any"


@functools.partial(jax.jit, static_argnums=(0, 1))
def compiled_read(
    config: ModelConfig,
    alignment: Alignment,
    params: Params,
    tokens: Tokens,
    present: Int[Array, "B"],
    logits: Float32[Array, "B V"],
    state: ModelState,
) -> tuple[Float32[Array, "B V"], ModelState]:
    """Read one piece. `present` is the number of tokens of each row; a row without any keeps its logits."""
    valid = jnp.arange(tokens.shape[1])[None, :] < present[:, None]
    new, state = models.from_params(config, params).next_logits(tokens, state, valid=valid, alignment=alignment)
    return jnp.where(present[:, None] > 0, new, logits), state


@functools.partial(jax.jit, static_argnums=0)
def begin(config: ModelConfig, params: Params, state: ModelState) -> ModelState:
    """The state with initial memories in rows without a token; their first token can then be `unwritten`."""
    return models.from_params(config, params).begin(state)


def piece_sizes(config: ModelConfig, piece_length: int) -> list[int]:
    """The numbers of tokens of pieces, in increasing order.

    They are 1; a sixteenth and a quarter of a segment where these are at least `SHORTEST`; 1, 2, 4 and more segments;
    and the largest one, the most segments within `piece_length`, or one.
    """
    segment = config.segment_length
    largest = max(1, piece_length // segment)
    parts = [segment // parts for parts in (16, 4) if segment // parts >= SHORTEST]
    return sorted({1, *parts, *(segment * 2**power for power in range(largest.bit_length())), segment * largest})


def power_of_two(number: int) -> int:
    """The smallest power of two that is at least the number."""
    return 1 << int(number - 1).bit_length()
