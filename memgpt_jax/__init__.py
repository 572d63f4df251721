"""memgpt_jax: GPT decoders whose layers own a differentiable external memory.

import memgpt_jax as mg
"""

from memgpt_jax import interop
from memgpt_jax.config import EvaluationConfig, ExperimentConfig, ModelConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config_data import NeedleConfig, RecallConfig, TextConfig
from memgpt_jax.config_memory import (
    AssociativeMemoryConfig,
    CompressiveMemoryConfig,
    DNCMemoryConfig,
    KNNMemoryConfig,
    KVMemoryConfig,
    MemN2NMemoryConfig,
    MemoryConfig,
    NoMemoryConfig,
    NTMMemoryConfig,
    SizedMemoryConfig,
    TitansMemoryConfig,
    TokensMemoryConfig,
)
from memgpt_jax.config_model import EncoderConfig, Seq2SeqConfig, XLNetConfig
from memgpt_jax.config_reading import BabiConfig, BabiLongConfig, JsonRecallConfig
from memgpt_jax.config_tasks import (
    CopyConfig,
    DictionaryConfig,
    ItemRecallConfig,
    MQARConfig,
    NoiseNeedleConfig,
    TrackingConfig,
)
from memgpt_jax.generation import Sampling, Session, generate
from memgpt_jax.interop import add_memory, from_pretrained, load_tokenizer, wrap
from memgpt_jax.memory import MEMORIES, Memory, state_bytes
from memgpt_jax.models import (
    Encoder,
    EncoderDecoder,
    MemGPT,
    MemoryLayer,
    ModelState,
    XLNet,
    apply,
    diagnostics,
    init,
    init_state,
    merge,
    score_tokens,
    split,
)

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 — in groups
    # configuration
    "EvaluationConfig",
    "ExperimentConfig",
    "ModelConfig",
    "OptimizerConfig",
    "TextConfig",
    "TrainingConfig",
    # tasks
    "BabiConfig",
    "BabiLongConfig",
    "CopyConfig",
    "DictionaryConfig",
    "ItemRecallConfig",
    "JsonRecallConfig",
    "MQARConfig",
    "NeedleConfig",
    "NoiseNeedleConfig",
    "RecallConfig",
    "TrackingConfig",
    # memory mechanisms
    "MEMORIES",
    "Memory",
    "AssociativeMemoryConfig",
    "CompressiveMemoryConfig",
    "DNCMemoryConfig",
    "KNNMemoryConfig",
    "KVMemoryConfig",
    "MemN2NMemoryConfig",
    "MemoryConfig",
    "NTMMemoryConfig",
    "NoMemoryConfig",
    "SizedMemoryConfig",
    "TitansMemoryConfig",
    "TokensMemoryConfig",
    "state_bytes",
    # the model, as a module and as pure functions
    "MemGPT",
    "MemoryLayer",
    "ModelState",
    "apply",
    "diagnostics",
    "init",
    "init_state",
    "merge",
    "score_tokens",
    "split",
    # memory in other people's models
    "interop",
    "wrap",
    # encoders and encoder-decoders
    "Encoder",
    "EncoderConfig",
    "EncoderDecoder",
    "Seq2SeqConfig",
    "XLNet",
    "XLNetConfig",
    # pretrained models
    "add_memory",
    "from_pretrained",
    "load_tokenizer",
    # generation with live memory
    "Sampling",
    "Session",
    "generate",
]
