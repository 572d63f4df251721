"""Batches of the caller, which replace the batches of `config.data`."""

import json
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from memgpt_jax import data
from memgpt_jax.config.checks import check
from memgpt_jax.config.experiment import ExperimentConfig


@runtime_checkable
class Batches(Protocol):
    """An endless iterator of batches [B, ...] with a position that can be saved."""

    def __next__(self) -> data.Batch:
        """The next batch. All batches have the same names, shapes and dtypes."""
        ...

    def get_state(self) -> Any:
        """The position as a JSON value: the batches that follow depend on nothing else."""
        ...

    def set_state(self, state: Any) -> None:
        """Go to a position. Raises `ValueError` if it belongs to other data."""
        ...


def check_batches(config: ExperimentConfig, batches: Batches) -> data.Batch:
    """Check the first batch and that the position can be saved and restored; afterwards, the position is as before.

    Returns:
        The first batch.

    Raises:
        ValueError: `batches` is not a `Batches`, an array is missing, has another number of rows or another shape than
            its targets, or the batch after `set_state` differs from the batch after `get_state`.
    """
    check(
        isinstance(batches, Batches),
        f"batches must have __next__, get_state and set_state, got {type(batches).__name__}",
    )
    state = batches.get_state()
    try:
        saved = json.loads(json.dumps(state))
    except (TypeError, ValueError) as error:
        raise ValueError(f"batches.get_state() must return a JSON value: {error}") from None
    first = next(batches)
    check(isinstance(first, data.Batch), f"next(batches) must be a memgpt_jax.data.Batch, got {type(first).__name__}")
    rows = config.training.batch_size
    for name in ("tokens", "reset"):
        check(name in first.inputs, f"a batch needs inputs[{name!r}]; it has {sorted(first.inputs)}")
    for part, arrays in first._asdict().items():
        for name, array in arrays.items():
            check(
                np.ndim(array) >= 1 and len(array) == rows,
                f"batch.{part}[{name!r}] must have training.batch_size={rows} rows, got shape {np.shape(array)}",
            )
    for head, targets in first.targets.items():
        weights = first.weights.get(head)
        shape = () if weights is None else np.shape(weights)
        wanted = np.shape(targets)[:2]  # one weight for all labels [C] of a target
        check(shape == wanted, f"weights[{head!r}] must have shape {wanted}, got {shape}")
    batches.set_state(saved)
    again = next(batches)
    same = jax.tree.structure(again) == jax.tree.structure(first) and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(again), jax.tree.leaves(first), strict=True)
    )
    check(same, "batches.set_state(state) must lead to the batch that followed get_state(), but the arrays differ")
    batches.set_state(saved)
    return first
