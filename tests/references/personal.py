"""Personal data that no person has, in the forms that people write: 1,000 values of four kinds, by a seed."""

import string
from typing import NamedTuple

import numpy as np
import phonenumbers

COUNTRIES = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "SE", "PL", "IN", "BR", "JP", "AU", "ZA")
BANKS = {  # the account number after the check digits: n for a digit, a for a letter, c for either
    "DE": "n" * 18,
    "GB": "a" * 4 + "n" * 14,
    "FR": "n" * 10 + "c" * 11 + "nn",
    "NL": "a" * 4 + "n" * 10,
    "ES": "n" * 20,
    "IT": "a" + "n" * 10 + "c" * 12,
    "CH": "n" * 5 + "c" * 12,
    "NO": "n" * 11,
    "PL": "n" * 24,
    "MT": "a" * 4 + "n" * 5 + "c" * 18,
}
CARDS = {  # first digits, length, groups
    "4": (16, (4, 4, 4, 4)),
    "53": (16, (4, 4, 4, 4)),
    "2221": (16, (4, 4, 4, 4)),
    "37": (15, (4, 6, 5)),
    "6011": (16, (4, 4, 4, 4)),
    "36": (14, (4, 6, 4)),
    "3530": (16, (4, 4, 4, 4)),
}
SENTENCES = (
    "Please reply to {} by Friday.",
    "His details ({}) are in the file.",
    "It was {}, she said.",
    "Contact: {}\nThank you",
    "{} is the one to use.",
    "Ref 12/2004, {}; paid £1,250.50 on 3 May 2005",
)


class Planted(NamedTuple):
    kind: str
    value: str


def planted(number: int, seed: int) -> list[Planted]:
    """As many values, of the four kinds in turn."""
    rng = np.random.default_rng(seed)
    makers = {"mail": mail, "phone": phone, "card": card, "iban": iban}
    kinds = list(makers)
    return [Planted(kind := kinds[i % 4], makers[kind](rng)) for i in range(number)]


def drawn(rng: np.random.Generator, values, size: int) -> str:
    return "".join(str(value) for value in rng.choice(list(values), size))


def mail(rng: np.random.Generator) -> str:
    words = ("ada", "Tom", "o'neil", "müller", "info", "x", "j", "garcia-lopez", "van_dam", "sales", "1984", "kim")
    local = str(rng.choice((".", "_", "+", "-", ""))).join(rng.choice(words, rng.integers(1, 4)))
    host = str(rng.choice((".", "-"))).join(rng.choice(("example", "mail", "uni", "post", "shop24", "bücher"), 2))
    return f"{local}@{host}.{rng.choice(('org', 'com', 'co.uk', 'de', 'museum', 'io', 'com.br', 'xn--p1ai'))}"


def phone(rng: np.random.Generator) -> str:
    """A valid number, in the international form, or in a national form of the United States or Great Britain."""
    forms = phonenumbers.PhoneNumberFormat
    while True:
        region = str(rng.choice(COUNTRIES))
        kind = int(rng.choice((phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE)))
        number = phonenumbers.example_number_for_type(region, kind)
        digits = str(number.national_number)
        number.national_number = int(digits[:-5] + drawn(rng, string.digits, 5))
        if not phonenumbers.is_valid_number(number):
            continue
        if region in ("US", "GB") and rng.random() < 0.7:
            text = phonenumbers.format_number(number, forms.NATIONAL)
            return text.replace(" ", "-") if region == "US" and rng.random() < 0.3 else text
        text = phonenumbers.format_number(number, int(rng.choice((forms.E164, forms.INTERNATIONAL))))
        return text.replace(" ", str(rng.choice((" ", "-", "."))))


def card(rng: np.random.Generator) -> str:
    """The Luhn sum doubles every second digit from the right and is a multiple of 10."""
    start = str(rng.choice(list(CARDS)))
    length, groups = CARDS[start]
    digits = start + drawn(rng, string.digits, length - len(start) - 1)
    doubled = [int(d) * (2 - i % 2) for i, d in enumerate(reversed(digits))]
    digits += str(-sum(d // 10 + d % 10 for d in doubled) % 10)
    ends = np.cumsum(groups)
    parts = [digits[end - size : end] for size, end in zip(groups, ends, strict=True)]
    return str(rng.choice(("", " ", "-"))).join(parts)


def iban(rng: np.random.Generator) -> str:
    """The check digits make the number, with country and check digits at its end, 1 modulo 97 (A = 10, ..., Z = 35)."""
    country = str(rng.choice(list(BANKS)))
    signs = {"n": string.digits, "a": string.ascii_uppercase, "c": string.digits + string.ascii_uppercase}
    account = "".join(drawn(rng, signs[sign], 1) for sign in BANKS[country])
    rest = int("".join(str(int(sign, 36)) for sign in f"{account}{country}00")) % 97
    number = f"{country}{98 - rest:02}{account}"
    if rng.random() < 0.5:
        return number
    return " ".join(number[i : i + 4] for i in range(0, len(number), 4))
