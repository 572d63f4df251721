"""The Neural Turing Machine on its own first task: copy up to 20 symbols, token by token, with an LSTM controller.

Command: python experiments/train.py ntm_copy --workdir runs/ntm_copy
         python experiments/evaluate.py runs/ntm_copy --lengths 20 40 60 120
Time:    about 60 s (Python 3.11, jax 0.10.2, one core of an AMD EPYC)
Result:  with 2,000 steps, seed 0: accuracy 1.000 on up to 20 symbols, and on 20, 40, 60 and 120 symbols; 1.000 from
         step 300 on. With 600 steps, seeds 0, 1, 2: 1.000, 0.985, 1.000 on up to 20, and 1.000, 0.998, 1.000 on 120.
         Chance is 1/16 = 0.063
"""

from memgpt_jax.config import ExperimentConfig, ModelConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config_memory import NTMMemoryConfig
from memgpt_jax.config_tasks import CopyConfig


def config() -> ExperimentConfig:
    # Nothing is fed back while the answer is due, and the window holds the token alone: only the slots can copy.
    data = CopyConfig(num_symbols=16, max_length=20, blank_answers=True)
    memory = NTMMemoryConfig(memory_size=128, slot_width=20, controller="lstm", controller_size=100)
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
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=50, weight_decay=0.0),
        training=TrainingConfig(steps=1000, batch_size=32, sequence_length=data.row_length, carry_state=False),
    )
