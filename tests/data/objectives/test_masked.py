"""Masked tokens, pairs of sentences and hidden spans: their distributions, and the tokens that are never masked."""

import itertools

import numpy as np
import pytest

from memgpt_jax.config.experiment import TrainingConfig
from memgpt_jax.data import ByteTokenizer, documents, make_tokenizer, train_batches
from memgpt_jax.data.batches import added_ids
from memgpt_jax.data.objectives.masked import mask_tokens
from memgpt_jax.data.objectives.next_sentence import Windows, sentence_pairs
from memgpt_jax.data.objectives.span_corruption import SENTINELS, sentinel_ids
from memgpt_jax.data.objectives.special_ids import SpecialIds, special_ids
from tests.references.tokenizers import make

V, MASK = 100, 100
SPECIAL = SpecialIds(mask=257, cls=258, sep=259)
ORDINARY = np.arange(V + 1) % 10 != 9  # 90 of them; the last id, the mask, is one
ORDINARY[MASK] = False
TEXTS = ["".join(chr(97 + document) + chr(65 + place) for place in range(26)) for document in range(5)]
# Documents of 52 bytes, each of which is found at one place.


def hide(seed, rate=0.15):
    tokens = np.random.default_rng(0).integers(V, size=(500, 400))
    return tokens, *mask_tokens(np.random.default_rng(seed), tokens, text_ids=ORDINARY, mask_id=MASK, rate=rate)


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_fractions_of_masked_kept_and_replaced_tokens(rate):
    tokens, seen, weights = hide(1, rate)
    assert seen.dtype == np.int32 and weights.dtype == np.float32 and set(np.unique(weights)) == {0.0, 1.0}
    chosen, ordinary = weights == 1, ORDINARY[tokens]
    assert not chosen[~ordinary].any()
    np.testing.assert_array_equal(seen[~chosen], tokens[~chosen])

    def close(found, share, number):
        return abs(found - share) < 5 * np.sqrt(share * (1 - share) / number)

    assert close(chosen[ordinary].mean(), rate, ordinary.sum())
    number = chosen.sum()
    assert close((seen[chosen] == MASK).mean(), 0.8, number)
    assert close((seen[chosen] == tokens[chosen]).mean(), 0.1 + 0.1 / 90, number)
    other = chosen & (seen != MASK) & (seen != tokens)
    counts = np.bincount(seen[other], minlength=V + 1)
    assert not counts[~ORDINARY].any() and close(counts[ORDINARY] / counts.sum(), 1 / 90, counts.sum()).all()
    # Whether a token is chosen says nothing of its neighbour.
    both = ordinary[:, 1:] & ordinary[:, :-1]
    assert close((chosen[:, 1:] & chosen[:, :-1])[both].mean(), rate**2, both.sum())


def test_the_seed_determines_the_masked_tokens():
    (_, seen, weights), (_, again, same), (_, other, _) = hide(1), hide(1), hide(2)
    np.testing.assert_array_equal(seen, again)
    np.testing.assert_array_equal(weights, same)
    assert (seen != other).any()


@pytest.fixture
def windows(folder_config):
    config = folder_config({"train": [*TEXTS, "short"]})
    return Windows(documents(config, "train", ByteTokenizer()), 20)


def test_pairs_are_two_parts_of_a_window_or_of_windows_of_two_documents(windows):
    tokens, types, labels = sentence_pairs(np.random.default_rng(0), windows, 4000, SPECIAL)
    assert tokens.shape == types.shape == (4000, 23)
    assert tokens.dtype == types.dtype == labels.dtype == np.int32
    followed, cuts, begins = 0, [], []
    for row, kinds, label in zip(tokens, types, labels, strict=True):
        first, last = np.flatnonzero(row == SPECIAL.sep)
        assert row[0] == SPECIAL.cls and last == 22
        assert (kinds[: first + 1] == 0).all() and (kinds[first + 1 :] == 1).all()
        a, b = bytes(row[1:first].tolist()).decode(), bytes(row[first + 1 : last].tolist()).decode()
        (home,) = (index for index, text in enumerate(TEXTS) if a in text)
        (away,) = (index for index, text in enumerate(TEXTS) if b in text)
        assert (home == away) == (a + b in TEXTS[home]) == (label == 0)
        followed += label == 0
        cuts.append(len(a))
        begins.append((TEXTS[home].index(a), away, TEXTS[away].index(b) - len(a)))
    assert abs(followed - 2000) < 160
    assert set(cuts) == set(range(5, 16))
    begins = np.array(begins)
    assert set(begins[:, 0]) == set(begins[:, 2]) == set(range(33))  # every window of a document
    assert all(abs((begins[labels == label, 1] == away).mean() - 0.2) < 0.05 for label in (0, 1) for away in range(5))


