"""A session is one document: however it is fed, forked, saved and taken up again, it goes on in the same way."""

import contextlib
import dataclasses
import errno
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

import memgpt_jax as mg
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.data import ByteTokenizer
from memgpt_jax.data.tokenizers.files import unfinished
from memgpt_jax.files import checksums
from memgpt_jax.generation import Session, generate
from memgpt_jax.generation.document import continued
from memgpt_jax.generation.text import AnswerText
from memgpt_jax.interop.origin import Origin
from memgpt_jax.pipelines.base import load
from tests.laws.models import random_params

TEXT = "Das Gedächtnis ist ein Garten, "
ROOT = Path(__file__).parents[2]


@pytest.fixture
def session(tiny):
    session = Session(tiny.model, tiny.tokenizer)
    session.feed(TEXT)
    return session


def same_state(one: Session, other: Session) -> None:
    jax.tree.map(np.testing.assert_array_equal, one.state, other.state)
    assert (one.unread, one.num_tokens) == (other.unread, other.num_tokens)


def test_a_continued_text_equals_one_text(session, tiny):
    whole = generate(tiny.model, TEXT, tokenizer=tiny.tokenizer, max_new_tokens=20).texts[0]
    pieces = [session.generate(max_new_tokens=8), session.generate(max_new_tokens=12)]
    assert TEXT + "".join(pieces) == whole  # no token stands for a part of a character here
    assert session.num_tokens == 1 + len(TEXT.encode()) + 20


def test_feeding_in_pieces_is_feeding_at_once(session, tiny):
    pieces = Session(tiny.model, tiny.tokenizer)
    for piece in (TEXT[:3], "", TEXT[3:12], TEXT[12:]):
        pieces.feed(piece)
    assert pieces.num_tokens == session.num_tokens
    assert pieces.generate(max_new_tokens=12) == session.generate(max_new_tokens=12)


def test_a_fork_is_independent_of_its_original(session, tiny):
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
    stream = session.stream(max_new_tokens=20)
    taken = "".join(next(stream) for _ in range(3))
    stream.close()
    assert fork.generate(max_new_tokens=session.num_tokens - fork.num_tokens) == taken
    same_state(session, fork)


@pytest.mark.parametrize("use", ["feed", "generate", "reset", "fork", "save"])
def test_using_the_session_ends_an_open_stream(session, tiny, tmp_path, use):
    stream = session.stream(max_new_tokens=20)
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
    before = set(session.penalized_ids)
    session.generate(max_new_tokens=20, repetition_penalty=1e9)
    assert len(session.penalized_ids - before) == 20


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


def test_an_answer_that_a_text_stops_leaves_the_document_with_the_returned_text_alone(session, tiny):
    """The tokens of a stop text that begins before the last one have been read when it is found."""
    prompt = [tiny.tokenizer.start_id, *tiny.tokenizer.encode(TEXT)]
    new = generate(tiny.model, [prompt], max_new_tokens=12).ids[0, len(prompt) :].tolist()
    kept, stop = new[:10], tiny.tokenizer.decode(new[10:])
    assert len(stop) == 2  # the first of its two ids has been read when the second is found
    assert session.generate(max_new_tokens=12, stop=stop) == tiny.tokenizer.decode(kept)
    assert (session.num_tokens, session.unread) == (len(prompt) + 10, kept[-1:])
    assert int(np.asarray(session.state.position)[0]) + len(session.unread) == session.num_tokens
    after = generate(tiny.model, [[*prompt, *kept]], max_new_tokens=6).ids[0, len(prompt) + 10 :]
    answer = session.generate(max_new_tokens=6)  # without an incomplete character at its end
    assert answer.rstrip("\ufffd") == tiny.tokenizer.decode(after.tolist()).rstrip("\ufffd")


class Spelled(ByteTokenizer):
    """The byte tokenizer, in which some ids stand for other bytes and no id ends a text."""

    stop_ids = ()

    def __init__(self, spelling: dict[int, bytes]):
        super().__init__()
        self.spelling = spelling

    def _bytes(self, ids) -> bytes:
        return b"".join(self.spelling.get(int(token), bytes([token])) for token in ids if 0 <= token < 256)

    def decode(self, ids):
        return self._bytes(ids).decode("utf-8", "replace")

    def unfinished_bytes(self, ids):
        return unfinished(self._bytes(ids)[-3:])


def about_to_write(tiny, *spelling: bytes) -> Session:
    """A session whose next tokens have these bytes."""
    new = generate(tiny.model, [[256, ord("z")]], max_new_tokens=len(spelling)).ids[0, 2:].tolist()
    session = Session(tiny.model, Spelled(dict(zip(new, spelling, strict=True))))
    session.feed("z")
    return session


