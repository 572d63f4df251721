"""The model that `experiments/benchmark.py` times: 6.8 million parameters (8.0 with memory), 8,192 tokens a step.

Command: python experiments/benchmark.py train benchmark --sweep model.memory=none,kv --peers True
Time:    126 s with `--rounds 1` (Python 3.11, jax 0.10.2, two cores of an AMD EPYC, other work beside it)
Result:  docs/performance.md and docs/results/BENCHMARKS.md
"""

from memgpt_jax.config.experiment import ExperimentConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig


def config() -> ExperimentConfig:
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=8192,
            d_model=256,
            num_layers=6,
            num_heads=4,
            window_size=512,
            segment_length=512,
            memory=KVMemoryConfig(memory_size=2048),
        ),
        training=TrainingConfig(batch_size=4, sequence_length=2048),
    )
