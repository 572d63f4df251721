"""`books` without memory, at as many parameters (within 2%): the feed-forward layers are wider.

Command: MEMGPT_DATA=FOLDER python experiments/train.py books_none --workdir runs/books_none
Time:    not measured yet
Result:  not measured yet
"""

import dataclasses

from memgpt_jax.command_line import load_config
from memgpt_jax.config import ExperimentConfig
from memgpt_jax.parameters import match_parameters


def config() -> ExperimentConfig:
    base = load_config("books")
    return dataclasses.replace(base, model=match_parameters(base.model))
