"""Pairs of texts of which a model finds one likelier: minimal pairs, and the pairs of tests for social bias."""

import difflib
import re
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.data import ObjectiveConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.examples.files import ExamplesConfig, read_split
from memgpt_jax.data.examples.records import Record
from memgpt_jax.data.examples.rows import packed_rows
from memgpt_jax.data.objectives.special_ids import special_ids
from memgpt_jax.data.tasks.base import digest
from memgpt_jax.data.tasks.examples import ExamplesTask
from memgpt_jax.data.tasks.labelled_text import document_ids
from memgpt_jax.data.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class LikelihoodConfig(ObjectiveConfig):
    """Predict all tokens of a text. Needs a decoder; an encoder with the head `masked` can only be evaluated."""

    def check_model(self, model: Any, length: int) -> None:
        """Raise `ValueError` if the model is neither a decoder nor an encoder with the head `masked`."""
        check(
            isinstance(model, ModelConfig | EncoderConfig),
            f"the likelihood of a text needs a decoder or an encoder, not a {type(model).__name__}",
        )
        check(
            isinstance(model, ModelConfig) or "masked" in model.heads,
            f"the likelihood of a text needs an encoder with the head 'masked'; this one has the heads {model.heads}",
        )


@dataclass(frozen=True, kw_only=True)
class PreferencesConfig(ExamplesConfig):
    """Which of two texts is likelier, ln p(first) or ln p(second), from a file with two texts in each record.

    In CrowS-Pairs and WinoBias the first text follows a stereotype, and a model without this bias prefers it in half of
    the pairs; in minimal pairs of grammar the first text is the correct one. Training, of a decoder alone, predicts the
    tokens of the first text.
    """

    objective: ClassVar[LikelihoodConfig] = LikelihoodConfig()

    first_column: str = "first"
    """The column of the first text."""
    second_column: str = "second"
    """The column of the second text."""
    group_column: str | None = None
    """The column of a name by which the pairs are grouped in the results; default: no groups."""
    remove: str = ""
    """A regular expression: what it matches is removed from the texts, such as line numbers and brackets."""
    shared_only: bool = False
    """Score only the tokens that both texts share, given those in which they differ: the metric of CrowS-Pairs for
    masked language models. Default: all tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self.first_column != self.second_column,
            f"data.first_column and data.second_column must differ, both are {self.first_column!r}",
        )
        try:
            re.compile(self.remove)
        except re.error as error:
            raise ValueError(f"data.remove={self.remove!r} is not a regular expression: {error}") from None

    @property
    def parallel_columns(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The two columns."""
        return self.first_column, self.second_column


class Preference(NamedTuple):
    """One pair of texts."""

    first: str
    second: str
    group: str
    """Empty without groups."""
    where: str
    """File and line."""

    @property
    def texts(self) -> tuple[str, str]:
        """Both texts."""
        return self.first, self.second


class PreferencesTask(ExamplesTask[PreferencesConfig]):
    """The pairs of one split."""

    evaluation = "preferences"

    def __init__(self, config: PreferencesConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` with file and line if a record lacks a text or its texts are equal."""
        super().__init__(config, split, tokenizer)
        self.examples = [_preference(self.config, record) for record in read_split(self.config, split)]
        self.content = digest(*((*example.texts, example.group) for example in self.examples))

    @classmethod
    def training_texts(cls, config: PreferencesConfig) -> list[str]:
        """Both texts of each pair."""
        return [text for record in read_split(config, "train") for text in _preference(config, record).texts]

    @classmethod
    def shapes(cls, config: PreferencesConfig, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`."""
        return super().shapes(config, rows, length)._replace(info={})

    def batches(self, seed: int, rows: int, length: int) -> Any:
        """Endless batches, a Grain `IterDataset`: every first text once in each epoch, in random order, in rows."""
        return packed_rows(
            lambda index: self.row(self.examples[index].first, length),
            len(self.examples),
            seed,
            rows,
            length,
            head="tokens",
        )

    def training_tokens(self, length: int) -> int:
        return sum(len(self.row(example.first, length)["tokens"]) for example in self.examples)

    def row(self, text: str, length: int | None = None, scored: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """`tokens`, `targets` and `weights` [n] of a text of n tokens, cut to `length`: `start_id` comes first.

        Args:
            text: the text.
            length: tokens to which it is cut; default: it is not.
            scored: bool [n]: which tokens have the weight 1; default: all.
        """
        ids = np.array([self.tokenizer.start_id, *self.tokenizer.encode(text)], np.int32)
        weights = np.ones(len(ids) - 1, np.float32) if scored is None else scored.astype(np.float32)
        row = {"tokens": ids[:-1], "targets": ids[1:], "weights": weights}
        return {name: array[:length] for name, array in row.items()}

    def masked_rows(self, text: str, scored: np.ndarray) -> list[dict[str, np.ndarray]]:
        """For each scored token of a text of n tokens, in order, the arrays of the text with this token masked.

        `tokens`, `targets` and `weights` are [m]: `start_id`, the text, and the id of [SEP] if the tokenizer has one.

        Args:
            text: the text.
            scored: bool [n].
        """
        ids, mask = document_ids(self.tokenizer, text), special_ids(self.tokenizer).mask
        here = 1 + np.flatnonzero(scored)[:, None] == np.arange(len(ids))[None]
        return [
            {"tokens": np.where(place, mask, ids), "targets": ids, "weights": place.astype(np.float32)}
            for place in here
        ]

    def scored(self, example: Preference) -> tuple[np.ndarray, np.ndarray]:
        """Which tokens of the two texts are scored, bool [n] each: all, or with `shared_only` those that both share.

        Shared tokens are those of `difflib.SequenceMatcher`, as in the published code of CrowS-Pairs. Raises
        `ValueError` if none is shared.
        """
        first, second = (self.tokenizer.encode(text) for text in example.texts)
        if not self.config.shared_only:
            return np.ones(len(first), bool), np.ones(len(second), bool)
        blocks = difflib.SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
        places = np.array([(a + i, b + i) for a, b, size in blocks for i in range(size)], int).reshape(-1, 2)
        check(len(places) > 0, f"{example.where}: data.shared_only: the two texts share no token")
        return np.isin(np.arange(len(first)), places[:, 0]), np.isin(np.arange(len(second)), places[:, 1])


def _preference(config: PreferencesConfig, record: Record) -> Preference:
    first, second = (
        re.sub(config.remove, "", record.text(name)).strip() for name in (config.first_column, config.second_column)
    )
    check(bool(first) and bool(second), f"{record.where}: a text is empty")
    check(first != second, f"{record.where}: the two texts are equal: {first!r}")
    group = record.label(config.group_column) if config.group_column else ""
    return Preference(first, second, group, record.where)
