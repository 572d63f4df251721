"""States at the ends of messages, for later requests that begin with the same tokens."""

import hashlib
import itertools
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from memgpt_jax.generation.packing import pack, packed_bytes, unpack
from memgpt_jax.models import ModelState


class Prefixes:
    """States by the owner and the exact ids that they have read; the least recently used ones leave first.

    A memory cannot be cut: a state is of use at its last token alone. Owners do not share states, because the time of
    an answer would tell what others have asked.
    """

    def __init__(self, most_bytes: int):
        """Args: most_bytes: of all states; 0: none is kept."""
        self._most_bytes = most_bytes
        self._states: OrderedDict[bytes, Any] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0
        """Bytes of the states, which are packed."""

    def longest(self, owner: str, ids: list[int], ends: list[int]) -> tuple[int, ModelState] | None:
        """The longest known beginning of a document, of `ends` many tokens: its length and state."""
        for end, key in reversed(list(zip(ends, _keys(owner, ids, ends), strict=True))):
            with self._lock:
                packed = self._states.get(key)
                if packed is not None:
                    self._states.move_to_end(key)
            if packed is not None:
                return end, unpack(packed)
        return None

    def keep(self, owner: str, ids: list[int], state: ModelState) -> None:
        """Keep the state that has read a document of these ids."""
        [key] = _keys(owner, ids, [len(ids)])
        with self._lock:
            if key in self._states:
                self._states.move_to_end(key)
                return
        packed = pack(state, self._most_bytes) if self._most_bytes else None
        if packed is None:
            return
        with self._lock:
            if key in self._states:
                return
            self._states[key] = packed
            self.bytes += packed_bytes(packed)
            while self.bytes > self._most_bytes:
                self.bytes -= packed_bytes(self._states.popitem(last=False)[1])


def _keys(owner: str, ids: list[int], ends: list[int]) -> list[bytes]:
    """A key for the first `end` ids, for each of the rising `ends`."""
    digest, keys = hashlib.blake2b(owner.encode() + b"\0", digest_size=16), []
    for start, end in itertools.pairwise([0, *ends]):
        digest.update(np.array(ids[start:end], "<i4").tobytes())
        keys.append(digest.digest())
    return keys
