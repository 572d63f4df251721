"""Tokenized text: made once per corpus and tokenizer, kept on disk, read by memory map."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from memgpt_jax.config_data import TextConfig
from memgpt_jax.data.progress import track
from memgpt_jax.data.sources import SPLITS, expand
from memgpt_jax.data.tokenizer import ByteTokenizer, Tokenizer, load_saved_tokenizer, train_sentencepiece
from memgpt_jax.hub import find

FORMAT = 2  # of the files below; a new one makes all of them anew


class TokenizedText(Sequence[np.ndarray]):
    """The documents of a split, as token ids. Item i is document i, int32, without `document_id`.

    Kept in a folder as four files: `tokens.bin`, every document after its `document_id`, one more `document_id`
    at the end; `offsets.npy` [documents + 1], where each document begins; `sizes.npy` [documents, 2], bytes and words
    of each; `counts.json`.
    """

    def __init__(self, folder: Path):
        """Open what `write` made. Raises `ValueError` or `OSError` where it is incomplete."""
        counts = json.loads((folder / "counts.json").read_text())
        self.fingerprint: str = counts["fingerprint"]
        """Digest of all tokens."""
        self.flat = np.memmap(folder / "tokens.bin", counts["dtype"], "r")
        """[tokens + 1] every document after its `document_id`, then one more `document_id`."""
        self.offsets = np.load(folder / "offsets.npy")
        """[documents + 1] int64 where each document begins."""
        self.sizes = np.load(folder / "sizes.npy")
        """[documents, 2] int64 UTF-8 bytes and words of each document's text, before it was encoded."""
        sizes = len(self.flat) - 1, len(self.offsets) - 1, len(self.sizes)
        if sizes != (counts["tokens"], counts["documents"], counts["documents"]):
            raise ValueError(f"{folder} is damaged")

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
    def write(folder: Path, documents: Iterable[str], tokenizer: Tokenizer) -> None:
        """Write documents; those without a token are left out. Raises `ValueError` where none is left."""
        dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32)
        offsets, sizes, digest = [0], [], hashlib.blake2b(digest_size=8)
        with (folder / "tokens.bin").open("wb") as file:
            for text in documents:
                if ids := tokenizer.encode(text):
                    data = np.array([tokenizer.document_id, *ids], dtype).tobytes()
                    digest.update(data)
                    file.write(data)
                    offsets.append(offsets[-1] + 1 + len(ids))
                    sizes.append((len(text.encode("utf-8")), len(text.split())))
            file.write(np.array([tokenizer.document_id], dtype).tobytes())
        if len(offsets) == 1:
            raise ValueError("none of its documents holds any text")
        np.save(folder / "offsets.npy", np.array(offsets, np.int64))
        np.save(folder / "sizes.npy", np.array(sizes, np.int64))
        counts = {
            "documents": len(offsets) - 1,
            "tokens": offsets[-1],
            "dtype": dtype.name,
            "fingerprint": digest.hexdigest(),
        }
        (folder / "counts.json").write_text(json.dumps(counts))


def load_tokenizer(config: TextConfig) -> Tokenizer:
    """The tokenizer that the config names; a `bpe` one is trained on the corpus's training split, once.

    Raises `ValueError` where `config.tokenizer` is no tokenizer, or the corpus is refused.
    """
    if config.tokenizer == "byte":
        return ByteTokenizer()
    if config.tokenizer == "bpe":
        return _load_trained_tokenizer(config)
    path = expand(config.tokenizer)
    if path.suffix == ".model" and not path.is_file():
        raise ValueError(f"data.tokenizer: there is no file {path}")
    try:
        return load_saved_tokenizer(find(path if path.exists() else config.tokenizer))
    except ValueError as error:
        raise ValueError(
            f"data.tokenizer={config.tokenizer!r} must be 'bpe', 'byte', or a tokenizer: a .model or .gguf file, a "
            f"folder, or a name on the Hub; {error}"
        ) from None


def _load_trained_tokenizer(config: TextConfig) -> Tokenizer:
    from memgpt_jax.data.corpora import open_corpus

    def train(folder: Path):
        _, documents = open_corpus(config).read("train")
        train_sentencepiece((text for _, text in documents), config.tokenizer_vocab_size).save(folder)

    key = (open_corpus(config).fingerprint, config.invalid_utf8, config.max_documents, config.tokenizer_vocab_size)
    return _cached(config, "tokenizers", key, train, load_saved_tokenizer)


def documents(config: TextConfig, split: str, tokenizer: Tokenizer) -> TokenizedText:
    """The documents of a split, tokenized, as a sequence of int32 arrays without `document_id`.

    Documents without any text are left out. Raises `ValueError` where the corpus is refused or has no such split.
    """
    from memgpt_jax.data.corpora import open_corpus

    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {split!r}")

    def tokenize(folder: Path):
        count, texts = open_corpus(config).read(split)
        texts = track(texts, f"Tokenizing {config.corpus}, {split}", count)
        try:
            TokenizedText.write(folder, (text for _, text in texts), tokenizer)
        except ValueError as error:
            raise ValueError(f"split {split!r} of {config.path or config.corpus}: {error}") from None

    key = (open_corpus(config).fingerprint, config.invalid_utf8, config.max_documents, split, tokenizer.fingerprint)
    return _cached(config, "tokens", key, tokenize, TokenizedText)


def _cached(config: TextConfig, kind: str, key: tuple, make: Callable[[Path], None], load: Callable):
    """Load what belongs to the key, made first where it is absent or damaged.

    It is made in a temporary folder that is renamed when complete, one process at a time. `make` has to open the
    corpus itself: while this process waited, another may have prepared it.
    """
    root = expand(config.cache_dir) / kind
    folder = root / hashlib.blake2b(repr((FORMAT, *key)).encode(), digest_size=16).hexdigest()
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root.parent / "lock"):
        if folder.exists():
            try:
                return load(folder)
            except (ValueError, KeyError, OSError, EOFError) as error:
                logging.getLogger(__name__).warning("Making %s anew: %s", folder, error)
                shutil.rmtree(folder)
        making = Path(tempfile.mkdtemp(prefix="making-", dir=root))
        try:
            make(making)
            os.replace(making, folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return load(folder)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; it ends with the process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
