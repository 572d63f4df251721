"""JSON files of other programs are read, or refused with their name."""

import codecs

import pytest

from memgpt_jax.files.json_files import read_json


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_an_object_is_read(tmp_path, mark):
    (tmp_path / "a.json").write_bytes(mark + '{"é": [1, {"b": null, "b": null}]}'.encode())
    assert read_json(tmp_path / "a.json") == {"é": [1, {"b": None}]}


@pytest.mark.parametrize(
    "content, message",
    [
        (b'"\xff"', "is not UTF-8"),
        (b'{"a": 1', "is not JSON"),
        (b"", "is not JSON"),
        (b'{"a": %s}' % (b"1" * 5000), "is not JSON"),
        (b"[1]", r"must contain a JSON object, got list"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"a": {"b": 1, "b": 2}}', "the key 'b' has two values, 1 and 2"),
    ],
)
def test_other_content_is_refused_by_name(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json:? .*{message}|a\.json:? {message}"):
        read_json(tmp_path / "a.json")
