"""The interface of tokenizers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np


class Tokenizer(Protocol):
    """Text to ids and back.

    A tokenizer may also have `encode_pieces(pieces)`, which yields the ids of a text in pieces as arrays, whose
    concatenation is `encode` of the whole text.
    """

    vocab_size: int
    """Number of ids."""
    start_id: int
    """The id that begins every document; no text is ever encoded to it."""
    bos_id: int | None
    """The id that begins a text; None: there is none."""
    eos_id: int | None
    """The id that ends a text; None: there is none."""
    pad_id: int | None
    """The id that pads rows of a batch; None: there is none."""
    stop_ids: tuple[int, ...]
    """The ids that end generated text by default: `eos_id`, and those that a generation_config.json adds."""
    lossless: bool
    """Whether `decode(encode(text)) == text` for every text, and `token_bytes` of its ids add up to its bytes."""
    token_bytes: np.ndarray
    """[vocab_size] int32: UTF-8 bytes of text that each id stands for; 0 for special ids. Exact if `lossless`."""
    special_ids: Mapping[str, int]
    """Ids of `mask`, `cls` and `sep`, as far as it has them."""
    sentinel_ids: tuple[int, ...]
    """Ids of T5's sentinels `<extra_id_0>`, `<extra_id_1>`, ..., as far as it has them."""
    fingerprint: str
    """Equal for tokenizers that encode every text to the same ids."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without `start_id`: no special ids, except that of unknown text.

        Raises `ValueError` where the text holds a lone surrogate.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special ids and ids that do not exist are left out, and broken UTF-8 becomes U+FFFD."""

    def unfinished_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes at the end of the ids that begin an incomplete character: further ids may complete it."""

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer into a folder, made if missing, for `read_tokenizer`; others there are removed."""
