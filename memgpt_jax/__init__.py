"""memgpt_jax: GPT decoders whose layers own a differentiable external memory.

import memgpt_jax as mg
"""

from memgpt_jax.config import EvaluationConfig, ExperimentConfig, ModelConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config_data import NeedleConfig, RecallConfig, TextConfig
from memgpt_jax.config_memory import (
    DNCMemoryConfig,
    KVMemoryConfig,
    MemoryConfig,
    NoMemoryConfig,
    NTMMemoryConfig,
    SizedMemoryConfig,
)
from memgpt_jax.generation import Sampling, Session, generate
from memgpt_jax.memory import MEMORIES, Memory, state_bytes
from memgpt_jax.models import (
    MemGPT,
    MemoryLayer,
    ModelState,
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
    "DNCMemoryConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "KVMemoryConfig",
    "ModelConfig",
    "NTMMemoryConfig",
    "NeedleConfig",
    "NoMemoryConfig",
    "OptimizerConfig",
    "RecallConfig",
    "TextConfig",
    "TrainingConfig",
    # memory mechanisms
    "MEMORIES",
    "Memory",
    "MemoryConfig",
    "SizedMemoryConfig",
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
    # generation with live memory
    "Sampling",
    "Session",
    "generate",
]
