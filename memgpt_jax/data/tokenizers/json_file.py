"""Tokenizers of pretrained models, in the format of the tokenizers library."""

import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memgpt_jax.data.tokenizers.files import (
    JSON_FILE,
    LARGEST_ID,
    Settings,
    refuse_surrogates,
    sentinels,
    unfinished,
    write_tokenizer,
)

SPACE_MARK = "\u2581"
BEGINS = ("bos_token", "eos_token", "cls_token")
"""Documents start with the first of these special tokens that the settings name."""
TURNS = ("<|im_start|>", "<|im_end|>")
"""Tokens around the turns of dialogues (ChatML): they start documents only if no token of `USUAL` can."""
USUAL = ("<|endoftext|>", "<s>", "<|begin_of_text|>", "[CLS]", "</s>")
"""If the settings name none, documents start with the first of these special tokens in the vocabulary."""
ENDS = ("<|endoftext|>", "</s>")
"""The tokens of `USUAL` that also end texts."""
SPECIAL = {"mask": ("[MASK]", "<mask>"), "cls": ("[CLS]", "<s>"), "sep": ("[SEP]", "</s>")}
"""The names of the special tokens of the objectives in BERT and RoBERTa."""
PRINTABLE = {*range(33, 127), *range(161, 173), *range(174, 256)}
OTHERS = sorted({*range(256)} - PRINTABLE)
ALPHABET = {chr(byte): byte for byte in PRINTABLE} | {chr(256 + i): byte for i, byte in enumerate(OTHERS)}
"""The character of each of the 256 bytes in byte-level vocabularies."""
CUTS = ("Split", "Digits", "Punctuation", "UnicodeScripts")
"""Pre-tokenizers that only split a text, unless their behaviour removes the separators."""


