"""What is saved reads back, and what cannot be read is refused with a clear error."""

import contextlib
import dataclasses
import os
import shutil

import jax
import numpy as np
import pytest

from memgpt_jax.checkpoint import Checkpoints, load_run, run_folder
from memgpt_jax.checkpoint import checkpoints as checkpoint_files
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.files import checksums
from memgpt_jax.files.paths import LONGEST, PLAIN, shown
from memgpt_jax.training import RunError
from memgpt_jax.training.saving import restore_run, save_run
from memgpt_jax.training.state import state_of
from tests.laws.models import random_params


@pytest.fixture(scope="module")
def config(make_config):
    return make_config()


@pytest.fixture(scope="module")
def saved(tmp_path_factory, config):
    """A workdir with checkpoints of steps 0 and 1, and the state that both hold."""
    workdir, state = tmp_path_factory.mktemp("run"), state_of(config, random_params(config.model))
    with Checkpoints(workdir, keep=2) as checkpoints:
        save_run(checkpoints, config, state, {"position": "here"})
        state = state._replace(step=state.step + 1)
        save_run(checkpoints, config, state, {"position": "there"})
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
        restored, data_state = restore_run(checkpoints, config)
    assert_equal(restored, state)
    assert data_state == {"position": "there"}


def test_how_the_model_computes_may_change_and_what_it_computes_may_not(saved, config):
    workdir, state = saved
    other = dataclasses.replace(config.model, remat="block", attention_implementation="portable")
    with Checkpoints(workdir) as checkpoints:
        assert_equal(restore_run(checkpoints, dataclasses.replace(config, model=other))[0], state)
        wider = dataclasses.replace(config, model=dataclasses.replace(other, window_size=2 * other.window_size))
        with pytest.raises(RunError, match=r"another config.*\n  model.window_size: \d+ → \d+$"):
            restore_run(checkpoints, wider)


@pytest.mark.parametrize("memory", [KVMemoryConfig(memory_size=0, writer_conv=1), NoMemoryConfig()])
def test_arrays_of_size_0_and_absent_memories_read_back(tmp_path, make_config, memory):
    config = make_config(model={"memory": memory})
    state = state_of(config, random_params(config.model))
    with Checkpoints(tmp_path) as checkpoints:
        save_run(checkpoints, config, state, None)
    with Checkpoints(tmp_path) as checkpoints:
        assert_equal(restore_run(checkpoints, config)[0], state)


def test_load_gives_config_and_params_of_any_kept_step(saved, config):
    workdir, state = saved
    assert load_run(workdir).step == 1
    loaded = load_run(workdir, step=0)
    assert (loaded.config, loaded.step) == (config, 0)
    assert_equal(loaded.params, state.params)


def test_missing_checkpoints_are_named(saved, tmp_path):
    with pytest.raises(RunError, match=r"no checkpoint in .*nowhere"):
        load_run(tmp_path / "nowhere")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(RunError, match=r"no checkpoint in .*: its run saved none"):
        load_run(tmp_path)
    with pytest.raises(RunError, match=r"no checkpoint of step 7 in .*valid: \[0, 1\]"):
        load_run(saved[0], step=7)


def spoil(path, summed=True):
    """Cut the files below a path in half; `summed=False`: as if they had no checksums."""
    for file in [path, *path.rglob("*")]:
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    step = next(folder for folder in (path, *path.parents) if (folder / checksums.SUMS).exists())
    if not summed:
        (step / checksums.SUMS).unlink()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # raised in threads of Orbax
@pytest.mark.parametrize("item, summed", [("params", True), ("data", True), ("SHA256SUMS", True), ("config", False)])
def test_a_damaged_checkpoint_is_named_and_the_last_good_one_taken(saved, config, tmp_path, caplog, item, summed):
    workdir = tmp_path / "run"
    shutil.copytree(saved[0], workdir)
    spoil(workdir / "checkpoints" / "1" / item, summed)
    assert load_run(workdir).step == (1 if item == "data" else 0)  # `load_run` reads no data position
    with Checkpoints(workdir, keep=2) as checkpoints:
        state, data_state = restore_run(checkpoints, config)
        assert data_state == {"position": "here"}
        assert "step 1 is damaged" in caplog.text
        save_run(checkpoints, config, state._replace(step=state.step + 1), {"position": "again"})
        checkpoints.wait()
        assert restore_run(checkpoints, config)[1] == {"position": "again"}
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["0", "1"]
    assert (workdir / "damaged" / "1").is_dir()


def test_where_all_are_damaged_all_are_named(saved, config, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(saved[0], workdir)
    for step in ("0", "1"):
        spoil(workdir / "checkpoints" / step / "params")
    with (
        Checkpoints(workdir, keep=2) as checkpoints,
        pytest.raises(RunError, match=r"no checkpoint can be read in .*steps 1, 0 are damaged \(.*params.*\)"),
    ):
        restore_run(checkpoints, config)
    with pytest.raises(RunError, match=r"step 0 is damaged .*other steps: \[1\]"):
        load_run(workdir, step=0)
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"0", "1"}


NAMES = [
    "run [1]",
    "a\\b",
    "[",
    "**",
    "*?#%:{}|",
    " ",
    "Lösung ü",
    "new\nline",
    "~x",
    "x" * 250,
    b"not utf-8 \xff",
    "s3:",
]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (number % 2), id=ascii(name)) for number, name in enumerate(NAMES)],
)
def test_any_folder_can_be_written_and_read(tmp_path, config, saved, name):
    workdir = tmp_path / os.fsdecode(name)
    assert run_folder(workdir) == workdir and shown(workdir).isprintable()
    state = saved[1]
    with Checkpoints(workdir) as checkpoints:
        save_run(checkpoints, config, state, name if isinstance(name, str) else None)
        checkpoints.wait()
        assert_equal(restore_run(checkpoints, config)[0], state)
    assert_equal(load_run(workdir).params, state.params)


def test_relative_linked_and_home_folders(tmp_path, saved, monkeypatch):
    (tmp_path / "link [1]").symlink_to(saved[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for workdir in ("link [1]", "link [1]/", "./link [1]", "~/link [1]"):
        assert load_run(workdir).step == 1


@pytest.mark.parametrize("workdir", ["~nobody-of-this-name/run", "a\0b", "x/" * 2000, "\ud800"], ids=ascii)
def test_what_is_no_path_is_refused(workdir):
    with pytest.raises(RunError, match="workdir"):
        Checkpoints(workdir)


@pytest.mark.parametrize("path", ["/gs/run", "/s3", "/data/[a]", "/data/a\\b", "/data/\udcff", "/data/" + "y" * 1000])
def test_paths_that_are_not_plain(path):
    assert not PLAIN.fullmatch(path) or len(path) > LONGEST


def test_a_checkpoint_whose_arrays_were_not_merged_is_not_kept(tmp_path, config, saved, monkeypatch):
    """What would happen if Orbax did not find its own files: the save fails, and does not end well."""
    monkeypatch.setattr(checkpoint_files, "plain_path", contextlib.nullcontext)
    checkpoints = Checkpoints(tmp_path / "run [1]")
    save_run(checkpoints, config, saved[1], None)
    with pytest.raises(RunError, match=r"could not be written to .*run \[1\]: .*were not merged.*latest .* missing"):
        checkpoints.wait()
    with pytest.raises(RunError, match="no checkpoint in"):
        load_run(tmp_path / "run [1]")
