"""Laws that every memory mechanism obeys, as functions that return the size of the violation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from memgpt_jax.memory import Memory, make_memory
from memgpt_jax.memory.base import Segment, whole_segment
from memgpt_jax.memory.streaming import init_stream_state, stream

SEGMENT, WIDTH = 4, 6


def build(config, dtype="float32", segment_length=SEGMENT, jitter=0.3):
    """A memory whose parameters (zeros and constants too) are moved by noise, as training would."""
    memory = make_memory(config, d_model=WIDTH, segment_length=segment_length, dtype=dtype, rngs=nnx.Rngs(0))
    graph, params = nnx.split(memory, nnx.Param)
    rng = np.random.default_rng(1)

    def noise(x):
        return jax.device_put(np.asarray(x) + (jitter * rng.normal(size=x.shape)).astype(x.dtype))

    return graph, jax.tree.map(noise, nnx.to_pure_dict(params))


def reference_run(x, reset, reference_class, *settings):
    """Reads [B, L, D] of a NumPy reference for each row, token by token, and the references after the last token."""
    references = [reference_class(*settings) for _ in x]
    reads = [[r.step(x[b, t], reset[b, t]) for t in range(x.shape[1])] for b, r in enumerate(references)]
    return np.array(reads), references


def state_after(memory, batch, dtype="float32", segment_length=SEGMENT):
    return init_stream_state(memory, batch, segment_length, WIDTH, jnp.dtype(dtype))


def runner(graph, dtype="float32", segment_length=SEGMENT):
    """(params, x, reset, valid, state) -> (reads, state), compiled for each length of a call. State None: fresh."""

    @jax.jit
    def run(params, x, reset, valid, state):
        memory = nnx.merge(graph, params)
        if state is None:
            state = state_after(memory, x.shape[0], dtype, segment_length)
        read, state = stream(memory, x, state, reset, valid)
        return memory.project_out(read), state

    return run


def sequence_forms(graph):
    """The three forms of a memory over whole segments: its own `sequence`, the scan, and a Python loop.

    Each maps (params, x [B, S, T, D], reset [B, S, T]) to (reads, state).
    """

    def start(params, x):
        memory = nnx.merge(graph, params)
        return memory, memory.initial_state(x.shape[0])

    def segments(x, reset):
        everywhere = jnp.ones(reset.shape, bool)
        return Segment(jnp.asarray(x), jnp.asarray(reset), everywhere, everywhere, jnp.ones(reset.shape[:2], bool))

    def parallel(params, x, reset):
        memory, state = start(params, x)
        read, state = memory.sequence(segments(x, reset), state)
        return memory.project_out(read), state

    def scan(params, x, reset):
        memory, state = start(params, x)
        read, state = Memory.sequence(memory, segments(x, reset), state)
        return memory.project_out(read), state

    @jax.jit  # traced once for all segments
    def step(params, x, reset, state):
        return nnx.merge(graph, params).segment(whole_segment(x, reset), state)

    def loop(params, x, reset):
        memory, state = start(params, x)
        reads = []
        for s in range(x.shape[1]):
            read, state = step(params, x[:, s], jnp.asarray(reset[:, s]), state)
            reads.append(read)
        return memory.project_out(jnp.stack(reads, axis=1)), state

    return parallel, scan, loop


def influence(run, x):
    """[B, L, B, L]: the largest derivative of what (b, t) reads by what the token (b', s) was, over channels.

    `run` maps x [B, L, D] to reads [B, L, D].
    """
    mix = jnp.asarray(np.random.default_rng(0).normal(size=x.shape[-1]), jnp.float32)
    jacobian = jax.jit(jax.jacrev(lambda x: jnp.einsum("bld,d->bl", run(x), mix)))(x)
    return np.abs(np.asarray(jacobian)).max(axis=-1)


def forbidden(reset):
    """Where influence [B, L, B, L] must be zero, by reason: later tokens, other rows, other documents."""
    batch, length = reset.shape
    document = np.cumsum(reset, axis=1)
    same_row = np.eye(batch, dtype=bool)[:, None, :, None]
    later = np.arange(length)[None, :, None, None] < np.arange(length)[None, None, None, :]
    other_document = document[:, :, None, None] != document[None, None]
    return {
        "causality": np.broadcast_to(same_row & later, (batch, length) * 2),
        "rows": np.broadcast_to(~same_row, (batch, length) * 2),
        "documents": same_row & other_document,
    }


def leaks(influence, reset):
    """Largest influence where there must be none, by reason. All must be exactly 0."""
    return {reason: float(influence[where].max(initial=0.0)) for reason, where in forbidden(reset).items()}


def by_segment_distance(influence, segment_length=SEGMENT):
    """Largest influence on a token's own row at each distance in segments, 0 being the token's own segment."""
    segment = np.arange(influence.shape[1]) // segment_length
    distance = segment[:, None] - segment[None, :]
    own = np.stack([influence[b, :, b] for b in range(len(influence))])
    return np.array([own[:, distance == d].max(initial=0.0) for d in range(segment[-1] + 1)])


def difference(one, other):
    """Largest difference of two pytrees of the same structure; NaN counts as infinite."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    gaps = [np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)) for a, b in pairs]
    return float(functools.reduce(max, (np.nan_to_num(gap, nan=np.inf).max(initial=0.0) for gap in gaps), 0.0))


def relative_difference(one, other):
    """`difference` with each array in units of its largest value, if that is above 1: float32 rounds as it grows."""
    sizes = jax.tree.map(lambda a: max(1.0, float(np.abs(np.asarray(a, np.float64)).max(initial=0.0))), one)

    def shrink(tree):
        return jax.tree.map(lambda a, size: np.asarray(a, np.float64) / size, tree, sizes)

    return difference(shrink(one), shrink(other))


def random_inputs(seed, batch, length, breaks=0.15, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, length, WIDTH)).astype(dtype), rng.random((batch, length)) < breaks
