"""Multi-query associative recall: 8 pairs, asked for at random later places.

Command: python experiments/train.py mqar --workdir runs/mqar
Time:    36 s of CPU time (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared)
Result:  accuracy 1.000 (seed 0, 1,024 answers); seeds 1 and 2 are not measured yet. Chance is 1/128 = 0.008
"""

from memgpt_jax.config.experiment import ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.mqar import MQARConfig


def config() -> ExperimentConfig:
    data = MQARConfig(vocab_size=256, length=64, num_pairs=8)
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=data.num_ids,
            d_model=64,
            num_layers=1,
            num_heads=4,
            window_size=8,
            segment_length=8,
            memory=KVMemoryConfig(memory_size=64, temperature=20.0),
        ),
        data=data,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50),
        training=TrainingConfig(steps=200, batch_size=32, sequence_length=data.row_length, carry_state=False),
    )
