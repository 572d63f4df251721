"""Copy: give back up to 31 symbols that the window no longer holds.

Command: python experiments/train.py copy --workdir runs/copy
         python experiments/evaluate.py runs/copy --lengths 15 31 63 127 --memory-size 256
Time:    47 s of CPU time (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared)
Result:  accuracy 0.981 (seed 0, 2,116 symbols); seeds 1 and 2, and other lengths, are not measured yet. Chance is
         1/64 = 0.016
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.copy import CopyConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = CopyConfig(num_symbols=64, max_length=31)
    changes = {"model.window_size": 8, "model.segment_length": 8, "training.steps": 300}
    sizes = {"model.vocab_size": data.num_ids, "training.sequence_length": data.row_length}
    return with_fields(load_config("recall"), {"data": data} | sizes | changes)
