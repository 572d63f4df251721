"""The words of a text, and the places of their tags."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memgpt_jax.data.tasks.tagged_text import encode_words
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.pipelines.token_classification import word_pattern

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cafe\u0301s", ["cafe\u0301s"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940 x", ["\u0939\u093f\u0928\u094d\u0926\u0940", "x"]),
        ("Hi @user, 3.5 #tag!", ["Hi", "@user", ",", "3.5", "#tag", "!"]),
        (f"{FAMILY} ok", [FAMILY, "ok"]),
        ("don't", ["don", "'", "t"]),
    ],
)
def test_words_of_texts(text, words):
    assert word_pattern().findall(text) == words


@given(text=st.text(max_size=60))
@settings(max_examples=200)
def test_every_character_but_spaces_is_in_one_word_at_its_place(text):
    spans = [match.span() for match in word_pattern().finditer(text)]
    assert all(first < last for first, last in spans)
    outside = set(range(len(text))) - {place for span in spans for place in range(*span)}
    assert all(text[place].isspace() for place in outside)


@pytest.mark.parametrize(("words", "first", "last"), [([], [], []), (["ab", "", "c"], [1, 3, 4], [2, 3, 5])])
def test_places_of_the_tags_of_words(words, first, last):
    """Bytes: a start, `ab`, a space, a space with `c`."""
    encoded = encode_words(ByteTokenizer(), words)
    assert encoded.tag_places("last").tolist() == last and encoded.tag_places("first").tolist() == first
