"""`stdlib` without memory, at as many parameters (within 2%): the feed-forward layers are wider.

Command: python experiments/train.py stdlib_none --workdir runs/stdlib_none
Time:    87 s of CPU time with everything (Python 3.11, jax 0.10.2, one core of an AMD EPYC)
Result:  bits per byte on 32 held-out files, seeds 0, 1, 2: 2.311, 2.266, 2.305 (789,120 parameters; `stdlib` has
         788,996, and 1.903, 1.880, 1.894)
"""

import dataclasses

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.models.parameters import match_parameters
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    base = load_config("stdlib")
    return dataclasses.replace(base, model=match_parameters(base.model))
