"""What is saved reads back, and what cannot be read is refused with a clear error."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from memgpt_jax.config_memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.training import RunError, load
from memgpt_jax.training.checkpoint import Checkpoints
from memgpt_jax.training.state import create


@pytest.fixture(scope="module")
def config(make_config):
    return make_config()


@pytest.fixture(scope="module")
def saved(tmp_path_factory, config):
    """A workdir with checkpoints of steps 0 and 1, and the state that both hold."""
    workdir, state = tmp_path_factory.mktemp("run"), create(config)
    with Checkpoints(workdir, keep=2) as checkpoints:
        checkpoints.save(config, state, {"position": "here"})
        state = state._replace(step=state.step + 1)
        checkpoints.save(config, state, {"position": "there"})
    return workdir, state


def bits(array):
    """Values; of a PRNG key its data."""
    is_key = jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(array) if is_key else array)


def assert_equal(a, b):
    """The same tree with bitwise equal leaves."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(bits(x), bits(y), strict=True), a, b)


def test_state_and_data_position_read_back(saved, config):
    workdir, state = saved
    with Checkpoints(workdir) as checkpoints:
        restored, data_state = checkpoints.restore(config)
    assert_equal(restored, state)
    assert data_state == {"position": "there"}


def test_how_the_model_computes_may_change_and_what_it_computes_may_not(saved, config):
    workdir, state = saved
    other = dataclasses.replace(config.model, remat="block", attention_implementation="portable")
    with Checkpoints(workdir) as checkpoints:
        assert_equal(checkpoints.restore(dataclasses.replace(config, model=other))[0], state)
        wider = dataclasses.replace(config, model=dataclasses.replace(other, window_size=2 * other.window_size))
        with pytest.raises(RunError, match=r"another config.*\n  model.window_size: \d+ → \d+$"):
            checkpoints.restore(wider)


@pytest.mark.parametrize("memory", [KVMemoryConfig(memory_size=0, writer_conv=1), NoMemoryConfig()])
def test_arrays_of_size_0_and_absent_memories_read_back(tmp_path, make_config, memory):
    config = make_config(model={"memory": memory})
    state = create(config)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(config, state, None)
    with Checkpoints(tmp_path) as checkpoints:
        assert_equal(checkpoints.restore(config)[0], state)


def test_load_gives_config_and_params_of_any_kept_step(saved, config):
    workdir, state = saved
    assert load(workdir).step == 1
    loaded = load(workdir, step=0)
    assert (loaded.config, loaded.step) == (config, 0)
    assert_equal(loaded.params, state.params)


def test_missing_checkpoints_are_named(saved, tmp_path):
    with pytest.raises(RunError, match=r"no checkpoint in .*nowhere"):
        load(tmp_path / "nowhere")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(RunError, match=r"no checkpoint in .*: its run saved none"):
        load(tmp_path)
    with pytest.raises(RunError, match=r"no checkpoint of step 7 in .*there are: \[0, 1\]"):
        load(saved[0], step=7)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # raised in threads of Orbax
@pytest.mark.parametrize("item", ["params", "config", "data"])
def test_a_damaged_checkpoint_is_refused_and_the_others_are_named(saved, config, tmp_path, item):
    workdir = tmp_path / "run"
    shutil.copytree(saved[0], workdir)
    for file in (workdir / "checkpoints" / "1" / item).rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    message = rf"1 cannot be read \(.*{item}.*\): it is damaged.*there are: \[0\]"
    with Checkpoints(workdir, keep=2) as checkpoints, pytest.raises(RunError, match=message):
        checkpoints.restore(config)
    shutil.rmtree(workdir / "checkpoints" / "1")
    with Checkpoints(workdir, keep=2) as checkpoints:
        assert checkpoints.restore(config)[1] == {"position": "here"}
