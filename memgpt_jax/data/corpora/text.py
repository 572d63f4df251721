"""Tokenized text: tokenized once per corpus and tokenizer, cached on disk, and memory-mapped."""

import functools
import hashlib
import importlib.metadata
import itertools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.data import TextConfig
from memgpt_jax.data.corpora.cache import cached
from memgpt_jax.data.corpora.folders import folder_corpus
from memgpt_jax.data.corpora.reading import Document, Options, listed
from memgpt_jax.data.corpora.sources import MORE, SPLITS, expand, stdlib_corpus
from memgpt_jax.data.tokenizers.base import Tokenizer
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.data.tokenizers.load import load_tokenizer, read_tokenizer
from memgpt_jax.data.tokenizers.pieces import whole_lines
from memgpt_jax.data.tokenizers.sentencepiece_file import train_sentencepiece
from memgpt_jax.files.json_files import read_json

logger = logging.getLogger(__name__)


class TokenizedText(Sequence[np.ndarray]):
    """The documents of a split, as token ids. Item i is document i, int32, without `start_id`.

    A folder holds four files: `tokens.bin`, each document after a `start_id`, and one more `start_id` at the end;
    `offsets.npy` [documents + 1], the start of each document; `sizes.npy` [documents, 2], bytes and words of each;
    `counts.json`.
    """

    def __init__(self, folder: Path):
        """Open the files of `write`. Raises `ValueError` or `OSError` if they are incomplete."""
        counts = read_json(folder / "counts.json")
        self.fingerprint: str = counts["fingerprint"]
        """Digest of all tokens."""
        self.flat = np.memmap(folder / "tokens.bin", counts["dtype"], "r")
        """[tokens + 1]: each document after a `start_id`, then one more `start_id`."""
        self.offsets = np.load(folder / "offsets.npy")
        """[documents + 1] int64: the index in `flat` of the start of each document."""
        self.sizes = np.load(folder / "sizes.npy")
        """[documents, 2] int64: UTF-8 bytes and words of each document's text, before it was encoded."""
        sizes = len(self.flat) - 1, len(self.offsets) - 1, len(self.sizes)
        if sizes != (counts["tokens"], counts["documents"], counts["documents"]):
            raise ValueError(f"{folder} is damaged: its files have different numbers of tokens or documents")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        start, stop = self.offsets[range(len(self))[index] + np.arange(2)]
        return self.flat[start + 1 : stop].astype(np.int32)

    def bytes_of(self, index: int) -> int:
        """UTF-8 bytes of a document's text, before it was encoded."""
        return int(self.sizes[index, 0])

    def words_of(self, index: int) -> int:
        """Words of a document's text, `len(text.split())`."""
        return int(self.sizes[index, 1])

    @staticmethod
    def write(folder: Path, documents: Iterable[Document], tokenizer: Tokenizer) -> None:
        """Write documents. Documents without a token are skipped, with a warning in the log that names them.

        Raises `ValueError` if no document has a token.
        """
        dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32)
        begin = np.array([tokenizer.start_id], dtype).tobytes()
        offsets, sizes, without_text, digest = [0], [], [], hashlib.blake2b(digest_size=8)
        with (folder / "tokens.bin").open("wb") as file:
            for document in documents:
                size, length = _Size(), 0
                for ids in encode_pieces(tokenizer, size.count(document.pieces)):
                    if len(ids):
                        data = begin * (length == 0) + np.asarray(ids, dtype).tobytes()
                        digest.update(data)
                        file.write(data)
                        length += len(ids)
                if length:
                    offsets.append(offsets[-1] + 1 + length)
                    sizes.append((size.bytes, size.words))
                else:
                    without_text.append(document.name)
            file.write(begin)
        if not sizes:
            raise ValueError(f"none of its documents contains text; {MORE}")
        if without_text:
            logger.warning("Skipped %s", listed("without text", without_text))
        np.save(folder / "offsets.npy", np.array(offsets, np.int64))
        np.save(folder / "sizes.npy", np.array(sizes, np.int64))
        counts = {
            "documents": len(sizes),
            "tokens": offsets[-1],
            "dtype": dtype.name,
            "fingerprint": digest.hexdigest(),
        }
        (folder / "counts.json").write_text(json.dumps(counts))


def encode_pieces(tokenizer: Tokenizer, pieces: Iterable[str]) -> Iterable[np.ndarray]:
    """The ids of a text in pieces, as arrays: from the tokenizer's `encode_pieces` if it has one, else as one array."""
    in_pieces: Callable[[Iterable[str]], Iterable[np.ndarray]] | None = getattr(tokenizer, "encode_pieces", None)
    if in_pieces is not None:
        return in_pieces(pieces)
    return [np.array(tokenizer.encode("".join(pieces)), np.int32)]


