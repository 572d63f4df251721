"""Pretrained models of pictures and sound, against what the transformers library computes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import memgpt_jax as mg
from memgpt_jax import models
from memgpt_jax.config.features import FRAMES
from memgpt_jax.data import patches
from tests.references import foreign_media as foreign

CASES = list(foreign.CASES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {case: foreign.write(case, root / case) for case in CASES}


def vit_inputs(case):
    """The class token, and the patches."""
    found = np.stack([patches(picture, foreign.CASES[case]["patch_size"]) for picture in foreign.pixels_of(case)])
    features = np.pad(found, ((0, 0), (1, 0), (0, 0)))
    tokens = np.zeros(features.shape[:2], np.int32)
    tokens[:, 0] = 1
    return tokens, features


def outputs_of(model, case):
    """Its outputs by the names of the library."""

    def pictures(params):
        tokens, features = vit_inputs(case)
        merged = models.from_params(model.config, params)
        if isinstance(merged, models.Headed):
            return {"logits": merged(tokens, features=features)[0][:, -1]}
        hidden, state, _ = merged.hidden(tokens, features=features)
        pooled, _ = merged.heads["pooler"](hidden, state.heads["pooler"])
        return {"last_hidden_state": hidden, "pooler_output": pooled[:, 0]}

    def sounds(params):
        merged, frames = models.from_params(model.config, params), foreign.frames_of(case)
        features = jnp.asarray(frames.reshape(len(frames), -1, FRAMES * frames.shape[2]))
        source = jnp.zeros(features.shape[:2], jnp.int32)
        embedding = merged.decoder.embedding[...]
        hidden = merged.encoder.hidden(source, features=features, embedding=embedding).stream
        state = merged.read_source(source, features=features)
        logits, _ = merged(jnp.asarray(foreign.tokens_of(case), jnp.int32), state)
        return {"logits": logits, "encoder_last_hidden_state": hidden}

    return jax.jit(sounds if case == "whisper" else pictures)(models.to_params(model))


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_the_library(case, folders):
    model = mg.from_pretrained(folders[case], task_head=True)
    got, expected = outputs_of(model, case), foreign.expected(case)
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        assert np.abs(values).max() > 0.5
        np.testing.assert_allclose(got[name], values, atol=1e-4)
    if case == "vit_labels":
        assert model.config.head.output_names == ("cat", "dog", "owl")


@pytest.mark.parametrize("case", CASES)
def test_a_saved_model_has_the_same_tensors_and_config(case, folders, tmp_path):
    model = mg.from_pretrained(folders[case])
    mg.save_pretrained(model, tmp_path)
    again = mg.from_pretrained(tmp_path)
    assert again.config == model.config
    jax.tree.map(np.testing.assert_array_equal, models.to_params(again), models.to_params(model))
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["model_type"] == foreign.CASES[case]["model_type"]
    shapes = {name: list(array.shape) for name, array in load_file(tmp_path / "model.safetensors").items()}
    stored = json.loads(foreign.STORED.read_text())[case]["shapes"]
    assert shapes == {name.removeprefix("vit."): stored[name] for name in stored if "classifier" not in name}


@pytest.mark.parametrize("case", CASES)
def test_the_library_agrees_and_reads_what_was_saved(case, folders, tmp_path):
    pytest.importorskip("transformers", reason="transformers and torch are not installed")
    expected = foreign.expected(case)
    if case != "vit_labels":  # its head is not part of the encoder
        mg.save_pretrained(mg.from_pretrained(folders[case]), tmp_path)
    for folder in (folders[case], *([tmp_path] if case != "vit_labels" else [])):
        for name, values in foreign.library_outputs(case, folder).items():
            np.testing.assert_allclose(values, expected[name], atol=1e-4)


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("vit", {"qkv_bias": False}, "qkv_bias=False is not supported"),
        ("vit", {"image_size": 14}, "patch_size=4 must divide image_size=14"),
        ("vit", {"pooler_output_size": 7}, "pooler_output_size=7 must be hidden_size=20"),
        ("vit", {"architectures": ["ViTForMaskedImageModeling"]}, "'ViTForMaskedImageModeling' is not supported"),
        ("whisper", {"scale_embedding": True}, "scale_embedding=True is not supported"),
        ("whisper", {"decoder_attention_heads": 3}, "decoder_attention_heads=3 must divide d_model=20"),
    ],
)
def test_what_is_not_supported_is_named(case, changes, message, folders, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(foreign.CASES[case] | changes))
    (tmp_path / "model.safetensors").write_bytes((folders[case] / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=message):
        mg.from_pretrained(tmp_path)
