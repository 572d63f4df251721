"""Texts in, texts out: streamed, stopped, and with characters whole."""

import pytest

from memgpt_jax.data import ByteTokenizer
from memgpt_jax.generation import generate
from memgpt_jax.generation.text import AnswerText

OPTIONS = {"tokenizer": ByteTokenizer(), "max_new_tokens": 24, "temperature": 1.0}


def pushed(answer: AnswerText, text: str) -> list[str]:
    return [answer.push(token) for token in text.encode()]


def test_a_text_begins_a_document_and_comes_back_with_its_answer(tiny):
    text = generate(tiny.model, "hällo", **OPTIONS)
    start = [256, *"hällo".encode()]
    new = generate(tiny.model, [start], max_new_tokens=24, temperature=1.0)[0, len(start) :]
    assert text.startswith("hällo")
    assert text.removeprefix("hällo") == tiny.tokenizer.decode(new.tolist()).rstrip("\N{REPLACEMENT CHARACTER}")


def test_several_texts_and_answers(tiny):
    prompts = ["one", "three"]
    texts = generate(tiny.model, prompts, num_return_sequences=2, **OPTIONS)
    assert [text.startswith(prompts[i // 2]) for i, text in enumerate(texts)] == [True] * 4
    assert isinstance(generate(tiny.model, ["one"], **OPTIONS), list)
    assert len(generate(tiny.model, "one", num_return_sequences=2, **OPTIONS)) == 2
    assert generate(tiny.model, "one", tokenizer=OPTIONS["tokenizer"], max_new_tokens=4, num_beams=2).startswith("one")


def test_the_stream_is_the_text(tiny):
    for seed in range(3):
        text = generate(tiny.model, "hällo", seed=seed, **OPTIONS)
        assert "hällo" + "".join(generate(tiny.model, "hällo", seed=seed, stream=True, **OPTIONS)) == text


def test_streamed_ids(tiny):
    prompts = [[1, 2, 3], [4, 5]]
    columns = [*generate(tiny.model, prompts, max_new_tokens=5, stream=True)]
    assert [column.shape for column in columns] == [(2, 1)] * 5
    expected = generate(tiny.model, prompts, max_new_tokens=5)
    assert [c[0, 0] for c in columns] == expected[0, 3:8].tolist()
    assert [c[1, 0] for c in columns] == expected[1, 2:7].tolist()


def test_a_stop_text_ends_the_answer(tiny):
    text = generate(tiny.model, "hällo", **OPTIONS)
    answer = text.removeprefix("hällo")
    stop = answer[len(answer) // 2 :][:2]
    shorter = "hällo" + answer[: answer.index(stop)]
    assert generate(tiny.model, "hällo", stop=["never", stop], **OPTIONS) == shorter
    assert "hällo" + "".join(generate(tiny.model, "hällo", stop=stop, stream=True, **OPTIONS)) == shorter


def test_characters_come_out_whole():
    assert pushed(AnswerText(ByteTokenizer(), []), "aé€😀b") == [*"a", "", "é", "", "", "€", "", "", "", "😀", "b"]
    assert pushed(AnswerText(ByteTokenizer(), []), "a")[:-1] == []


def test_bytes_that_are_no_character_do_not_hold_up_the_text():
    answer = AnswerText(ByteTokenizer(), [])
    assert "".join(answer.push(token) for token in [0x61, 0xFF, 0x62]) == "a\N{REPLACEMENT CHARACTER}b"


def test_what_may_become_a_stop_text_is_held_back():
    answer = AnswerText(ByteTokenizer(), [], ["\n\n", "END"])
    assert pushed(answer, "a\nbEN") == ["a", "", "\nb", "", ""]
    assert answer.rest() == "EN" and answer.text == "a\nbEN"
    answer = AnswerText(ByteTokenizer(), [], ["END"])
    assert "".join(pushed(answer, "xENDy")) == "x" and answer.stopped and answer.rest() == ""


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        (["a", "b"], {"stream": True}, "one prompt"),
        ("a", {"num_return_sequences": 2, "stream": True}, "one prompt"),
        ("a", {"stop": ""}, "empty text"),
        ("a", {"stop": "x", "num_beams": 2, "temperature": None}, "not at texts"),
    ],
)
def test_bad_input_is_refused_by_name(tiny, prompt, options, message):
    with pytest.raises(ValueError, match=message):
        generate(tiny.model, prompt, **OPTIONS | options)
