"""RULER's needles in a haystack of noise: which number of seven digits was given for a word?

Command: python experiments/train.py noise_needle --workdir runs/noise_needle
Time:    235 s (Python 3.11, jax 0.10.2, one core of an AMD EPYC)
Result:  not solved in these 300 steps: 0.759 of the digits are right (seed 0, 3,584 digits). A digit that follows
         others of its number is found by them; the first one must be found by the word, three tokens before it. Chance
         is 0.1
"""

from memgpt_jax.config.experiment import ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.noise import NoiseNeedleConfig


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
