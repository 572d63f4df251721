"""Paraphrases by two translators."""

import re

import pytest

import memgpt_jax as mg

GERMAN = {"a dog runs": "ein Hund läuft", "a film": "ein Film", "hm": " ", "a fine  film": "ein guter Film"}
ENGLISH = {"ein Hund läuft": "a dog is running", "ein Film": "a  film", "ein guter Film": "a good film"}


def there(texts):
    return [GERMAN[text] for text in texts]


def back(texts):
    return [{"translation_text": ENGLISH[text]} for text in texts]  # as pipelines do


def test_paraphrases_name_their_original_and_differ_from_it():
    texts = ["a dog runs", "a film", "hm", "", "a fine  film", "a dog runs"]
    found = mg.data.back_translate(texts, there, back)
    assert found == [(0, "a dog is running"), (4, "a good film"), (5, "a dog is running")]
    assert found[1].original == 4 and found[1].text == "a good film"


def test_translators_are_called_once_and_not_for_nothing():
    calls = []

    def same(texts):
        calls.append(texts)
        return texts

    assert mg.data.back_translate(["a b", "c"], same, same) == [] and calls == [["a b", "c"]] * 2
    assert mg.data.back_translate(["", " "], same, same) == [] and len(calls) == 2


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (["a"], "there gave 1 translations of 2 texts"),
        (["a", 3], "there must give a text, or a dictionary with one text, for each text; got 3"),
        ([{"a": "b", "c": "d"}, "a"], "got {'a': 'b', 'c': 'd'}"),
        ([[{"translation_text": "b"}], "a"], "got [{'translation_text': 'b'}]"),
    ],
)
def test_translators_that_do_not_fit(results, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        mg.data.back_translate(["a", "b"], lambda texts: results, back)
