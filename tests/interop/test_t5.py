"""T5 generates as in the transformers library, can get a memory, and is read from all versions of its files."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax import models
from tests.laws.models import random_params
from tests.references import foreign

CASES = list(foreign.ENCODER_DECODERS)
NEW = 40


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("t5")
    return {case: foreign.write(case, root / case) for case in CASES}


def state_of(model, case):
    """The state of the decoder after the source was read."""
    source = foreign.source_of(case)
    read = jax.jit(lambda tokens, valid: model.read_source(tokens, model.init_state(2), valid=valid))
    return read(jnp.asarray(source, jnp.int32), jnp.asarray(foreign.valid_of(source)))


def logits_of(model, case):
    call = jax.jit(lambda params, tokens, state: models.functional(model.config).apply(params, tokens, state)[0])
    tokens = jnp.asarray(foreign.tokens_of(case), jnp.int32)
    return np.asarray(call(models.to_params(model), tokens, state_of(model, case)))


@pytest.mark.parametrize(
    ("case", "num_beams"),
    [
        ("t5", 1),
        ("t5_v11", 3),
        pytest.param("t5", 3, marks=pytest.mark.slow),
        pytest.param("t5_v11", 1, marks=pytest.mark.slow),
    ],
)
def test_texts_are_those_of_the_library(case, num_beams, folders):
    pytest.importorskip("transformers", reason="transformers and torch are not installed")
    import torch

    theirs, source = foreign.library_model(case), foreign.source_of(case)
    inputs = {"input_ids": source, "attention_mask": foreign.valid_of(source).astype(np.int64)}
    inputs = {name: torch.from_numpy(values) for name, values in inputs.items()}
    options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with torch.no_grad():
        expected = theirs.generate(**inputs, num_beams=num_beams, **options).numpy()
    assert expected.shape == (2, 1 + NEW)
    model = mg.from_pretrained(folders[case])
    got = mg.generate(model, [[0], [0]], state=state_of(model, case), max_new_tokens=NEW, num_beams=num_beams).ids
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("case", CASES)
def test_token_by_token_it_computes_the_same(case, folders):
    model = mg.from_pretrained(folders[case])
    tokens, state = jnp.asarray(foreign.tokens_of(case), jnp.int32), state_of(model, case)
    step, logits = jax.jit(lambda tokens, state: model(tokens, state)), []
    for i in range(tokens.shape[1]):
        out, state = step(tokens[:, i : i + 1], state)
        logits.append(out)
    np.testing.assert_allclose(np.concatenate(logits, axis=1), foreign.expected(case)["logits"], atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_what_the_library_writes_is_read(case, tmp_path):
    """Transformers 5 encodes the version of T5 in other keys."""
    pytest.importorskip("transformers", reason="transformers and torch are not installed")
    foreign.library_model(case).save_pretrained(tmp_path)
    model = mg.from_pretrained(tmp_path)
    assert model.config.decoder.tie_embeddings == (case == "t5")
    np.testing.assert_allclose(logits_of(model, case), foreign.expected(case)["logits"], atol=1e-4)


def test_a_session_continues_after_a_source(folders):
    model = mg.from_pretrained(folders["t5_v11"])
    state = jax.tree.map(lambda x: x[:1], state_of(model, "t5_v11"))
    expected = mg.generate(model, [[0]], state=state, max_new_tokens=12).ids[0, 1:].tolist()
    numbers = foreign.Numbers("t5_v11")
    session = mg.Session(model.decoder, numbers)
    with pytest.raises(ValueError, match=r"rows \[0\] of the state have none: give state=model.read_source"):
        session.generate(max_new_tokens=1)
    session.state = state.decoder
    parts = [session.generate(max_new_tokens=number) for number in (5, 7)]
    assert numbers.encode("".join(parts)) == expected and 0 not in expected


def test_changes_affect_both_stacks_and_survive_saving(folders, tmp_path):
    changes = {"window_size": 30, "source_length": 33, "dtype": "bfloat16"}
    model = mg.from_pretrained(folders["t5"], **changes)
    decoder = {name: getattr(model.config.decoder, name) for name in changes}
    assert decoder == changes and model.config.encoder.dtype == "bfloat16"
    mg.save_pretrained(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["n_positions"] == 30
    assert mg.from_pretrained(tmp_path).config == model.config


@pytest.mark.slow
def test_a_memory_for_the_decoder_changes_nothing_until_it_is_trained(folders, tmp_path):
    model = mg.from_pretrained(folders["t5"])
    memory = mg.KVMemoryConfig(memory_size=5, head_dim=4)
    larger = mg.add_memory(model, memory, layers=[1], segment_length=4, adapter_rank=2)
    np.testing.assert_array_equal(logits_of(larger, "t5"), logits_of(model, "t5"))
    mg.save_pretrained(larger, tmp_path)
    again = mg.from_pretrained(tmp_path)
    assert again.config == larger.config and json.loads((tmp_path / "config.json").read_text())["model_type"] == "t5"
    jax.tree.map(np.testing.assert_array_equal, models.to_params(again), models.to_params(larger))
    with pytest.raises(ValueError, match="has a memory"):
        mg.add_memory(larger, memory)


def test_a_model_of_no_family_is_saved_under_our_name(folders, tmp_path):
    config = mg.from_pretrained(folders["t5"]).config
    config = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, norm="layernorm"))
    model = models.from_params(config, random_params(config))
    mg.save_pretrained(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "memgpt"
    again = mg.from_pretrained(tmp_path)
    assert again.config == config
    jax.tree.map(np.testing.assert_array_equal, models.to_params(again), models.to_params(model))


@pytest.mark.parametrize(
    "values, message",
    [
        (
            {"feed_forward_proj": "gated-silu"},
            "feed_forward_proj='gated-silu' is not supported; valid: relu, gated-gelu",
        ),
        ({"is_encoder_decoder": False}, "is_encoder_decoder=False is not supported; valid: True"),
    ],
)
def test_unsupported_settings_are_named(values, message, folders, tmp_path):
    for file in folders["t5"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | values
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        mg.from_pretrained(tmp_path)


def test_copies_of_the_embedding_in_old_files_are_ignored(folders, tmp_path):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folders["t5"] / "model.safetensors")
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    old = tensors | {name: tensors["shared.weight"].copy() for name in copies} | {unused: np.ones((10, 5), np.float32)}
    save_file(old, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folders["t5"] / "config.json").read_bytes())
    mg.from_pretrained(tmp_path)
    save_file(tensors | {"lm_head.weight": 2 * tensors["shared.weight"]}, tmp_path / "model.safetensors")
    model = mg.from_pretrained(tmp_path)  # as in transformers, an output of its own counts for more than the config
    np.testing.assert_array_equal(model.decoder.output.kernel[...], 2 * model.decoder.embedding[...].T)
    assert model.config.decoder.logit_scale == 20**-0.5
