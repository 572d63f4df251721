"""What the system confirms in a dialogue, by a window of 64 tokens and entries of earlier tokens. SGD, no training.

Keys and values of earlier tokens are entries of a `kv` memory, which share the softmax of self-attention
with the window (`fusion="attention"`); to be compared with the full attention of the config `sgd_confirmed`.

Command: MEMGPT_DATA=FOLDER python experiments/zero_shot.py sgd_confirmed_entries --pretrained MODEL
Time:    not measured: not run yet
Result:  not measured: not run yet
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    model = with_fields(load_config("lambada_entries").model, {"window_size": 64, "segment_length": 64})
    return with_fields(load_config("sgd_confirmed"), {"model": model})
