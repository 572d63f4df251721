"""Copy: give back up to 31 symbols that the window no longer holds.

Command: python experiments/train.py copy --workdir runs/copy
         python experiments/evaluate.py runs/copy --lengths 15 31 63 127 --memory-size 256
Time:    47 s of CPU time (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared)
Result:  accuracy 0.981 (seed 0, 2,116 symbols); seeds 1 and 2, and other lengths, are not measured yet. Chance is
         1/64 = 0.016
"""

from memgpt_jax.config.experiment import ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.copy import CopyConfig


def config() -> ExperimentConfig:
    data = CopyConfig(num_symbols=64, max_length=31)
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=data.num_ids,
            d_model=64,
            num_layers=2,
            num_heads=4,
            window_size=8,
            segment_length=8,
            memory=KVMemoryConfig(memory_size=64, temperature=20.0),
        ),
        data=data,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50),
        training=TrainingConfig(steps=300, batch_size=32, sequence_length=data.row_length, carry_state=False),
    )
