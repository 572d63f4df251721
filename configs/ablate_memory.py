r"""What memory size is worth: `stdlib` with fewer steps, swept over `memory_size`.

Command: python experiments/ablate.py ablate_memory \
             --sweep model.memory.memory_size=0,64,256,1024,4096 seed=0,1,2 --workdir runs/ablate_memory
Time:    about 25 minutes on one core of an AMD EPYC, shared (Python 3.11, jax 0.10.2)
Result:  bits per byte on 16 held-out files, mean and standard deviation of the seeds:
         0: 2.587 ± 0.016,  64: 2.478 ± 0.012,  256: 2.358 ± 0.015,  1024: 2.305 ± 0.021,  4096: 2.334 ± 0.026.
         The files are at most 8,192 tokens long, and 60 steps are few: 4,096 entries are slower to learn to read.
"""

import dataclasses

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    base = load_config("stdlib")
    return dataclasses.replace(
        base,
        training=dataclasses.replace(base.training, steps=60),
        evaluation=dataclasses.replace(base.evaluation, max_documents=16),
    )
