"""Tokenizers of GGUF files."""

import json
import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

from memgpt_jax.data.tokenizers.files import Settings
from memgpt_jax.data.tokenizers.gguf_reader import read_fields
from memgpt_jax.data.tokenizers.json_file import JsonTokenizer
from memgpt_jax.data.tokenizers.sentencepiece_file import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    SentencePieceTokenizer,
)

logger = logging.getLogger(__name__)

LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
OTHERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PLAIN_BYTES = BYTES | {"use_regex": False}
DIGITS = {"type": "Digits", "individual_digits": True}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "default": [BYTES],
    "gpt-2": [BYTES],
    "smollm": [DIGITS, BYTES],
    "llama-bpe": [_split(LETTERS + r"\p{N}{1,3}" + OTHERS), PLAIN_BYTES],
    "qwen2": [_split(LETTERS + r"\p{N}" + OTHERS), PLAIN_BYTES],
}
"""The pre-tokenizers for each value of `tokenizer.ggml.pre`."""


BEGIN, END, UNKNOWN_TOKEN, PADDING = "bos_token_id", "eos_token_id", "unknown_token_id", "padding_token_id"
ENDS = (END, "eot_token_id", "eom_token_id")
"""The tokens that end a text, a turn or a message."""
DEFAULTS = {"llama": {UNKNOWN_TOKEN: 0, BEGIN: 1, END: 2}, "gpt2": {}}
"""The ids that llama.cpp uses if a file names none."""
KINDS = (NORMAL, UNKNOWN, CONTROL, USER_DEFINED, 5, BYTE)  # GGUF and sentencepiece use the same numbers


def from_gguf(path: Path) -> JsonTokenizer | SentencePieceTokenizer:
    """The tokenizer of a GGUF file: byte-level BPE, or sentencepiece.

    As in llama.cpp, absent scores are 0, absent kinds are inferred from the texts, and ids of special tokens outside
    of the vocabulary are ignored with a warning. If several special or added tokens have the same text, one keeps it;
    the other ids get no text.

    Raises `ValueError` for another kind of tokenizer, ordinary tokens with the same text, or a damaged file.
    """
    prefix = "tokenizer.ggml."
    values = read_fields(path, lambda name: name.startswith("tokenizer.")).fields
    template = values.get("tokenizer.chat_template")
    values = {name.removeprefix(prefix): value for name, value in values.items()}
    kind = values.get("model")
    try:
        if kind not in DEFAULTS:
            raise ValueError(f"a tokenizer of kind {kind!r} is not supported; valid: {', '.join(DEFAULTS)}")
        vocabulary = _Vocabulary(values, DEFAULTS[kind])
        settings = vocabulary.settings(template, "PreTrainedTokenizerFast" if kind == "gpt2" else "LlamaTokenizer")
        return (_byte_level if kind == "gpt2" else _sentencepiece)(values, vocabulary, settings)
    except ValueError as error:
        raise ValueError(f"{path}: its tokenizer cannot be used: {error}") from None


class _Vocabulary:
    """The tokens of a file, with distinct texts, their kinds and scores, and the ids of special tokens."""

    def __init__(self, values: dict[str, Any], defaults: dict[str, int]):
        self.tokens = _list(values, "tokens", str)
        size = len(self.tokens)
        if not size:
            raise ValueError("tokenizer.ggml.tokens is empty")
        self.scores = _list(values, "scores", int | float, size) or [0.0] * size
        self.ids = {
            name: _id(values, name, size, defaults.get(name)) for name in (BEGIN, UNKNOWN_TOKEN, PADDING, *ENDS)
        }
        self.kinds = _list(values, "token_type", int, size) or [self._inferred(i) for i in range(size)]
        wrong = sorted(set(self.kinds) - {*KINDS})
        if wrong:
            raise ValueError(f"tokenizer.ggml.token_type holds {wrong}; valid: {', '.join(map(str, KINDS))}")
        for name, token in self.ids.items():
            if token is None or name == UNKNOWN_TOKEN or name not in values:
                continue
            if self.kinds[token] == NORMAL and len(self.tokens[token]) > 1:
                self.kinds[token] = CONTROL  # a single character stays ordinary, because texts contain it
        self._make_texts_distinct()

    def settings(self, template: Any, tokenizer_class: str) -> Settings:
        """The settings, as if they were in files beside the tokenizer."""

        def text(name: str) -> str | None:
            token = self.ids[name]
            return None if token is None else self.tokens[token]

        ends = tuple(dict.fromkeys(token for name in ENDS if (token := self.ids[name]) is not None))
        return Settings.naming(
            ends if len(ends) > 1 else (),
            tokenizer_class=tokenizer_class,
            bos_token=text(BEGIN),
            eos_token=text(END),
            pad_token=text(PADDING),
            unk_token=text(UNKNOWN_TOKEN),
            chat_template=template if isinstance(template, str) else None,
        )

    def _inferred(self, token: int) -> int:
        """The kind of a token, inferred from its text and role, if the file has no kinds."""
        if re.fullmatch("<0x[0-9A-F]{2}>", self.tokens[token]):
            return BYTE
        names = [name for name, number in self.ids.items() if number == token]
        return NORMAL if not names else UNKNOWN if UNKNOWN_TOKEN in names else CONTROL

    def _make_texts_distinct(self) -> None:
        """Give distinct texts to tokens without a text, and to all but one of the tokens with the same text."""
        counts, named = Counter(self.tokens), {*self.ids.values()}
        twice = [i for i, token in enumerate(self.tokens) if counts[token] > 1]
        chosen = {self.tokens[i]: i for i in sorted(twice, key=named.__contains__)}  # the named one, else the last
        for i in twice:
            if self.tokens[i] and self.kinds[i] in (NORMAL, BYTE):
                others = [j for j in twice if self.tokens[j] == self.tokens[i]]
                raise ValueError(f"the ids {others} are the same token {self.tokens[i]!r}: encoding would be ambiguous")
        for i in [i for i, token in enumerate(self.tokens) if not token or (counts[token] > 1 and chosen[token] != i)]:
            self.tokens[i], self.kinds[i] = f"<no text {i}>", CONTROL


