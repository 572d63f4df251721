"""Changes of nested configurations by the paths of their fields."""

import pytest

from memgpt_jax.config import ExperimentConfig, RotaryScalingConfig
from memgpt_jax.config.fields import with_fields


def test_fields_of_any_depth_change_together():
    before = ExperimentConfig()
    changes = {"seed": 3, "model.memory.memory_size": 7, "model.rotary_scaling": RotaryScalingConfig(factor=2.0)}
    # 96 is a multiple of neither 64 nor the other way around: each change alone would be refused.
    changes |= {"model.segment_length": 96, "training.sequence_length": 192, "evaluation.chunk_length": 96}
    after = with_fields(before, changes)
    assert (after.seed, after.model.memory.memory_size, after.model.rotary_scaling.factor) == (3, 7, 2.0)
    assert (after.model.segment_length, after.training.sequence_length) == (96, 192)
    assert with_fields(after, {}) == after and before == ExperimentConfig()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"modle.d_model": 8}, "ExperimentConfig has no field 'modle'; valid: model, data"),
        ({"model.memory.slots": 8}, "KVMemoryConfig has no field 'slots'; valid: memory_size"),
        ({"seed.x": 8}, "seed=0 has no fields, got seed.x"),
        ({"model": ExperimentConfig().model, "model.d_model": 8}, "both 'model' and a field of it are given"),
        ({"model.num_layers": -1}, "num_layers must be at least 0, got -1"),
    ],
)
def test_wrong_paths_and_values_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        with_fields(ExperimentConfig(), changes)
