"""The kernels against plain loops and against dense JAX: values and every gradient, for GPUs and for TPUs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from memgpt_jax.ops.attention import Interval, Recency, attend, default_blocks, interval_attention
from memgpt_jax.ops.attention.dense import MASKED
from memgpt_jax.ops.attention.kernels import Blocks
from tests.references import ops as reference

BATCH, LENGTH, ENTRIES, HEADS, KV_HEADS, WIDTH = 2, 21, 29, 4, 2, 6  # no multiple of any block


class Arrays(NamedTuple):
    """All that gets gradients."""

    query: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    bias: np.ndarray
    sink: np.ndarray
    slope: np.ndarray


def blocks(platform):
    return Blocks(platform, 16, 8, interpret=True), Blocks(platform, 8, 16, interpret=True)


def inputs(seed=0):
    """Arrays with gradients, the queries' times, and `Interval` with the time at which each entry was written."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    arrays = Arrays(
        normal(BATCH, LENGTH, HEADS, WIDTH),
        normal(BATCH, ENTRIES, KV_HEADS, WIDTH),
        normal(BATCH, ENTRIES, KV_HEADS, WIDTH),
        normal(BATCH, ENTRIES),
        normal(BATCH, LENGTH, HEADS),
        rng.random(HEADS).astype(np.float32),
    )
    time = np.sort(rng.integers(0, 9, (BATCH, LENGTH)), axis=1).astype(np.int32)
    time[0, 4] = time[1, -3:] = -1  # these see nothing
    first = np.sort(rng.integers(0, 10, (BATCH, ENTRIES)), axis=1).astype(np.int32)
    last = (first + rng.integers(-1, 5, (BATCH, ENTRIES))).astype(np.int32)  # -1: never seen
    return arrays, *map(in_jax, (time, Interval(first, last, first + 1), first - 2))


def in_jax(tree):
    return jax.tree.map(jnp.asarray, tree)


