"""Documents by id: in the memory of the host, and each in one immutable object of a folder or a bucket."""

import hashlib
import json
import logging
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from memgpt_jax.generation.document import Document
from memgpt_jax.generation.packing import pack, packed_bytes, unpack
from memgpt_jax.serving.objects import Objects

logger = logging.getLogger(__name__)

IDS = re.compile(r"(resp|sess)_[0-9a-f]{32}")
"""Other ids are not looked for in the folder."""
OBJECTS = re.compile(rf"[0-9a-f]{{32}}/{IDS.pattern}\.safetensors(\.partial)?")
"""The names of objects, and of those that a server could not finish."""


BYTES_OF_ID = 64
"""An integer of Python and its place in a set."""


class NotFoundError(Exception):
    """There is no such id, or another key made it."""


class UnreadableError(Exception):
    """An object is damaged, or belongs to another model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """What an id names. It is never modified."""

    id: str
    owner: str
    document: Document
    root: str
    """The id of the first document of the chain; its own for the first."""
    parent: str | None = None
    """The id of the document that this one continues."""
    response: dict[str, Any] = field(default_factory=dict)
    """The object that was returned, for `GET`."""
    items: list[dict[str, Any]] = field(default_factory=list)
    """The input items of a response."""
    instructions: str | None = None
    """What the document begins with, for the responses that continue it."""
    created: float = field(default_factory=time.time)

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(self.document.state))


class _Kept(NamedTuple):
    """An entry in memory."""

    entry: Entry
    """Without its state."""
    packed: Any
    """Its state, by `pack`."""
    bytes: int
    """Of all that."""
    used: float
    """When it was used last, on the clock of `time.monotonic`."""


Encode = Callable[[Document, dict[str, Any]], bytes]
Decode = Callable[[bytes, str], tuple[Document, dict[str, Any]]]


def new_id(kind: str) -> str:
    """A random id of 128 bits: `resp_...` or `sess_...`."""
    return f"{kind}_{secrets.token_hex(16)}"


def owner_of(key: str) -> str:
    """The name of the folder of an API key, from which the key cannot be found."""
    return hashlib.sha256(b"memgpt_jax" + key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Store:
    """Entries by id, each visible to the owner that made it alone.

    The most recently used ones are in the memory of the host. With a folder, each is one object there before `put`
    returns, so that a replica or a later process finds it.
    """

    def __init__(self, folder: str | None, *, memory_bytes: int, seconds: float, encode: Encode, decode: Decode):
        """Args:
        folder: where the objects are: a path, or an address such as gs://bucket/sessions; None: nowhere.
        memory_bytes: of the entries in memory; the least recently used ones leave first.
        seconds: an entry is removed that long after its last use, and its object that long after it was written.
        encode: the content of an object, of a document and notes.
        decode: the reverse; the second argument is the object's name.
        """
        self._objects = None if folder is None else Objects(folder)
        self._memory_bytes, self._seconds = memory_bytes, seconds
        self._encode, self._decode = encode, decode
        self._entries: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._deletions = 0
        self.bytes = 0
        """Bytes of the entries in memory, whose states are packed; those beside the states are estimates."""

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entry: Entry) -> None:
        """Keep an entry. Raises `OSError` if its object cannot be written; it is then not kept."""
        if self._objects is not None:
            names = ("root", "parent", "response", "items", "instructions", "created")
            notes = {name: getattr(entry, name) for name in names}
            self._objects.write(_name(entry.id, entry.owner), self._encode(entry.document, notes))
        self._keep(entry)

    def get(self, id: str, owner: str) -> Entry:
        """The entry of an id.

        Raises:
            NotFoundError: there is none, or another key made it.
            UnreadableError: its object is damaged, or belongs to another model, as its cause says.
        """
        with self._lock:
            self._expire()
            deletions = self._deletions
            found = self._entries.get(id)
            if found is not None:
                if found.entry.owner != owner:
                    raise NotFoundError(id)
                self._entries[id] = found._replace(used=time.monotonic())
                self._entries.move_to_end(id)
        if found is not None:
            return replace(found.entry, document=found.entry.document._replace(state=unpack(found.packed)))
        entry = self._read(id, owner)
        if entry is None:
            raise NotFoundError(id)
        self._keep(entry, deletions)
        return entry

    def delete(self, id: str, owner: str) -> None:
        """Remove an entry and its object, which may be damaged. Raises `NotFoundError`."""
        with self._lock:
            self._expire()
            kept = self._entries.get(id)
        is_ours = kept is not None and kept.entry.owner == owner
        if not is_ours and self._content(id, owner) is None:
            raise NotFoundError(id)
        if self._objects is not None:
            self._objects.delete(_name(id, owner))
        with self._lock:
            self._remove(id)
            self._deletions += 1

    def sweep(self) -> int:
        """Remove the entries and objects that are too old, also those that nobody asks for; returns how many objects.

        Other files in the folder stay. An object that cannot be removed is reported in the log. Raises the errors of
        `Objects.names`.
        """
        with self._lock:
            self._expire()
        if self._objects is None:
            return 0
        limit, removed = time.time() - self._seconds, 0
        for name in filter(OBJECTS.fullmatch, self._objects.names()):
            try:
                if self._objects.written(name) < limit:
                    self._objects.delete(name)
                    removed += 1
            except FileNotFoundError:  # another server has removed it
                continue
            except Exception:  # of any kind: the file systems of fsspec have errors of their own
                logger.exception("%s may be too old, but could not be removed", name)
        return removed

    def _keep(self, entry: Entry, deletions: int | None = None) -> None:
        """Keep an entry in memory, unless there have been more `deletions` since it was read: it may be among them."""
        packed = pack(entry.document.state)
        size = packed_bytes(packed) + _bytes_beside_the_state(entry)
        empty: Any = ()
        with self._lock:
            if deletions not in (None, self._deletions):
                return
            self._remove(entry.id)
            stateless = replace(entry, document=entry.document._replace(state=empty))
            self._entries[entry.id] = _Kept(stateless, packed, size, time.monotonic())
            self.bytes += size
            self._expire()

    def _remove(self, id: str) -> None:
        found = self._entries.pop(id, None)
        self.bytes -= 0 if found is None else found.bytes

    def _expire(self) -> None:
        """Remove the entries that are old, and the least recently used ones beyond the budget, but for the last."""
        now = time.monotonic()
        for id, kept in list(self._entries.items()):
            is_old = kept.used + self._seconds <= now
            if not is_old and (self.bytes <= self._memory_bytes or len(self._entries) == 1):
                break
            self._remove(id)

    def _read(self, id: str, owner: str) -> Entry | None:
        """The entry of an object; None: there is none, or it is too old."""
        content = self._content(id, owner)
        if self._objects is None or content is None:
            return None
        try:
            document, notes = self._decode(content, id)
            notes.setdefault("instructions", notes["response"].get("instructions"))  # older versions wrote no others
            entry = Entry(id=id, owner=owner, document=document, **notes)
        except (ValueError, KeyError, TypeError) as error:  # its notes may be those of a file of someone else
            raise UnreadableError(id) from error
        if entry.created + self._seconds < time.time():
            self._objects.delete(_name(id, owner))
            return None
        return entry

    def _content(self, id: str, owner: str) -> bytes | None:
        """The content of an object; None: there is none."""
        if self._objects is None or not IDS.fullmatch(id):  # only an id of our form becomes a part of a name
            return None
        return self._objects.read(_name(id, owner))


def on_host(document: Document) -> Document:
    """The document with its state in the memory of the host."""
    return document._replace(state=jax.device_get(document.state))


def _bytes_beside_the_state(entry: Entry) -> int:
    """About the bytes of the JSON values and of the ids."""
    document, values = entry.document, [entry.response, entry.items, entry.instructions]
    ids = len(document.penalized_ids) + len(document.context) + len(document.unfinished)
    return len(json.dumps(values, ensure_ascii=False).encode("utf-8", "replace")) + BYTES_OF_ID * ids


def _name(id: str, owner: str) -> str:
    """The name of the object of an id."""
    return f"{owner}/{id}.safetensors"
