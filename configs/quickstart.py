"""`stdlib` with fewer steps. `make demo` trains it beside its memory-free baseline.

Command: python experiments/train.py quickstart --workdir runs/quickstart
Time:    a part of `make demo`, which takes 205 to 260 s (Python 3.11, jax 0.10.2, two cores of an AMD EPYC)
Result:  bits per byte on 16 held-out files, seed 0: 1.927, and 2.348 for the baseline of as many parameters
"""

import dataclasses

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    base = load_config("stdlib")
    return dataclasses.replace(
        base,
        training=dataclasses.replace(base.training, steps=120, checkpoint_every=60),
        evaluation=dataclasses.replace(base.evaluation, max_documents=16),
    )
