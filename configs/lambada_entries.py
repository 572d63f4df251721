"""The last word of a passage by a window of 32 tokens and entries of earlier tokens: LAMBADA, without training.

Keys and values of earlier tokens are entries of a `kv` memory that continues the window (`continues_window=True`). As
it has room for a passage, this is the full attention of the config `lambada`; with `--model.memory.memory_size 32
--model.memory.evict least_read`, 32 entries stay.

Command: export MEMGPT_DATA=FOLDER
         python experiments/zero_shot.py lambada_entries --pretrained MODEL
Time:    11 minutes for 200 passages (--evaluation.max_documents 200; Python 3.11, jax 0.10.2, one core of an AMD EPYC,
         shared)
Result:  of the first 200 passages 0.350 with room for all tokens, which is full attention as long as nothing is evicted
         (tests/interop/test_add_memory.py), and 0.185 with 32 entries, by SmolLM2-135M-Instruct (GGUF, Q4_1)
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
