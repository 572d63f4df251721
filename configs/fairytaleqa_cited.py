"""Which sentence of a fairy tale a question reads: FairytaleQA, a window of 32 tokens and entries, without training.

`source_right` is the fraction of the questions whose first source lies in the right sections. Keys and values of
earlier tokens are entries of a `kv` memory, which share the softmax of self-attention with the window
(`fusion="attention"`).

Command: export MEMGPT_DATA=FOLDER
         python experiments/zero_shot.py fairytaleqa_cited --pretrained MODEL --evaluation.split test
Time:    not measured: not run yet
Result:  not measured: not run yet
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    entries = load_config("lambada_entries").model
    changes = {
        "model": with_fields(entries, {"memory.memory_size": 4096}),
        "data.context": "document",
        "data.cite": True,
        "data.max_new_tokens": 8,
        "training.sequence_length": entries.segment_length,
        "evaluation.batch_size": 4,
    }
    return with_fields(load_config("fairytaleqa"), changes)
