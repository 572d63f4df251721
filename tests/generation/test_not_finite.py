"""Logits that are not finite never become text: each way to an answer ends in one error, and sessions are as before."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.data import ByteTokenizer
from memgpt_jax.generation import Sampling, Session, generate, stream_generate
from memgpt_jax.generation.sampling import NOT_FINITE
from tests.laws.models import random_params

ERROR = "there is no next token for prompt 0: the logits hold NaN or \\+inf, or are all -inf"
POISON = ord("d")
CONFIG = mg.ModelConfig(
    vocab_size=257,
    d_model=260,
    num_layers=1,
    num_heads=2,
    d_ff=4,
    window_size=4,
    segment_length=4,
    memory=mg.NoMemoryConfig(),
    tie_embeddings=False,
    embedding_scale=1.0,
)
FOLLOWING = {"a": "b", "b": "c", "c": "d", "d": "e", "x": "y", "y": "x"}
OPTIONS = {
    "greedy": {},
    "penalty": {"repetition_penalty": 1.1},
    "drawn": {"temperature": 0.1},
    "top_k": {"top_k": 2},
    "top_p": {"top_p": 0.5},
    "min_p": {"min_p": 0.5},
    "all": {"temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1},
}
QUICK = ("greedy", "drawn", "all")
"""The filters of the other rows are in "all"."""


@functools.cache
def chain(poison: float):
    """A model of which each letter says the next (see FOLLOWING); reading POISON puts a number into the logits."""
    params = random_params(CONFIG)
    for part in ("attention", "feed_forward"):
        params["blocks"]["0"][part]["output"]["kernel"] *= 0
    kernel = np.zeros((CONFIG.d_model, CONFIG.vocab_size), np.float32)
    for letter, following in FOLLOWING.items():
        kernel[ord(letter), ord(following)] = 2.0
    params["embedding"] = jnp.eye(*params["embedding"].shape).at[POISON, 0].set(poison)
    params["output"]["kernel"] = jnp.asarray(kernel)
    return CONFIG, params


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, marks=[pytest.mark.slow] * (name not in QUICK), id=name)
        for name, options in OPTIONS.items()
    ],
)
@pytest.mark.parametrize(
    "poison", [np.nan, *(pytest.param(poison, marks=pytest.mark.slow) for poison in (np.inf, -np.inf))]
)
def test_no_answer_is_made_of_them(options, poison):
    model = chain(poison)
    answer = generate(model, "x", tokenizer=ByteTokenizer(), max_new_tokens=3, **options)
    assert answer.ids.tolist() == [[256, *map(ord, "xyxy")]] and answer.texts == ["xyxy"]
    for prompt in ("d", "a"):  # the first token, and one inside of the loop
        with pytest.raises(ValueError, match=ERROR):
            generate(model, prompt, tokenizer=ByteTokenizer(), max_new_tokens=9, **options)


@pytest.mark.parametrize("use", [{"num_beams": 2}, {"stop": "?"}, {"max_new_tokens": None, "max_length": 30}])
def test_in_every_way_to_an_answer(use):
    with pytest.raises(ValueError, match=ERROR):
        generate(chain(np.nan), "a", tokenizer=ByteTokenizer(), **{"max_new_tokens": 9} | use)


def test_a_stream_ends_with_the_error():
    pieces = []
    with pytest.raises(ValueError, match=ERROR):
        pieces.extend(stream_generate(chain(np.nan), "a", tokenizer=ByteTokenizer(), max_new_tokens=9))
    assert [piece.texts for piece in pieces] == [["b"], ["c"], ["d"]]


@pytest.mark.slow
def test_the_prompt_is_named_however_many_answers_it_has():
    prompts = [[ord("x")], [ord("a")], [ord("y")]]
    for options in ({}, {"num_beams": 2}, {"temperature": 0.1, "num_return_sequences": 3}):
        with pytest.raises(ValueError, match="for prompt 1:"):
            generate(chain(np.nan), prompts, max_new_tokens=6, **options)
    with pytest.raises(ValueError, match="for prompt 1:"):
        [*stream_generate(chain(np.nan), prompts, max_new_tokens=6)]


def test_beams_that_do_not_read_them_are_found():
    model = chain(np.nan)
    assert generate(model, [[ord("a")]], max_new_tokens=3, num_beams=2).ids[0].tolist() == [*map(ord, "abcd")]


@pytest.mark.parametrize("stream", [False, True])
def test_a_session_is_as_before(stream):
    session = Session(chain(np.nan), ByteTokenizer())
    session.feed("xa")
    before = session.fork()
    with pytest.raises(ValueError, match=ERROR):
        "".join((session.stream if stream else session.generate)(max_new_tokens=9))
    with pytest.raises(ValueError, match=ERROR):
        session.feed("bcdx")
    jax.tree.map(np.testing.assert_array_equal, session.state, before.state)
    assert (session.unread, session.num_tokens) == (before.unread, before.num_tokens)
    assert session.penalized_ids == before.penalized_ids
    assert session.generate(max_new_tokens=2, stop="d") == "bc"


def test_which_rows_can_be_chosen_from():
    nan, inf = np.nan, np.inf
    rows = [[0, 1, 2], [nan, 1, 2], [0, 1, nan], [inf, 0, 0], [-inf, -inf, -inf], [-inf, 3, -inf], [-inf, nan, -inf]]
    logits, keys = jnp.asarray(rows, jnp.float32), jax.random.split(jax.random.key(0), 7)
    for sampling in (Sampling(), Sampling(temperature=1e-3), Sampling(top_k=2, top_p=0.01, min_p=0.9)):
        token = np.asarray(jax.jit(sampling.choose)(keys, logits))
        assert token.tolist() == [2, *[NOT_FINITE] * 4, 1, NOT_FINITE], sampling
    penalty, penalized = Sampling(repetition_penalty=1e30), jnp.asarray([[True, True], [True, False]])
    token = penalty.choose(keys[:2], jnp.full((2, 2), -1e10, jnp.float32), penalized)  # one row overflows: all are -inf
    assert np.asarray(token).tolist() == [NOT_FINITE, 1]
