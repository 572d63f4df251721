"""Softmax attention in its dense form, for small blocks of queries and entries."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from memgpt_jax.ops.int8_vectors import as_floats
from memgpt_jax.ops.mesh import is_single_device
from memgpt_jax.shapes import Array, Bool, Float, Float32

MASKED = -1e30  # in place of minus infinity: sums and differences of masked logits stay finite
FEW_QUERIES = 16  # with fewer, as in decoding, transposing the keys costs more than multiplying them
PARTS, FEWEST = (1, 2, 4, 8, 16), 64  # decoding reads all entries or a 1/n of them, n in PARTS, but at least FEWEST
FLOOR = -1e20  # the running maximum never goes below this, so a fully masked row has weights 0, not uniform ones


def map_rows(function: Callable[..., Any], arrays: Any, recompute: bool = True) -> Any:
    """`function` of each slice along the leading axis of a pytree of arrays.

    A single CPU device processes one row at a time, so that the logits of a row stay in its cache and each matmul is
    two-dimensional. Accelerators and meshes process all rows at once.

    recompute: rematerialise `function` in the backward pass.
    """
    if recompute:
        function = jax.checkpoint(function)
    if jax.default_backend() == "cpu" and is_single_device():
        return jax.lax.map(function, arrays)
    return jax.vmap(function)(arrays)


def normalize(x: Float[Array, "*b K"]) -> Float32[Array, "*b K"]:
    """x / sqrt(x . x + 1e-6) over the last axis, in float32."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)


def attention_weights(
    query: Float[Array, "*b R Q K"],
    keys: Float[Array, "*b E K"],
    bias: Float32[Array, "*#b #R #Q E"],
    sink: Float32[Array, "*b R Q"] | None = None,
) -> Float32[Array, "*b R Q E"]:
    """Softmax weights of E entries in float32, with an optional sink: a logit without an entry.

        w_e = exp(l_e) / (exp(sink) + sum_j exp(l_j)),    l_e = q . k_e + bias_e

    A bias of `MASKED` hides an entry. If every entry is hidden and there is no sink, all weights are 0. The query
    includes the scale (K^-1/2, or a temperature).
    """
    weights, total, _ = _softmax_parts(query, keys, bias, sink)
    return weights / total[..., None]


