"""Models, their states, and functions on their parameters."""

from memgpt_jax.models.attention_weights import attention_weights
from memgpt_jax.models.decoder import LayerState, MemGPT, ModelState
from memgpt_jax.models.encoder import Encoder, EncoderState
from memgpt_jax.models.headed import Headed, HeadedState
from memgpt_jax.models.memory_compression import compress_memory
from memgpt_jax.models.memory_layer import MemoryLayer
from memgpt_jax.models.model_functions import (
    ModelFunctions,
    Params,
    from_params,
    functional,
    model_state_bytes,
    to_params,
)
from memgpt_jax.models.multimodal import GraphNetwork, ModalityFusion
from memgpt_jax.models.parameters import count_parameters, parameter_bytes
from memgpt_jax.models.quantization import quantize
from memgpt_jax.models.seq2seq import EncoderDecoder, Seq2SeqState
from memgpt_jax.models.token_flags import TokenFlags, flags_from_segment_ids
from memgpt_jax.models.xlnet import XLNet

__all__ = [
    "Encoder",
    "EncoderDecoder",
    "EncoderState",
    "GraphNetwork",
    "Headed",
    "HeadedState",
    "LayerState",
    "MemGPT",
    "MemoryLayer",
    "ModalityFusion",
    "ModelFunctions",
    "ModelState",
    "Params",
    "Seq2SeqState",
    "TokenFlags",
    "XLNet",
    "attention_weights",
    "compress_memory",
    "count_parameters",
    "flags_from_segment_ids",
    "from_params",
    "functional",
    "model_state_bytes",
    "parameter_bytes",
    "quantize",
    "to_params",
]
