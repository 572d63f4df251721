"""Documents in files: text, JSON lines, CSV, Parquet; byte order marks, damage, large documents."""

import codecs
import csv
import gzip
import io
import json
import os

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from memgpt_jax.data.corpora import reading
from memgpt_jax.data.corpora.reading import Options


def read(path, name=None, **options):
    """{name: text} of the documents of a file."""
    kind = reading.kind_of(path.name)
    found = reading.read_file(path, name or path.name, kind, lambda _: True, Options(**options))
    return {document.name: "".join(document.pieces) for document in found}


def write(path, content):
    content = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(content) if path.name.lower().endswith(".gz") else content)
    return path


def table(values, kind=None, **columns):
    """The bytes of a Parquet file."""
    out = io.BytesIO()
    array = values if isinstance(values, pyarrow.Array | pyarrow.ChunkedArray) else pyarrow.array(values, kind)
    parquet.write_table(pyarrow.table({"text": array} | columns), out, row_group_size=50)
    return out.getvalue()


def test_text_is_read_unchanged(tmp_path):
    for name in ("a.txt", "b.md", "c.py", "d.gz", "e.TXT.GZ"):
        assert read(write(tmp_path / name, "A\r\n\tä ▁\n")) == {name: "A\r\n\tä ▁\n"}


LINES = "".join(json.dumps({"text": text, "id": 10**n}) + "\n\n" for n, text in enumerate(["one\n", "two ▁", ""]))
ROWS = 'id,text\r\n1,"one\n"\n\n2,"two ▁ ""x"""\n3,\n'
TABS = 'id\ttext\r\n1\t"one\n\n2\ttwo" ▁\n3\t"x"\n4\t\n'


def test_rows_are_documents(tmp_path):
    for name in ("f.jsonl", "g.JSONL.gz"):
        found = {f"{name}:1": "one\n", f"{name}:3": "two ▁", f"{name}:5": ""}
        assert read(write(tmp_path / name, LINES)) == found
    for name, content in [("h.csv", ROWS), ("i.Csv.gz", ROWS)]:
        assert read(write(tmp_path / name, content)) == {
            f"{name}:1": "one\n",
            f"{name}:2": 'two ▁ "x"',
            f"{name}:3": "",
        }
    found = {"j.tsv:1": '"one', "j.tsv:2": 'two" ▁', "j.tsv:3": '"x"', "j.tsv:4": ""}
    assert read(write(tmp_path / "j.tsv", TABS)) == found
    rows = [f"text {number}" for number in range(230)]
    for kind in (pyarrow.string(), pyarrow.large_string()):
        assert list(read(write(tmp_path / "k.parquet", table(rows, kind))).values()) == rows
    dictionary = pyarrow.array(rows).dictionary_encode()
    found = read(write(tmp_path / "k.parquet", table(dictionary, other=pyarrow.array(range(230)))))
    assert list(found)[229] == "k.parquet:230" and list(found.values()) == rows


def test_the_text_column_can_be_chosen(tmp_path):
    for name, content in [
        ("a.jsonl", '{"text": 1, "body": "x"}'), ("a.csv", "text,body\n1,x\n"), ("a.tsv", "body\nx"),
        ("a.parquet", table([1], body=pyarrow.array(["x"]))),
    ]:  # fmt: skip
        assert read(write(tmp_path / name, content), text_column="body") == {f"{name}:1": "x"}


@pytest.mark.parametrize("name", ["a.txt", "a.md.gz", "a.py", "a.jsonl", "a.jsonl.gz", "a.csv", "a.tsv.gz"])
def test_byte_order_marks_are_removed(tmp_path, name):
    content = '{"text": "\ufeffx"}\n' if ".jsonl" in name else "text\n\ufeffx\n" if "sv" in name else "\ufeffx"
    assert list(read(write(tmp_path / name, codecs.BOM_UTF8 + content.encode())).values()) == ["\ufeffx"]
    for encoding in ("utf-16", "utf-16-be", "utf-32"):
        with pytest.raises(ValueError, match=rf"{name} is not UTF-8 text: its byte order mark is .*convert it"):
            read(write(tmp_path / name, ("\ufeff" * ("be" in encoding) + content).encode(encoding)))


