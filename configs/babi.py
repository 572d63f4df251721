"""bAbI"""

import os

from memgpt_jax.config import EvaluationConfig, ExperimentConfig, ModelConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config_memory import KVMemoryConfig
from memgpt_jax.config_reading import BabiConfig


def config() -> ExperimentConfig:
    folder = os.path.join(os.environ.get("MEMGPT_DATA", "../shared/data"), "babi", "en")
    # A sentence is a segment and fills the window: what it says about a person is put together in one place.
    data = BabiConfig(path=folder, tasks=(1,), sentence_length=8, long_stories="cut")
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=data.num_words,
            d_model=64,
            num_layers=2,
            num_heads=4,
            window_size=8,
            segment_length=8,
            memory=KVMemoryConfig(memory_size=64, recency_bias=True),
            dropout=0.1,
        ),
        data=data,
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50),
        training=TrainingConfig(steps=250, batch_size=32, sequence_length=256, carry_state=False),
        evaluation=EvaluationConfig(split="test", batch_size=32),
    )
