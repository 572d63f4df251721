"""Configurations of question answering over what was read: bAbI, BABILong, key-value retrieval in JSON."""

from dataclasses import dataclass
from typing import Literal

from memgpt_jax.checks import check, check_literals
from memgpt_jax.config_data import TaskConfig


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


def check_babi(config) -> None:
    """Check the fields that name bAbI's stories."""
    check(
        len(config.tasks) > 0 and set(config.tasks) <= set(range(1, 21)) and len(set(config.tasks)) == len(config.tasks),
        f"tasks must be distinct numbers from 1 to 20, at least one, got {config.tasks}",
    )
    check(0 < config.valid_share < 1, f"valid_share must be between 0 and 1, got {config.valid_share}")
