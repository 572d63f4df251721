"""Sentiment of whole film reviews: IMDB, read in calls of 64 tokens, the memory carried from call to call.

Command: MEMGPT_DATA=FOLDER python experiments/train.py imdb --workdir runs/imdb
         python experiments/evaluate.py runs/imdb --split test
Time:    not measured: not run yet
Result:  not measured: not run yet
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.data.tasks.labelled_text import LabelledTextConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = LabelledTextConfig(
        train="$MEMGPT_DATA/classification/imdb_6000.jsonl.gz",
        test_every=6,
        max_length=1024,
    )
    changes = {
        "data": data,
        "model.backbone.memory": KVMemoryConfig(memory_size=256),
        "model.backbone.fusion": "gated_add",
        "model.backbone.fusion_bias": 0.0,
        "model.call_length": 64,
        "training.steps": 900,
        "training.batch_size": 8,
        "training.sequence_length": 256,
    }
    return with_fields(load_config("sst2"), changes)
