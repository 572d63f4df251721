"""The Differentiable Neural Computer counts: 1 to 4 copies of up to 8 symbols, then an end marker, token by token.

Command: python experiments/train.py dnc_repeat_copy --workdir runs/dnc_repeat_copy
Time:    240 s (Python 3.11, jax 0.10.2, one core of an AMD EPYC)
Result:  accuracy 1.000, 1.000, 1.000 (seeds 0, 1, 2; 1,505 symbols and end markers); chance is 0.063. From 2,000
         steps on it counts right. With a learning rate of 1e-3 it ends at 0.66 after 3,000 steps (seed 0)
"""

from memgpt_jax.config.experiment import ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.copy import CopyConfig
from memgpt_jax.memory.dnc import DNCMemoryConfig


def config() -> ExperimentConfig:
    # Nothing is fed back while the answer is due, and the window holds the token alone: only the memory can count.
    data = CopyConfig(num_symbols=16, max_length=8, max_repeats=4, blank_answers=True)
    memory = DNCMemoryConfig(memory_size=32, slot_width=20, controller="lstm", controller_size=100, order="write_read")
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=data.num_ids,
            d_model=32,
            num_layers=1,
            num_heads=1,
            window_size=1,
            segment_length=1,
            position="none",
            memory=memory,
        ),
        data=data,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50, weight_decay=0.0),
        training=TrainingConfig(steps=4000, batch_size=32, sequence_length=data.row_length, carry_state=False),
    )
