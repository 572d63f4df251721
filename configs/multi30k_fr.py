"""Translation of captions from English to French: `multi30k_de` with another target.

Command: MEMGPT_DATA=FOLDER python experiments/train.py multi30k_fr --workdir runs/multi30k_fr
         python experiments/evaluate.py runs/multi30k_fr --split test
Time:    not measured: not run yet
Result:  not measured: not run yet
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    return with_fields(load_config("multi30k_de"), {"data.target_column": "fr"})
