"""Files as they are published (extra and missing heads, old names, copies, buffers) are read as transformers does."""

import json
import logging
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import memgpt_jax as mg
from memgpt_jax import models
from tests.references import foreign


class Published(NamedTuple):
    """A model of `foreign` in the form in which it is published."""

    case: str
    architecture: str | None
    change: Callable[[dict], dict]
    """From the tensors of `foreign` to those of the file."""
    heads: tuple[str, ...] | None = None
    """The heads that are read; None: the model has no such field."""
    aside: str = ""
    """A tensor or a head that is ignored or omitted, which a warning names."""


def extended(tensors, new):
    """Additional tensors: arrays, or the names of tensors to copy."""
    return tensors | {name: tensors[value].copy() if isinstance(value, str) else value for name, value in new.items()}


def without(tensors, *parts):
    return {name: tensor for name, tensor in tensors.items() if not any(part in name for part in parts)}


def renamed(tensors, *pairs):
    for old, new in pairs:
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    return tensors


def bare(prefix):
    """Names without a prefix."""
    return lambda tensors: {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def ones(*shape):
    return np.ones(shape, np.float32)


OLD_NAMES = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
WORDS, PREFIXED = "embeddings.word_embeddings.weight", "bert.embeddings.word_embeddings.weight"
BERT_BUFFERS = {"bert.embeddings.position_ids": np.arange(32)[None]}
BERT_COPIES = {"cls.predictions.decoder.weight": PREFIXED, "cls.predictions.decoder.bias": "cls.predictions.bias"}
ROBERTA_HEAD = {"lm_head.decoder.weight": f"roberta.{WORDS}", "lm_head.decoder.bias": "lm_head.bias"}
ROBERTA_EXTRA = {"roberta.pooler.dense.weight": ones(20, 20), "roberta.pooler.dense.bias": ones(20)}
CLASSIFIER = {"classifier.weight": ones(2, 20), "classifier.bias": ones(2)}
GPT2_BUFFERS = {f"h.{i}.attn.bias": np.ones((1, 1, 96, 96), bool) for i in range(3)}
GPT2_BUFFERS |= {f"h.{i}.attn.masked_bias": np.float32(-1e4).reshape(()) for i in range(3)}
INV_FREQ = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": ones(2) for i in range(2)}
T5_COPIES = {"encoder.embed_tokens.weight": "shared.weight", "decoder.embed_tokens.weight": "shared.weight"}
T5_OLD = {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": ones(10, 5)}

PUBLISHED = {
    "bert-base-uncased": Published(
        "bert_pretraining",
        "BertForMaskedLM",
        lambda x: renamed(extended(x, BERT_COPIES | BERT_BUFFERS), *OLD_NAMES),
        ("masked",),
        "cls.seq_relationship.weight",
    ),
    "bert-base, all heads": Published(
        "bert_pretraining",
        "BertForPreTraining",
        lambda x: without(extended(x, BERT_COPIES), "cls.predictions.bias"),
        ("masked", "pooler", "next_sentence"),
    ),
    "bert, sentence encoder": Published(
        "bert", None, lambda x: without(extended(x, {"embeddings.position_ids": np.arange(32)[None]}), "pooler"), ()
    ),
    "bert, bare, declared with all heads": Published(
        "bert", "BertForPreTraining", lambda x: without(x, "pooler"), (), "masked, pooler, next_sentence"
    ),
    "bert, classifier": Published(
        "bert",
        "BertForSequenceClassification",
        lambda x: {f"bert.{name}": tensor for name, tensor in x.items()} | CLASSIFIER,
        ("pooler",),
        "classifier.bias",
    ),
    "bert, tagger": Published(
        "bert",
        "BertForTokenClassification",
        lambda x: {f"bert.{name}": tensor for name, tensor in without(x, "pooler").items()} | CLASSIFIER,
        (),
        "classifier.weight",
    ),
    "roberta-base": Published(
        "roberta",
        "RobertaForMaskedLM",
        lambda x: extended(x, ROBERTA_HEAD | ROBERTA_EXTRA | {"roberta.embeddings.position_ids": np.arange(32)[None]}),
        ("masked",),
        "roberta.pooler.dense.bias",
    ),
    "roberta, bare, declared with a head": Published(
        "roberta", "RobertaForMaskedLM", lambda x: bare("roberta.")(without(x, "lm_head")), (), "masked"
    ),
    "roberta, answers": Published(
        "roberta",
        "RobertaForQuestionAnswering",
        lambda x: without(x, "lm_head") | {"qa_outputs.weight": ones(2, 20)},
        (),
        "qa_outputs.weight",
    ),
    "gpt2": Published("gpt2", "GPT2LMHeadModel", lambda x: extended(bare("transformer.")(x), GPT2_BUFFERS)),
    "gpt2, written with its head": Published(
        "gpt2", "GPT2LMHeadModel", lambda x: extended(x, {"lm_head.weight": "transformer.wte.weight"})
    ),
    "gpt2, classifier": Published(
        "gpt2", "GPT2ForSequenceClassification", lambda x: x | {"score.weight": ones(2, 20)}, None, "score.weight"
    ),
    "llama-2": Published("llama", "LlamaForCausalLM", lambda x: extended(x, INV_FREQ)),
    "llama-3.2": Published(
        "llama_tied",
        "LlamaForCausalLM",
        lambda x: extended(x, {"lm_head.weight": "model.embed_tokens.weight", "model.rotary_emb.inv_freq": ones(3)}),
    ),
    "llama, without head": Published(
        "llama", "LlamaModel", lambda x: bare("model.")(without(x, "lm_head")), None, "lm_head.weight"
    ),
    "llama, reward": Published(
        "llama",
        "LlamaForSequenceClassification",
        lambda x: without(x, "lm_head") | {"score.weight": ones(1, 24)},
        None,
        "score.weight",
    ),
    "llama, answers": Published(
        "llama_tied",
        "LlamaForQuestionAnswering",
        lambda x: renamed(x, ("model.", "transformer.")) | {"qa_outputs.bias": ones(2)},
        None,
        "qa_outputs.bias",
    ),
    "mistral-7b": Published("mistral", "MistralForCausalLM", lambda x: extended(x, INV_FREQ)),
    "qwen2-0.5b": Published(
        "qwen2", "Qwen2ForCausalLM", lambda x: extended(x, {"lm_head.weight": "model.embed_tokens.weight"})
    ),
    "qwen2, embeddings": Published("qwen2", "Qwen2Model", bare("model.")),
    "t5-small": Published(
        "t5",
        "T5ForConditionalGeneration",
        lambda x: extended(x, T5_COPIES | T5_OLD | {"lm_head.weight": "shared.weight"}),
    ),
    "t5-v1_1": Published("t5_v11", "T5ForConditionalGeneration", lambda x: extended(x, T5_COPIES)),
    "t5, the embedding as a copy": Published(
        "t5", "T5ForConditionalGeneration", lambda x: without(extended(x, T5_COPIES), "shared")
    ),
    "t5, classifier": Published(
        "t5",
        "T5ForSequenceClassification",
        lambda x: (
            {f"transformer.{name}": tensor for name, tensor in x.items()}
            | {"classification_head.dense.weight": ones(20, 20)}
        ),
        None,
        "classification_head.dense.weight",
    ),
    "xlnet-base-cased": Published(
        "xlnet", "XLNetLMHeadModel", lambda x: extended(x, {"lm_loss.weight": "transformer.word_embedding.weight"})
    ),
    "xlnet, classifier": Published(
        "xlnet",
        "XLNetForSequenceClassification",
        lambda x: without(x, "lm_loss") | {"logits_proj.weight": ones(2, 20), "sequence_summary.summary.bias": ones(2)},
        None,
        "logits_proj.weight",
    ),
}
SAVED_AGAIN = ("bert, sentence encoder", "bert, classifier", "roberta-base", "gpt2, classifier", "llama, without head")
SAVED_AGAIN += ("qwen2, embeddings", "t5-small", "t5-v1_1", "xlnet, classifier")
"""Each way in which the heads differ, once."""


def write(published, root, dtype=np.float32):
    """Folders with the published and the plain form of a model."""
    plain = foreign.write(published.case, root / "plain")
    folder = root / "published"
    folder.mkdir()
    tensors = published.change(load_file(plain / "model.safetensors"))
    tensors = {name: x.astype(dtype) if x.dtype == np.float32 else x for name, x in tensors.items()}
    save_file(
        {name: np.ascontiguousarray(x) for name, x in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    values = dict(foreign.CASES[published.case])
    values.pop("architectures", None)
    values |= {} if published.architecture is None else {"architectures": [published.architecture]}
    (folder / "config.json").write_text(json.dumps(values))
    return plain, folder


def flat(tree):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_body_is_read_and_ignored_tensors_are_named(name, tmp_path, caplog):
    published = PUBLISHED[name]
    plain, folder = write(published, tmp_path)
    with caplog.at_level(logging.WARNING):
        model = mg.from_pretrained(folder)
    if published.heads is not None:
        assert model.config.heads == published.heads
    assert published.aside in caplog.text
    assert bool(caplog.text) == bool(published.aside or "sentence encoder" in name)
    expected, got = flat(models.to_params(mg.from_pretrained(plain))), flat(models.to_params(model))
    heads = [key for key in expected if any(part in key for part in ("['heads']", "['output"))]
    lost = [key for key in expected if key not in got]
    assert set(lost) <= {*heads} and got.keys() <= expected.keys()
    drawn = ["['output']['kernel']"] if "lm_head.weight is drawn" in caplog.text or "no lm_head" in caplog.text else []
    for key in got:
        if key not in drawn:
            np.testing.assert_array_equal(got[key], expected[key], err_msg=key)
    if name not in SAVED_AGAIN:
        return
    mg.save_pretrained(model, tmp_path / "again")
    again = mg.from_pretrained(tmp_path / "again")
    assert again.config == model.config
    jax.tree.map(np.testing.assert_array_equal, models.to_params(again), models.to_params(model))
    kind = json.loads((tmp_path / "again" / "config.json").read_text())["model_type"]
    assert kind == foreign.CASES[published.case]["model_type"]


@pytest.mark.parametrize("dtype", ["float16", jnp.bfloat16, np.float64])
def test_every_type_of_floats_is_read(dtype, tmp_path):
    plain, folder = write(PUBLISHED["bert-base-uncased"], tmp_path, dtype)
    got = flat(models.to_params(mg.from_pretrained(folder)))
    expected = flat(models.to_params(mg.from_pretrained(plain)))
    for key, array in got.items():
        np.testing.assert_array_equal(array, np.asarray(expected[key]).astype(dtype).astype(np.float32))


def hidden_of(model, case):
    """The last hidden states of our model, before the logits are scaled."""
    tokens = jnp.asarray(foreign.tokens_of(case), jnp.int32)

    def run(params):
        merged, state = models.from_params(model.config, params), model.init_state(2)
        if isinstance(merged, models.EncoderDecoder):
            source = foreign.source_of(case)
            valid = jnp.asarray(foreign.valid_of(source))
            state = merged.read_source(jnp.asarray(source, jnp.int32), state, valid=valid)
            return merged.decoder.hidden(tokens, state.decoder)[0] / model.config.decoder.logit_scale
        return merged.hidden(tokens, state)[0]

    return np.asarray(jax.jit(run)(models.to_params(model)))


@pytest.mark.slow  # two minutes
@pytest.mark.parametrize("name", PUBLISHED)
def test_hidden_states_are_those_of_the_library(name, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers and torch are not installed")
    import torch

    published = PUBLISHED[name]
    _, folder = write(published, tmp_path)
    case = published.case
    if name == "llama, answers":  # names that no other class of theirs knows
        theirs = transformers.LlamaForQuestionAnswering.from_pretrained(folder).transformer.eval()
    else:
        theirs = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = {"input_ids": foreign.tokens_of(case)}
    if case in foreign.ENCODER_DECODERS:
        source = foreign.source_of(case)
        inputs = {"input_ids": source, "attention_mask": foreign.valid_of(source).astype(np.int64)}
        inputs["decoder_input_ids"] = foreign.tokens_of(case)
    with torch.no_grad():
        expected = theirs(**{key: torch.from_numpy(value) for key, value in inputs.items()}).last_hidden_state.numpy()
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(hidden_of(mg.from_pretrained(folder), case), expected, atol=1e-4)


def test_an_output_that_differs_from_the_embedding_is_used(tmp_path):
    """As in transformers, the file takes precedence over the config."""
    for case, embedding in (("gpt2", "transformer.wte.weight"), ("llama_tied", "model.embed_tokens.weight")):
        root = tmp_path / case
        double = lambda x, embedding=embedding: x | {"lm_head.weight": 2 * x[embedding]}  # noqa: E731
        _, folder = write(Published(case, None, double), root)
        model = mg.from_pretrained(folder)
        assert not model.config.tie_embeddings
        np.testing.assert_array_equal(model.output.kernel[...], 2 * model.embedding[...].T)
        mg.save_pretrained(model, root / "again")
        assert mg.from_pretrained(root / "again").config == model.config


@pytest.mark.parametrize(
    "case, change, message",
    [
        ("llama", lambda x: without(x, "model.norm"), r"missing: model.norm.weight \[24\]"),
        ("llama", lambda x: without(x, "lm_head"), r"missing: lm_head.weight \[37, 24\]"),
        ("llama", lambda x: without(x, "1.self_attn.k"), r"missing: model.layers.1.self_attn.k_proj.weight"),
        (
            "llama",
            lambda x: x | {"model.layers.0.self_attn.q_proj.bias": ones(24)},
            r"unexpected: model.layers.0.self_attn.q_proj.bias \[24\]",
        ),
        ("llama", lambda x: x | {"layers.2.mlp.up_proj.weight": ones(52, 24)}, "unexpected: layers.2.mlp"),
        (
            "llama",
            lambda x: x | {"norm.weight": ones(24)},
            r"model.norm.weight and norm.weight are names of one tensor",
        ),
        (
            "llama",
            lambda x: x | {"model.embed_tokens.weight": ones(40, 24)},
            r"wrong shape: model.embed_tokens.weight is \[40, 24\], must be \[37, 24\]",
        ),
        (
            "bert",
            lambda x: without(x, "encoder.layer.1.output.LayerNorm.bias"),
            "missing: encoder.layer.1.output.Layer",
        ),
        ("bert", lambda x: without(x, "pooler.dense.bias"), "missing: pooler.dense.bias"),
        ("bert", lambda x: x | {"embeddings.LayerNorm.gamma": ones(20)}, "are names of one tensor"),
        (
            "bert_masked",
            lambda x: x | {"cls.predictions.decoder.weight": ones(41, 20)},
            "decoder.weight must be equal to bert.embeddings.word_embeddings.weight, which it is tied to",
        ),
        (
            "t5",
            lambda x: x | {"encoder.embed_tokens.weight": ones(43, 20)},
            "embed_tokens.weight must be equal to shared",
        ),
        (
            "xlnet",
            lambda x: x | {"lm_loss.weight": ones(39, 20)},
            "lm_loss.weight must be equal to transformer.word_emb",
        ),
        ("gpt2", lambda x: without(x, "wpe"), "missing: transformer.wpe.weight"),
        ("gpt2", lambda x: x | {"h.3.ln_1.weight": ones(20)}, "unexpected: h.3.ln_1.weight"),
    ],
)
def test_a_body_that_does_not_fit_is_refused(case, change, message, tmp_path):
    architectures = foreign.CASES[case].get("architectures", [None])
    _, folder = write(Published(case, architectures[0], change), tmp_path)
    with pytest.raises(ValueError, match=message):
        mg.from_pretrained(folder)
