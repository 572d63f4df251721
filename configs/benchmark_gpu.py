"""For `experiments/benchmark.py` on one GPU: 336 million parameters (392 with memory), bfloat16, rows of 8,192 tokens.

Command: python experiments/benchmark.py train benchmark_gpu --sweep model.memory=none,kv --peers True
Time:    not run yet
Result:  not measured yet: it needs a GPU
"""

from memgpt_jax.config.experiment import ExperimentConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig


def config() -> ExperimentConfig:
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=32768,
            d_model=1024,
            num_layers=24,
            num_heads=16,
            window_size=1024,
            segment_length=512,
            memory=KVMemoryConfig(memory_size=2048),
            dtype="bfloat16",
            remat="block",
        ),
        training=TrainingConfig(batch_size=4, sequence_length=8192),
    )
