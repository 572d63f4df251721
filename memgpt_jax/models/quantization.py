"""Decoders whose large matrices have 8 or 4 bits per weight, or are stored by output, and states of 8 bits."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from memgpt_jax.config.checks import check
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import BaseModelConfig, ModelConfig
from memgpt_jax.memory import resolved
from memgpt_jax.models.model_functions import AnyModel, Params, from_params, to_params
from memgpt_jax.ops.quantized import FEW_ROWS, Bits, FloatMatrix, StoredMatrix, check_bits, quantize_matrix
from memgpt_jax.ops.trees import path_name
from memgpt_jax.shapes import Array

KERNELS = re.compile(
    r"(blocks/\d+/(attention|cross_attention|feed_forward|memory_layer/memory)/)?"
    r"(query_key_value|query|key_value|key|value|input|output)/kernel"
)
"""The kernels that are quantised: projections of attention, feed-forward and memory, and the output. Gates,
convolutions and controllers of memories, adapters, norms and biases are not."""
EMBEDDING = "embedding"
"""Token embeddings; also the output if it is tied. They get 8 bits where the projections have 4."""


SameModel = TypeVar("SameModel", bound=AnyModel)


def quantize(model: SameModel, bits: Bits | None = 8, *, state_bits: int | None = None) -> SameModel:
    """A decoder whose large matrices are rounded to 8 bits, with a scale per row or per 32 weights, or to 4 bits.

    >>> small = mg.quantize(mg.from_pretrained(NAME))

    It has the config and the state of the model: it generates, scores and continues sessions in the same calls.
    `save_pretrained` keeps its bits. It cannot be trained. `memgpt_jax.ops.quantized` has the equations and bounds.

    With `state_bits=8` its state has 8 bits per key and value in windows (`ModelConfig.window_bits`) and in `kv`
    memories (`KVMemoryConfig.entry_bits`). It then has a config of its own, and begins with a new state; a state of
    floats is continued as floats.

    Args:
        model: the decoder, with or without a memory or adapters.
        bits: 8: a scale per row; "q8_0": 8 bits with a scale per 32 weights, as in GGUF files of `Q8_0`; 4: for the
            projections, with scale and minimum per 32 weights (embeddings and output have 8); None: the weights stay
            as they are.
        state_bits: 8; default: the state has the type of the model.

    Raises:
        ValueError: there is nothing to round; `bits` or `state_bits` is none of these; or the model is no decoder, or
            its weights have been quantised already.
    """
    check(bits is not None or state_bits is not None, "nothing to quantize: give bits, state_bits or both")
    params = to_params(model) if bits is None else quantize_params(model.config, to_params(model), bits)
    found = from_params(model.config if state_bits is None else with_state_bits(model.config, state_bits), params)
    if hasattr(model, "origin"):
        found.origin = model.origin
    return found


def with_state_bits(config: BaseModelConfig, bits: int) -> ModelConfig:
    """The config of a decoder whose windows and `kv` memories have 8 bits per key and value."""
    check(isinstance(config, ModelConfig), f"only states of decoders have 8 bits, got a {type(config).__name__}")
    assert isinstance(config, ModelConfig)
    check(bits == 8, f"state_bits must be 8, got {bits!r}")
    config = resolved(config)  # the memory keeps its size, also with `match_state_bytes`
    memory = config.memory
    if isinstance(memory, KVMemoryConfig):
        memory = replace(memory, entry_bits=8)
    return replace(config, window_bits=8, memory=memory)


def quantize_params(config: BaseModelConfig, params: Params, bits: Bits) -> Params:
    """`quantize` of parameters: matrices of `ops.quantized` in the places of arrays."""
    check(isinstance(config, ModelConfig), f"only decoders can be quantised, got a {type(config).__name__}")
    check_bits(bits)
    params = loadable(params)
    check(quantized_bits(params) is None, "the model has been quantised already")
    large = 8 if bits == 4 else bits

    def make(name: str, weights: Array) -> StoredMatrix:
        return quantize_matrix(weights, large if name.startswith(("output/", EMBEDDING)) else bits)

    return _with_matrices(params, make)


def quantized_bits(params: Params) -> Bits | None:
    """The `bits` with which these parameters have been quantised; None: they have not.

    With "q8_0" and 4, some matrices are those of 8.
    """
    found = {matrix.bits for matrix in _matrices(params)}
    return next((bits for bits in (4, "q8_0", 8) if bits in found), None)


def laid_out(config: BaseModelConfig, params: Params, rows: int) -> Params:
    """The parameters in a layout that decodes `rows` rows faster: the products are equal up to rounding.

    On CPU, the large matrices of a decoder are stored by output for 2 to 64 rows, which takes a copy of them. For other
    numbers of rows, on other or several devices, with quantised weights and for other models the parameters stay as
    they are. `loadable` gives the parameters back.
    """
    several = any(len(leaf.devices()) > 1 for leaf in jax.tree.leaves(params) if isinstance(leaf, Array))
    if not 1 < rows <= FEW_ROWS or jax.default_backend() != "cpu" or several or not isinstance(config, ModelConfig):
        return params
    if _matrices(params):
        return params
    return _with_matrices(params, lambda name, weights: FloatMatrix(jnp.asarray(weights)))


def loadable(params: Params) -> Params:
    """Parameters whose matrices are stored by output (`laid_out`) as they were before, equal bitwise."""

    def place(path: tuple[Any, ...], leaf: Any) -> Any:
        if not isinstance(leaf, FloatMatrix):
            return leaf
        return leaf.values if path_name(path) == EMBEDDING else leaf.values.T

    return jax.tree.map_with_path(place, params, is_leaf=lambda leaf: isinstance(leaf, StoredMatrix))


def _matrices(params: Params) -> list[StoredMatrix]:
    leaves = jax.tree.leaves(params, is_leaf=lambda leaf: isinstance(leaf, StoredMatrix))
    return [leaf for leaf in leaves if isinstance(leaf, StoredMatrix)]


def _with_matrices(params: Params, make: Callable[[str, Array], StoredMatrix]) -> Params:
    """Parameters with stored matrices in the places of kernels and embeddings; make(name, [N, K])."""

    def place(path: tuple[Any, ...], leaf: Any) -> Any:
        name = path_name(path)
        is_kernel = KERNELS.fullmatch(name) is not None
        return make(name, leaf.T if is_kernel else leaf) if is_kernel or name == EMBEDDING else leaf

    return jax.tree.map_with_path(place, params)