def dense(query, keys, values, bias, sink, slope, time, interval, written):
    """The same by one dense softmax, with the entries copied for every query to cut gradients."""
    time = time[:, :, None]
    first, last, last_gradient = (x[:, None, :] for x in interval)
    visible = (first <= time) & (time <= last)
    cut = lambda x: jnp.where(  # noqa: E731
        (time <= last_gradient).reshape(visible.shape + (1,) * (x.ndim - 2)),
        x[:, None],
        jax.lax.stop_gradient(x[:, None]),
    )
    log_age = jnp.log1p(jnp.maximum(time - written[:, None, :], 0).astype(jnp.float32))
    logits_bias = jnp.where(visible, cut(bias), MASKED)[:, :, None] - slope[None, None, :, None] * log_age[:, :, None]
    group = lambda x: x.reshape(BATCH, LENGTH, KV_HEADS, HEADS // KV_HEADS, 1, -1)  # noqa: E731
    out = attend(
        group(query), cut(keys).swapaxes(2, 3), cut(values).swapaxes(2, 3), group(logits_bias), group(sink)[..., 0]
    )
    return out.reshape(query.shape)


def by_kernel(platform, *, recency=True):
    def run(query, keys, values, bias, sink, slope, time, interval, written):
        fading = Recency(slope, written) if recency else None
        return interval_attention(
            query, keys, values, time, interval, blocks(platform), bias=bias, sink=sink, recency=fading
        )

    return run


@pytest.mark.parametrize("recency", [False, True])
@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_values_and_gradients_equal_those_of_the_dense_form(platform, recency):
    arrays, *rest = inputs()
    if not recency:
        arrays = arrays._replace(slope=np.zeros(HEADS, np.float32))
    weights = np.random.default_rng(1).normal(size=arrays.query.shape).astype(np.float32)

    def gradients_and_value(function):
        def loss(arrays):
            out = function(*arrays, *rest)
            return jnp.sum(jnp.sin(out) * weights), out

        return jax.jit(jax.grad(loss, has_aux=True))(arrays)

    gradients, out = gradients_and_value(by_kernel(platform, recency=recency))
    expected_gradients, expected = gradients_and_value(dense)
    np.testing.assert_allclose(out, expected, atol=3e-6)
    for name in Arrays._fields if recency else Arrays._fields[:-1]:
        gradient = getattr(gradients, name)
        np.testing.assert_allclose(gradient, getattr(expected_gradients, name), atol=1e-5, err_msg=name)
        assert np.max(np.abs(gradient)) > 0.1, name


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_values_equal_loops(platform):
    arrays, time, interval, written = inputs(2)
    arrays.bias[0, 3] = -1e30  # as good as closed
    out = np.asarray(jax.jit(by_kernel(platform))(*arrays, time, interval, written))
    time, interval, written = jax.device_get((time, interval, written))
    for b, t, h in np.ndindex(BATCH, LENGTH, HEADS):
        g, now = h // (HEADS // KV_HEADS), time[b, t]
        seen = [e for e in range(ENTRIES) if 0 <= interval.first[b, e] <= now <= interval.last[b, e]]
        keys, values, bias = arrays.keys[b, :, g], arrays.values[b, :, g], arrays.bias[b]
        entries = [(keys[e], values[e], bias[e], now - written[b, e]) for e in seen]
        sink = (np.zeros(WIDTH), np.zeros(WIDTH), arrays.sink[b, t, h], 0)  # an entry of its own, worth nothing
        expected, _ = reference.read_one(arrays.query[b, t, h], [*entries, sink], recency=arrays.slope[h])
        np.testing.assert_allclose(out[b, t, h], expected, atol=3e-6)


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_without_a_sink_who_sees_nothing_reads_zero_and_has_no_gradient(platform):
    arrays, time, interval, _ = inputs(3)
    query, keys, values = in_jax(arrays[:3])
    run = lambda query: interval_attention(query, keys, values, time, interval, blocks(platform))  # noqa: E731
    out, back = jax.jit(lambda query: (lambda out, vjp: (out, vjp(out)[0]))(*jax.vjp(run, query)))(query)
    blind = time < 0
    for x in (out, back):
        assert np.all(np.asarray(x)[blind] == 0) and np.all(np.isfinite(x)) and np.max(np.abs(x)) > 0.1


def test_bfloat16_keeps_its_type_and_a_float32_softmax():
    arrays, *rest = inputs(4)
    half = Arrays(*(jnp.asarray(x, jnp.bfloat16) for x in arrays[:3]), *arrays[3:])
    exact = Arrays(*(jnp.asarray(x, jnp.float32) for x in half))

    def gradients_and_value(function, arrays):
        def loss(arrays):
            out = function(*arrays, *rest)
            return jnp.sum(out.astype(jnp.float32) ** 2), out

        return jax.jit(jax.grad(loss, has_aux=True))(arrays)

    gradients, out = gradients_and_value(by_kernel("gpu"), half)
    assert out.dtype == gradients.keys.dtype == jnp.bfloat16 and gradients.bias.dtype == jnp.float32
    exact_gradients, expected = gradients_and_value(dense, exact)
    np.testing.assert_allclose(out.astype(jnp.float32), expected, atol=0.02)
    for gradient, exact_gradient in zip(gradients, exact_gradients, strict=True):
        np.testing.assert_allclose(gradient.astype(jnp.float32), exact_gradient, atol=0.1)


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")  # from JAX 0.12 on
@pytest.mark.parametrize(
    "platform, target, call, device",
    [("gpu", "cuda", "triton", "NVIDIA H100"), ("tpu", "tpu", "tpu_custom_call", "TPU v5 lite")],
    ids=["gpu", "tpu"],
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_all_three_kernels_compile_to_the_platforms_own_language(platform, target, call, device, dtype):
    arrays, time, interval, written = inputs()
    arrays = Arrays(*(jnp.asarray(x, dtype) for x in arrays[:3]), *arrays[3:])

    def loss(arrays):
        out = interval_attention(
            *arrays[:3],
            time,
            interval,
            default_blocks(dtype, platform=platform),
            bias=arrays.bias,
            sink=arrays.sink,
            recency=Recency(arrays.slope, written),
        )
        return jnp.sum(out.astype(jnp.float32))

    there = AbstractMesh((), (), abstract_device=AbstractDevice(device, num_cores=1, platform=platform))
    with jax.sharding.use_abstract_mesh(there):
        lowered = jax.jit(jax.grad(loss)).trace(arrays).lower(lowering_platforms=(target,)).as_text()
    calls = [line for line in lowered.splitlines() if "custom_call @" in line and call in line]
    assert len(calls) == 3
