"""The engine: an answer is bitwise that of its request alone, and no state is past what was returned."""

import threading
import time
from collections import deque
from dataclasses import replace

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.serving import inspection
from memgpt_jax.serving.app import hangs
from memgpt_jax.serving.engine import Engine
from memgpt_jax.serving.requests import BusyError, CancelledError, FailedError, Request
from memgpt_jax.serving.sampling import Options
from memgpt_jax.serving.settings import EngineSettings
from tests.laws.rereading import ids
from tests.serving.conftest import Asked, running, until

START = 256
OPTIONS = [
    {},
    {"temperature": 3.0},
    {"temperature": 3.0, "top_k": 5},
    {"temperature": 2.0, "top_p": 0.8},
    {"temperature": 2.0, "min_p": 0.05, "repetition_penalty": 1.7},
    {"repetition_penalty": 3.0},
    {"temperature": 4.0, "top_k": 40, "top_p": 0.95, "min_p": 0.001, "repetition_penalty": 1.1},
]


@pytest.mark.parametrize(
    "options",
    [*OPTIONS[:1], OPTIONS[-1], *(pytest.param(each, marks=pytest.mark.slow) for each in OPTIONS[1:-1])],
    ids=str,
)
def test_answers_are_those_of_generate(engine, tiny, options):
    """With the same seed, also of several answers to one prompt."""
    number = 3 if "temperature" in options else 1
    asked = Asked(
        engine,
        ids(9),
        options=Options(**{"temperature": 0.0, "seed": 5} | options),
        number=number,
        max_new_tokens=14,
    ).result()
    model = (tiny.config, tiny.params)
    want = mg.generate(model, [[START, *ids(9)]], max_new_tokens=14, seed=5, num_return_sequences=number, **options)
    assert asked.ids == want.ids[:, 10:].tolist()


def requests(number: int, seed: int = 0) -> list[dict]:
    """Requests of all kinds."""
    random = np.random.default_rng(seed)
    found = []
    for index in range(number):
        options = dict(OPTIONS[random.integers(len(OPTIONS))])
        if random.random() < 0.3:
            options |= {"presence_penalty": 1.5, "frequency_penalty": 0.5}
        if random.random() < 0.3:
            options |= {"logit_bias": {int(token): 5.0 for token in random.integers(256, size=3)}}
        if random.random() < 0.3:
            options |= {"alternatives": int(random.integers(1, 20))}
        found.append(
            {
                "ids": ids(int(random.integers(1, 30)), index),
                "options": Options(**{"temperature": 0.0, "seed": index} | options),
                "number": int(random.integers(1, 3)),
                "max_new_tokens": int(random.integers(1, 12)),
                "score_prompt": bool(random.random() < 0.2),
            }
        )
    return found


@pytest.mark.parametrize("number", [24, pytest.param(500, marks=pytest.mark.slow)])
def test_an_answer_is_bitwise_that_of_its_request_alone(engine, number):
    """Tokens, log-probabilities, alternatives and scores of the prompt, in any slot and beside any others."""
    check_batch_invariance(engine, number)


@pytest.mark.slow
def test_an_answer_of_a_quantised_model_is_bitwise_that_of_its_request_alone(quantized_engine):
    check_batch_invariance(quantized_engine, 100)


def check_batch_invariance(engine, number: int) -> None:
    every = requests(number)
    alone = [Asked(engine, **request).result() for request in every]
    together = []
    for start in range(0, number, 20):
        group = [Asked(engine, **request) for request in every[start : start + 20]]
        together += [asked.result() for asked in group]
    for one, other in zip(alone, together, strict=True):
        assert one.tokens == other.tokens and one.read.scores == other.read.scores


@pytest.mark.parametrize("cut", [1, 3, 4, 9])
def test_a_document_goes_on_where_it_ended(engine, cut):
    whole = Asked(engine, ids(13), max_new_tokens=12).result()
    before = Asked(engine, ids(13), max_new_tokens=cut, keep=True).result()
    document = before.finished[0].document
    copy = jax.tree.map(np.copy, document.state)
    after = Asked(engine, [], document=document, max_new_tokens=12 - cut).result()
    assert before.ids[0] + after.ids[0] == whole.ids[0]
    jax.tree.map(np.testing.assert_array_equal, document.state, copy)  # the parent is unharmed
    assert document.num_tokens == 14 + cut == int(document.state.position[0]) + len(document.unread)