DAMAGED = [
    ("a.txt", b"ab\0c", "a.txt is not text: it holds a zero byte at offset 2"),
    ("a.txt", b"abc\xff\xfe", "a.txt is not valid UTF-8 at byte offset 3: .*data.invalid_utf8='replace'"),
    ("a.txt", codecs.BOM_UTF8 + b"abc\xff\xfe", "a.txt is not valid UTF-8 at byte offset 6"),
    ("a.txt", b"abc\xe2\x82", "a.txt is not valid UTF-8 at byte offset 3: unexpected end of data"),
    ("a.md.gz", b"abcd\xff", "a.md.gz is not valid UTF-8 at byte offset 4"),
    ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}', "a.jsonl is not valid UTF-8 at byte offset 24"),
    ("a.jsonl", b'{"text": "a"}\n{"text', "a.jsonl, line 2 is not JSON"),
    ("a.jsonl", b'{"text": "a\0"}', "a.jsonl, line 1 is not JSON"),
    (
        "a.jsonl",
        b'\n{"body": "a", "id": 1}',
        "line 2 needs a field 'text' .* holds the fields 'body', 'id'; set data.text_c",
    ),
    ("a.jsonl", b"{}", "line 1 needs a field 'text' .* holds the fields none"),
    ("a.jsonl", b'{"text": 3}', "line 1 needs a field 'text' that is a string; it is float"),
    ("a.jsonl", b'{"text": null}', "line 1 needs a field 'text' that is a string; it is null"),
    ("a.jsonl", b"[1]", "line 1 needs a field 'text' .* it holds list"),
    ("a.jsonl", b"[" * 100_000, "line 1 is not a document: its JSON is nested too deeply"),
    ("a.jsonl", b'{"text":' * 100_000, "line 1 is not a document: its JSON is nested too deeply"),
    ("a.jsonl", rb'{"text": "\ud800"}', "the text of .*a.jsonl, line 1 is not valid UTF-8 at byte offset 0"),
    (
        "a.csv",
        b"id,body\n1,x\n",
        "a.csv, line 1 needs a column 'text' .* holds the columns 'id', 'body'; set data.text_",
    ),
    ("a.csv", b"text,text\n1,x\n", "a.csv, line 1 names two columns 'text'"),
    ("a.csv", b'id,text\n1,"x\n\ny"\n2\n', "a.csv, line 5 has 1 fields, and the header of the file names 2 columns"),
    ("a.csv", b"id,text\n1,x\n2,y,z\n", "a.csv, line 3 has 3 fields"),
    ("a.csv", b'id,text\n1,"x\n2,y\n', "a.csv, line 2 is not CSV: unexpected end of data"),
    ("a.csv", b'text\n"x"y\n', "a.csv, line 2 is not CSV"),
    ("a.tsv", b"text\nx\ry\n", "a.tsv, line 2 is not TSV"),
    ("a.csv", b"text\nx\na\0b\n", "a.csv, line 3 is not text: it holds a zero byte"),
    ("a.csv", b"text\nx\n\xff\n", "a.csv is not valid UTF-8 at byte offset 7"),
    ("a.parquet", b"PAR1 is not all", "a.parquet is not a readable Parquet file: "),
    (
        "a.parquet",
        table(["x"]).replace(b"text", b"body"),
        "needs a column 'text' .* holds the columns 'body'; set data.text",
    ),
    ("a.parquet", table(["x", None]), "a.parquet, row 2 needs a text in its column 'text'; it is null"),
    ("a.parquet", table([1]), "a.parquet: its column 'text' must hold strings, and holds int64"),
    ("a.parquet", table([["x"]]), "a.parquet: its column 'text' must hold strings, and holds list"),
    (
        "a.parquet",
        table(pyarrow.array([b"a", b"\xff"]).view(pyarrow.string())),
        "a.parquet, row 2 is not valid UTF-8 at byte offset 0",
    ),
]


