"""The type of a question: TREC, six classes, from a pretrained encoder.

Command: MEMGPT_DATA=FOLDER python experiments/train.py trec --workdir runs/trec
         python experiments/evaluate.py runs/trec --split test
Time:    not measured
Result:  not measured
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.labelled_text import LabelledTextConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = LabelledTextConfig(
        train="$MEMGPT_DATA/classification/TREC.train.all",
        test="$MEMGPT_DATA/classification/TREC.test.all",
        form="label_first",
        encoding="latin-1",
        label_column="coarse",
    )
    changes = {
        "data": data,
        "training.steps": 300,
        "optimizer.learning_rate": 0.0002,
    }
    return with_fields(load_config("sst2"), changes)