class JsonTokenizer:
    """A tokenizer of the tokenizers library.

    It is lossless if it is byte-level BPE with all bytes and without a normaliser.
    """

    def __init__(self, content: str, document_token: str | None = None, settings: Settings | None = None):
        """Args:
            content: of a tokenizer.json.
            document_token: the special token that starts documents; default: the first of `BEGINS` that the settings
                name and that is not in `TURNS`, else the first of `USUAL` in the vocabulary.
            settings: the files beside it; default: the document token starts and ends texts.

        Raises `ValueError` if the content is not a tokenizer, or has no such token.
        """
        self._content = content
        self._settings = settings or Settings.naming(bos_token=document_token, eos_token=document_token)
        self.tokenizer = _parsed(content)
        vocabulary = self._add_special_tokens()
        parts = json.loads(whole := self.tokenizer.to_str())
        self.vocab_size = 1 + max(vocabulary.values())
        self._special = {i for i, token in self.tokenizer.get_added_tokens_decoder().items() if token.special}
        unknown_token = _unknown_token(parts["model"])
        unknown = None if unknown_token is None else vocabulary.get(unknown_token)
        self._encoder = self._without_special_pieces(parts, vocabulary, unknown)
        self.lossless = _is_lossless(parts, self.tokenizer, vocabulary, self._special)

        decoders = _steps(parts.get("decoder"), "decoders")
        falls_back = any(step["type"] == "ByteFallback" for step in decoders)
        found = {token: _byte_of(text) for text, token in vocabulary.items()} if falls_back else {}
        self._bytes = {token: byte for token, byte in found.items() if byte is not None}
        self._is_byte_level = any(step["type"] == "ByteLevel" for step in decoders)
        self.token_bytes = self._token_bytes(decoders, vocabulary, unknown)
        self._set_special_ids(document_token, vocabulary, None if self.lossless else unknown)
        whole = f"{self.tokenizer.id_to_token(self.start_id)} {whole}"
        self.fingerprint = hashlib.blake2b(whole.encode(), digest_size=8).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special ones. Raises `ValueError` if it cannot be encoded."""
        refuse_surrogates(text)
        with _refusing("the text cannot be encoded"):
            return self._encoder.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special and unknown ids; invalid UTF-8 becomes U+FFFD."""
        known = [token for token in map(int, ids) if 0 <= token < self.vocab_size and token not in self._special]
        with _refusing("the ids cannot be decoded"):
            if self._bytes.keys().isdisjoint(known):
                return self.tokenizer.decode(known, skip_special_tokens=True)
            return self.tokenizer.decoder.decode([*self._whole_characters(known)])

    def bytes_of(self, id: int) -> bytes | None:
        """The bytes of an id that is perhaps a part of a character; None: they are those of its text."""
        if id in self._bytes:
            return bytes([self._bytes[id]])
        text = self.tokenizer.id_to_token(id) or ""
        if self._is_byte_level and id not in self._special and set(text) <= ALPHABET.keys():
            return bytes(ALPHABET[character] for character in text)
        return None

    def unfinished_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of an incomplete UTF-8 character at the end of the ids."""
        known = (token for token in reversed(ids) if 0 <= token < self.vocab_size and token not in self._special)
        ending = b""
        while len(ending) < 3 and (token := next(known, None)) is not None:
            own = self.bytes_of(token)
            if own is None:
                break
            ending = own + ending
        return unfinished(ending[-3:])

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and the files beside it into the folder, replacing any other tokenizer."""
        write_tokenizer(folder, {JSON_FILE: self._content.encode("utf-8")} | self._settings.files)

    def _whole_characters(self, ids: Iterable[int]) -> Iterator[str]:
        """The tokens of ids, with the bytes of U+FFFD in place of invalid UTF-8.

        The tokenizers library replaces all characters of a run of byte tokens if one byte is invalid.
        """
        for is_byte, group in itertools.groupby(ids, self._bytes.__contains__):
            if is_byte:
                text = bytes(self._bytes[token] for token in group).decode("utf-8", "replace")
                yield from (f"<0x{byte:02X}>" for byte in text.encode("utf-8"))
            else:
                yield from filter(None, map(self.tokenizer.id_to_token, group))

    def _add_special_tokens(self) -> dict[str, int]:
        """Mark the special tokens of the settings as special, as transformers does. Returns {text: id}."""
        from tokenizers import AddedToken

        added = {token.content: token for token in self.tokenizer.get_added_tokens_decoder().values()}
        vocabulary = self.tokenizer.get_vocab(with_added_tokens=True)
        texts = (f"<extra_id_{i}>" for i in range(len(sentinels(vocabulary))))
        for text in dict.fromkeys((*self._settings.special(), *texts)):
            is_special = text in added and added[text].special
            if text in vocabulary and not is_special and (text in added or len(text) > 1):
                self.tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False)])
        return vocabulary

    def _without_special_pieces(self, parts: dict[str, Any], vocabulary: Mapping[str, int], unknown: int | None):
        """The tokenizer that encodes texts: no text is encoded to a special token of the model's vocabulary.

        `encode_special_tokens` keeps added tokens from being found in a text, but not the pieces of the model. So
        special tokens of the model, except the unknown token, get names that occur in no text.
        """
        from tokenizers import Tokenizer

        model = dict(parts["model"])
        pieces = {text for text, _ in model["vocab"]} if model["type"] == "Unigram" else model["vocab"].keys()
        special = {text for text, i in vocabulary.items() if i in self._special and i != unknown} & set(pieces)
        if model["type"] == "BPE" and not model.get("ignore_merges"):
            special &= _merged(model) | {text for text in special if len(text) == 1}
        if not special:
            return self.tokenizer
        hidden = {text: f" \uffff{vocabulary[text]} \uffff" for text in special}
        if model["type"] == "Unigram":
            model |= {"vocab": [[hidden.get(text, text), score] for text, score in model["vocab"]]}
        else:
            model |= {"vocab": {hidden.get(text, text): i for text, i in model["vocab"].items()}}
        if "merges" in model:
            model["merges"] = [pair for pair in model["merges"] if special.isdisjoint((*pair, "".join(pair)))]
        added = [token | {"content": hidden.get(token["content"], token["content"])} for token in parts["added_tokens"]]
        with _refusing(f"the content of {JSON_FILE} is not a tokenizer"):
            encoder = Tokenizer.from_str(
                json.dumps(parts | {"model": model, "added_tokens": added, "post_processor": None})
            )
        return _plain(encoder)

    def _token_bytes(self, decoders: list[dict], vocabulary: Mapping[str, int], unknown: int | None) -> np.ndarray:
        added = self.tokenizer.get_added_tokens_decoder().keys()
        measure, found = _measure(decoders), np.zeros(self.vocab_size, np.int32)
        for text, token in vocabulary.items():
            if token in self._bytes:
                found[token] = 1
            elif token not in self._special and token != unknown:
                found[token] = len(text.encode("utf-8")) if token in added else measure(text)
        return found

    def _set_special_ids(self, document_token: str | None, vocabulary: Mapping[str, int], unknown: int | None) -> None:
        """Args: unknown: the id of text outside of the vocabulary; None: the vocabulary can express every text."""
        special = {text: token for text, token in vocabulary.items() if token in self._special}
        self.control_ids, self.chat_template = special, self._settings.chat_template
        named = [text for text in map(self._settings.token, BEGINS) if text is not None]
        plain = [text for text in named if text not in TURNS]
        begins = [document_token] if document_token is not None else [*plain, *USUAL, *named]
        begins = [text for text in begins if text in special and special[text] != unknown]
        if document_token is not None and not begins:
            raise ValueError(f"the tokenizer has no special token {document_token!r}")
        if not begins:
            raise ValueError(
                f"no special token can start documents: the files name none of {', '.join(BEGINS)}, and the vocabulary "
                f"has none of {', '.join(USUAL)}"
            )
        self.start_id = special[begins[0]]
        own = {"eos": self.start_id} if begins[0] in ENDS and not named else {}
        roles = self._settings.roles(special, self.vocab_size, own)
        self.bos_id, self.eos_id, self.pad_id, self.stop_ids = roles
        texts = {name: (self._settings.token(f"{name}_token"), *usual) for name, usual in SPECIAL.items()}
        found = {
            name: next((special[text] for text in usual if text in special), None) for name, usual in texts.items()
        }
        self.special_ids = {name: token for name, token in found.items() if token is not None}
        self.sentinel_ids = sentinels(special)