@pytest.mark.parametrize(("name", "content", "message"), DAMAGED)
def test_invalid_documents_are_refused_by_name(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(write(tmp_path / name, content))
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_invalid_utf8_is_replaced_on_request(tmp_path):
    replace = {"invalid_utf8": "replace"}
    assert read(write(tmp_path / "a.txt", b"a\xffb\xe2\x82"), **replace) == {"a.txt": "a\ufffdb\ufffd"}
    found = read(write(tmp_path / "b.jsonl", b'{"text": "c\xffd"}\n{"text": "\\ud800"}'), **replace)
    assert found["b.jsonl:1"] == "c\ufffdd" and set(found["b.jsonl:2"]) == {"\ufffd"}
    assert read(write(tmp_path / "c.csv", b"text\na\xff\n"), **replace) == {"c.csv:1": "a\ufffd"}
    bad = table(pyarrow.array([b"a\xff"]).view(pyarrow.string()))
    assert read(write(tmp_path / "d.parquet", bad), **replace) == {"d.parquet:1": "a\ufffd"}


def test_incomplete_gzip_files_are_refused_by_name(tmp_path):
    content = "".join(json.dumps({"text": os.urandom(20).hex()}) + "\n" for _ in range(100)).encode()
    for name in ("a.gz", "a.jsonl.gz", "a.csv.gz"):
        whole = gzip.compress(b"text\n" + content if "csv" in name else content)
        for data in (b"not packed", whole[:-20], whole[: len(whole) // 2], whole + b"more"):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(ValueError, match=rf"{name} is not a complete gzip file"):
                read(tmp_path / name)


SOUND = {
    "a.txt": "Zeile\nä▁\U0001f600".encode(),
    "a.jsonl": LINES.encode(),
    "a.jsonl.gz": gzip.compress(LINES.encode()),
    "a.csv": ROWS.encode(),
    "a.tsv": TABS.encode(),
    "a.parquet": table(["one", "two ▁", ""] * 40),
}


@given(name=st.sampled_from(sorted(SOUND)), data=st.data())
@settings(max_examples=250, deadline=None)
def test_random_damage_is_read_or_refused_by_name(name, data, tmp_path_factory):
    """Bytes are changed, removed and inserted: any error is a ValueError of one line with the file's name."""
    content = bytearray(SOUND[name])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        end = place + data.draw(st.sampled_from([0, 1, 1, 2, 1000]))
        content[place:end] = data.draw(st.binary(max_size=4) | st.sampled_from([b'"', b"\0", b"[" * 3000, b'"text":']))
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    try:
        read(path)
    except ValueError as error:
        assert name in str(error) and len(str(error).splitlines()) == 1


@given(
    content=st.binary(max_size=40) | st.text(max_size=20).map(str.encode),
    block=st.integers(4, 7),
    replace=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_results_do_not_depend_on_block_boundaries(content, block, replace, tmp_path_factory):
    path = write(tmp_path_factory.getbasetemp() / "a.txt", content)
    before, reading.BLOCK = reading.BLOCK, block
    try:
        expected = reading.decode(content.removeprefix(codecs.BOM_UTF8), "x", "replace" if replace else "error")
    except ValueError as error:
        expected = str(error).partition("byte offset ")[2].partition(":")[0]
        expected = str(int(expected) + 3 * content.startswith(codecs.BOM_UTF8))
    try:
        assert read(path, "a", invalid_utf8="replace" if replace else "error")["a"] == expected
    except ValueError as error:
        assert b"\0" in content or "UTF-16" in str(error) or f"byte offset {expected}:" in str(error)
    finally:
        reading.BLOCK = before


def test_long_fields_and_lines(tmp_path):
    text = "x, " * 300_000
    limit = csv.field_size_limit()
    for name, content in [
        ("a.csv", f'text\n"{text}"\n'),
        ("a.jsonl", json.dumps({"text": text, "n": 7})[:-1] + "0" * 9000),
    ]:
        content += "}" * (name == "a.jsonl")
        assert read(write(tmp_path / name, content)) == {f"{name}:1": text}
    assert csv.field_size_limit() == limit


def test_one_column_of_parquet_is_read_group_by_group(tmp_path):
    path = write(tmp_path / "a.parquet", table(["x" * 1000] * 3000, other=pyarrow.array([os.urandom(1000)] * 3000)))
    before = pyarrow.total_allocated_bytes()
    documents = reading.read_file(path, "a", "parquet", lambda _: True, Options())
    for _ in range(100):
        next(documents)
    assert pyarrow.total_allocated_bytes() - before < 500_000  # of 3 MB of text
    documents.close()
