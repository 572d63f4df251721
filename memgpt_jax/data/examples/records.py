"""Records of one file: named values, each with the place where it was read.

Every problem is a `ValueError` that names the file and the line.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from memgpt_jax.data.corpora.reading import DEFAULT, kind_of, numbered_lines, read_tables
from memgpt_jax.data.examples.entity_pairs import pairs_of_entities, words_of_entities
from memgpt_jax.data.examples.json_objects import is_json, read_objects
from memgpt_jax.data.examples.sgd import confirmed_values, dialogue_triples, dialogue_words
from memgpt_jax.data.examples.squad import read_squad
from memgpt_jax.data.examples.stories import fairytale, last_word, qmsum, squality
from memgpt_jax.data.examples.trec import read_trec
from memgpt_jax.data.examples.triple_lines import text_and_triples
from memgpt_jax.data.tokenizers.files import refuse_surrogates
from memgpt_jax.files.paths import shown

Form = Literal[
    "auto",
    "label_first",
    "conll",
    "parallel",
    "squad",
    "sgd",
    "sgd_confirmed",
    "sgd_triples",
    "triples",
    "entities",
    "entity_pairs",
    "trec",
    "fairytaleqa",
    "squality",
    "qmsum",
    "lambada",
    "metaqa",
]
"""`auto`: by the suffix .jsonl, .json (a list of objects, or an object of objects), .csv, .tsv or .parquet, perhaps
with .gz. `label_first`: lines `LABEL text`, or `COARSE:FINE text` (TREC). `conll`: lines of a word and its columns; a
blank line ends a record; lines `# ...` before its first word that have other columns than words are comments.
`parallel`: text files whose lines with the same number belong together, one file for each column; the name of the files
holds `*` in place of the column, such as `train.*.gz` for train.en.gz and train.de.gz. `squad`: the JSON file of
SQuAD, a record for each question. `sgd`: dialogues of the Schema-Guided Dialogue dataset, a .jsonl or .json file, a
record for each dialogue; `sgd_confirmed`: a record for each value that the system confirms and that was said before;
`sgd_triples`: dialogues, with the (slot, value) pairs that the user says as lines. `triples` (.jsonl or .json): texts,
each with a list of triples, which become lines. `entities` (.jsonl or .json): texts, each with entities and relations,
as tagged words; `entity_pairs`: a record for each pair of their entities. `trec`: documents and topics of TREC in XML,
a record for each <doc> or <top>. `fairytaleqa` (a folder of files of questions), `squality` and `qmsum` (.jsonl or
.json): a record for each document with its questions. `lambada` (.jsonl or .json): a record for each passage, without
its last word. `metaqa`: lines of a question, a tab and its answers, separated by `|`."""
OBJECTS = {
    "sgd": dialogue_words,
    "sgd_triples": dialogue_triples,
    "triples": text_and_triples,
    "entities": words_of_entities,
    "squality": squality,
    "qmsum": qmsum,
    "lambada": last_word,
}
"""The columns of an object (fields, place for messages), by the form of its file."""
SEVERAL = {"sgd_confirmed": confirmed_values, "entity_pairs": pairs_of_entities}
"""The columns of each record of an object (fields, place for messages), by the form of its file."""
MADE = (*OBJECTS, *SEVERAL)
"""The forms whose columns are made of an object, and are not those of the file."""
Encoding = Literal["utf-8", "latin-1"]


@dataclasses.dataclass(frozen=True)
class Record:
    """One example as it stands in a file."""

    where: str
    """File and line, for messages."""
    file: Path
    """The file."""
    values: Mapping[str, Any]
    """Value of each column."""

    def get(self, column: str) -> Any:
        """The value of a column. Raises `ValueError` if there is no such column."""
        if column not in self.values:
            found = ", ".join(map(repr, self.values)) or "none"
            raise ValueError(f"{self.where} has no column {column!r}; it has {found}")
        return self.values[column]

    def text(self, column: str) -> str:
        """The text of a column. Raises `ValueError` if it is absent, no string, or holds half a surrogate pair."""
        value = self.get(column)
        if not isinstance(value, str):
            raise ValueError(f"{self.where}: column {column!r} must be a string, it is {_kind(value)}")
        self._check_characters(column, value)
        return value

    def _check_characters(self, column: str, text: str) -> None:
        try:
            refuse_surrogates(text)
        except ValueError as error:
            raise ValueError(f"{self.where}: column {column!r}: {error}") from None

    def texts(self, column: str) -> list[str]:
        """The list of texts of a column. Raises `ValueError` if it is no list of strings, or as `text`."""
        value = self.get(column)
        if not isinstance(value, list):
            raise ValueError(f"{self.where}: column {column!r} must be a list of strings, it is {_kind(value)}")
        for number, item in enumerate(value, start=1):
            if not isinstance(item, str):
                raise ValueError(
                    f"{self.where}: column {column!r} must be a list of strings, item {number} is {_kind(item)}"
                )
            self._check_characters(column, item)
        return value

    def joined(self, columns: Sequence[str]) -> str:
        """The texts of several columns, separated by spaces; a column holds a text or a list of texts.

        Raises `ValueError` as `texts`.
        """
        values = [
            self.texts(column) if isinstance(self.get(column), list) else [self.text(column)] for column in columns
        ]
        return " ".join(itertools.chain(*values))

    def label(self, column: str) -> str:
        """The label of a column: a string, or a number or truth value as a string.

        Raises `ValueError` if it is empty or of another type.
        """
        return as_label(self.get(column), f"{self.where}: column {column!r}")

    def labels(self, column: str, separator: str) -> list[str]:
        """The labels of a column: a list, or a string in which they are separated. It may be empty.

        Raises `ValueError` if it is of another type or a list written as text, or one of them is empty or no label.
        """
        value = self.get(column)
        if not isinstance(value, list | str):
            raise ValueError(
                f"{self.where}: column {column!r} must be a list of labels or a string, it is {_kind(value)}"
            )
        if isinstance(value, str) and re.fullmatch(r"\s*\[.*\]\s*", value, re.DOTALL):
            raise ValueError(
                f"{self.where}: column {column!r} holds a list as a text, {value[:40]!r}: give the labels with "
                f"{separator!r} between them, or lists in a .jsonl file"
            )
        parts = value if isinstance(value, list) else value.split(separator) if value.strip() else []
        return [dataclasses.replace(self, values={column: part}).label(column) for part in parts]

    def number(self, column: str) -> float:
        """The number of a column, which may be text. Raises `ValueError` unless it is a finite number."""
        value = self.get(column)
        try:
            number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            got = repr(value[:40]) if isinstance(value, str) else _kind(value)
            raise ValueError(f"{self.where}: column {column!r} must be a finite number, it is {got}")
        return number


def as_label(value: Any, where: str) -> str:
    """A string, number or truth value as a label. Raises `ValueError` if it is empty or of another type."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON and Parquet may hold 1 as 1.0
    if not isinstance(value, str | int | float) or value != value:
        raise ValueError(f"{where} must be a label, it is {_kind(value)}")
    label = str(value).strip()
    if not label:
        raise ValueError(f"{where} must be a label, it is empty")
    return label


