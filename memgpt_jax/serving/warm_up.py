"""The programs of an engine, compiled before its first request."""

import jax
import numpy as np
from jaxtyping import Array, Float32

from memgpt_jax.config.model import ModelConfig
from memgpt_jax.generation.pieces import result_of
from memgpt_jax.generation.prefill import begin, piece_sizes, prefill_pieces
from memgpt_jax.models import ModelState, Params
from memgpt_jax.serving.prompt_scores import score_pieces
from memgpt_jax.serving.sampling import Options
from memgpt_jax.serving.slots import Slots, extract, insert, new_row, step, with_active, write_segment


def compile_programs(
    config: ModelConfig,
    params: Params,
    state: ModelState,
    slots: Slots,
    piece_length: int,
    no_logits: Float32[Array, "1 V"],
) -> Slots:
    """Compile every program that a request can need, by running it.

    Logits are not checked: a piece can be longer than any text that fits learned positions.

    Args:
        config, params: the decoder.
        state: one row, of a new document.
        slots: rows, none active.
        piece_length: as in `prefill_pieces`.
        no_logits: logits before the first token.

    Returns:
        The rows again, none active.
    """

    def read(tokens: int, start: ModelState) -> ModelState:
        prompt = [np.zeros(tokens, np.int32)]
        for _, after in prefill_pieces(config, params, prompt, start, piece_length, no_logits):
            start = after
        return start

    last = read(config.segment_length - 1, state)
    for size in piece_sizes(config, piece_length):  # at a boundary, and across one
        read(size, state)
        read(size, last)
    result_of(score_pieces(config, params, [0, 0], state, 0))
    none = np.zeros(len(slots.active), bool)
    row = Options().row(0, config.vocab_size)
    first = new_row(config, begin(config, params, state), 0, np.zeros(config.vocab_size, bool), row)
    chosen, slots = step(config, params, insert(slots, np.int32(0), first))
    slots = write_segment(config, params, slots, np.int32(0))
    jax.block_until_ready((chosen, extract(slots.state, np.int32(0))))
    return with_active(slots, none)
