"""Sentencepiece models: lossless ones that are trained here, and pretrained ones."""

import hashlib
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from memgpt_jax.data.tokenizers.files import (
    MODEL_FILE,
    Settings,
    refuse_surrogates,
    sentinels,
    unfinished,
    write_tokenizer,
)
from memgpt_jax.data.tokenizers.pieces import last_word, resplit

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # kinds of pieces
BPE = 2  # the kind of model

# sentencepiece writes spaces as U+2581, so a U+2581 of the text would come back as a space. It is escaped by two
# extra symbols, which begin with a private-use character that is escaped too.
SPACE_MARK = "\u2581"
ESCAPE = "\ue000"
ESCAPED_SPACE_MARK = ESCAPE + "a"
ESCAPED_ESCAPE = ESCAPE + "b"
ESCAPES = {ESCAPED_SPACE_MARK: SPACE_MARK, ESCAPED_ESCAPE: ESCAPE}

TRAINING_CHARACTERS = 10_000_000
LONGEST_LINE = 8192


class NotAModelError(ValueError):
    """The content of a file is not a sentencepiece model."""


class SentencePieceTokenizer:
    """A sentencepiece model.

    A model from `train_sentencepiece` is lossless. Other models decode a literal U+2581 to a space. `encode` never
    returns ids that only the files beside the model define.
    """

    special_ids: Mapping[str, int] = MappingProxyType({})

    def __init__(self, model: bytes, settings: Settings | None = None):
        """Args: model: the content of a `.model` file; settings: the files beside it.

        Raises `ValueError` if it is not a model, or has no special id that can begin documents.
        """
        import sentencepiece

        self.model, self._settings = model, settings or Settings()
        proto = _parsed(model)
        hidden = _hide_special_pieces(proto, self._settings.special())
        try:
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        except RuntimeError as error:
            raise NotAModelError(str(error)) from None
        numbers = {piece.piece: i for i, piece in enumerate(proto.pieces)}
        self._kinds = [piece.type for piece in proto.pieces]
        added = {text: entry for text, entry in self._settings.added.items() if entry[0] >= len(numbers)}
        self.vocab_size = 1 + max([len(numbers) - 1, *(token for token, _ in added.values())])
        self.escapes = all(numbers.get(text) is not None for text in ESCAPES)
        self.lossless = _is_lossless(proto, numbers)
        self._texts = {numbers[escaped]: text for escaped, text in ESCAPES.items()} if self.escapes else {}
        self._texts |= {token: text for text, (token, special) in added.items() if not special}
        self.token_bytes = np.zeros(self.vocab_size, np.int32)
        for token, piece in enumerate(proto.pieces):
            self.token_bytes[token] = _bytes_of(piece)
        for token, text in self._texts.items():
            self.token_bytes[token] = len(text.encode("utf-8"))

        ids = {text: token for text, (token, _) in added.items()} | {
            text: token for text, token in numbers.items() if self._kinds[token] in (UNKNOWN, CONTROL)
        }
        self.control_ids, self.chat_template = ids, self._settings.chat_template
        own = {role: getattr(self.processor, f"{role}_id")() for role in ("bos", "eos", "pad")}
        own = {role: token for role, token in own.items() if token >= 0}
        if self.escapes and "bos" in own:  # trained here: the id that starts a document ends the document before it
            own["eos"] = own["bos"]
        roles = self._settings.roles(ids, self.vocab_size, own)
        self.bos_id, self.eos_id, self.pad_id, self.stop_ids = roles
        begins = [token for token in (self.bos_id, self.eos_id, own.get("bos"), own.get("eos")) if token is not None]
        begins = [token for token in begins if token != self.processor.unk_id()]
        if not begins:
            raise ValueError("the sentencepiece model needs a begin or an end symbol, which starts documents")
        self.start_id = begins[0]
        self.sentinel_ids = sentinels(ids)
        self._anchor = next((i for i, kind in enumerate(self._kinds) if kind in (NORMAL, BYTE)), None)
        plain = not hidden and not added and self.start_id == next(iter(own.values()), None)
        whole = model if plain else model + repr((hidden, sorted(added.items()), self.start_id)).encode()
        self.fingerprint = hashlib.blake2b(whole, digest_size=8).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without `start_id`. Raises `ValueError` if it holds a lone surrogate."""
        refuse_surrogates(text)
        if not self.escapes:
            return self.processor.encode(text)
        # No id spans a newline, so lines can be encoded separately, which is three times as fast.
        return list(itertools.chain.from_iterable(self.processor.encode(_lines(_escape(text)))))

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        """The ids of a text in pieces, as arrays; one array if the model is not from `train_sentencepiece`."""
        # In such a model, no id spans a newline, or another character and a space after it.
        texts = resplit(pieces, last_word) if self.escapes else ["".join(pieces)]
        return (np.array(self.encode(text), np.int32) for text in texts)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special and unknown ids; invalid UTF-8 becomes U+FFFD."""
        parts: list[str] = []
        known = (int(token) for token in ids if self._has_text(int(token)))
        for text, group in itertools.groupby(known, self._texts.get):
            pieces = list(group)
            parts.append(self._decode_pieces(pieces, bool(parts)) if text is None else text * len(pieces))
        return "".join(parts)

    def bytes_of(self, id: int) -> bytes | None:
        """The byte of an id that is one; None: its bytes are those of its text."""
        is_byte = self._has_text(id) and id not in self._texts and self._kinds[id] == BYTE
        return bytes([int(self.processor.id_to_piece(id)[3:5], 16)]) if is_byte else None

    def unfinished_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of an incomplete UTF-8 character at the end of the ids."""
        known = (token for token in reversed(ids) if self._has_text(token))
        ending = itertools.takewhile(lambda own: own is not None, map(self.bytes_of, known))
        return unfinished(b"".join(reversed([own for own in itertools.islice(ending, 3) if own is not None])))

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.model` and the files beside it into the folder, replacing any other tokenizer."""
        write_tokenizer(folder, {MODEL_FILE: self.model} | self._settings.files)

    def _has_text(self, token: int) -> bool:
        return token in self._texts or (0 <= token < len(self._kinds) and self._kinds[token] != CONTROL)

    def _decode_pieces(self, ids: list[int], inside: bool) -> str:
        """The text of pieces. Args: inside: whether other text precedes them, so that a leading space is kept."""
        if not inside or self._anchor is None:
            return self.processor.decode(ids)
        return self.processor.decode([self._anchor, *ids])[len(self.processor.decode([self._anchor])) :]


