"""Passages: whole sentences of a text, all of them once, and the nearest by BM25."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memgpt_jax.data.text.bm25 import bm25_scores
from memgpt_jax.data.text.passages import joined, nearest_passages, original_place, passages

pytest.importorskip("sentencex", reason="the extra `tasks` is not installed")
pytest.importorskip("bm25s", reason="the extra `tasks` is not installed")

STORY = "Ada went to Rome. She saw a lion there.\nTom stayed. Eva slept all day in a bed.\n\nBob sailed to Lima. End."
words = st.text(alphabet=st.sampled_from("abé😀\u0301."), min_size=1, max_size=5)
texts = st.lists(words, min_size=1, max_size=40).flatmap(
    lambda found: st.lists(st.sampled_from([" ", ". ", "\n", "\n\n"]), min_size=len(found), max_size=len(found)).map(
        lambda ends: "".join(word + end for word, end in zip(found, ends, strict=True))
    )
)


def test_passages_are_whole_sentences_with_at_most_so_many_words():
    found = [STORY[start:end] for start, end in passages(STORY, 8)]
    assert found == [
        "Ada went to Rome.",
        "She saw a lion there.\nTom stayed.",
        "Eva slept all day in a bed.",
        "Bob sailed to Lima. End.",
    ]
    assert [STORY[start:end] for start, end in passages(STORY, 1)][-2:] == ["Bob sailed to Lima.", "End."]
    assert passages(" \n ", 8) == []


@given(text=texts, size=st.integers(1, 9))
def test_no_word_is_lost_and_none_is_read_twice(text, size):
    spans = passages(text, size)
    assert "".join("".join(text[start:end].split()) for start, end in spans) == "".join(text.split())
    assert all(first[1] <= second[0] for first, second in pairwise(spans))
    read = joined(text, spans)
    for place, character in enumerate(read):
        if not character.isspace():
            assert text[original_place(place, spans)] == character


def test_the_nearest_are_those_of_bm25_in_the_order_of_the_text():
    questions = ["Who sailed, and who saw a lion?", "Where did Eva sleep?", "xyz"]
    spans = passages(STORY, 8)
    scores = bm25_scores(questions, [STORY[start:end] for start, end in spans])
    found = nearest_passages(STORY, questions, 2, 8)
    for row, of_question in zip(scores[:2], found, strict=False):
        assert of_question == sorted(of_question) and {spans.index(span) for span in of_question} == {
            *np.argsort(-row, kind="stable")[:2]
        }
    assert [STORY[start:end] for start, end in found[0]] == [
        "She saw a lion there.\nTom stayed.",
        "Bob sailed to Lima. End.",
    ]
    assert found[2] == spans[:2]  # no word is shared: the first
    assert nearest_passages(STORY, ["Eva"], 99, 8) == [spans]
    with pytest.raises(ValueError, match="language must be None or one of"):
        nearest_passages(STORY, ["Eva"], 1, 8, "klingon")


def test_a_place_after_the_last_passage_is_refused():
    with pytest.raises(ValueError, match="after the last passage"):
        original_place(99, [(0, 4)])
