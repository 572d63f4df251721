"""What the system confirms in a dialogue, by a window of 64 tokens and entries of earlier tokens. SGD, no training.

Keys and values of earlier tokens are entries of a `kv` memory that continues the window (`continues_window=True`). As
it has room for a dialogue, this is the full attention of the config `sgd_confirmed`; with `--model.memory.memory_size
128 --model.memory.evict least_read`, 128 entries stay.

Command: MEMGPT_DATA=FOLDER python experiments/zero_shot.py sgd_confirmed_entries --pretrained MODEL
Time:    not measured: not run yet
Result:  not measured: not run yet
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    changes = {"memory.memory_size": 1024, "window_size": 64, "segment_length": 64}
    model = with_fields(load_config("lambada_entries").model, changes)
    return with_fields(load_config("sgd_confirmed"), {"model": model})
