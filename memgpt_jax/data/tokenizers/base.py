"""The interface of tokenizers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np


class Tokenizer(Protocol):
    """A tokenizer: text to token ids and back.

    A tokenizer may also have `encode_pieces(pieces)`, which yields the ids of a text in pieces as arrays, whose
    concatenation is `encode` of the whole text; and, for dialogues, `control_ids`, the ids of its special tokens by
    their text, and `chat_template`, the Jinja template of its model or None; and `bytes_of(id)`, the bytes of an id
    that is perhaps a part of a character, or None if they are those of its text.
    """

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    @property
    def start_id(self) -> int:
        """The id at the start of every document: `bos_id` if there is one, else `eos_id` or the id of [CLS]. The
        marks of turns `<|im_start|>` and `<|im_end|>` start documents only if no other token can. `encode` never
        returns it."""
        ...

    @property
    def bos_id(self) -> int | None:
        """The id that begins a text; None: there is none."""
        ...

    @property
    def eos_id(self) -> int | None:
        """The id that ends a text; None: there is none."""
        ...

    @property
    def pad_id(self) -> int | None:
        """The id that pads rows of a batch; None: there is none."""
        ...

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end generated text by default: `eos_id`, and the stop ids of a generation_config.json."""
        ...

    @property
    def lossless(self) -> bool:
        """True if `decode(encode(text)) == text` for every text, and the `token_bytes` of its ids sum to its bytes."""
        ...

    @property
    def token_bytes(self) -> np.ndarray:
        """[vocab_size] int32: UTF-8 bytes of the text of each id; 0 for special ids. Exact if `lossless`."""
        ...

    @property
    def special_ids(self) -> Mapping[str, int]:
        """Ids of the special tokens `mask`, `cls` and `sep`, if the vocabulary has them."""
        ...

    @property
    def sentinel_ids(self) -> tuple[int, ...]:
        """Ids of T5's sentinels `<extra_id_0>`, `<extra_id_1>`, ..., up to the first that the vocabulary lacks."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash, equal for tokenizers that encode every text to the same ids."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without `start_id` and other special ids, except the id of unknown text.

        Raises `ValueError` if the text holds a lone surrogate.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special and unknown ids; invalid UTF-8 becomes U+FFFD."""
        ...

    def unfinished_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of an incomplete UTF-8 character at the end of the ids, which further ids may complete."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer into a folder, created if missing, for `read_tokenizer`; replaces any other tokenizer."""
        ...
