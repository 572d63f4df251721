"""Bounds of integer fields: each is what its field declares."""

import dataclasses
import inspect

import pytest

from memgpt_jax import config, data, memory
from memgpt_jax.config.checks import check_positive
from memgpt_jax.config.model import EncoderConfig, ModelConfig


def modules_of(package):
    return [value for value in vars(package).values() if inspect.ismodule(value)]


def uses_it(kind):
    return "check_positive" in kind.__post_init__.__code__.co_names


CLASSES = {
    value
    for module in (config.experiment, config.model, *modules_of(memory), *modules_of(data.tasks))
    for value in vars(module).values()
    if dataclasses.is_dataclass(value) and hasattr(value, "__post_init__") and uses_it(value)
}
FIELDS = [
    (kind, item.name, item.metadata.get("least", 1))
    for kind in sorted(CLASSES | {EncoderConfig}, key=lambda kind: kind.__name__)
    for item in dataclasses.fields(kind)
    if item.type in (int, int | None)
]


@pytest.mark.parametrize("kind, name, least", FIELDS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_the_bound_of_every_integer_field(kind, name, least):
    made = object.__new__(kind)
    for item in dataclasses.fields(kind):
        object.__setattr__(made, item.name, None)
    for value, valid in ((least, True), (least - 1, False), (None, True)):
        object.__setattr__(made, name, value)
        if valid:
            check_positive(made)
        else:
            with pytest.raises(ValueError, match=f"^{name} must be at least {least}, got {value}$"):
                check_positive(made)


def test_fields_that_may_be_0():
    """Where the documentation says what 0 means, 0 is valid, and nothing else."""
    assert {(kind.__name__, name) for kind, name, least in FIELDS if least == 0} == {
        ("EncoderConfig", "token_types"),
        ("EncoderConfig", "position_offset"),
        ("ExamplesConfig", "test_fold"),
        ("FeaturesConfig", "token"),
        ("FramesConfig", "token"),
        ("MovingShapesConfig", "gap"),
        ("QuestionsConfig", "test_fold"),
        ("ScenesConfig", "fold"),
        ("TriplesConfig", "facts"),
        ("VectorsConfig", "token"),
    }
    sizes = {"d_model": 16, "num_heads": 2, "position": "learned"}
    plain = EncoderConfig(**sizes)
    assert EncoderConfig(**sizes, token_types=0, position_offset=0) == plain
    with pytest.raises(ValueError, match="token_types must be at least 0, got -1"):
        EncoderConfig(**sizes, token_types=-1)
    with pytest.raises(ValueError, match="adapter_rank must be at least 1, got 0"):
        ModelConfig(adapter_rank=0)
    assert ModelConfig(num_layers=0).num_layers == 0
    with pytest.raises(ValueError, match="num_layers must be at least 1, got 0"):
        EncoderConfig(num_layers=0)
