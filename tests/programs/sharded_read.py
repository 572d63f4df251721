"""Reads on devices that split entries, rows and heads: `python sharded_read.py PART...`, in a process of its own."""

import math
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from memgpt_jax import models, parallel
from memgpt_jax.config.experiment import ParallelConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.memory.knn import KNNMemoryConfig
from memgpt_jax.models.memory_layer import MemoryLayer
from memgpt_jax.ops.attention import Interval, Recency, default_blocks, interval_attention
from memgpt_jax.ops.memory import KnowledgeEntries, Source, read_entries

B, Q, M, H, K = 2, 16, 1024, 4, 16


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random numbers of a standard normal distribution."""
    return rng.normal(size=shape).astype(np.float32)


def softmax_over_all() -> None:
    """Reads of all entries merge with two sums over devices."""
    mesh = parallel.make_mesh(ParallelConfig(sequence=8))
    rng = np.random.default_rng(0)
    query, null_key = normal(rng, B, Q, H, K), normal(rng, H, K)
    entries = Source(
        keys=normal(rng, B, M, H, K),
        values=normal(rng, B, M, H, K),
        bias=normal(rng, B, M),
        age=rng.integers(9, size=(B, M)),
        visible=rng.random((B, Q, M)) < 0.9,
    )

    def run(query, entries):
        return read_entries(query, [entries], null_key)

    def split(*axes):
        return NamedSharding(mesh, PartitionSpec(*axes))

    over_entries = Source(*[split(None, "sequence")] * 4, visible=split(None, None, "sequence"))
    expected = jax.jit(run)(query, jax.tree.map(jnp.asarray, entries))
    with jax.set_mesh(mesh):
        whole = split()
        compiled = jax.jit(run, in_shardings=(whole, over_entries), out_shardings=whole).lower(query, entries).compile()
        got = compiled(jax.device_put(query, whole), jax.device_put(entries, over_entries))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    collectives = re.findall(r" (all-reduce|all-gather|all-to-all|collective-permute)(?:-start)?\(", compiled.as_text())
    assert collectives == ["all-reduce"] * 2, collectives


def best_of_all() -> None:
    """Of a store of nearest neighbours only what was found moves."""
    mesh = parallel.make_mesh(ParallelConfig(sequence=8))
    memory = KNNMemoryConfig(memory_size=M, top_k=8, num_heads=2, head_dim=K)
    layer = MemoryLayer(memory, d_model=32, segment_length=Q, rngs=nnx.Rngs(0))
    x = normal(np.random.default_rng(0), B, 4 * Q, 32)

    def filled(x):
        """The state once every place of the ring was written, and some again."""
        pieces = jnp.stack([jnp.roll(x, turn, axis=2) for turn in range(M // (4 * Q) + 1)])
        return jax.lax.scan(lambda state, piece: (layer(piece, state)[1], None), layer.init_state(B), pieces)[0]

    state = jax.jit(filled)(x)

    def run(x, state):
        return layer(x, state), jax.grad(lambda x: jnp.sum(jnp.sin(layer(x, state)[0])))(x)

    expected = jax.jit(run)(x, state)
    split = parallel.state_shardings(state, mesh)
    assert "sequence" in split.memory.ring_keys.spec
    with jax.set_mesh(mesh):
        compiled = jax.jit(run, in_shardings=(parallel.replicated(mesh), split)).lower(x, state).compile()
        got = compiled(jax.device_put(x, parallel.replicated(mesh)), jax.device_put(state, split))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, expected)
    moved = re.findall(r"= \w+\[([\d,]*)\][^=]* (?:all-gather|all-to-all|collective-permute)\(", compiled.as_text())
    largest = max(math.prod(map(int, shape.split(","))) for shape in moved if shape)
    assert largest < B * 2 * M * K / 2, largest


def joined() -> None:
    """Entries in the softmax of self-attention, split over devices by rows, heads and places."""
    memory = KVMemoryConfig(memory_size=16)
    options = {"d_model": 16, "num_layers": 1, "num_heads": 4, "num_kv_heads": 2, "window_size": 8}
    config = ModelConfig(vocab_size=16, segment_length=8, memory=memory, fusion="attention", **options)
    model = models.functional(config)
    params = jax.jit(model.init)(jax.random.key(0))
    tokens = np.random.default_rng(0).integers(16, size=(B, 24), dtype=np.int32)

    def run(params, tokens):
        def loss(params):
            scores, _ = model.score(params, tokens, {"tokens": tokens}, model.init_state(B))
            return jnp.mean(scores["tokens"].losses)

        return jax.value_and_grad(loss)(params)

    expected = jax.jit(run)(params, tokens)
    mesh = parallel.make_mesh(ParallelConfig(data=2, tensor=2, sequence=2))
    split = parallel.parameter_shardings(params, mesh)
    with jax.set_mesh(mesh):
        whole = parallel.replicated(mesh)
        compiled = jax.jit(run, in_shardings=(split, whole))
        got = compiled(jax.device_put(params, split), jax.device_put(tokens, whole))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, expected)


def segments() -> None:
    """Of entries that devices share out, with those that each segment has at once: initial, own, knowledge, null."""
    options = {"null_entry": True, "recency_bias": True, "initial_entries": 3, "bptt_segments": 1, "knowledge_size": 5}
    memory = KVMemoryConfig(memory_size=32, num_heads=2, head_dim=K, visibility="token", **options)
    layer = MemoryLayer(memory, d_model=32, segment_length=Q, rngs=nnx.Rngs(0))
    x = normal(np.random.default_rng(0), B, 4 * Q, 32)
    reset = np.zeros(x.shape[:2], bool)
    reset[0, 20] = True
    structure, params = nnx.split(layer)
    state = layer.init_state(B)
    rng = np.random.default_rng(1)
    keys, values = normal(rng, B, 5, 2, K), normal(rng, B, 5, 2, K)
    source = np.array([[1, 1, 2, 0, 0]] * B, np.int32)  # the last two places are empty
    knowledge = KnowledgeEntries(keys, values, -np.abs(normal(rng, B, 5)), source)
    state = jax.tree.map(jnp.asarray, state._replace(memory=state.memory._replace(knowledge=knowledge)))

    def run(x, params, state):
        def loss(x, params):
            out, after = nnx.merge(structure, params)(x, state, reset, alignment="aligned")
            return jnp.sum(jnp.sin(out)), after

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(x, params)

    expected = jax.jit(run)(x, params, state)
    mesh = parallel.make_mesh(ParallelConfig(data=2, sequence=4))
    split = parallel.state_shardings(state, mesh)
    with jax.set_mesh(mesh):
        whole = parallel.replicated(mesh)
        compiled = jax.jit(run, in_shardings=(whole, whole, split))
        got = compiled(jax.device_put(x, whole), jax.device_put(params, whole), jax.device_put(state, split))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, expected)


def kernels() -> None:
    """On a mesh, each device runs the kernel on its own rows and heads: nothing moves but sums of gradients."""
    mesh = parallel.make_mesh(ParallelConfig(data=2, tensor=2))
    rng = np.random.default_rng(0)
    length, number = 32, 48
    first = rng.integers(0, length, size=(B, number), dtype=np.int32)
    arrays = {"query": normal(rng, B, length, H, K), "bias": normal(rng, B, number), "sink": normal(rng, B, length, H)}
    arrays |= {name: normal(rng, B, number, 2, K) for name in ("keys", "values")}
    arrays["slope"] = np.abs(normal(rng, H))
    time = np.broadcast_to(np.arange(length, dtype=np.int32), (B, length))

    def run(arrays):
        def loss(arrays):
            recency = Recency(arrays["slope"], first - 1)
            rest = {name: arrays[name] for name in ("query", "keys", "values", "bias", "sink")}
            interval = Interval(first, first + 9)
            blocks = default_blocks(jnp.float32, interpret=True)
            out = interval_attention(**rest, time=time, interval=interval, blocks=blocks, recency=recency)
            return jnp.sum(jnp.sin(out)), out

        return jax.grad(loss, has_aux=True)(arrays)

    expected = jax.jit(run)(arrays)
    of_heads, of_row = (PartitionSpec("data", *axes) for axes in ((None, "tensor"), ()))
    specs = dict.fromkeys(("query", "keys", "values", "sink"), of_heads)
    specs |= {"bias": of_row, "slope": PartitionSpec("tensor")}
    split = {name: NamedSharding(mesh, specs[name]) for name in arrays}
    with jax.set_mesh(mesh):
        compiled = jax.jit(run, in_shardings=(split,)).lower(arrays).compile()
        got = compiled(jax.device_put(arrays, split))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, expected)
    assert not re.findall(r" (?:all-gather|all-to-all|collective-permute)(?:-start)?\(", compiled.as_text())


def on_a_mesh_of_somebody_else() -> None:
    """Axes of other names are left to the partitioner: rows stay where they are, and nothing moves."""
    config = ModelConfig(vocab_size=16, d_model=16, num_layers=1, num_heads=2, window_size=16, segment_length=8)
    model = models.functional(config)
    params = jax.jit(model.init)(jax.random.key(0))
    tokens = np.random.default_rng(0).integers(16, size=(4, 16), dtype=np.int32)
    run = jax.jit(lambda params, tokens: model.apply(params, tokens, model.init_state(4))[0])
    expected = run(params, tokens)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        rows = jax.device_put(tokens, NamedSharding(mesh, PartitionSpec("batch")))
        compiled = run.lower(params, rows).compile()
        np.testing.assert_allclose(compiled(params, rows), expected, rtol=1e-5, atol=1e-5)
    assert not re.findall(r" (?:all-gather|all-to-all|collective-permute)(?:-start)?\(", compiled.as_text())


def main() -> None:
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_disable_most_optimizations", True)  # most of the time is compiling
    parts = softmax_over_all, best_of_all, segments, kernels, joined, on_a_mesh_of_somebody_else
    for part in parts:
        if part.__name__ in sys.argv[1:]:
            part()


if __name__ == "__main__":
    main()
