"""The JSON format of SQuAD: articles of paragraphs, each a context with questions (Rajpurkar et al., 2016, 2018)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memgpt_jax.data.corpora.reading import read_text
from memgpt_jax.files.paths import shown


def read_squad(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The (place for messages, values) of every question of a .json or .json.gz file.

    Yields:
        The columns `id`, `title` (of the article), `context`, `question`, and `answers`, a list of (text, offset of its
        first character in the context), empty if the question has no answer.

    Raises:
        ValueError: the file cannot be read or does not have the format, or two questions have the same id.
    """
    where, seen = shown(path), set()
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
    for number, article in enumerate(_field(content, "data", list, where), start=1):
        title = article.get("title", str(number)) if isinstance(article, dict) else ""
        at_article = f"{where}, article {number}"
        for part, paragraph in enumerate(_field(article, "paragraphs", list, at_article), start=1):
            at = f"{at_article}, paragraph {part}"
            context = _field(paragraph, "context", str, at)
            for place, question in enumerate(_field(paragraph, "qas", list, at), start=1):
                at_question = f"{at}, question {place}"
                name = _field(question, "id", str, at_question)
                at_question += f" (id {name})"
                if name in seen:
                    raise ValueError(f"{at_question}: another question has the same id")
                seen.add(name)
                yield (
                    at_question,
                    {
                        "id": name,
                        "title": str(title),
                        "context": context,
                        "question": _field(question, "question", str, at_question),
                        "answers": [
                            (_field(answer, "text", str, at_question), _field(answer, "answer_start", int, at_question))
                            for answer in _field(question, "answers", list, at_question)
                        ],
                    },
                )


def _field(values: Any, name: str, kind: type, where: str) -> Any:
    """The field of a JSON object. Raises `ValueError` unless it has the type."""
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a JSON object with {name!r}, it is a {type(values).__name__}")
    if name not in values:
        raise ValueError(f"{where} has no field {name!r}; it has {', '.join(map(repr, values)) or 'none'}")
    value = values[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{where}: field {name!r} must be a {kind.__name__}, it is a {type(value).__name__}")
    return value
