"""Beam search against the search of everything, on vocabularies small enough for that."""

import functools
import itertools
from collections.abc import Sequence

import jax
import numpy as np
import pytest

from memgpt_jax import models
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.generation import generate
from tests.laws.models import random_params

VOCAB, NEW, STOP = 4, 4, 2
CONFIG = ModelConfig(
    vocab_size=VOCAB,
    d_model=8,
    num_layers=1,
    num_heads=2,
    window_size=3,
    segment_length=2,
    memory=KVMemoryConfig(memory_size=4, head_dim=4),
)

PROMPT = [1, 3, 0, 2, 1]


@pytest.fixture(scope="module", params=[0, 1], ids=["one model", "another"])
def model(request):
    params = random_params(CONFIG, request.param)
    return CONFIG, jax.tree.map(lambda x: np.float32(1.5) * np.asarray(x), params)


@functools.partial(jax.jit, static_argnums=0)
def log_probabilities(config, params, tokens):
    logits, _ = models.functional(config).apply(params, tokens, models.functional(config).init_state(tokens.shape[0]))
    return jax.nn.log_softmax(logits)


def all_answers(model, length_penalty: float, stops: bool) -> list[tuple[float, list[int]]]:
    """Every answer of at most NEW tokens with its score, best first; with `stops`, STOP ends an answer."""
    texts = np.array(list(itertools.product(range(VOCAB), repeat=NEW)), np.int32)
    whole = np.concatenate([np.tile(np.array(PROMPT, np.int32), (len(texts), 1)), texts], axis=1)
    log_p = np.asarray(log_probabilities(*model, whole), np.float64)[:, len(PROMPT) - 1 : -1]
    log_p = np.take_along_axis(log_p, texts[..., None], axis=2)[..., 0]
    scores = {}
    for text, steps in zip(texts.tolist(), log_p, strict=True):
        length = text.index(STOP) + 1 if stops and STOP in text else NEW
        scores[tuple(text[:length])] = steps[:length].sum() / length**length_penalty
    return sorted(((score, list(text)) for text, score in scores.items()), reverse=True)


def search(model, num_beams: int, **options) -> list[list[int]]:
    new = generate(
        model,
        [PROMPT],
        max_new_tokens=NEW,
        num_beams=num_beams,
        num_return_sequences=num_beams,
        pad_token_id=0,
        **options,
    ).ids[:, len(PROMPT) :]
    return new.tolist()


def unpadded(text: list[int]) -> list[int]:
    return text[: text.index(STOP) + 1] if STOP in text else text


@pytest.mark.parametrize(
    ("length_penalty", "stops"),
    [(-1.0, True)]
    + [
        pytest.param(*row, marks=pytest.mark.slow)
        for row in ((0.0, True), (2.0, True), (0.0, False), (1.0, True), (1.0, False), (-1.0, False))
    ],
)
def test_with_beams_for_everything_it_is_exact(model, length_penalty, stops):
    num_beams = VOCAB ** (NEW - 1)  # as many as there are open texts before the last token
    stop = [STOP] if stops else []
    found = search(model, num_beams, stop=stop, length_penalty=length_penalty, early_stopping="never")
    expected = [text for _, text in all_answers(model, length_penalty, stops)][:num_beams]
    assert [unpadded(text) if stops else text for text in found] == expected


@pytest.mark.parametrize(
    ("early_stopping", "num_beams"),
    [(True, 3)]
    + [
        pytest.param(*row, marks=pytest.mark.slow)
        for row in ((False, 3), (False, 2), (True, 2), ("never", 3), ("never", 2))
    ],
)
def test_few_beams_are_those_of_the_textbook(model, num_beams, early_stopping):
    found = search(model, num_beams, stop=[STOP], early_stopping=early_stopping)
    expected = textbook_beam_search(model, num_beams, early_stopping)
    assert [unpadded(text) for text in found] == expected


def textbook_beam_search(model, num_beams: int, early_stopping) -> list[list[int]]:
    """One prompt, lists and loops; every beam is read again from the start."""
    open_, finished = [(0.0, [])], []
    for count in range(1, NEW + 1):
        candidates = []
        for score, text in open_:
            whole = np.array([PROMPT + text + [0] * (NEW - len(text))], np.int32)  # later tokens are not seen
            step = np.asarray(log_probabilities(*model, whole), np.float64)[0, len(PROMPT + text) - 1]
            candidates += [(score + step[token], [*text, token]) for token in range(VOCAB)]
        candidates.sort(key=lambda item: -item[0])
        ends = [count == NEW or text[-1] == STOP for _, text in candidates]
        finished += [(s / count, t) for (s, t), end in list(zip(candidates, ends, strict=True))[:num_beams] if end]
        finished = sorted(finished, key=lambda item: -item[0])[:num_beams]
        open_ = [item for item, end in zip(candidates, ends, strict=True) if not end][:num_beams]
        if len(finished) == num_beams and open_:
            length = NEW if early_stopping == "never" else count
            if early_stopping is True or open_[0][0] / length <= finished[-1][0]:
                break
    return [text for _, text in finished]


@pytest.mark.slow
def test_rows_are_searched_independently(model):
    prompts = [PROMPT, [3, 3, 3, 3, 3, 3, 3]]
    options = {"num_beams": 3, "num_return_sequences": 2, "stop": [STOP], "pad_token_id": 0}
    together = generate(model, prompts, max_length=10, **options).ids
    for i, prompt in enumerate(prompts):
        alone = generate(model, [prompt], max_length=10, **options).ids
        np.testing.assert_array_equal(together[2 * i : 2 * i + 2, : alone.shape[1]], alone)


@pytest.mark.slow
def test_repetition_penalty_acts_in_the_search(model):
    answer = generate(model, [[0]], max_new_tokens=3, num_beams=2, repetition_penalty=1e6).ids[0].tolist()
    assert sorted(answer) == [0, 1, 2, 3]


@pytest.mark.parametrize("size", [1, 2])
def test_the_best_answer_without_a_repeated_ngram_is_found(model, size):
    """By a search with a beam for each open text before the last token, among all answers."""

    def once(text: Sequence[int]) -> bool:
        ngrams = [tuple(text[start : start + size]) for start in range(len(text) - size + 1)]
        return len(set(ngrams)) == len(ngrams)

    num_beams = sum(map(once, itertools.product(range(VOCAB), repeat=NEW - 1)))
    found = search(model, num_beams, early_stopping="never", no_repeat_ngram_size=size)
    answers = [text for _, text in all_answers(model, 1.0, stops=False)]
    assert found == [text for text in answers if once(text)][:num_beams]
    assert not all(map(once, answers[:num_beams]))
