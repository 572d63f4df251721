"""The steps of a `CleanConfig` on a text, or on a text of separate words."""

import functools
from collections.abc import Sequence

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.texts import CleanConfig
from memgpt_jax.data.text.cleaned import Cleaned, Step, compose
from memgpt_jax.data.text.scrubbing import personal, scrub
from memgpt_jax.data.text.steps import (
    lowered,
    normalized,
    repaired,
    spaced,
    without_control,
    without_markup,
    without_stop_words,
)


def clean(text: str, config: CleanConfig) -> Cleaned:
    """The text after the steps of a configuration, in the order of its fields, with the map to the original.

    >>> cleaned = clean("Fish &amp; chips", CleanConfig(html=True))
    >>> cleaned.text, cleaned.span(5, 6)
    ('Fish & chips', (5, 10))

    Raises `ValueError` if a library is not installed, or there are no stop words of the language.
    """
    search = functools.partial(scrub, kinds=config.scrub, regions=config.phone_regions)
    return compose(text, [*_before(config), *([search] if config.scrub else []), *_after(config)])


def clean_words(words: Sequence[str], config: CleanConfig) -> list[str]:
    """As many words, each cleaned by itself; one of which nothing remains is empty.

    Personal data are searched in the words joined by spaces, as they may have several words, of which each is replaced.

    Raises `ValueError` as `clean`, or if the configuration has stop words, because words are never removed.
    """
    check_words(config)
    words = [compose(word, _before(config)).text for word in words]
    if config.scrub:
        words = _scrubbed(words, config)
    return [compose(word, _after(config)).text for word in words]


def check_words(config: CleanConfig) -> None:
    """Raise `ValueError` if a configuration removes words."""
    check(not config.stop_words, f"data.clean.stop_words={config.stop_words!r} would remove words that have tags")


def _before(config: CleanConfig) -> list[Step]:
    """The steps before the search for personal data."""
    steps: list[Step] = [repaired] if config.unicode == "repair" else []
    if config.unicode != "keep":
        steps.append(functools.partial(normalized, form="NFKC" if config.unicode == "NFKC" else "NFC"))
    return [*steps, *([without_markup] if config.html else []), *([without_control] if config.control else [])]


def _after(config: CleanConfig) -> list[Step]:
    """The steps after the search for personal data."""
    steps: list[Step] = [lowered] if config.lower else []
    if config.stop_words:
        steps.append(functools.partial(without_stop_words, language=config.stop_words))
    return [*steps, *([spaced] if config.whitespace else [])]


def _scrubbed(words: list[str], config: CleanConfig) -> list[str]:
    """The words, with a placeholder for each word that overlaps personal data."""
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    starts = ends - [len(word) for word in words]
    result = list(words)
    for item in personal(" ".join(words), config.scrub, config.phone_regions):
        for number in np.flatnonzero((starts < item.last) & (item.first < ends)):
            result[number] = f"[{item.kind.upper()}]"
    return result
