"""The text of an answer is what its ids decode to, whatever the tokenizer, the ids and the prompt."""

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from memgpt_jax.data.tokenizers.files import unfinished
from memgpt_jax.generation.text import CONTEXT, AnswerText
from tests.references.tokenizers import KINDS, TEXTS, make

QUICK = [Phase.explicit, Phase.generate]  # looking for a smaller counterexample takes minutes
NUMBERS = st.integers(0, 1 << 30)


class OnlyDecodes:
    """A tokenizer of somebody else: it has what `AnswerText` needs and nothing more."""

    def __init__(self, tokenizer):
        self.vocab_size, self.decode = tokenizer.vocab_size, tokenizer.decode


@st.composite
def any_ids(draw, tokenizer) -> list[int]:
    """Those of texts, special ones, ids that do not exist, and the bytes of characters, whole or not."""
    special = [tokenizer.start_id, *tokenizer.stop_ids, tokenizer.vocab_size, tokenizer.vocab_size + 1]
    bytes_ = [i for i in range(tokenizer.vocab_size) if tokenizer.unfinished_bytes([i])]
    parts = [TEXTS.map(tokenizer.encode), NUMBERS.map(lambda n: [n % (tokenizer.vocab_size + 3)])]
    parts += [
        st.sampled_from(special).map(lambda token: [token]),
        st.sampled_from(special).map(lambda i: [i] * CONTEXT),
    ]
    parts += [st.sampled_from(bytes_).map(lambda token: [token])] if bytes_ else []
    parts += [st.sampled_from("é€🙂").map(tokenizer.encode).map(lambda ids: ids[:-1])]
    return [token for part in draw(st.lists(st.one_of(parts), max_size=10)) for token in part]


def whole_text(tokenizer, prompt: list[int], ids: list[int]) -> tuple[str, str]:
    """The answer decoded at once, and the U+FFFD at its end that may be a character that is not whole."""
    text = tokenizer.decode(prompt + ids)[len(tokenizer.decode(prompt)) :]
    held = min(3, len(text) - len(text.rstrip("\ufffd"))) if tokenizer.unfinished_bytes(ids) else 0
    return text[: len(text) - held], text[len(text) - held :]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(phases=QUICK)
def test_pieces_add_up_to_the_decoded_answer(kind, data):
    tokenizer = make(kind)
    prompt = data.draw(st.one_of(TEXTS.map(tokenizer.encode), st.just([tokenizer.start_id]), any_ids(tokenizer)))
    prompt = prompt if not tokenizer.unfinished_bytes(prompt) else []
    ids = data.draw(any_ids(tokenizer))
    text, left_out = whole_text(tokenizer, prompt, ids)
    answer = AnswerText(tokenizer, prompt)
    pieces = "".join([*map(answer.push, ids), answer.rest()])
    assert pieces == answer.text
    assert (text + left_out).startswith(pieces) and (pieces == text) >= (not left_out) and len(pieces) >= len(text)

    other = AnswerText(OnlyDecodes(tokenizer), prompt)
    pieces = "".join([*map(other.push, ids), other.rest()])
    whole = text + left_out
    assert whole.startswith(pieces) and set(whole.removeprefix(pieces)) <= {"\ufffd"}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(phases=QUICK)
def test_a_stop_text_ends_the_answer_at_its_first_occurrence(kind, data):
    tokenizer = make(kind)
    ids = data.draw(any_ids(tokenizer))
    text, _ = whole_text(tokenizer, [tokenizer.start_id], ids)
    start = data.draw(st.integers(0, max(0, len(text) - 1)))
    stop = text[start : start + data.draw(st.integers(1, 4))] or "x"
    answer = AnswerText(tokenizer, [tokenizer.start_id], stop_texts=[stop, "never that"])
    pieces = "".join([*map(answer.push, ids), answer.rest()])
    whole = tokenizer.decode([tokenizer.start_id, *ids])
    assert answer.stopped >= (stop in text) and whole.split(stop)[0].startswith(pieces.rstrip("\ufffd"))
    if answer.stopped:
        assert pieces == whole.split(stop)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_of_ids_are_those_of_their_text(kind):
    """Those inside a character, too."""
    tokenizer = make(kind)
    for text in ("é€🙂", "a猫 the"):
        ids = tokenizer.encode(text)
        own = [tokenizer.bytes_of(token) for token in ids]
        if None not in own:
            assert b"".join(own).decode().strip() == tokenizer.decode(ids).strip()
    for token in range(tokenizer.vocab_size):
        if begun := tokenizer.unfinished_bytes([token]):
            assert tokenizer.bytes_of(token).endswith(begun)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_continued_by_another_keeps_its_characters(kind):
    tokenizer = make(kind)
    ids = tokenizer.encode("the é€🙂 猫 the")
    for cut in range(len(ids) + 1):
        first = AnswerText(tokenizer, [tokenizer.start_id])
        begin = "".join(map(first.push, ids[:cut]))
        second = AnswerText(tokenizer, first.context, unfinished=first.unfinished)
        assert begin + "".join(map(second.push, ids[cut:])) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", ["byte", "llama", "pieces, bpe in bytes", "byte level"])
@pytest.mark.parametrize("wrap", [lambda tokenizer: tokenizer, OnlyDecodes])
def test_the_cost_of_a_token_does_not_grow(kind, wrap, monkeypatch):
    """Not with text, nor with bytes that are no character, nor with special ids."""
    tokenizer, longest = make(kind), 0
    broken = next(i for i in range(tokenizer.vocab_size) if tokenizer.unfinished_bytes([i]))
    text = tokenizer.encode("the € theme ") * 20

    view = wrap(tokenizer)
    decode = view.decode

    def measured(ids):
        nonlocal longest
        longest = max(longest, len(ids))
        return decode(ids)

    monkeypatch.setattr(view, "decode", measured)
    for ids in (
        text,
        [broken] * 200,
        [tokenizer.start_id] * 200,
        [*text, *[tokenizer.start_id] * 200, *text],
    ):
        answer = AnswerText(view, [tokenizer.start_id])
        written = "".join([*map(answer.push, ids), answer.rest()])
        whole = decode(ids)
        assert whole.startswith(written) and set(whole.removeprefix(written)) <= {"\ufffd"}
        assert len(whole) - len(written) <= (3 if hasattr(view, "unfinished_bytes") else 40)
    assert longest <= 64


@pytest.mark.parametrize("kind", ["byte", "pieces, plain", "llama, metaspace"])
def test_characters_that_look_broken_are_written_once(kind):
    """U+FFFD of the text itself, among bytes that are no character."""
    tokenizer = make(kind)
    text = "a" + "\ufffd" * 7 + "x"
    ids = tokenizer.encode(text)
    for view in (tokenizer, OnlyDecodes(tokenizer)):
        answer = AnswerText(view, [])
        assert "".join(map(answer.push, ids)) == text


def test_beginnings_of_characters():
    for character in "aé€🙂":
        content = character.encode()
        for length in range(len(content) + 1):
            beginning = content[:length] if length < len(content) else b""
            assert unfinished(content[:length]) == unfinished(b"\x82" + content[:length]) == beginning
    assert unfinished(b"\x80") == unfinished(b"\xff") == unfinished(b"\xed\xa0") == unfinished(b"\xe2a") == b""
