"""A user's mechanism, outside of the package, works like the library's own: `tests/examples/mean_memory.py`."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import memgpt_jax as mg
from memgpt_jax.checkpoint import load_run
from memgpt_jax.config.serialization import from_json, to_json
from memgpt_jax.memory import layer_memory_bytes
from memgpt_jax.studies.command_line import load_config, override
from memgpt_jax.training import train

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "tests" / "examples" / "mean_memory.py"


@pytest.fixture
def mean():
    """A small config of the example; its registration is removed afterwards."""
    config = load_config(str(EXAMPLE))
    words = "--model.d_model 16 --model.num_layers 1 --training.steps 2 --training.batch_size 4"
    yield override(config, [*words.split(), "--evaluation.num_batches", "1"])
    mg.MEMORIES.unregister("mean")


@pytest.mark.slow
def test_it_satisfies_the_contract():
    """Run the command in the docstring of the example, with the slow rows of the contract."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "mean_memory", "tests/memory/test_contract.py", "-k", "mean"]
    command += ["-m", "slow or not slow"]
    path = os.pathsep.join([str(EXAMPLE.parent), str(ROOT)])
    result = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=800
    )
    assert result.returncode == 0, result.stdout[-3000:]
    assert int(result.stdout.split(" passed")[0].split()[-1]) >= 20


def test_it_is_chosen_and_set_on_the_command_line(mean):
    config_class = mg.MEMORIES["mean"].config
    words = ["--model.memory", "mean", "--model.memory.memory_size=8", "--model.memory.decay", "0.5"]
    assert override(load_config("recall"), words).model.memory == config_class(memory_size=8, decay=0.5)


def test_invalid_settings_are_refused_in_one_line(mean):
    with pytest.raises(ValueError, match=r"decay must be between 0 and 1, got 2\.0"):
        override(mean, ["--model.memory.decay", "2"])


def test_its_config_round_trips_through_json(mean):
    assert from_json(json.loads(json.dumps(to_json(mean)))) == mean


READ = """
import json, sys
from memgpt_jax.config.serialization import from_json
values = json.load(sys.stdin)
try:
    from_json(values)
except ValueError as error:
    print(error)
sys.path.append(sys.argv[1])
config = from_json(values)
import memgpt_jax as mg
print(mg.MEMORIES.name_of(config.model.memory), config.model.memory.decay)
"""


@pytest.mark.slow
def test_its_module_is_imported_where_it_can_be_found_and_named_where_not(mean):
    assert to_json(mean)["model"]["memory"]["import"] == "mean_memory:MeanMemoryConfig"
    memory = dataclasses.replace(mean.model.memory, decay=0.25)
    changed = dataclasses.replace(mean, model=dataclasses.replace(mean.model, memory=memory))
    words, environment = [sys.executable, "-c", READ, str(EXAMPLE.parent)], os.environ | {"PYTHONPATH": str(ROOT)}
    options = {"input": json.dumps(to_json(changed)), "capture_output": True, "text": True, "timeout": 300}
    result = subprocess.run(words, env=environment, **options)
    assert result.returncode == 0, result.stderr[-2000:]
    *message, found = result.stdout.splitlines()
    message = " ".join(message)
    assert message.startswith("the configuration 'MeanMemoryConfig' is defined in mean_memory:MeanMemory")
    assert "No module named 'mean_memory'" in message and "import the module" in message
    assert found == "mean 0.25"


def test_its_size_follows_from_bytes(mean):
    matched = override(mean, ["--model.memory.match_state_bytes", "1000"]).model
    assert layer_memory_bytes(mean.model) == 4 * 16 + 4
    assert layer_memory_bytes(matched) == 1000 == 4 * 249 + 4


@pytest.mark.slow
def test_it_is_trained_loaded_and_generates(mean, tmp_path):
    result = train(mean, tmp_path / "run", print_progress=False)
    assert result["step"] == 2 and np.isfinite(result["evaluation"]["loss"])
    saved = load_run(tmp_path / "run")
    assert saved.config == mean
    prompt = jnp.arange(40, dtype=jnp.int32)[None]
    written = mg.generate((mean.model, saved.params), prompt, max_new_tokens=20).ids
    assert written.shape == (1, 60)
    # The first token has left the window long before the end: only the memory can know of it.
    other = written.copy()
    other[0, 0] += 1
    apply = jax.jit(mg.functional(mean.model).apply)
    change = np.abs(apply(saved.params, written)[0] - apply(saved.params, other)[0])
    assert change[0, -1].max() > 0


def test_what_it_reads_is_the_mean(mean):
    config = dataclasses.replace(mean.model, memory=dataclasses.replace(mean.model.memory, decay=0.5))
    shapes = {"d_model": config.d_model, "segment_length": 4, "fusion": "add"}
    layer = nnx.jit(lambda: mg.MemoryLayer(config.memory, **shapes, rngs=nnx.Rngs(0)))()
    x = jax.random.normal(jax.random.key(0), (2, 12, config.d_model))
    (y, _), normed = nnx.jit(lambda layer, x: (layer(x, layer.init_state(2)), layer.norm(x)))(layer, x)
    tokens = np.asarray(normed, np.float64) @ np.asarray(layer.memory.input.kernel[...], np.float64)
    sums = tokens.reshape(2, 3, 4, -1).sum(axis=2)
    mean_of_two = (0.5 * sums[:, 0] + sums[:, 1]) / (0.5 * 4 + 4)
    expected = mean_of_two @ np.asarray(layer.memory.output.kernel[...], np.float64)
    np.testing.assert_allclose((y - x)[:, 8:], np.repeat(expected[:, None], 4, axis=1), atol=1e-5)
