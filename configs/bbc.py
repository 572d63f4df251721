"""The topic of a news article: BBC, 5 classes, whole articles read in calls of 64 tokens with a memory.

Command: MEMGPT_DATA=FOLDER python experiments/train.py bbc --workdir runs/bbc
         python experiments/evaluate.py runs/bbc --split test
Time:    10 minutes of CPU time (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  accuracy on the 445 test articles 0.982, macro F1 0.981, on the validation tenth 0.966; seed 0 alone, from
         all-MiniLM-L6-v2 with a memory
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
