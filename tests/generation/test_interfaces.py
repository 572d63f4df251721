"""`generate`, its stream, batches, ids and sessions give the same answer; and what ends an answer."""

import types

import numpy as np
import pytest

from memgpt_jax import models
from memgpt_jax.data import ByteTokenizer
from memgpt_jax.generation import Session, generate, stream_generate
from memgpt_jax.generation.text import AnswerText
from tests.laws.rereading import ids

TEXT, DOCUMENT = "hällo", 256
TABLE = {
    "greedy": {},
    "penalty": {"repetition_penalty": 3.0},
    "ngrams": {"no_repeat_ngram_size": 2},
    "temperature": {"temperature": 3.0},
    "seed": {"temperature": 3.0, "seed": 7},
    "top_k": {"top_k": 9, "temperature": 9.0},
    "top_p": {"top_p": 0.9, "temperature": 9.0},
    "min_p": {"min_p": 0.01, "temperature": 9.0},
    "all filters": {
        "temperature": 9.0,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 1e-4,
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 1,
        "seed": 3,
    },
    "stop id": {"temperature": 3.0, "stop": ord("e")},
    "stop ids": {"temperature": 3.0, "stop": [ord("e"), ord(" "), 200]},
    "stop text": {"temperature": 3.0, "stop": ["a", "zz"]},
    "one token": {"temperature": 3.0, "max_new_tokens": 1},
    "no end": {"temperature": 3.0, "ignore_eos": True},
}
TABLE = {name: {"max_new_tokens": 24} | options for name, options in TABLE.items()}
CONTAINED = ("greedy", "penalty", "ngrams", "top_k", "top_p", "min_p", "stop id", "one token", "no end")
"""In "all filters", in "stop ids", in every other row, and in rows that do not reach the end."""
ROWS = [pytest.param(row, marks=[pytest.mark.slow] * (name in CONTAINED), id=name) for name, row in TABLE.items()]


@pytest.fixture(scope="module")
def model(tiny):
    """The tiny model, but the end of the document is as probable as any byte."""
    params = dict(tiny.params)
    params["embedding"] = params["embedding"].at[DOCUMENT].multiply(2.0)
    return tiny.config, params


@pytest.mark.parametrize("options", ROWS)
def test_every_interface_gives_the_same_answer(model, options):
    tokenizer = ByteTokenizer()
    expected = generate(model, TEXT, tokenizer=tokenizer, **options).texts[0].removeprefix(TEXT)
    pieces = stream_generate(model, TEXT, tokenizer=tokenizer, **options)
    assert "".join(piece.texts[0] for piece in pieces) == expected
    assert generate(model, TEXT, tokenizer=tokenizer, num_beams=1, **options).texts[0] == TEXT + expected
    if options in (TABLE["greedy"], TABLE["all filters"]):
        assert generate(model, [TEXT, "other"], tokenizer=tokenizer, **options).texts[0] == TEXT + expected
    for pieces, stream in (([TEXT], False), ([TEXT[:2], TEXT[2:]], True)):
        session = Session(model, tokenizer)
        for piece in pieces:
            session.feed(piece)
        answer = "".join(session.stream(**options)) if stream else session.generate(**options)
        assert answer == expected
    if not any(isinstance(stop, str) for stop in np.atleast_1d(np.array(options.get("stop", 0), object))):
        prompt = [DOCUMENT, *TEXT.encode()]
        new = generate(model, [prompt], tokenizer=tokenizer, **options).ids[0, len(prompt) :].tolist()
        pieces = [piece.ids for piece in stream_generate(model, [prompt], tokenizer=tokenizer, **options)]
        columns = np.concatenate(pieces, axis=1)[0]
        assert new == columns.tolist()
        stops = {DOCUMENT, *np.atleast_1d(options.get("stop", DOCUMENT))} - ({DOCUMENT} & {options.get("ignore_eos")})
        ended = new[-1] in stops and not options.get("ignore_eos")
        text = AnswerText(tokenizer, prompt)
        assert "".join(map(text.push, new[:-1] if ended else new)) + text.rest() == expected


def test_the_end_of_the_document_ends_an_answer_unless_it_is_ignored(model):
    options = {"tokenizer": ByteTokenizer(), "max_new_tokens": 200, "temperature": 3.0}
    prompt = [DOCUMENT, *TEXT.encode()]
    length = lambda **more: generate(model, [prompt], **options | more).ids.shape[1] - len(prompt)  # noqa: E731
    assert length() < 200 == length(ignore_eos=True) == length(tokenizer=None)
    assert generate(model, [prompt], **options).ids[0, -1] == DOCUMENT
    session = Session(model, ByteTokenizer())
    session.feed(TEXT)
    other = session.fork()
    session.generate(max_new_tokens=200, temperature=3.0)
    assert session.unread == [] and DOCUMENT not in session.penalized_ids
    other.generate(max_new_tokens=200, temperature=3.0, ignore_eos=True)
    assert other.num_tokens == len(prompt) + 200 and other.unread


class Named(ByteTokenizer):
    """With padding and ends of its own."""

    pad_id, stop_ids = 3, (ord("e"), ord(" "))


