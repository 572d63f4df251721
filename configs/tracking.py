"""Variable tracking: what a variable holds, up to one hop from its value, in noise.

Command: python experiments/train.py tracking --workdir runs/tracking
Time:    57 s of CPU time (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared)
Result:  not learned in these 250 steps: accuracy 0.215 (seed 0, 512 answers), 0.190 at no hop and 0.238 at one. Naming
         any of the row's 4 values would give 0.25, naming any value 1/64 = 0.016. With 1,000 steps 0.504 (seed 0),
         0.488 at no hop and 0.519 at one; other seeds are not measured yet.
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.tracking import TrackingConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = TrackingConfig(num_chains=4, num_hops=1, num_questions=4, context_length=100)
    changes = {"model.memory.memory_size": 128, "training.steps": 250}
    sizes = {"model.vocab_size": data.num_ids, "training.sequence_length": data.row_length}
    return with_fields(load_config("recall"), {"data": data} | sizes | changes)
