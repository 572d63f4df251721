"""Corpora as TensorFlow Datasets, prepared and read without TensorFlow.

`Stdlib` and `Folder` are TFDS builders over files of this machine; any other name is a text set that TFDS has.
Importing this module imports TFDS; `import memgpt_jax.data` does not import this module.
"""

import contextlib
import dataclasses
import difflib
import io
import os
import platform
import sys
from collections.abc import Iterator

import tensorflow_datasets as tfds
from absl import logging
from array_record.python.array_record_module import ArrayRecordReader

from memgpt_jax.config_data import TextConfig
from memgpt_jax.data import sources
from memgpt_jax.data.progress import track

TEXT_FEATURES = ("text", "content", "book_text", "article", "document", "body")
SPLIT_NAMES = {"train": ("train",), "valid": ("validation", "valid", "dev"), "test": ("test",)}


class _SourceFiles(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Documents of source files, in a fixed random order. Its config is named by a fingerprint of the files."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, source_files: list[sources.SourceFile], label: str, invalid_utf8: str, **kwargs):
        self.source_files = source_files
        self.invalid_utf8 = invalid_utf8
        name = f"{label}-{sources.fingerprint(source_files)}-{invalid_utf8}"
        super().__init__(config=tfds.core.BuilderConfig(name=name), **{"file_format": "array_record"} | kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict({"name": tfds.features.Text(), "text": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in sources.present_splits(self.source_files)}

    def _generate_examples(self, split):
        files = track(self.source_files, f"Reading {self.name}, {split}")
        documents = (item for file in files for item in sources.read_documents(file, split, self.invalid_utf8))
        for index, (name, text) in enumerate(documents):
            yield index, {"name": name, "text": text}


class Stdlib(_SourceFiles):
    """The Python standard library's source on this machine; one document per file."""

    def __init__(self, *, invalid_utf8: str = "error", **kwargs):
        label = f"python{platform.python_version()}"
        super().__init__(source_files=sources.stdlib_files(), label=label, invalid_utf8=invalid_utf8, **kwargs)


class Folder(_SourceFiles):
    """A folder of text files (`.txt`, `.md`, `.py`, `.gz`: one document each; `.jsonl`: one per line)."""

    def __init__(self, *, path: str, invalid_utf8: str = "error", **kwargs):
        files = sources.folder_files(path)
        super().__init__(source_files=files, label="files", invalid_utf8=invalid_utf8, **kwargs)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus, prepared when a split of it is first read."""

    config: TextConfig
    builder: tfds.core.DatasetBuilder

    @property
    def fingerprint(self) -> str:
        """What the documents depend on."""
        return self.builder.info.full_name

    def read(self, split: str) -> tuple[int, Iterator[tuple[str, str]]]:
        """The number of documents of a split, after `max_documents`, and their (name, text).

        Raises `ValueError` where the split has no documents, and where the prepared files are damaged.
        """
        self._prepare()
        expression = self._split_expression(list(self.builder.info.splits), split)
        source = self.builder.as_data_source(split=expression)
        if len(source) == 0:
            raise ValueError(f"split {split!r} of {self.fingerprint} holds no documents")
        self._check_counts(expression.partition("[")[0])
        count = min(len(source), self.config.max_documents or len(source))
        feature = _text_feature(self.fingerprint, self.builder.info.features)
        return count, (self._document(source[index], index, feature, split) for index in range(count))

    def _prepare(self):
        # A download is worth TFDS's progress bars; local files have ours.
        talkative = sys.stderr.isatty() and not isinstance(self.builder, _SourceFiles)
        with contextlib.nullcontext() if talkative else _quiet():
            self.builder.download_and_prepare(file_format="array_record")

    def _check_counts(self, split: str):
        # An ArrayRecord file that was cut short opens without an error, with no records.
        info = self.builder.info.splits[split]
        for path, expected in zip(info.filepaths, info.shard_lengths, strict=True):
            found = ArrayRecordReader(str(path)).num_records()
            if found != expected:
                raise ValueError(
                    f"{path} is damaged: it holds {found} of {expected} documents; delete its folder, and it is "
                    "prepared again"
                )

    def _split_expression(self, available: list[str], split: str) -> str:
        """How TFDS names the split. Where a set of TFDS has no valid or no test split, each is 5 % off train's end."""
        found = {ours: next((name for name in names if name in available), None) for ours, names in SPLIT_NAMES.items()}
        local = isinstance(self.builder, _SourceFiles)
        missing = [] if local or not found["train"] else [name for name in ("valid", "test") if not found[name]]
        cut = 100 - 5 * len(missing)
        if split in missing:
            start = cut + 5 * missing.index(split)
            return f"{found['train']}[{start}%:{start + 5}%]"
        if found[split] is None:
            hint = "; the sub-folders train, valid and test of a folder are its splits" if local else ""
            raise ValueError(
                f"{self.fingerprint} holds no documents in split {split!r}, only in "
                f"{', '.join(map(repr, available))}{hint}"
            )
        return f"{found['train']}[:{cut}%]" if missing and split == "train" else found[split]

    def _document(self, record, index: int, feature: str, split: str) -> tuple[str, str]:
        text = record[feature]
        name = f"document {index} of split {split!r} of {self.fingerprint}"
        return name, text if isinstance(text, str) else sources.decode(text, name, self.config.invalid_utf8)


def open_corpus(config: TextConfig) -> Corpus:
    """The corpus that the config names.

    Sets of TFDS are looked for, and prepared, in `TFDS_DATA_DIR` if that is set, else below `config.cache_dir`.

    Raises:
        ValueError: there is no such corpus; the folder is absent or holds no text; Python's source is not there.
    """
    cache = str(sources.expand(config.cache_dir) / "tensorflow_datasets")
    if config.corpus in ("stdlib", "folder"):
        with _quiet():
            if config.corpus == "stdlib":
                builder = Stdlib(invalid_utf8=config.invalid_utf8, data_dir=cache)
            else:
                builder = Folder(path=config.path, invalid_utf8=config.invalid_utf8, data_dir=cache)
        return Corpus(config, builder)
    known = tfds.list_builders(with_community_datasets=False)
    if config.corpus.partition("/")[0].partition(":")[0] not in known:
        nearest = difflib.get_close_matches(config.corpus, ["stdlib", "folder", *known], n=3, cutoff=0.4)
        raise ValueError(
            f"data.corpus={config.corpus!r} is neither 'stdlib' nor 'folder' nor a data set of TensorFlow Datasets; "
            f"the nearest names are {', '.join(map(repr, nearest))}"
        )
    directory = os.environ.get("TFDS_DATA_DIR", cache)
    return Corpus(config, tfds.builder(config.corpus, data_dir=directory, file_format="array_record", try_gcs=False))


def _text_feature(corpus: str, features) -> str:
    """The name of the feature that holds the text."""
    texts = [name for name, feature in features.items() if isinstance(feature, tfds.features.Text)]
    for name in TEXT_FEATURES:
        if name in texts:
            return name
    if len(texts) == 1:
        return texts[0]
    raise ValueError(
        f"{corpus} has no feature that is plainly its text, one of {', '.join(map(repr, TEXT_FEATURES))} or the only "
        f"text feature; it has {', '.join(map(repr, features))}"
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
