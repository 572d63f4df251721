"""Cleaning: each step and their compositions keep the map to the original, on random Unicode and on hand-made cases."""

import functools
import unicodedata

import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.text import Cleaned, clean, clean_words, compose, scrub, sentences
from memgpt_jax.data.text import steps as cleaning_steps
from memgpt_jax.data.text.cleaned import Edit, aligned, edited, unchanged
from memgpt_jax.data.text.steps import (
    lowered,
    normalized,
    repaired,
    spaced,
    without_control,
    without_markup,
    without_stop_words,
)

for name in ("ftfy", "stopwordsiso", "sentencex", "phonenumbers", "stdnum"):
    pytest.importorskip(name, reason="the extra `tasks` is not installed")

STEPS = {
    "repair": repaired,
    "NFC": normalized,
    "NFKC": functools.partial(normalized, form="NFKC"),
    "html": without_markup,
    "control": without_control,
    "lower": lowered,
    "stop_words": functools.partial(without_stop_words, language="en"),
    "whitespace": spaced,
    "scrub": scrub,
}
IDEMPOTENT = ("NFC", "NFKC", "control", "lower", "whitespace")
CONFIGS = (
    mg.CleanConfig(unicode="repair", html=True, control=True, scrub=("mail", "phone"), lower=True, whitespace=True),
    mg.CleanConfig(unicode="NFKC", stop_words="en", whitespace=True),
    mg.CleanConfig(unicode="NFC", control=True, lower=True, stop_words="el"),
)


def wrongly_decoded(text: str) -> str:
    return text.encode().decode("cp1252")


