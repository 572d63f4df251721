"""Configurations of question answering over what was read: bAbI, BABILong, key-value retrieval in JSON."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from memgpt_jax.checks import check, check_literals
from memgpt_jax.config_data import TaskConfig, TextConfig

JSON_CHARACTERS = '\n {}":,-0123456789abcdef'
"""What a JSON object of hexadecimal strings is written in; the place of a character is its id."""


@dataclass(frozen=True, kw_only=True)
class BabiConfig(TaskConfig):
    """bAbI's tasks (Weston et al., 2015), read from the publishers' files: stories with questions in between.

    A row has `training.sequence_length` tokens: whole stories of one task, each from an empty memory, then padding.
    """

    path: str | None = None
    """Folder of `qa1_..._train.txt`, `qa1_..._test.txt`, ..., which may be `.txt.gz`. `~` and `$VARIABLES` are
    expanded."""
    tasks: tuple[int, ...] = tuple(range(1, 21))
    """Numbers of the tasks that one model learns together; a row of training is of any of them, equally often."""
    num_words: int = 256
    """Ids that the model holds ready for words, answers and padding: at least as many as the folder's files need."""
    valid_share: float = 0.1
    """Share of the training file's stories, its last ones, that is split off for validation."""
    long_stories: Literal["error", "cut"] = "error"
    """What to do with a story that a row cannot hold: refuse it, or `cut` whole sentences off its front: questions that
    the row still reaches are asked there, each later one in a row of its own after as much of the story as fits."""
    show_answers: bool = True
    """Whether an answer stands in the story after its question. False: a blank stands there, so that later questions
    are answered from the statements alone, as those of Memory Networks are."""
    sentence_length: int | None = None
    """Pad each statement, and each question with its answer, to a multiple of this. With the model's segment length,
    no segment holds words of two sentences; needs tokens, so by default sentences follow each other."""

    def __post_init__(self):
        object.__setattr__(self, "tasks", tuple(self.tasks))
        check_babi(self)
        check(self.num_words >= 1, f"num_words must be at least 1, got {self.num_words}")
        check(
            self.sentence_length is None or self.sentence_length >= 1,
            f"sentence_length must be None or at least 1, got {self.sentence_length}",
        )
        check_literals(self)

    @property
    def num_ids(self) -> int:
        """Words and whole answers."""
        return self.num_words


@dataclass(frozen=True, kw_only=True)
class BabiLongConfig(TaskConfig):
    """BABILong (Kuratov et al., 2024): the statements of a bAbI story, in order, at random places among the sentences
    of real text; then the question.

    A row has `training.sequence_length` tokens, the last of them the question's last; any length may be evaluated.
    """

    text: TextConfig = field(default_factory=TextConfig)
    """The text that hides the statements, and the tokenizer of all."""
    path: str | None = None
    """Folder of bAbI's files, as in `BabiConfig`."""
    tasks: tuple[int, ...] = (1,)
    """Numbers of bAbI's tasks; a row is of any of them, equally often."""
    num_answers: int = 8
    """Ids, after the tokenizer's, that the model holds ready for answers: at least as many as the tasks have."""
    train_on_all_questions: bool = True
    """In rows of training, ask the story's earlier questions too, each with its answer where it stands in the story:
    one answer a row teaches little. Evaluations ask the last question alone."""
    valid_share: float = 0.1
    """Share of the training file's stories, its last ones, that is split off for validation."""

    def __post_init__(self):
        object.__setattr__(self, "tasks", tuple(self.tasks))
        check_babi(self)
        check(self.num_answers >= 1, f"num_answers must be at least 1, got {self.num_answers}")

    @property
    def num_ids(self) -> int:
        """The answers."""
        return self.num_answers


@dataclass(frozen=True, kw_only=True)
class JsonRecallConfig(TaskConfig):
    """Key-value retrieval in JSON (Liu et al., 2023, "Lost in the Middle"), in characters: an object of random
    hexadecimal keys and values, then keys whose values are asked for."""

    length_fields: ClassVar[tuple[str, ...]] = ("num_pairs",)

    num_pairs: int = 8
    """Pairs of the object, any number."""
    key_length: int = 4
    """Characters of a key."""
    value_length: int = 4
    """Characters of a value."""
    num_questions: int = 4
    """Keys that are asked for after the object, each followed by its value; at most `num_pairs`."""
    path: str | None = None
    """A published file to evaluate on, `.jsonl` or `.jsonl.gz` with `ordered_kv_records`, `key` and `value` (36
    characters each), instead of generated objects. Training is on generated ones in any case."""

    def __post_init__(self):
        for name in ("num_pairs", "key_length", "value_length", "num_questions"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        check(
            self.num_questions <= self.num_pairs <= 16**self.key_length,
            f"num_questions={self.num_questions} must be at most num_pairs={self.num_pairs}, and that at most "
            f"16 ** key_length={self.key_length}",
        )

    @property
    def num_ids(self) -> int:
        """Characters of JSON."""
        return len(JSON_CHARACTERS)

    @property
    def row_length(self) -> int:
        """Object and questions, `{"k": "v", "k": "v"}` and `\n"k": "v"` each, padded to a multiple of 64."""
        pair = self.key_length + self.value_length
        return 64 * -(-((8 + pair) * self.num_pairs + (7 + pair) * self.num_questions) // 64)


def check_babi(config) -> None:
    """Check the fields that name bAbI's stories."""
    check(
        len(config.tasks) > 0
        and set(config.tasks) <= set(range(1, 21))
        and len(set(config.tasks)) == len(config.tasks),
        f"tasks must be distinct numbers from 1 to 20, at least one, got {config.tasks}",
    )
    check(0 < config.valid_share < 1, f"valid_share must be between 0 and 1, got {config.valid_share}")
