"""Pretrained models of pictures and sound, against what the transformers library computes."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import memgpt_jax as mg
from memgpt_jax import models
from memgpt_jax.config.features import FRAMES
from memgpt_jax.data import patches
from memgpt_jax.interop.values import saved_config
from memgpt_jax.models.model_functions import abstract_model
from tests.references import foreign_media as foreign

CASES = list(foreign.CASES)
HEAD = re.compile("classifier|(text|visual)_projection")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {case: foreign.write(case, root / case) for case in CASES}


def vit_inputs(case):
    """The class token, and the patches."""
    found = np.stack([patches(picture, 4) for picture in foreign.pixels_of(case)])
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
        hidden, state, *_ = merged.hidden(tokens, features=features)
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


def clip_vectors(model, case):
    """The unit vectors of a tower under its projection."""

    def texts(params):
        tokens, valid = foreign.text_of()
        merged = models.from_params(model.config, params)
        hidden = merged.hidden(jnp.asarray(tokens, jnp.int32), valid=valid).stream
        vectors, _ = merged(jnp.asarray(tokens, jnp.int32), valid=valid)
        return hidden, jnp.take_along_axis(vectors, valid.sum(axis=1)[:, None, None] - 1, axis=1)[:, 0]

    def pictures(params):
        tokens, features = vit_inputs(case)
        return models.from_params(model.config, params)(tokens, features=features)[0][:, -1]

    return jax.jit(texts if model.config.backbone.causal else pictures)(models.to_params(model))


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("case", ["clip_text", "clip_vision", "clip"])
def test_vectors_of_clip_are_those_of_the_library(case, folders):
    expected = foreign.expected(case)
    for part in {"clip": ("text", "vision")}.get(case, (case.removeprefix("clip_"),)):
        options = {"part": part} if case == "clip" else {}
        found = clip_vectors(mg.from_pretrained(folders[case], task_head=True, **options), case)
        if part == "text":
            hidden, found = found
            if case == "clip_text":
                valid = foreign.text_of()[1]
                np.testing.assert_allclose(hidden[valid], expected["last_hidden_state"][valid], atol=1e-4)
        wanted = expected["text_embeds" if part == "text" else "image_embeds"]
        np.testing.assert_allclose(found, unit(wanted), atol=1e-4)


def test_a_clip_model_is_read_in_parts(folders, tmp_path):
    """Each part is saved as a model of its own."""
    with pytest.raises(ValueError, match="a CLIPModel is two models: give part='text' or part='vision'"):
        mg.from_pretrained(folders["clip"])
    with pytest.raises(ValueError, match=r"part='sound' is for model_type='clip'.*valid parts: text, vision"):
        mg.from_pretrained(folders["clip"], part="sound")
    with pytest.raises(ValueError, match="part='text' is for model_type='clip'"):
        mg.from_pretrained(folders["vit"], part="text")
    model = mg.from_pretrained(folders["clip"], part="vision")
    mg.save_pretrained(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "clip_vision_model"
    model.embedding[...] = model.embedding[...].at[0].set(1.0)
    with pytest.raises(ValueError, match="embedding: the family has no place for a row that is not 0"):
        mg.save_pretrained(model, tmp_path)


@pytest.mark.parametrize("case", ["vit", "vit_labels", "whisper"])
def test_outputs_are_those_of_the_library(case, folders):
    model = mg.from_pretrained(folders[case], task_head=True)
    got, expected = outputs_of(model, case), foreign.expected(case)
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        assert np.abs(values).max() > 0.5
        np.testing.assert_allclose(got[name], values, atol=1e-4)
    if case == "vit_labels":
        assert model.config.head.output_names == ("cat", "dog", "owl")


@pytest.mark.parametrize("case", [case for case in CASES if case != "clip"])
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
    assert shapes == {name.removeprefix("vit."): stored[name] for name in stored if not HEAD.search(name)}


def test_a_text_tower_with_another_activation_is_saved_as_one(folders):
    model = mg.from_pretrained(folders["clip_text"])
    config = dataclasses.replace(model.config, activation="gelu")
    origin = dataclasses.replace(model.origin, config=dict(model.origin.config) | {"hidden_act": "gelu"})
    assert saved_config(config, origin, None).values["model_type"] == "clip_text_model"
    assert saved_config(config, None, None).values["model_type"] == "gpt2"  # the same function


@pytest.mark.parametrize("case", CASES)
def test_the_library_agrees_and_reads_what_was_saved(case, folders, tmp_path):
    pytest.importorskip("transformers", reason="transformers and torch are not installed")
    expected = foreign.expected(case)
    if plain := case in ("vit", "whisper"):  # the others have a head that is not part of the saved model
        mg.save_pretrained(mg.from_pretrained(folders[case]), tmp_path)
    for folder in (folders[case], *([tmp_path] if plain else [])):
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


def test_a_key_bias_is_saved_where_the_memory_shares_the_softmax(folders, tmp_path):
    """Keys of Whisper have no bias. One that was trained beside a memory changes the outputs."""
    model = mg.from_pretrained(folders["whisper"])
    memory = mg.KVMemoryConfig(memory_size=8, num_heads=model.config.decoder.num_heads)
    shared = dataclasses.replace(model.config.decoder, memory=memory, fusion="attention")
    config = dataclasses.replace(model.config, decoder=shared)
    for changed, kind in ((model.config, "whisper"), (config, "memgpt")):
        params = models.to_params(abstract_model(changed))
        params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), params)
        mg.save_pretrained(mg.from_params(changed, params), tmp_path / kind)
        assert json.loads((tmp_path / kind / "config.json").read_text())["model_type"] == kind
    again = mg.from_pretrained(tmp_path / "memgpt")
    jax.tree.map(np.testing.assert_array_equal, models.to_params(again), params)
