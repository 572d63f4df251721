"""Forgetting: 8 keys and 8 rewrites, each of a random key with a new value; the last value counts.

Command: python experiments/train.py forgetting --workdir runs/forgetting
Time:    69 s of CPU time (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared)
Result:  accuracy 0.995 (seed 0, 1,024 answers); seeds 1 and 2 are not measured yet. Chance is 1/128 = 0.008
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.mqar import MQARConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = MQARConfig(vocab_size=256, length=64, num_pairs=8, num_rewrites=8)
    changes = {
        "model.window_size": 8,
        "model.segment_length": 8,
        "model.memory.recency_bias": True,
        "training.steps": 600,
    }
    sizes = {"model.vocab_size": data.num_ids, "training.sequence_length": data.row_length}
    return with_fields(load_config("recall"), {"data": data} | sizes | changes)
