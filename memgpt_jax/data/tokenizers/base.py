"""The protocol of tokenizers, the byte tokenizer, and loading a tokenizer from a folder or a file."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np

from memgpt_jax.data.tokenizers.files import (
    DEFINING,
    JSON_FILE,
    Settings,
    decoded,
    refuse_surrogates,
    unfinished,
    write_tokenizer,
)
from memgpt_jax.data.tokenizers.sentencepiece_file import (
    NotAModelError,
    SentencePieceTokenizer,
    ordinary_pieces,
    train_sentencepiece,
)
from memgpt_jax.files import checksums

__all__ = ["ByteTokenizer", "SentencePieceTokenizer", "Tokenizer", "load_saved_tokenizer", "train_sentencepiece"]

BYTES = {"tokenizer": "byte"}


class Tokenizer(Protocol):
    """Text to ids and back.

    A tokenizer may also have `encode_pieces(pieces)`, which yields the ids of a text in pieces as arrays, whose
    concatenation is `encode` of the whole text.
    """

    vocab_size: int
    """Number of ids."""
    document_id: int
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
        """The ids of a text, without `document_id`: no special ids, except that of unknown text.

        Raises `ValueError` where the text holds a lone surrogate.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special ids and ids that do not exist are left out, and broken UTF-8 becomes U+FFFD."""

    def unfinished_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes at the end of the ids that begin an incomplete character: further ids may complete it."""

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer into a folder, made if missing, for `load_saved_tokenizer`; others there are removed."""


class ByteTokenizer:
    """Ids 0 to 255 are UTF-8 bytes; 256 begins a document."""

    vocab_size = 257
    document_id = bos_id = eos_id = 256
    pad_id: int | None = None
    stop_ids = (256,)
    lossless = True
    special_ids: Mapping[str, int] = MappingProxyType({})
    sentinel_ids: tuple[int, ...] = ()
    fingerprint = "byte"

    def __init__(self):
        self.token_bytes = np.ones(self.vocab_size, np.int32)
        self.token_bytes[self.document_id] = 0

    def encode(self, text: str) -> list[int]:
        """The UTF-8 bytes of a text. Raises `ValueError` where it holds a lone surrogate."""
        refuse_surrogates(text)
        return list(text.encode("utf-8"))

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        """The UTF-8 bytes of each piece of a text."""
        return (np.frombuffer(piece.encode("utf-8"), np.uint8) for piece in pieces)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of bytes; other ids are left out, and bytes that are not UTF-8 become U+FFFD."""
        return bytes(token for token in map(int, ids) if 0 <= token < 256).decode("utf-8", "replace")

    def unfinished_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes at the end of the ids that are a character's beginning."""
        return unfinished(bytes(token for token in ids if 0 <= token < 256)[-3:])

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` into the folder; other tokenizers there are removed."""
        write_tokenizer(folder, {JSON_FILE: (json.dumps(BYTES) + "\n").encode()})


def load_saved_tokenizer(source: str | Path) -> Tokenizer:
    """The tokenizer that `save` wrote into a folder, or that a pretrained model has.

    Args: source: a folder with a `tokenizer.json`, a sentencepiece model or a GGUF file; or such a file. If a folder
    has a `tokenizer.json` and a sentencepiece model with the same pieces, the former is read.

    Raises `ValueError` if there is none, it cannot be read, or two in the folder contradict each other; `DamagedError`,
    which is one, if a file differs from its recorded checksum.
    """
    path = Path(source)
    try:
        return _load_folder(path) if path.is_dir() else _load(path)
    except OSError as error:
        raise ValueError(f"{error.filename or path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from None


def _load(path: Path) -> Tokenizer:
    if path.suffix == ".gguf":
        from memgpt_jax.data.tokenizers.gguf_file import from_gguf

        return from_gguf(path)
    if path.suffix != ".model" and path.name != JSON_FILE:
        raise ValueError(f"{path} is no tokenizer: neither {JSON_FILE} nor a .model or .gguf file")
    checksums.verify(path.parent, [path.name])
    content = path.read_bytes()
    if path.suffix == ".model":
        settings = Settings.of_folder(path.parent) if path.name in DEFINING else None
        try:
            return SentencePieceTokenizer(content, settings)
        except NotAModelError as error:
            raise ValueError(f"{path} is not a sentencepiece model: {error}") from None
    if b"".join(content.split()) == json.dumps(BYTES, separators=(",", ":")).encode():
        return ByteTokenizer()
    from memgpt_jax.data.tokenizers.json_file import JsonTokenizer

    return JsonTokenizer(decoded(path.name, content), settings=Settings.of_folder(path.parent))


def _load_folder(folder: Path) -> Tokenizer:
    """The tokenizer of a folder. Raises `ValueError` if several files hold different tokenizers."""
    files = [folder / name for name in DEFINING if (folder / name).is_file()]
    models = [file for file in files if file.suffix == ".model"]
    ggufs = sorted(folder.glob("*.gguf"))
    if not files and len(ggufs) > 1 and "-00001-of-" not in ggufs[0].name:
        raise ValueError(f"{folder} holds several GGUF files: {', '.join(file.name for file in ggufs)}; name one")
    if not files + ggufs:
        raise ValueError(f"{folder} holds no tokenizer: none of {', '.join(DEFINING)}, nor a .gguf file")
    tokenizer = _load((files + ggufs)[0])
    first, *others = models or [None]
    wrong = [file for file in others if file.read_bytes() != first.read_bytes()]
    if first is not None and first != files[0] and not _agree(tokenizer, first):
        wrong.append(files[0])
    if wrong:
        raise ValueError(
            f"{folder} holds two tokenizers that contradict each other, {wrong[0].name} and {first.name}: remove the "
            "one that does not belong to the model"
        )
    return tokenizer


def _agree(tokenizer: Tokenizer, model: Path) -> bool:
    """Whether the tokenizer of a tokenizer.json has nearly all pieces of a sentencepiece model."""
    if isinstance(tokenizer, ByteTokenizer):
        return False
    try:
        pieces = ordinary_pieces(model.read_bytes())
    except ValueError:  # no model, such as a file that Git LFS has not fetched
        return True
    known = tokenizer.tokenizer.get_vocab()
    return sum(piece in known for piece in pieces) >= 0.9 * len(pieces)