def test_a_character_may_be_written_by_two_answers(tiny):
    session = about_to_write(tiny, b"\xc5", b"\xa4", b"V")
    assert session.generate(max_new_tokens=1) == ""
    document = session.document()
    after = continued(document, session.tokenizer, document.state, [], document.unread)  # an empty prompt
    session.open(after)
    stopped, nothing = session.fork(), session.fork()
    assert session.fork().generate(max_new_tokens=2) == "\u0164V"
    assert stopped.generate(max_new_tokens=2, stop="V") == "\u0164"
    assert session.generate(max_new_tokens=1) == "\u0164"
    same_state(stopped, session)
    assert nothing.generate(max_new_tokens=2, stop="\u0164") == ""
    assert (nothing.num_tokens, nothing.unread) == (document.num_tokens, list(document.unread))
    assert nothing.generate(max_new_tokens=2) == "\u0164V"


def test_a_stream_left_while_text_is_held_back_ends_with_what_was_returned(tiny):
    session, again = about_to_write(tiny, b"xa", b"b"), Session(tiny.model, tiny.tokenizer)
    stream = session.stream(max_new_tokens=2, stop="ac")
    assert next(stream) == "x"
    stream.close()
    again.feed("z")
    again.feed("x")
    same_state(session, again)


def test_a_smaller_session_and_a_pipeline_stop_at_the_ids_of_the_model(tiny):
    model = mg.from_params(*tiny.model)
    (first,) = generate(model, [[256, ord("z")]], max_new_tokens=1).ids[0, 2:].tolist()
    model.origin = Origin({"eos_token_id": first})
    session = Session(model, Spelled({}))
    session.feed("z")
    for other in (session.fork(), session.compressed(8)):
        assert other.generate(max_new_tokens=3) == "" and not other.unread
    write = mg.pipeline("text-generation", model=model, tokenizer=Spelled({}))
    assert write("z", return_full_text=False) == [{"generated_text": ""}]
    assert load(model, Spelled({})).stop_ids == (first,)


def test_the_end_of_the_document(tiny):
    probable = dict(tiny.params)
    probable["embedding"] = tiny.params["embedding"].at[tiny.tokenizer.start_id].multiply(30.0)
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


def test_a_saved_session_holds_nothing_of_another_session_or_from_before_a_reset(tiny, tmp_path):
    """The file of a session is bitwise that of one that never was beside, or behind, a text with a secret."""
    secret, other = Session(tiny.model, tiny.tokenizer), Session(tiny.model, tiny.tokenizer)
    alone = Session(tiny.model, tiny.tokenizer)
    for piece in ("My card is 4539 1488 0343 6467. ", "Call +44 20 7946 0018."):
        secret.feed(piece)
        secret.generate(max_new_tokens=3)
        other.feed(TEXT)
        alone.feed(TEXT)
    files = {}
    for name, each in {"secret": secret, "other": other, "alone": alone}.items():
        each.save(tmp_path / name)
        files[name] = (tmp_path / name).read_bytes()
    assert files["other"] == files["alone"] and files["secret"] != files["alone"]

    secret.reset()
    secret.feed(TEXT)
    secret.feed(TEXT)
    secret.save(tmp_path / "secret")
    assert (tmp_path / "secret").read_bytes() == files["alone"]


def test_memory_is_measured(session):
    [layer] = session.memory()
    assert layer["occupancy"] == 1.0 and sum(layer["write_gate_histogram"]) == pytest.approx(1.0)


LOAD = """
import sys
from tests.laws.rereading import Tiny
from memgpt_jax.generation import Session
tiny = Tiny()
session = Session.load(sys.argv[1], tiny.model, tiny.tokenizer)
sys.stdout.buffer.write(session.generate(max_new_tokens=30, temperature=9.0).encode())
"""


@pytest.mark.slow
def test_a_saved_session_continues_in_another_process(session, tiny, tmp_path, compiled_as_here):
    session.generate(max_new_tokens=5, temperature=9.0)
    session.save(tmp_path / "session")
    command = [sys.executable, "-c", LOAD, str(tmp_path / "session")]
    environment = compiled_as_here | {"PYTHONPATH": str(ROOT)}
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


@pytest.mark.parametrize("name", ["run [1]", "a*b?c", r"back\slash", "Brötchen 100% {x}", "x" * 200, "\udcff"])
def test_any_path_will_do(session, tiny, tmp_path, name):
    try:
        (tmp_path / name).mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"the file system has no such names: {error}")
    for place in (tmp_path / name / "session", tmp_path / name / name):
        for _ in range(2):  # the second replaces the first
            session.save(place)
            same_state(Session.load(place, tiny.model, tiny.tokenizer), session)


def damaged(content: bytes, bit: int) -> bytes:
    return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


