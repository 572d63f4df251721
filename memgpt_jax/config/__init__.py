"""Configurations: keyword-only frozen dataclasses whose values are checked when they are made.

A mechanism's configuration is beside its module in `memgpt_jax.memory`, a task's in `memgpt_jax.data.tasks`; the base
classes are here. A configuration is hashable and is never traced. An invalid value raises `ValueError`, which names the
field, the value and what is valid.
"""

from memgpt_jax.config.data import DataConfig, TaskConfig, TextConfig
from memgpt_jax.config.experiment import (
    EvaluationConfig,
    ExperimentConfig,
    OptimizerConfig,
    ParallelConfig,
    TrainingConfig,
)
from memgpt_jax.config.memory import KVMemoryConfig, MemoryConfig, NoMemoryConfig, SizedMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig, Seq2SeqConfig, XLNetConfig
from memgpt_jax.config.rotary import RotaryScalingConfig

__all__ = [
    "DataConfig",
    "EncoderConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "KVMemoryConfig",
    "MemoryConfig",
    "ModelConfig",
    "NoMemoryConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "RotaryScalingConfig",
    "Seq2SeqConfig",
    "SizedMemoryConfig",
    "TaskConfig",
    "TextConfig",
    "TrainingConfig",
    "XLNetConfig",
]
