"""The steps that clean a text, each a pure function with a map to the original."""

import functools
import html
import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import Literal

from memgpt_jax.config.checks import check
from memgpt_jax.config.extras import library
from memgpt_jax.data.text.cleaned import Cleaned, Edit, aligned, by_pieces, edited, unchanged
from memgpt_jax.data.text.words import spoken_pattern


def repaired(text: str) -> Cleaned:
    """Text that was decoded with the wrong encoding, decoded with the right one (ftfy): `schÃ¶n` becomes `schön`.

    Quotation marks, ligatures, character references and control characters stay as they are. Raises `ValueError` if
    ftfy is not installed.
    """
    ftfy = library("ftfy", "repairs of Unicode")
    settings = ftfy.TextFixerConfig(
        unescape_html=False,
        remove_terminal_escapes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        remove_control_chars=False,
        normalization=None,
    )
    fixed = ftfy.fix_text(text, settings)
    return unchanged(text) if fixed == text else aligned(text, fixed)


def normalized(text: str, form: Literal["NFC", "NFKC"] = "NFC") -> Cleaned:
    """The Unicode normalisation form of a text; each sequence of composed characters maps as a whole."""
    if unicodedata.is_normalized(form, text):
        return unchanged(text)
    return by_pieces(_sequences(text, form), functools.partial(unicodedata.normalize, form))


def _sequences(text: str, form: Literal["NFC", "NFKC"]) -> Iterator[str]:
    """Parts of a text whose normalisations, one after the other, are that of the text."""
    first = 0
    for place, character in enumerate(text):
        if place > first and _begins(character, form):
            yield text[first:place]
            first = place
    if first < len(text):
        yield text[first:]


@functools.lru_cache(maxsize=65_536)
def _begins(character: str, form: Literal["NFC", "NFKC"]) -> bool:
    """Whether a character never changes with those before it in normalisation."""
    if character.isascii():
        return True
    whole = unicodedata.normalize("NFD" if form == "NFC" else "NFKD", character)
    return unicodedata.combining(whole[0]) == 0 and whole[0] not in _second_characters()


@functools.cache
def _second_characters() -> frozenset[str]:
    """Characters that compose with a character before them, combining marks aside: Hangul vowels, and some of India."""
    hangul = {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    pairs = (unicodedata.decomposition(chr(code)).split() for code in range(sys.maxunicode + 1))
    return frozenset(hangul | {chr(int(pair[1], 16)) for pair in pairs if len(pair) == 2 and pair[0][0] != "<"})


MARKUP = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style)\b[^<>]*>.*?(?:</\1\s*>|\Z)"  # comments, scripts and styles with their content
    r"|<!doctype\b[^<>]*>|<(/?[a-z][a-z0-9:-]*)(?:[\s/](?:\"[^\"]*\"|'[^']*'|[^<>\"'])*)?>"  # tags with attributes
    r"|&(?:\#[0-9]{1,7}|\#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});",  # character references
    re.DOTALL | re.IGNORECASE,
)
INLINE = re.compile(
    r"/?(?:a|abbr|b|bdi|bdo|big|cite|code|del|em|font|i|ins|kbd|mark|q|s|small|span|strike|strong|sub|sup|tt|u|var)",
    re.IGNORECASE,
)
"""Tags inside of words and lines; others end the line."""


def without_markup(text: str) -> Cleaned:
    """A text without HTML or XML tags, comments, scripts and styles, and with characters for character references.

    Tags of blocks, such as `<br>` and `<p>`, become a line break. Not idempotent: `&amp;lt;` becomes `&lt;`.
    """

    def new(match: re.Match[str]) -> str:
        if match[0].startswith("&"):
            return html.unescape(match[0])
        return "\n" if match[2] and not INLINE.fullmatch(match[2]) else ""

    return edited(text, (Edit(*match.span(), new(match)) for match in MARKUP.finditer(text)))


INVISIBLE = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f"  # control characters other than tabs and line breaks
    "\N{SOFT HYPHEN}\N{ZERO WIDTH SPACE}\N{LEFT-TO-RIGHT MARK}\N{RIGHT-TO-LEFT MARK}\N{ZERO WIDTH NO-BREAK SPACE}"
    r"\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufff9-\ufffb]+"  # directions, invisible operators, annotations
)


def without_control(text: str) -> Cleaned:
    """A text without control characters, soft hyphens and invisible format characters.

    Tabs and line breaks stay, as do joiners, variation selectors and tags, of which emoji and words are made.
    """
    return edited(text, (Edit(*match.span(), "") for match in INVISIBLE.finditer(text)))


def lowered(text: str) -> Cleaned:
    """`text.lower()`."""
    lower = text.lower()  # as a whole: the form of a sigma, but not its length, depends on its place in the word
    edits, place = [], 0
    for first, character in enumerate(text):
        last = place + len(character.lower())
        if lower[place:last] != character:
            edits.append(Edit(first, first + 1, lower[place:last]))
        place = last
    return edited(text, edits)


def without_stop_words(text: str, language: str) -> Cleaned:
    """A text without the stop words of a language (stopwordsiso), each with the whitespace after it.

    Raises `ValueError` if there is no such language, or stopwordsiso is not installed.
    """
    words = stop_words(language)
    found = (match for match in spoken_pattern().finditer(text) if _plain(match[1]) in words)
    return edited(text, (Edit(*match.span(), "") for match in found))


@functools.cache
def stop_words(language: str) -> frozenset[str]:
    """The stop words of a language, by its ISO 639-1 code.

    Raises `ValueError` if there is no such language, or stopwordsiso is not installed.
    """
    source = library("stopwordsiso", "stop words")
    languages = ", ".join(sorted(source.langs()))
    check(source.has_lang(language), f"clean.stop_words must be one of {languages}; got {language!r}")
    return frozenset(_plain(word) for word in source.stopwords(language))


def _plain(word: str) -> str:
    return word.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


SPACE = re.compile(r"\s+")


def spaced(text: str) -> Cleaned:
    """A text with a line break in place of each run of whitespace that has one, else a space; none at both ends."""

    def new(match: re.Match[str]) -> str:
        if match.start() == 0 or match.end() == len(text):
            return ""
        return "\n" if re.search(r"[\n\r\x0b\x0c\x85\u2028\u2029]", match[0]) else " "

    found = ((match, new(match)) for match in SPACE.finditer(text))
    return edited(text, (Edit(*match.span(), space) for match, space in found if space != match[0]))