PIECES = (
    *(
        "the",
        " is ",
        "Don't",
        "ΑΣ",
        "İstanbul",
        "\ufb01n",
        "\u2460",
        "\u338f",
        "\uff76\uff9e",
        "\ud55c",
        "\u1112\u1161",
    ),
    *(wrongly_decoded("schön"), wrongly_decoded("привет"), wrongly_decoded("a ü b"), "â€œ"),
    *(
        "👩‍👩‍👧",
        "👍🏽",
        "🇩🇪",
        "e\u0301",
        "a\u0323\u0307",
        "\u0301",
        "\u0995\u09c7\u09be",
        "\u0b95\u0bcc",
        "नमस्ते",
        "שָׁלוֹם",
    ),
    *(
        "<b>",
        "</p>",
        "<br/>",
        "<a href='x>y'>",
        "<!-- a -->",
        "<script>x</script>",
        "&amp;",
        "&#233;",
        "&lt;",
        "<",
        "&",
    ),
    *("\x00", "\x85", "\t", "\r\n", "\n\n", "  ", "\u00a0", "\u200b", "\ufeff", "\u202e", "\u00ad", "\u2028", ">"),
    *("ada@example.org", "+44 20 7946 0958", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00"),
)


def random_texts(number: int, seed: int = 0) -> list[str]:
    """Texts of pieces that the steps change, and of characters of all planes but surrogates."""
    rng, texts = np.random.default_rng(seed), []
    for _ in range(number):
        parts = []
        for _ in range(rng.integers(0, 9)):
            code = int(rng.integers(0x110000) if rng.random() < 0.3 else rng.integers(0x3000))
            any_character = chr(code) if not 0xD800 <= code < 0xE000 else "x"
            parts.append(PIECES[rng.integers(len(PIECES))] if rng.random() < 0.6 else any_character)
        texts.append("".join(parts))
    return texts


TEXTS = random_texts(2000)


def check_map(text: str, cleaned: Cleaned) -> None:
    """The map is of characters of the original, in order, and finds every character that has not changed."""
    size = len(cleaned.text)
    assert len(cleaned.origin) == len(cleaned.end) == size
    if not size:
        return
    assert (cleaned.origin >= 0).all() and (cleaned.origin < cleaned.end).all() and (cleaned.end <= len(text)).all()
    assert (np.diff(cleaned.origin) >= 0).all() and (np.diff(cleaned.end) >= 0).all()
    assert cleaned.span(0, size) == (cleaned.origin[0], cleaned.end[-1])


def matched(text: str, cleaned: Cleaned) -> int:
    """How many characters come from an equal character of the original."""
    spans = zip(cleaned.text, cleaned.origin.tolist(), cleaned.end.tolist(), strict=True)
    return sum(text[first:last] == character for character, first, last in spans)


@pytest.mark.parametrize("name", STEPS)
def test_each_step_keeps_the_map(name):
    step, changed = STEPS[name], 0
    for text in TEXTS:
        cleaned = step(text)
        check_map(text, cleaned)
        changed += cleaned.text != text
        if cleaned.text == text:
            np.testing.assert_array_equal(cleaned.origin, np.arange(len(text)))
        if name in IDEMPOTENT:
            assert step(cleaned.text).text == cleaned.text
    assert changed > 100


@pytest.mark.parametrize("config", CONFIGS)
def test_compositions_keep_the_map(config):
    equal = characters = 0
    for text in TEXTS:
        cleaned = clean(text, config)
        check_map(text, cleaned)
        equal, characters = equal + matched(text, cleaned), characters + len(cleaned.text)
    assert equal > 0.5 * characters


@pytest.mark.parametrize("name", STEPS)
def test_an_unchanged_word_is_found_in_the_original(name):
    """A word that no step changes, in the middle of anything, is mapped to itself, also after all other steps."""
    for text in TEXTS[:500]:
        left, right = text[: len(text) // 2], text[len(text) // 2 :]
        if "<" in text:  # an open tag or script may swallow the word
            continue
        whole = f"{left} zebra {right}"
        for cleaned in (STEPS[name](whole), compose(whole, [STEPS[name], lowered, spaced])):
            place = cleaned.text.index("zebra")
            first, last = cleaned.span(place, place + 5)
            assert whole[first:last] == "zebra"


def test_the_map_of_a_composition_is_the_composition_of_the_maps():
    def double(text):
        return edited(text, [Edit(i, i + 1, character * 2) for i, character in enumerate(text)])

    def without_x(text):
        return edited(text, [Edit(i, i + 1, "") for i, character in enumerate(text) if character == "x"])

    cleaned = compose("axb", [double, without_x])
    assert cleaned.text == "aabb" and cleaned.origin.tolist() == [0, 0, 2, 2] and cleaned.end.tolist() == [1, 1, 3, 3]
    assert cleaned.span(0, 2) == (0, 1) and cleaned.span(1, 3) == (0, 3)
    for first, last in ((0, 0), (2, 1), (-1, 2), (0, 5)):
        with pytest.raises(ValueError, match=r"must be of the 4 characters"):
            cleaned.span(first, last)


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_normalisation_by_sequences_is_that_of_the_whole(form):
    for text in TEXTS:
        assert normalized(text, form).text == unicodedata.normalize(form, text)
    jamo = "".join(map(chr, (0x1112, 0x1161, 0x11AB, 0x1100, 0x1161, 0x61, 0x301, 0x9C7, 0x9BE)))
    assert normalized(jamo, form).text == unicodedata.normalize(form, jamo)
    assert normalized(jamo, form).origin.tolist() == [0, 3, 5, 7]


def test_lower_case_is_that_of_python():
    for text in TEXTS:
        assert lowered(text).text == text.lower()
    assert lowered("ΑΣ").text == "ας" and lowered("İx").origin.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("before", "after", "part", "origin"),
    [
        (f"über {wrongly_decoded('schön über')}", "über schön über", "schön", wrongly_decoded("schön")),
        (f"{wrongly_decoded('✔')} No problems", "✔ No problems", "✔", wrongly_decoded("✔")),
        (f"{wrongly_decoded('привет')} you", "привет you", "you", "you"),
        ("quotes “stay”, &amp; \ufb01", "quotes “stay”, &amp; \ufb01", "“stay”", "“stay”"),
    ],
)
def test_repair(before, after, part, origin):
    cleaned = repaired(before)
    place = cleaned.text.index(part)
    first, last = cleaned.span(place, place + len(part))
    assert cleaned.text == after and before[first:last] == origin


@pytest.mark.parametrize(
    ("before", "after"), [("abc", "xaby"), ("a", "xay"), ("a b", "c d e"), ("abc", ""), ("a  b", "a b")]
)
def test_alignment_gives_the_other_text(before, after):
    cleaned = aligned(before, after)
    assert cleaned.text == after
    check_map(before, cleaned)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<p>Fish &amp; <b>chi</b>ps</p>", "\nFish & chips\n"),
        ("a<br/>b<BR>c", "a\nb\nc"),
        ("a < b and b > c, I <3 you", "a < b and b > c, I <3 you"),
        ('x<a title="a > b" href=c>y</a>z', "xyz"),
        ("a<!-- b --><style>p {}</style><script src=x>if (a<b) {}</script>c", "ac"),
        ("caf&eacute; &#233; &#xE9; &unknown; &amp;lt;", "café é é &unknown; &lt;"),
        ("an <unclosed tag", "an <unclosed tag"),
    ],
)
def test_markup(before, after):
    assert without_markup(before).text == after


