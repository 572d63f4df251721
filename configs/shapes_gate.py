"""Is "there is a red circle" true of a picture: words and patches encoded apart, their maxima fused by `gate`.

Command: python experiments/train.py shapes_gate --workdir runs/shapes_gate
Time:    not measured
Result:  not measured
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.models.heads import FusionHeadConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    changes = {
        "data.token_types": True,
        "model.backbone.token_types": 2,
        "model.backbone.separate_types": True,
        "model.head": FusionHeadConfig(fusion="gate", pool="max"),
    }
    return with_fields(load_config("shapes"), changes)
