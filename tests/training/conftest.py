"""A small model on a short recall task."""

import dataclasses

import pytest

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.recall import RecallConfig


@pytest.fixture(scope="session")
def make_config():
    """Makes an ExperimentConfig; keyword arguments replace fields of its training config."""

    def make(model=None, optimizer=None, data=None, **training) -> ExperimentConfig:
        memory = KVMemoryConfig(memory_size=24, head_dim=8)
        default_model = ModelConfig(
            vocab_size=20, d_model=16, num_layers=1, num_heads=2, window_size=8, segment_length=8, memory=memory
        )
        task = RecallConfig(num_pairs=4, num_keys=8, num_values=8, num_fillers=4, context_length=24, query_length=8)
        settings = {"steps": 12, "batch_size": 4, "sequence_length": 32, "log_every": 2, "checkpoint_every": 5}
        return ExperimentConfig(
            model=dataclasses.replace(default_model, **(model or {})),
            data=data or task,
            optimizer=OptimizerConfig(**{"warmup_steps": 5} | (optimizer or {})),
            training=TrainingConfig(**settings | training),
            evaluation=EvaluationConfig(batch_size=4, num_batches=1, chunk_length=32),
        )

    return make