def test_a_stopped_answer_leaves_a_document_with_the_returned_text_alone(engine, tiny):
    """A stop text over several tokens: those of its beginning have been read when it is found."""
    options = Options(temperature=3.0, seed=1, logit_bias=dict.fromkeys(range(128, 257), -100.0))  # ASCII
    free = Asked(engine, ids(8), options=options, max_new_tokens=30).result()
    for start in (0, 3, 10, 19):
        stop = free.texts[0][start : start + 3]
        asked = Asked(engine, ids(8), options=options, max_new_tokens=30, stop_texts=(stop,), keep=True).result()
        assert asked.finished[0].reason == "stop"
        [text] = asked.texts
        assert text == free.texts[0].partition(stop)[0]
        document = asked.finished[0].document
        fed = Asked(engine, ids(8), max_new_tokens=0).result().read.document
        fed = Asked(engine, tiny.tokenizer.encode(text), document=fed, max_new_tokens=0).result().read.document
        assert (document.num_tokens, document.unread) == (fed.num_tokens, fed.unread)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), document.state, fed.state)


def test_others_go_on_while_a_stopped_answer_is_read_again(engine, monkeypatch):
    """A piece of 4 tokens a step; a cancelled one frees its slot."""
    options = Options(temperature=3.0, seed=1, logit_bias=dict.fromkeys(range(128, 257), -100.0))  # ASCII
    text = Asked(engine, ids(8), options=options, max_new_tokens=60).result().texts[0]
    other = Asked(engine, ids(5), max_new_tokens=9999, stop_ids=frozenset())
    fields = {"options": options, "max_new_tokens": 60, "stop_texts": (text[40:46],), "keep": True}
    stopped = Asked(engine, ids(8), **fields)
    steps = []
    stopped.request.deliver = lambda event: (steps.append(engine.steps), stopped.events.put(event))
    assert stopped.result().texts == [text[:40]] and stopped.finished[0].document.num_tokens == 49
    assert steps[-1] - steps[-2] >= 10
    again, read = Asked(engine, ids(8), **fields), engine._reread_a_piece

    def read_and_cancel():
        again.request.cancelled |= any(answer and answer.rereading for answer in engine._answers)
        read()

    monkeypatch.setattr(engine, "_reread_a_piece", read_and_cancel)
    with pytest.raises(CancelledError):
        again.result()
    other.request.cancelled = True
    with pytest.raises(CancelledError):
        other.result()
    Asked(engine, [1], max_new_tokens=1).result()
    assert engine.busy_slots == 0


def test_a_stop_id_as_the_first_token_leaves_a_document_that_goes_on(engine):
    """An answer of no tokens is one, too."""
    [[first]] = Asked(engine, ids(8), max_new_tokens=1).result().ids
    asked = Asked(engine, ids(8), max_new_tokens=5, stop_ids=frozenset([first]), keep=True).result()
    document = asked.finished[0].document
    assert asked.finished[0].ids == [] and document.unread == () and document.num_tokens == 9
    again = Asked(engine, [first], document=document, max_new_tokens=3).result()
    assert again.ids == [Asked(engine, [*ids(8), first], max_new_tokens=3).result().ids[0]]
    with pytest.raises(ValueError, match="no token to continue"):
        Asked(engine, [], document=document)


def test_no_slot_keeps_what_was_in_it(engine):
    """The answer after another in the same slot is that of a fresh engine."""
    before = Asked(engine, ids(11, 3), max_new_tokens=6).result()
    for secret in range(6):
        Asked(engine, ids(25, 100 + secret), max_new_tokens=9).result()
    assert Asked(engine, ids(11, 3), max_new_tokens=6).result().tokens == before.tokens


def test_requests_with_the_same_content_are_different_ones(engine):
    """As in the queue, from which a cancelled one is taken; their documents hold arrays, which have no truth value."""
    one, other = (Request(document=engine.new_document(), parts=[[1]], deliver=print, arrived=0.0) for _ in range(2))
    queue = deque([one, other])
    queue.remove(other)
    assert [*queue] == [one] and one != other


