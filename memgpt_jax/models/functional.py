"""Models as pure functions of plain pytrees: config, parameters and state in, results and state out."""

import functools
from typing import Any

import jax
from flax import nnx

from memgpt_jax.config.model import EncoderConfig, ModelConfig, Seq2SeqConfig, XLNetConfig
from memgpt_jax.models.decoder import MemGPT, ModelState
from memgpt_jax.models.encoder import Encoder
from memgpt_jax.models.seq2seq import EncoderDecoder
from memgpt_jax.models.xlnet import XLNet
from memgpt_jax.ops import Scores
from memgpt_jax.shapes import Array, Float32, Targets, Tokens

Params = Any  # nested dictionaries of float32 arrays
MODELS = {ModelConfig: MemGPT, EncoderConfig: Encoder, Seq2SeqConfig: EncoderDecoder, XLNetConfig: XLNet}
"""The model of each kind of config."""


@functools.lru_cache(maxsize=256)
def graph(config: ModelConfig) -> nnx.GraphDef:
    """The structure of a model, without arrays."""
    return nnx.split(abstract_model(config), nnx.Param)[0]


@functools.lru_cache(maxsize=64)
def abstract_model(config: ModelConfig) -> nnx.Module:
    """A model whose parameters are shapes without values. It is cached and shared: do not modify it."""
    return nnx.eval_shape(lambda: MODELS[type(config)](config, rngs=nnx.Rngs(0)))


def init(config: ModelConfig, key: Array) -> Params:
    """Fresh parameters as nested dictionaries of float32 arrays."""
    return split(MODELS[type(config)](config, rngs=nnx.Rngs(params=key)))


def shapes(config: ModelConfig) -> Params:
    """The parameters as shapes and types: nothing is allocated."""
    return jax.eval_shape(lambda: init(config, jax.random.key(0)))


def split(model: nnx.Module) -> Params:
    """The parameters of a module as nested dictionaries."""

    def named(tree):  # lists become dictionaries with the keys "0", "1", ...
        return {str(key): named(value) for key, value in tree.items()} if isinstance(tree, dict) else tree

    return named(nnx.to_pure_dict(nnx.state(model, nnx.Param)))


def merge(config: ModelConfig, params: Params):
    """The module with the given parameters; `split` undone."""
    return nnx.merge(graph(config), nnx.restore_int_paths(params))


def init_state(config: ModelConfig, batch_size: int) -> ModelState:
    """The state before the first token: the model's `init_state` without a model."""
    return abstract_model(config).init_state(batch_size)


def model_state_bytes(config: ModelConfig) -> int:
    """Bytes of a model's state for one row of the batch: the windows and memories of all layers."""
    state = jax.eval_shape(lambda: init_state(config, 1))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def apply(
    config: ModelConfig, params: Params, tokens: Tokens, state: ModelState, reset=None, valid=None, **options
) -> tuple[Float32[Array, "B L V"], ModelState]:
    """`MemGPT.__call__` as a pure function of plain pytrees."""
    return merge(config, params)(tokens, state, reset, valid, **options)


def score_tokens(
    config: ModelConfig, params: Params, tokens: Tokens, targets: Targets, state: ModelState, **options
) -> tuple[dict[str, Scores], ModelState]:
    """`MemGPT.score` as a pure function of plain pytrees."""
    return merge(config, params).score(tokens, targets, state, **options)


def diagnostics(config: ModelConfig, params: Params, tokens: Tokens, state: ModelState, reset=None, **options) -> dict:
    """`MemGPT.diagnostics` as a pure function of plain pytrees."""
    return merge(config, params).diagnostics(tokens, state, reset, **options)
