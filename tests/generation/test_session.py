"""A session is one document: however it is fed, forked, saved and taken up again, it goes on in the same way."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from memgpt_jax.generation import Session, generate
from memgpt_jax.generation.text import AnswerText

TEXT = "Das Gedächtnis ist ein Garten, "
CHECKERS = Path(__file__).parents[1] / "checkers"


@pytest.fixture
def session(tiny):
    session = Session(tiny.model, tiny.tokenizer)
    session.feed(TEXT)
    return session


def same_state(one: Session, other: Session) -> None:
    jax.tree.map(np.testing.assert_array_equal, one.state, other.state)
    assert (one.unread, one.num_tokens) == (other.unread, other.num_tokens)


def test_it_goes_on_like_one_text(session, tiny):
    whole = generate(tiny.model, TEXT, tokenizer=tiny.tokenizer, max_new_tokens=20)
    pieces = [session.generate(max_new_tokens=8), session.generate(max_new_tokens=12)]
    assert TEXT + "".join(pieces) == whole  # no token stands for a part of a character here
    assert session.num_tokens == 1 + len(TEXT.encode()) + 20


def test_feeding_in_pieces_is_feeding_at_once(session, tiny):
    pieces = Session(tiny.model, tiny.tokenizer)
    for piece in (TEXT[:3], "", TEXT[3:12], TEXT[12:]):
        pieces.feed(piece)
    assert pieces.num_tokens == session.num_tokens
    assert pieces.generate(max_new_tokens=12) == session.generate(max_new_tokens=12)


def test_a_fork_goes_on_by_itself(session, tiny):
    """Two continuations of one state are bitwise those of two sessions that never forked."""
    fork = session.fork()
    session.feed("one")
    fork.feed("another")
    answers = [each.generate(max_new_tokens=9, temperature=9.0, seed=4) for each in (session, fork)]
    for forked, text, answer in zip((session, fork), ("one", "another"), answers, strict=True):
        alone = Session(tiny.model, tiny.tokenizer)
        alone.feed(TEXT)
        alone.feed(text)
        assert alone.generate(max_new_tokens=9, temperature=9.0, seed=4) == answer
        same_state(alone, forked)


def test_a_stream_left_early_ends_the_text_there(session, tiny):
    fork = session.fork()
    stream = session.generate(max_new_tokens=20, stream=True)
    taken = "".join(next(stream) for _ in range(3))
    stream.close()
    assert fork.generate(max_new_tokens=session.num_tokens - fork.num_tokens) == taken
    same_state(session, fork)


@pytest.mark.parametrize("use", ["feed", "generate", "reset", "fork", "save"])
def test_using_the_session_ends_an_open_stream(session, tiny, tmp_path, use):
    stream = session.generate(max_new_tokens=20, stream=True)
    next(stream)
    expected = session.fork() if use == "fork" else None
    {
        "feed": lambda: session.feed("IMPORTANT"),
        "generate": lambda: session.generate(max_new_tokens=3),
        "reset": session.reset,
        "fork": session.fork,
        "save": lambda: session.save(tmp_path / "session"),
    }[use]()
    before = session.fork()
    stream.close()  # it has nothing to say any more
    assert list(stream) == []
    same_state(session, expected or before)
    assert int(np.asarray(session.state.position)[0]) + len(session.unread) == session.num_tokens


def test_a_repetition_penalty_falls_on_the_whole_document(session, tiny):
    session.feed("".join(map(chr, range(1, 128))))
    said = set(session.said)
    session.generate(max_new_tokens=20, repetition_penalty=1e9)
    assert len(session.said - said) == 20


def test_an_interrupt_leaves_state_and_tokens_that_belong_together(session, tiny, monkeypatch):
    fork, pushed = session.fork(), []

    def interrupted(self, token):
        pushed.append(token)
        if len(pushed) == 4:
            raise KeyboardInterrupt
        return ""

    with monkeypatch.context() as patch:
        patch.setattr(AnswerText, "push", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.generate(max_new_tokens=20)
    fork.generate(max_new_tokens=4)
    same_state(session, fork)


def test_the_end_of_the_document(tiny):
    probable = dict(tiny.params)
    probable["embedding"] = tiny.params["embedding"].at[tiny.tokenizer.document_id].multiply(30.0)
    session = Session((tiny.config, probable), tiny.tokenizer)
    session.feed(TEXT)
    while session.unread:
        session.generate(max_new_tokens=50, temperature=5.0, seed=session.num_tokens)
    with pytest.raises(ValueError, match="document has ended"):
        session.generate(max_new_tokens=1)
    session.feed("more")
    assert session.unread == [ord("e")]


def test_reset(session, tiny):
    session.reset()
    same_state(session, Session(tiny.model, tiny.tokenizer))


def test_memory_is_measured(session):
    [layer] = session.memory()
    assert layer["occupancy"] == 1.0 and sum(layer["write_gate_histogram"]) == pytest.approx(1.0)


LOAD = """
import sys
from rereading import Tiny
from memgpt_jax.generation import Session
tiny = Tiny()
session = Session.load(sys.argv[1], tiny.model, tiny.tokenizer)
sys.stdout.buffer.write(session.generate(max_new_tokens=30, temperature=9.0).encode())
"""


def test_a_saved_session_goes_on_in_another_process(session, tiny, tmp_path):
    session.generate(max_new_tokens=5)
    session.save(tmp_path / "session")
    command = [sys.executable, "-c", LOAD, str(tmp_path / "session")]
    environment = {"PYTHONPATH": f"{CHECKERS}:{CHECKERS.parents[1]}", "PATH": ""}
    answer = subprocess.run(command, check=True, capture_output=True, env=environment).stdout.decode()
    assert answer == session.generate(max_new_tokens=30, temperature=9.0)


def test_save_replaces_a_session_and_nothing_else(session, tiny, tmp_path):
    session.save(tmp_path / "session")
    session.feed("more")
    session.save(tmp_path / "session")
    same_state(Session.load(tmp_path / "session", tiny.model, tiny.tokenizer), session)
    assert [path.name for path in tmp_path.iterdir()] == ["session"]
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="not a session"):
        session.save(tmp_path / "other")


def test_a_session_of_another_model_is_refused(session, tiny, tmp_path):
    session.save(tmp_path / "session")
    other = dataclasses.replace(tiny.config, window_size=9)
    with pytest.raises(ValueError, match="window_size: 6 → 9"):
        Session.load(tmp_path / "session", (other, tiny.params), tiny.tokenizer)
    with pytest.raises(ValueError, match="no session in"):
        Session.load(tmp_path, tiny.model, tiny.tokenizer)
