"""Fusion of modalities: pooled vectors, graphs, attention and memory; references, masks, documents, and refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.config.features import VectorsConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig
from memgpt_jax.models import attention_weights, from_params, functional
from memgpt_jax.models.heads import FusionHeadConfig, GraphHeadConfig, LabelHeadConfig, make_head
from memgpt_jax.models.multimodal import GraphNetwork, ModalityFusion
from memgpt_jax.ops.trees import named_leaves
from tests.laws.models import random_params
from tests.references import graph as reference

BATCH, LENGTH, WIDTH, KINDS, CLASSES = 2, 8, 8, 2, 3
SIZES = {"vocab_size": 7, "d_model": WIDTH, "num_layers": 1, "num_heads": 2, "d_ff": 12, "segment_length": 4}
ENCODER = EncoderConfig(
    **SIZES, memory=NoMemoryConfig(), heads=(), features=VectorsConfig(size=3), token_types=2, separate_types=True
)
DECODER = ModelConfig(**SIZES, memory=NoMemoryConfig(), window_size=4)


def arrays(seed=0):
    """Hidden states, types, and the edges of a graph in which every node has some."""
    rng = np.random.default_rng(seed)
    h = rng.normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)
    types = (rng.random((BATCH, LENGTH)) < 0.5).astype(np.int32)
    edges = np.stack([rng.integers(size, size=(BATCH, 30)) for size in (LENGTH, KINDS, LENGTH)], axis=-1)
    return h, types, edges.astype(np.int32)


def flags():
    """`reset` with a document that begins in the second row, and `valid` without padding."""
    reset = np.zeros((BATCH, LENGTH), bool)
    reset[1, 3] = True
    return reset, np.ones((BATCH, LENGTH), bool)


def caller(head):
    graph, params = nnx.split(head)
    call = jax.jit(lambda params, *arguments, **inputs: nnx.merge(graph, params)(*arguments, **inputs))
    return lambda *arguments, **inputs: call(params, *arguments, **inputs)


@pytest.mark.parametrize("fusion", ["concat", "gate"])
def test_a_fusion_of_vectors_equals_its_equation(fusion):
    module = ModalityFusion(fusion, WIDTH, 3, dtype=jnp.float32, rngs=nnx.Rngs(0))
    p = np.random.default_rng(0).normal(size=(BATCH, 3, WIDTH)).astype(np.float32)
    p[0, 1] = 0  # missing
    joined = p.reshape(BATCH, -1)
    if fusion == "concat":
        expected = reference.gelu(joined @ np.asarray(module.projection.kernel[...]))
    else:
        logits = (joined @ np.asarray(module.gate.kernel[...])).reshape(p.shape)
        gates = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        own = np.stack([np.tanh(p[:, m] @ np.asarray(layer.kernel[...])) for m, layer in enumerate(module.inputs)], 1)
        assert not own[0, 1].any()
        expected = (gates * own).sum(axis=1)
    np.testing.assert_allclose(module(p), expected, atol=1e-5)


@pytest.mark.parametrize(("fusion", "pool"), [("concat", "mean"), ("gate", "attention")])
def test_pooled_modalities_of_any_cut_any_padding_and_documents(fusion, pool):
    config = FusionHeadConfig(num_outputs=CLASSES, fusion=fusion, pool=pool)
    head = make_head(config, DECODER, rngs=nnx.Rngs(0))
    call, (h, types, _), (reset, valid) = caller(head), arrays(), flags()
    whole, after = call(h, head.init_state(BATCH), reset, valid, token_types=types)
    state, parts = head.init_state(BATCH), []
    for first, used in ((0, 4), (4, 1), (5, 3)):  # each padded to four tokens
        here = np.minimum(first + np.arange(4), LENGTH - 1)
        present = np.broadcast_to(np.arange(4) < used, (BATCH, 4))
        noise = np.where(present[..., None], h[:, here], 1e3)
        out, state = call(noise, state, reset[:, here] & present, present, token_types=types[:, here])
        parts.append(out[:, :used])
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), after, state)

    alone, _ = call(np.roll(h, -3, axis=1), head.init_state(BATCH), ~valid, valid, token_types=np.roll(types, -3, 1))
    np.testing.assert_allclose(whole[1, 3:], alone[1, :-3], atol=1e-5)  # the second document
    if fusion == "concat":
        kernel, bias = (np.asarray(head.modalities.projection.kernel[...]), 0.0)
        p = [h[0][types[0] == m].mean(axis=0) for m in range(2)]
        fused = reference.gelu(np.concatenate(p) @ kernel + bias)
        np.testing.assert_allclose(whole[0, -1], fused @ np.asarray(head.output.kernel[...]), atol=1e-5)


def test_a_graph_network_equals_loops():
    network = GraphNetwork(WIDTH, num_kinds=KINDS, rounds=2, rngs=nnx.Rngs(0))
    h, _, edges = arrays()
    group = np.array([[0] * LENGTH, [0, 0, 0, 1, 1, 1, 1, -1]], np.int32)
    found = caller(network)(h, edges, group)
    rounds = [
        (np.asarray(norm.scale[...]), layer.kernel[...], np.asarray(layer.bias[...]))
        for norm, layer in zip(network.norms, network.rounds, strict=True)
    ]
    for row in range(BATCH):
        expected = reference.network(h[row], edges[row].tolist(), KINDS, group[row], rounds)
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_a_graph_in_any_order_with_padding_and_documents():
    config = GraphHeadConfig(num_outputs=CLASSES, edge_kinds=KINDS, pool="attention")
    head = make_head(config, ENCODER, rngs=nnx.Rngs(0))
    call, (h, _, edges), (reset, valid) = caller(head), arrays(), flags()
    state = head.init_state(BATCH)
    whole, _ = call(h, state, reset, valid, edges=edges)
    mixed, _ = call(h, state, reset, valid, edges=np.random.default_rng(1).permutation(edges, axis=1))
    np.testing.assert_allclose(mixed, whole, atol=1e-5)
    order = np.array([3, 1, 6, 0, 2, 7, 5, 4])
    moved = edges.copy()
    moved[..., ::2] = np.argsort(order)[edges[..., ::2]]
    permuted, _ = call(h[:, order], state, ~valid, valid, edges=moved)
    np.testing.assert_allclose(permuted[0, -1], whole[0, -1], atol=1e-5)  # pooled

    padded = valid.copy()
    padded[:, 6:] = False
    short, _ = call(h, state, reset, padded, edges=edges)
    noise = np.where(padded[..., None], h, np.float32(np.nan))
    np.testing.assert_array_equal(call(noise, state, reset, padded, edges=edges)[0][:, :6], short[:, :6])
    assert np.any(np.asarray(short)[:, :6] != np.asarray(whole)[:, :6])
    first = np.where((np.arange(LENGTH) < 3)[None, :, None], h, h + 1)
    np.testing.assert_array_equal(call(first, state, reset, valid, edges=edges)[0][1, :3], whole[1, :3])

    graph, params = nnx.split(head)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(nnx.merge(graph, p)(h, None, reset, valid, edges=edges)[0]))))
    assert all(np.any(leaf) for leaf in named_leaves(nnx.to_pure_dict(gradient(params))).values())


def test_bad_edges_and_types_are_named_and_give_nan_inside_jit():
    graph = make_head(GraphHeadConfig(edge_kinds=KINDS, rounds=1, pool="last"), ENCODER, rngs=nnx.Rngs(0))
    fused = make_head(FusionHeadConfig(pool="last"), ENCODER, rngs=nnx.Rngs(0))
    call = caller(graph)
    h, types, edges = arrays()
    for place, value in (((0, 2, 1), KINDS), ((0, 2, 0), LENGTH), ((0, 2, 2), -1), ((0, 2, 1), -2)):
        wrong = edges.copy()
        wrong[place] = value
        with pytest.raises(ValueError, match=r"kinds from -1 \(no edge\) to head.edge_kinds - 1 = 1, and sources and"):
            graph(h, edges=wrong)
        found, _ = call(h, None, edges=wrong)
        assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()
    with pytest.raises(ValueError, match=r"edges must be integers \[2, E, 3\] with E >= 1, got shape \[2, 30\]"):
        graph(h, edges=edges[..., 0])
    types[0, 1] = 2
    with pytest.raises(ValueError, match="token_types must be from 0 to 1, got 0 to 2"):
        fused(h, token_types=types)
    found, _ = caller(fused)(h, None, token_types=types)
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()
    with pytest.raises(ValueError, match="GraphHeadConfig needs an encoder"):
        make_head(GraphHeadConfig(), DECODER, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="has no vector of a modality"):
        FusionHeadConfig(pool="none")
    with pytest.raises(ValueError, match="separate_types needs token_types >= 2, got None"):
        EncoderConfig(separate_types=True)


def stream(seed=0):
    """Tokens of which the first four have features and are of type 1."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 7, size=(BATCH, LENGTH)).astype(np.int32)
    tokens[:, :4] = 0
    return tokens, rng.normal(size=(BATCH, LENGTH, 3)).astype(np.float32), (tokens == 0).astype(np.int32)


