"""Named entities in tweets: WNUT-17, from a pretrained encoder without case, which is given as token type.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py wnut17 --workdir runs/wnut17
         python experiments/evaluate.py runs/wnut17 --split test
Time:    18 minutes of CPU time (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  F1 of entities on the 1,009 test tweets 0.546, 0.554, 0.530, on the validation tenth 0.533, 0.553, 0.540, seeds
         0 to 2, from all-MiniLM-L6-v2 (22.6 million parameters). Seed 1, test: distinct_f1
         0.553, same_type 0.875 (of 8 pairs), recall of first and later mentions 0.502 and 0.556
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.tagged_text import TaggedTextConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = TaggedTextConfig(
        train="$MEMGPT_DATA/ner/wnut17/wnut17train.conll",
        test="$MEMGPT_DATA/ner/wnut17/emerging.dev.conll",
        form="conll",
        case_as_token_type=True,
    )
    changes = {
        "data": data,
        "model.backbone.token_types": 2,
        "model.head.pool": "none",
        "training.steps": 360,
        "optimizer.learning_rate": 0.0002,
    }
    return with_fields(load_config("sst2"), changes)
