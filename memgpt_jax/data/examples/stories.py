"""Documents with questions as their data sets publish them: FairytaleQA, SQuALITY, QMSum; and LAMBADA's passages.

A document has the columns `document`, a text, and `questions`, a list of objects with `question`, `answers` (a list of
texts) and perhaps `context`, the part of the document that holds the answer.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgpt_jax.config.checks import check
from memgpt_jax.data.corpora.reading import DEFAULT, read_tables
from memgpt_jax.data.examples.json_objects import field_of
from memgpt_jax.files.paths import shown

STORIES, QUESTIONS = "section-stories", "questions"
"""FairytaleQA's folders: `section-stories/SPLIT/NAME-story.csv` and `questions/SPLIT/NAME-questions.csv`."""
MOST_ANSWERS = 6


def fairytale(path: Path) -> dict[str, Any]:
    """The story and the questions of a file of questions of FairytaleQA (Xu et al., 2022).

    The story is in the file with the same name in the folder of stories; its sections are separated by blank lines.
    `context` are the sections that hold the answer.

    Raises:
        ValueError: there is no such story, a column is missing, or a section does not exist.
    """
    place = path.parent.parent.parent / STORIES / path.parent.name
    story = place / path.name.replace(f"-{QUESTIONS}.csv", "-story.csv")
    check(
        path.name.endswith(f"-{QUESTIONS}.csv") and story.is_file(),
        f"{shown(path)}: a file of FairytaleQA is {QUESTIONS}/SPLIT/NAME-{QUESTIONS}.csv, with a story "
        f"{STORIES}/SPLIT/NAME-story.csv; there is no {shown(story)}",
    )
    sections = {}
    for where, row in read_tables(story, "csv", DEFAULT):
        section, text = (field_of(row, name, str, where) for name in ("section", "text"))
        sections[section.strip()] = " ".join(text.split())
    questions = []
    for where, row in read_tables(path, "csv", DEFAULT):
        answers = [row.get(f"answer{number}") or "" for number in range(1, MOST_ANSWERS + 1)]
        names = [name.strip() for name in field_of(row, "cor_section", str, where).split(",") if name.strip()]
        missing = [name for name in names if name not in sections]
        check(not missing, f"{where}: the story {shown(story)} has no section {', '.join(missing)}")
        questions.append(
            {
                "question": field_of(row, "question", str, where),
                "answers": [answer for answer in answers if answer.strip()],
                "context": "\n\n".join(sections[name] for name in names),
            }
        )
    return {"document": "\n\n".join(sections.values()), "questions": questions}


def squality(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A story with its questions in the format of SQuALITY (Wang et al., 2022): `document` and `questions`."""
    questions = []
    for number, item in enumerate(field_of(values, "questions", list, where), start=1):
        at = f"{where}, question {number}"
        responses = field_of(item, "responses", list, at)
        questions.append(
            {
                "question": field_of(item, "question_text", str, at),
                "answers": [field_of(response, "response_text", str, at) for response in responses],
            }
        )
    return {"document": field_of(values, "document", str, where), "questions": questions}


def qmsum(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A meeting with its queries in the format of QMSum (Zhong et al., 2021), the general queries first.

    The document has a line `SPEAKER: CONTENT` for each turn. `context` of a specific query are the turns of its
    `relevant_text_span`.
    """
    turns = []
    for number, turn in enumerate(field_of(values, "meeting_transcripts", list, where), start=1):
        at = f"{where}, turn {number}"
        turns.append(f"{field_of(turn, 'speaker', str, at)}: {field_of(turn, 'content', str, at)}")
    questions = []
    for column in ("general_query_list", "specific_query_list"):
        for number, item in enumerate(field_of(values, column, list, where), start=1):
            at = f"{where}, {column} {number}"
            query, answer = (field_of(item, name, str, at) for name in ("query", "answer"))
            lines = [line for span in item.get("relevant_text_span", []) for line in _lines(turns, span, at)]
            questions.append({"question": query, "answers": [answer], "context": "\n".join(lines)})
    return {"document": "\n".join(turns), "questions": questions}


def _lines(turns: list[str], span: Any, where: str) -> list[str]:
    """The turns from the first to the last number of a span, both included."""
    try:
        first, last = map(int, span)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: relevant_text_span must hold pairs of numbers of turns, got {span!r:.40}") from None
    check(
        0 <= first <= last < len(turns),
        f"{where}: relevant_text_span has the turns {first} to {last} of {len(turns)} turns",
    )
    return turns[first : last + 1]


def last_word(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A passage of LAMBADA (Paperno et al., 2016), the field `text`: `source` without the last word, and `target`.

    Raises `ValueError` if the passage has fewer than two words.
    """
    parts = field_of(values, "text", str, where).rsplit(maxsplit=1)
    check(len(parts) == 2, f"{where}: a passage must have at least two words")
    return {"source": parts[0], "target": parts[1]}
