"""memgpt_jax: GPT decoders whose layers own a differentiable external memory.

import memgpt_jax as mg
"""

from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig, MemoryConfig, NoMemoryConfig, SizedMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig, Seq2SeqConfig, XLNetConfig
from memgpt_jax.data import load_tokenizer
from memgpt_jax.data.tasks.babi import BabiConfig
from memgpt_jax.data.tasks.babilong import BabiLongConfig
from memgpt_jax.data.tasks.copy import CopyConfig
from memgpt_jax.data.tasks.dictionary import DictionaryConfig
from memgpt_jax.data.tasks.item_recall import ItemRecallConfig
from memgpt_jax.data.tasks.json_recall import JsonRecallConfig
from memgpt_jax.data.tasks.mqar import MQARConfig
from memgpt_jax.data.tasks.needle import NeedleConfig
from memgpt_jax.data.tasks.noise import NoiseNeedleConfig
from memgpt_jax.data.tasks.recall import RecallConfig
from memgpt_jax.data.tasks.tracking import TrackingConfig
from memgpt_jax.generation import Generated, Piece, Sampling, Session, generate, stream_generate
from memgpt_jax.interop import add_memory, from_pretrained, save_pretrained, wrap
from memgpt_jax.memory import MEMORIES, Memory, memory_bytes_per_row, register_memory
from memgpt_jax.memory.associative import AssociativeMemoryConfig
from memgpt_jax.memory.compressive import CompressiveMemoryConfig
from memgpt_jax.memory.dnc import DNCMemoryConfig
from memgpt_jax.memory.knn import KNNMemoryConfig
from memgpt_jax.memory.memn2n import MemN2NMemoryConfig
from memgpt_jax.memory.ntm import NTMMemoryConfig
from memgpt_jax.memory.titans import TitansMemoryConfig
from memgpt_jax.memory.tokens import TokensMemoryConfig
from memgpt_jax.models import (
    Encoder,
    EncoderDecoder,
    MemGPT,
    MemoryLayer,
    ModelState,
    XLNet,
    from_params,
    functional,
    model_state_bytes,
    to_params,
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
    "memory_bytes_per_row",
    "model_state_bytes",
    "register_memory",
    # the model, as a module and as pure functions
    "MemGPT",
    "MemoryLayer",
    "ModelState",
    "from_params",
    "functional",
    "to_params",
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
    "save_pretrained",
    # generation with live memory
    "Generated",
    "Piece",
    "Sampling",
    "Session",
    "generate",
    "stream_generate",
]
