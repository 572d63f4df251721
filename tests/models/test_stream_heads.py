"""Heads over streams: one contract for every layer and every pool, on a causal and on a bidirectional backbone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig, Seq2SeqConfig, XLNetConfig
from memgpt_jax.models import functional
from memgpt_jax.models.heads import HEAD_LAYERS, LabelHeadConfig, make_head
from memgpt_jax.models.heads.labels import chain_of, label_scores
from memgpt_jax.ops.crf import path_loss
from memgpt_jax.ops.pools import POOLS
from memgpt_jax.ops.trees import named_leaves
from tests.laws.models import random_params

BATCH, LENGTH, WIDTH, CLASSES = 3, 12, 8, 4
SIZES = {"vocab_size": 32, "d_model": WIDTH, "num_layers": 1, "num_heads": 2, "d_ff": 12, "segment_length": 4}
MEMORY = KVMemoryConfig(memory_size=6, num_heads=2, head_dim=4)
CAUSAL = ModelConfig(**SIZES, window_size=6, memory=MEMORY)
BIDIRECTIONAL = EncoderConfig(**SIZES, memory=MEMORY, heads=())
COMBINATIONS = [
    pytest.param(
        layers, pool, marks=[pytest.mark.slow] * (index % len(POOLS) not in (0, number)), id=f"{layers}-{pool}"
    )
    for number, layers in enumerate(HEAD_LAYERS)
    for index, pool in enumerate([*POOLS, "none"])
]
each = pytest.mark.parametrize(("layers", "pool"), COMBINATIONS)


def head_of(stack, **settings):
    config = LabelHeadConfig(num_outputs=CLASSES, **settings)
    return make_head(config, stack, rngs=nnx.Rngs(0))


def inputs(seed=0, breaks=0.2):
    rng = np.random.default_rng(seed)
    h, reset = rng.normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32), rng.random((BATCH, LENGTH)) < breaks
    reset[0] = False
    return h, reset


def run(head):
    graph, params = nnx.split(head)
    call = jax.jit(lambda params, *arguments: nnx.merge(graph, params)(*arguments))
    return params, lambda *arguments: call(params, *arguments)


@each
def test_any_cut_any_padding_and_a_reset_give_the_same_outputs(layers, pool):
    head = head_of(CAUSAL, layers=layers, pool=pool, num_layers=1 if layers == "linear" else 2)
    _, call = run(head)
    h, reset = inputs()
    valid = np.ones(reset.shape, bool)
    whole, after = call(h, head.init_state(BATCH), reset, valid)
    assert whole.shape == (BATCH, LENGTH, CLASSES) and whole.dtype == jnp.float32

    state, parts = head.init_state(BATCH), []
    for part in (slice(0, 4), slice(4, 5), slice(5, 6), slice(6, 10), slice(10, 12)):  # each padded to four tokens
        used = part.stop - part.start
        here = np.minimum(part.start + np.arange(4), LENGTH - 1)
        present = np.broadcast_to(np.arange(4) < used, (BATCH, 4))
        out, state = call(h[:, here], state, reset[:, here], present)
        parts.append(np.asarray(out)[:, :used])
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), after, state)

    rolled = np.roll(h, -5, axis=1)  # a document that begins at token 5 equals one that begins a stream
    only = np.zeros(reset.shape, bool)
    only[:, 5] = True
    there, _ = call(h, head.init_state(BATCH), only, valid)
    alone, _ = call(rolled, head.init_state(BATCH), np.zeros_like(only), valid)
    np.testing.assert_allclose(np.asarray(there)[:, 5:], np.asarray(alone)[:, :-5], atol=1e-5)


@each
def test_gradients_reach_every_parameter_and_no_later_token(layers, pool):
    head = head_of(CAUSAL, layers=layers, pool=pool)
    graph, params = nnx.split(head)
    h, _ = inputs(breaks=0.0)
    nothing = np.zeros((BATCH, LENGTH), bool)

    @jax.jit
    def gradients(params, h):
        def output(params, h):
            out, _ = nnx.merge(graph, params)(h, head.init_state(BATCH), nothing, ~nothing)
            return jnp.sum(jnp.sin(out[:, 7]))

        return jax.grad(output, (0, 1))(params, h)

    of_params, of_h = jax.device_get(gradients(params, h))
    for name, leaf in named_leaves(nnx.to_pure_dict(of_params)).items():
        # The first token of a document is read with the state 0, which the recurrent kernel multiplies.
        assert np.any(leaf) != (pool == "first" and "recurrent" in name), name
    assert not np.any(of_h[:, 8:])
    reached = np.any(of_h != 0, axis=(0, 2))
    if pool in ("mean", "attention") or layers in ("gru", "lstm"):
        assert reached[: 1 if pool == "first" else 8].all()


@pytest.mark.parametrize("layers", HEAD_LAYERS)
def test_over_an_encoder_rows_and_documents_stay_apart_and_padding_does_not_matter(layers):
    head = head_of(BIDIRECTIONAL, layers=layers, pool="none")
    _, call = run(head)
    h, reset = inputs(breaks=0.0)
    reset[1, 5] = True
    valid = np.ones(reset.shape, bool)
    before, _ = call(h, head.init_state(BATCH), reset, valid)
    other = h.copy()
    other[1, 7] += 1.0
    after, _ = call(other, head.init_state(BATCH), reset, valid)
    changed = np.any(np.asarray(before) != np.asarray(after), axis=-1)
    assert changed[1, 7] and not changed[[0, 2]].any() and not changed[1, :5].any()
    if layers in ("conv", "gru", "lstm"):
        assert changed[1, 6]  # it reads the next token of the call

    padded = valid.copy()
    padded[:, 9:] = False
    short, _ = call(h, head.init_state(BATCH), reset, padded)
    other = h.copy()
    other[:, 9:] += 3.0
    moved, _ = call(other, head.init_state(BATCH), reset, padded)
    np.testing.assert_array_equal(np.asarray(short)[:, :9], np.asarray(moved)[:, :9])


def reference_gru(x, input_kernel, bias, recurrent):
    h, out = np.zeros(recurrent.shape[0]), []
    for token in x:
        r, z, n = np.split(token @ input_kernel + bias, 3)
        ur, uz, un = np.split(h @ recurrent, 3)
        r, z = 1 / (1 + np.exp(-r - ur)), 1 / (1 + np.exp(-z - uz))
        h = (1 - z) * np.tanh(n + r * un) + z * h
        out.append(h)
    return np.array(out)


def test_a_gru_and_a_convolution_equal_loops():
    h, _ = inputs(breaks=0.0)
    nothing = np.zeros((BATCH, LENGTH), bool)
    gru = head_of(CAUSAL, layers="gru", pool="none").layers[0]
    found = np.asarray(jax.jit(lambda h: gru(h, gru.init_state(BATCH), nothing, ~nothing)[0])(h))
    kernels = gru.input[0].kernel[...], gru.input[0].bias[...], gru.recurrent[0].kernel[...]
    for row in range(BATCH):
        np.testing.assert_allclose(found[row], reference_gru(h[row], *map(np.asarray, kernels)), atol=1e-5)

    conv = head_of(CAUSAL, layers="conv", pool="none", kernel_size=3).layers[0]
    found = jax.jit(lambda h: conv(h, conv.init_state(BATCH), nothing, ~nothing)[0])(h)
    kernel, bias = np.asarray(conv.dense.kernel[...]).reshape(3, WIDTH, WIDTH), np.asarray(conv.dense.bias[...])
    padded = np.pad(h, ((0, 0), (2, 0), (0, 0)))
    expected = sum(padded[:, tap : tap + LENGTH] @ kernel[tap] for tap in range(3)) + bias
    np.testing.assert_allclose(found, jax.jit(jax.nn.gelu)(expected), atol=1e-5)


@pytest.mark.parametrize("pool", ["mean", pytest.param("none", marks=pytest.mark.slow)])  # "none" has no state
def test_labels_of_a_decoder_with_memory_do_not_depend_on_the_division_into_calls(pool):
    config = HeadedConfig(backbone=CAUSAL, head=LabelHeadConfig(num_outputs=CLASSES, pool=pool))
    model = functional(config)
    params = random_params(model.config)
    tokens = np.random.default_rng(0).integers(32, size=(BATCH, LENGTH), dtype=np.int32)
    apply = jax.jit(model.apply)
    whole, end = apply(params, tokens)
    state, parts = model.init_state(BATCH), []
    for part in np.split(tokens, [3, 6, 9], axis=1):
        out, state = apply(params, part, state)
        parts.append(out)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), end.head, state.head)


BACKBONES = {
    "decoder": CAUSAL,
    "encoder": BIDIRECTIONAL,
    "xlnet": XLNetConfig(**SIZES, memory=MEMORY),
    "pair": Seq2SeqConfig(
        encoder=dataclasses.replace(BIDIRECTIONAL, memory=NoMemoryConfig()),
        decoder=dataclasses.replace(CAUSAL, source_length=LENGTH),
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("pair", "xlnet"))) for name in BACKBONES]
)
def test_every_backbone_is_scored_with_a_head(name):
    config = HeadedConfig(backbone=BACKBONES[name], head=LabelHeadConfig(num_outputs=CLASSES))
    model = functional(config)
    params = random_params(model.config)
    rng = np.random.default_rng(0)
    tokens = rng.integers(32, size=(BATCH, LENGTH), dtype=np.int32)
    targets = rng.integers(CLASSES, size=(BATCH, LENGTH), dtype=np.int32)
    options = {"source": tokens} if name == "pair" else {}

    def loss(params):
        scores, state = model.score(params, tokens, {"labels": targets}, **options)
        return jnp.mean(scores["labels"].losses), state

    (value, state), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert 0.5 < value < 3 and np.any(gradient["head"]["output"]["kernel"])
    assert any(np.any(leaf) for leaf in jax.tree.leaves(gradient["backbone"]))
    assert jax.tree.structure(state) == jax.tree.structure(model.init_state(BATCH))
    stats = jax.jit(model.diagnostics)(params, tokens, **options)
    assert stats and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(stats))


@pytest.mark.parametrize("name", [pytest.param("encoder", marks=pytest.mark.slow), "pair"])
def test_diagnostics_are_those_of_the_calls_and_padding_counts(name):
    """With `call_length`, the mean over the calls; `call_length` may be no multiple of a segment."""
    length = 6 if name == "encoder" else None
    config = HeadedConfig(backbone=BACKBONES[name], head=LabelHeadConfig(num_outputs=CLASSES), call_length=length)
    assert config.alignment_of(LENGTH) == ("any" if length else "aligned")
    model = functional(config)
    params, rng = random_params(model.config), np.random.default_rng(0)
    tokens = rng.integers(32, size=(BATCH, LENGTH), dtype=np.int32)
    valid = np.broadcast_to(np.arange(LENGTH) < 9, tokens.shape)
    diagnostics = jax.jit(model.diagnostics, static_argnames="alignment")
    found = diagnostics(params, tokens, valid=valid, alignment=config.alignment_of(LENGTH, padded=True))
    if length is None:
        assert {key.split("_")[0] for key in found} == {"decoder"}  # this encoder has no memory
        other = diagnostics(params, np.where(valid, tokens, 0), valid=valid)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, other)
        return
    one, calls, state = functional(dataclasses.replace(config, call_length=None)), [], model.init_state(BATCH)
    diagnostics, apply = jax.jit(one.diagnostics), jax.jit(one.apply)
    for part in (slice(0, 6), slice(6, 12)):
        options = {"state": state, "valid": valid[:, part]}
        calls.append(diagnostics(params, tokens[:, part], **options))
        _, state = apply(params, tokens[:, part], **options)
    jax.tree.map(lambda a, *b: np.testing.assert_allclose(a, np.mean(b, axis=0), atol=1e-5), found, *calls)


def test_losses_are_those_of_the_textbook():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, CLASSES)).astype(np.float32)
    targets = rng.integers(CLASSES, size=(2, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    one_hot = np.eye(CLASSES)[targets]
    weights = (1.0, 2.0, 0.5, 3.0)
    scores = jax.jit(label_scores, static_argnames=("smoothing", "class_weights"))
    found = scores(logits, targets, smoothing=0.2, class_weights=weights)
    q = 0.8 * one_hot + 0.2 / CLASSES
    np.testing.assert_allclose(found.losses, -(q * np.log(p)).sum(axis=-1) * np.array(weights)[targets], rtol=1e-5)
    np.testing.assert_array_equal(found.correct, logits.argmax(axis=-1) == targets)

    several = rng.integers(2, size=logits.shape)
    s = 1 / (1 + np.exp(-logits))
    found = scores(logits, several)
    expected = -(several * np.log(s) + (1 - several) * np.log(1 - s)).mean(axis=-1)
    np.testing.assert_allclose(found.losses, expected, rtol=1e-5)
    np.testing.assert_array_equal(found.correct, ((logits > 0) == several).all(axis=-1))
    assert np.isnan(scores(logits, np.full((2, 3), CLASSES)).losses).all()
    without = scores(logits, np.full((2, 3), -1))
    assert not np.any(without.losses) and not np.any(without.correct)


def test_a_chain_skips_tokens_without_a_tag_and_padding_and_ends_with_a_document():
    rng, head = np.random.default_rng(0), head_of(CAUSAL, pool="none", crf=True)
    for name, shape in (("transitions", (CLASSES, CLASSES)), ("start", (CLASSES,)), ("end", (CLASSES,))):
        getattr(head, f"chain_{name}")[...] = jax.device_put(rng.normal(size=shape).astype(np.float32))
    h, _ = inputs(breaks=0.0)
    reset, valid, targets = (
        np.zeros((BATCH, LENGTH), bool),
        np.ones((BATCH, LENGTH), bool),
        np.full((BATCH, LENGTH), -1),
    )
    reset[1, 5], valid[2, 9:] = True, False
    targets[:, [2, 4, 6, 7, 10]] = rng.integers(CLASSES, size=(BATCH, 5))
    tokens = np.zeros((BATCH, LENGTH), np.int32)
    targets = head.check_targets(targets.astype(np.int32), tokens)

    @jax.jit
    def scored(h, targets):
        out, _ = head(h)
        return out, head.score(out, targets, reset=reset, valid=valid)

    out, found = jax.device_get(scored(h, targets))
    chain = chain_of(nnx.to_pure_dict(nnx.state(head, nnx.Param)))
    for row, documents in enumerate(([[2, 4, 6, 7, 10]], [[2, 4], [6, 7, 10]], [[2, 4, 6, 7]])):
        expected = sum(path_loss(out[row, places], targets[row, places], chain) for places in documents)
        np.testing.assert_allclose(found.losses[row].sum(), expected, rtol=1e-4)
    assert not np.any(found.losses[targets == -1]) and not np.any(found.losses[2, 9:])
    with pytest.raises(ValueError, match=r"targets\['labels'\] must be from -1 to 3, got -2 to -2"):
        head.check_targets(np.full((BATCH, LENGTH), -2, np.int32), tokens)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crf": True}, "head.crf=True needs head.pool='none'"),
        ({"crf": True, "pool": "none", "label_smoothing": 0.1}, "head.crf=True needs head.pool='none'"),
        ({"layers": "transformer"}, "head.layers must be one of linear, mlp, tanh, conv, gru, lstm, got 'transformer'"),
        ({"pool": "sum"}, "pool must be one of"),
        ({"class_weights": (1.0,)}, "head.class_weights must be 4 numbers, one for each class"),
        ({"output_names": ("a", "b")}, "head.output_names has 2 names for num_outputs=4 outputs"),
        ({"label_smoothing": 1.0}, "head.label_smoothing must be in"),
        ({"dropout": 1.0}, "head.dropout must be in"),
        ({"layers": "conv", "kernel_size": 2}, "head.kernel_size=2 must be odd over an encoder"),
        ({"layers": "gru", "width": 3}, "head.width=3 must be even over an encoder"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        head_of(BIDIRECTIONAL, **settings)