def as_labels(values: Any, where: str) -> tuple[str, ...]:
    """A list or tuple of distinct labels. Raises `ValueError` if it is something else."""
    if not isinstance(values, list | tuple):
        raise ValueError(f"{where} must be a list of labels, got {values!r}")
    labels = tuple(as_label(value, f"a label of {where}") for value in values)
    if len(set(labels)) != len(labels):
        raise ValueError(f"{where} must be distinct, got {labels}")
    return labels


def _kind(value: Any) -> str:
    is_nan = isinstance(value, float) and value != value
    return "null" if value is None else "NaN" if is_nan else f"a {type(value).__name__}"


def read_records(path: Path, form: Form = "auto", encoding: Encoding = "utf-8") -> Iterator[Record]:
    """The records of a file.

    Args:
        path: the file.
        form: its format; .jsonl files are read as such in any case.
        encoding: of a text file; a byte order mark is skipped.

    Yields:
        For tables the columns of the header, or the fields of an object; for `label_first` the columns `label`,
        `coarse` and `text`; for `conll` the lists `words`, `column1`, `column2`, ...; for `squad`, `sgd` and the other
        forms of data sets as in `memgpt_jax.data.examples`.

    Raises:
        ValueError: the file cannot be read, its suffix is unknown, or a line does not have the format.
    """
    kind = kind_of(path.name)
    is_table = kind is not None and kind != "text"
    if form == "label_first" and kind != "jsonl":
        yield from _label_first(path, encoding)
    elif form == "conll" and kind != "jsonl":
        yield from _conll(path, encoding)
    elif form == "metaqa" and kind != "jsonl":
        yield from _metaqa(path, encoding)
    elif form == "squad" and kind != "jsonl":
        yield from (Record(where, path, values) for where, values in read_squad(path))
    elif form == "trec":
        yield from (Record(where, path, values) for where, values in read_trec(path))
    elif form == "fairytaleqa" and kind == "csv":
        yield Record(shown(path), path, fairytale(path))
    elif form in OBJECTS:
        for where, values in _objects(path):
            yield Record(where, path, OBJECTS[form](values, where))
    elif form in SEVERAL:
        for where, values in _objects(path):
            yield from (Record(where, path, columns) for columns in SEVERAL[form](values, where))
    elif form == "auto" and is_json(path):
        yield from (Record(where, path, values) for where, values in read_objects(path))
    elif not is_table:
        raise ValueError(
            f"{shown(path)}: its suffix must be .jsonl, .csv, .tsv or .parquet, each perhaps with .gz, or .json; "
            "or set data.form, one of " + ", ".join(map(repr, Form.__args__))
        )
    elif form == "auto" and encoding != "utf-8":
        raise ValueError(f"{shown(path)}: data.encoding={encoding!r} is for 'label_first' and 'conll' files")
    else:
        assert kind is not None
        for where, values in read_tables(path, kind, DEFAULT):
            yield Record(where, path, values)


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The (place for messages, fields) of every object of a .jsonl or .json file."""
    if is_json(path):
        yield from read_objects(path)
    elif kind_of(path.name) == "jsonl":
        yield from read_tables(path, "jsonl", DEFAULT)
    else:
        raise ValueError(f"{shown(path)}: its suffix must be .jsonl or .json, perhaps with .gz")


def read_parallel(paths: Mapping[str, Path], encoding: Encoding = "utf-8") -> Iterator[Record]:
    """The records of parallel text files: line i of each file.

    Args:
        paths: the file of each column.
        encoding: of the files; a byte order mark is skipped.

    Raises:
        ValueError: a file cannot be read, or the files have different numbers of lines.
    """
    first = next(iter(paths.values()))
    for lines in itertools.zip_longest(*(_lines(path, encoding) for path in paths.values())):
        if None in lines:
            wheres = [line[0] for line in lines if line is not None]
            ended = [shown(path) for path, line in zip(paths.values(), lines, strict=True) if line is None]
            raise ValueError(f"{wheres[0]} has no counterpart: {' and '.join(ended)} ended before it")
        yield Record(lines[0][0], first, dict(zip(paths, (text for _, text in lines), strict=True)))


def _lines(path: Path, encoding: Encoding) -> Iterator[tuple[str, str]]:
    """The (place, text without line end) of each line."""
    for number, line, offset in numbered_lines(path):
        where = f"{shown(path)}, line {number}"
        try:
            yield where, line.decode(encoding).rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{where} is not valid UTF-8 at byte offset {offset + error.start}: convert the file, or set "
                "data.encoding='latin-1'"
            ) from None


def _label_first(path: Path, encoding: Encoding) -> Iterator[Record]:
    for where, line in _lines(path, encoding):
        if not line.strip():
            continue
        label, *rest = line.split(maxsplit=1)
        if not rest:
            raise ValueError(f"{where} must be a label, a space and a text, got {line[:80]!r}")
        yield Record(where, path, {"label": label, "coarse": label.partition(":")[0], "text": rest[0].strip()})


def _metaqa(path: Path, encoding: Encoding) -> Iterator[Record]:
    for where, line in _lines(path, encoding):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) != 2:
            raise ValueError(f"{where} must be a question, a tab and its answers, got {line[:80]!r}")
        yield Record(where, path, {"question": fields[0], "answers": fields[1].split("|")})


COMMENT = re.compile(r"#( |$)")
CONLL_U = re.compile(r"# *(newdoc|newpar|[\w:.]+ *=)")
"""A comment in any file of words: the `#` of a text would have a tag here."""


def _conll(path: Path, encoding: Encoding) -> Iterator[Record]:
    rows: list[Sequence[str]] = []
    start, lines = "", list(_lines(path, encoding))
    columns = next(
        (len(_fields(line)) for _, line in lines if line.strip() and not line.startswith(("#", DOCUMENT))), 0
    )
    for where, line in lines:
        fields = _fields(line)
        if not any(fields) or fields[0] == DOCUMENT:
            if rows:
                yield _sentence(path, start, rows)
            rows = []
            continue
        is_comment = CONLL_U.match(line) or (COMMENT.match(line) and columns not in (0, len(fields)))
        if not rows and is_comment and "\t" not in line:
            continue
        start = start if rows else where
        if len(fields) < 2 or not all(fields):
            raise ValueError(f"{where} must be a word and its tags, separated by tabs or spaces, got {line[:80]!r}")
        if rows and len(fields) != len(rows[0]):
            raise ValueError(f"{where} has {len(fields)} columns, and the lines before it {len(rows[0])}")
        rows.append(fields)
    if rows:
        yield _sentence(path, start, rows)


DOCUMENT = "-DOCSTART-"


def _fields(line: str) -> list[str]:
    """The columns of a line, separated by tabs if it has any."""
    fields = line.rstrip("\t ").split("\t") if "\t" in line else line.split()
    return [field.strip() for field in fields]


def _sentence(path: Path, where: str, rows: list[Sequence[str]]) -> Record:
    columns = list(map(list, zip(*rows, strict=True)))
    return Record(
        where, path, {"words": columns[0]} | {f"column{i}": column for i, column in enumerate(columns[1:], 1)}
    )