def test_pairs_need_two_documents(folder_config):
    config = folder_config({"train": [TEXTS[0], *map(str, range(9))]})
    with pytest.raises(ValueError, match=r"two documents of at least 20 tokens; found 1: .*sequence_length"):
        Windows(documents(config, "train", ByteTokenizer()), 20)


class Marked:
    """A tokenizer with two of the special tokens."""

    vocab_size, special_ids = 50, {"mask": 3, "sep": 4}


def test_special_ids_are_the_tokenizers_own_or_follow_its_vocabulary(folder_config):
    config = folder_config(objective="masked")
    assert special_ids(ByteTokenizer()) == SPECIAL and added_ids(config, ByteTokenizer()) == 3
    assert special_ids(Marked()) == SpecialIds(mask=3, cls=51, sep=4) and added_ids(config, Marked()) == 2
    assert added_ids(folder_config(), ByteTokenizer()) == 0
    assert added_ids(folder_config(objective="permutation"), ByteTokenizer()) == 0
    assert added_ids(folder_config(objective="span_corruption"), ByteTokenizer()) == SENTINELS


@pytest.mark.parametrize("kind", ["unigram", "pieces, T5", "byte", "pieces, normalised"])
def test_sentinels_are_the_tokenizers_own_or_follow_its_vocabulary(folder_config, kind):
    """Four tokenizers: a tokenizer.json and a spiece.model with sentinels, and two without."""
    tokenizer, config = make(kind), folder_config({"train": TEXTS}, objective="span_corruption")
    own = kind in ("unigram", "pieces, T5")
    expected = [tokenizer.vocab_size - 1 - number + (0 if own else 100) for number in range(100)]
    assert sentinel_ids(tokenizer).tolist() == expected
    if own:
        assert list(tokenizer.sentinel_ids) == expected and tokenizer.token_bytes[expected].sum() == 0
    assert added_ids(config, tokenizer) == (0 if own else 100)
    for batch in itertools.islice(train_batches(config, SHAPE, 0, tokenizer), 3):
        for source, target in zip(batch.inputs["source"].tolist(), batch.targets["tokens"].tolist(), strict=True):
            found = [token for token in target if token in expected]
            assert found == expected[: len(found)] and len(found) > 1 and target[-1] == found[-1]
            assert [token for token in source if token in expected] == found[:-1]


ENCODERS = ["masked", "next_sentence", "masked_next_sentence"]
SHAPE = TrainingConfig(batch_size=3, sequence_length=24)


@pytest.mark.parametrize("objective", ENCODERS)
def test_batches_of_an_objective_of_encoders(folder_config, objective):
    config = folder_config({"train": TEXTS}, objective=objective)
    batches, heads = train_batches(config, SHAPE, 0), {"masked", "next_sentence"}
    heads = heads if objective == "masked_next_sentence" else {objective}
    for batch in (next(batches) for _ in range(20)):
        tokens = batch.inputs["tokens"]
        assert batch.targets.keys() == batch.weights.keys() == heads and not batch.info
        targets = batch.targets.get("masked", tokens)
        hidden = batch.weights.get("masked", np.zeros(tokens.shape)) > 0
        if "next_sentence" in objective:
            label, weights = batch.targets["next_sentence"], batch.weights["next_sentence"]
            assert label.shape == weights.shape == (3,) and set(label) <= {0, 1}
            assert batch.inputs["token_types"].shape == tokens.shape
            assert batch.inputs["reset"][:, 0].all() and not batch.inputs["reset"][:, 1:].any()
            assert (targets[:, 0] == SPECIAL.cls).all()
            expected = 1.0 if objective == "next_sentence" else hidden.sum() / 3
            np.testing.assert_allclose(weights, expected, rtol=1e-6)
        else:
            np.testing.assert_array_equal(batch.inputs["reset"], targets == ByteTokenizer.start_id)
        assert hidden.any() == (objective != "next_sentence")
        assert (targets[hidden] < 256).all()
        np.testing.assert_array_equal(tokens[~hidden], targets[~hidden])