def test_separate_types_see_only_each_other_and_the_alignment_is_what_attention_reads():
    params, (tokens, features, types) = random_params(ENCODER), stream()
    reset, valid = flags()
    valid[:, 7] = False

    def model_of(**changes):
        return from_params(dataclasses.replace(ENCODER, **changes), params)

    read = jax.jit(
        lambda separate, features: (
            model_of(separate_types=separate)
            .hidden(tokens, None, reset, valid, token_types=types, features=features)
            .stream
        ),
        static_argnums=0,
    )
    apart, together = (np.asarray(read(separate, features)) for separate in (True, False))
    moved_apart, moved = (np.asarray(read(separate, features + 1)) for separate in (True, False))
    np.testing.assert_array_equal(apart[0, 4:], moved_apart[0, 4:])
    assert np.any(apart[0, :4] != moved_apart[0, :4]) and np.any(together[0, 4:7] != moved[0, 4:7], axis=-1).all()

    inputs = {"reset": reset, "valid": valid, "token_types": types, "features": features}
    align = jax.jit(
        lambda separate: attention_weights(model_of(separate_types=separate), tokens, **inputs), static_argnums=0
    )
    weights = np.asarray(align(False))
    assert weights.shape == (BATCH, 2, LENGTH, LENGTH)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    assert not weights[1, :, :3, 3:].any() and not weights[..., 7].any() and weights[0, :, 4:, :4].all()
    assert not np.asarray(align(True))[0, :, 4:, :4].any()
    encoder = model_of(separate_types=False)

    @jax.jit
    def attended():
        x, _, called = encoder.started_call(tokens, None, reset, valid, token_types=types, features=features)
        attention, x = encoder.blocks[0].attention, encoder.blocks[0].attention_norm(x)
        values = attention.project_in(x, called.positions)[2]
        return attention(x, (), called)[0], attention.project_out(jnp.einsum("bhlm,bmhk->blhk", weights, values))

    np.testing.assert_allclose(*attended(), atol=1e-5)
    with pytest.raises(ValueError, match="layer must be from -1 to 0, got 1"):
        attention_weights(encoder, tokens, layer=1, **inputs)


