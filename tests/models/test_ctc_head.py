"""The head for transcripts: any cut of a stream, padding, its scores, and what is refused."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memgpt_jax.config.features import FramesConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.generation.transcripts import BestPath, head_outputs, read_features
from memgpt_jax.models import functional
from memgpt_jax.models.heads import CTCHeadConfig
from memgpt_jax.ops.ctc import ctc_losses
from tests.laws.models import random_params

VOCAB, LENGTH, CALL = 4, 12, 4
SIZES = {"vocab_size": VOCAB, "d_model": 8, "num_layers": 1, "num_heads": 2, "d_ff": 12, "segment_length": 3}
MEMORY = KVMemoryConfig(memory_size=6, num_heads=2, head_dim=4)
BACKBONE = ModelConfig(**SIZES, window_size=3, memory=MEMORY, features=FramesConfig(num_mels=3))
CONFIG = HeadedConfig(backbone=BACKBONE, head=CTCHeadConfig())


@pytest.fixture(scope="module")
def params():
    """Without a bias of the logits, so that many labels are heard."""
    found = jax.tree.map(lambda x: 2 * np.asarray(x), random_params(CONFIG))
    return found | {"head": jax.tree.map(lambda x: x * (x.ndim > 1), found["head"])}


def sounds(seed, *lengths):
    rng = np.random.default_rng(seed)
    return [3 * rng.normal(size=(length, 6)).astype(np.float32) for length in lengths]


def test_any_cut_of_a_stream_gives_the_same_transcript(params):
    """Also of two sounds of unequal lengths at once; and each is that of its sound alone."""

    @given(seed=st.integers(0, 2**32 - 1), sizes=st.permutations([1, 1, 2, 4, 4]))
    def law(seed, sizes):
        both = sounds(seed, LENGTH, 7)
        outputs = head_outputs(CONFIG, params, both, rows=2, call=CALL)
        whole = [BestPath(VOCAB).add(x) for _, x in outputs]  # the longest first
        for sound, expected in zip(both, whole, strict=True):
            path, state, start, found = BestPath(VOCAB), functional(CONFIG).init_state(2), 0, []
            for size in sizes:
                part = sound[start : start + size]
                outputs, state = read_features(CONFIG, params, [part], state, CALL, start)
                found.append(list(path.add(outputs[0, : len(part)])))
                start += size
            assert found[-1] == expected
            assert all(later[: len(earlier)] == earlier for earlier, later in itertools.pairwise(found))
            heard.add(tuple(expected))

    heard: set[tuple[int, ...]] = set()
    law()
    assert len(heard) > 5 and max(map(len, heard)) > 4


def test_a_row_is_scored_as_a_whole_and_padding_does_not_count(params):
    model = functional(CONFIG)
    sources = sounds(0, *[8] * 9)
    found = [(sources[index], x) for index, x in head_outputs(CONFIG, params, sources, rows=2, call=8)]
    sound, outputs = max(found, key=lambda pair: len(BestPath(VOCAB).add(pair[1])))
    best = BestPath(VOCAB).add(outputs)
    assert 2 <= len(best) < 8

    @jax.jit
    def score(features, valid, labels):
        tokens = np.zeros(labels.shape, np.int32)
        state = model.init_state(len(tokens))
        found, _ = model.score(params, tokens, {"transcript": labels}, state, valid=valid, features=features)
        return found["transcript"]

    labels = np.full((3, LENGTH), -1, np.int32)
    labels[0, : len(best)] = best
    labels[1, : len(best)] = [(best[0] + 1) % VOCAB, *best[1:]]
    features = np.full((3, LENGTH, 6), np.nan, np.float32)
    features[:, :8] = sound
    valid = np.broadcast_to(np.arange(LENGTH) < 8, (3, LENGTH))
    losses, correct = score(features, valid, labels)
    present = labels[:1] >= 0
    expected = ctc_losses(outputs[None], np.ones((1, 8), bool), np.maximum(labels[:1, :8], 0), present[:, :8])
    np.testing.assert_allclose(losses.sum(axis=1)[0], expected[0], rtol=1e-5)
    assert len(set(np.asarray(losses)[0, : len(best)].tolist())) == 1
    assert losses[1].sum() > losses[0].sum() and not np.any(losses[2]) and np.isfinite(losses).all()
    assert correct[0].tolist() == present[0].tolist()
    assert correct[1].tolist() == [False, *present[0, 1:].tolist()] and not correct[2].any()


def test_what_is_refused(params):
    with pytest.raises(ValueError, match=r"head\.pool must be 'none'"):
        CTCHeadConfig(pool="mean")
    model, tokens = functional(CONFIG), np.zeros((1, 2), np.int32)
    for targets in (np.array([[0, VOCAB]]), np.array([[0, -2]])):
        with pytest.raises(ValueError, match=r"targets\['transcript'\] must be from -1 to 3"):
            model.score(params, tokens, {"transcript": targets}, features=np.zeros((1, 2, 6), np.float32))
