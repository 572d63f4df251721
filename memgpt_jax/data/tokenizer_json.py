"""Tokenizers of pretrained models, in the format of the tokenizers library."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

FILE, SETTINGS = "tokenizer.json", "tokenizer_config.json"
SPACE_MARK = "\u2581"
BEGINS = ("bos_token", "eos_token", "cls_token")
"""Which special token begins documents: the first of these that a model has."""
SPECIAL = {"mask": ("[MASK]", "<mask>"), "cls": ("[CLS]", "<s>"), "sep": ("[SEP]", "</s>")}
"""How BERT and RoBERTa call the special tokens of their objectives."""


class JsonTokenizer:
    """A tokenizer of the tokenizers library. Whether it is lossless depends on its normaliser."""

    def __init__(self, content: str, document_token: str):
        """Args: content: of a tokenizer.json; document_token: the special token that begins documents.

        Raises `ValueError` where the content is no tokenizer, or has no such token.
        """
        from tokenizers import Tokenizer

        try:
            self.tokenizer = Tokenizer.from_str(content)
        except Exception as error:  # the library raises nothing more special
            raise ValueError(f"the content of {FILE} is not a tokenizer: {error}") from None
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.tokenizer.encode_special_tokens = True  # text that looks like a special token stays text
        document_id = self.tokenizer.token_to_id(document_token)
        if document_id is None:
            raise ValueError(f"the tokenizer has no token {document_token!r}")
        self.document_id, self._document_token = document_id, document_token
        vocabulary = self.tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values()) + 1
        self.token_bytes = np.zeros(self.vocab_size, np.int32)
        special = {token for token, added in self.tokenizer.get_added_tokens_decoder().items() if added.special}
        found = {name: [vocabulary.get(text) for text in texts] for name, texts in SPECIAL.items()}
        own = {name: [token for token in ids if token in special] for name, ids in found.items()}
        self.special_ids = {name: ids[0] for name, ids in own.items() if ids}
        measure = _measure(json.loads(content).get("decoder") or {})
        for text, token in vocabulary.items():
            self.token_bytes[token] = 0 if token in special else measure(text)
        whole = f"{document_token} {self.tokenizer.to_str()}"
        self.fingerprint = hashlib.blake2b(whole.encode(), digest_size=8).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special ones."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special ids are left out, and bytes that are not UTF-8 become U+FFFD."""
        return self.tokenizer.decode([int(token) for token in ids], skip_special_tokens=True)

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` into the folder."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": self._document_token}
        settings["eos_token"] = self._document_token
        (Path(folder) / FILE).write_text(self.tokenizer.to_str(), encoding="utf-8")
        (Path(folder) / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _measure(decoder: dict[str, Any]):
    """How many bytes of text a token stands for, by what decodes it."""
    kinds = {step["type"] for step in decoder.get("decoders", [decoder]) if step}
    if "ByteLevel" in kinds:
        return len  # a character for each byte
    if "WordPiece" in kinds:
        return lambda text: len(text[2:].encode()) if text.startswith("##") else len(text.encode()) + 1
    is_byte = lambda text: len(text) == 6 and text.startswith("<0x") and text.endswith(">")  # noqa: E731
    return lambda text: 1 if is_byte(text) else len(text.replace(SPACE_MARK, " ").encode())


def from_folder(folder: Path) -> JsonTokenizer:
    """The tokenizer of a folder with a `tokenizer.json`. Raises `ValueError` where no token can begin documents."""
    files = (folder / name for name in (SETTINGS, "special_tokens_map.json"))
    settings = [json.loads(path.read_text(encoding="utf-8")) for path in files if path.is_file()]
    content = (folder / FILE).read_text(encoding="utf-8")
    added = {token["content"] for token in json.loads(content).get("added_tokens", [])}
    named = (values.get(name) for name in BEGINS for values in settings)
    tokens = (token.get("content") if isinstance(token, dict) else token for token in named)
    usual = ("<|endoftext|>", "<s>", "<|begin_of_text|>", "[CLS]", "</s>")
    found = next((token for token in (*tokens, *usual) if token in added), None)
    if found is None:
        raise ValueError(f"{folder / SETTINGS} has none of {', '.join(BEGINS)}: no token can begin documents")
    return JsonTokenizer(content, found)
