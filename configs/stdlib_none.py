"""`stdlib` without memory, at as many parameters (within 2%): the feed-forward layers are wider.

Command: python experiments/train.py stdlib_none --workdir runs/stdlib_none
Time:    not measured yet
Result:  not measured yet
"""

import dataclasses

from memgpt_jax.command_line import load_config
from memgpt_jax.config import ExperimentConfig
from memgpt_jax.parameters import match_parameters


def config() -> ExperimentConfig:
    base = load_config("stdlib")
    return dataclasses.replace(base, model=match_parameters(base.model))
