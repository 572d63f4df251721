"""Translation of captions from English to French: `multi30k_de` with another target.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py multi30k_fr --workdir runs/multi30k_fr
         python experiments/evaluate.py runs/multi30k_fr --split test
Time:    54 minutes of CPU time for training (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  BLEU 57.5 and chrF 73.4 on the 1,000 test captions of 2016, 55.4 and 71.9 on the validation captions,
         seed 0 alone (2.6 million parameters, beams of 4)
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    return with_fields(load_config("multi30k_de"), {"data.target_column": "fr"})
