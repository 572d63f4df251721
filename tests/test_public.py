"""The public namespace: what `mg` offers is what it lists, and each name is documented."""

import ast
import dataclasses
import inspect
import types
from pathlib import Path

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.data import OBJECTIVES, TASKS

NAMESPACES = {"data", "interop", "knowledge", "memory", "ops", "tasks", "training"}


def test_dir_lists_the_public_names_alone():
    assert dir(mg) == sorted(mg.__all__) and len(set(mg.__all__)) == len(mg.__all__)
    assert all(hasattr(mg, name) for name in mg.__all__)
    modules = {name for name in mg.__all__ if isinstance(getattr(mg, name), types.ModuleType)}
    assert modules == NAMESPACES


@pytest.mark.parametrize("name", sorted(mg.__all__))
def test_every_public_name_is_documented(name):
    value = getattr(mg, name)
    if inspect.isclass(value) or inspect.isfunction(value) or name in NAMESPACES:
        own = value.__dict__["__doc__"] if inspect.isclass(value) else value.__doc__
        assert own and not own.startswith(f"{name}("), "a dataclass without a docstring shows its signature"


@pytest.mark.parametrize("name", [name for name in sorted(mg.__all__) if inspect.isfunction(getattr(mg, name))])
def test_every_argument_of_a_public_function_is_annotated(name):
    signature = inspect.signature(getattr(mg, name))
    parameters = signature.parameters.values()
    assert not [p.name for p in parameters if p.annotation is inspect.Parameter.empty]
    assert signature.return_annotation is not inspect.Signature.empty


def test_no_function_has_eight_positional_parameters():
    for path in Path(mg.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [p.arg for p in (*node.args.posonlyargs, *node.args.args) if p.arg not in ("self", "cls")]
                assert len(names) < 8, (path.name, node.name, names)


def test_every_configuration_is_public():
    """Those of mechanisms, objectives and tasks; all are frozen dataclasses with keyword-only fields."""
    entries = [entry for registry in (mg.MEMORIES, OBJECTIVES, TASKS) for entry in registry.values()]
    configs = {entry.config for entry in entries if entry.config.__module__.startswith("memgpt_jax.")}
    public = {value for name in mg.__all__ if dataclasses.is_dataclass(value := getattr(mg, name))}
    assert configs <= public
    for config in public:
        parameters = config.__dataclass_params__
        assert parameters.frozen and all(field.kw_only for field in dataclasses.fields(config)), config


def test_a_parameter_count_is_that_of_the_parameters():
    config = mg.ModelConfig(vocab_size=11, d_model=8, num_layers=1, num_heads=2)
    params = mg.functional(config).init(jax.random.key(0))
    assert mg.count_parameters(config) == sum(np.size(leaf) for leaf in jax.tree.leaves(params))
