"""Corpora of TensorFlow Datasets, prepared and read without TensorFlow.

`Stdlib` and `Folder` are TFDS builders of corpora of files, for programs that use TFDS; the library itself reads the
files without TFDS. `open_named` opens a text data set of TFDS. Importing this module imports TFDS;
`import memgpt_jax.data` does not import this module.
"""

import contextlib
import dataclasses
import difflib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging
from array_record.python.array_record_module import ArrayRecordReader

from memgpt_jax.data.corpora.folders import folder_corpus
from memgpt_jax.data.corpora.reading import DEFAULT, Document, InvalidUtf8, Options, decode, in_blocks
from memgpt_jax.data.corpora.sources import FileCorpus, expand, stdlib_corpus
from memgpt_jax.data.progress_bar import track
from memgpt_jax.files import checksums
from memgpt_jax.files.paths import shown

TEXT_FEATURES = ("text", "content", "book_text", "article", "document", "body")
SPLIT_NAMES = {"train": ("train",), "valid": ("validation", "valid", "dev"), "test": ("test",)}


class _Files(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Documents of files, in a fixed random order. The name of the config contains the fingerprint of the files."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, corpus: FileCorpus, **kwargs):
        self.corpus = corpus
        name = f"{self.name}-{corpus.fingerprint}"
        super().__init__(config=tfds.core.BuilderConfig(name=name), **{"file_format": "array_record"} | kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict({"name": tfds.features.Text(), "text": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: Any):
        return {split: self._generate_examples(split) for split in self.corpus.splits}

    def _generate_examples(self, split: str):
        for index, document in enumerate(self.corpus.read(split)):
            yield index, {"name": shown(document.name), "text": "".join(document.pieces)}


class Stdlib(_Files):
    """The Python standard library's source on this machine; one document per file."""

    def __init__(self, *, invalid_utf8: InvalidUtf8 = "error", **kwargs):
        super().__init__(corpus=stdlib_corpus(Options(invalid_utf8)), **kwargs)


class Folder(_Files):
    """A folder of documents and tables of documents, as `TextConfig` describes it."""

    def __init__(
        self,
        *,
        path: str,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        text_column: str = "text",
        invalid_utf8: InvalidUtf8 = "error",
        **kwargs,
    ):
        corpus = folder_corpus(path, include, exclude, Options(invalid_utf8, text_column))
        super().__init__(corpus=corpus, **kwargs)


@dataclasses.dataclass(frozen=True)
class NamedCorpus:
    """A text data set of TFDS, prepared when one of its splits is first read."""

    name: str
    folder: str
    """The folder of all prepared data sets."""
    builder: tfds.core.DatasetBuilder
    options: Options

    @property
    def fingerprint(self) -> str:
        """Name that changes with the documents."""
        return self.builder.info.full_name

    def read(self, split: str) -> Iterator[Document]:
        """The documents of a split.

        Raises `ValueError` if there are none, the data set cannot be prepared, or the prepared files are damaged.
        """
        builder = self._prepared()
        expression = self._split_expression(list(builder.info.splits), split)
        with self._errors("read"):
            source: Any = builder.as_data_source(split=expression)  # pyright: ignore[reportCallIssue]  # decorated
        if len(source) == 0:
            raise ValueError(f"split {split!r} of {self.fingerprint} holds no documents")
        self._check_counts(builder.info.splits[expression.partition("[")[0]])
        feature = _text_feature(self.fingerprint, builder.info.features, self.options.text_column)
        return self._documents(source, feature, split)

    def _prepared(self) -> tfds.core.DatasetBuilder:
        """The builder, after its files were prepared and their checksums recorded, or existing files were verified.

        Files that TFDS prepared without this library have no checksums and are not verified.
        """
        folder = Path(self.builder.data_dir)
        if folder.exists():
            try:
                checksums.verify(folder)
            except checksums.DamagedError as error:
                raise ValueError(f"{error}; or delete {shown(folder)}, and it is prepared again") from None
            # Another process may have prepared the files since this builder was made.
            return self.builder if self.builder.info.splits else _builder(self.name, self.folder)
        # On a terminal, TFDS shows the progress of a download.
        with self._errors("prepared"), contextlib.nullcontext() if sys.stderr.isatty() else _quiet():
            self.builder.download_and_prepare(file_format="array_record")
            if folder.is_dir():  # not in a bucket
                checksums.record_all(folder)
        return self.builder

    @contextlib.contextmanager
    def _errors(self, action: str):
        try:
            yield
        except Exception as error:  # TFDS and its downloads raise errors of many kinds
            first = (str(error).splitlines() or [""])[0]
            raise ValueError(
                f"data.corpus={self.name!r} cannot be {action} in {shown(self.builder.data_dir)}: "
                f"{type(error).__name__}: {first}"
            ) from error

    def _check_counts(self, info: Any) -> None:
        """Raise `ValueError` if a file of a split (`tfds.core.SplitInfo`) holds fewer records than it should."""
        # An ArrayRecord file that was cut short opens without an error, with no records.
        for path, expected in zip(info.filepaths, info.shard_lengths, strict=True):
            found = ArrayRecordReader(str(path)).num_records()
            if found != expected:
                raise ValueError(
                    f"{path} is damaged: it holds {found} of {expected} documents; delete its folder, and it is "
                    "prepared again"
                )

    def _split_expression(self, available: list[str], split: str) -> str:
        """TFDS's expression for the split. A missing valid or test split is 5% from the end of train."""
        found = {ours: next((name for name in names if name in available), None) for ours, names in SPLIT_NAMES.items()}
        missing = [name for name in ("valid", "test") if not found[name]] if found["train"] else []
        cut = 100 - 5 * len(missing)
        if split in missing:
            start = cut + 5 * missing.index(split)
            return f"{found['train']}[{start}%:{start + 5}%]"
        name = found[split]
        if name is None:
            raise ValueError(
                f"{self.fingerprint} holds no documents in split {split!r}, only in {', '.join(map(repr, available))}"
            )
        return f"{name}[:{cut}%]" if missing and split == "train" else name

    def _documents(self, source: Any, feature: str, split: str) -> Iterator[Document]:
        for index in track(range(len(source)), f"Reading {self.name}, {split}"):
            name = f"document {index} of split {split!r} of {self.fingerprint}"
            yield Document(name, in_blocks(partial(self._text, source, index, feature, name)))

    def _text(self, source: Any, index: int, feature: str, name: str) -> str:
        with self._errors("read"):
            text = source[index][feature]
        return text if isinstance(text, str) else decode(text, name, self.options.invalid_utf8)


def open_named(name: str, cache_dir: str, options: Options) -> NamedCorpus:
    """Open a text data set of TFDS in `TFDS_DATA_DIR` if that is set, else below `cache_dir`.

    Raises `ValueError` if TFDS has no such data set.
    """
    known = tfds.list_builders(with_community_datasets=False)
    if name.partition("/")[0].partition(":")[0] not in known:
        nearest = difflib.get_close_matches(name, ["stdlib", "folder", *known], n=3, cutoff=0.4)
        raise ValueError(
            f"data.corpus={name!r} is neither 'stdlib' nor 'folder' nor a data set of TensorFlow Datasets; "
            f"the nearest names are {', '.join(map(repr, nearest))}"
        )
    folder = os.environ.get("TFDS_DATA_DIR", str(expand(cache_dir) / "tensorflow_datasets"))
    return NamedCorpus(name, folder, _builder(name, folder), options)


def _builder(name: str, folder: str) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(name, data_dir=folder, file_format="array_record", try_gcs=False)
    except Exception as error:  # an unknown config or version; a folder that cannot be read
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(f"data.corpus={name!r} cannot be opened in {shown(folder)}: {first}") from error


def _text_feature(corpus: str, features: Any, wanted: str) -> str:
    """The name of the feature that holds the text."""
    texts = [name for name, feature in features.items() if isinstance(feature, tfds.features.Text)]
    usual = TEXT_FEATURES if wanted == DEFAULT.text_column else (wanted,)
    for name in usual:
        if name in texts:
            return name
    if len(texts) == 1 and usual is TEXT_FEATURES:
        return texts[0]
    raise ValueError(
        f"{corpus} has no text feature named {' or '.join(map(repr, usual))}, and not exactly one text feature; "
        f"its features are {', '.join(map(repr, features))}; set data.text_column to one of them"
    )


@contextlib.contextmanager
def _quiet():
    """Keep TFDS from printing, logging and drawing while it prepares local files."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        logging.set_verbosity(verbosity)
