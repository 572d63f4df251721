"""Associative recall: pairs of key and value among filler, asked for when they are far outside the window.

Command: python experiments/train.py recall --workdir runs/recall
         python experiments/train.py recall --model.memory none --workdir runs/recall_none
Time:    about 40 s with memory, 32 s without (Python 3.11, jax 0.10.2, one core of an AMD EPYC)
Result:  accuracy with memory 1.000, 1.000, 1.000 (seeds 0, 1, 2); without 0.013, 0.013, 0.016; chance is 1/64 = 0.016
"""

from memgpt_jax.config.experiment import ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.recall import RecallConfig


def config() -> ExperimentConfig:
    data = RecallConfig(num_pairs=8, context_length=64, gap_length=32, query_length=16)
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=data.num_ids,
            d_model=64,
            num_layers=2,
            num_heads=4,
            window_size=16,
            segment_length=16,
            # A sharp reader: what is learned with 64 entries must still single out one of 16,384.
            memory=KVMemoryConfig(memory_size=64, temperature=20.0),
        ),
        data=data,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50),
        training=TrainingConfig(steps=350, batch_size=32, sequence_length=data.row_length, carry_state=False),
    )
