"""A memory for a model that was pretrained without one."""

import dataclasses
import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from memgpt_jax import models
from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.memory import KVMemoryConfig, MemoryConfig
from memgpt_jax.config.model import BaseModelConfig, Fusion, ModelConfig
from memgpt_jax.interop.adapters import ADDED_PARTS, head_parameters
from memgpt_jax.interop.pretrained import with_origin
from memgpt_jax.models.attention import SelfAttention, rotary_of
from memgpt_jax.models.quantization import quantized_bits
from memgpt_jax.ops.trees import named_leaves

ATTENTION_MEMORY = KVMemoryConfig(qk_norm=False, writer_conv=1, gate_bias=4.0, evict="least_read", null_entry=False)
"""Default of `add_memory` for `fusion="attention"`: evicts the least read entry; its Reader can copy attention."""
ADDABLE = ("gated_add", "add", "concat", "attention")
"""The fusions that leave the stream unchanged if the read is 0."""


def add_memory(
    model: models.MemGPT | models.EncoderDecoder,
    memory: MemoryConfig | None = None,
    *,
    layers: Sequence[int] | None = None,
    window_size: int | None = None,
    segment_length: int | None = None,
    fusion: Fusion = "gated_add",
    fusion_bias: float = 0.0,
    adapter_rank: int | None = None,
    seed: int = 0,
) -> models.MemGPT | models.EncoderDecoder:
    """Add a memory to a pretrained model; its outputs are unchanged until the memory is trained.

        f = h + (1 - lambda) W_o r,   W_o = 0 at first

    As the Reader's output projection W_o starts at 0, the read adds nothing, yet W_o gets a gradient, and all other
    parameters of the memory get one as soon as W_o is not 0.

    With `fusion="attention"`, memory entries and window tokens share the softmax of self-attention, and the memory's
    projections are initialised from those of attention. Queries read an entry at the distance `window_size`, with
    `memory.continues_window` at its own distance. The model can then use tokens that have left its window without any
    training; with `fusion_bias=20` its outputs are unchanged at first. Biases of `relative` positions are not copied.

    Args:
        model: a model without memory, for example from `from_pretrained`; it is not modified. The memory of an
            `EncoderDecoder` is added to its decoder.
        memory: the mechanism and its settings; default: `KVMemoryConfig()`, or for `fusion="attention"`
            `ATTENTION_MEMORY`.
        layers: the layers that get a memory, counted from 0; default: all.
        window_size: window W of self-attention in tokens; default: that of the model.
        segment_length: tokens T after which a layer writes; default: the window.
        fusion: how a read is added to the stream: `gated_add`, `add` or `concat`, or `attention`, which needs a
            `KVMemoryConfig` with `qk_norm=False`, whose heads become those of the model.
        fusion_bias: initial bias of the fusion gate; 0: the gate is 0.5.
        adapter_rank: rank of low-rank adapters (LoRA) of attention and feed-forward; default: no adapters.
        seed: of the new parameters.

    Returns:
        The model with a memory.

    Raises:
        ValueError: the model has a memory or adapters already, or a value does not fit it.
    """
    is_pair = isinstance(model, models.EncoderDecoder)
    old = model.config.decoder if is_pair else model.config
    plain = not old.memory.stores and old.adapter_rank is None
    check(plain, "the model has a memory or adapters already")
    has_window = isinstance(old, ModelConfig)
    check(has_window or window_size is None, f"window_size={window_size}: an {type(old).__name__} has no window")
    span = old.window_size if has_window else getattr(old, "num_positions", old.segment_length)
    span = span if window_size is None else window_size
    config = dataclasses.replace(
        old,
        memory=memory or (ATTENTION_MEMORY if fusion == "attention" else KVMemoryConfig()),
        memory_layers=None if layers is None else tuple(layers),
        **({"window_size": span} if has_window else {}),
        segment_length=span if segment_length is None else segment_length,
        fusion=fusion,
        fusion_bias=fusion_bias,
        adapter_rank=adapter_rank,
    )
    base, key = models.to_params(model), jax.random.key(seed)
    check(quantized_bits(base) is None, "the model is quantised: add the memory first, then quantize it")
    origin = getattr(model, "origin", None)
    if is_pair:
        params = base | {"decoder": with_base(config, base["decoder"], key)}
        return with_origin(models.from_params(dataclasses.replace(model.config, decoder=config), params), origin)
    return with_origin(models.from_params(config, with_base(config, base, key)), origin)


