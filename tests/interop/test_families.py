"""Registration of families; reading a model needs one trace and reads its files once."""

import json

import pytest
from safetensors.numpy import load_file, save_file

import memgpt_jax as mg
from memgpt_jax.interop import pretrained
from memgpt_jax.interop.families import FAMILIES, register_family
from memgpt_jax.interop.families.gpt2 import GPT2
from memgpt_jax.models import model_functions
from tests.references import foreign


@pytest.fixture
def own_family():
    """GPT-2 under another `model_type`, with other names for its embedding."""

    def to_hf(config):
        return GPT2.to_hf(config) | {"model_type": "own"}

    register_family(
        "own",
        GPT2._replace(architectures={"own": "OwnModel"}, to_hf=to_hf, renames=(("words.", "wte."),)),
    )
    yield
    FAMILIES.unregister("own")


def test_a_users_own_family_is_read(own_family, tmp_path):
    foreign.write("gpt2", tmp_path)
    expected = mg.from_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"model_type": "own"}))
    tensors = load_file(tmp_path / "model.safetensors")
    renamed = {name.replace("wte.", "words."): tensor for name, tensor in tensors.items()}
    assert renamed.keys() != tensors.keys()
    save_file(renamed, tmp_path / "model.safetensors")
    found = mg.from_pretrained(tmp_path)
    assert found.config == expected.config
    assert (found.embedding[...] == expected.embedding[...]).all()


def test_a_model_type_belongs_to_one_family():
    with pytest.raises(ValueError, match="model_type 'gpt2' belongs to the family 'gpt2' already"):
        register_family("other", GPT2)
    with pytest.raises(ValueError, match="must be an instance of Family"):
        register_family("other", GPT2.from_hf)


def test_a_model_is_traced_and_read_once(tmp_path, monkeypatch):
    foreign.write("llama", tmp_path)
    model_functions.abstract_model.cache_clear()
    pretrained.shapes_of.cache_clear()
    opened = []
    open_tensors = pretrained.open_tensors
    monkeypatch.setattr(
        pretrained, "open_tensors", lambda path, *kinds: opened.append(path) or open_tensors(path, *kinds)
    )
    mg.from_pretrained(tmp_path)
    assert model_functions.abstract_model.cache_info().misses == 1 and opened == [tmp_path]
