"""What the system confirms in a dialogue, by a window of 64 tokens and entries of earlier tokens. SGD, no training.

Keys and values of earlier tokens are entries of a `kv` memory that continues the window (`continues_window=True`). As
it has room for a dialogue, this is the full attention of the config `sgd_confirmed`; with `--model.memory.memory_size
128 --model.memory.evict least_read`, 128 entries stay.

Command: export MEMGPT_DATA=FOLDER
         python experiments/zero_shot.py sgd_confirmed_entries --pretrained MODEL
Time:    5 minutes of CPU time for 64 values with 128 entries (--evaluation.max_documents 64; Python 3.11, jax 0.10.2,
         one shared core)
Result:  with room for all tokens, that of `sgd_confirmed` by law (tests/interop/test_add_memory.py); with 128 entries
         0.281 of the first 64 values are right, by SmolLM2-135M-Instruct (4 bits a weight)
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    changes = {"memory.memory_size": 1024, "window_size": 64, "segment_length": 64}
    model = with_fields(load_config("lambada_entries").model, changes)
    return with_fields(load_config("sgd_confirmed"), {"model": model})
