"""Words of texts in any script."""

import functools
import re
import sys
import unicodedata


def single_spaced(text: str) -> str:
    """The words of a text, separated by single spaces."""
    return " ".join(text.split())


@functools.cache
def _letter() -> str:
    """The pattern of a letter or digit with its combining marks and joiners."""
    return rf"\w{_marks()}*"


@functools.cache
def _marks() -> str:
    marks = "".join(
        re.escape(chr(code))
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in ("Mn", "Mc", "Me")
    )
    return f"[{marks}\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}]"


@functools.cache
def word_pattern() -> re.Pattern[str]:
    """Words of a text: runs of letters and digits, numbers such as 3.5, and every other character that is not a space.

    A combining mark, a variation selector or a joiner belongs to the character before it. A word may begin with @ or #.
    """
    joiner = "\N{ZERO WIDTH JOINER}"
    letter, sign = _letter(), rf"[^\w\s]{_marks()}*"
    return re.compile(rf"\d+(?:[.,:]\d+)+|[@#]?(?:{letter})+|{sign}(?:(?<={joiner}){sign})*")


@functools.cache
def spoken_pattern() -> re.Pattern[str]:
    """Words without punctuation, but with apostrophes inside, as in `don't`; group 1 is the word, then whitespace."""
    letters, apostrophe = rf"(?:{_letter()})+", "['\N{RIGHT SINGLE QUOTATION MARK}]"
    return re.compile(rf"({letters}(?:{apostrophe}{letters})*)\s*")
