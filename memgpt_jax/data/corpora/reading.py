"""Readers of documents from one file: text, lines of JSON, rows of CSV, TSV and Parquet.

A text file is one document and is read in blocks, so that a large file is never in memory as a whole; each line of
JSON and each row of a table is a document. All text is UTF-8, with or without a byte order mark at the start. Every
problem is a `ValueError` that names the file, and the line, row or byte.
"""

import codecs
import contextlib
import csv
import functools
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from memgpt_jax.files.paths import shown

Kind = Literal["text", "jsonl", "csv", "tsv", "parquet"]
InvalidUtf8 = Literal["error", "replace"]
BLOCK = 2**18
"""Bytes of a text file that are read and decoded at once, and characters of a piece of any text."""
BOM = codecs.BOM_UTF8
ROW_SUFFIXES: dict[str, Kind] = {".jsonl": "jsonl", ".csv": "csv", ".tsv": "tsv"}
TEXT_SUFFIXES = (".txt", ".md", ".py")
SHOWN = 3
"""The largest number of file names in a message."""
ROW_GROUP = 64
"""Rows of a Parquet file that are converted at once."""
REMEDIES = "set data.text_column to the field that holds the text, or skip the file with data.exclude"


class Options(NamedTuple):
    """How documents are read."""

    invalid_utf8: InvalidUtf8 = "error"
    """Whether bytes that are not UTF-8 are an error or become U+FFFD."""
    text_column: str = "text"
    """The field of JSON lines, CSV and Parquet files that holds the text."""


DEFAULT = Options()


class Document(NamedTuple):
    """A document, read when its pieces are iterated."""

    name: str
    """The path of its file in the corpus; for a row or JSON line, followed by ":" and its number from 1."""
    pieces: Iterable[str]
    """Its text, split at arbitrary places."""


def listed(reason: str, names: Sequence[str]) -> str:
    """A message part: the number of names, the reason and the first names."""
    first = ", ".join(map(shown, sorted(names)[:SHOWN]))
    return f"{len(names)} ({reason}): {first}{', ...' * (len(names) > SHOWN)}"


def always(_: object) -> bool:
    """True."""
    return True


def unreadable(path: str | os.PathLike[str], error: OSError) -> ValueError:
    """The error for a file or folder that cannot be read."""
    return ValueError(f"{shown(path)} cannot be read: {error.strerror or error}")


def kind_of(name: str) -> Kind | None:
    """The kind of a file by its suffix, in upper or lower case; None: it is not read."""
    name = name.lower()
    plain = name.removesuffix(".gz")
    for suffix, kind in ROW_SUFFIXES.items():
        if plain.endswith(suffix):
            return kind
    if name.endswith(".parquet"):
        return "parquet"
    if plain.endswith((".tar", ".parquet")):
        return None
    return "text" if name.endswith((*TEXT_SUFFIXES, ".gz")) else None


def read_file(path: Path, name: str, kind: Kind, wanted: Callable[[str], bool], options: Options) -> Iterator[Document]:
    """The wanted documents of a file.

    Args:
        path: the file.
        name: prefix of the names of its documents.
        kind: the format of the file.
        wanted: True for the names of the documents to read.
        options: how documents are read.
    """
    if kind == "text":
        if wanted(name):
            yield Document(name, _text(path, options.invalid_utf8))
        return
    for number, read in ROWS[kind](path, options):
        if wanted(f"{name}:{number}"):
            yield Document(f"{name}:{number}", in_blocks(read))


def document_names(path: Path, name: str, kind: Kind, options: Options) -> Iterator[str]:
    """The name of each document of a file. Texts are not decoded."""
    if kind == "text":
        yield name
    else:
        yield from (document.name for document in read_file(path, name, kind, always, options))


def read_text(path: Path) -> str:
    """The text of a file, decompressed if its name ends in `.gz`. `ValueError` if it is damaged or not UTF-8."""
    return "".join(_text(path, "error"))


def decode(data: bytes | memoryview, where: str, invalid_utf8: str, offset: int = 0) -> str:
    """UTF-8 bytes as text; bytes that are not UTF-8 are an error, or with `replace` become U+FFFD.

    `offset`: the position of `data` in `where`, in bytes of the uncompressed content, for the message.
    """
    try:
        return str(data, "utf-8", "replace" if invalid_utf8 == "replace" else "strict")
    except UnicodeDecodeError as error:
        raise _not_utf8(where, offset + error.start, error.reason) from None


def _not_utf8(where: str, offset: int, reason: str) -> ValueError:
    return ValueError(
        f"{where} is not valid UTF-8 at byte offset {offset}: {reason}; data.invalid_utf8='replace' replaces such bytes"
    )


