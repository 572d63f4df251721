"""Pretrained models have the outputs of the transformers library, and are written back unchanged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax import models
from tests.laws.models import random_params
from tests.laws.runs import untrained_run
from tests.references import foreign

CASES = list(foreign.CASES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pretrained")
    return {case: foreign.write(case, root / case) for case in CASES}


def outputs_of(model, case):
    """The outputs of our model, by their names in transformers."""
    numbers = foreign.tokens_of(case)
    tokens = jnp.asarray(numbers, jnp.int32)

    def causal(params):
        return {"logits": models.functional(model.config).apply(params, tokens, model.init_state(2))[0]}

    def encoded(params):
        merged, types = models.from_params(model.config, params), foreign.types_of(case, numbers).astype(np.int32)
        options = {"valid": jnp.asarray(foreign.valid_of(numbers)), "token_types": jnp.asarray(types)}
        hidden, _, *_ = merged.hidden(tokens, model.init_state(2), **options)
        heads = model.config.heads
        found = {} if "masked" in heads else {"last_hidden_state": hidden}
        if "masked" in heads:
            logits, _ = merged(tokens, model.init_state(2), **options)
            found["prediction_logits" if "next_sentence" in heads else "logits"] = logits
        if "next_sentence" in heads:
            found["seq_relationship_logits"] = merged.heads["next_sentence"](merged.heads["pooler"](hidden)[0])[0][:, 0]
        elif "pooler" in heads:
            found["pooler_output"] = merged.heads["pooler"](hidden)[0][:, 0]
        return found

    def sequence_to_sequence(params):
        merged, source = models.from_params(model.config, params), foreign.source_of(case)
        valid = jnp.asarray(foreign.valid_of(source))
        state = merged.read_source(jnp.asarray(source, jnp.int32), model.init_state(2), valid=valid)
        return {"logits": merged(tokens, state)[0]}

    def permuted(params):
        merged, types = models.from_params(model.config, params), foreign.types_of(case, numbers).astype(np.int32)
        options = {"valid": jnp.asarray(foreign.valid_of(numbers)), "token_types": jnp.asarray(types)}
        order, places = foreign.order_of(numbers)
        if case in foreign.TWO_STREAMS:
            logits, _ = merged(tokens, model.init_state(2), **options, order=jnp.asarray(order, jnp.int32))
            return {"logits": logits[np.arange(2)[:, None], places]}
        if not model.config.output_bias:
            return {"last_hidden_state": merged.hidden(tokens, model.init_state(2), **options)[0]}
        return {"logits": merged(tokens, model.init_state(2), **options)[0]}

    kinds = {
        models.Encoder: encoded,
        models.EncoderDecoder: sequence_to_sequence,
        models.MemGPT: causal,
        models.XLNet: permuted,
    }
    return jax.jit(kinds[type(model)])(models.to_params(model))


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_the_library(case, folders):
    got, expected = outputs_of(mg.from_pretrained(folders[case]), case), foreign.expected(case)
    assert got.keys() == expected.keys()
    exists = foreign.valid_of(foreign.tokens_of(case)) if case in foreign.ENCODERS else np.ones((2, 19), bool)
    for name, values in expected.items():
        assert np.abs(values).max() > 0.5
        at = exists if values.shape[:2] == exists.shape else slice(None)  # what is computed for padding is nobody's
        np.testing.assert_allclose(np.asarray(got[name])[at], values[at], atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_stored_outputs_equal_those_of_the_library(case):
    pytest.importorskip("transformers", reason="transformers and torch are not installed")
    outputs, _ = foreign.library_outputs(case)
    for name, values in foreign.expected(case).items():
        np.testing.assert_allclose(outputs[name], values, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_saved_model_has_the_same_tensors_and_config(case, folders, tmp_path):
    model = mg.from_pretrained(folders[case])
    mg.save_pretrained(model, tmp_path, shard_bytes=4000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    again = mg.from_pretrained(tmp_path)
    assert again.config == model.config
    jax.tree.map(np.testing.assert_array_equal, models.to_params(again), models.to_params(model))
    mg.save_pretrained(model, tmp_path)
    assert [path.name for path in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == foreign.CASES[case]["model_type"]


@pytest.mark.parametrize("case", CASES)
def test_the_library_reads_what_was_saved(case, folders, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers and torch are not installed")
    mg.save_pretrained(mg.from_pretrained(folders[case]), tmp_path)
    kind = getattr(transformers, json.loads((tmp_path / "config.json").read_text())["architectures"][0])
    theirs, notes = kind.from_pretrained(tmp_path, attn_implementation="eager", output_loading_info=True)
    assert not any(notes[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, values in foreign.library_outputs(case, theirs.eval())[0].items():
        np.testing.assert_allclose(values, foreign.expected(case)[name], atol=1e-4)


@pytest.mark.parametrize("case", ["mistral", *(pytest.param(c, marks=pytest.mark.slow) for c in ("gpt2", "llama"))])
def test_greedy_text_and_beams_are_those_of_the_library(case, folders):
    pytest.importorskip("transformers", reason="transformers and torch are not installed")
    import torch

    theirs = foreign.library_model(case)
    prompt = foreign.tokens_of(case, 7)
    options = {"max_new_tokens": 64, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    model = mg.from_pretrained(folders[case])
    for num_beams in (1, 3):
        with torch.no_grad():
            expected = theirs.generate(torch.from_numpy(prompt), num_beams=num_beams, **options).numpy()
        got = mg.generate(model, prompt, max_new_tokens=64, num_beams=num_beams).ids
        np.testing.assert_array_equal(got, expected)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["mistral", "gpt2", "llama"])
def test_a_session_in_pieces_is_one_generation(case, folders):
    model, numbers = mg.from_pretrained(folders[case]), foreign.Numbers(case)
    prompt = foreign.tokens_of(case, 7)[0].tolist()
    expected = mg.generate(model, [[0, *prompt]], max_new_tokens=12).ids[0, 8:].tolist()
    session = mg.Session(model, numbers)
    for part in (prompt[:3], prompt[3:]):
        session.feed(numbers.decode(part))
    parts = [session.generate(max_new_tokens=number) for number in (5, 7)]
    assert numbers.encode("".join(parts)) == expected and 0 not in expected


@pytest.mark.parametrize(
    "changes",
    [
        {"memory": mg.KVMemoryConfig(memory_size=4, head_dim=4)},
        {"memory": mg.NoMemoryConfig(), "norm_position": "parallel", "activation": "swiglu"},  # not a Llama
    ],
    ids=["memory", "parallel"],
)
def test_models_of_this_library_round_trip(tmp_path, changes):
    """A model that no family can express, and a model with a memory, are also written and read."""
    config = mg.ModelConfig(vocab_size=19, d_model=8, num_heads=2, num_layers=2, **changes)
    model = mg.from_params(config, random_params(config))
    mg.save_pretrained(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "memgpt"
    again = mg.from_pretrained(tmp_path)
    assert again.config == config
    jax.tree.map(np.testing.assert_array_equal, models.to_params(again), models.to_params(model))


def test_changes_do_not_change_the_weights(folders):
    model = mg.from_pretrained(folders["llama"], window_size=5, dtype="bfloat16")
    assert (model.config.window_size, model.config.dtype) == (5, "bfloat16")
    with pytest.raises(ValueError, match="memory: this would change the parameters"):
        mg.from_pretrained(folders["llama"], memory=mg.KVMemoryConfig())
    with pytest.raises(
        ValueError, match=r"windowsize: ModelConfig has no such field; valid: activation, .*window_size"
    ):
        mg.from_pretrained(folders["llama"], windowsize=5)


def damaged(folder, tmp_path, change=None, **values):
    """A copy of a model with other tensors or other values of its config."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    (change or (lambda tensors: None))(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    config = json.loads((folder / "config.json").read_text()) | values
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_tensors_that_do_not_fit_are_listed(folders, tmp_path):
    def change(tensors):
        del tensors["model.norm.weight"]
        tensors["model.embed_tokens.weight"] = np.zeros((37, 23), np.float32)
        tensors["model.layers.7.new.weight"] = np.zeros(3, np.float32)

    with pytest.raises(ValueError) as error:
        mg.from_pretrained(damaged(folders["llama"], tmp_path, change))
    message = str(error.value)
    assert "missing: model.norm.weight [24]" in message
    assert "wrong shape: model.embed_tokens.weight is [37, 23], must be [37, 24]" in message
    assert "unexpected: model.layers.7.new.weight [3]" in message


