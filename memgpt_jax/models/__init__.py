"""Models, and what they are made of."""

from memgpt_jax.models.decoder import LayerState, MemGPT, ModelState
from memgpt_jax.models.encoder import Encoder, EncoderState
from memgpt_jax.models.functional import (
    Params,
    apply,
    diagnostics,
    init,
    init_state,
    merge,
    model_state_bytes,
    score_tokens,
    shapes,
    split,
)
from memgpt_jax.models.memory_layer import MemoryLayer
from memgpt_jax.models.seq2seq import EncoderDecoder, Seq2SeqState
from memgpt_jax.models.xlnet import XLNet

__all__ = [
    "Encoder",
    "EncoderDecoder",
    "EncoderState",
    "LayerState",
    "MemGPT",
    "MemoryLayer",
    "ModelState",
    "Params",
    "Seq2SeqState",
    "XLNet",
    "apply",
    "diagnostics",
    "init",
    "init_state",
    "merge",
    "model_state_bytes",
    "score_tokens",
    "shapes",
    "split",
]
