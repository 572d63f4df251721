"""Training batches: endless, determined by the seed, resumable at every step."""

import ast
import dataclasses
from collections.abc import Iterator
from typing import Any

from memgpt_jax.config.data import DataConfig, TaskConfig, TextConfig
from memgpt_jax.config.experiment import TrainingConfig
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.corpora.text import documents, make_tokenizer
from memgpt_jax.data.objectives import make_objective
from memgpt_jax.data.tasks import TASKS, make_task
from memgpt_jax.data.tokenizers.base import Tokenizer

PATHS = ("path", "cache_dir", "train", "valid", "test", "vectors")
"""Fields of data configurations that name files or folders."""


SHOWN = 30
"""Characters before the first difference of two sources of data that a message shows."""


class BatchIterator(Iterator[Batch]):
    """Batches of a Grain iterator, with a state that JSON can hold."""

    def __init__(self, iterator: Any, source: str):
        """Args: iterator: a Grain iterator; source: description of its data, by which a saved position is checked."""
        self.iterator = iterator
        self.source = source

    def __next__(self) -> Batch:
        return next(self.iterator)

    def get_state(self) -> dict[str, str]:
        """The position in the data, which determines all later batches."""
        # As a Python literal, because Grain distinguishes tuples from lists and JSON does not.
        return {"source": self.source, "position": repr(self.iterator.get_state())}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue at a position; `ValueError` if it belongs to other data."""
        saved = state["source"]
        if saved != self.source:
            pairs = enumerate(zip(saved, self.source, strict=False))
            place = next((index for index, (old, new) in pairs if old != new), min(len(saved), len(self.source)))
            part = slice(max(0, place - SHOWN), place + 2 * SHOWN)
            before, now = saved[part], self.source[part]
            raise ValueError(
                "the saved data position belongs to other data: the files of the training split, the settings of the "
                f"data, the tokenizer, the seed or the batch shape have changed: {before!r} before, now {now!r}"
            )
        self.iterator.set_state(ast.literal_eval(state["position"]))


def train_batches(
    data_config: DataConfig, training_config: TrainingConfig, seed: int, tokenizer: Tokenizer | None = None
) -> BatchIterator:
    """Endless training batches of a task, each row one instance of the task, or of text (`text_batches`).

    Args:
        data_config: text or a task.
        training_config: `batch_size` B and `sequence_length` L.
        seed: at least 0; all randomness follows from it.
        tokenizer: of the text; default: the one of the config.

    Raises:
        ValueError: the corpus is not valid.
    """
    rows, length = training_config.batch_size, training_config.sequence_length
    if isinstance(data_config, TaskConfig):
        task, length = make_task(data_config, "train", tokenizer), data_config.row_length or length
        source = f"{without_paths(data_config)}{task.content}, {rows} rows of {length}, seed {seed}"
        return BatchIterator(iter(task.batches(seed, rows, length)), source)
    return text_batches(data_config, training_config, seed, tokenizer or make_tokenizer(data_config))


def text_batches(
    config: TextConfig, training: TrainingConfig, seed: int, tokenizer: Tokenizer, split: str = "train"
) -> BatchIterator:
    """Endless batches of one split of a text, made by the objective of the config.

    A document begins with `start_id`, where `reset` is True. The seed and the index of a batch determine its random
    draws. Raises `ValueError` if the corpus is not valid.
    """
    text = documents(config, split, tokenizer)
    rows, length = training.batch_size, training.sequence_length
    batches = make_objective(config.objective).batches(text, tokenizer, rows, length, seed)
    source = f"text {text.fingerprint}, {rows} rows of {length}, seed {seed}, {config.objective}"
    return BatchIterator(iter(batches), source)


def content_of(config: DataConfig, split: str, tokenizer: Tokenizer | None) -> str:
    """A digest of the examples or documents of a split, which does not depend on paths; "" for generated tasks.

    Raises `ValueError` if they cannot be read.
    """
    if isinstance(config, TaskConfig):
        return make_task(config, split, tokenizer).content
    return documents(config, split, tokenizer or make_tokenizer(config)).fingerprint


def without_paths(config: Any) -> Any:
    """The config without paths: a position in the data depends on the content of the files, not on their paths."""
    values = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    changes: dict[str, Any] = {name: "" for name in PATHS if values.get(name)}
    changes |= {name: without_paths(value) for name, value in values.items() if dataclasses.is_dataclass(value)}
    return dataclasses.replace(config, **changes)


def added_ids(config: DataConfig, tokenizer: Tokenizer) -> int:
    """Number of vocabulary ids after the tokenizer's: a task's answers, or an objective's special tokens."""
    if isinstance(config, TaskConfig):
        return config.num_ids
    return make_objective(config.objective).added_ids(tokenizer)


def tokenizer_of(config: DataConfig) -> Tokenizer | None:
    """The tokenizer that a data configuration names; None for tasks without text.

    Raises `ValueError` if it is not a tokenizer, or the text on which it is trained cannot be read.
    """
    if not isinstance(config, TaskConfig):
        return make_tokenizer(config)
    return None if config.text is None else TASKS.of(config).make_tokenizer(config)


def batch_shapes(data_config: DataConfig, training_config: TrainingConfig) -> Batch:
    """A batch of zeros with the shapes of `train_batches`; for a task, `info` may lack `group` and `answer`."""
    rows, length = training_config.batch_size, training_config.sequence_length
    if isinstance(data_config, TaskConfig):
        return TASKS.of(data_config).shapes(data_config, rows, data_config.row_length or length)
    return make_objective(data_config.objective).shapes(rows, length)
