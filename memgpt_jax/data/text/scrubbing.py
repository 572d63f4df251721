"""Personal data in texts: mail addresses, phone numbers, payment cards, bank accounts, and names by a tagger."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from memgpt_jax.config.checks import check
from memgpt_jax.config.extras import library
from memgpt_jax.config.texts import PERSONAL, Personal
from memgpt_jax.data.text.cleaned import Cleaned, Edit, edited
from memgpt_jax.data.text.steps import normalized

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
GAP = r"[ \u00a0\u2009\u202f\u2010-\u2013-]"
"""A space or a hyphen between groups of digits."""
LATIN = r"a-zA-Z\u00c0-\u024f"
UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
"""Scripts that are written without spaces between words, or with endings at foreign words: an address ends there."""
LOCAL = rf"(?:(?![{UNSPACED}])[\w!#$%&'*+/=?^`{{|}}~-])"
LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
MAIL = re.compile(
    rf"(?:(?<!{LOCAL}){LOCAL}{{1,64}}(?:\.{LOCAL}{{1,64}}){{0,16}}|(?<![{UNSPACED}])[{UNSPACED}]{{1,64}})"
    rf"@(?:{LABEL}\.){{1,16}}"
    rf"(?:xn--[a-z0-9-]{{2,59}}(?![^\W_]|@)|[{LATIN}]{{2,63}}(?![{LATIN}\d@])|[^\W\d_{LATIN}]{{2,63}}(?![^\W_{LATIN}]|@))"
)
DIGITS = re.compile(rf"(?<![0-9])[0-9]+(?:{GAP}[0-9]+)*")
ISSUED = re.compile("[3-6]|2[2-7]")
"""First digits of the numbers of payment cards."""
GROUPED = ((4, 4, 4, 4, 3), (4, 4, 4, 4), (4, 6, 5), (4, 6, 4))
"""Digits of the groups in which payment cards are printed."""
IBAN = re.compile(rf"(?<![^\W_])[A-Z]{{2}}\d{{2}}(?:{GAP}?[A-Z0-9]){{11,30}}", re.ASCII | re.IGNORECASE)


def _mails(text: str, regions: Sequence[str]) -> Spans:
    if "@" not in text:
        return
    composed = normalized(text)
    for match in MAIL.finditer(composed.text):
        if len(match[0]) <= 254:
            yield composed.span(*match.span())


def _cards(text: str, regions: Sequence[str]) -> Spans:
    """Numbers of 13 to 19 digits of an issuer whose Luhn checksum is right.

    In a row of groups that spaces or hyphens separate, the whole row is tested, and then each group and each series of
    groups of `GROUPED`: a date or a code may follow.
    """
    for match in DIGITS.finditer(text):
        if _is_card(text, *match.span()):
            yield match.span()
            continue
        groups = [(match.start() + g.start(), match.start() + g.end()) for g in re.finditer("[0-9]+", match[0])]
        number = 0
        while number < len(groups):
            for count in (5, 4, 3, 1):
                chosen = groups[number : number + count]
                sizes, span = tuple(last - first for first, last in chosen), (chosen[0][0], chosen[-1][1])
                if (sizes in GROUPED or count == 1) and _is_card(text, *span):
                    yield span
                    number += count - 1
                    break
            number += 1


def _is_card(text: str, first: int, last: int) -> bool:
    """Whether `text[first:last]` is the number of a card, and no part of a word or of a decimal number."""
    before, after = text[max(0, first - 2) : first], text[last : last + 2]
    digits = re.sub("[^0-9]", "", text[first:last]) if last - first <= 37 else ""
    return (
        13 <= len(digits) <= 19
        and ISSUED.match(digits) is not None
        and not (before[-1:].isalnum() or before[-1:] == "+" or re.fullmatch(r"\d\.", before))
        and not (after[:1].isalnum() or re.fullmatch(r"\.\d", after))
        and library("stdnum.luhn", SCRUBBING).is_valid(digits)
    )


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