def in_blocks(read: Callable[[], str]) -> Iterator[str]:
    """The pieces of a text, which is read at the first iteration."""
    text = read()
    yield from (text[start : start + BLOCK] for start in range(0, len(text), BLOCK))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """The stream of a file's bytes, unpacked, after its byte order mark. Raises `ValueError` if it cannot be read."""
    where = shown(path)
    try:
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as stream:
            begin = stream.peek(4)[:4]
            if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
                raise ValueError(
                    f"{where} is not UTF-8 text: its byte order mark is that of UTF-16 or UTF-32; convert it to UTF-8, "
                    "or skip it with data.exclude"
                )
            if begin.startswith(BOM):
                stream.read(len(BOM))
            yield stream
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{where} is not a complete gzip file: {error}") from None
    except OSError as error:
        raise unreadable(path, error) from None


def _text(path: Path, invalid_utf8: str) -> Iterator[str]:
    """The text of a file, in pieces of at most about `BLOCK` bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace" if invalid_utf8 == "replace" else "strict")
    with _opened(path) as stream:
        end = False
        while not end:
            offset = stream.tell()
            data = stream.read(BLOCK)
            end = not data
            zero = data.find(b"\0")
            if zero >= 0:
                raise ValueError(
                    f"{shown(path)} is not text: it holds a zero byte at offset {offset + zero}; "
                    "skip it with data.exclude"
                )
            pending = len(decoder.getstate()[0])  # bytes of a character that began in the last block
            try:
                piece = decoder.decode(data, end)
            except UnicodeDecodeError as error:
                raise _not_utf8(shown(path), offset - pending + error.start, error.reason) from None
            if piece:
                yield piece


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """The (number from 1, bytes, offset) of each line."""
    with _opened(path) as stream:
        offset = stream.tell()
        for number, line in enumerate(stream, start=1):
            yield number, line, offset
            offset += len(line)


def _json_lines(path: Path, options: Options) -> Iterator[tuple[int, Callable[[], str]]]:
    """The (number, text) of every line that is not blank."""
    for number, line, offset in numbered_lines(path):
        if line.strip():
            yield number, functools.partial(_json_text, path, number, line, offset, options)


def read_tables(path: Path, kind: Kind, options: Options) -> Iterator[tuple[str, dict[str, Any]]]:
    """The (place for messages, values by column) of every row of a table, a .jsonl, .csv, .tsv or .parquet file."""
    if kind == "jsonl":
        for number, line, offset in numbered_lines(path):
            if line.strip():
                where, record = f"{shown(path)}, line {number}", _json_record(path, number, line, offset, options, int)
                if not isinstance(record, dict):
                    raise ValueError(f"{where} must be a JSON object, it is a {type(record).__name__}")
                yield where, record
    elif kind == "parquet":
        yield from _parquet_records(path)
    else:
        table = _csv_table(path, options, "," if kind == "csv" else "\t")
        first, header = next(table, (0, []))
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise ValueError(f"{shown(path)}, line {first} names two columns {', '.join(map(repr, twice))}")
        for number, row in table:
            yield f"{shown(path)}, line {number}", dict(zip(header, row, strict=True))


def _parquet_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    from pyarrow import parquet

    with _opened(path) as stream, _arrow_errors(shown(path)):
        file = parquet.ParquetFile(stream, page_checksum_verification=True)
        number = 0
        for batch in file.iter_batches(ROW_GROUP):
            for values in batch.to_pylist():
                number += 1
                yield f"{shown(path)}, row {number}", values


def _json_text(path: Path, number: int, line: bytes, offset: int, options: Options) -> str:
    where = f"{shown(path)}, line {number}"
    record, name = _json_record(path, number, line, offset, options), options.text_column
    if not isinstance(record, dict):
        raise ValueError(f"{where} needs a field {name!r} that is a string; it holds {type(record).__name__}")
    if name not in record:
        raise _missing(where, "field", name, record)
    text = record[name]
    if not isinstance(text, str):
        raise ValueError(
            f"{where} needs a field {name!r} that is a string; it is {'null' if text is None else type(text).__name__}"
            f"; {REMEDIES}"
        )
    # JSON can express half of a surrogate pair, which UTF-8 cannot.
    return decode(text.encode("utf-8", "surrogatepass"), f"the text of {where}", options.invalid_utf8)


def _json_record(
    path: Path, number: int, line: bytes, offset: int, options: Options, parse_int: Callable[[str], Any] = float
) -> Any:
    """The value of a line. By default integers become floats, of any number of digits; Python limits those of `int`."""
    where, text = f"{shown(path)}, line {number}", decode(line, shown(path), options.invalid_utf8, offset)
    try:
        return json.loads(text, parse_int=parse_int)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{where} is not a document: its JSON is nested too deeply to be read") from None


def _missing(where: str, noun: str, name: str, found: Iterable[str]) -> ValueError:
    names = [repr(name)[:80] for name in found]
    found = ", ".join(names[:20]) + f" and {len(names) - 20} more" * (len(names) > 20) or "none"
    return ValueError(f"{where} needs a {noun} {name!r} that is a string; it holds the {noun}s {found}; {REMEDIES}")


def _csv_rows(path: Path, options: Options, delimiter: str = ",") -> Iterator[tuple[int, Callable[[], str]]]:
    """The (number from 1, text) of every row after the header, which names the columns."""
    table = _csv_table(path, options, delimiter)
    first, header = next(table, (0, None))
    if header is None:
        return
    if header.count(options.text_column) != 1:
        where = f"{shown(path)}, line {first}"
        if options.text_column in header:
            raise ValueError(f"{where} names two columns {options.text_column!r}; {REMEDIES}")
        raise _missing(where, "column", options.text_column, header)
    column = header.index(options.text_column)
    for number, (_, row) in enumerate(table, start=1):
        yield number, functools.partial(str, row[column])


def _csv_table(path: Path, options: Options, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The (number of its first line, fields) of the header and of every row; blank lines are skipped.

    In TSV a line is a row and quotes are characters as any other, as in the files of GLUE; in CSV they enclose fields.

    Raises `ValueError` if a row does not have as many fields as the header.
    """
    last = 0

    def lines() -> Iterator[str]:
        nonlocal last
        for number, line, offset in numbered_lines(path):
            last = number
            if b"\0" in line:
                raise ValueError(
                    f"{shown(path)}, line {number} is not text: it holds a zero byte; skip it with data.exclude"
                )
            yield decode(line, shown(path), options.invalid_utf8, offset)

    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    rows = csv.reader(lines(), strict=True, delimiter=delimiter, quoting=quoting)
    width = None
    while True:
        first = last + 1
        try:
            with _long_fields():
                row = next(rows, None)
        except csv.Error as error:
            raise ValueError(
                f"{shown(path)}, line {first} is not {'CSV' if delimiter == ',' else 'TSV'}: {error}"
            ) from None
        if row is None:
            return
        if not row:  # a blank line
            continue
        width = len(row) if width is None else width
        if len(row) != width:
            raise ValueError(
                f"{shown(path)}, line {first} has {len(row)} fields, and the header of the file names {width} columns"
            )
        yield first, row


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """Let the csv module read fields of any length. The limit is global, so it is restored afterwards."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _parquet_rows(path: Path, options: Options) -> Iterator[tuple[int, Callable[[], str]]]:
    """The (number from 1, text) of every row, read group by group."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"{shown(path)} needs pyarrow to be read (pip install pyarrow): {error}") from None
    where, name = shown(path), options.text_column
    with _opened(path) as stream:
        with _arrow_errors(where):
            file = parquet.ParquetFile(stream, page_checksum_verification=True)
            names = file.schema_arrow.names
        if names.count(name) > 1:
            raise ValueError(f"{where} has two columns {name!r}; {REMEDIES}")
        if name not in names:
            raise _missing(where, "column", name, names)
        batches, number = file.iter_batches(ROW_GROUP, columns=[name]), 0
        while True:
            with _arrow_errors(where):
                batch = next(batches, None)
                if batch is None:
                    return
                column = batch.column(0)
                if arrow.types.is_dictionary(column.type):
                    column = column.dictionary_decode()
            if not (arrow.types.is_string(column.type) or arrow.types.is_large_string(column.type)):
                raise ValueError(f"{where}: its column {name!r} must hold strings, and holds {column.type}; {REMEDIES}")
            with _arrow_errors(where):
                rows = list(column.cast(arrow.large_binary()))
            for value in rows:
                number += 1
                yield number, functools.partial(_parquet_text, value, f"{where}, row {number}", options)


def _parquet_text(value: Any, where: str, options: Options) -> str:
    if not value.is_valid:
        raise ValueError(f"{where} needs a text in its column {options.text_column!r}; it is null; {REMEDIES}")
    return decode(memoryview(value.as_buffer()), f"the text of {where}", options.invalid_utf8)


@contextlib.contextmanager
def _arrow_errors(where: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a damaged file can raise nearly any exception
        message = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{where} is not a readable Parquet file: {message[:200]}") from None


ROWS = {
    "jsonl": _json_lines,
    "csv": _csv_rows,
    "tsv": functools.partial(_csv_rows, delimiter="\t"),
    "parquet": _parquet_rows,
}
"""The reader of each kind of table: yields the number of each document and a function that returns its text."""
