"""A student with a quarter of the parameters of `stdlib`, which is its teacher: 205,570, one layer of width 64.

Command: python experiments/train.py stdlib --workdir runs/stdlib                                  (the teacher)
         python experiments/train.py stdlib_distilled --workdir runs/stdlib_distilled --seed 0     (and 1, 2)
         Control, the student alone: --distill.weight 0 --workdir runs/stdlib_student
Time:    201, 202, 189 s of CPU time with everything, without the teacher 106, 116, 122 s (Python 3.11, jax 0.10.2, one
         core of a shared AMD EPYC)
Result:  bits per byte on 32 held-out files, seeds 0, 1, 2: 2.207, 2.188, 2.191; the student alone: 2.224, 2.197, 2.205.
         The teacher is the run of seed 0 (1.903). The student alone for as many seconds: not measured.
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
