"""The kernel's read of all segments equals the portable one: through a memory, with all that follows from it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.memory.base import Segment
from memgpt_jax.ops.memory import ReadableEntries, SeenEntries, SegmentReads, read_segments
from tests.laws.memories import SEGMENT, WIDTH, build

SMALL = {"memory_size": 9, "num_heads": 2, "head_dim": 4}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"bptt_segments": 1, "recency_bias": True}, marks=pytest.mark.slow),
        {"evict": "lowest_gate", "select": "highest_gate", "select_size": 3, "null_entry": False},
    ],
    ids=["oldest", "lowest_gate"],
)
def test_reads_states_and_gradients_are_those_of_the_portable_form(options):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 2, 5, SEGMENT, WIDTH)).astype(np.float32)  # two calls: the second begins with old entries
    reset = rng.random(x.shape[:-1]) < 0.05

    def run(implementation):
        graph, params = build(KVMemoryConfig(**SMALL, **options, read_implementation=implementation))

        @jax.jit
        def gradients(params, x):
            def loss(params, x):
                memory = nnx.merge(graph, params)
                call = lambda state, inputs: memory.sequence(Segment(*inputs), state)[::-1]  # noqa: E731
                everywhere = jnp.ones(reset.shape, bool)
                full = jnp.ones(reset.shape[:-1], bool)
                state, read = jax.lax.scan(call, memory.initial_state(2), (x, reset, everywhere, everywhere, full))
                return jnp.sum(jnp.sin(memory.project_out(read)) * jnp.cos(x)), (read, state)

            return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

        return gradients(params, x)

    def close(a, b):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1, np.max(np.abs(b))))

    jax.tree.map(close, run("interpret"), run("portable"))


@pytest.mark.parametrize("field", [{"initial_entries": 2}, {"visibility": "token"}, {"evict": "least_read"}])
def test_a_memory_that_kernels_do_not_know_is_refused(field):
    config = KVMemoryConfig(**field)
    assert config.read_implementation == "auto"
    with pytest.raises(ValueError, match="read_implementation='pallas' needs initial_entries=0"):
        dataclasses.replace(config, read_implementation="pallas")


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")  # from JAX 0.12 on
@pytest.mark.skipif(jax.default_backend() == "cpu", reason="needs a GPU or a TPU")
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-4), ("bfloat16", 0.05)])
def test_on_an_accelerator(dtype, tolerance):
    """The kernels as they run there: reads and gradients of a memory of ordinary size."""
    rng = np.random.default_rng(1)
    batch, segments, length, size, heads, width = 2, 6, 128, 512, 2, 64
    number = size + segments * length
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)  # noqa: E731
    query = normal(batch, segments, length, heads, width) * jnp.asarray(0.2, dtype)
    keys, values = normal(batch, number, heads, width), normal(batch, number, heads, width)
    bias = jnp.asarray(rng.normal(size=(batch, number)), jnp.float32)
    place = (jnp.arange(segments) * length)[:, None] + jnp.arange(size)[None, :]
    place = jnp.broadcast_to(place, (batch, segments, size)).astype(jnp.int32)
    age = (size + jnp.arange(segments)[:, None] * length - place - 1) // length + 1
    seen = SeenEntries(place, place >= 100, age.astype(jnp.int32))
    after_reset = jnp.asarray(rng.random((batch, segments, length)) < 0.1)
    null_key, recency = normal(heads, width), jnp.ones(heads, jnp.float32)

    def loss(arrays, implementation):
        query, keys, values, bias, null_key, recency = arrays
        entries = ReadableEntries(keys, values, bias)
        reads = SegmentReads(query, entries, seen, after_reset, null_key=null_key, recency=recency)
        out = read_segments(reads, bptt_segments=3, contiguous=True, implementation=implementation)
        return jnp.mean(out.astype(jnp.float32) ** 2) * out.size**0.5, out

    arrays = (query, keys, values, bias, null_key, recency)
    with jax.default_matmul_precision("highest"):
        run = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
        ours, portable = (run(arrays, implementation) for implementation in ("pallas", "portable"))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a.astype(jnp.float32), b.astype(jnp.float32), atol=tolerance * float(jnp.max(jnp.abs(b)))
        ),
        ours,
        portable,
    )
