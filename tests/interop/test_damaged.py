"""Damaged and unusual files of foreign models are read or refused with one clear error."""

import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import memgpt_jax as mg
from memgpt_jax.interop.tensors import FILE, INDEX
from tests.references import foreign


@pytest.fixture
def folder(tmp_path):
    return foreign.write("llama", tmp_path / "llama")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders with a model of each family, one with shards and one with generation_config.json."""
    root = tmp_path_factory.mktemp("damaged")
    found = {case: foreign.write(case, root / case) for case in ("llama", "bert_masked", "gpt2", "t5", "xlnet")}
    shard(found["gpt2"])
    (found["llama"] / "generation_config.json").write_text('{"eos_token_id": [1, 2], "top_p": 0.5}')
    return found


def shard(folder):
    """Write the tensors into two files with an index."""
    tensors = load_file(folder / FILE)
    (folder / FILE).unlink()
    files = {
        "model-00001-of-00002.safetensors": list(tensors)[::2],
        "model-00002-of-00002.safetensors": list(tensors)[1::2],
    }
    for name, part in files.items():
        save_file({key: tensors[key] for key in part}, folder / name)
    places = {key: name for name, part in files.items() for key in part}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.parametrize("case", ["llama", "bert_masked", "gpt2", "t5", "xlnet"])
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_raises_no_other_error_than_a_value_error(case, data, folders, unknown_keys):
    """Bytes are replaced, removed or inserted: the model is read, or a `ValueError` is raised.

    A damaged key of config.json may be reported as unknown.
    """
    path = data.draw(st.sampled_from(sorted(folders[case].iterdir())))
    whole = path.read_bytes()
    start = data.draw(st.integers(0, min(len(whole), 1500) - 1))
    length, new = data.draw(st.integers(0, 9)), data.draw(st.binary(max_size=9))
    rest = b"" if data.draw(st.booleans()) and length == 0 else whole[start + length :]
    path.write_bytes(whole[:start] + new + rest)
    try:
        mg.from_pretrained(folders[case])
    except ValueError:
        pass
    finally:
        path.write_bytes(whole)
        unknown_keys.clear()


LLAMA = json.dumps(foreign.CASES["llama"])


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", r"config.json is not JSON: Expecting value"),
        (LLAMA.encode("utf-16"), r"config.json is not UTF-8: 'utf-8' codec"),
        (LLAMA[:40].encode(), r"config.json is not JSON: "),
        (b"[1, 2]", r"config.json must contain a JSON object, got list"),
        (b"null", r"config.json must contain a JSON object, got NoneType"),
        (b'{"a":' * 100_000, r"config.json is nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", r"config.json is not JSON: "),
        (
            b'{"eos_token_id": 2, ' + LLAMA[1:-1].encode() + b', "eos_token_id": 3}',
            "'eos_token_id' has two values, 2 and 3",
        ),
        (
            LLAMA[:-1].encode() + b', "eos_token_id": "</s>"}',
            "eos_token_id must be a token id or a list of them, got '</s>'",
        ),
        (
            LLAMA[:-1].encode() + b', "quantization_config": {"quant_method": "gptq"}}',
            "config.json: quantization_config.*is not supported",
        ),
        (LLAMA[:-1].encode() + b', "memgpt": {"type": "Other"}}', "unknown configuration type 'Other'"),
        (LLAMA[:-1].encode() + b', "memgpt": 5}', "settings of the model are not valid"),
        (LLAMA.replace('"llama"', '["llama"]').encode(), r"model_type=\['llama'\] is not supported"),
        (LLAMA.replace('"num_hidden_layers": 2', '"num_hidden_layers": 9999').encode(), "too few for 9999 layers"),
    ],
)
def test_unusual_settings(content, message, folder):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        mg.from_pretrained(folder)


def test_unusual_settings_that_are_read(folder):
    """A byte order mark, and a key that occurs twice with the same value."""
    expected = mg.from_pretrained(folder).config
    twice = LLAMA[:-1] + ', "vocab_size": 37}'
    (folder / "config.json").write_bytes(b"\xef\xbb\xbf" + twice.encode())
    assert mg.from_pretrained(folder).config == expected


@pytest.mark.parametrize(
    "content, message",
    [
        ("[]", "must contain a JSON object"),
        ("{}", 'must hold an object "weight_map" of tensor names and file names'),
        ('{"weight_map": {}}', 'must hold an object "weight_map"'),
        ('{"weight_map": {"a": 1}}', 'must hold an object "weight_map"'),
        ('{"weight_map": {"a": ["b"]}}', 'must hold an object "weight_map"'),
        ('{"weight_map": {"a": "../secret.safetensors"}}', r"of its own folder, got \.\./secret\.safetensors"),
        ('{"weight_map": {"a": "/etc/passwd"}}', r"of its own folder, got /etc/passwd"),
        ('{"weight_map": {"a": "model.bin"}}', "must name .safetensors files"),
        ('{"weight_map": {"a": "model-7.safetensors"}}', "names files that are missing: model-7.safetensors"),
    ],
)
def test_an_unusual_index(content, message, folder):
    (folder / FILE).unlink()
    (folder / INDEX).write_text(content)
    with pytest.raises(ValueError, match=f"{re.escape(INDEX)}.*{message}"):
        mg.from_pretrained(folder)


def raw(folder, header, body=b"\0" * 4096):
    """A safetensors file with this header."""
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    (folder / FILE).write_bytes(len(text).to_bytes(8, "little") + text + body)


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "I8", "U8", "I32", "BOOL", "C64", "F4", "Q7"])
def test_types_that_are_not_supported(kind, folder):
    """Tensors of every type of safetensors, and of an unknown type."""
    header, start = {}, 0
    bits = {"F4": 4, "I32": 32, "C64": 64}.get(kind, 8)
    for name, tensor in load_file(folder / FILE).items():
        size = tensor.size * bits // 8
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, start + size]}
        start += size
    raw(folder, header, b"\0" * start)
    with pytest.raises(ValueError, match=rf"{FILE}.*(has the type {kind}|cannot be read)"):
        mg.from_pretrained(folder)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4096]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4096]}},
        {"a": {"dtype": "F32", "shape": [1024], "data_offsets": [4096, 0]}},
        {"a": 5},
        b"[]",
        b"\xff\xfe",
        b"{" * 5000,
    ],
)
def test_unusual_headers(header, folder):
    raw(folder, header)
    with pytest.raises(ValueError, match=rf"{re.escape(FILE)} cannot be read"):
        mg.from_pretrained(folder)


def test_buffers_of_any_type_are_ignored(tmp_path):
    """Masks and positions, which are not parameters."""
    folder = foreign.write("gpt2", tmp_path / "gpt2")
    masks = {f"transformer.h.{i}.attn.bias": np.ones((1, 1, 4, 4), np.uint8) for i in range(3)}
    save_file(load_file(folder / FILE) | masks, folder / FILE)
    mg.from_pretrained(folder)


def test_weight_files_with_other_names_are_reported(folder):
    (folder / FILE).rename(folder / "adapter.safetensors")
    with pytest.raises(ValueError, match=r"holds no weights.*adapter.safetensors has another name and is not read"):
        mg.from_pretrained(folder)