def weights_by_head(
    query: Float[Array, "B L H K"], keys: Float[Array, "B E G K"], bias: Float32[Array, "#B #H L E"]
) -> Float32[Array, "B H L E"]:
    """`attention_weights` of each query head for keys with G heads, which divides H; the scale K^-1/2 is applied."""
    (batch, length, heads, width), groups = query.shape, keys.shape[2]
    scaled = jnp.moveaxis(query * jnp.asarray(width**-0.5, query.dtype), 1, 2)
    shape = (batch, groups, heads // groups, length)
    grouped = jnp.broadcast_to(bias, (batch, heads, *bias.shape[2:])).reshape(*shape, bias.shape[3])
    weights = attention_weights(scaled.reshape(*shape, width), jnp.moveaxis(keys, 1, 2), grouped)
    return weights.reshape(batch, heads, length, bias.shape[3])


def attend(
    query: Float[Array, "*b R Q K"],
    keys: Float[Array, "*b E K"],
    values: Float[Array, "*b E K"],
    bias: Float32[Array, "*#b #R #Q E"],
    sink: Float32[Array, "*b R Q"] | None = None,
) -> Float[Array, "*b R Q K"]:
    """r = sum_e w_e v_e, with the weights w of `attention_weights`."""
    return attend_with_lse(query, keys, values, bias, sink)[0]


def attend_with_lse(
    query: Float[Array, "*b R Q K"],
    keys: Float[Array, "*b E K"],
    values: Float[Array, "*b E K"],
    bias: Float32[Array, "*#b #R #Q E"],
    sink: Float32[Array, "*b R Q"] | None = None,
) -> tuple[Float[Array, "*b R Q K"], Float32[Array, "*b R Q"]]:
    """`attend`, and the log-sum-exp of the logits, with which `joint_softmax` merges two reads.

    lse = log(exp(sink) + sum_e exp(l_e));    `MASKED` if there is neither a visible entry nor a sink
    """
    weights, total, highest = _softmax_parts(query, keys, bias, sink)
    summed = jnp.einsum("...rqe,...ek->...rqk", weights.astype(values.dtype), values)
    out = summed / total[..., None].astype(values.dtype)  # dividing [Q, K] is cheaper than dividing [Q, E]
    return out, jnp.where(highest > FLOOR, highest + jnp.log(total), MASKED)


def attend_one_query(
    query: Float[Array, "B G R 1 K"],
    keys: Any,
    values: Any,
    bias: Float32[Array, "B #G #R 1 E"],
    sink: Float32[Array, "B G R 1"] | None = None,
) -> tuple[Float[Array, "B G R 1 K"], Float32[Array, "B G R 1"]]:
    """`attend_with_lse` of one token to entries in the order in which states store them.

    On a single CPU device, whose decoding time is that of reading memory, each row reads the smallest of E, E / 2,
    E / 4, ... consecutive entries that holds all that its token sees. So places without an entry take no time, and a
    row does not depend on what other rows see.

    Args:
        keys, values: Float[Array, "B E G K"], or its `Int8Vectors`.
        query, bias, sink: as in `attend_with_lse`.
    """
    size, on_cpu = bias.shape[-1], jax.default_backend() == "cpu" and is_single_device()
    sizes = [-(-size // part) for part in PARTS if size // part >= FEWEST]
    if not on_cpu or len(sizes) < 2:
        return _attend_stored(query, (keys, values), bias, sink, on_cpu)
    seen, lengths = jnp.any(bias > FLOOR, axis=(1, 2, 3)), jnp.array(sizes, jnp.int32)
    first, behind = jnp.argmax(seen, axis=1), size - jnp.argmax(seen[:, ::-1], axis=1)
    span = jnp.where(jnp.any(seen, axis=1), behind - first, 0)
    chosen = jnp.sum(span[:, None] <= lengths[None], axis=1, dtype=jnp.int32) - 1
    start = jnp.minimum(first, size - lengths[chosen]).astype(jnp.int32)

    def of_row(arguments: Any) -> tuple[Array, Array]:
        row, start, chosen, inputs = arguments

        def read(number: int) -> tuple[Array, Array]:
            def some(x: Array) -> Array:
                return jax.lax.dynamic_slice(x, (row, start, *[0] * (x.ndim - 2)), (1, number, *x.shape[2:]))

            query, bias, sink = jax.tree.map(lambda x: x[None], inputs)
            bias = jax.lax.dynamic_slice_in_dim(bias, start, number, axis=-1)
            return _attend_stored(query, jax.tree.map(some, (keys, values)), bias, sink, on_cpu)

        found = jax.lax.switch(chosen, [partial(read, number) for number in sizes])
        return jax.tree.map(lambda x: x[0], found)

    rows = jnp.arange(len(query), dtype=jnp.int32)
    return jax.lax.map(of_row, (rows, start, chosen, (query, bias, sink)))


def _attend_stored(query: Array, entries: Any, bias: Array, sink: Array | None, on_cpu: bool) -> tuple[Array, Array]:
    """`attend_one_query` of all entries.

    A CPU copies transposed keys and values to multiply them. It does not if the query of each head is widened by zeros
    to [G K]: one product then takes all G heads at once, with G times the multiplications.
    """
    batch, groups, heads, _, width = query.shape
    keys, values = as_floats(entries, query.dtype)
    if not on_cpu or groups == 1 or groups * heads >= FEW_QUERIES:
        return attend_with_lse(query, keys.swapaxes(1, 2), values.swapaxes(1, 2), bias, sink)
    own = jnp.eye(groups, dtype=bool)[None, :, None, :, None]
    wide = jnp.where(own, query, 0).reshape(batch, groups * heads, 1, groups * width)
    keys, values = (x.reshape(batch, -1, groups * width) for x in (keys, values))
    bias = jnp.broadcast_to(bias, (*query.shape[:4], bias.shape[-1])).reshape(batch, groups * heads, 1, -1)
    sink = None if sink is None else sink.reshape(batch, groups * heads, 1)
    out, lse = attend_with_lse(wide, keys, values, bias, sink)
    out = jnp.sum(jnp.where(own, out.reshape(batch, groups, heads, groups, width), 0), axis=3)
    return out[..., None, :], lse.reshape(batch, groups, heads, 1)


def null_logits(query: Float[Array, "*b G R Q K"], null_key: Float[Array, "G K"]) -> Float32[Array, "*b G R Q"]:
    """q . k_null per query head, float32: the logit of an entry that is always visible and has the value 0."""
    return jnp.einsum("...grqk,gk->...grq", query, null_key.astype(query.dtype), preferred_element_type=jnp.float32)


def _softmax_parts(query: Array, keys: Array, bias: Array, sink: Array | None):
    """The softmax before the division, in float32: exp(l_e - highest), its sum over e and the sink, and highest."""
    if query.shape[-3] * query.shape[-2] < FEW_QUERIES:
        logits = jnp.einsum("...ek,...rqk->...erq", keys, query, preferred_element_type=jnp.float32)
        logits = jnp.moveaxis(logits, -3, -1) + bias
    else:
        logits = jnp.einsum("...rqk,...ek->...rqe", query, keys, preferred_element_type=jnp.float32) + bias
    highest = jnp.max(logits, axis=-1, initial=FLOOR)
    if sink is not None:
        highest = jnp.maximum(highest, sink)
    highest = jax.lax.stop_gradient(highest)
    weights = jnp.exp(logits - highest[..., None])
    total = jnp.sum(weights, axis=-1)
    if sink is not None:
        total = total + jnp.exp(sink - highest)
    return weights, jnp.where(total > 0, total, 1), highest  # total is 0 or at least 1; where keeps gradients finite


def masked_bias(visible: Bool[Array, "*s"]) -> Float32[Array, "*s"]:
    """0 where visible, `MASKED` elsewhere."""
    return jnp.where(visible, jnp.float32(0), jnp.float32(MASKED))
