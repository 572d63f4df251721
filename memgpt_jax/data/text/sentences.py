"""Sentences of a text."""

from memgpt_jax.config.extras import library


def sentences(text: str, language: str = "en") -> list[tuple[int, int]]:
    """The spans of the sentences of a text (sentencex, about 300 languages), without the whitespace around them.

    `text[first:last]` is the sentence for each span (first, last). A line break alone ends no sentence, an empty line
    does.

    Args:
        text: the text.
        language: its ISO 639-1 code.

    Raises:
        ValueError: sentencex is not installed.
    """
    spans, place = [], 0
    for part in library("sentencex", "sentence boundaries").segment(language, text):
        place = text.index(part, place)
        if part.strip():
            first = place + len(part) - len(part.lstrip())
            spans.append((first, first + len(part.strip())))
        place += len(part)
    return spans
