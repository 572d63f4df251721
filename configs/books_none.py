"""`books` without memory, at as many parameters (within 2%): the feed-forward layers are wider.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py books_none --workdir runs/books_none
Time:    86 s of CPU time with everything (Python 3.11, jax 0.10.2, one core of an AMD EPYC)
Result:  bits per byte on 10 held-out books, seeds 0, 1, 2: 2.370, 2.361, 2.357 (`books`: 2.267, 2.260, 2.236)
"""

import dataclasses

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.models.parameters import match_parameters
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    base = load_config("books")
    return dataclasses.replace(base, model=match_parameters(base.model))
