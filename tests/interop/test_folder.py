"""The folder of a saved model: the last save is read, a failed save changes nothing, every flipped bit is found."""

import json
import logging
import os
import resource
import shutil

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import memgpt_jax as mg
from memgpt_jax import models
from memgpt_jax.data import ByteTokenizer
from memgpt_jax.files.checksums import SUMS, DamagedError, recorded
from memgpt_jax.files.saved_files import PARTIAL
from memgpt_jax.interop.folder import read_recorded
from memgpt_jax.interop.tensors import FILE, INDEX
from tests.laws.models import random_params

SIZES = {"vocab_size": 31, "d_model": 8, "num_layers": 1, "num_heads": 2, "d_ff": 12, "window_size": 16}
LLAMA = mg.ModelConfig(
    **SIZES,
    num_positions=16,
    norm="rmsnorm",
    activation="swiglu",
    tie_embeddings=False,
    embedding_scale=1.0,
    memory=mg.NoMemoryConfig(),
)

OURS = mg.ModelConfig(**SIZES, segment_length=4, memory=mg.KVMemoryConfig(memory_size=4, head_dim=4))
FEW_BYTES = 1500
"""A value of `shard_bytes` that gives several files."""


def model(seed=0, config=LLAMA):
    return mg.from_params(config, random_params(config, seed))


