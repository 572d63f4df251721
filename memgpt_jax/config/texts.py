"""How texts are changed: cleaned before they are tokenized, and augmented in training."""

from dataclasses import dataclass
from typing import Literal

from memgpt_jax.config.checks import check, check_literals, check_positive, set_tuples

Personal = Literal["mail", "phone", "card", "iban"]
PERSONAL: tuple[Personal, ...] = ("iban", "card", "mail", "phone")
"""Kinds of personal data that `scrub` finds by itself, in the order in which a place is given to a kind."""


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """Steps that clean a text, in the order of the fields; all are off by default."""

    unicode: Literal["keep", "NFC", "NFKC", "repair"] = "keep"
    """Unicode normalisation `NFC` or `NFKC`; `repair`: wrongly decoded text is repaired by ftfy (`schÃ¶n` becomes
    `schön`), and then NFC."""
    html: bool = False
    """Remove tags, comments, scripts and styles, and replace character references such as `&amp;`."""
    control: bool = False
    """Remove control characters and invisible format characters, but not tabs, line breaks and the joiners of emoji."""
    scrub: tuple[Personal, ...] = ()
    """Kinds of personal data that are replaced by `[MAIL]`, `[PHONE]`, `[CARD]` or `[IBAN]`; see `scrub`."""
    phone_regions: tuple[str, ...] = ("US", "GB")
    """Countries (ISO 3166-1, two letters) whose phone numbers are found without the code of the country."""
    lower: bool = False
    """Replace capital letters."""
    stop_words: str = ""
    """Remove the commonest words of a language, by its ISO 639-1 code, such as `en`."""
    whitespace: bool = False
    """Replace each run of whitespace by a line break if it has one, else by a space; none at both ends."""

    def __post_init__(self) -> None:
        check_literals(self)
        set_tuples(self, "scrub", "phone_regions")
        for kind in self.scrub:
            check(kind in PERSONAL, f"clean.scrub must be of {', '.join(PERSONAL)}, got {kind!r}")
        for region in self.phone_regions:
            is_code = len(region) == 2 and region.isupper()
            check(is_code, f"clean.phone_regions must be codes such as 'US', got {region!r}")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of the words of training texts, anew in every epoch; none by default.

    Rates are probabilities of each word, from 0 to 1. The steps follow the order of the fields (EDA, Wei and Zou 2019).
    """

    substitute: float = 0.0
    """Replace a word by one of its `neighbours` in `vectors`; other words stay."""
    insert: float = 0.0
    """Insert a word of the text after a word; with `vectors` one of the neighbours of the former, if it has any."""
    swap: float = 0.0
    """Exchange a word with the next word."""
    delete: float = 0.0
    """Delete a word; one word always stays."""
    vectors: str | None = None
    """File of word vectors: lines of a word and its numbers, as GloVe and word2vec write them. `write_vectors` makes
    one of the token embeddings of a model. `~` and `$VARIABLES` are expanded."""
    neighbours: int = 5
    """Number of words with the most similar vectors (cosine), from which one is drawn."""

    def __post_init__(self) -> None:
        check_positive(self)
        for name in ("substitute", "insert", "swap", "delete"):
            rate = getattr(self, name)
            check(0.0 <= rate <= 1.0, f"augment.{name} must be in [0, 1], got {rate}")
        check(
            self.substitute == 0 or self.vectors is not None,
            f"augment.substitute={self.substitute} needs augment.vectors, a file of word vectors",
        )
        check(
            self.vectors is None or self.substitute > 0 or self.insert > 0,
            f"augment.vectors={self.vectors!r} is used by augment.substitute and augment.insert, which are both 0",
        )

    @property
    def is_on(self) -> bool:
        """Whether any rate is above 0."""
        return max(self.substitute, self.insert, self.swap, self.delete) > 0
