"""The last word of a passage by a window of 32 tokens and entries of earlier tokens: LAMBADA, without training.

Keys and values of earlier tokens are entries of a `kv` memory, which share the softmax of self-attention
with the window (`fusion="attention"`); to be compared with the full attention of the config `lambada`.

Command: MEMGPT_DATA=FOLDER python experiments/zero_shot.py lambada_entries --pretrained MODEL
Time:    17 minutes of CPU time for 500 passages (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared), with
         --evaluation.chunk_length 64 --evaluation.max_documents 500
Result:  of the first 500 passages the last word of 0.258 is right (95% interval 0.220 to 0.296), by
         SmolLM2-135M-Instruct (4 bits a weight): 91% of full attention
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.studies.command_line import load_config

WINDOW = 32


def config() -> ExperimentConfig:
    changes = {
        "model.memory": load_config("adapt").model.memory,
        "model.fusion": "attention",
        "model.fusion_bias": 0.0,
        "model.window_size": WINDOW,
        "model.segment_length": WINDOW,
    }
    return with_fields(load_config("lambada"), changes)
