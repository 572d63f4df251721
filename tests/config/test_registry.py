"""The registry: what it refuses, and what it finds."""

from dataclasses import dataclass

import pytest

from memgpt_jax.config.registry import Registry


class Pool:
    """The interface of these tests."""


class PoolConfig:
    """Base of its configurations."""


@dataclass(frozen=True)
class MeanConfig(PoolConfig):
    """A configuration."""


@dataclass(frozen=True)
class SumConfig(PoolConfig):
    """Another one."""


class Mean(Pool):
    """An implementation."""


class Sum(Pool):
    """Another one."""


@pytest.fixture
def pools():
    registry = Registry("pool", Pool, PoolConfig)
    registry.register("mean", MeanConfig, Mean)
    return registry


def test_lookup_by_name_and_by_configuration(pools):
    assert list(pools) == ["mean"] and len(pools) == 1 and "mean" in pools
    assert pools["mean"].config is MeanConfig and pools["mean"].module is Mean
    assert pools.of(MeanConfig()) is Mean and pools.name_of(MeanConfig()) == "mean"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("two words", SumConfig, Mean), "must be an identifier, got 'two words'"),
        (
            ("mean", SumConfig, Sum),
            r"there is a pool 'mean' already: .*, or remove it with `unregister\('mean'\)`",
        ),
        (("sum", SumConfig, int), "must be a class derived from Pool, got <class 'int'>"),
        (("sum", SumConfig, Mean()), "must be a class derived from Pool, got <.*Mean object"),
        (("sum", int, Mean), "must be a dataclass derived from PoolConfig"),
        (("sum", MeanConfig, Mean), r"MeanConfig is the configuration of \['mean'\] already"),
    ],
)
def test_what_is_refused(pools, arguments, message):
    with pytest.raises(ValueError, match=message):
        pools.register(*arguments)
    assert list(pools) == ["mean"]


def test_a_definition_that_runs_again_replaces_the_former_one(pools):
    """As a cell of a notebook does."""
    config = type("MeanConfig", (MeanConfig,), {})
    again = type("Mean", (Pool,), {"__module__": Mean.__module__})
    pools.register("mean", config, again)
    assert pools["mean"].module is again and pools.of(config()) is again and list(pools) == ["mean"]


def test_unknown_names_and_configurations_list_the_valid_ones(pools):
    with pytest.raises(KeyError, match="there is no pool 'sum'; valid: mean"):
        pools["sum"]
    with pytest.raises(ValueError, match="SumConfig is the configuration of no pool; valid: MeanConfig"):
        pools.of(SumConfig())


def test_an_implementation_can_be_removed(pools):
    pools.unregister("mean")
    assert not pools
    with pytest.raises(KeyError):
        pools.unregister("mean")


def test_a_registry_without_configurations():
    pools = Registry("pool", Pool)
    pools.register("mean", None, Mean)
    assert pools["mean"].module is Mean
    with pytest.raises(ValueError, match="a pool has no configuration"):
        pools.register("sum", SumConfig, Mean)


def test_a_registry_of_instances_takes_instances_only():
    pools = Registry("pool", Pool, instances=True)
    pools.register("mean", None, mean := Mean())
    assert pools["mean"].module is mean
    for module in (Mean, 1):
        with pytest.raises(ValueError, match="the pool 'sum' must be an instance of Pool, got "):
            pools.register("sum", None, module)
    assert list(pools) == ["mean"]
