"""bAbI"""

import os

from memgpt_jax.config import EvaluationConfig, ExperimentConfig, ModelConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config_memory import KVMemoryConfig
from memgpt_jax.config_reading import BabiConfig


def config() -> ExperimentConfig:
    data = BabiConfig(path=os.path.join(os.environ.get("MEMGPT_DATA", "../shared/data"), "babi", "en"), tasks=(1,))
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=data.num_words,
            d_model=64,
            num_layers=2,
            num_heads=4,
            window_size=16,
            segment_length=8,
            memory=KVMemoryConfig(memory_size=64, recency_bias=True),
            dropout=0.1,
        ),
        data=data,
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50),
        training=TrainingConfig(steps=500, batch_size=32, sequence_length=192, carry_state=False),
        evaluation=EvaluationConfig(batch_size=32, split="test"),
    )
