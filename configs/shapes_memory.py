"""Is "there is a red circle" true of a picture: the picture is read first, the statement in a later call from memory.

Command: python experiments/train.py shapes_memory --workdir runs/shapes_memory
Time:    99 s of CPU time (Python 3.11, jax 0.10.2, one shared core)
Result:  accuracy 1.000, 1.000, 1.000; without the picture 0.519, 0.481, 0.481, without the text
         0.499, 0.490, 0.491 (1,024 pictures each, seeds 0, 1, 2)
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.models.heads import LabelHeadConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    changes = {
        "model.backbone.memory": KVMemoryConfig(memory_size=9, num_heads=4, head_dim=16, writer_conv=1),
        "model.backbone.fusion": "add",
        "model.head": LabelHeadConfig(pool="last"),  # a mean would show the picture to the head without the memory
        "model.call_length": 9,
    }
    return with_fields(load_config("shapes"), changes)
