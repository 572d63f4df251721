"""A student with a quarter of the parameters of `stdlib`, which is its teacher: 205,570, one layer of width 64.

Command: python experiments/train.py stdlib --workdir runs/stdlib                                  (the teacher)
         python experiments/train.py stdlib_distilled --workdir runs/stdlib_distilled --seed 0     (and 1, 2)
         Control, the student alone: --distill.weight 0 --workdir runs/stdlib_student
Time:    not measured with these settings; 203 s of CPU time with weight 0.5 and temperature 2, 106 and 115 s without
         teacher, with everything (Python 3.11, jax 0.10.2, one core of an AMD EPYC)
Result:  not measured with these settings. Bits per byte on 32 held-out files: 2.207 with weight 0.5 and temperature 2
         (seed 3); the student alone, seeds 0 and 1: 2.224, 2.197.
"""

from memgpt_jax.config.distill import DistillConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    changes = {
        "model.d_model": 64,
        "model.num_layers": 1,
        "distill": DistillConfig(teachers=("runs/stdlib",), weight=0.9, temperature=1.0),
    }
    return with_fields(load_config("stdlib"), changes)
