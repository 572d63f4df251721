"""`stdlib` with fewer steps. `make demo` trains it beside its memory-free baseline.

Command: python experiments/train.py quickstart --workdir runs/quickstart
Time:    not measured yet
Result:  not measured yet
"""

import dataclasses

from memgpt_jax.command_line import load_config
from memgpt_jax.config import ExperimentConfig


def config() -> ExperimentConfig:
    base = load_config("stdlib")
    return dataclasses.replace(
        base,
        training=dataclasses.replace(base.training, steps=120, checkpoint_every=60),
        evaluation=dataclasses.replace(base.evaluation, max_documents=16),
    )
