"""RULER's needles in a haystack of noise: which number of seven digits was given for a word?

Command: python experiments/train.py noise_needle --workdir runs/noise_needle
Time:    235 s (Python 3.11, jax 0.10.2, one core of an AMD EPYC)
Result:  not solved in these 300 steps: 0.759 of the digits are right (seed 0, 3,584 digits). A digit that follows
         others of its number is found by them; the first one must be found by the word, three tokens before it. Chance
         is 0.1
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.noise import NoiseNeedleConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = NoiseNeedleConfig(num_needles=4, num_questions=4)
    changes = {"model.memory.memory_size": 256, "training.steps": 300}
    sizes = {"model.vocab_size": data.num_ids, "training.sequence_length": data.row_length}
    return with_fields(load_config("recall"), {"data": data} | sizes | changes)
