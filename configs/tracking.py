"""Variable tracking: what a variable holds, up to one hop from its value, in noise.

Command: python experiments/train.py tracking --workdir runs/tracking
Time:    57 s of CPU time (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared)
Result:  not learned in these 250 steps: accuracy 0.215 (seed 0, 512 answers), 0.190 at no hop and 0.238 at one. Naming
         any of the row's 4 values would give 0.25, naming any value 1/64 = 0.016. With 1,000 steps 0.504 (seed 0),
         0.488 at no hop and 0.519 at one; other seeds are not measured yet.
"""

from memgpt_jax.config.experiment import ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.tracking import TrackingConfig


def config() -> ExperimentConfig:
    data = TrackingConfig(num_chains=4, num_hops=1, num_questions=4, context_length=100)
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=data.num_ids,
            d_model=64,
            num_layers=2,
            num_heads=4,
            window_size=16,
            segment_length=16,
            memory=KVMemoryConfig(memory_size=128, temperature=20.0),
        ),
        data=data,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50),
        training=TrainingConfig(steps=250, batch_size=32, sequence_length=data.row_length, carry_state=False),
    )
