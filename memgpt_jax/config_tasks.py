"""Configurations of the generated tasks, one class for each family of `memgpt_jax.data.tasks`."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from memgpt_jax.checks import check, check_literals, check_positive
from memgpt_jax.config_data import TaskConfig


@dataclass(frozen=True, kw_only=True)
class CopyConfig(TaskConfig):
    """Copy, reverse and repeat-copy: symbols between two marks, then the symbols again."""

    length_fields: ClassVar[tuple[str, ...]] = ("min_length", "max_length")

    num_symbols: int = 10
    """Size of the alphabet."""
    min_length: int = 1
    """Fewest symbols of a row; each row draws its own number."""
    max_length: int = 20
    """Most symbols of a row."""
    reverse: bool = False
    """Answer with the last symbol first."""
    min_repeats: int = 1
    """Fewest copies to make; each row draws its own number."""
    max_repeats: int = 1
    """Most copies to make. With more than 1 the answer ends with an end marker, which is scored too."""
    blank_answers: bool = False
    """Feed filler while the answer is due, as the Neural Turing Machine's paper does, and not the answer so far."""

    def __post_init__(self):
        check_positive(self)
        check(
            self.min_length <= self.max_length,
            f"min_length={self.min_length} must be at most max_length={self.max_length}",
        )
        check(
            self.min_repeats <= self.max_repeats,
            f"min_repeats={self.min_repeats} must be at most max_repeats={self.max_repeats}",
        )

    @property
    def num_ids(self) -> int:
        """Filler, the end marker, the start, the delimiters of 1 to `max_repeats` copies, the symbols."""
        return 3 + self.max_repeats + self.num_symbols

    @property
    def row_length(self) -> int:
        """The longest row: start, symbols, delimiter, the copies; an end marker after them is only a target."""
        return 2 + self.max_length * (1 + self.max_repeats)


@dataclass(frozen=True, kw_only=True)
class ItemRecallConfig(TaskConfig):
    """Associative recall of the Neural Turing Machine's paper: given an item of a list, answer with the next one."""

    length_fields: ClassVar[tuple[str, ...]] = ("min_items", "max_items")

    num_symbols: int = 64
    """Size of the alphabet; the paper's symbols are 6 random bits."""
    item_length: int = 3
    """Symbols of an item."""
    min_items: int = 2
    """Fewest items of a row, at least 2; each row draws its own number."""
    max_items: int = 6
    """Most items of a row."""
    blank_answers: bool = False
    """Feed filler while the answer is due, as the paper does, and not the answer so far."""

    def __post_init__(self):
        check_positive(self)
        check(
            2 <= self.min_items <= self.max_items,
            f"min_items={self.min_items} must be between 2 and max_items={self.max_items}",
        )
        check_codes(self.num_symbols, "item_length", self.item_length)
        check(
            self.num_symbols**self.item_length >= self.max_items,
            f"num_symbols={self.num_symbols} and item_length={self.item_length} give fewer than "
            f"max_items={self.max_items} distinct items",
        )

    @property
    def num_ids(self) -> int:
        """Filler, the two delimiters, the symbols."""
        return 3 + self.num_symbols

    @property
    def row_length(self) -> int:
        """Items with a delimiter each, the question between two, all of the answer but its last symbol."""
        return (self.max_items + 1) * (self.item_length + 1) + self.item_length