def with_base(config: BaseModelConfig, base: models.Params, key: jax.Array) -> models.Params:
    """Parameters of a model with memory: those of a pretrained model, and new ones for memory, adapters and new heads.

    A memory and adapters of the pretrained model are kept where their shapes fit.

    Args:
        config: the model with memory.
        base: the parameters of the pretrained model.
        key: for the new parameters: the output projection of each memory is 0, so that it adds nothing at first.

    Raises `ValueError` if a parameter is missing or has another shape, or the fusion would change the outputs.
    """
    stacks = {() if stack is config else (name,): stack for name, stack in config.stacks.items()}
    known = named_leaves(base)
    had_memory = any("memory_layer" in name.split("/") for name in known)
    for stack in stacks.values():
        check(
            stack.fusion in ADDABLE or not stack.memory.stores or had_memory,
            f"fusion={stack.fusion!r} changes the stream even if the read is 0; valid: {', '.join(map(repr, ADDABLE))}",
        )
    heads = head_parameters(config)

    def place(path: tuple, new: jax.Array) -> jax.Array:
        names = [str(part.key) for part in path]
        if not {*ADDED_PARTS}.isdisjoint(names):
            kept = known.get("/".join(names))
            if kept is not None and kept.shape == new.shape:
                return kept
            return jnp.zeros_like(new) if names[-4:-1] == ["memory_layer", "memory", "output"] else new
        if "/".join(names) in heads and names[1] not in base.get("heads", {}):
            return new
        found: Any = base
        for name in names:
            check(name in found, f"the pretrained model has no {'/'.join(names)}")
            found = found[name]
        check(found.shape == new.shape, f"{'/'.join(names)} is {found.shape}, must be {new.shape}")
        return found

    params = jax.tree.map_with_path(place, models.functional(config).init(key))
    for names, stack in stacks.items():
        if stack.shares_softmax and not had_memory:
            part = functools.reduce(operator.getitem, names, params)
            blocks = models.from_params(dataclasses.replace(stack, dtype="float32"), part).blocks
            for layer in filter(stack.layer_has_memory, range(stack.num_layers)):
                part["blocks"][str(layer)]["memory_layer"]["memory"] |= _like_attention(blocks[layer].attention)
    return params


def _like_attention(attention: SelfAttention) -> models.Params:
    """The projections of a memory whose entries are read like tokens at the distance `window_size`, or their own one.

    Rotary positions are linear maps of queries and keys, so they can be part of W_q and W_k. The Writer's convolution
    starts as the identity, and its gate as g = sigmoid(b_g).
    """
    config, width = attention.config, attention.config.d_model
    memory = instance_of(config.memory, KVMemoryConfig, "memory")
    check(
        not (memory.qk_norm or config.qk_norm),
        "fusion='attention' on a pretrained model needs memory.qk_norm=False, and a model without qk_norm",
    )
    x = jnp.eye(width + 1, width)[None]  # the rows of W, and 0 for b
    distance = 0 if memory.continues_window else config.window_size
    query, _, _ = attention.project_in(x, jnp.full(x.shape[:2], distance, jnp.int32))
    _, key, value = attention.project_in(x, jnp.zeros(x.shape[:2], jnp.int32))
    if memory.continues_window and (rotary := rotary_of(config)) is not None:  # the memory rotates and scales them
        query, key = query / rotary.scaling.attention_factor, key / rotary.scaling.attention_factor
    new = {}
    for name, projected in (("query", query), ("key", key), ("value", value)):
        heads = projected[0].reshape(width + 1, -1)
        new[name] = {"kernel": heads[:-1] - heads[-1:], "bias": heads[-1]}
    if config.attention_bias == "none":
        del new["query"]["bias"]
    if memory.writer_conv > 1:
        new["conv"] = {"kernel": jnp.zeros((memory.writer_conv, width), jnp.float32).at[0].set(1.0)}
    if memory.gate != "none":
        bias = jnp.full(1, memory.gate_bias, jnp.float32)
        new["write_gate"] = {"kernel": jnp.zeros((width, 1), jnp.float32), "bias": bias}
    return new
