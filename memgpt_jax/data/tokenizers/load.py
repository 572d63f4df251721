"""Tokenizers loaded from a file, a folder, a run or the Hugging Face Hub."""

import json
import os
from pathlib import Path

from memgpt_jax.data.hub import find
from memgpt_jax.data.tokenizers.base import Tokenizer
from memgpt_jax.data.tokenizers.byte import CONTENT, ByteTokenizer
from memgpt_jax.data.tokenizers.files import DEFINING, JSON_FILE, Settings
from memgpt_jax.data.tokenizers.gguf_file import from_gguf
from memgpt_jax.data.tokenizers.json_file import JsonTokenizer
from memgpt_jax.data.tokenizers.sentencepiece_file import NotAModelError, SentencePieceTokenizer, ordinary_pieces
from memgpt_jax.files import checksums
from memgpt_jax.files.json_files import decode_utf8


def load_tokenizer(source: str | Path, *, revision: str | None = None) -> Tokenizer:
    """The tokenizer of a pretrained model or of a training run.

    Args:
        source: a source of `from_pretrained` (a folder, a GGUF file, the name of a model on the Hugging Face Hub, or
            the `workdir` of a run), or a tokenizer file.
        revision: the branch, tag or commit of a model on the Hub.

    Raises:
        DamagedError: a file differs from its recorded checksum.
        ValueError: there is no tokenizer, its kind is not supported, or it cannot be read.
    """
    path = find(source, revision)
    return read_tokenizer(path / "tokenizer" if os.path.isdir(path / "checkpoints") else path)


def read_tokenizer(source: str | Path) -> Tokenizer:
    """The tokenizer that `save` wrote into a folder, or that a pretrained model has.

    Args:
        source: a `tokenizer.json`, a sentencepiece model or a GGUF file, or a folder with one of them. Of a
            `tokenizer.json` and a sentencepiece model with the same pieces, the `tokenizer.json` is read.

    Raises:
        DamagedError: a file differs from its recorded checksum (a subclass of `ValueError`).
        ValueError: there is no tokenizer, it cannot be read, or the folder holds two different tokenizers.
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
        return from_gguf(path)
    if path.suffix != ".model" and path.name != JSON_FILE:
        raise ValueError(f"{path} is not a tokenizer: neither {JSON_FILE} nor a .model or .gguf file")
    checksums.verify(path.parent, [path.name])
    content = path.read_bytes()
    if path.suffix == ".model":
        settings = Settings.of_folder(path.parent) if path.name in DEFINING else None
        try:
            return SentencePieceTokenizer(content, settings)
        except NotAModelError as error:
            raise ValueError(f"{path} is not a sentencepiece model: {error}") from None
    if b"".join(content.split()) == json.dumps(CONTENT, separators=(",", ":")).encode():
        return ByteTokenizer()
    return JsonTokenizer(decode_utf8(path.name, content), settings=Settings.of_folder(path.parent))


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
    wrong = [file for file in models[1:] if file.read_bytes() != models[0].read_bytes()]
    if models and models[0] != files[0] and not _agree(tokenizer, models[0]):
        wrong.append(files[0])
    if wrong:
        raise ValueError(
            f"{folder} holds two tokenizers that contradict each other, {wrong[0].name} and {models[0].name}: "
            "remove the one that does not belong to the model"
        )
    return tokenizer


def _agree(tokenizer: Tokenizer, model: Path) -> bool:
    """Whether the tokenizer of a tokenizer.json has nearly all pieces of a sentencepiece model."""
    if not isinstance(tokenizer, JsonTokenizer):
        return False
    try:
        pieces = ordinary_pieces(model.read_bytes())
    except ValueError:  # not a model, for example the pointer of a file that Git LFS has not fetched
        return True
    known = tokenizer.tokenizer.get_vocab()
    return sum(piece in known for piece in pieces) >= 0.9 * len(pieces)
