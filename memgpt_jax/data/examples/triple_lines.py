"""Triples as lines of text: what a model writes of a document, and what is read from it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from memgpt_jax.config.checks import check
from memgpt_jax.data.examples.json_objects import field_of

SIZES = (2, 3)
"""Numbers of fields of a triple: (slot, value), or (subject, relation, object)."""
NO_TRIPLES = "none"
"""The line of a document without triples."""


class Parsed(NamedTuple):
    """What is read from lines of triples."""

    triples: list[tuple[str, ...]]
    """Distinct triples in the order of their lines."""
    malformed: list[str]
    """The other lines, but those that are empty or `none`."""


def triple_lines(triples: Iterable[Sequence[str]], where: str) -> str:
    """The lines of triples, fields separated by ` | `: each distinct triple once, in their order; `none` without any.

    Args:
        triples: of two or three fields each.
        where: their place, for messages.

    Raises:
        ValueError: a triple has another number of fields, an empty one, or one that holds `|`.
    """
    lines = []
    for triple in triples:
        fields = [" ".join(field.split()) for field in triple]
        check(
            len(fields) in SIZES and all(fields) and not any("|" in field for field in fields),
            f"{where}: a triple must be two or three texts without '|', got {list(triple)!r:.80}",
        )
        lines.append(" | ".join(fields))
    return "\n".join(dict.fromkeys(lines)) or NO_TRIPLES


def parse_triples(text: str) -> Parsed:
    """The triples of lines as `triple_lines` gives them, and the lines that are malformed.

    A line is two or three fields, separated by `|` and none of them empty. Spaces around a field are removed, and
    between its words they become single ones. Empty lines and the line `none` are skipped. A triple that is repeated
    counts once.
    """
    triples, malformed = [], []
    for line in text.splitlines():
        fields = tuple(" ".join(field.split()) for field in line.split("|"))
        if len(fields) in SIZES and all(fields):
            triples.append(fields)
        elif line.strip() and line.strip() != NO_TRIPLES:
            malformed.append(line)
    return Parsed(list(dict.fromkeys(triples)), malformed)


def text_and_triples(values: Mapping[str, Any], where: str) -> dict[str, str]:
    """A text and its triples: the columns `source` and `target`, the latter by `triple_lines`.

    Args:
        values: an object with `text`, and `triples`, a list of lists of two or three texts.
        where: its place, for messages.

    Raises:
        ValueError: a field is missing or has another type, or a triple is not valid.
    """
    triples = field_of(values, "triples", list, where)
    for triple in triples:
        is_texts = isinstance(triple, list) and all(isinstance(field, str) for field in triple)
        check(is_texts, f"{where}: a triple must be a list of two or three texts, got {triple!r:.80}")
    return {"source": field_of(values, "text", str, where), "target": triple_lines(triples, where)}
