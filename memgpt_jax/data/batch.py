"""The one type of batch that data, training and evaluation exchange."""

from typing import Any, NamedTuple

import numpy as np

Array = Any  # a NumPy array; inside a jitted step, a JAX array


class Batch(NamedTuple):
    """One batch of B rows; a pytree. Inside a training step, all arrays have a leading axis of accumulated batches.

    Language models, XLNet and encoder-decoders have the one head `tokens`; those of an encoder are its `heads`.
    """

    inputs: dict[str, Array]
    """Keywords of the model's call. Always: `tokens` [B, L] int32 and `reset` [B, L] bool, true where a document
    begins. Depending on the objective: `valid` [B, L] bool, false for padding on the right; `token_types` [B, L]
    int32; `features` [B, L, F] float32, raw features of tokens; `triples` [B, E, 3] int32, the memory of a `WalkHead`;
    `order` [B, L] int32, the rank of each token; `source` [B, S] int32 with `source_reset` and `source_valid`
    [B, S] bool."""
    targets: dict[str, Array]
    """Targets of each head: int32 [B, L], one label per token, or [B], one label per row; [B, L, C] for any number of
    labels, 0 or 1 of each; [B, L, 2] for spans; float32 for numbers."""
    weights: dict[str, Array]
    """Weights of the targets in the loss, by head: float32 [B, L], or [B] for labels of rows."""
    info: dict[str, Array]
    """Arrays that are not inputs of the model: `target_bytes` [B, L] int32, UTF-8 bytes of the target's text; `group`
    [B] int32, the row's index in `Task.groups`; `answer` [B, L] int32, equal for all targets of one answer of a row."""


def zeros(
    inputs: dict[str, tuple[tuple[int, ...], type]],
    targets: dict[str, tuple[int, ...]],
    info: dict[str, tuple[tuple[int, ...], type]] | None = None,
    *,
    target_type: type = np.int32,
) -> Batch:
    """A batch of zeros, broadcast from scalars, so that they take no memory.

    Args:
        inputs: shape and type of each input.
        targets: shape of each head's targets.
        info: shape and type of each array of `info`.
        target_type: of the targets.
    """

    def array(shape: tuple[int, ...], dtype: type) -> np.ndarray:
        return np.broadcast_to(np.zeros((), dtype), shape)

    return Batch(
        inputs={name: array(*item) for name, item in inputs.items()},
        targets={head: array(shape, target_type) for head, shape in targets.items()},
        weights={head: array(shape, np.float32) for head, shape in targets.items()},
        info={name: array(*item) for name, item in (info or {}).items()},
    )
