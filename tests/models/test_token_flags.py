"""Packed rows and attention masks of other libraries give what their documents give one at a time."""

import jax
import numpy as np
import pytest

from memgpt_jax.models.token_flags import flags_from_segment_ids
from tests.laws.models import built, tiny


def test_flags_of_packed_rows():
    flags = flags_from_segment_ids(np.array([[1, 1, 2, 2, 0], [7, 3, 3, 7, 7]]))
    assert np.asarray(flags.reset).tolist() == [[1, 0, 1, 0, 0], [1, 1, 0, 1, 0]]
    assert np.asarray(flags.valid).tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    mask = flags_from_segment_ids(np.array([[True, True, False], [False, False, False]]))
    assert np.asarray(mask.reset).tolist() == [[1, 0, 0], [0, 0, 0]]
    assert np.asarray(mask.valid).tolist() == [[1, 1, 0], [0, 0, 0]]
    traced = jax.jit(flags_from_segment_ids)(np.array([[1, 1, 2, 2, 0]]))
    assert [np.asarray(x).tolist() for x in traced] == [np.asarray(x).tolist()[:1] for x in flags]


def test_documents_of_a_packed_row_do_not_see_each_other():
    model = built(tiny())
    tokens = np.random.default_rng(0).integers(model.config.vocab_size, size=(2, 11)).astype(np.int32)
    ids = np.array([[4] * 5 + [9] * 6, [1] * 6 + [2] * 3 + [0] * 2])
    packed, _ = model(tokens, None, *flags_from_segment_ids(ids))
    for row, number in ((0, 4), (0, 9), (1, 1), (1, 2)):
        same = ids[row] == number
        changed = tokens.copy()
        changed[row, ~same] = (changed[row, ~same] + 1) % model.config.vocab_size
        others, _ = model(changed, None, *flags_from_segment_ids(ids))
        np.testing.assert_array_equal(packed[row, same], others[row, same])
    alone, _ = model(tokens[:, :5])
    np.testing.assert_allclose(packed[0, :5], alone[0], atol=1e-4)
    assert np.abs(packed[0, 5:] - model(tokens)[0][0, 5:]).max() > 1e-2  # else the flags would do nothing


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([[1, 1], [0, 1]]), r"rows \[1\] have padding \(0\) in front of tokens: pad on the right"),
        (np.zeros((1, 2)), r"must be integers or bools \[B, L\], got float64\[1, 2\]"),
        (np.zeros(3, int), r"must be integers or bools \[B, L\], got int64\[3\]"),
        ([[1, 1]], r"must be integers or bools \[B, L\], got a list"),
    ],
)
def test_bad_ids_are_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        flags_from_segment_ids(ids)
