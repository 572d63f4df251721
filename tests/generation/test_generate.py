"""Prompts in, answers out: greedy decoding equals reading everything again, rows do not mix, bad input is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import memgpt_jax as mg
from memgpt_jax import models
from memgpt_jax.generation import decode, generate, prefill
from tests.laws.rereading import ids


@pytest.mark.parametrize("length", [1, 19, *(pytest.param(length, marks=pytest.mark.slow) for length in (4, 7))])
def test_greedy_equals_rereading(tiny, length, monkeypatch):
    monkeypatch.setattr(prefill, "PIECE_LENGTH", 8)
    answer = tiny.reread(ids(length), 9)
    assert generate(tiny.model, [ids(length)], max_new_tokens=9).ids.tolist() == [ids(length) + answer]
    assert len(set(answer)) > 2  # else the test would see little


def test_prompts_of_different_lengths(tiny):
    prompts = [ids(3), ids(14)]
    result = generate(tiny.model, prompts, max_new_tokens=6, pad_token_id=99).ids
    for row, prompt in zip(result.tolist(), prompts, strict=True):
        text = prompt + tiny.reread(prompt, 6)
        assert row == text + [99] * (len(row) - len(text))
    assert result.shape == (2, 14 + 6) and result.dtype == np.int32


def test_max_length_counts_the_prompt(tiny):
    prompts = [ids(3), ids(9)]
    result = generate(tiny.model, prompts, max_length=11).ids
    assert result.tolist() == [prompt + tiny.reread(prompt, 11 - len(prompt)) for prompt in prompts]


def test_a_module_generates_too(tiny):
    module = models.from_params(tiny.config, tiny.params)
    expected = generate(tiny.model, [ids(5)], max_new_tokens=4).ids
    np.testing.assert_array_equal(generate(module, [ids(5)], max_new_tokens=4).ids, expected)
    np.testing.assert_array_equal(mg.generate(module, jnp.array([ids(5)]), max_new_tokens=4).ids, expected)


def test_rows_stop_independently(tiny):
    prompts = [ids(7), ids(5)]
    answers = [tiny.reread(prompt, 12) for prompt in prompts]
    stop = next(token for token in answers[0] if token not in answers[1])
    end = answers[0].index(stop) + 1
    result, lengths, _, state = generate(tiny.model, prompts, max_new_tokens=12, stop=[stop, 256])
    assert lengths.tolist() == [7 + end, 5 + 12]
    assert result[0].tolist() == prompts[0] + answers[0][:end] + [stop] * (result.shape[1] - 7 - end)
    assert result[1].tolist() == prompts[1] + answers[1]
    alone = generate(tiny.model, [prompts[0]] * 2, max_new_tokens=end).state
    first_row = lambda tree: jax.tree.map(lambda x: np.asarray(x)[0], tree)  # noqa: E731
    jax.tree.map(np.testing.assert_array_equal, first_row(state), first_row(alone))  # nothing was written after the end


def test_a_row_does_not_depend_on_its_neighbours(tiny):
    options = {"max_new_tokens": 12, "temperature": 1.0, "top_p": 0.95, "seed": 3}
    one = generate(tiny.model, [ids(7), ids(9)], **options).ids
    other = generate(tiny.model, [ids(11, 1), ids(9)], **options).ids
    np.testing.assert_array_equal(one[1, : 9 + 12], other[1, : 9 + 12])


@pytest.mark.parametrize(
    "options", [{}, *(pytest.param(o, marks=pytest.mark.slow) for o in ({"temperature": 1.0}, {"num_beams": 3}))]
)
def test_the_state_is_continued_and_not_modified(tiny, options):
    prompts = [ids(7), ids(9)]
    generated = generate(tiny.model, prompts, max_new_tokens=4, **options)
    ids_, state = generated.ids, generated.state
    ends = [len(prompt) + 4 for prompt in prompts]
    last = [[row[end - 1]] for row, end in zip(ids_.tolist(), ends, strict=True)]
    rest = [generate(tiny.model, last, max_new_tokens=6, state=state).ids[:, 1:] for _ in range(2)]  # twice the same
    np.testing.assert_array_equal(*rest)
    for row, end, answer in zip(ids_.tolist(), ends, rest[0].tolist(), strict=True):
        assert answer == tiny.reread(row[:end], 6)


def test_seeds(tiny):
    draw = lambda seed: generate(tiny.model, [ids(5)], max_new_tokens=12, temperature=1.0, seed=seed).ids  # noqa: E731
    np.testing.assert_array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))


def test_several_sequences_fork_the_memory(tiny):
    options = {"max_new_tokens": 8, "temperature": 20.0, "num_return_sequences": 3}
    prompts = [ids(7), ids(7, 1)]
    result, _, texts, state = generate(tiny.model, prompts, **options)
    assert texts is None
    assert result.shape == (6, 15)
    assert [row[:7] for row in result.tolist()] == [prompts[0]] * 3 + [prompts[1]] * 3
    assert len({tuple(row) for row in result.tolist()}) == 6
    # Each went on with its own memory: it is the one that reading its text leaves.
    _, read = prefill.prefill(*tiny.model, [row[:-1] for row in result], models.functional(tiny.config).init_state(6))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), state.layers[0].stream, read.layers[0].stream
    )


def test_repetition_penalty_counts_prompt_and_answer(tiny):
    answer = generate(tiny.model, [ids(6)], max_new_tokens=20, repetition_penalty=1e9).ids[0].tolist()
    assert len(set(answer)) == len(answer)


def ngrams(answer: list[int], size: int) -> list[tuple[int, ...]]:
    return [tuple(answer[start : start + size]) for start in range(len(answer) - size + 1)]


@pytest.mark.parametrize(
    "options",
    [{}, pytest.param({"num_beams": 2}, marks=pytest.mark.slow), pytest.param({"top_k": 2}, marks=pytest.mark.slow)],
    ids=["greedy", "beams", "drawn"],
)
def test_no_ngram_is_twice_in_an_answer(tiny, options):
    """Of rows of two lengths, whose answers repeat pairs of ids if they may; pairs of the prompt may be repeated."""
    options = options | {"max_new_tokens": 40, "pad_token_id": 0}
    prompts = [ids(6), ids(9)]
    plain = generate(tiny.model, prompts, **options)
    found = generate(tiny.model, prompts, no_repeat_ngram_size=2, **options)
    for number, prompt in enumerate(prompts):
        before, answer = (
            result.ids[number, len(prompt) : result.lengths[number]].tolist() for result in (plain, found)
        )
        assert len(set(ngrams(before, 2))) < 39 == len(set(ngrams(answer, 2)))
        first = next(place for place in range(40) if len(set(ngrams(before[: place + 1], 2))) < place)
        assert options.get("num_beams") or answer[:first] == before[:first]  # until there is a reason to differ
        prompt = [*prompt, *answer[:10]]
        again = generate(tiny.model, [prompt], no_repeat_ngram_size=2, **options).ids[0].tolist()
        assert set(ngrams(again[len(prompt) - 1 :], 2)) & set(ngrams(prompt, 2)) or options


def test_an_answer_for_which_no_id_is_left_is_refused(tiny):
    options = {"no_repeat_ngram_size": 1, "max_new_tokens": 258}
    with pytest.raises(ValueError, match=r"no next token for prompt 0: .* no_repeat_ngram_size leaves no id"):
        generate(tiny.model, [ids(6)], **options)
    answer = generate(tiny.model, [ids(6)], **options | {"max_new_tokens": 257}).ids[0, 6:].tolist()
    assert sorted(answer) == list(range(257))


def test_decoding_is_compiled_once(tiny):
    def run(seed, number):
        return generate(tiny.model, [ids(6)], max_new_tokens=number, temperature=1.0, seed=seed).ids

    run(0, 30)
    compiled = [decode.advance._cache_size(), decode.begin._cache_size(), prefill.compiled_read._cache_size()]
    for seed, number in ((1, 300), (2, 2), (3, 24)):
        assert run(seed, number).shape == (1, 6 + number)
    assert compiled == [decode.advance._cache_size(), decode.begin._cache_size(), prefill.compiled_read._cache_size()]


def test_other_numbers_do_not_compile_again(tiny):
    run = lambda **options: generate(tiny.model, [ids(7), ids(9)], max_new_tokens=3, **options).ids  # noqa: E731
    run(temperature=0.5, top_p=0.9, seed=0)
    compiled = decode.advance._cache_size(), decode.begin._cache_size()
    run(temperature=np.float32(0.7), top_p=1, seed=np.int64(2**32 - 1))
    assert compiled == (decode.advance._cache_size(), decode.begin._cache_size())


@pytest.mark.slow
def test_values_that_mean_off(tiny):
    run = lambda **options: generate(tiny.model, [ids(6)], max_new_tokens=9, seed=3, **options).ids  # noqa: E731
    drawn = run(temperature=20.0)
    for off in (
        {"top_k": 0},
        {"top_k": 257.0},
        {"top_p": 1.0},
        {"min_p": 0.0},
        {"repetition_penalty": 1.0},
        {"no_repeat_ngram_size": 0},
    ):
        np.testing.assert_array_equal(run(temperature=20.0, **off), drawn)
    np.testing.assert_array_equal(run(top_k=0, min_p=0), run())
    np.testing.assert_array_equal(run(temperature=1e-6), run())
    np.testing.assert_array_equal(run(stop=None), run())


def test_whole_pieces_are_read_by_the_parallel_path(tiny, monkeypatch):
    monkeypatch.setattr(prefill, "PIECE_LENGTH", 8)
    taken, read = [], prefill.compiled_read
    monkeypatch.setattr(
        prefill, "compiled_read", lambda *args: (taken.append((args[1], args[3].shape[1])), read(*args))[1]
    )
    state = models.functional(tiny.config).init_state(2)
    _, state = prefill.prefill(*tiny.model, [np.array(ids(19))] * 2, state)
    assert taken == [("aligned", 8), ("aligned", 8), ("any", 4)]
    prefill.prefill(*tiny.model, [np.array(ids(8))] * 2, state)  # no longer at a boundary
    assert taken[3:] == [("any", 8)]


BAD = [
    ([[]], {}, "prompt 0 is empty"),
    ([[1], []], {}, "prompt 1 is empty"),
    ([], {}, "prompt must be"),
    ([1, 2], {}, "prompt must be"),
    ([[1.5]], {}, "prompt must be"),
    ([[257]], {}, "from 0 to 256"),
    ([[-1]], {}, "from 0 to 256"),
    ("text", {}, "tokenizer"),
    ([[1]], {"max_new_tokens": 0}, "max_new_tokens"),
    ([[1]], {"max_new_tokens": None}, "one of max_new_tokens and max_length"),
    ([[1]], {"max_length": 5}, "one of max_new_tokens and max_length"),
    ([[1, 2]], {"max_new_tokens": None, "max_length": 2}, "max_length=2 must exceed"),
    ([[1]], {"temperature": float("nan")}, "temperature"),
    ([[1]], {"temperature": -1.0}, "temperature"),
    ([[1]], {"temperature": 0.0, "top_k": 3}, "temperature=0 is greedy; remove top_k=3"),
    ([[1]], {"stop": 300}, "stop must be a whole number from 0 to 256"),
    ([[1]], {"stop": "end"}, "stop: the texts \\['end'\\] need a tokenizer"),
    ([[1]], {"num_beams": 0}, "num_beams"),
    ([[1]], {"num_beams": 2, "top_k": 2}, "num_beams=2 is a beam search"),
    ([[1]], {"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences=3 must be at most num_beams=2"),
    ([[1]], {"num_return_sequences": 2}, "greedy answers are all equal"),
    ([[1]], {"num_return_sequences": 0}, "num_return_sequences"),
    ([[1]], {"length_penalty": 2.0}, "need num_beams"),
    ([[1]], {"early_stopping": "soon"}, "early_stopping"),
    ([[1]], {"state": 3}, "state must be a ModelState"),
    ([[2**32 + 5]], {}, "from 0 to 256, got 4294967301"),
    ([[1]], {"max_new_tokens": float("inf")}, "max_new_tokens must be a whole number"),
    ([[1]], {"max_new_tokens": 8.5}, "max_new_tokens must be a whole number"),
    ([[1]], {"max_new_tokens": 2**31}, "max_new_tokens must be a whole number"),
    ([[1]], {"max_new_tokens": "8"}, "max_new_tokens must be a whole number"),
    ([[1]], {"num_beams": None}, "num_beams must be a whole number"),
    ([[1]], {"early_stopping": 1, "num_beams": 2}, "early_stopping"),
    ([[1]], {"temperature": "hot"}, "temperature"),
    ([[1]], {"top_k": 1.5}, "top_k"),
    ([[1]], {"seed": -1}, "seed"),
    ([[1]], {"seed": None}, "seed"),
    ([[1]], {"stop": [None]}, "stop"),
    ([[1]], {"pad_token_id": 0.5}, "pad_token_id"),
    ({"input_ids": [[1]]}, {}, "prompt must be .* got dict"),
    (None, {}, "prompt must be .* got NoneType"),
    ([[True, False]], {}, "prompt must be"),
    ([[2**70]], {}, "prompt must be"),
    ([[1], "text"], {}, "prompt must be"),
    (b"text", {}, "prompt must be .* got bytes"),
    ([[[1]]], {}, "prompt must be"),
    ([[1]], {"seed": 2**32}, "seed must be a whole number from 0 to 4294967295"),
    ([[1]], {"seed": -1, "num_beams": 2}, "seed must be a whole number"),
    ([[1]], {"stop": -1}, "stop must be a whole number from 0 to 256"),
    ([[1]], {"stop": True}, "stop must be a whole number"),
    ([[1]], {"stop": 1.5}, "stop must be a whole number"),
    ([[1]], {"top_k": 2**31}, "top_k must be a whole number"),
    ([[1]], {"top_p": "most"}, "top_p must be above 0 and at most 1"),
    ([[1]], {"min_p": 2}, "min_p must be from 0 to 1"),
    ([[1]], {"length_penalty": float("nan"), "num_beams": 2}, "length_penalty must be a number"),
    (
        [[1]],
        {"length_penalty": -1e9, "num_beams": 2},
        "length_penalty=-1000000000.0 must be from -66.4 to 66.4",
    ),
    ([[1]], {"length_penalty": 70.0, "num_beams": 2}, "length_penalty=70.0 must be from -66.4 to 66.4"),
    ([[1]], {"pad_token_id": True}, "pad_token_id must be a whole number"),
    (
        [[1]],
        {"max_new_tokens": 1, "num_beams": 300, "num_return_sequences": 258},
        "must be at most 257, the number of answers",
    ),
]


def test_a_decoder_without_blocks_generates():
    config = mg.ModelConfig(vocab_size=9, d_model=8, num_layers=0, num_heads=2)
    found = generate(mg.MemGPT(config, rngs=nnx.Rngs(0)), [[1, 2]], max_new_tokens=2)
    assert found.ids.shape == (1, 4) and found.ids[0, :2].tolist() == [1, 2]


@pytest.mark.parametrize(("prompt", "options", "message"), BAD, ids=lambda x: x if isinstance(x, str) else "")
def test_bad_input_is_refused_by_name(tiny, prompt, options, message):
    with pytest.raises(ValueError, match=message):
        generate(tiny.model, prompt, **{"max_new_tokens": 2} | options)


def test_states_of_another_model_or_batch_are_refused(tiny):
    with pytest.raises(ValueError, match="state has 3 rows, but there are 2 prompts"):
        generate(tiny.model, [[1], [2]], max_new_tokens=2, state=models.functional(tiny.config).init_state(3))
    other = mg.MemGPT(mg.ModelConfig(vocab_size=257, d_model=16, num_layers=1), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="does not fit the config of this model"):
        generate(tiny.model, [[1]], max_new_tokens=2, state=other.init_state(1))
