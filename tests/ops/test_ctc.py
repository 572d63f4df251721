"""CTC against the sum over all paths, and the labels of a path."""

from itertools import product

import jax
import numpy as np
import pytest

from memgpt_jax.ops.ctc import ctc_losses, is_label

BLANK = 2


def labels_of(path):
    """Repeats are merged, then blanks removed."""
    kept = [label for place, label in enumerate(path) if place == 0 or path[place - 1] != label]
    return [label for label in kept if label != BLANK]


@pytest.mark.parametrize("labels", [[], [0], [1, 1], [0, 1, 0]])
def test_the_loss_is_that_of_all_paths(labels):
    logits = np.random.default_rng(len(labels)).normal(size=(1, 6, 3)).astype(np.float32)
    p = np.exp(logits[0] - np.log(np.exp(logits[0]).sum(axis=-1, keepdims=True)))
    total = sum(np.prod(p[range(5), path]) for path in product(range(3), repeat=5) if labels_of(path) == labels)
    padded = np.array([labels + [0] * (4 - len(labels))], np.int32)
    present, valid = np.arange(4)[None] < len(labels), np.arange(6)[None] < 5
    loss = jax.jit(ctc_losses)(logits, valid, padded, present)
    np.testing.assert_allclose(loss, [-np.log(total)], rtol=1e-5)


def test_labels_of_a_path_by_hand():
    paths = np.array([[0, 0, 2, 0, 1, 1], [2, 2, 1, 2, 2, 1], [1, 0, 1, 0, 0, 2]])
    for last in (np.full(3, BLANK), np.array([0, 2, 1])):
        found = [path[mark].tolist() for path, mark in zip(paths, is_label(paths, last, BLANK), strict=True)]
        expected = [labels_of(path) for path in paths.tolist()]
        if last[0] == 0:
            expected = [[0, 1], [1, 1], [0, 1, 0]]  # the first label repeats the last one before
        assert found == expected
