"""Dictionary lookup: definitions of words of two symbols, then questions.

Command: python experiments/train.py dictionary --workdir runs/dictionary
Time:    108 s of CPU time (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared)
Result:  accuracy 1.000 (seed 0, 2,047 of 2,048 symbols); seeds 1 and 2 are not measured yet. Chance is 1/32 = 0.031
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.dictionary import DictionaryConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = DictionaryConfig(num_entries=24, num_questions=8)
    changes = {"model.memory.memory_size": 256, "training.steps": 400}
    sizes = {"model.vocab_size": data.num_ids, "training.sequence_length": data.row_length}
    return with_fields(load_config("recall"), {"data": data} | sizes | changes)