def test_control_characters_go_and_joiners_stay():
    assert without_control("a\x00b\u200bc\u202ed\ufeff\tx\n\r").text == "abcd\tx\n\r"
    for text in ("👩‍👩‍👧", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "❤️", "می‌خواهم"):
        assert without_control(text).text == text


def test_whitespace():
    cleaned = spaced("  a \t b\u00a0\u00a0c \n\n d\r\n")
    assert cleaned.text == "a b c\nd" and cleaned.span(1, 2) == (3, 6) and cleaned.span(5, 6) == (10, 14)


def test_stop_words():
    cleaned = without_stop_words("The cat isn\u2019t on the mat, and Don't panic", "en")
    assert cleaned.text == "cat mat, panic" and cleaned.span(4, 7) == (21, 24)
    assert without_stop_words("यह किताब है", "hi").text == "किताब "
    with pytest.raises(ValueError, match=r"clean.stop_words must be one of af, ar, .*; got 'english'"):
        without_stop_words("a", "english")


def test_sentences_are_spans_of_the_text():
    text = 'Dr. Smith paid $3.50. 😀 "Really?" she asked.\n\nNew\nline. '
    assert [text[a:b] for a, b in sentences(text)] == [
        "Dr. Smith paid $3.50.",
        '😀 "Really?" she asked.',
        "New\nline.",
    ]
    assert sentences("") == [] == sentences(" \n ")
    for text in TEXTS[:300]:
        spans = sentences(text)
        assert all(text[a:b] == text[a:b].strip() != "" for a, b in spans)
        assert "".join(text[a:b] for a, b in spans).split() == [] or spans == sorted(spans)
        assert sum(len("".join(text[a:b].split())) for a, b in spans) == len("".join(text.split()))


def test_the_default_changes_nothing():
    for text in TEXTS[:100]:
        cleaned = clean(text, mg.CleanConfig())
        assert cleaned.text == text and cleaned.origin.tolist() == unchanged(text).origin.tolist()


def test_words_are_cleaned_one_by_one_and_none_goes():
    config = mg.CleanConfig(
        unicode="NFC", html=True, control=True, scrub=("phone", "mail"), lower=True, whitespace=True
    )
    words = ["Call", "020", "7946", "0958", "<b>", "ADA@example.org", "\x00", "Cafe\u0301"]
    assert clean_words(words, config) == ["call", "[phone]", "[phone]", "[phone]", "", "[mail]", "", "café"]
    assert clean_words([], config) == []
    with pytest.raises(ValueError, match="would remove words"):
        clean_words(words, mg.CleanConfig(stop_words="en"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unicode": "nfc"}, "unicode must be one of 'keep', 'NFC'"),
        ({"scrub": ("mail", "name")}, "clean.scrub must be of iban, card, mail, phone, got 'name'"),
        ({"phone_regions": ("uk",)}, "clean.phone_regions must be codes such as 'US', got 'uk'"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        mg.CleanConfig(**changes)
    with pytest.raises(ValueError, match=message):
        with_fields(mg.LabelledTextConfig(), {f"clean.{name}": value for name, value in changes.items()})


def test_a_missing_library_names_the_extra(monkeypatch):
    def missing(name, noun):
        return library(f"{name}_absent", noun)

    library = cleaning_steps.library
    monkeypatch.setattr(cleaning_steps, "library", missing)
    with pytest.raises(ValueError, match=r"repairs of Unicode need ftfy_absent: pip install 'memgpt-jax\[tasks\]'"):
        repaired("a")
