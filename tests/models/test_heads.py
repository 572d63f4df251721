"""Every registered head behind the one interface: shapes, scores, gradients, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig
from memgpt_jax.models import Encoder
from memgpt_jax.models.heads import HEADS, StreamHead, in_order

B, L = 3, 5
SIZES = {"vocab_size": 11, "d_model": 8, "num_layers": 1, "num_heads": 2, "segment_length": 4}


def encoder_with(*heads: str) -> Encoder:
    config = EncoderConfig(**SIZES, memory=NoMemoryConfig(), heads=heads)
    return Encoder(config, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("name", HEADS)
def test_the_contract(name):
    if issubclass(HEADS[name].module, StreamHead):  # tests/models/test_stream_heads.py, test_scalar_head.py, ...
        with pytest.raises(ValueError, match=f"the head '{name}' is not part of an encoder"):
            encoder_with(name)
        return
    model = encoder_with(*in_order([name]))
    head = model.heads[name]
    shape = (B,) if head.labels_rows else (B, L)
    tokens = np.random.default_rng(0).integers(11, size=(B, L), dtype=np.int32)
    state = model.init_state(B)
    hidden_of = jax.jit(lambda tokens: model.hidden(tokens, state).stream)
    hidden = hidden_of(tokens)
    if not head.num_classes:  # another head reads its outputs
        assert any(entry.module.reads == name for entry in HEADS.values())
        with pytest.raises(ValueError, match=f"targets: the model has no head '{name}'; valid: none"):
            model.score(tokens, {name: np.zeros(shape, np.int32)}, state)
        return
    targets = np.random.default_rng(1).integers(head.num_classes, size=shape, dtype=np.int32)

    def loss(params, targets):
        merged = nnx.merge(graph, params)
        scores, after = merged.score(tokens, {name: targets}, state)
        return jnp.mean(scores[name].losses), (scores[name], after)

    graph, params = nnx.split(model, nnx.Param)
    both = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, (scores, after)), gradient = both(params, targets)
    assert scores.losses.shape == scores.correct.shape == shape
    assert np.isfinite(scores.losses).all() and (scores.losses > 0).all()
    assert jax.tree.structure(after) == jax.tree.structure(state)
    own = nnx.to_pure_dict(gradient)["heads"]
    assert all(np.any(leaf) for leaf in jax.tree.leaves(own)), own  # each of its parameters is trained

    # Over all ids that a target may have, the probabilities add up to one, and exactly one is the best.
    found = [both(params, np.full(shape, number, np.int32))[0][1][0] for number in range(head.num_classes)]
    np.testing.assert_allclose(sum(np.exp(-scores.losses) for scores in found), 1, rtol=1e-5)
    assert (sum(np.asarray(scores.correct, int) for scores in found) == 1).all()
    np.testing.assert_array_equal(hidden, hidden_of(tokens))


def test_an_order_of_heads():
    assert in_order(["next_sentence", "masked"]) == ["pooler", "next_sentence", "masked"]
    assert in_order(["masked", "pooler", "next_sentence"]) == ["masked", "pooler", "next_sentence"]


def test_heads_that_are_refused():
    with pytest.raises(ValueError, match=r"unknown head 'mask'; valid: masked, pooler, next_sentence"):
        encoder_with("mask")
    with pytest.raises(ValueError, match="next_sentence needs pooler"):
        encoder_with("next_sentence")
    with pytest.raises(ValueError, match=r"heads must be distinct, got \('masked', 'masked'\)"):
        encoder_with("masked", "masked")
    model = encoder_with()
    with pytest.raises(ValueError, match=r"this encoder has no 'masked' head \(heads=\(\)\)"):
        model(np.zeros((B, L), np.int32), model.init_state(B))
    assert dataclasses.replace(model.config, heads=["masked"]).heads == ("masked",)