@pytest.mark.parametrize(
    "options", [{"temperature": 3.0}, pytest.param({"num_beams": 2}, marks=pytest.mark.slow)], ids=["drawn", "beams"]
)
def test_all_stop_ids_of_a_tokenizer_end_an_answer(tiny, options):
    tokenizer, prompts, options = Named(), [ids(6), ids(9), ids(4), ids(5)], options | {"max_new_tokens": 40}
    whole = generate(tiny.model, prompts, tokenizer=tokenizer, ignore_eos=True, **options).ids
    first, second = int(whole[0, 6 + 2]), int(whole[1, 9 + 5])
    tokenizer.stop_ids = (first, 999, second)  # one that the model has not
    with_ends = generate(tiny.model, prompts, tokenizer=tokenizer, stop=7, **options).ids
    same = generate(tiny.model, prompts, stop=[first, second, DOCUMENT, 7], pad_token_id=3, **options).ids
    np.testing.assert_array_equal(with_ends, same)
    assert whole.shape[1] == 9 + 40 and not np.array_equal(whole, with_ends)


def test_a_pretrained_model_keeps_its_stop_ids(tiny):
    prompts = [ids(6), ids(9)]
    model = models.from_params(*tiny.model)
    plain = generate(model, prompts, max_new_tokens=12).ids
    end = int(plain[0, 6 + 2])
    model.origin = types.SimpleNamespace(stop_ids=(end,))
    expected = generate(tiny.model, prompts, max_new_tokens=12, stop=end).ids
    np.testing.assert_array_equal(generate(model, prompts, max_new_tokens=12).ids, expected)
    np.testing.assert_array_equal(generate(model, prompts, max_new_tokens=12, ignore_eos=True).ids, plain)
    with_tokenizer = generate(model, prompts, tokenizer=ByteTokenizer(), max_new_tokens=12).ids  # whose ends are others
    np.testing.assert_array_equal(with_tokenizer, generate(tiny.model, prompts, max_new_tokens=12, stop=DOCUMENT).ids)


class Endless(ByteTokenizer):
    """No file beside it names what ends a text."""

    eos_id, stop_ids = None, ()


def test_a_tokenizer_without_ends_takes_those_of_the_model(tiny):
    model = models.from_params(*tiny.model)
    session = Session(model, Endless())
    whole = session.generate(max_new_tokens=12, ignore_eos=True)
    ids_of_whole = generate(model, [[DOCUMENT]], max_new_tokens=12).ids[0, 1:].tolist()
    end = ids_of_whole[4]
    model.origin = types.SimpleNamespace(stop_ids=(end,))
    expected = Endless().decode(ids_of_whole[: ids_of_whole.index(end)])
    session = Session(model, Endless())
    [text] = generate(model, "", tokenizer=Endless(), max_new_tokens=12).texts
    assert session.generate(max_new_tokens=12) == expected == text
    assert session.unread == [] and len(expected) < len(whole)


@pytest.mark.parametrize("model", ["folder", None, (1, 2), (1, 2, 3), {}])
def test_what_is_no_model(model):
    with pytest.raises(ValueError, match=r"model must be a MemGPT, an Encoder|int models cannot generate text"):
        generate(model, [[1]], max_new_tokens=1)


def test_padding(tiny):
    prompts = [ids(6), ids(9)]
    pad = lambda **options: int(generate(tiny.model, prompts, max_new_tokens=1, **options).ids[0, -1])  # noqa: E731
    assert pad() == 0 and pad(stop=[5, 6]) == 5 and pad(tokenizer=ByteTokenizer()) == DOCUMENT
    assert pad(tokenizer=Named(), stop=5) == 3 and pad(tokenizer=Named(), pad_token_id=9) == 9


def test_a_penalty_spares_what_begins_the_document(tiny):
    probable = dict(tiny.params)
    probable["embedding"] = tiny.params["embedding"].at[DOCUMENT].multiply(30.0)
    model, options = (tiny.config, probable), {"max_new_tokens": 30, "repetition_penalty": 1e9, "temperature": 5.0}
    plain = options | {"repetition_penalty": None}
    for seed in range(3):
        ends = [generate(model, "a", tokenizer=ByteTokenizer(), seed=seed, **o).texts[0] for o in (plain, options)]
        assert all(len(text.encode()) < 30 for text in ends)


@pytest.mark.parametrize("value", [None, 1, "no"])
def test_ignore_eos_is_true_or_false(tiny, value):
    with pytest.raises(ValueError, match="ignore_eos must be True or False"):
        generate(tiny.model, [[1]], max_new_tokens=1, ignore_eos=value)
    with pytest.raises(ValueError, match="ignore_eos must be True or False"):
        Session(tiny.model, ByteTokenizer()).generate(max_new_tokens=1, ignore_eos=value)


class Larger(ByteTokenizer):
    """With two ids more than the model has."""

    vocab_size, pad_id = 259, 258

    def __init__(self, bytes_of_last=0):
        super().__init__()
        self.token_bytes = np.array([*[1] * 256, 0, 0, bytes_of_last], np.int32)

    def encode(self, text):
        return [258 if letter == "§" else ord(letter) for letter in text]


@pytest.mark.slow
def test_ids_that_no_text_gives_do_no_harm(tiny):
    expected = generate(tiny.model, "abc", tokenizer=ByteTokenizer(), max_new_tokens=8).texts[0]
    assert generate(tiny.model, "abc", tokenizer=Larger(), max_new_tokens=8).texts[0] == expected
    session = Session(tiny.model, Larger())
    session.feed("abc")
    assert "abc" + session.generate(max_new_tokens=8) == expected
    for use in (lambda: generate(tiny.model, "a§", tokenizer=Larger(), max_new_tokens=1), lambda: session.feed("§")):
        with pytest.raises(ValueError, match="token ids must be from 0 to 256, got"):
            use()
    with pytest.raises(ValueError, match="the tokenizer has 259 ids, the model's vocab_size is 257"):
        Session(tiny.model, Larger(bytes_of_last=1))
