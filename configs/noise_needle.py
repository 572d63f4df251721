"""RULER's needles in a haystack of noise: which number of seven digits was given for a word?"""

from memgpt_jax.config import ExperimentConfig, ModelConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config_memory import KVMemoryConfig
from memgpt_jax.config_tasks import NoiseNeedleConfig


def config() -> ExperimentConfig:
    data = NoiseNeedleConfig(num_needles=4, num_questions=4)
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=data.num_ids,
            d_model=64,
            num_layers=2,
            num_heads=4,
            window_size=16,
            segment_length=16,
            memory=KVMemoryConfig(memory_size=256, temperature=20.0),
        ),
        data=data,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50),
        training=TrainingConfig(steps=300, batch_size=32, sequence_length=data.row_length, carry_state=False),
    )
