"""The topic of a news article: BBC, 5 classes, whole articles read in calls of 64 tokens with a memory.

Command: MEMGPT_DATA=FOLDER python experiments/train.py bbc --workdir runs/bbc
         python experiments/evaluate.py runs/bbc --split test
Time:    not measured: not run yet
Result:  not measured: not run yet
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.labelled_text import LabelledTextConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = LabelledTextConfig(
        train="$MEMGPT_DATA/classification/bbcnews_2225.jsonl.gz",
        test_every=5,
        max_length=1024,
    )
    return with_fields(load_config("imdb"), {"data": data, "training.steps": 240})
