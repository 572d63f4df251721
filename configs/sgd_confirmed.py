"""What the system confirms in a dialogue: values that were said before, a pretrained decoder without training. SGD.

The window of 1,024 tokens is full attention. The groups of the result are the number of words since the value was said.

Command: MEMGPT_DATA=FOLDER python experiments/zero_shot.py sgd_confirmed --pretrained MODEL
         the window alone: --model.window_size 64 --model.segment_length 64
Time:    not measured: not run yet
Result:  not measured: not run yet
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.text_pairs import TextPairsConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = TextPairsConfig(
        valid="$MEMGPT_DATA/dialogue/sgd_multi/dev.jsonl.gz",
        form="sgd_confirmed",
        prompt="{source} ",
        group_column="distance",
        metrics=("begins",),
        max_new_tokens=12,
    )
    changes = {
        "data": data,
        "model.window_size": 1024,
        "model.segment_length": 64,
        "evaluation.chunk_length": 64,
    }
    return with_fields(load_config("lambada"), changes)
