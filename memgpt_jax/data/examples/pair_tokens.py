"""Pairs of texts as token ids, for a decoder or for the two stacks of an encoder-decoder."""

from collections.abc import Sequence

import numpy as np

from memgpt_jax.data.batch import Batch
from memgpt_jax.data.tokenizers.base import Tokenizer

PLACE = "{source}"
"""The place of the source in a prompt."""


class PairTokens:
    """Sources and targets as token ids."""

    def __init__(self, tokenizer: Tokenizer, template: str, source_length: int | None = None):
        """Args: template: the prompt, with PLACE once. source_length: tokens of an encoder; None: for a decoder."""
        before, after = template.split(PLACE)
        self.tokenizer, self.source_length = tokenizer, source_length
        self.before, self.after = (np.array(tokenizer.encode(part), np.int32) for part in (before, after.rstrip(" ")))
        self.spaces = after[len(after.rstrip(" ")) :]
        self.end_id = tokenizer.stop_ids[0] if tokenizer.stop_ids else tokenizer.start_id
        """The id after each target: the first of the tokenizer's `stop_ids`, else its `start_id`."""

    def source(self, text: str, room: int | None = None) -> np.ndarray:
        """What is read before a target, int32: for a decoder `start_id` and the prompt, for an encoder the prompt and
        the end, at most `source_length` ids.

        Args:
            text: the source.
            room: cut the source so that there are at most so many ids, unless the prompt alone has more.
        """
        room = self.source_length if self.source_length is not None else room
        start, end = ([], [self.end_id]) if self.source_length is not None else ([self.tokenizer.start_id], [])
        ids = np.array(self.tokenizer.encode(text), np.int32)
        if room is not None:
            ids = ids[: max(0, room - len(start) - len(self.before) - len(self.after) - len(end))]
        found = np.concatenate([start, self.before, ids, self.after, end]).astype(np.int32)
        return found if self.source_length is None else found[: self.source_length]

    def target(self, text: str) -> np.ndarray:
        """The ids of a target and the end, int32."""
        return np.array([*self.tokenizer.encode(self.spaces + text), self.end_id], np.int32)

    def row(self, source: str, target: str, length: int | None = None) -> dict[str, np.ndarray]:
        """The arrays of one pair of texts: `tokens`, `targets` and `weights` [n]; for an encoder `source` [s] as well.

        Args:
            source, target: the texts.
            length: cut the source, then the target, so that n <= length; default: cut nothing.
        """
        answer = self.target(target)
        if self.source_length is not None:
            row = {"tokens": np.concatenate([[self.tokenizer.start_id], answer[:-1]]).astype(np.int32)}
            row |= {"targets": answer, "weights": np.ones(len(answer), np.float32)}
            return {name: array[:length] for name, array in row.items()} | {"source": self.source(source)}
        prompt = self.source(source, None if length is None else length + 1 - len(answer))
        ids, weights = np.concatenate([prompt, answer]), np.ones(len(prompt) + len(answer) - 1, np.float32)
        weights[: len(prompt) - 1] = 0
        return {"tokens": ids[:-1][:length], "targets": ids[1:][:length], "weights": weights[:length]}

    def text(self, ids: np.ndarray) -> str:
        """The text of a generated target, without the end and without spaces around it."""
        ends = {self.end_id, self.tokenizer.start_id, *self.tokenizer.stop_ids}
        return self.tokenizer.decode([int(token) for token in ids if int(token) not in ends]).strip()


def source_inputs(sources: Sequence[np.ndarray], rows: int, length: int) -> dict[str, np.ndarray]:
    """The inputs of an encoder-decoder that hold its sources [B, S]: `source`, `source_reset` and `source_valid`.

    Args:
        sources: ids of at most B sources of at most S tokens.
        rows: B; rows beyond the sources have a source of one token, of id 0.
        length: S.
    """
    source, sizes = np.zeros((rows, length), np.int32), np.ones(rows, int)
    for row, ids in enumerate(sources):
        source[row, : len(ids)], sizes[row] = ids, len(ids)
    reset = np.zeros(source.shape, bool)
    reset[:, 0] = True
    return {"source": source, "source_reset": reset, "source_valid": np.arange(length)[None] < sizes[:, None]}


def row_batch(row: dict[str, np.ndarray], length: int, source_length: int) -> Batch:
    """The batch of one pair for an encoder-decoder, padded on the right to `length` and `source_length` tokens."""
    arrays = {name: np.pad(row[name], (0, length - len(row[name])))[None] for name in ("tokens", "targets", "weights")}
    inputs = {"tokens": arrays["tokens"], "reset": np.arange(length)[None] == 0}
    return Batch(
        inputs=inputs | source_inputs([row["source"]], 1, source_length),
        targets={"tokens": arrays["targets"]},
        weights={"tokens": arrays["weights"]},
        info={},
    )
