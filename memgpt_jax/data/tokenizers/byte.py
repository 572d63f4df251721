"""The byte tokenizer."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from memgpt_jax.data.tokenizers.files import JSON_FILE, refuse_surrogates, unfinished, write_tokenizer

CONTENT = {"tokenizer": "byte"}
"""The content of its tokenizer.json."""


class ByteTokenizer:
    """A tokenizer whose ids 0 to 255 are UTF-8 bytes; id 256 starts and ends documents."""

    vocab_size = 257
    start_id = bos_id = eos_id = 256
    pad_id: int | None = None
    stop_ids = (256,)
    lossless = True
    special_ids: Mapping[str, int] = MappingProxyType({})
    sentinel_ids: tuple[int, ...] = ()
    control_ids: Mapping[str, int] = MappingProxyType({})
    chat_template: str | None = None
    fingerprint = "byte"

    def __init__(self):
        self.token_bytes = np.ones(self.vocab_size, np.int32)
        self.token_bytes[self.start_id] = 0

    def encode(self, text: str) -> list[int]:
        """The UTF-8 bytes of a text. Raises `ValueError` if it holds a lone surrogate."""
        refuse_surrogates(text)
        return list(text.encode("utf-8"))

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        """The UTF-8 bytes of each piece of a text."""
        return (np.frombuffer(piece.encode("utf-8"), np.uint8) for piece in pieces)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of byte ids; other ids are ignored, and invalid UTF-8 becomes U+FFFD."""
        return bytes(token for token in map(int, ids) if 0 <= token < 256).decode("utf-8", "replace")

    def bytes_of(self, id: int) -> bytes:
        """The bytes of an id."""
        return bytes([id]) if 0 <= id < 256 else b""

    def unfinished_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of an incomplete UTF-8 character at the end of the ids."""
        return unfinished(bytes(token for token in ids if 0 <= token < 256)[-3:])

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` into the folder, replacing any other tokenizer."""
        write_tokenizer(folder, {JSON_FILE: (json.dumps(CONTENT) + "\n").encode()})
