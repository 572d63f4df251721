"""Texts in, texts out: streamed, stopped, and with characters whole."""

import numpy as np
import pytest

from memgpt_jax.data import ByteTokenizer
from memgpt_jax.generation import Session, generate, stream_generate
from memgpt_jax.generation.text import AnswerText

OPTIONS = {"tokenizer": ByteTokenizer(), "max_new_tokens": 24, "temperature": 1.0}


def pushed(answer: AnswerText, text: str) -> list[str]:
    return [answer.push(token) for token in text.encode()]


def test_a_text_begins_a_document_and_comes_back_with_its_answer(tiny):
    text = generate(tiny.model, "hällo", **OPTIONS).texts[0]
    start = [256, *"hällo".encode()]
    new = generate(tiny.model, [start], max_new_tokens=24, temperature=1.0).ids[0, len(start) :]
    assert text.startswith("hällo")
    whole = tiny.tokenizer.decode(new.tolist())
    assert whole.startswith(text.removeprefix("hällo"))
    assert whole.removeprefix(text.removeprefix("hällo")) in ("", *("\N{REPLACEMENT CHARACTER}" * n for n in (1, 2, 3)))


@pytest.mark.slow
def test_several_texts_and_answers(tiny):
    prompts = ["one", "three"]
    texts = generate(tiny.model, prompts, num_return_sequences=2, **OPTIONS).texts
    assert [text.startswith(prompts[i // 2]) for i, text in enumerate(texts)] == [True] * 4
    assert generate(tiny.model, ["one"], **OPTIONS).texts == generate(tiny.model, "one", **OPTIONS).texts
    assert len(generate(tiny.model, "one", num_return_sequences=2, **OPTIONS).texts) == 2
    [text] = generate(tiny.model, "one", tokenizer=OPTIONS["tokenizer"], max_new_tokens=4, num_beams=2).texts
    assert text.startswith("one")


def test_prompts_of_ids_have_texts_with_a_tokenizer(tiny):
    prompts = [[256, *b"one"], [256, *b"three"]]
    expected = generate(tiny.model, ["one", "three"], **OPTIONS)
    got = generate(tiny.model, prompts, **OPTIONS)
    assert got.texts == expected.texts and got.ids.tolist() == expected.ids.tolist()
    assert generate(tiny.model, prompts, max_new_tokens=2).texts is None
    stop = got.texts[1].removeprefix("three")[2:4]
    shorter = generate(tiny.model, prompts, stop=stop, **OPTIONS)
    assert shorter.texts == generate(tiny.model, ["one", "three"], stop=stop, **OPTIONS).texts != expected.texts


def test_the_stream_is_the_text(tiny):
    for seed in range(3):
        text = generate(tiny.model, "hällo", seed=seed, **OPTIONS).texts[0]
        pieces = stream_generate(tiny.model, "hällo", seed=seed, **OPTIONS)
        assert "hällo" + "".join(piece.texts[0] for piece in pieces) == text


def test_streamed_texts_of_several_rows(tiny):
    options = OPTIONS | {"num_return_sequences": 2, "stop": ["a", "e"]}
    expected = generate(tiny.model, ["one", "three"], **options)
    pieces = [*stream_generate(tiny.model, ["one", "three"], **options)]
    texts = ["".join(texts) for texts in zip(*(piece.texts for piece in pieces), strict=True)]
    assert [before + text for before, text in zip(["one"] * 2 + ["three"] * 2, texts, strict=True)] == expected.texts
    new = np.concatenate([piece.ids for piece in pieces], axis=1)
    lengths = np.array([4, 4, 6, 6]) + (new >= 0).sum(axis=1)  # with the token that begins the document
    np.testing.assert_array_equal(lengths, expected.lengths)


def test_streamed_ids(tiny):
    prompts = [[1, 2, 3], [4, 5]]
    columns = [piece.ids for piece in stream_generate(tiny.model, prompts, max_new_tokens=5)]
    assert [column.shape for column in columns] == [(2, 1)] * 5
    expected = generate(tiny.model, prompts, max_new_tokens=5).ids
    assert [c[0, 0] for c in columns] == expected[0, 3:8].tolist()
    assert [c[1, 0] for c in columns] == expected[1, 2:7].tolist()


def test_a_stop_text_ends_the_answer(tiny):
    text = generate(tiny.model, "hällo", **OPTIONS).texts[0]
    answer = text.removeprefix("hällo")
    stop = answer[len(answer) // 2 :][:2]
    shorter = "hällo" + answer[: answer.index(stop)]
    assert generate(tiny.model, "hällo", stop=["never", stop], **OPTIONS).texts[0] == shorter
    pieces = stream_generate(tiny.model, "hällo", stop=stop, **OPTIONS)
    assert "hällo" + "".join(piece.texts[0] for piece in pieces) == shorter


def test_a_stop_id_ends_the_answer_and_is_no_part_of_its_text(tiny):
    answer = generate(tiny.model, "hällo", **OPTIONS).texts[0].removeprefix("hällo")
    stop = next(character for character in answer if character.isascii())
    text = generate(tiny.model, "hällo", stop=ord(stop), **OPTIONS).texts[0]
    assert text == "hällo" + answer[: answer.index(stop)]


def test_ids_without_text(tiny):
    """A model may have more ids than its tokenizer, not fewer."""

    small, large = ByteTokenizer(), ByteTokenizer()
    small.vocab_size, large.vocab_size = 200, 300
    options = {"max_new_tokens": 30, "temperature": 9.0}
    assert isinstance(generate(tiny.model, "a", tokenizer=small, **options).texts[0], str)
    for use in (lambda: generate(tiny.model, "a", tokenizer=large, **options), lambda: Session(tiny.model, large)):
        with pytest.raises(ValueError, match="the tokenizer has 300 ids, the model's vocab_size is 257"):
            use()


def test_characters_come_out_whole():
    assert pushed(AnswerText(ByteTokenizer(), []), "aé€😀b") == [*"a", "", "é", "", "", "€", "", "", "", "😀", "b"]


def test_a_character_may_begin_before_the_answer():
    first = AnswerText(ByteTokenizer(), [])
    first.push(0xE2)
    second = AnswerText(ByteTokenizer(), first.context, unfinished=first.unfinished)
    assert [second.push(0x82), second.push(0xAC)] == ["", "€"]


def test_bytes_that_are_no_character_do_not_hold_up_the_text():
    answer = AnswerText(ByteTokenizer(), [])
    assert "".join(answer.push(token) for token in [0x61, 0xFF, 0x62]) == "a\N{REPLACEMENT CHARACTER}b"
    answer = AnswerText(ByteTokenizer(), [])
    assert "".join(answer.push(0x80) for _ in range(4)) == 4 * "\N{REPLACEMENT CHARACTER}"


def test_what_may_become_a_stop_text_is_held_back():
    answer = AnswerText(ByteTokenizer(), [], stop_texts=["\n\n", "END"])
    assert pushed(answer, "a\nbEN") == ["a", "", "\nb", "", ""]
    assert answer.rest() == "EN" and answer.text == "a\nbEN"
    answer = AnswerText(ByteTokenizer(), [], stop_texts=["END"])
    assert "".join(pushed(answer, "xENDy")) == "x" and answer.stopped and answer.rest() == ""


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("a", {"stop": ""}, "empty text"),
        ("a", {"stop": "x", "num_beams": 2, "temperature": None}, "at ids only"),
    ],
)
def test_bad_input_is_refused_by_name(tiny, prompt, options, message):
    with pytest.raises(ValueError, match=message):
        generate(tiny.model, prompt, **OPTIONS | options)


def test_a_long_stop_text_costs_no_more_than_the_text_that_is_held_back():
    stop = "b" * 3_000_000
    answer = AnswerText(ByteTokenizer(), [256], stop_texts=[stop])
    assert pushed(answer, "aabbabb") == ["a", "a", "", "", "bba", "", ""] and answer.rest() == "bb"
