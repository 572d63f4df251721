"""Dictionary lookup: definitions of words of two symbols, then questions.

Command: python experiments/train.py dictionary --workdir runs/dictionary
Time:    108 s of CPU time (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared)
Result:  accuracy 1.000 (seed 0, 2,047 of 2,048 symbols); seeds 1 and 2 are not measured yet. Chance is 1/32 = 0.031
"""

from memgpt_jax.config.experiment import ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.dictionary import DictionaryConfig


def config() -> ExperimentConfig:
    data = DictionaryConfig(num_entries=24, num_questions=8)
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
        training=TrainingConfig(steps=400, batch_size=32, sequence_length=data.row_length, carry_state=False),
    )
