"""Linear chains equal a sum over all sequences of tags."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.models.heads.labels import label_scores
from memgpt_jax.ops.crf import Chain, chain_scores, marginals, path_loss, viterbi

CLASSES = 3


def chain_of(rng, scale=1.0):
    shapes = ((CLASSES, CLASSES), (CLASSES,), (CLASSES,))
    return Chain(*(np.float32(scale * rng.normal(size=shape)) for shape in shapes))


def all_paths(emissions, chain):
    """Every sequence of tags of a document, with its probability."""
    paths = list(itertools.product(range(CLASSES), repeat=len(emissions)))
    scores = np.array(
        [
            chain.start[path[0]]
            + chain.end[path[-1]]
            + sum(emissions[t, tag] for t, tag in enumerate(path))
            + sum(chain.transitions[pair] for pair in itertools.pairwise(path))
            for path in paths
        ],
        np.float64,
    )
    return paths, np.exp(scores) / np.exp(scores).sum()


@pytest.mark.parametrize("words", [1, 2, 5])
@pytest.mark.parametrize("seed", range(5))
def test_one_document_equals_the_sum_over_all_paths(words, seed):
    rng = np.random.default_rng(seed)
    emissions, chain = np.float32(rng.normal(size=(words, CLASSES))), chain_of(rng)
    paths, p = all_paths(emissions, chain)
    assert tuple(viterbi(emissions, chain)) == paths[p.argmax()]
    expected = np.zeros((words, CLASSES))
    for path, value in zip(paths, p, strict=True):
        expected[np.arange(words), path] += value
    np.testing.assert_allclose(marginals(emissions, chain), expected, rtol=1e-5)
    tags = rng.integers(CLASSES, size=words)
    assert path_loss(emissions, tags, chain) == pytest.approx(-np.log(p[paths.index(tuple(tags))]), rel=1e-5)


def packed(rng, rows=3, length=14):
    """Rows of documents, of which two tokens in three have a tag, one document has none, and the last is cut off."""
    reset, targets = np.zeros((rows, length), bool), rng.integers(CLASSES, size=(rows, length), dtype=np.int32)
    reset[:, 0] = reset[0, 5] = reset[0, 6] = reset[1, 3] = True
    targets[rng.random((rows, length)) < 1 / 3] = -1
    targets[0, 5] = targets[:, 0] = -1
    return np.float32(rng.normal(size=(rows, length, CLASSES))), targets, reset


def documents(targets, reset):
    """The places of the tagged tokens of each document of each row."""
    for row, (tags, begins) in enumerate(zip(targets, np.cumsum(reset, axis=1), strict=True)):
        for number in np.unique(begins):
            places = np.flatnonzero((begins == number) & (tags >= 0))
            if places.size:
                yield row, places


scored = jax.jit(chain_scores)


@pytest.mark.parametrize("seed", range(3))
def test_packed_documents_equal_documents_alone(seed):
    rng = np.random.default_rng(seed)
    (emissions, targets, reset), chain = packed(rng), chain_of(rng)
    found = scored(emissions, targets, chain, reset)
    seen = np.zeros(targets.shape, bool)
    for row, places in documents(targets, reset):
        here, tags = emissions[row, places], targets[row, places]
        assert found.losses[row, places].sum() == pytest.approx(path_loss(here, tags, chain), rel=1e-4)
        np.testing.assert_array_equal(found.correct[row, places], marginals(here, chain).argmax(axis=1) == tags)
        seen[row, places] = True
    assert not np.any(found.losses[~seen]) and not found.correct[~seen].any() and (found.losses[seen] > 0).all()


def test_each_loss_is_that_of_a_tag_given_the_tags_before():
    rng = np.random.default_rng(0)
    emissions, chain = np.float32(rng.normal(size=(1, 4, CLASSES))), chain_of(rng)
    tags = np.array([[2, 0, 1, 1]], np.int32)
    losses = scored(emissions, tags, chain, np.zeros((1, 4), bool)).losses[0]
    paths, p = all_paths(emissions[0], chain)

    def probability(beginning):
        return sum(value for path, value in zip(paths, p, strict=True) if path[: len(beginning)] == beginning)

    for place in range(4):
        beginning = tuple(tags[0, : place + 1])
        expected = -np.log(probability(beginning) / probability(beginning[:-1]))
        assert losses[place] == pytest.approx(expected, rel=1e-4)


def test_without_transitions_it_is_the_cross_entropy():
    rng = np.random.default_rng(0)
    emissions, targets, reset = packed(rng)
    found, plain = scored(emissions, targets, chain_of(rng, 0.0), reset), label_scores(emissions, targets)
    np.testing.assert_allclose(found.losses, plain.losses, atol=1e-5)
    np.testing.assert_array_equal(found.correct, plain.correct)
    np.testing.assert_allclose(marginals(emissions[0], chain_of(rng, 0.0)), jax.nn.softmax(emissions[0]), rtol=1e-5)


def test_a_document_gets_no_gradient_from_another_and_transitions_get_one():
    rng = np.random.default_rng(1)
    (emissions, targets, reset), chain = map(jnp.asarray, packed(rng)), chain_of(rng)

    def loss(emissions, chain):
        return jnp.sum(chain_scores(emissions, targets, chain, reset).losses[0, 6:])

    of_emissions, of_chain = jax.jit(jax.grad(loss, (0, 1)))(emissions, Chain(*map(jnp.asarray, chain)))
    assert not np.any(of_emissions[1:]) and not np.any(of_emissions[0, :6])
    np.testing.assert_array_equal(np.any(of_emissions[0, 6:] != 0, axis=-1), targets[0, 6:] >= 0)
    assert all(np.any(leaf) for leaf in of_chain)
    # d -ln p / d start = marginal of the first tag - its one-hot
    emissions, targets = np.asarray(emissions), np.asarray(targets)
    places = 6 + np.flatnonzero(targets[0, 6:] >= 0)
    first = marginals(emissions[0, places], chain)[0] - np.eye(CLASSES)[targets[0, places[0]]]
    np.testing.assert_allclose(of_chain.start, first, atol=1e-5)


def test_extremes():
    rng = np.random.default_rng(0)
    chain, emissions = chain_of(rng), np.float32(1e4 * rng.normal(size=(1, 6, CLASSES)))
    best = viterbi(emissions[0], chain)[None].astype(np.int32)
    found = scored(emissions, best, chain, np.zeros((1, 6), bool))
    np.testing.assert_allclose(found.losses, 0, atol=1e-3)
    assert found.correct.all()
    beyond = scored(emissions, np.full((1, 6), CLASSES, np.int32), chain, np.zeros((1, 6), bool))
    assert np.isnan(beyond.losses).all()
    assert viterbi(np.zeros((0, CLASSES)), chain).shape == (0,)
    assert marginals(np.zeros((0, CLASSES)), chain).shape == (0, CLASSES)