def test_cancelled_requests_leave_no_slot_taken(engine):
    """In the queue, while they are read, and while they are decoded."""
    random = np.random.default_rng(0)
    for _ in range(6):
        group = [Asked(engine, ids(20, index), max_new_tokens=9999, number=2) for index in range(6)]
        for index in random.permutation(6):
            if index == 0 and random.random() < 0.5:
                group[0].events.get(timeout=60)  # it has been read
            group[index].request.cancelled = True
        for asked in group:
            with pytest.raises(CancelledError):
                asked.result()
        Asked(engine, [1], max_new_tokens=1).result()
        assert engine.busy_slots == 0 and engine.waiting == 0


def test_a_full_queue_refuses(engine):
    group = [Asked(engine, ids(5), max_new_tokens=9999) for _ in range(40)]
    with pytest.raises(BusyError) as caught:
        for _ in range(10):
            group.append(Asked(engine, ids(5), max_new_tokens=9999))
    assert caught.value.retry_after >= 1
    for asked in group:
        asked.request.cancelled = True
    for asked in group:
        with pytest.raises(CancelledError):
            asked.result()
    Asked(engine, [1], max_new_tokens=1).result()


def test_a_full_queue_refuses_calls(engine):
    """40 wait beside the one that runs; answers have places of their own."""
    ended = threading.Event()
    futures = [engine.call(lambda: ended.wait(60)), *(engine.call(list) for _ in range(40))]
    with pytest.raises(BusyError):
        engine.call(list)
    asked = Asked(engine, [1], max_new_tokens=1)
    assert futures[-1].cancel() and engine.calls == 40
    engine.call(list)
    ended.set()
    asked.result()
    assert [future.result(60) for future in futures[:-1]] == [True, *([[]] * 39)]
    until(lambda: engine.calls == 0)


def test_a_row_that_is_not_finite_fails_alone(engine):
    alone = Asked(engine, ids(9), max_new_tokens=30).result()
    healthy = Asked(engine, ids(9), max_new_tokens=30)
    document = Asked(engine, ids(9), max_new_tokens=3, keep=True).result().finished[0].document
    damaged = jax.tree.map(lambda x: x * np.float32("nan") if x.dtype == np.float32 else x, document.state)
    for prompt in ([], ids(7)):  # found by the step, and by the reading of the prompt
        with pytest.raises(FailedError, match="not finite"):
            Asked(engine, prompt, document=document._replace(state=damaged), max_new_tokens=3, keep=True).result()
    assert healthy.result().tokens == alone.tokens
    assert engine.is_alive and engine.busy_slots == 0


def test_an_error_while_an_answer_is_begun_or_continued_ends_that_answer_alone(engine, monkeypatch):
    alone = Asked(engine, ids(9), max_new_tokens=30).result()
    healthy = Asked(engine, ids(9), max_new_tokens=30)
    document = Asked(engine, ids(9), max_new_tokens=0).result().read.document
    with pytest.raises(IndexError):
        Asked(engine, [], document=document._replace(penalized_ids=frozenset([10**6])), max_new_tokens=3).result()
    add = engine._add

    def failing(index, answer, *values):
        if answer.request.max_new_tokens == 7:
            raise KeyError(7)
        add(index, answer, *values)

    monkeypatch.setattr(engine, "_add", failing)
    with pytest.raises(KeyError):
        Asked(engine, ids(5), max_new_tokens=7).result()
    assert healthy.result().tokens == alone.tokens
    assert engine.is_alive and engine.busy_slots == engine.waiting == 0


def test_the_end_of_the_engine_is_told_to_all(tiny, monkeypatch):
    """To what it works on, to what waits, and to what comes later."""
    engine = Engine(tiny.config, tiny.params, tiny.tokenizer, EngineSettings(slots=1, piece_length=4))
    asked = [Asked(engine, ids(9), max_new_tokens=9999) for _ in range(3)]
    late = []

    def failing():
        late.extend([Asked(engine, ids(9)), engine.call(list)])
        raise MemoryError("no memory")

    monkeypatch.setattr(engine, "_step", failing)
    engine.start()
    engine._thread.join(60)
    for each in [*asked, late[0]]:
        with pytest.raises(FailedError, match="no memory"):
            each.result()
    with pytest.raises(FailedError, match="no memory"):
        late[1].result(timeout=60)
    for use in (lambda: engine.call(list), lambda: Asked(engine, ids(9))):
        with pytest.raises(FailedError, match="no memory"):
            use()


