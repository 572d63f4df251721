"""Each law checker is seen to fail on a memory with a fault planted in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.memory import Memory, kv, writer_conv
from memgpt_jax.memory import streaming as stream
from memgpt_jax.ops.memory import segments
from tests.laws.memories import (
    SEGMENT,
    WIDTH,
    build,
    by_segment_distance,
    difference,
    influence,
    leaks,
    random_inputs,
    runner,
    sequence_forms,
    state_after,
)

pytestmark = pytest.mark.slow  # tests of the tests
BATCH, LENGTH = 2, 3 * SEGMENT
SMALL = {"memory_size": 7, "num_heads": 2, "head_dim": 4}


def leaks_of(**options):
    graph, params = build(KVMemoryConfig(**SMALL | options))
    x, reset = random_inputs(0, BATCH, LENGTH, breaks=0.0)
    reset[0, 6] = reset[1, 5] = True
    run = runner(graph)
    return leaks(influence(lambda x: run(params, x, reset, jnp.ones(reset.shape, bool), None)[0], x), reset)


@pytest.mark.parametrize("evict", ["oldest", "least_read"])
def test_write_before_read_breaks_causality(evict, monkeypatch):
    if evict == "oldest":  # the parallel form: a segment sees what there is after it
        places = kv.KVMemory._places

        def too_late(self, segments, old, start, new):
            seen, final = places(self, segments, old, start, new)

            def late(x, last):
                return jnp.concatenate([x[:, 1:], last[:, None]], axis=1)

            return jax.tree.map(late, seen, final), final

        monkeypatch.setattr(kv.KVMemory, "_places", too_late)
    else:  # the recurrent form
        read = kv.KVMemory.read

        def late(self, x, state, own_segment, update_mask):
            written = self.write(own_segment.x, state, own_segment.document == own_segment.document[:, -1:])
            return read(self, x, written, own_segment, update_mask)

        monkeypatch.setattr(kv.KVMemory, "read", late)
    assert leaks_of(evict=evict)["causality"] > 1e-4


def test_a_token_that_sees_its_successor_breaks_causality(monkeypatch):
    causal_visibility = segments.causal_visibility
    monkeypatch.setattr(segments, "causal_visibility", lambda document, place: causal_visibility(document, place + 1))
    assert leaks_of(visibility="token")["causality"] > 1e-4


def test_mixed_rows_leak(monkeypatch):
    query = kv.KVMemory.queries
    monkeypatch.setattr(kv.KVMemory, "queries", lambda self, x: query(self, jnp.roll(x, 1, axis=0)))
    assert leaks_of()["rows"] > 1e-4


@pytest.mark.parametrize("evict", ["oldest", "least_read"])
def test_an_ignored_reset_leaks(evict, monkeypatch):
    unaligned = stream._unaligned

    def deaf(memory, x, state, reset, valid):
        return unaligned(memory, x, state, reset & False, valid)

    monkeypatch.setattr(stream, "_unaligned", deaf)
    assert leaks_of(evict=evict)["documents"] > 1e-4


def test_a_convolution_across_documents_leaks(monkeypatch):
    conv = writer_conv.causal_conv
    monkeypatch.setattr(
        writer_conv, "causal_conv", lambda x, document, *rest, **options: conv(x, document * 0, *rest, **options)
    )
    assert leaks_of(visibility="token")["documents"] > 1e-4


def test_a_removed_stop_gradient_is_seen(monkeypatch):
    graph, params = build(KVMemoryConfig(**SMALL | {"memory_size": 12}, bptt_segments=1))
    x, reset = random_inputs(0, 1, LENGTH, breaks=0.0)

    def flow():
        return by_segment_distance(
            influence(lambda x: runner(graph)(params, x, reset, jnp.ones(reset.shape, bool), None)[0], x)
        )

    assert flow()[2] == 0
    make_source = segments.make_source
    monkeypatch.setattr(segments, "make_source", lambda entries, age, *rest: make_source(entries, age * 0, *rest))
    assert flow()[2] > 1e-5


def violation_of_streaming():
    """Largest difference of a call of all tokens and calls of one token."""
    graph, params = build(KVMemoryConfig(**SMALL))
    x, reset = random_inputs(0, BATCH, LENGTH, breaks=0.2)
    valid = np.ones(reset.shape, bool)
    run = runner(graph)
    whole, _ = run(params, x, reset, valid, None)
    state, reads = state_after(nnx.merge(graph, params), BATCH), []
    for t in range(LENGTH):
        read, state = run(params, x[:, [t]], reset[:, [t]], valid[:, [t]], state)
        reads.append(read)
    return difference(whole, np.concatenate(reads, axis=1))


def test_streaming_without_a_fault():
    assert violation_of_streaming() < 1e-5


@pytest.mark.parametrize("fault", ["pending", "start", "conv_cache", "offset"])
def test_streaming_notices_what_decoding_forgets(fault, monkeypatch):
    one_token = stream._one_token

    def forgetful(*args):
        read, state = one_token(*args)
        if fault == "conv_cache":
            memory = state.memory
            return read, state._replace(memory=memory._replace(conv_cache=jnp.zeros_like(memory.conv_cache)))
        return read, state._replace(**{fault: jnp.zeros_like(getattr(state, fault))})

    monkeypatch.setattr(stream, "_one_token", forgetful)
    assert violation_of_streaming() > 1e-3


def test_forms_notice_a_wrong_scan(monkeypatch):
    graph, params = build(KVMemoryConfig(**SMALL))
    x, reset = random_inputs(0, BATCH, LENGTH)
    x, reset = x.reshape(BATCH, 3, SEGMENT, WIDTH), reset.reshape(BATCH, 3, SEGMENT)
    segment = Memory.segment
    monkeypatch.setattr(
        Memory, "segment", lambda self, s, state: segment(self, s._replace(reset=s.reset & False), state)
    )
    parallel, scan, _ = map(jax.jit, sequence_forms(graph))
    assert difference(parallel(params, x, reset), scan(params, x, reset)) > 1e-3
