"""The last word of a passage by a window of 32 tokens and entries of earlier tokens: LAMBADA, without training.

Keys and values of earlier tokens are entries of a `kv` memory that continues the window (`continues_window=True`). As
it has room for a passage, this is the full attention of the config `lambada`; with `--model.memory.memory_size 32
--model.memory.evict least_read`, 32 entries stay.

Command: export MEMGPT_DATA=FOLDER
         python experiments/zero_shot.py lambada_entries --pretrained MODEL
Time:    not measured: not run yet
Result:  that of `lambada` as long as nothing is evicted (tests/interop/test_add_memory.py); with fewer entries not
         measured
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.studies.command_line import load_config

WINDOW = 32


def config() -> ExperimentConfig:
    changes = {
        "model.memory": KVMemoryConfig(
            memory_size=256,
            qk_norm=False,
            null_entry=False,
            gate="none",
            writer_conv=1,
            continues_window=True,
        ),
        "model.fusion": "attention",
        "model.fusion_bias": 0.0,
        "model.window_size": WINDOW,
        "model.segment_length": WINDOW,
    }
    return with_fields(load_config("lambada"), changes)
