"""Laws that a model obeys, as functions that return the size of the violation; and tiny models to try them on."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.models import functional
from tests.laws.memories import difference

BATCH = 2


def tiny(memory=None, **changes) -> ModelConfig:
    """A model that compiles in about a second."""
    memory = KVMemoryConfig(memory_size=7, num_heads=2, head_dim=4, temperature=3.0) if memory is None else memory
    defaults = {"vocab_size": 32, "d_model": 8, "num_layers": 1, "num_heads": 2, "d_ff": 12}
    return ModelConfig(memory=memory, **defaults | {"window_size": 6, "segment_length": 4} | changes)


@dataclasses.dataclass(frozen=True)
class Built:
    """A model with parameters moved by noise, as training would, and its compiled call."""

    config: ModelConfig
    params: Any
    call: Any  # (params, tokens, state, reset, valid, alignment="any") -> (logits, state)

    def __call__(self, tokens, state=None, reset=None, valid=None, **options):
        reset = np.zeros(tokens.shape, bool) if reset is None else reset
        valid = np.ones(tokens.shape, bool) if valid is None else valid
        state = self.fresh(len(tokens)) if state is None else state
        return self.call(self.params, tokens, state, reset, valid, **options)

    def fresh(self, batch=BATCH):
        return fresh_state(self.config, batch)


@functools.lru_cache
def fresh_state(config, batch):
    return jax.jit(functional(config).init_state, static_argnums=0)(batch)


def random_params(config, seed=0, jitter=0.2):
    """Parameters of a model of any class, moved by noise as training would; no program is compiled to draw them."""
    rng = np.random.default_rng(seed)

    def value(path, leaf):
        name = jax.tree_util.keystr(path)
        matrix = leaf.ndim > 1 and "null_key" not in name
        spread = leaf.shape["embedding" in name] ** -0.5 if matrix else jitter
        mean = float(leaf.ndim == 1 and ("norm" in name or "scale" in name))
        return jax.device_put(np.asarray(mean + spread * rng.normal(size=leaf.shape), np.float32))

    return jax.tree.map_with_path(value, functional(config).param_shapes())


def build(config: ModelConfig, jitter=0.2) -> Built:
    """Without a cache, so that a fault planted in the code before is compiled in."""
    params = random_params(config, jitter=jitter)

    @functools.partial(jax.jit, static_argnames="alignment")
    def call(params, tokens, state, reset, valid, alignment="any"):
        return functional(config).apply(params, tokens, state, reset, valid, alignment=alignment)

    return Built(config, params, call)


built = functools.lru_cache(build)


def stream_inputs(seed, config, length, batch=BATCH, breaks=0.1):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, config.vocab_size, (batch, length)).astype(np.int32)
    return tokens, rng.random((batch, length)) < breaks


def streaming_violation(model: Built, tokens, reset, cuts):
    """Difference in logits and in final state between one call and calls of the given lengths."""
    whole, whole_state = model(tokens, reset=reset)
    state, logits, start = model.fresh(len(tokens)), [], 0
    for size in cuts:
        part = slice(start, start + size)
        out, state = model(tokens[:, part], state, reset[:, part])
        logits.append(out)
        start += size
    assert start == tokens.shape[1], "the cuts must add up"
    return difference(whole, np.concatenate(logits, axis=1)), state_difference(whole_state, state)


def ragged_violation(model: Built, tokens, reset, lengths, size):
    """The same where each call has room for `size` tokens, and row b uses lengths[i, b] of it in the i-th call."""
    whole, whole_state = model(tokens, reset=reset)
    state, done, gap = model.fresh(len(tokens)), np.zeros(len(tokens), int), 0.0
    for used in lengths:
        part = np.minimum(done[:, None] + np.arange(size), tokens.shape[1] - 1)
        take = lambda a, part=part: np.take_along_axis(a, part, axis=1)  # noqa: E731
        valid = np.arange(size) < used[:, None]
        out, state = model(take(tokens), state, take(reset), valid)
        for b, n in enumerate(used):
            gap = max(gap, difference(whole[b, done[b] : done[b] + n], out[b, :n]))
        done += used
    assert np.all(done == tokens.shape[1]), "the lengths must add up"
    return gap, state_difference(whole_state, state)


def state_difference(one, other):
    """Largest difference of two model states that means the same rows at the same places.

    The window is a ring whose slots without a token of the open document hold anything.
    """

    def visible(state):
        layers = []
        for layer in state.layers:
            window = jax.device_get(layer.window)
            seen = window.valid[..., None, None]
            layers.append(
                (np.where(seen, window.keys, 0), np.where(seen, window.values, 0), window.valid, layer.stream)
            )
        return layers, [layer.window.cursor for layer in state.layers], state.position

    return difference(visible(one), visible(other))


def perturbation_violation(model: Built, tokens, reset, row, place):
    """Largest change of logits that another token at (row, place) makes where it must make none: exactly 0."""
    before, _ = model(tokens, reset=reset)
    other = tokens.copy()
    other[row, place] = (other[row, place] + 7) % model.config.vocab_size
    after, _ = model(other, reset=reset)
    document = np.cumsum(reset[row])
    allowed = np.zeros(tokens.shape, bool)
    allowed[row] = (np.arange(tokens.shape[1]) >= place) & (document == document[place])
    return difference(np.asarray(before)[~allowed], np.asarray(after)[~allowed])


def token_influence(model: Built, reset):
    """[B, L, B, L]: how far the logits at (b, t) depend on the embedding of the token at (b', s), by gradient.

    Every token of the call is different and the output is not tied, so that embedding rows are places.
    """
    batch, length = reset.shape
    assert not model.config.tie_embeddings and model.config.vocab_size >= batch * length
    tokens = np.arange(batch * length, dtype=np.int32).reshape(batch, length)
    mix = np.random.default_rng(0).normal(size=model.config.vocab_size).astype(np.float32)
    state, valid = model.fresh(batch), np.ones(reset.shape, bool)

    def outputs(embedding):
        logits, _ = model.call(model.params | {"embedding": embedding}, tokens, state, reset, valid)
        return jnp.einsum("blv,v->bl", logits, mix)

    jacobian = np.asarray(jax.jit(jax.jacrev(outputs))(model.params["embedding"]))
    return np.abs(jacobian).max(axis=-1)[:, :, : batch * length].reshape(batch, length, batch, length)
