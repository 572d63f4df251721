"""Laws that every tokenizer must satisfy."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from memgpt_jax.data import read_tokenizer
from tests.references.tokenizers import AWKWARD, KINDS, LOSSLESS, TEXTS, make

every_kind = pytest.mark.parametrize("kind", KINDS)


def special_ids(tokenizer) -> set[int]:
    """The ids to which no text may be encoded."""
    named = {tokenizer.start_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, *tokenizer.stop_ids}
    named |= {*tokenizer.special_ids.values(), *tokenizer.sentinel_ids}
    if hasattr(tokenizer, "tokenizer"):
        library = tokenizer.tokenizer
        named |= {i for i, token in library.get_added_tokens_decoder().items() if token.special}
        named -= {library.token_to_id(text) for text in ("<unk>", "[UNK]")}
    elif hasattr(tokenizer, "processor"):
        named |= {i for i in range(tokenizer.processor.vocab_size()) if tokenizer.processor.is_control(i)}
    return named - {None}


@every_kind
@given(text=TEXTS)
@settings(max_examples=30, phases=[Phase.explicit, Phase.generate])
def test_lossless_tokenizers_round_trip_and_no_text_gives_special_ids(kind, text):
    tokenizer = make(kind)
    ids = tokenizer.encode(text)
    assert not special_ids(tokenizer) & set(ids)
    assert all(0 <= token < tokenizer.vocab_size for token in ids)
    if tokenizer.lossless:
        assert tokenizer.decode(ids) == text
        assert tokenizer.token_bytes[np.array(ids, np.int32)].sum() == len(text.encode())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if hasattr(make(kind), "tokenizer")])
@given(text=TEXTS)
@settings(max_examples=30, phases=[Phase.explicit, Phase.generate])
def test_ordinary_ids_equal_those_of_the_library(kind, text):
    tokenizer = make(kind)
    expected = tokenizer.tokenizer.encode(text, add_special_tokens=False).ids
    if not special_ids(tokenizer) & set(expected):
        assert tokenizer.encode(text) == expected
    text = tokenizer.decode(expected)
    if "\ufffd" not in text:
        assert text == tokenizer.tokenizer.decode(expected, skip_special_tokens=True)


@every_kind
def test_which_tokenizers_are_lossless(kind):
    """For each tokenizer that is not lossless, there is a text that does not round-trip."""
    tokenizer = make(kind)
    assert tokenizer.lossless == (kind in LOSSLESS)
    texts = [*AWKWARD, *(f"a{text} b" for text in AWKWARD), "<é>", "a  <t>"]
    lost = [text for text in texts if tokenizer.decode(tokenizer.encode(text)) != text]
    assert tokenizer.lossless == (not lost)


@every_kind
def test_special_ids_have_no_bytes_and_no_text(kind):
    tokenizer = make(kind)
    special = sorted(special_ids(tokenizer))
    assert tokenizer.start_id in special
    assert not tokenizer.token_bytes[special].any() and tokenizer.decode(special) == ""
    assert tokenizer.token_bytes.shape == (tokenizer.vocab_size,) and tokenizer.token_bytes.dtype == np.int32


@every_kind
def test_unknown_ids_are_ignored(kind):
    tokenizer = make(kind)
    ids = tokenizer.encode("the theme")
    more = [-1, *ids, tokenizer.vocab_size, 2**40]
    assert tokenizer.decode(more) == tokenizer.decode(ids) == tokenizer.decode(np.array(ids, np.int32))


@every_kind
@pytest.mark.parametrize("text", ["\ud800", "abc\udfffx"])
def test_lone_surrogates_are_refused_by_name(kind, text):
    with pytest.raises(ValueError, match=f"lone surrogate U\\+{ord(max(text)):04X} at character"):
        make(kind).encode(text)


@every_kind
def test_a_saved_tokenizer_round_trips(kind, tmp_path):
    tokenizer = make(kind)
    tokenizer.save(tmp_path)
    again = read_tokenizer(tmp_path)
    names = ("vocab_size", "start_id", "bos_id", "eos_id", "pad_id", "stop_ids", "lossless", "special_ids")
    for name in (*names, "sentinel_ids", "fingerprint"):
        assert getattr(again, name) == getattr(tokenizer, name), name
    text = "".join(AWKWARD)
    assert again.encode(text) == tokenizer.encode(text)
    np.testing.assert_array_equal(again.token_bytes, tokenizer.token_bytes)
    ids = list(range(again.vocab_size))
    assert again.decode(ids) == tokenizer.decode(ids)


@every_kind
@given(ids=st.lists(st.integers(0, 1 << 30), max_size=12))
@settings(max_examples=20)
def test_any_ids_can_be_decoded(kind, ids):
    tokenizer = make(kind)
    assert isinstance(tokenizer.decode([token % (tokenizer.vocab_size + 3) for token in ids]), str)