@dataclass(frozen=True, kw_only=True)
class MQARConfig(TaskConfig):
    """Multi-query associative recall: pairs of key and value, then each key once more, somewhere, for its value."""

    length_fields: ClassVar[tuple[str, ...]] = ("length",)

    vocab_size: int = 256
    """Ids of keys (the lower half) and values (the upper half); an even number."""
    length: int = 64
    """Tokens L of a row; an even number."""
    num_pairs: int = 8
    """Keys of a row, all distinct."""
    num_rewrites: int = 0
    """Further pairs, of keys that have one already, with a new value: the last one counts."""
    power: float = 0.01
    """Exponent a of the gaps g = 1, 2, ... in front of the questions, drawn in proportion to g^(a - 1)."""
    filler: Literal["own", "vocabulary"] = "own"
    """What stands between questions: ids of their own, or, as published, any id of the vocabulary, live keys too."""
    num_fillers: int = 16
    """Number of filler ids when they are their own."""

    def __post_init__(self):
        for name in ("num_pairs", "num_fillers"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        check(self.num_rewrites >= 0, f"num_rewrites must be at least 0, got {self.num_rewrites}")
        check(
            self.vocab_size % 2 == 0 and self.vocab_size >= 2 * (self.num_pairs + self.num_rewrites),
            f"vocab_size={self.vocab_size} must be even and at least {2 * (self.num_pairs + self.num_rewrites)}: half "
            "of it are values, and those of a row are distinct",
        )
        check(
            self.length % 2 == 0 and self.num_gaps >= self.num_pairs,
            f"length={self.length} must be even and at least {4 * self.num_pairs + 2 * self.num_rewrites}, two tokens "
            "for each pair and each question",
        )
        check_literals(self)

    @property
    def num_gaps(self) -> int:
        """Places for a question: every second token after the pairs."""
        return self.length // 2 - self.num_pairs - self.num_rewrites

    @property
    def num_ids(self) -> int:
        """Keys, then values, then fillers of their own."""
        return self.vocab_size + (self.num_fillers if self.filler == "own" else 0)

    @property
    def row_length(self) -> int:
        """`length`."""
        return self.length


@dataclass(frozen=True, kw_only=True)
class DictionaryConfig(TaskConfig):
    """Dictionary lookup: definitions of distinct keys, then questions about some of them."""

    length_fields: ClassVar[tuple[str, ...]] = ("num_entries",)

    num_entries: int = 24
    """Definitions of a row."""
    num_questions: int = 8
    """Questions at the end of a row, about distinct keys; at most `num_entries`."""
    key_length: int = 2
    """Symbols of a key."""
    value_length: int = 2
    """Symbols of a value."""
    num_symbols: int = 32
    """Size of the alphabet of keys and values."""

    def __post_init__(self):
        check_positive(self)
        check(
            self.num_questions <= self.num_entries,
            f"num_questions={self.num_questions} must be at most num_entries={self.num_entries}",
        )
        for name in ("key_length", "value_length"):
            check_codes(self.num_symbols, name, getattr(self, name))
        check(
            self.num_symbols**self.key_length >= self.num_entries,
            f"num_symbols={self.num_symbols} and key_length={self.key_length} give fewer than "
            f"num_entries={self.num_entries} distinct keys",
        )

    @property
    def num_ids(self) -> int:
        """Filler, the marks of a definition, of a question and of a value, the symbols."""
        return 4 + self.num_symbols

    @property
    def row_length(self) -> int:
        """Definitions and questions, each with two marks."""
        return (self.num_entries + self.num_questions) * (2 + self.key_length + self.value_length)


@dataclass(frozen=True, kw_only=True)
class NoiseConfig(TaskConfig):
    """Base of the tasks that hide sentences among RULER's noise; all of their words are ids."""

    length_fields: ClassVar[tuple[str, ...]] = ("context_length",)
    noise: ClassVar[str] = (
        "The grass is green . The sky is blue . The sun is yellow . Here we go . There and back again ."
    )
    """Sentences that say nothing, over and over."""
    templates: ClassVar[dict[str, str]] = {}
    """The sentences of the task by name; {braces} stand for ids of its own."""

    context_length: int = 256
    """Tokens of the noise with the sentences hidden in it, before the questions."""

    @property
    def words(self) -> tuple[str, ...]:
        """The words of noise and templates, in the order of their ids, which are the first ones."""
        words = " ".join((self.noise, *self.templates.values())).split()
        return tuple(dict.fromkeys(word for word in words if not word.startswith("{")))

    def size(self, template: str) -> int:
        """Tokens of a template, its braces counted as one token each."""
        return len(self.templates[template].split())

    def check_hides(self, number: int, size: int) -> None:
        """Raise `ValueError` unless the context can hold so many sentences of `size` tokens, each between others."""
        noise = self.noise.split()
        left = self.context_length - number * size
        whole, rest = divmod(left, len(noise))
        room = whole * noise.count(".") + noise[len(noise) - rest :].count(".") if left > 0 else 0
        check(
            room >= number,
            f"context_length={self.context_length} cannot hold {number} sentences of {size} tokens, each after a "
            "sentence of noise",
        )


@dataclass(frozen=True, kw_only=True)
class NoiseNeedleConfig(NoiseConfig):
    """RULER's needles in a haystack of noise: sentences that give words a number, then questions about them."""

    templates: ClassVar[dict[str, str]] = {
        "needle": "One of the special magic numbers for {word} is : {number} .",
        "question": "What is the special magic number for {word} mentioned in the provided text ? "
        "The special magic number for {word} mentioned in the provided text is {number}",
    }

    num_needles: int = 4
    """Facts hidden in each row, about distinct words."""
    num_questions: int = 1
    """Facts asked for at the end of a row, at most `num_needles`."""
    num_words: int = 64
    """Words that facts are about, each one id."""
    num_digits: int = 7
    """Digits of a number, each one id."""

    def __post_init__(self):
        check_positive(self)
        check(
            self.num_questions <= self.num_needles <= self.num_words,
            f"num_questions={self.num_questions} must be at most num_needles={self.num_needles}, and that at most "
            f"num_words={self.num_words}",
        )
        self.check_hides(self.num_needles, self.size("needle") - 1 + self.num_digits)

    @property
    def num_ids(self) -> int:
        """Words and marks of the sentences, digits, the words that facts are about."""
        return len(self.words) + 10 + self.num_words

    @property
    def row_length(self) -> int:
        """The haystack and the questions."""
        return self.context_length + self.num_questions * (self.size("question") - 1 + self.num_digits)


@dataclass(frozen=True, kw_only=True)
class TrackingConfig(NoiseConfig):
    """RULER's variable tracking: chains of assignments among noise, then a question that follows them."""

    templates: ClassVar[dict[str, str]] = {
        "assignment": "VAR {name} = {value} .",
        "value": "What value does {name} hold ? {value}",
        "variables": "Find all variables that are assigned the value {value} :",  # and their names
    }

    num_chains: int = 2
    """Chains of a row, each of which starts with a value."""
    num_hops: int = 2
    """Assignments of a variable to the next one, in each chain."""
    question: Literal["value", "variables"] = "value"
    """Ask for the `value` of variables, or, as published, for all `variables` that hold a value."""
    num_questions: int = 1
    """Questions at the end of a row, about distinct chains; at most `num_chains`."""
    num_names: int = 64
    """Names of variables, each one id."""
    num_values: int = 64
    """Values, each one id."""

    def __post_init__(self):
        check_positive(self)
        check_literals(self)
        check(
            self.num_questions <= self.num_chains <= self.num_values,
            f"num_questions={self.num_questions} must be at most num_chains={self.num_chains}, and that at most "
            f"num_values={self.num_values}",
        )
        check(
            self.num_variables <= self.num_names,
            f"num_chains={self.num_chains} and num_hops={self.num_hops} need {self.num_variables} names, more than "
            f"num_names={self.num_names}",
        )
        self.check_hides(self.num_variables, self.size("assignment"))

    @property
    def num_variables(self) -> int:
        """Variables of a row: one more than hops in each chain."""
        return self.num_chains * (self.num_hops + 1)

    @property
    def num_ids(self) -> int:
        """Words and marks of the sentences, names, values."""
        return len(self.words) + self.num_names + self.num_values

    @property
    def row_length(self) -> int:
        """The noise with the assignments, and the questions."""
        answers = self.num_hops + 1 if self.question == "variables" else 0
        return self.context_length + self.num_questions * (self.size(self.question) + answers)


def check_codes(num_symbols: int, name: str, length: int) -> None:
    """Check that words of `length` symbols can be numbered by 64-bit integers."""
    check(
        num_symbols**length < 2**62,
        f"num_symbols={num_symbols} and {name}={length} give more than 2^62 different words; use fewer",
    )