@pytest.mark.parametrize("has_memory", [True, False])
def test_a_later_call_reads_the_picture_from_the_memory(has_memory):
    memory = KVMemoryConfig(memory_size=4, num_heads=1, head_dim=4) if has_memory else NoMemoryConfig()
    backbone = dataclasses.replace(ENCODER, memory=memory, token_types=None, separate_types=False)
    config = HeadedConfig(backbone=backbone, head=LabelHeadConfig(pool="last"), call_length=4)
    params, (tokens, features, _) = random_params(config), stream()
    outputs = jax.jit(lambda features: functional(config).apply(params, tokens, features=features)[0])
    changed = np.any(np.asarray(outputs(features)) != np.asarray(outputs(features + 1)), axis=-1)
    assert changed[:, :4].all() and changed[:, 4:].all() == changed[:, 4:].any() == has_memory


def test_a_head_that_shares_an_input_with_its_encoder():
    config = HeadedConfig(backbone=ENCODER, head=FusionHeadConfig(num_outputs=CLASSES))
    assert config.inputs == ("features", "token_types")
    params, (tokens, features, types) = random_params(config), stream()
    apply = jax.jit(lambda types: functional(config).apply(params, tokens, features=features, token_types=types)[0])
    assert np.any(np.asarray(apply(types)) != np.asarray(apply(np.zeros_like(types))))