def train_sentencepiece(texts: Iterable[str], vocab_size: int) -> SentencePieceTokenizer:
    """Train a lossless BPE model on the first 10 million characters of the texts.

    A newline is a separate id, a run of spaces may be one id, and rare characters are encoded as bytes. The same
    texts give the same model. Raises `ValueError` if the texts are too few for the vocabulary.
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
            user_defined_symbols=["\n", *ESCAPES],
            required_chars=SPACE_MARK,  # if it were encoded as bytes, a space would be decoded to U+2581
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


def ordinary_pieces(model: bytes) -> list[str]:
    """The ordinary pieces of a model, without bytes and special ones. Raises `ValueError` if it is not a model."""
    return [piece.piece for piece in _parsed(model).pieces if piece.type == NORMAL]


def _parsed(model: bytes):
    """The pieces and settings of a model. Raises `NotAModelError` if it cannot be parsed."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    message = sentencepiece_model_pb2.ModelProto  # pyright: ignore[reportAttributeAccessIssue]  # made at import
    try:
        proto = message.FromString(model)
    except DecodeError as error:
        raise NotAModelError(str(error)) from None
    if not proto.pieces:
        raise NotAModelError("it holds no pieces")
    return proto


def _hide_special_pieces(proto: Any, texts: Iterable[str]) -> list[int]:
    """Turn pieces with these texts into control symbols, to which no text is encoded. Returns their ids."""
    texts, hidden = set(texts), []
    for token, piece in enumerate(proto.pieces):
        if piece.piece in texts and len(piece.piece) > 1 and piece.type in (NORMAL, USER_DEFINED, UNUSED):
            piece.type = CONTROL
            hidden.append(token)
    return hidden


def _is_lossless(proto: Any, numbers: Mapping[str, int]) -> bool:
    """Whether `decode(encode(text)) == text`: no normalisation, all bytes are pieces, and U+2581 means a space only."""
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    kinds = {piece.piece: piece.type for piece in proto.pieces}
    changed = normalizer.precompiled_charsmap or normalizer.add_dummy_prefix or normalizer.remove_extra_whitespaces
    return (
        len(numbers) == len(proto.pieces)
        and trainer.model_type == BPE
        and trainer.byte_fallback
        and all(kinds.get(f"<0x{byte:02X}>") == BYTE for byte in range(256))
        and not changed
        and normalizer.escape_whitespaces
        and not trainer.treat_whitespace_as_suffix
        and not proto.denormalizer_spec.precompiled_charsmap
        and kinds.get(SPACE_MARK) == NORMAL
        and {text for text, kind in kinds.items() if kind == USER_DEFINED} == {"\n", *ESCAPES}
    )


def _bytes_of(piece: Any) -> int:
    if piece.type == BYTE:
        return 1
    if piece.type in (CONTROL, UNKNOWN):
        return 0
    return len(piece.piece.replace(SPACE_MARK, " ").encode("utf-8"))


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
