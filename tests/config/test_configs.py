"""Every config builds its model, as shapes only, and says how it is run."""

import dataclasses
import importlib.util
import re

import jax
import numpy as np
import pytest

from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.models import functional
from memgpt_jax.models.parameters import count_parameters, match_parameters
from memgpt_jax.studies.command_line import CONFIGS, config_names, load_config


@pytest.mark.parametrize("name", config_names())
def test_builds(name):
    config = load_config(name)
    model = functional(config.model)
    assert {leaf.dtype for leaf in jax.tree.leaves(model.param_shapes())} == {np.dtype("float32")}
    state = jax.eval_shape(lambda: model.init_state(config.training.batch_size))
    assert all(leaf.shape[0] == config.training.batch_size for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("name", config_names())
def test_docstring_gives_command_time_and_result(name):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for part in ("Command:", "Time:", "Result:"):
        assert part in module.__doc__
    assert re.search(
        rf"python experiments/(train|ablate|adapt|benchmark|zero_shot)\.py (train )?{name}\b", module.__doc__
    )


@pytest.mark.parametrize("name", config_names())
def test_the_page_of_the_data_names_the_files_of_the_config(name):
    page, source = (CONFIGS.parent / "docs" / "data.md").read_text(), (CONFIGS / f"{name}.py").read_text()
    if "MEMGPT_DATA" in source:
        assert f"`{name}`" in page
    for path in re.findall(r"\$MEMGPT_DATA/([\w./-]+)", source):
        assert path.partition("/")[0] + "/" in page and path.rsplit("/", 1)[-1] in page


@pytest.mark.parametrize("name", ["stdlib", "books"])
def test_baseline_has_as_many_parameters(name):
    config, baseline = load_config(name), load_config(f"{name}_none")
    assert isinstance(config.model.memory, KVMemoryConfig) and isinstance(baseline.model.memory, NoMemoryConfig)
    assert count_parameters(baseline.model) == pytest.approx(count_parameters(config.model), rel=0.02)
    assert (baseline.data, baseline.training, baseline.optimizer) == (config.data, config.training, config.optimizer)


def test_matching_is_as_close_as_a_width_allows():
    config = load_config("recall").model
    matched = match_parameters(config)
    target = count_parameters(config)
    distance = abs(count_parameters(matched) - target)
    for width in (matched.d_ff - 1, matched.d_ff + 1):
        assert distance <= abs(count_parameters(dataclasses.replace(matched, d_ff=width)) - target)
    with pytest.raises(ValueError, match="no feed-forward width"):
        match_parameters(config, tolerance=0.0)


def test_count_equals_real_parameters():
    config = load_config("recall").model
    assert count_parameters(config) == sum(
        leaf.size for leaf in jax.tree.leaves(functional(config).init(jax.random.key(0)))
    )