@pytest.mark.parametrize(
    "values, message",
    [
        (
            {"model_type": "mamba"},
            "model_type='mamba' is not supported; valid: bert, roberta, gpt2, llama, mistral, qwen2",
        ),
        ({"hidden_act": "relu"}, "hidden_act='relu' is not supported; valid: 'silu'"),
        ({"rope_scaling": {"rope_type": "dynamic"}}, "rope_type='dynamic' is not supported"),
        ({"model_type": "xlnet", "attn_type": "uni"}, "attn_type='uni' is not supported; valid: 'bi'"),
        ({"model_type": "xlnet", "bi_data": True}, "bi_data=True is not supported; valid: False"),
        ({"model_type": "xlnet", "architectures": ["XLNetForFun"]}, "'XLNetForFun' is not supported"),
    ],
)
def test_unsupported_settings_are_named(values, message, folders, tmp_path):
    with pytest.raises(ValueError, match=message):
        mg.from_pretrained(damaged(folders["llama"], tmp_path, **values))


def test_half_precision_is_read_as_float32(folders, tmp_path):
    def change(tensors):
        for name in tensors:
            tensors[name] = tensors[name].astype(jnp.bfloat16)

    rounded = models.to_params(mg.from_pretrained(damaged(folders["llama"], tmp_path, change)))
    whole = models.to_params(mg.from_pretrained(folders["llama"]))
    expected = jax.tree.map(lambda leaf: np.asarray(leaf).astype(jnp.bfloat16).astype(np.float32), whole)
    jax.tree.map(np.testing.assert_array_equal, rounded, expected)


