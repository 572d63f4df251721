"""Types and bounds of the fields of configurations: each is what its field declares."""

import dataclasses
import importlib
import inspect
import math
import pkgutil
from types import NoneType
from typing import get_args

import numpy as np
import pytest

import memgpt_jax
from memgpt_jax import config, data, memory
from memgpt_jax.config.checks import check_positive
from memgpt_jax.config.experiment import ExperimentConfig, OptimizerConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig

SAMPLES = {float: 1.0, str: "a", bool: False}
WRONG = {
    bool: ("False", 1),
    int: (2.0, 1.5, True, "1", math.nan),
    float: ("1", True, math.nan, math.inf),
    str: (1,),
}


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
        given = SAMPLES.get(item.type, item.metadata.get("least", 1) if item.type is int else None)
        object.__setattr__(made, item.name, given)
    for value in (least, None) if kind_of(kind, name) == int | None else (least,):
        object.__setattr__(made, name, value)
        check_positive(made)
    object.__setattr__(made, name, least - 1)
    with pytest.raises(ValueError, match=f"^{name} must be at least {least}, got {least - 1}$"):
        check_positive(made)


def kind_of(kind, name):
    return next(item.type for item in dataclasses.fields(kind) if item.name == name)


def every_config():
    """All configuration classes of the package."""
    for _, name, _ in pkgutil.walk_packages(memgpt_jax.__path__, "memgpt_jax."):
        if "benchmark" in name or "serving" in name:  # they need extras, and have no configurations
            continue
        for value in vars(importlib.import_module(name)).values():
            if dataclasses.is_dataclass(value) and value.__module__ == name and value.__name__.endswith("Config"):
                yield value


@pytest.mark.parametrize("kind", sorted(every_config(), key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_every_field_has_its_type_and_every_float_is_finite(kind):
    required = {
        item.name: SAMPLES.get(item.type, 1 if item.type is int else None)
        for item in dataclasses.fields(kind)
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    }
    for item in dataclasses.fields(kind):
        types = set(get_args(item.type) or (item.type,))
        (plain, *others) = types - {NoneType}
        if others or plain not in WRONG:
            continue
        for value in (*WRONG[plain], *(() if NoneType in types else (None,))):
            with pytest.raises(ValueError, match=rf"{item.name} must be"):
                kind(**required | {item.name: value})


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (
            OptimizerConfig,
            {"b1": (-1.0, 1.0), "b2": (-0.1, 1.5), "gate_lr_multiplier": (-3.0, 0.0), "warmup_steps": (-1,)},
        ),
        (OptimizerConfig, {"learning_rate": (0.0, -1.0), "weight_decay": (-1.0,), "clip_norm": (-1.0,)}),
        (ModelConfig, {"norm_epsilon": (0.0, -1.0), "rotary_base": (0.0, -5.0), "logit_scale": (0.0, -1.0)}),
    ],
)
def test_numbers_that_make_no_sense_are_refused(kind, values):
    for name, wrong in values.items():
        for value in wrong:
            with pytest.raises(ValueError, match=f"^{name} must be .*, got {value}$"):
                kind(**{name: value})
    assert OptimizerConfig(b1=0, b2=0, weight_decay=0, clip_norm=0, warmup_steps=0).b1 == 0


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_jax_would_cut_is_refused(seed):
    with pytest.raises(ValueError, match=rf"seed={seed} must be at least 0 and below 2\^32"):
        ExperimentConfig(seed=seed)


def test_scalars_of_numpy_become_those_of_python():
    config = ModelConfig(d_model=np.int64(32), norm_epsilon=np.float32(0.5), tie_embeddings=np.bool_(False))
    assert [type(x) for x in (config.d_model, config.norm_epsilon, config.tie_embeddings)] == [int, float, bool]
    assert config == ModelConfig(d_model=32, norm_epsilon=0.5, tie_embeddings=False)
    with pytest.raises(ValueError, match=r"d_model must be a whole number, got 32\.5"):
        ModelConfig(d_model=np.float64(32.5))


def test_fields_that_may_be_0():
    """Where the documentation says what 0 means, 0 is valid, and nothing else."""
    assert {(kind.__name__, name) for kind, name, least in FIELDS if least == 0} == {
        ("EncoderConfig", "token_types"),
        ("EncoderConfig", "position_offset"),
        ("ExamplesConfig", "test_fold"),
        ("FeaturesConfig", "token"),
        ("FramesConfig", "token"),
        ("MovingShapesConfig", "gap"),
        ("OptimizerConfig", "warmup_steps"),
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
