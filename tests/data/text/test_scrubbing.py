"""Personal data: planted values are found, ordinary texts stay, and the map leads back to the original."""

import gzip
import json
import time

import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.config.texts import PERSONAL
from memgpt_jax.data.text import personal, scrub
from tests.laws.real_data import DATA

personal_values = pytest.importorskip("tests.references.personal", reason="the extra `tasks` is not installed")
pytest.importorskip("stdnum", reason="the extra `tasks` is not installed")
BBC = DATA / "classification" / "bbcnews_2225.jsonl.gz"


def test_a_text_with_each_kind():
    account = "DE89 3704 0044 0532 0130 00"
    text = f"😀 Write to ada@example.org, call (020) 7946 0958; card 4111-1111-1111-1111, {account} IS IT."
    cleaned = scrub(text)
    assert cleaned.text == "😀 Write to [MAIL], call [PHONE]; card [CARD], [IBAN] IS IT."
    place = cleaned.text.index("[IBAN]")
    first, last = cleaned.span(place, place + 6)
    assert text[first:last] == account
    assert scrub(cleaned.text).text == cleaned.text
    assert [found.kind for found in personal(text, ("phone", "mail"))] == ["mail", "phone"]


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112 is no card, nor is 1234567890123, 0000 0000 0000 0000 or 98765432109876",
        "DE88 3704 0044 0532 0130 00 and GB82 WEST 1234 5698 7654 33 and XX82 1234 5698 7654 3210",
        "on 12.05.2004 at 10:30-11:45, 6-3 6-4 7-5, £1,250,300.50, 1939-1945, ISBN 978-3-16-148410-0",
        "@ada, ada@, ada@host, 3 @ 4.50, ada@ example.org, a.b@c.1, version 1.2.3.4, 192.168.0.1",
        "pi is 3.14159265358979 and 1e10, 10,000,000,000,000,001 of them, 12345678901234567890123456789",
    ],
)
def test_what_only_looks_like_personal_data_stays(text):
    assert scrub(text).text == text


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("Card 4111 1111 1111 1111 12/27 CVV 123", "Card [CARD] 12/27 CVV 123"),
        ("Card: 4111 1111 1111 1111 123", "Card: [CARD] 123"),
        ("378282246310005 1234", "[CARD] 1234"),
        ("exp 12/27 4111 1111 1111 1111", "exp 12/27 [CARD]"),
        ("3782 822463 10005, then 4111\u00a01111\u00a01111\u20131111", "[CARD], then [CARD]"),
        ("cards 4111111111111111,5500005555555559,340000000000009", "cards [CARD],[CARD],[CARD]"),
        ("card no.4111111111111111, _4111111111111111_", "card no.[CARD], _[CARD]_"),
        ("2001 2002 2003 2008 and 0.4111111111111111", "2001 2002 2003 2008 and 0.4111111111111111"),
        ("DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000", "[IBAN]"),
        ("_ada@example.org_, ada@example.org_x", "[MAIL]_, [MAIL]_x"),
        ("jose\u0301@example.org und ada@mu\u0308ller.de", "[MAIL] und [MAIL]"),
        ("请联系ada@example.org谢谢", "请联系[MAIL]谢谢"),
        ("иван@пример.рф, ada@example.org로", "[MAIL], [MAIL]로"),
    ],
)
def test_what_stands_beside_personal_data_does_not_hide_it_and_stays(text, scrubbed):
    pytest.importorskip("phonenumbers", reason="the extra `tasks` is not installed")
    assert scrub(text).text == scrubbed


def test_phones_of_a_region_need_the_region():
    text = "Appelez: 06 12 34 56 78 ou +33 6 12 34 56 78"
    assert scrub(text).text == "Appelez: 06 12 34 56 78 ou [PHONE]"
    assert scrub(text, regions=("FR",)).text == "Appelez: [PHONE] ou [PHONE]"
    assert scrub(text, regions=()).text == "Appelez: 06 12 34 56 78 ou [PHONE]"
    assert mg.data.clean(text, mg.CleanConfig(scrub=("phone",), phone_regions=("FR",))).text.count("[PHONE]") == 2


def test_names_come_from_a_tagger():
    def tagger(text):
        entities = [("person", "Ada Lovelace"), ("location", "London"), ("PER", "ada")]
        places = [(group, text.find(word), len(word)) for group, word in entities]
        return [{"entity_group": group, "start": at, "end": at + size} for group, at, size in places if at >= 0]

    text = "Ada Lovelace (ada@example.org) lived in London"
    assert scrub(text, names=tagger).text == "[NAME] ([MAIL]) lived in London"
    assert scrub(text, kinds=(), names=tagger).text == "[NAME] ([NAME]@example.org) lived in London"


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kinds must be of iban, card, mail, phone, got 'name'"):
        scrub("a", kinds=("name",))


def test_a_long_text_without_hits_takes_linear_time(slowness):
    digits, mails = ("4 " * 20_000, "4111 " * 10_000, "DE12 " * 5_000), ("a." * 50_000, "x" * 100_000, "例" * 50_000)
    for text in (*digits, *(f"{local}@" for local in mails), "+" * 50_000):
        start = time.process_time()
        scrub(text)
        assert time.process_time() - start < 3 * slowness


def found_share(texts: list[str], seed: int) -> float:
    """The share of 1,000 planted values that one hit of their kind covers, in sentences between texts."""
    rng, hits = np.random.default_rng(seed), 0
    values = personal_values.planted(1000, seed)
    for kind, value in values:
        before, after = (texts[rng.integers(len(texts))] for _ in range(2))
        sentence = str(rng.choice(personal_values.SENTENCES))
        text = f"{before[-300:]} {sentence.format(value)} {after[:300]}"
        first = len(before[-300:]) + 1 + sentence.index("{}")
        hits += any(f.kind == kind and f.first <= first and first + len(value) <= f.last for f in personal(text))
    return hits / len(values)


def test_planted_values_are_found():
    assert {kind for kind, _ in personal_values.planted(8, 0)} == set(PERSONAL)
    assert found_share(["Nothing here, in 2004.", "Sales rose 2% to $11.1bn (£6bn)."], seed=0) >= 0.98


@pytest.mark.skipif(not BBC.is_file(), reason=f"{BBC} is not there: MEMGPT_DATA names the folder of real data")
def test_planted_values_are_found_in_news_and_news_stay():
    """A false hit is a document in which anything is replaced: an upper bound, as news hold some true phone numbers."""
    with gzip.open(BBC, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    false = np.mean([scrub(text).text != text for text in texts])
    shares = [found_share(texts, seed) for seed in range(3)]
    print(f"found {shares}, documents changed {false:.4f}")
    assert len(texts) == 2225 and false <= 0.01
    assert min(shares) >= 0.98