def _byte_level(values: dict[str, Any], vocabulary: _Vocabulary, settings: Settings) -> JsonTokenizer:
    cut = values.get("pre", "default")
    if cut not in PRE_TOKENIZERS:
        raise ValueError(f"tokenizer.ggml.pre={cut!r} is not supported; valid: {', '.join(PRE_TOKENIZERS)}")
    merges = [_pair(merge) for merge in _list(values, "merges", str)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": i, "content": token, "special": kind in (CONTROL, UNKNOWN)} | flags
        for i, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
        if kind in (CONTROL, UNKNOWN, USER_DEFINED)
    ]
    content = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[cut]},
        "decoder": PLAIN_BYTES,
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(vocabulary.tokens)},
            "merges": merges,
        },
    }
    return JsonTokenizer(json.dumps(content), settings=settings)


def _sentencepiece(values: dict[str, Any], vocabulary: _Vocabulary, settings: Settings) -> SentencePieceTokenizer:
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]  # made at import
    kinds, ids = vocabulary.kinds, vocabulary.ids
    unknown = [i for i, kind in enumerate(kinds) if kind == UNKNOWN]
    if not unknown:
        raise ValueError(
            f"there is no token for unknown text: tokenizer.ggml.token_type must hold {UNKNOWN} for one token"
        )
    if ids[UNKNOWN_TOKEN] in unknown:
        unknown = [ids[UNKNOWN_TOKEN]]
    for i, (token, score, kind) in enumerate(zip(vocabulary.tokens, vocabulary.scores, kinds, strict=True)):
        model.pieces.add(piece=token, score=score, type=CONTROL if kind == UNKNOWN and i != unknown[0] else kind)
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type, trainer.vocab_size = trainer.BPE, len(model.pieces)
    trainer.byte_fallback = BYTE in kinds
    for name, number in {"unk": unknown[0], "bos": ids[BEGIN], "eos": ids[END], "pad": ids[PADDING]}.items():
        setattr(trainer, f"{name}_id", -1 if number is None else number)
        if number is not None:
            setattr(trainer, f"{name}_piece", model.pieces[number].piece)
    normalizer.name, normalizer.remove_extra_whitespaces, normalizer.escape_whitespaces = "identity", False, True
    normalizer.add_dummy_prefix = bool(values.get("add_space_prefix", True))
    return SentencePieceTokenizer(model.SerializeToString(), settings)


def _list(values: dict[str, Any], name: str, kind: Any, size: int | None = None) -> list:
    """A list in the file; [] if one with a known size is absent. Raises `ValueError` for another type or size."""
    found = values.get(name)
    if found is None and size is not None:
        return []
    if not isinstance(found, list) or not all(isinstance(value, kind) for value in found):
        raise ValueError(f"tokenizer.ggml.{name} must be a list of {getattr(kind, '__name__', kind)}")
    if size is not None and len(found) != size:
        raise ValueError(f"tokenizer.ggml.{name} has {len(found)} entries for {size} tokens")
    return found


def _id(values: dict[str, Any], name: str, size: int, default: int | None) -> int | None:
    """The id of a special token, if it exists."""
    found = values.get(name, default)
    if found is None or (isinstance(found, int) and 0 <= found < size):
        return found
    if name in values:
        logger.warning("tokenizer.ggml.%s is %s, but there are %d tokens: ignored", name, found, size)
    return None


def _pair(merge: str) -> list[str]:
    """The two parts of a merge, separated by the first space after the first character."""
    place = merge.find(" ", 1)
    if place < 0:
        raise ValueError(f"tokenizer.ggml.merges holds {merge!r}, which is not two tokens with a space between them")
    return [merge[:place], merge[place + 1 :]]