@pytest.mark.slow
@pytest.mark.parametrize("positions", [3, 5])
def test_a_model_with_few_learned_positions_is_served(tiny, positions):
    """Fewer than the tokens of a segment, or one more: pieces are longer."""
    config = replace(tiny.config, position="learned", num_positions=positions)
    model = (config, mg.functional(config).init(jax.random.key(0)))
    for engine in running(tiny, *model):
        inspection.warm_up(engine)
        asked = Asked(engine, [7], max_new_tokens=1).result()
        assert asked.ids == mg.generate(model, [[START, 7]], max_new_tokens=1, temperature=0.0).ids[:, 2:].tolist()


def test_work_of_others_is_done_between_the_steps(engine):
    """One piece a step; an answer goes on beside it, and an error or a cancelled call ends itself alone."""
    order, written = [], []

    def pieces(name):
        for _ in range(5):
            order.append(name)
            written.append(engine.steps)
            yield
        return name

    answer = Asked(engine, ids(5), max_new_tokens=9999)
    answer.events.get(timeout=60)
    first, second = (engine.call_in_pieces(pieces(name)) for name in "ab")
    failed = engine.call(lambda: 1 // 0)
    assert [first.result(timeout=60), second.result(timeout=60)] == [*"ab"]
    with pytest.raises(ZeroDivisionError):
        failed.result(timeout=60)
    assert order.count("a") == order.count("b") == 5 and "ab" * 2 in "".join(order)
    assert len(set(written)) == 10
    answer.request.cancelled = True
    with pytest.raises(CancelledError):
        answer.result()


def test_the_first_work_after_an_idle_hour_is_no_hanging_engine(engine):
    engine.last_step -= 3600
    before = time.monotonic()
    engine.call(lambda: None)  # whether or not the thread has begun with it
    assert engine.last_step >= before and not hangs(engine, 60)


def test_a_long_call_is_no_hanging_engine(engine):
    assert not hangs(engine, 0.0)
    begun, ended = threading.Event(), threading.Event()
    future = engine.call(lambda: begun.set() or ended.wait(60))
    assert begun.wait(60)
    time.sleep(0.02)
    assert not hangs(engine, 10.0) and hangs(engine, 0.001)
    engine.last_step -= 50
    assert not hangs(engine, 10.0) and hangs(engine, 1.0)
    ended.set()
    future.result(timeout=60)
    assert not engine.in_call


def test_prompts_are_scored(engine, tiny):
    """As `score` does, and by the alternatives of the same calls."""
    document = ids(9)
    asked = Asked(
        engine, document, max_new_tokens=0, score_prompt=True, options=Options(temperature=0.0, alternatives=3)
    ).result()
    logits = tiny.logits(np.array([[START, *document]]))[0]
    want = np.asarray(jax.nn.log_softmax(logits))[np.arange(9), document]
    np.testing.assert_allclose([score.logprob for score in asked.read.scores], want, atol=1e-4)
    assert [score.id for score in asked.read.scores] == document
    for row, score in zip(np.asarray(logits), asked.read.scores, strict=False):
        assert [token for token, _ in score.alternatives] == np.argsort(-row, kind="stable")[:3].tolist()


def test_a_known_beginning_is_not_read_again(engine):
    """Nor does it change the answer; another owner does not have it."""
    parts = [ids(10, 7), ids(6, 8), ids(5, 9)]

    def ask(owner):
        return Asked(engine, parts=parts, max_new_tokens=5, owner=owner).result()

    first, second, third = ask("a"), ask("a"), ask("b")
    assert [each.read.cached_tokens for each in (first, second, third)] == [0, 16, 0]
    assert first.tokens == second.tokens == third.tokens


@pytest.mark.parametrize("field, value", [("slots", 0), ("piece_length", 0), ("queue_requests", -1)])
def test_sizes_that_cannot_be(field, value):
    with pytest.raises(ValueError, match=f"{field} must be at least 1"):
        EngineSettings(**{field: value})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"temperature": -1.0}, "temperature"),
        ({"presence_penalty": 3.0}, "presence_penalty must be from -2 to 2"),
        ({"logit_bias": {1: 101.0}}, "logit_bias"),
        ({"logit_bias": dict.fromkeys(range(257), 1.0)}, "256 ids"),
        ({"alternatives": 21}, "from 0 to 20"),
        ({"top_p": 0.0}, "top_p"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)