class _Size:
    """Counts the bytes and words of a text in pieces."""

    def __init__(self):
        self.bytes = self.words = 0

    def count(self, pieces: Iterable[str]) -> Iterator[str]:
        within = False  # the last piece ended inside a word
        for piece in filter(None, pieces):
            self.bytes += len(piece) if piece.isascii() else len(piece.encode("utf-8"))
            self.words += len(piece.split()) - (within and not piece[:1].isspace())
            within = not piece[-1:].isspace()
            yield piece


def make_tokenizer(config: TextConfig) -> Tokenizer:
    """The tokenizer that the config names; a `bpe` tokenizer is trained once, on the corpus's training split.

    Raises `ValueError` if `config.tokenizer` is not a tokenizer, or the corpus cannot be read.
    """
    check(
        config.tokenizer != "pretrained",
        "data.tokenizer='pretrained' needs a pretrained model (ExperimentConfig.pretrained)",
    )
    if config.tokenizer == "byte":
        return ByteTokenizer()
    if config.tokenizer == "bpe":
        return _trained_tokenizer(config)
    path = expand(config.tokenizer)
    if path.suffix == ".model" and not os.path.isfile(path):
        raise ValueError(f"data.tokenizer: there is no file {path}")
    try:
        return load_tokenizer(path if os.path.exists(path) else config.tokenizer)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"data.tokenizer={config.tokenizer!r} must be 'bpe', 'byte', or a tokenizer: a .model or .gguf file, a "
            f"folder, or a name on the Hub; {error}"
        ) from None


def _trained_tokenizer(config: TextConfig) -> Tokenizer:
    source = _Source(config)

    def train(folder: Path) -> None:
        texts = (text for document in source.read("train") for text in whole_lines(document.pieces))
        train_sentencepiece(texts, config.tokenizer_vocab_size).save(folder)

    key = (*source.key(), config.tokenizer_vocab_size)
    return cached(config.cache_dir, "tokenizers", key, train, read_tokenizer)


def documents(config: TextConfig, split: str, tokenizer: Tokenizer) -> TokenizedText:
    """The tokenized documents of a split, a sequence of int32 arrays [tokens], without `start_id`.

    Documents without any text are skipped.

    Raises `ValueError` if the corpus cannot be read or has no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {split!r}")
    source = _Source(config)

    def tokenize(folder: Path) -> None:
        try:
            TokenizedText.write(folder, source.read(split), tokenizer)
        except ValueError as error:
            raise ValueError(f"split {split!r} of {config.path or config.corpus}: {error}") from None

    key = (*source.key(), split, tokenizer.fingerprint)
    return cached(config.cache_dir, "tokens", key, tokenize, TokenizedText)


class Corpus(Protocol):
    """Documents in splits."""

    @property
    def fingerprint(self) -> str:
        """A name that changes with the documents."""
        ...

    def read(self, split: str) -> Iterator[Document]:
        """The documents of a split. Raises `ValueError` if there are none, or they cannot be read."""
        ...


def open_corpus(config: TextConfig) -> Corpus:
    """The corpus that the config names.

    Raises `ValueError` if there is no such corpus, the folder is absent or holds no text, or Python's source is absent.
    """
    options = Options(config.invalid_utf8, config.text_column)
    if config.corpus == "stdlib":
        return stdlib_corpus(options)
    if config.corpus == "folder":
        assert config.path is not None
        return folder_corpus(config.path, config.include, config.exclude, options)
    from memgpt_jax.data.corpora.builders import open_named

    return open_named(config.corpus, config.cache_dir, options)


class _Source:
    """The corpus of a config, opened only if documents are read or its fingerprint is not in the cache."""

    def __init__(self, config: TextConfig):
        self.config = config

    @functools.cached_property
    def corpus(self) -> Corpus:
        return open_corpus(self.config)

    def read(self, split: str) -> Iterator[Document]:
        """The documents of a split, at most `max_documents`."""
        return itertools.islice(self.corpus.read(split), self.config.max_documents)

    def key(self) -> tuple[Any, ...]:
        """Values that change with the documents. The fingerprint of a TFDS set is cached: importing TFDS is slow."""
        config = self.config
        options = (config.invalid_utf8, config.text_column, config.max_documents)
        # A program that registers its own builders has imported TFDS.
        if config.corpus in ("stdlib", "folder") or "tensorflow_datasets" in sys.modules:
            return self.corpus.fingerprint, *options
        key = (config.corpus, os.environ.get("TFDS_DATA_DIR"), importlib.metadata.version("tensorflow-datasets"))
        fingerprint = cached(config.cache_dir, "corpora", key, self._write_fingerprint, _read_fingerprint)
        return fingerprint, *options

    def _write_fingerprint(self, folder: Path) -> None:
        (folder / "fingerprint").write_text(self.corpus.fingerprint)


def _read_fingerprint(folder: Path) -> str:
    return (folder / "fingerprint").read_text()
