"""The files of TREC's test collections: documents and topics in XML, and relevance judgements."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from memgpt_jax.config.checks import check
from memgpt_jax.data.corpora.reading import decode, numbered_lines, read_text
from memgpt_jax.files.paths import shown

ELEMENTS = ("doc", "top")
"""The elements that are records: documents and topics."""


def read_trec(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The (place for messages, values) of every `<doc>` and `<top>` element of an XML file, with or without a root.

    Yields:
        The text of each child element, with that of the elements in it, by its name in lower case, without spaces
        around it, empty if it has none; those of one name one after the other, on lines of their own. And `number`, the
        place of the record among all of the file, "1", "2", ...

    Raises:
        ValueError: the file cannot be read, is not XML, or has no such element.
    """
    try:
        content = re.sub(r"^\s*<\?xml[^>]*\?>", "", read_text(path).removeprefix("\ufeff"))
        root = ElementTree.fromstring(f"<root>{content}</root>")
    except ElementTree.ParseError as error:
        raise ValueError(f"{shown(path)} cannot be read as XML: {error}") from None
    number = 0
    for element in root.iter():
        if element.tag.lower() in ELEMENTS:
            number += 1
            texts: dict[str, list[str]] = {}
            for child in element:
                texts.setdefault(child.tag.lower(), []).append("".join(child.itertext()).strip())
            values = {name: "\n".join(filter(None, parts)) for name, parts in texts.items()}
            yield f"{shown(path)}, {element.tag} {number}", values | {"number": str(number)}
    check(number > 0, f"{shown(path)} has no element {' or '.join(f'<{name}>' for name in ELEMENTS)}")


class Judgement(NamedTuple):
    """The relevance of one document for one query."""

    query: str
    document: str
    relevance: int
    """Above 0: relevant."""


def read_judgements(path: Path) -> list[Judgement]:
    """The judgements of a file with lines `QUERY ITERATION DOCUMENT RELEVANCE`.

    Raises `ValueError` with file and line if a line does not have this form, or repeats a query and a document.
    """
    found: dict[tuple[str, str], Judgement] = {}
    for number, content, offset in numbered_lines(path):
        line = decode(content, shown(path), "error", offset).rstrip("\r\n")
        where, parts = f"{shown(path)}, line {number}", line.split()
        if not parts:
            continue
        fits = len(parts) == 4 and re.fullmatch(r"-?\d+", parts[3]) is not None
        check(fits, f"{where} must be QUERY ITERATION DOCUMENT RELEVANCE, got {line!r}")
        key = parts[0], parts[2]
        check(key not in found, f"{where} judges document {key[1]!r} for query {key[0]!r} again")
        found[key] = Judgement(*key, int(parts[3]))
    check(bool(found), f"{shown(path)} has no judgements")
    return list(found.values())
