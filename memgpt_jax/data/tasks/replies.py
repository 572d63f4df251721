"""Replies: which turn comes next in a dialogue, from files with a list of turns in each record."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.heads import TruncationSide
from memgpt_jax.data.examples.files import CutTextsConfig, read_split
from memgpt_jax.data.examples.json_objects import field_of
from memgpt_jax.data.examples.records import Record
from memgpt_jax.data.tasks.base import digest
from memgpt_jax.data.tasks.labelled_text import cut
from memgpt_jax.data.tasks.vectors import RowPair, VectorsConfig, VectorsTask
from memgpt_jax.data.text.words import single_spaced
from memgpt_jax.data.tokenizers.base import Tokenizer

DRAWS_SEED = 0
"""Seed of the other turns among which a reply is ranked."""


@dataclass(frozen=True, kw_only=True)
class RepliesConfig(CutTextsConfig):
    """Choose the next turn of a dialogue among others, by the products of the vectors of turns and history.

    A record is a dialogue. Every turn of `reply_speaker` that another precedes is a reply, and its history is all turns
    before it, one a line. A training batch holds histories in rows 0, 2, ... and after each its reply; equal replies of
    a batch count as right for each other's histories. In evaluation, a reply is ranked among `candidates` turns.
    """

    objective: ClassVar[VectorsConfig] = VectorsConfig()

    text_column: str = "turns"
    """The column that holds the list of turns. A turn is a text, or an object with the fields `utterance_field` and
    `speaker_field`."""
    utterance_field: str = "utterance"
    """The field of a turn that holds its text."""
    speaker_field: str = "speaker"
    """The field of a turn that holds the name of its speaker; it is read only if `reply_speaker` is given."""
    reply_speaker: str | None = None
    """The speaker whose turns are replies, such as "SYSTEM"; default: those of every speaker."""
    max_length: int | None = 128
    truncation_side: TruncationSide = "left"  # the last turns of a history matter most
    candidates: int = 20
    """Turns among which a reply is ranked in evaluation: itself, and others drawn from the replies of the split. Drawn
    turns that equal it or one that is drawn before are left out."""

    @property
    def input_columns(self) -> tuple[str, ...]:
        """`text`: a text; `text_column` holds lists of turns."""
        return ("text",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.candidates >= 2, f"data.candidates must be at least 2, got {self.candidates}")


class Turn(NamedTuple):
    """One turn as it stands in a file."""

    where: str
    """File, line and number, for messages."""
    speaker: str | None
    """None without `reply_speaker`."""
    text: str
    """The words, separated by single spaces; it may be empty."""


class Reply(NamedTuple):
    """One turn and what was said before."""

    dialogue: int
    """The index of its dialogue."""
    history: str
    """The turns before it, one a line."""
    text: str


class RepliesTask(VectorsTask[RepliesConfig]):
    """The replies of the dialogues of one split."""

    evaluation = "replies"

    def __init__(self, config: RepliesConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if a turn has no text or speaker, a reply is empty, or there is none."""
        super().__init__(config, split, tokenizer)
        dialogues = [_turns(config, record) for record in read_split(config, split)]
        self.replies = [reply for index, turns in enumerate(dialogues) for reply in _replies(config, index, turns)]
        """The replies in the order of the file."""
        name, known = config.reply_speaker, {str(turn.speaker) for turns in dialogues for turn in turns}
        found = f" and is of data.reply_speaker={name!r}; the speakers are {', '.join(sorted(known))}" if name else ""
        check(bool(self.replies), f"split {split!r} has no reply: no turn follows another{found}")
        self.content = digest(*self.replies)
        self.texts = [*dict.fromkeys(reply.text for reply in self.replies)]
        """The different texts of replies, in the order in which they first occur."""
        places = {text: place for place, text in enumerate(self.texts)}
        self.answers = np.array([places[reply.text] for reply in self.replies])
        """[replies] the index of the text of each reply in `texts`."""

    @classmethod
    def training_texts(cls, config: RepliesConfig) -> list[str]:
        """The turns."""
        return [turn.text for record in read_split(config, "train") for turn in _turns(config, record)]

    @property
    def num_pairs(self) -> int:
        """The number of replies."""
        return len(self.replies)

    def pair(self, index: int, length: int) -> RowPair:
        """A history and its reply; the number is that of the text of the reply."""
        reply = self.replies[index]
        ids = (
            cut(self.tokenizer, self.ids(text), length, self.config.truncation_side)
            for text in (reply.history, reply.text)
        )
        return RowPair(1 + int(self.answers[index]), *ids)

    def choices(self) -> np.ndarray:
        """[replies, candidates] int64: indices in `texts`, that of the reply first, and those of drawn replies."""
        shape = len(self.replies), self.config.candidates - 1
        draws = np.random.default_rng(DRAWS_SEED).integers(len(self.replies), size=shape)
        return np.concatenate([self.answers[:, None], self.answers[draws]], axis=1)


def _turns(config: RepliesConfig, record: Record) -> list[Turn]:
    """The turns of a dialogue."""
    found = []
    for number, turn in enumerate(field_of(record.values, config.text_column, list, record.where), start=1):
        where = f"{record.where}, turn {number}"
        speaker = None if config.reply_speaker is None else field_of(turn, config.speaker_field, str, where)
        text = turn if isinstance(turn, str) else field_of(turn, config.utterance_field, str, where)
        found.append(Turn(where, speaker, single_spaced(text)))
    return found


def _replies(config: RepliesConfig, dialogue: int, turns: Sequence[Turn]) -> Iterator[Reply]:
    """The replies of a dialogue."""
    for place, turn in enumerate(turns):
        if place > 0 and turn.speaker == config.reply_speaker:
            check(bool(turn.text), f"{turn.where}: the reply is empty")
            yield Reply(dialogue, "\n".join(earlier.text for earlier in turns[:place]), turn.text)
