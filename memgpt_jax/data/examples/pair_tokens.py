"""Pairs of a source and a text as token ids, for a decoder or for the two stacks of an encoder-decoder.

A source is a text or, for an encoder, raw features [s, F]: the tokens of the latter all have the id 0.
"""

from collections.abc import Sequence

import numpy as np

from memgpt_jax.data.batch import Batch
from memgpt_jax.data.tokenizers.base import Tokenizer

PLACE = "{source}"
"""The place of the source in a prompt."""


class PairTokens:
    """Sources and targets as token ids."""

    def __init__(self, tokenizer: Tokenizer, template: str, source_length: int | None = None, *, start: bool = True):
        """Args: template: the prompt, with PLACE once. source_length: tokens of an encoder; None: for a decoder.
        start: a decoder reads `start_id` before the prompt."""
        before, after = template.split(PLACE)
        self.tokenizer, self.source_length = tokenizer, source_length
        self.before, self.after = (np.array(tokenizer.encode(part), np.int32) for part in (before, after.rstrip(" ")))
        self.start = [tokenizer.start_id] if start and source_length is None else []
        self.spaces = after[len(after.rstrip(" ")) :]
        self.end_id = tokenizer.stop_ids[0] if tokenizer.stop_ids else tokenizer.start_id
        """The id after each target: the first of the tokenizer's `stop_ids`, else its `start_id`."""

    def source(self, text: str | np.ndarray, room: int | None = None) -> np.ndarray:
        """What is read before a target, int32: for a decoder `start_id`, if any, and the prompt, for an encoder the
        prompt and the end, at most `source_length` ids. Features are returned as they are.

        Args:
            text: the source.
            room: cut the source so that there are at most so many ids, unless the prompt alone has more.
        """
        if isinstance(text, np.ndarray):
            return text
        room = self.source_length if self.source_length is not None else room
        start, end = self.start, [] if self.source_length is None else [self.end_id]
        ids = np.array(self.tokenizer.encode(text), np.int32)
        if room is not None:
            ids = ids[: max(0, room - len(start) - len(self.before) - len(self.after) - len(end))]
        found = np.concatenate([start, self.before, ids, self.after, end]).astype(np.int32)
        return found if self.source_length is None else found[: self.source_length]

    def target(self, text: str) -> np.ndarray:
        """The ids of a target and the end, int32."""
        return np.array([*self.tokenizer.encode(self.spaces + text), self.end_id], np.int32)

    def row(self, source: str | np.ndarray, target: str, length: int | None = None) -> dict[str, np.ndarray]:
        """The arrays of one pair: `tokens`, `targets` and `weights` [n]; for an encoder `source` [s] or [s, F] as well.

        Args:
            source, target: the texts; for an encoder, the source may be features [s, F].
            length: cut the source, then the target, so that n <= length; default: cut nothing.
        """
        answer = self.target(target)
        if self.source_length is not None:
            row = {"tokens": np.concatenate([[self.tokenizer.start_id], answer[:-1]]).astype(np.int32)}
            row |= {"targets": answer, "weights": np.ones(len(answer), np.float32)}
            return {name: array[:length] for name, array in row.items()} | {"source": self.source(source)}
        prompt = self.source(source, None if length is None else length + 1 - len(answer))
        ids, weights = np.concatenate([prompt, answer]), np.ones(len(prompt) + len(answer) - 1, np.float32)
        weights[: max(0, len(prompt) - 1)] = 0  # without a prompt, the first id of the target is not predicted
        return {"tokens": ids[:-1][:length], "targets": ids[1:][:length], "weights": weights[:length]}

    def text(self, ids: np.ndarray) -> str:
        """The text of a generated target, without the end and without spaces around it."""
        ends = {self.end_id, self.tokenizer.start_id, *self.tokenizer.stop_ids}
        return self.tokenizer.decode([int(token) for token in ids if int(token) not in ends]).strip()


def source_inputs(sources: Sequence[np.ndarray], rows: int, length: int) -> dict[str, np.ndarray]:
    """The inputs of an encoder-decoder that hold its sources [B, S]: see `source_shapes`.

    Args:
        sources: ids [s] or features [s, F] of at most B sources of at most S tokens.
        rows: B; rows beyond the sources have a source of one token, of id 0.
        length: S.
    """
    size = sources[0].shape[1] if sources[0].ndim == 2 else None
    name = "source" if size is None else "source_features"
    arrays = {key: np.zeros(*item) for key, item in source_shapes(rows, length, size).items()}
    sizes = np.ones(rows, int)
    for row, source in enumerate(sources):
        arrays[name][row, : len(source)], sizes[row] = source, len(source)
    arrays["source_reset"][:, 0] = True
    return arrays | {"source_valid": np.arange(length)[None] < sizes[:, None]}


def source_shapes(rows: int, length: int, size: int | None = None) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shape and type of the arrays of sources: `source`, `source_reset` and `source_valid` [B, S].

    With features there is `source_features` [B, S, F] as well. Args: size: the number F of features; None: none.
    """
    shape = (rows, length)
    found = {"source": (shape, np.int32), "source_reset": (shape, bool), "source_valid": (shape, bool)}
    return found if size is None else found | {"source_features": ((*shape, size), np.float32)}


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