def same(one, other):
    leaves = zip(jax.tree.leaves(models.to_params(one)), jax.tree.leaves(models.to_params(other)), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders with one and with several files of weights, a tokenizer and generation_config.json."""
    root = tmp_path_factory.mktemp("saved")
    for name, config, size in (("llama", LLAMA, FEW_BYTES), ("ours", OURS, 10**9)):
        base = root / "base"
        mg.save_pretrained(model(0, config), base)
        (base / "generation_config.json").write_text('{"eos_token_id": 2}')
        options = {"tokenizer": ByteTokenizer(), "shard_bytes": size}
        mg.save_pretrained(mg.from_pretrained(base), root / name, **options)
        shutil.rmtree(base)
    return root


def load(folder):
    mg.from_pretrained(folder)
    mg.load_tokenizer(folder)


@pytest.mark.parametrize("name", ["llama", "ours"])
def test_every_file_is_recorded(name, saved):
    found = names(saved / name)
    assert sorted([*recorded(saved / name), SUMS]) == found
    assert {"config.json", "generation_config.json", "tokenizer.json"} <= {*found}
    assert (INDEX in found) == (name == "llama")
    load(saved / name)


@pytest.mark.parametrize("name", ["llama", "ours"])
@settings(max_examples=30)
@given(data=st.data())
def test_every_flipped_bit_is_detected(name, data, saved):
    folder = saved / name
    path = folder / data.draw(st.sampled_from(names(folder)))
    whole = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    try:
        with pytest.raises(DamagedError):
            load(folder)
    finally:
        path.write_bytes(whole)


def test_flipped_bits_of_the_settings_are_detected(saved, tmp_path):
    """Bits in the first bytes of the file, and bits whose flip gives valid JSON with other values, keys or numbers."""
    folder = shutil.copytree(saved / "llama", tmp_path / "copy")
    for name in ("config.json", INDEX, "generation_config.json"):
        whole = (folder / name).read_bytes()
        for bit in (*range(40), *range(40, 8 * len(whole), 97)):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            (folder / name).write_bytes(damaged)
            with pytest.raises(DamagedError):
                read_recorded(folder / name)
        (folder / name).write_bytes(whole)


def test_a_file_rewritten_by_another_program_is_read_with_a_warning(saved, tmp_path, caplog):
    folder = shutil.copytree(saved / "ours", tmp_path / "copy")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"bos_token_id": 5}, indent=2) + "\n")
    tensors = load_file(folder / FILE)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / FILE, {"format": "pt"})
    with caplog.at_level(logging.WARNING):
        found = mg.from_pretrained(folder)
    assert found.origin.config["bos_token_id"] == 5
    np.testing.assert_array_equal(
        found.embedding[...], np.asarray(mg.from_pretrained(saved / "ours").embedding[...]) + 1
    )
    for name in ("config.json", FILE):
        assert f"{name} was rewritten after the model was saved" in caplog.text


def test_a_damaged_file_is_named(saved, tmp_path):
    folder = shutil.copytree(saved / "llama", tmp_path / "copy")
    shard = sorted(folder.glob("model-*"))[1]
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(DamagedError, match=f"{shard.name} differs from its checksum"):
        mg.from_pretrained(folder)
    shard.unlink()
    with pytest.raises(DamagedError, match=f"{shard.name} is missing"):
        mg.from_pretrained(folder)


def test_the_last_save_is_read(tmp_path):
    """A save in one file after one in several files, and vice versa, leaves one set of weights."""
    for seed, (config, size) in enumerate([(LLAMA, FEW_BYTES), (LLAMA, 10**9), (OURS, FEW_BYTES), (LLAMA, 10**9)]):
        mg.save_pretrained(model(seed, config), tmp_path, shard_bytes=size)
        assert same(mg.from_pretrained(tmp_path), model(seed, config))
        assert (FILE in names(tmp_path)) == (INDEX not in names(tmp_path)) == (size > FEW_BYTES)
        assert PARTIAL not in names(tmp_path) and sorted([*recorded(tmp_path), SUMS]) == names(tmp_path)


def test_settings_of_an_earlier_model_are_removed(saved, tmp_path):
    folder = shutil.copytree(saved / "llama", tmp_path / "copy")
    mg.save_pretrained(model(3), folder)
    assert mg.from_pretrained(folder).origin.generation is None
    assert mg.load_tokenizer(folder).fingerprint == "byte"  # none was given: the old one stays, and is still checked
    (folder / "tokenizer.json").write_text('{"tokenizer": "bytes"}')
    with pytest.raises(DamagedError, match=r"tokenizer\.json"):
        mg.load_tokenizer(folder)


class FullTokenizer(ByteTokenizer):
    """The disk is full when this file is written, after all weights."""

    def save(self, folder):
        super().save(folder)
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "size, room", [(FEW_BYTES, 100), (FEW_BYTES, 1000), (10**9, 1000), (10**9, 5000), (10**9, None)]
)
def test_a_full_disk_keeps_the_last_complete_model(size, room, saved, tmp_path):
    """A limit on file size simulates a full disk: writing stops in the middle of a file."""
    folder = shutil.copytree(saved / "llama", tmp_path / "copy")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other, tokenizer = model(7), FullTokenizer() if room is None else ByteTokenizer()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (old[0] if room is None else room, old[1]))
    try:
        with pytest.raises(ValueError, match=r"copy cannot be written: .*(File too large|No space left)"):
            mg.save_pretrained(other, folder, tokenizer=tokenizer, shard_bytes=size)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    load(folder)
    mg.save_pretrained(other, folder, shard_bytes=size)
    assert same(mg.from_pretrained(folder), other)


@pytest.mark.parametrize("moved", range(1, 5))
def test_a_mixture_of_two_saves_is_detected(moved, saved, tmp_path, monkeypatch):
    """The process is killed between the replacements of two files."""
    folder = shutil.copytree(saved / "llama", tmp_path / "copy")
    replace, calls = os.replace, []

    def stopped(source, target):
        calls.append(target)
        if len(calls) > moved and target.parent == folder:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("os.replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        mg.save_pretrained(model(5), folder, shard_bytes=FEW_BYTES)
    monkeypatch.undo()
    assert len(calls) == moved + 1
    if any(target.parent == folder for target in calls[:-1]):
        with pytest.raises(DamagedError):
            mg.from_pretrained(folder)
    else:
        assert same(mg.from_pretrained(folder), mg.from_pretrained(saved / "llama"))


def test_a_killed_save_does_not_affect_later_saves(saved, tmp_path):
    folder = shutil.copytree(saved / "llama", tmp_path / "copy")
    (folder / PARTIAL).mkdir()
    (folder / PARTIAL / "config.json").write_text("{")
    load(folder)
    mg.save_pretrained(model(2), folder)
    assert same(mg.from_pretrained(folder), model(2)) and not (folder / PARTIAL).exists()


def test_unwritable_folders_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for folder, message in (
        ("file", "cannot be written"),
        ("file/inside", "cannot be written"),
        ("run", "holds a run"),
    ):
        with pytest.raises(ValueError, match=f"{folder} {message}"):
            mg.save_pretrained(model(), tmp_path / folder)


def test_one_file_beside_shards(tmp_path):
    """The single file is read, as in transformers; shards with other tensors are refused."""
    mg.save_pretrained(model(0), tmp_path / "shards", shard_bytes=FEW_BYTES)
    mg.save_pretrained(model(0), tmp_path / "one")
    mg.save_pretrained(model(1), tmp_path / "other")
    folder = tmp_path / "both"
    folder.mkdir()
    for path in (tmp_path / "shards").iterdir():
        if path.name != SUMS:
            shutil.copy(path, folder)
    shutil.copy(tmp_path / "one" / FILE, folder)
    assert same(mg.from_pretrained(folder), model(0))
    shutil.copy(tmp_path / "other" / FILE, folder)
    with pytest.raises(ValueError, match=rf"two models: {FILE} and the files that {INDEX} names"):
        mg.from_pretrained(folder)
    sorted(folder.glob("model-*"))[0].unlink()
    assert same(mg.from_pretrained(folder), model(1))
    (folder / INDEX).write_text("nothing")
    assert same(mg.from_pretrained(folder), model(1))
    (folder / FILE).unlink()
    with pytest.raises(ValueError, match=f"{INDEX} is not JSON"):
        mg.from_pretrained(folder)


def test_shards_that_hold_one_tensor_twice(tmp_path):
    mg.save_pretrained(model(0), tmp_path, shard_bytes=FEW_BYTES)
    (tmp_path / SUMS).unlink()
    first, second, *_ = sorted(tmp_path.glob("model-*"))
    name, tensor = next(iter(load_file(first).items()))
    save_file(load_file(second) | {name: tensor}, second)
    assert same(mg.from_pretrained(tmp_path), model(0))
    save_file(load_file(second) | {name: tensor + 1}, second)
    with pytest.raises(ValueError, match=f"{second.name} and .*{first.name} have different tensors named {name}"):
        mg.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_is_refused_by_name(name, saved, tmp_path):
    folder = shutil.copytree(saved / "llama", tmp_path / "copy")
    (folder / name).write_text("{}")
    with pytest.raises(ValueError, match=rf"adapter of the peft library \({name}\).*Merge it"):
        mg.from_pretrained(folder)


def test_a_run_and_a_model_in_one_folder_are_refused(saved, tmp_path):
    folder = shutil.copytree(saved / "llama", tmp_path / "copy")
    (folder / "checkpoints").mkdir()
    with pytest.raises(ValueError, match=r"holds a run \(checkpoints/\) and a model \(config.json\)"):
        mg.from_pretrained(folder)
