"""The format of the Schema-Guided Dialogue dataset: turns with the spans of their slots (Rastogi et al., 2020)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from memgpt_jax.data.examples.json_objects import field_of
from memgpt_jax.data.text.words import word_pattern

TAGGED_SPEAKER = "USER"
"""The speaker whose words have tags."""


class Span(NamedTuple):
    """A slot in the characters `start` to `end` of an utterance."""

    start: int
    end: int
    slot: str


def dialogue_words(dialogue: Mapping[str, Any], where: str) -> dict[str, list[str]]:
    """The words of a dialogue and the tags of what the user says.

    A turn is `USER`, `:` and the words of its utterance, or `SYSTEM`, `:` and those: the words that a pipeline finds in
    `USER: Hello.`

    Args:
        dialogue: a dialogue with the fields of the dataset: `turns`, each with `speaker`, `utterance` and `frames`; a
            frame has `slots`, each with `slot`, `start` and `exclusive_end`.
        where: its place, for messages.

    Returns:
        The columns `words` and `slots`: for the words of a user's utterance `O`, `B-slot` or `I-slot` (IOB2), where of
        spans that overlap the first counts; for all other words the empty tag.

    Raises:
        ValueError: a field is missing or has another type, or a span does not lie in its utterance.
    """
    words, tags = [], []
    for number, turn in enumerate(field_of(dialogue, "turns", list, where), start=1):
        at = f"{where}, turn {number}"
        speaker, utterance = (field_of(turn, name, str, at) for name in ("speaker", "utterance"))
        spans = _spans(turn, utterance, at)
        found = [match.span() for match in word_pattern().finditer(utterance)]
        is_tagged = speaker == TAGGED_SPEAKER
        words += [speaker, ":", *(utterance[start:end] for start, end in found)]
        tags += ["", "", *(_tag(start, end, spans) if is_tagged else "" for start, end in found)]
    return {"words": words, "slots": tags}


def _spans(turn: Any, utterance: str, where: str) -> list[Span]:
    """The spans of the slots of a turn, in the order of the file."""
    spans = []
    for frame in field_of(turn, "frames", list, where):
        for slot in field_of(frame, "slots", list, where):
            start, end = (field_of(slot, name, int, where) for name in ("start", "exclusive_end"))
            span = Span(start, end, field_of(slot, "slot", str, where))
            if not 0 <= start < end <= len(utterance):
                raise ValueError(
                    f"{where}: slot {span.slot!r} has the characters {start} to {end} of an utterance of "
                    f"{len(utterance)} characters"
                )
            spans.append(span)
    return spans


def _tag(start: int, end: int, spans: list[Span]) -> str:
    """The tag of the word with the characters `start` to `end`."""
    span = next((span for span in spans if span.start < end and start < span.end), None)
    if span is None:
        return "O"
    return f"{'B' if start <= span.start else 'I'}-{span.slot}"
