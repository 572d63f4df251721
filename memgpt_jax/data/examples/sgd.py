"""The format of the Schema-Guided Dialogue dataset: turns with the spans of their slots (Rastogi et al., 2020)."""

import re
from collections.abc import Mapping
from typing import Any

from memgpt_jax.data.examples.json_objects import field_of
from memgpt_jax.data.examples.span_tags import Span, word_tags
from memgpt_jax.data.examples.triple_lines import triple_lines
from memgpt_jax.data.text.words import word_pattern

TAGGED_SPEAKER = "USER"
"""The speaker whose words have tags."""
DISTANCES = (32, 64, 128)
"""Upper bounds, in words, of the groups of distances of `confirmed_values`; the last group has none."""


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
        spans that share a word the first counts; for all other words the empty tag.

    Raises:
        ValueError: a field is missing or has another type, or a span does not lie in its utterance or holds no
            word.
    """
    words, tags = [], []
    for number, turn in enumerate(field_of(dialogue, "turns", list, where), start=1):
        at = f"{where}, turn {number}"
        speaker, utterance = (field_of(turn, name, str, at) for name in ("speaker", "utterance"))
        spans = _spans(turn, utterance, at)
        found = [match.span() for match in word_pattern().finditer(utterance)]
        is_tagged = speaker == TAGGED_SPEAKER
        words += [speaker, ":", *(utterance[start:end] for start, end in found)]
        tags += ["", "", *(word_tags(found, spans, at) if is_tagged else [""] * len(found))]
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
                    f"{where}: slot {span.name!r} has the characters {start} to {end} of an utterance of "
                    f"{len(utterance)} characters"
                )
            spans.append(span)
    return spans


def dialogue_triples(dialogue: Mapping[str, Any], where: str) -> dict[str, str]:
    """A dialogue and the (slot, value) pairs that the user says.

    Args:
        dialogue, where: as in `dialogue_words`.

    Returns:
        The columns `source`, a line `SPEAKER: utterance` for each turn, and `target`, a line `slot | value` for each
        distinct pair in the order of their first mention, with the value as the user says it (`triple_lines`).

    Raises:
        ValueError: as `dialogue_words`, or a value holds `|`.
    """
    lines, pairs = [], []
    for number, turn in enumerate(field_of(dialogue, "turns", list, where), start=1):
        at = f"{where}, turn {number}"
        speaker, utterance = (field_of(turn, name, str, at) for name in ("speaker", "utterance"))
        lines.append(f"{speaker}: {utterance}")
        if speaker == TAGGED_SPEAKER:
            spans = sorted(_spans(turn, utterance, at))
            pairs += [(span.name, utterance[span.start : span.end]) for span in spans]
    return {"source": "\n".join(lines), "target": triple_lines(pairs, where)}


def confirmed_values(dialogue: Mapping[str, Any], where: str) -> list[dict[str, str]]:
    """What the system repeats of the dialogue: the values that it confirms and that were said before.

    Args:
        dialogue, where: as in `dialogue_words`; a frame has `actions`, each with `act`, `slot` and `values`.

    Returns:
        For each value of an action `CONFIRM` that stands as whole words in the turn and in an earlier one, without
        regard to case, the columns `source`, the dialogue up to the value, a line `SPEAKER: utterance` for each turn;
        `target`, the value; and `distance`, the number of words from where it was last said to the turn: `0-32`,
        `33-64`, `65-128` or `over 128`.

    Raises:
        ValueError: a field is missing or has another type.
    """
    found, said, lines = [], "", []
    for number, turn in enumerate(field_of(dialogue, "turns", list, where), start=1):
        at = f"{where}, turn {number}"
        speaker, utterance = (field_of(turn, name, str, at) for name in ("speaker", "utterance"))
        for value in dict.fromkeys(_confirmed(turn, at)):
            whole = _whole(value)
            before, place = [match.start() for match in whole.finditer(said)], whole.search(utterance)
            if before and place is not None:
                words = len(said[before[-1] :].split())
                begun = "\n".join([*lines, f"{speaker}: {utterance[: place.start()]}"]).rstrip()
                found.append({"source": begun, "target": value, "distance": _distance(words)})
        said += f" {utterance}"
        lines.append(f"{speaker}: {utterance}")
    return found


def _whole(value: str) -> re.Pattern[str]:
    """Finds a value that is not a part of a longer word or number, such as `2` in `12`, `2:30` or `1.2`."""
    begin, end = r"(?<!\w)(?:(?<!\d[.:])|(?!\d))", r"(?!\w)(?:(?![.:]\d)|(?<!\d))"
    return re.compile(f"{begin}{re.escape(value)}{end}", re.IGNORECASE)


def _confirmed(turn: Any, where: str) -> list[str]:
    """The values of the actions `CONFIRM` of a system's turn."""
    if turn["speaker"] == TAGGED_SPEAKER:
        return []
    actions = [
        action for frame in field_of(turn, "frames", list, where) for action in field_of(frame, "actions", list, where)
    ]
    return [
        value
        for action in actions
        if field_of(action, "act", str, where) == "CONFIRM"
        for value in field_of(action, "values", list, where)
        if isinstance(value, str) and value.strip()
    ]


def _distance(words: int) -> str:
    """The group of a distance in words."""
    least = 0
    for most in DISTANCES:
        if words <= most:
            return f"{least}-{most}"
        least = most + 1
    return f"over {DISTANCES[-1]}"
