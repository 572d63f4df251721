"""The interface of tokenizers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np


class Tokenizer(Protocol):
    """A tokenizer: text to token ids and back.

    A tokenizer may also have `encode_pieces(pieces)`, which yields the ids of a text in pieces as arrays, whose
    concatenation is `encode` of the whole text.
    """

    vocab_size: int
    """Number of ids."""
    start_id: int
    """The id at the start of every document: `bos_id` if there is one, else `eos_id` or the id of [CLS]. `encode` never
    returns it."""
    bos_id: int | None
    """The id that begins a text; None: there is none."""
    eos_id: int | None
    """The id that ends a text; None: there is none."""
    pad_id: int | None
    """The id that pads rows of a batch; None: there is none."""
    stop_ids: tuple[int, ...]
    """The ids that end generated text by default: `eos_id`, and the stop ids of a generation_config.json."""
    lossless: bool
    """True if `decode(encode(text)) == text` for every text, and the `token_bytes` of its ids sum to its bytes."""
    token_bytes: np.ndarray
    """[vocab_size] int32: UTF-8 bytes of the text of each id; 0 for special ids. Exact if `lossless`."""
    special_ids: Mapping[str, int]
    """Ids of the special tokens `mask`, `cls` and `sep`, if the vocabulary has them."""
    sentinel_ids: tuple[int, ...]
    """Ids of T5's sentinels `<extra_id_0>`, `<extra_id_1>`, ..., up to the first that the vocabulary lacks."""
    fingerprint: str
    """A hash, equal for tokenizers that encode every text to the same ids."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without `start_id` and other special ids, except the id of unknown text.

        Raises `ValueError` if the text holds a lone surrogate.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special and unknown ids; invalid UTF-8 becomes U+FFFD."""

    def unfinished_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of an incomplete UTF-8 character at the end of the ids, which further ids may complete."""

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer into a folder, created if missing, for `read_tokenizer`; replaces any other tokenizer."""
