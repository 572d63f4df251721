"""Documents in folders and buckets: those of fsspec's `memory://`, and those of moto, which speaks S3's protocol.

The tests of S3 need `pip install moto[server] s3fs`, which the extra `dev` does not bring.
"""

import importlib.util
import itertools
import os
import time
from dataclasses import replace

import httpx2 as httpx
import pytest

from memgpt_jax.serving.objects import Objects
from memgpt_jax.serving.store import NotFoundError
from tests.serving.conftest import served
from tests.serving.test_documents import entry, store

HAS_S3 = all(importlib.util.find_spec(name) for name in ("moto", "s3fs", "flask"))
S3 = pytest.param("s3", marks=[pytest.mark.slow, pytest.mark.skipif(not HAS_S3, reason="moto or s3fs is missing")])
numbers = itertools.count()


@pytest.fixture(scope="module")
def bucket():
    """The name of a bucket of a server on this machine, which the variables of the environment name."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("DEFAULT_REGION", "us-east-1")):
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        boto3.client("s3").create_bucket(Bucket="documents")
        yield "documents"
    server.stop()


@pytest.fixture(params=["folder", "memory", S3])
def address(request, tmp_path):
    """An empty place of each kind."""
    if request.param == "folder":
        return str(tmp_path / "a" / "b")
    if request.param == "memory":
        return f"memory://sessions{next(numbers)}"
    return f"s3://{request.getfixturevalue('bucket')}/sessions{next(numbers)}"


def test_what_one_server_writes_another_reads(address):
    """At once, even if it has asked before; what is removed is gone for both."""
    one, other = Objects(address), Objects(address)
    assert other.read("a/x") is None and other.read("probe") is None
    one.write("a/x", b"content")
    assert other.read("a/x") == b"content" and other.read("a/y") is None and other.read("x") is None
    one.write("a/empty", b"")
    assert other.read("a/empty") == b""
    for _ in range(2):
        other.delete("a/x")
    assert one.read("a/x") is None and one.read("a/empty") == b""


def test_two_stores_of_one_place(address, monkeypatch):
    """Each has what the other has put, for its owner alone, until it is deleted or too old."""
    import memgpt_jax.serving.store as module

    one, other, new = store(address), store(address), entry(3)
    with pytest.raises(NotFoundError):
        other.get(new.id, "a")
    one.put(new)
    assert other.get(new.id, "a").document.num_tokens == 3
    with pytest.raises(NotFoundError):
        store(address).get(new.id, "b")
    other.delete(new.id, "a")
    with pytest.raises(NotFoundError):
        store(address).get(new.id, "a")
    one.put(old := entry(4))
    now = module.time.time()
    with monkeypatch.context() as patch:
        patch.setattr(module.time, "time", lambda: now + 61)
        with pytest.raises(NotFoundError):
            store(address).get(old.id, "a")
    assert Objects(address).read(f"a/{old.id}.safetensors") is None


def test_what_nobody_asks_for_is_removed(address, monkeypatch):
    """Objects that are too old, from any store of the place; new ones and other files stay."""
    import memgpt_jax.serving.store as module

    one, other, owner, files = store(address), store(address), "0" * 32, Objects(address)
    olds = [replace(entry(size), owner=owner) for size in (3, 4)]
    for old in olds:
        one.put(old)
    files.write("notes.txt", b"of someone else")
    names = {f"{owner}/{old.id}.safetensors" for old in olds}
    assert other.sweep() == 0 and set(files.names()) == names | {"notes.txt"}
    now = module.time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 61)
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 61)
    assert other.sweep() == 2 and files.names() == ["notes.txt"] and one.sweep() == len(one) == 0
    for old in olds:
        with pytest.raises(NotFoundError):
            one.get(old.id, owner)


def test_a_server_removes_what_is_old_at_its_start(tiny, tmp_path):
    folder, owner = tmp_path / "sessions", "0" * 32
    old, new = (folder / owner / f"sess_{digit * 32}.safetensors" for digit in "ab")
    old.parent.mkdir(parents=True)
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    with served(tiny, sessions=str(folder)):
        deadline = time.monotonic() + 10
        while old.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert new.exists() and not old.exists()


def test_a_reader_during_a_deletion_does_not_bring_a_document_back(tmp_path, monkeypatch):
    """Each part of the deletion may meet a reader in another thread."""
    docs, new = store(str(tmp_path)), entry(3)
    docs.put(new)
    delete, read = docs._objects.delete, docs._objects.read

    def delete_while_it_is_read(name):
        docs.get(new.id, "a")
        delete(name)

    monkeypatch.setattr(docs._objects, "delete", delete_while_it_is_read)
    docs.delete(new.id, "a")
    with pytest.raises(NotFoundError):
        docs.get(new.id, "a")

    docs.put(new)
    docs._remove(new.id)  # it has left memory

    def read_while_it_is_deleted(name):
        content = read(name)
        monkeypatch.setattr(docs._objects, "read", read)
        docs.delete(new.id, "a")
        return content

    monkeypatch.setattr(docs._objects, "delete", delete)
    monkeypatch.setattr(docs._objects, "read", read_while_it_is_deleted)
    assert docs.get(new.id, "a").document.num_tokens == 3  # it was read before
    with pytest.raises(NotFoundError):
        docs.get(new.id, "a")


def test_an_address_that_cannot_be_used(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere://x cannot be reached: Protocol not known: nowhere"):
        Objects("nowhere://x")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        Objects(str(tmp_path / "file" / "folder"))


@pytest.mark.slow
@pytest.mark.skipif(not HAS_S3, reason="moto or s3fs is missing")
def test_a_bucket_that_is_not_there(bucket):
    """It is not created: its name is perhaps mistyped."""
    with pytest.raises(OSError, match="bucket does not exist"):
        Objects("s3://another/sessions")


@pytest.mark.slow
@pytest.mark.skipif(not HAS_S3, reason="moto or s3fs is missing")
def test_half_a_conversation_on_each_server_of_a_bucket(tiny, bucket):
    """It is the conversation with one."""
    address, texts = f"s3://{bucket}/conversation", ("one", " two", " three", " four")
    with served(tiny, slots=1, sessions=address) as (_, first), served(tiny, slots=1, sessions=address) as (_, second):

        def conversation(ports):
            session, answers = None, []
            for port, text in zip(ports, texts, strict=False):
                body = {"input": text, "previous_response_id": session, "temperature": 0, "max_output_tokens": 5}
                answer = httpx.post(f"http://127.0.0.1:{port}/v1/responses", json=body, timeout=60)
                assert answer.status_code == 200, answer.text
                session = answer.json()["id"]
                answers.append(answer.json()["output"][0]["content"][0]["text"])
            return answers

        assert conversation(itertools.cycle((first, second))) == conversation(itertools.repeat(first))
