"""Tokenizers: bytes, and sentencepiece BPE that gives every text back exactly."""

import hashlib
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np

from memgpt_jax.data.pieces import cut_anew, last_word

MODEL_FILE = "tokenizer.model"
BYTE_FILE = "tokenizer.json"
BYTES = {"tokenizer": "byte"}

# sentencepiece writes spaces as U+2581, so a U+2581 of the text would come back as a space. It is escaped by two
# symbols of its own, which begin with a private-use character that is escaped too.
SPACE_MARK = "\u2581"
ESCAPE = "\ue000"
ESCAPED_SPACE_MARK = ESCAPE + "a"
ESCAPED_ESCAPE = ESCAPE + "b"

TRAINING_CHARACTERS = 10_000_000
LONGEST_LINE = 8192


class Tokenizer(Protocol):
    """Text to ids and back.

    One that can encode a text in pieces has a method `encode_pieces(pieces)` too, which yields the ids of a text that
    comes in pieces, as arrays whose concatenation is `encode` of the whole.
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
    """Whether `decode(encode(text)) == text` for every text."""
    token_bytes: np.ndarray
    """[vocab_size] int32: UTF-8 bytes of text that each id stands for; 0 for special ids."""
    special_ids: Mapping[str, int]
    """Ids of `mask`, `cls` and `sep`, of those that it has."""
    fingerprint: str
    """Equal for tokenizers that encode alike."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without `document_id`."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special ids are left out, and bytes that are not UTF-8 become U+FFFD."""

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer into a folder, made if missing, for `load_saved_tokenizer`."""


