"""What the system confirms in a dialogue: values that were said before, a pretrained decoder without training. SGD.

The window of 1,024 tokens is full attention. The groups of the result are the number of words since the value was said.

Command: export MEMGPT_DATA=FOLDER
         python experiments/zero_shot.py sgd_confirmed --pretrained MODEL
         the window alone: --model.window_size 64 --model.segment_length 64
         both as measured: --evaluation.max_documents 64
Time:    4 minutes of CPU time, the window alone 3 (Python 3.11, jax 0.10.2, one shared core)
Result:  of the first 64 values 0.453 are right, with the window alone 0.094 (standard errors 0.06 and 0.04), by
         SmolLM2-135M-Instruct (4 bits a weight); with segments of 256 tokens (--model.segment_length 256
         --evaluation.chunk_length 256), which do not change full attention
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