def test_any_flipped_bit_is_found(session, tiny, tmp_path):
    path = tmp_path / "session"
    session.save(path)
    content, random = path.read_bytes(), np.random.default_rng(0)
    header = 8 + int.from_bytes(content[:8], "little")
    for bit in [*range(64), *random.integers(64, 8 * header, size=60), *random.integers(8 * len(content), size=40)]:
        path.write_bytes(damaged(content, int(bit)))
        with pytest.raises(checksums.DamagedError):
            Session.load(path, tiny.model, tiny.tokenizer)
    for cut in (0, 7, header, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(checksums.DamagedError):
            Session.load(path, tiny.model, tiny.tokenizer)


def test_a_file_that_is_no_session_is_refused(session, tiny, tmp_path):
    for content in (b"", save({"x": np.zeros(3)})):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(ValueError, match="is no session that this library wrote"):
            Session.load(tmp_path / "file", tiny.model, tiny.tokenizer)
        with pytest.raises(ValueError, match="exists and is not a session"):
            session.save(tmp_path / "file")


@pytest.mark.parametrize("call", ["Path.mkdir", "Path.write_bytes", "os.replace"])
def test_a_save_that_fails_leaves_the_session_before(session, tiny, tmp_path, monkeypatch, call):
    """Wherever the disk is full."""
    session.save(tmp_path / "session")
    before = session.fork()
    session.feed("more")
    holder, name = {"Path": Path, "os": os}[call.partition(".")[0]], call.partition(".")[2]

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(holder, name, full)
        with pytest.raises(ValueError, match="No space left"):
            session.save(tmp_path / "session")
    same_state(Session.load(tmp_path / "session", tiny.model, tiny.tokenizer), before)
    assert [path.name for path in tmp_path.iterdir()] == ["session"]
    session.save(tmp_path / "session")
    same_state(Session.load(tmp_path / "session", tiny.model, tiny.tokenizer), session)


def test_places_that_cannot_hold_a_session(session, tmp_path):
    (tmp_path / "file").write_text("")
    for place, message in (
        (tmp_path / "file", "exists and is not a session"),
        (tmp_path / "file" / "below", "the session cannot be written into .*below"),
        (tmp_path / ("x" * 300), "the session cannot be written into .*name too long"),
    ):
        with pytest.raises(ValueError, match=message):
            session.save(place)
    with pytest.raises(ValueError, match="there is no session in"):
        Session.load(tmp_path / "file" / "below", (session.config, session.params), session.tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_every_type_of_a_state_is_saved(tiny, tmp_path):
    config = dataclasses.replace(tiny.config, dtype="bfloat16")
    session = Session((config, tiny.params), tiny.tokenizer)
    session.state = jax.tree.map(jnp.ones_like, session.state)
    session.save(tmp_path / "session")
    loaded = Session.load(tmp_path / "session", (config, tiny.params), tiny.tokenizer)
    types = lambda session: [x.dtype for x in jax.tree.leaves(session.state)]  # noqa: E731
    assert types(loaded) == types(session) and "bfloat16" in map(str, types(session))
    same_state(loaded, session)


@pytest.mark.slow
def test_a_document_longer_than_its_learned_positions_is_refused(tiny):
    config = dataclasses.replace(tiny.config, position="learned", num_positions=20)
    model = config, random_params(config)
    session = Session(model, tiny.tokenizer)
    session.feed("x" * 9)
    for use in (lambda: session.feed("y" * 11), lambda: session.generate(max_new_tokens=11)):
        with pytest.raises(ValueError, match=r"num_positions=20 tokens.*may have 21 together"):
            use()
    session.feed("y" * 5)
    assert session.num_tokens == 15
    session.generate(max_new_tokens=5, ignore_eos=True)
    with pytest.raises(ValueError, match=r"num_positions=20 tokens.*may have 21 together"):
        generate(model, [[1, 2], [3] * 9], max_new_tokens=12)
    assert generate(model, [[3] * 9], max_new_tokens=11).ids.shape == (1, 20)
    state = generate(model, [[3] * 9], max_new_tokens=8).state
    for options in ({"max_new_tokens": 4}, {"max_length": 5}, {"max_new_tokens": 4, "num_beams": 2}):
        with pytest.raises(ValueError, match=r"num_positions=20 tokens.*may have 21 together"):
            generate(model, [[1]], state=state, **options)


@pytest.mark.parametrize("memory", [True, False])
def test_a_text_longer_than_a_pretrained_context_is_warned_of(tiny, memory):
    changes = {"context_length": 12} | ({} if memory else {"memory": NoMemoryConfig()})
    config = dataclasses.replace(tiny.config, **changes)
    session = Session((config, random_params(config)), tiny.tokenizer)
    generate((config, session.params), [[1] * 7], max_new_tokens=5)
    session.feed("x" * 7)
    expected = contextlib.nullcontext() if memory else pytest.warns(UserWarning, match="longer than context_length=12")
    for use in (lambda: session.generate(max_new_tokens=5, ignore_eos=True), lambda: session.feed("x" * 5)):
        with expected:
            use()
    with expected:
        generate((config, session.params), [[1] * 7], max_new_tokens=6)


def test_a_session_of_another_model_is_refused(session, tiny, tmp_path):
    session.save(tmp_path / "session")
    other = dataclasses.replace(tiny.config, window_size=9)
    with pytest.raises(ValueError, match="window_size: 6 → 9"):
        Session.load(tmp_path / "session", (other, tiny.params), tiny.tokenizer)
    with pytest.raises(ValueError, match="no session in"):
        Session.load(tmp_path, tiny.model, tiny.tokenizer)
