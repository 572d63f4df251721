"""Personal data in texts: mail addresses, phone numbers, payment cards, bank accounts, and names by a tagger."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from memgpt_jax.config.checks import check
from memgpt_jax.config.extras import library
from memgpt_jax.config.texts import PERSONAL, Personal
from memgpt_jax.data.text.cleaned import Cleaned, Edit, edited

Names = Callable[[str], Iterable[Mapping[str, Any]]]
"""A tagger: the entities of a text, each with `entity_group`, `start` and `end`, as of `mg.pipeline(...)` with
`aggregation_strategy="simple"`."""
PEOPLE = frozenset({"per", "person", "prs", "name"})
"""Groups of entities that are names of people, in small letters."""
REGIONS = ("US", "GB")


class Found(NamedTuple):
    """Personal data in a text."""

    kind: str
    """`mail`, `phone`, `card`, `iban` or `name`."""
    first: int
    last: int
    """The text is `text[first:last]`."""


def scrub(
    text: str, kinds: Sequence[Personal] = PERSONAL, *, regions: Sequence[str] = REGIONS, names: Names | None = None
) -> Cleaned:
    """The text with `[MAIL]`, `[PHONE]`, `[CARD]`, `[IBAN]` and `[NAME]` in place of personal data.

    >>> scrub("Write to ada@example.org or call +44 20 7946 0958.").text
    'Write to [MAIL] or call [PHONE].'

    Args:
        text: the text.
        kinds: the kinds to find.
        regions: countries whose phone numbers are found without the code of the country.
        names: a tagger, whose people are replaced too; default: names stay.

    Raises:
        ValueError: a kind is unknown, or phonenumbers or python-stdnum is not installed.
    """
    return edited(text, (Edit(f.first, f.last, f"[{f.kind.upper()}]") for f in personal(text, kinds, regions, names)))


def personal(
    text: str, kinds: Sequence[Personal] = PERSONAL, regions: Sequence[str] = REGIONS, names: Names | None = None
) -> list[Found]:
    """The personal data of a text in ascending order, without overlap; arguments and errors as for `scrub`.

    Where two kinds overlap, the one that comes first in `PERSONAL` is taken, and names last.
    """
    for kind in kinds:
        check(kind in FINDERS, f"kinds must be of {', '.join(FINDERS)}, got {kind!r}")
    found: list[Found] = []
    for kind in PERSONAL:
        if kind in kinds:
            _add(found, (Found(kind, *span) for span in FINDERS[kind](text, regions)))
    if names is not None:
        people = (item for item in names(text) if str(item["entity_group"]).lower() in PEOPLE)
        _add(found, (Found("name", int(item["start"]), int(item["end"])) for item in people))
    return sorted(found, key=lambda item: item.first)


def _add(found: list[Found], more: Iterable[Found]) -> None:
    """Append those that overlap none before them."""
    for item in more:
        if all(item.last <= other.first or other.last <= item.first for other in found):
            found.append(item)


Spans = Iterator[tuple[int, int]]
LOCAL = r"[\w!#$%&'*+/=?^`{|}~-]"
LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
MAIL = re.compile(
    rf"(?<!{LOCAL}){LOCAL}{{1,64}}(?:\.{LOCAL}{{1,64}}){{0,16}}"
    rf"@(?:{LABEL}\.){{1,16}}(?:xn--[a-z0-9-]{{2,59}}|[^\W\d_]{{2,63}})(?![\w@])"
)
CARD = re.compile(r"(?<![\w.,+-])\d(?:[ -]?\d){12,18}(?![\w-]|[.,]\d)", re.ASCII)
IBAN = re.compile(r"(?<![^\W_])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}", re.ASCII | re.IGNORECASE)


def _mails(text: str, regions: Sequence[str]) -> Spans:
    yield from (match.span() for match in MAIL.finditer(text) if len(match[0]) <= 254) if "@" in text else ()


def _cards(text: str, regions: Sequence[str]) -> Spans:
    """Numbers of 13 to 19 digits whose Luhn checksum is right, in groups by spaces or hyphens."""
    for match in CARD.finditer(text):
        digits = re.sub("[ -]", "", match[0])
        if digits[0] in "23456" and library("stdnum.luhn", SCRUBBING).is_valid(digits):
            yield match.span()


def _ibans(text: str, regions: Sequence[str]) -> Spans:
    """Account numbers with the length and the form of their country, whose remainder by 97 is right (ISO 13616)."""
    place = 0
    while match := IBAN.search(text, place):
        place = match.start() + 1
        iban = library("stdnum.iban", SCRUBBING)
        for last in range(match.end(), match.start() + 14, -1):  # words may follow that look like its next group
            is_end = text[last - 1].isalnum() and not text[last : last + 1].isalnum()
            if is_end and iban.is_valid(text[match.start() : last], check_country=False):
                yield match.start(), last
                place = last
                break


def _phones(text: str, regions: Sequence[str]) -> Spans:
    """Valid numbers by the tables of Google's libphonenumber: with + and the code of the country, or of a region."""
    if not re.search(r"(?:\d\D{0,4}){7}", text):
        return
    phones = library("phonenumbers", SCRUBBING)
    for region in regions or (None,):
        matches = phones.PhoneNumberMatcher(text, region, leniency=phones.Leniency.VALID)
        for match in matches:
            opened = match.raw_string.startswith("(") and ")" not in match.raw_string  # the bracket is of the sentence
            yield match.start + opened, match.end


SCRUBBING = "searches for personal data"
FINDERS: dict[Personal, Callable[[str, Sequence[str]], Spans]] = {
    "iban": _ibans,
    "card": _cards,
    "mail": _mails,
    "phone": _phones,
}