@pytest.mark.parametrize("objective", ["masked", "permutation"])
def test_masked_rows_are_the_rows_of_the_causal_objective(folder_config, objective):
    causal, other = (
        train_batches(folder_config({"train": TEXTS}, objective=name), SHAPE, 0) for name in ("causal", objective)
    )
    for _ in range(5):
        (targets,) = next(other).targets.values()
        np.testing.assert_array_equal(targets, next(causal).inputs["tokens"])


def test_a_permuted_row_is_whole_and_a_sixth_of_its_text_is_scored(folder_config):
    batches = train_batches(folder_config({"train": TEXTS}, objective="permutation"), SHAPE, 0)
    for batch in (next(batches) for _ in range(20)):
        tokens, order = batch.inputs["tokens"], batch.inputs["order"]
        np.testing.assert_array_equal(tokens, batch.targets["tokens"])
        assert ((order > 0).sum(axis=1) == 4).all()
        begins = tokens == ByteTokenizer.start_id
        np.testing.assert_array_equal(batch.inputs["reset"], begins)
        np.testing.assert_array_equal(batch.weights["tokens"] > 0, (order > 0) & ~begins)


def test_source_and_target_together_are_the_row_of_the_causal_objective(folder_config):
    """Also: documents begin in a source where they begin in the row, or at the sentinel that hides this place."""
    first, hidden_begins = 257 + SENTINELS - 1, 0
    causal, spans = (
        train_batches(folder_config({"train": TEXTS}, objective=name), SHAPE, 0)
        for name in ("causal", "span_corruption")
    )
    for _ in range(40):
        batch, expected = next(spans), next(causal)
        assert (batch.inputs["tokens"][:, 0] == ByteTokenizer.start_id).all() and (batch.weights["tokens"] == 1).all()
        np.testing.assert_array_equal(batch.inputs["tokens"][:, 1:], batch.targets["tokens"][:, :-1])
        assert batch.inputs["reset"][:, 0].all() and not batch.inputs["reset"][:, 1:].any()
        for row in range(3):
            pieces = {}
            for token in batch.targets["tokens"][row].tolist():
                if token >= 257:
                    pieces[token] = piece = []
                else:
                    piece.append(token)
            found = [pieces.get(token, [token]) for token in batch.inputs["source"][row].tolist()]
            assert list(pieces) == [first, first - 1] and pieces[first - 1] == []
            assert list(itertools.chain.from_iterable(found)) == expected.inputs["tokens"][row].tolist()
            begins = [ByteTokenizer.start_id in piece for piece in found]
            assert begins == batch.inputs["source_reset"][row].tolist()
            hidden_begins += sum(begin and len(piece) > 1 for begin, piece in zip(begins, found, strict=True))
    assert hidden_begins > 0


def test_another_rate_is_another_stream(folder_config):
    state = train_batches(folder_config({"train": TEXTS}, objective="masked"), SHAPE, 0).get_state()
    with pytest.raises(ValueError, match="belongs to other data"):
        train_batches(folder_config(objective="masked", mask_rate=0.3), SHAPE, 0).set_state(state)


def test_bpe_masks_neither_document_starts_nor_unknown_tokens(folder_config):
    texts = ["one two three four five six\n" * 20] * 3
    config = folder_config({"train": texts}, tokenizer="bpe", tokenizer_vocab_size=300, objective="masked")
    batches, tokenizer = (
        train_batches(config, TrainingConfig(batch_size=8, sequence_length=64), 0),
        make_tokenizer(config),
    )
    for batch in (next(batches) for _ in range(5)):
        assert not batch.weights["masked"][batch.targets["masked"] == tokenizer.start_id].any()
        assert set(batch.inputs["tokens"][batch.inputs["tokens"] >= 300]) == {300}
