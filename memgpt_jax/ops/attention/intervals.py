"""Attention over entries that are each visible for an interval of time, in kernels for GPUs and TPUs.

Two uses: the memory of a whole call, where time counts segments and an entry is visible from the segment after its own
until it is evicted; and a causal sliding window over documents, where time counts tokens. No array of size
[queries, entries] is stored, and no entry is copied for the segments that see it.

The online softmax and its backward pass from stored sums follow FlashAttention-2 (Dao, 2023).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from memgpt_jax.ops.attention.dense import FLOOR, MASKED
from memgpt_jax.ops.attention.kernels import Blocks, Carry, Fold, Platform, sweep
from memgpt_jax.ops.mesh import on_each_device, row_and_head_axes
from memgpt_jax.shapes import Array, Float, Float32, Int32


class Interval(NamedTuple):
    """An entry is visible at times first <= time <= last; never if last < first. Times are at least 0."""

    first: Int32[Array, "B E"]
    last: Int32[Array, "B E"]
    last_gradient: Int32[Array, "B E"] | None = None  # queries after this time give the entry no gradient; None: all do


class Recency(NamedTuple):
    """The recency penalty slope_h log(1 + time - written_e), subtracted from the logits."""

    slope: Float32[Array, "H"]
    written: Int32[Array, "B E"]


def interval_attention(
    query: Float[Array, "B L H K"],
    keys: Float[Array, "B E G K"],
    values: Float[Array, "B E G K"],
    time: Int32[Array, "B L"],
    interval: Interval,
    blocks: tuple[Blocks, Blocks],
    *,
    bias: Float32[Array, "B E"] | None = None,
    sink: Float32[Array, "B L H"] | None = None,
    recency: Recency | None = None,
) -> Float[Array, "B L H K"]:
    """One softmax over the entries that each query sees and a sink: a logit without an entry.

        r_t = sum_e exp(l_te) v_e / (exp(sink_t) + sum_e exp(l_te)),    over e with first_e <= time_t <= last_e
        l_te = q_t . k_e + bias_e - slope_h log(1 + time_t - written_e)

    Queries include the scale. A query that sees no entry and has no sink, or has a negative time, reads 0. A block of
    queries meets only the blocks of entries that overlap it in time, so sorted times are fast. On a mesh each device
    processes its own rows and heads.

    Args:
        blocks: block sizes of the forward and of the backward pass; see `default_blocks`.
    """
    rows, heads = row_and_head_axes(query.shape[0], keys.shape[2])
    of_row: Any = PartitionSpec(rows)  # specs in the places of the arrays
    of_heads: Any = PartitionSpec(rows, None, heads)
    by_heads: Any = PartitionSpec(heads)
    fade = Recency(by_heads, of_row) if recency else None
    specs = _Inputs(of_heads, of_heads, of_heads, of_row, of_row, of_row, of_heads, fade)
    inputs = _Inputs(query, keys, values, time, interval, bias, sink, recency)
    run = partial(_on_one_device, blocks)
    # The outputs of pallas_call do not declare the mesh axes that they vary over: no check.
    return on_each_device(run, (inputs,), (specs,), of_heads, check_vma=False)


class _Inputs(NamedTuple):
    """Arguments of `interval_attention`."""

    query: Float[Array, "B L H K"]
    keys: Float[Array, "B E G K"]
    values: Float[Array, "B E G K"]
    time: Int32[Array, "B L"]
    interval: Interval
    bias: Float32[Array, "B E"] | None
    sink: Float32[Array, "B L H"] | None
    recency: Recency | None


def _on_one_device(blocks: tuple[Blocks, Blocks], inputs: _Inputs):
    query, keys, values, time, interval, bias, sink, recency = inputs
    batch, length, heads, width = query.shape
    kv_heads, number = keys.shape[2], keys.shape[1]
    group = heads // kv_heads
    block = max(max(b.fixed, b.moving) for b in blocks)
    padded_width = max(16, 1 << (width - 1).bit_length()) if blocks[0].platform == "gpu" else width

    def heads_first(x: Array, pad_value: int = 0):
        """[B, L, G, R, ...] -> [B G, L R, ...]: the R heads of a group are R queries of the same time."""
        x = jnp.moveaxis(x, 2, 1).reshape(batch * kv_heads, x.shape[1] * x.shape[3], *x.shape[4:])
        return padded(x, pad_value)

    def padded(x: Array, pad_value: int = 0):
        widths = [(0, 0), (0, -x.shape[1] % block), *((0, padded_width - width) for _ in x.shape[2:])]
        return jnp.pad(x, widths, constant_values=pad_value)

    per_head = (batch, length, kv_heads, group)
    sink = jnp.full(per_head, MASKED, jnp.float32) if sink is None else sink.reshape(per_head)
    bias = jnp.zeros((batch, number), jnp.float32) if bias is None else bias
    slope = written = None
    if recency is not None:
        slope = heads_first(jnp.broadcast_to(recency.slope.reshape(1, 1, kv_heads, group), per_head))
        written = padded(recency.written)
    until = interval.last if interval.last_gradient is None else jnp.minimum(interval.last, interval.last_gradient)
    when = When(
        time=padded(jnp.repeat(time, group, axis=1), -1),
        first=padded(jnp.maximum(interval.first, 0)),
        last=padded(interval.last, -1),
        until=padded(until, -1),
        written=written,
    )
    operands = _Operands(
        heads_first(query.reshape(*per_head, width)),
        heads_first(keys[:, :, :, None]),
        heads_first(values[:, :, :, None]),
        padded(bias),
        heads_first(sink),
        slope,
    )
    out: Array = _attend(blocks, operands, when)
    out = out[:, : length * group, :width].reshape(batch, kv_heads, length, group, width)
    return jnp.moveaxis(out, 1, 2).reshape(query.shape)


def default_blocks(
    dtype: DTypeLike, interpret: bool = False, platform: Platform | None = None
) -> tuple[Blocks, Blocks]:
    """Block sizes of the forward and of the backward pass. platform: None is the platform that this runs on.

    On a GPU, blocks fit the registers and the shared memory of Ampere and later (head widths up to 128 in bfloat16, up
    to 64 in float32). On a TPU they are large, because each step of the grid has a fixed cost.
    """
    platform = platform or ("tpu" if jax.default_backend() == "tpu" else "gpu")
    if platform == "tpu":
        forward = backward = (512, 512)
    elif dtype == jnp.float32:
        forward = backward = (64, 32)
    else:
        forward, backward = (128, 64), (128, 32)
    return Blocks(platform, *forward, interpret), Blocks(platform, *backward, interpret)


class When(NamedTuple):
    """Integers that decide which of Q queries see which of E entries, both padded to whole blocks."""

    time: Int32[Array, "B Q"]
    first: Int32[Array, "B E"]
    last: Int32[Array, "B E"]
    until: Int32[Array, "B E"]  # the last time at which a query gives the entry gradient
    written: Int32[Array, "B E"] | None


class _Operands(NamedTuple):
    """Arrays with gradients, padded to whole blocks; N = B G."""

    query: Float[Array, "N Q K"]
    keys: Float[Array, "N E K"]
    values: Float[Array, "N E K"]
    bias: Float32[Array, "B E"]
    sink: Float32[Array, "N Q"]
    slope: Float32[Array, "N Q"] | None


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(blocks: tuple[Blocks, Blocks], operands: _Operands, when: When) -> Float[Array, "N Q K"]:
    return _forward(blocks, operands, when)[0]


def _forward(blocks: tuple[Blocks, Blocks], operands: _Operands, when: When):
    query, keys, values, bias, sink, slope = operands
    queries = [query, when.time, sink, *_given(slope)]
    entries = [keys, values, bias, when.first, when.last, *_given(when.written)]
    low, high = _range(_meeting(when.time, when.first, when.last, blocks[0].fixed, blocks[0].moving))
    out, log_sum = sweep(READ, queries, entries, low, high, [_like(query), _like(sink)], blocks[0])
    return out, (operands, when, out, log_sum)


def _backward(blocks: tuple[Blocks, Blocks], saved: tuple, d_out: Array):
    (_, backward), (operands, when, out, log_sum) = blocks, saved
    query, keys, values, bias, sink, slope = operands
    delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1)
    queries = [query, d_out, when.time, log_sum, delta, *_given(slope)]

    entries = [keys, values, bias, when.first, when.last, *_given(when.written)]
    low, high = _range(_meeting(when.time, when.first, when.last, backward.fixed, backward.moving))
    outputs = [_like(query), *map(_like, _given(slope))]
    d_query, *d_slope = sweep(GRADIENT_OF_QUERIES, queries, entries, low, high, outputs, backward)

    entries[4] = when.until
    meets = _meeting(when.time, when.first, when.until, backward.moving, backward.fixed)
    low, high = _range(meets.swapaxes(1, 2))
    outputs = [_like(keys), _like(values), jax.ShapeDtypeStruct(keys.shape[:2], jnp.float32)]
    d_keys, d_values, d_bias = sweep(GRADIENT_OF_ENTRIES, entries, queries, low, high, outputs, backward)

    d_bias = jnp.sum(d_bias.reshape(bias.shape[0], -1, bias.shape[1]), axis=1)
    d_sink = -jnp.exp(sink - log_sum) * delta
    return _Operands(d_query, d_keys, d_values, d_bias, d_sink, d_slope[0] if d_slope else None), None


_attend.defvjp(_forward, _backward)


def _given(x: Array | None):
    return [] if x is None else [x]


def _like(x: Array):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _meeting(time: Array, first: Array, last: Array, query_block: int, entry_block: int):
    """[B, query blocks, entry blocks]: True if a query of the one can see an entry of the other."""
    never = jnp.iinfo(jnp.int32).max
    time = time.reshape(time.shape[0], -1, query_block)
    first, last = (x.reshape(x.shape[0], -1, entry_block) for x in (first, last))
    earliest = jnp.min(jnp.where(time >= 0, time, never), axis=2)
    from_time = jnp.min(jnp.where(last >= first, first, never), axis=2)
    until_time = jnp.max(jnp.where(last >= first, last, -1), axis=2)
    starts_before = from_time[:, None, :] <= jnp.max(time, axis=2)[:, :, None]
    return starts_before & (until_time[:, None, :] >= earliest[:, :, None])


def _range(meets: Array):
    """The range [low, high) along the last axis that holds every True; [0, 0) if there is none."""
    some, size = jnp.any(meets, axis=-1), meets.shape[-1]
    low = jnp.argmax(meets, axis=-1)
    high = size - jnp.argmax(jnp.flip(meets, axis=-1), axis=-1)
    return jnp.where(some, low, 0).astype(jnp.int32), jnp.where(some, high, 0).astype(jnp.int32)


# The bodies of the three sweeps. Matrices are [f, K] (fixed) and [m, K] (moving), vectors [f, 1] and [1, m].


def _dot(x: Array, y: Array, axis: int):
    """Contraction of the last axis of x with `axis` of y, in float32."""
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    return jax.lax.dot_general(
        x, y, (((1,), (axis,)), ((), ())), precision=precision, preferred_element_type=jnp.float32
    )


def _logits(
    x: Array, y: Array, *, bias: Array, time: Array, first: Array, last: Array, slope: list[Array], written: list[Array]
):
    """Logits [f, m] of fixed x and moving y, and log(1 + age), or None without recency."""
    logits, log_age = _dot(x, y, 1) + bias, None
    if slope:
        log_age = jnp.log(1 + jnp.maximum(time - written[0], 0).astype(jnp.float32))
        logits = logits - slope[0] * log_age
    return jnp.where((first <= time) & (time <= last), logits, MASKED), log_age


def _read_start(here: list[Array]):
    query, _, sink, *_ = here
    highest = jnp.maximum(sink, FLOOR)
    return highest, jnp.exp(sink - highest), jnp.zeros(query.shape, jnp.float32)


def _read_step(carry: Carry, here: list[Array], there: list[Array]):
    highest, total, summed = carry
    query, time, _, *slope = here
    keys, values, bias, first, last, *written = there
    logits, _ = _logits(query, keys, bias=bias, time=time, first=first, last=last, slope=slope, written=written)
    higher = jnp.maximum(highest, jnp.max(logits, axis=1, keepdims=True))
    weights, shrink = jnp.exp(logits - higher), jnp.exp(highest - higher)
    total = total * shrink + jnp.sum(weights, axis=1, keepdims=True)
    return higher, total, summed * shrink + _dot(weights.astype(values.dtype), values, 0)


def _read_finish(carry: Carry):
    highest, total, summed = carry
    total = jnp.where(total > 0, total, 1)  # 0 if nothing is visible
    return summed / total, highest + jnp.log(total)


def _queries_start(here: list[Array]):
    query, *_, delta = here[:5]
    return jnp.zeros(query.shape, jnp.float32), *(jnp.zeros(delta.shape, jnp.float32) for _ in here[5:])


def _queries_step(carry: Carry, here: list[Array], there: list[Array]):
    query, d_out, time, log_sum, delta, *slope = here
    keys, values, bias, first, last, *written = there
    logits, log_age = _logits(query, keys, bias=bias, time=time, first=first, last=last, slope=slope, written=written)
    d_logits = jnp.exp(logits - log_sum) * (_dot(d_out, values, 1) - delta)
    d_query = carry[0] + _dot(d_logits.astype(keys.dtype), keys, 0)
    if log_age is None:
        return (d_query,)
    return d_query, carry[1] - jnp.sum(d_logits * log_age, axis=1, keepdims=True)


def _entries_start(here: list[Array]):
    keys, values, bias, *_ = here
    return tuple(jnp.zeros(x.shape, jnp.float32) for x in (keys, values, bias))


def _entries_step(carry: Carry, here: list[Array], there: list[Array]):
    d_keys, d_values, d_bias = carry
    keys, values, bias, first, last, *written = here
    query, d_out, time, log_sum, delta, *slope = there
    logits, _ = _logits(keys, query, bias=bias, time=time, first=first, last=last, slope=slope, written=written)
    weights = jnp.exp(logits - log_sum)
    d_logits = weights * (_dot(values, d_out, 1) - delta)
    d_keys = d_keys + _dot(d_logits.astype(query.dtype), query, 0)
    d_values = d_values + _dot(weights.astype(d_out.dtype), d_out, 0)
    return d_keys, d_values, d_bias + jnp.sum(d_logits, axis=1, keepdims=True)


def _identity(carry: Carry):
    return carry


READ = Fold(_read_start, _read_step, _read_finish)
GRADIENT_OF_QUERIES = Fold(_queries_start, _queries_step, _identity)
GRADIENT_OF_ENTRIES = Fold(_entries_start, _entries_step, _identity)
