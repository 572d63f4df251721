"""Prompts are read in pieces of few lengths: the state and the logits are those of one call."""

import jax
import numpy as np
import pytest

from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.generation import prefill as module
from memgpt_jax.generation.prefill import piece_sizes, prefill
from tests.laws.memories import difference
from tests.laws.models import built, state_difference, tiny

SEGMENT = 128
MEMORY = KVMemoryConfig(memory_size=40, num_heads=2, head_dim=4, initial_entries=2, visibility="token")
CONFIG = tiny(MEMORY, segment_length=SEGMENT)


def test_sizes():
    assert piece_sizes(CONFIG, 1024) == [1, 32, 128, 256, 512, 1024]
    assert piece_sizes(CONFIG, 400) == [1, 32, 128, 256, 384]
    assert piece_sizes(tiny(segment_length=1024), 1) == [1, 64, 256, 1024]
    assert piece_sizes(tiny(), 10) == [1, 4, 8]


@pytest.mark.parametrize(
    "before, lengths, expected",
    [
        (0, (20, 5), [(32, "mid_segment")]),  # of a new document
        (0, (20, 0), [(32, "any")]),  # a row without a token keeps its state
        (3, (20, 1), [(32, "mid_segment")]),
        (3, (1, 0), [(1, "mid_segment")]),
        (100, (28, 27), [(32, "any")]),  # one segment is full
        (0, (128, 128), [(128, "aligned")]),
        (3, (100, 128), [(128, "any")]),
    ],
)
def test_a_piece_is_as_short_as_its_tokens_allow(before, lengths, expected, monkeypatch):
    model, pieces, read = built(CONFIG), [], module.compiled_read

    def spy(config, alignment, params, tokens, *others):
        pieces.append((tokens.shape[1], alignment))
        return read(config, alignment, params, tokens, *others)

    monkeypatch.setattr(module, "compiled_read", spy)
    rng = np.random.default_rng(before)
    tokens = rng.integers(0, CONFIG.vocab_size, (2, 256)).astype(np.int32)
    state = (
        model(tokens[:, :128], valid=np.arange(128)[None] < np.array([[before]] * 2))[1] if before else model.fresh()
    )
    given = jax.tree.map(np.array, state)
    prompts = [row[:length] for row, length in zip(tokens[:, 128:], lengths, strict=True)]
    logits, after = prefill(CONFIG, model.params, prompts, state)
    assert pieces == expected
    jax.tree.map(np.testing.assert_array_equal, given, state)

    valid = np.arange(128)[None] < np.array(lengths)[:, None]
    whole, whole_state = model(tokens[:, 128:], state, valid=valid)
    assert state_difference(whole_state, after) < 1e-5
    for row, length in enumerate(lengths):
        wanted = whole[row, length - 1] if length else np.zeros(CONFIG.vocab_size)
        assert difference(wanted, logits[row]) < 1e-5


def test_without_a_memory_there_is_one_program_for_each_length(monkeypatch):
    config, alignments = tiny(NoMemoryConfig(), segment_length=SEGMENT), set()
    monkeypatch.setattr(module, "compiled_read", lambda config, alignment, *others: (alignments.add(alignment), None))
    state = built(config).fresh(1)
    for length in (1, 20, 128, 200):
        list(module.prefill_pieces(config, {}, [np.zeros(length, np.int32)], state, 1024))
    assert alignments == {"any"}