def _parsed(content: str):
    """The tokenizer of a tokenizer.json. Raises `ValueError` if it is not one."""
    from tokenizers import Tokenizer

    with _refusing(f"the content of {JSON_FILE} is not a tokenizer"):
        tokenizer = _plain(Tokenizer.from_str(content))
        last = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        if not 0 <= last <= LARGEST_ID:  # serialisation would take hours
            raise ValueError(f"ids must be from 0 to {LARGEST_ID}, and the last one is {last}")
        return tokenizer


def _plain(tokenizer: Any):
    """The tokenizer without truncation and padding; the text of special tokens is encoded like any other."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


@contextlib.contextmanager
def _refusing(message: str) -> Iterator[None]:
    """Turn errors of the tokenizers library into `ValueError`: it raises plain `Exception`, or panics in Rust."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{message}: {error}") from None


def _steps(part: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    """The steps of a part of a tokenizer, nested sequences flattened."""
    if part is None or part["type"] != "Sequence":
        return [part] if part else []
    return [step for each in part[inner] for step in _steps(each, inner)]


def _unknown_token(model: dict[str, Any]) -> str | None:
    if model["type"] == "Unigram":
        return None if model["unk_id"] is None else model["vocab"][model["unk_id"]][0]
    return model["unk_token"]


def _merged(model: dict[str, Any]) -> set[str]:
    """The tokens of more than one character that the merges of a BPE model can give."""
    prefix = len(model.get("continuing_subword_prefix") or "")
    return {first + second[prefix:] for first, second in model["merges"]}


def _is_lossless(parts: dict[str, Any], tokenizer: Any, vocabulary: Mapping[str, int], special: set[int]) -> bool:
    """Whether `decode(encode(text)) == text` for every text follows from the parts."""
    model = parts["model"]
    affixes = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    if model["type"] != "BPE" or affixes or _steps(parts["normalizer"], "normalizers"):
        return False
    if [step["type"] for step in _steps(parts["decoder"], "decoders")] != ["ByteLevel"]:
        return False
    cuts = _steps(parts["pre_tokenizer"], "pretokenizers")
    levels = [step for step in cuts if step["type"] == "ByteLevel"]
    if len(levels) != 1 or levels[0]["add_prefix_space"]:
        return False
    if any(step["type"] not in CUTS or step.get("behavior") == "Removed" for step in cuts if step not in levels):
        return False
    if not all(character in model["vocab"] and vocabulary[character] not in special for character in ALPHABET):
        return False
    ordinary = [token for token in tokenizer.get_added_tokens_decoder().values() if not token.special]
    # The decoder reads characters of the alphabet as bytes, also in an added token.
    broken = [set(token.content) <= ALPHABET.keys() and not token.content.isascii() for token in ordinary]
    return not any(broken) and not any(token.lstrip or token.rstrip for token in ordinary)


def _byte_of(text: str) -> int | None:
    """The byte of a token such as <0x0A>; None for other tokens."""
    return int(text[3:5], 16) if re.fullmatch("<0x[0-9A-Fa-f]{2}>", text) else None


def _measure(decoders: list[dict[str, Any]]) -> Callable[[str], int]:
    """The function from a token to the number of UTF-8 bytes of its text, for these decoders."""
    kinds = {step["type"]: step for step in decoders}

    def size(text: str) -> int:
        return len(text.encode("utf-8"))

    def of_byte_level(text: str) -> int:  # one character for each byte
        return len(text) if set(text) <= ALPHABET.keys() else size(text)

    def of_word_piece(text: str) -> int:
        prefix = kinds["WordPiece"]["prefix"]
        return size(text.removeprefix(prefix)) + (not text.startswith(prefix))

    def of_piece(text: str) -> int:
        return size(text.replace(SPACE_MARK, " "))

    return of_byte_level if "ByteLevel" in kinds else of_word_piece if "WordPiece" in kinds else of_piece