def test_weights_that_can_run_code_are_refused(folders, tmp_path):
    (tmp_path / "config.json").write_text((folders["llama"] / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"pytorch_model.bin can run code when opened and is not read"):
        mg.from_pretrained(tmp_path)


def test_a_truncated_file_is_refused(folders, tmp_path):
    damaged(folders["llama"], tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read"):
        mg.from_pretrained(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    for source in (tmp_path / "absent", "absent"):
        with pytest.raises(ValueError, match="there is no folder"):
            mg.from_pretrained(source)


def test_a_run_is_read_as_a_model(tmp_path):
    memory = mg.KVMemoryConfig(memory_size=8, head_dim=4)
    model = mg.ModelConfig(vocab_size=257, d_model=8, num_heads=2, num_layers=1, memory=memory)
    config = mg.ExperimentConfig(model=model, data=mg.TextConfig(tokenizer="byte"))
    params = random_params(model)
    untrained_run(config, tmp_path, params)
    run = mg.from_pretrained(tmp_path)
    assert run.config == model
    jax.tree.map(np.testing.assert_array_equal, models.to_params(run), params)
    assert mg.load_tokenizer(tmp_path).encode("abc") == [97, 98, 99]


OFFLINE = """
import time
import huggingface_hub
import memgpt_jax as mg
start = time.monotonic()
try:
    mg.from_pretrained("nobody/nothing")
except ValueError as error:
    print(time.monotonic() - start, error)
"""


def test_without_the_hub_the_error_comes_at_once(tmp_path, slowness):
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}  # nobody listens there
    root = Path(__file__).parents[2]
    output = subprocess.run([sys.executable, "-c", OFFLINE], cwd=root, env=environment, capture_output=True, text=True)
    seconds, _, message = output.stdout.partition(" ")
    assert "there is no folder nobody/nothing, and the Hub returned no model of this name" in message
    assert float(seconds) < slowness
