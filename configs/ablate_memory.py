r"""What memory size is worth: `stdlib` with fewer steps, swept over `memory_size`.

Command: python experiments/ablate.py ablate_memory \
             --sweep model.memory.memory_size=0,64,256,1024,4096 seed=0,1,2 --workdir runs/ablate_memory
Time:    not measured yet
Result:  not measured yet
"""

import dataclasses

from memgpt_jax.command_line import load_config
from memgpt_jax.config import ExperimentConfig


def config() -> ExperimentConfig:
    base = load_config("stdlib")
    return dataclasses.replace(
        base,
        training=dataclasses.replace(base.training, steps=60),
        evaluation=dataclasses.replace(base.evaluation, max_documents=16),
    )
