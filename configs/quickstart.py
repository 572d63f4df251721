"""`stdlib` in minutes: half the layers, fewer steps. `make demo` trains it beside its memory-free baseline.

Command: python experiments/train.py quickstart --workdir runs/quickstart
Time:    not measured yet
Result:  not measured yet
"""

import dataclasses

from memgpt_jax.command_line import load_config
from memgpt_jax.config import EvaluationConfig, ExperimentConfig


def config() -> ExperimentConfig:
    base = load_config("stdlib")
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, num_layers=2),
        optimizer=dataclasses.replace(base.optimizer, warmup_steps=30),
        training=dataclasses.replace(base.training, steps=150, checkpoint_every=50),
        evaluation=EvaluationConfig(max_documents=16, max_tokens=4096),
    )