class ByteTokenizer:
    """Ids 0 to 255 are UTF-8 bytes; 256 begins a document."""

    vocab_size = 257
    document_id = bos_id = eos_id = 256
    pad_id: int | None = None
    stop_ids = (256,)
    lossless = True
    special_ids: Mapping[str, int] = MappingProxyType({})
    fingerprint = "byte"

    def __init__(self):
        self.token_bytes = np.ones(self.vocab_size, np.int32)
        self.token_bytes[self.document_id] = 0

    def encode(self, text: str) -> list[int]:
        """The UTF-8 bytes of a text."""
        return list(text.encode("utf-8"))

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        """The UTF-8 bytes of each piece of a text."""
        return (np.frombuffer(piece.encode("utf-8"), np.uint8) for piece in pieces)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of bytes; `document_id` is left out, and bytes that are not UTF-8 become U+FFFD."""
        return bytes(int(token) for token in ids if token != self.document_id).decode("utf-8", "replace")

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` into the folder."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / BYTE_FILE).write_text(json.dumps(BYTES) + "\n")


class SentencePieceTokenizer:
    """A sentencepiece model.

    One from `train` is lossless: `decode(encode(text)) == text` for every text. So is any other model that has byte
    fallback and neither normalises nor adds a space, but for a literal U+2581, which it gives back as a space.
    """

    special_ids: Mapping[str, int] = MappingProxyType({})

    def __init__(self, model: bytes):
        """Args: model: the content of a `.model` file. Raises `ValueError` where it has no special id to use."""
        import sentencepiece

        self.model = model
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self.processor.vocab_size()
        self.document_id = next((i for i in (self.processor.bos_id(), self.processor.eos_id()) if i >= 0), -1)
        if self.document_id < 0:
            raise ValueError("the sentencepiece model has neither a begin nor an end symbol to begin documents with")
        self.escapes = self.processor.id_to_piece(self.processor.piece_to_id(ESCAPED_ESCAPE)) == ESCAPED_ESCAPE
        self.token_bytes = np.array([self._bytes_of(token) for token in range(self.vocab_size)], np.int32)
        self.fingerprint = hashlib.blake2b(model, digest_size=8).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without `document_id`."""
        if not self.escapes:
            return self.processor.encode(text)
        # No id reaches across a newline, so a text is the sum of its lines, which is three times as fast.
        return list(itertools.chain.from_iterable(self.processor.encode(_lines(_escape(text)))))

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        """The ids of a text in pieces, as arrays; of the whole text at once, unless this is a model from `train`."""
        # Of such a model, no id reaches across a newline, or from another character to a space.
        texts = cut_anew(pieces, last_word) if self.escapes else ["".join(pieces)]
        return (np.array(self.encode(text), np.int32) for text in texts)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special ids are left out, and bytes that are not UTF-8 become U+FFFD."""
        text = self.processor.decode([int(token) for token in ids if not self.processor.is_control(int(token))])
        if self.escapes:
            text = text.replace(ESCAPED_SPACE_MARK, SPACE_MARK).replace(ESCAPED_ESCAPE, ESCAPE)
        return text

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.model` into the folder."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / MODEL_FILE).write_bytes(self.model)

    def _bytes_of(self, token: int) -> int:
        if self.processor.is_byte(token):
            return 1
        if self.processor.is_control(token) or self.processor.is_unknown(token):
            return 0
        piece = self.processor.id_to_piece(token)
        if self.escapes and piece in (ESCAPED_SPACE_MARK, ESCAPED_ESCAPE):
            return 3
        return len(piece.replace(SPACE_MARK, " ").encode("utf-8"))


def train_sentencepiece(texts: Iterable[str], vocab_size: int) -> SentencePieceTokenizer:
    """Train a lossless BPE model on the first 10 million characters of the texts.

    Newlines are ids of their own, runs of spaces may be one id, and what is rare is spelt in bytes. The same texts
    give the same model. Raises `ValueError` where the texts do not support the vocabulary.
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_training_lines(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            user_defined_symbols=["\n", ESCAPED_SPACE_MARK, ESCAPED_ESCAPE],
            max_sentence_length=8 * LONGEST_LINE,
            unk_id=0,
            bos_id=1,
            bos_piece="<document>",
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(f"data.tokenizer_vocab_size={vocab_size} does not fit the training text: {error}") from None
    return SentencePieceTokenizer(model.getvalue())


def load_saved_tokenizer(source: str | Path) -> Tokenizer:
    """The tokenizer that `save` wrote into a folder, or that a pretrained model has.

    Args: source: a folder with a `tokenizer.json`, a sentencepiece model or a GGUF file; or such a file.

    Raises `ValueError` where there is none, or it cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        names = (BYTE_FILE, MODEL_FILE, "spiece.model", "sentencepiece.bpe.model")
        files = [path / name for name in names if (path / name).is_file()] or sorted(path.glob("*.gguf"))
        if not files:
            raise ValueError(f"{path} holds no tokenizer: none of {', '.join(names)}, nor a .gguf file")
        path = files[0]
    if path.suffix == ".gguf":
        from memgpt_jax.data.tokenizer_gguf import from_gguf

        return from_gguf(path)
    if path.suffix == ".model":
        try:
            return SentencePieceTokenizer(path.read_bytes())
        except RuntimeError as error:
            raise ValueError(f"{path} is not a sentencepiece model: {error}") from None
    if path.name == BYTE_FILE and json.loads(path.read_text(encoding="utf-8")) == BYTES:
        return ByteTokenizer()
    if path.name == BYTE_FILE:
        from memgpt_jax.data.tokenizer_json import from_folder

        return from_folder(path.parent)
    raise ValueError(f"{path} is no tokenizer: neither {BYTE_FILE} nor a .model or .gguf file")


def _escape(text: str) -> str:
    return text.replace(ESCAPE, ESCAPED_ESCAPE).replace(SPACE_MARK, ESCAPED_SPACE_MARK)


def _lines(text: str) -> list[str]:
    """The text cut after each newline, and nowhere else."""
    return list(io.StringIO(text, newline="\n"))


def _training_lines(texts: Iterable[str]) -> Iterator[str]:
    left = TRAINING_CHARACTERS
    for text in texts:
        for line in _lines(_escape(text[:left])):
            for start in range(0, len(line), LONGEST_LINE):
                yield line[start : start + LONGEST_LINE]
        left -= len(text)
        if left <= 0:
            return
