"""The JSON format of SQuAD: articles of paragraphs, each a context with questions (Rajpurkar et al., 2016, 2018)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memgpt_jax.data.examples.json_objects import field_of, read_json
from memgpt_jax.files.paths import shown


def read_squad(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The (place for messages, values) of every question of a .json or .json.gz file.

    Yields:
        The columns `id`, `title` (of the article), `context`, `question`, and `answer`: the lists `text` and
        `answer_start`, the offsets of the first characters in the context, empty if the question has no answer.

    Raises:
        ValueError: the file cannot be read or does not have the format, or two questions have the same id.
    """
    where, seen = shown(path), set()
    content = read_json(path)
    for number, article in enumerate(field_of(content, "data", list, where), start=1):
        title = article.get("title", str(number)) if isinstance(article, dict) else ""
        at_article = f"{where}, article {number}"
        for part, paragraph in enumerate(field_of(article, "paragraphs", list, at_article), start=1):
            at = f"{at_article}, paragraph {part}"
            context = field_of(paragraph, "context", str, at)
            for place, question in enumerate(field_of(paragraph, "qas", list, at), start=1):
                at_question = f"{at}, question {place}"
                name = field_of(question, "id", str, at_question)
                at_question += f" (id {name})"
                if name in seen:
                    raise ValueError(f"{at_question}: another question has the same id")
                seen.add(name)
                answers = field_of(question, "answers", list, at_question)
                parts = {"text": str, "answer_start": int}
                yield (
                    at_question,
                    {
                        "id": name,
                        "title": str(title),
                        "context": context,
                        "question": field_of(question, "question", str, at_question),
                        "answer": {
                            key: [field_of(answer, key, kind, at_question) for answer in answers]
                            for key, kind in parts.items()
                        },
                    },
                )
