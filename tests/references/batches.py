"""The arrays of a batch by one name each."""

import numpy as np

from memgpt_jax.data import Batch


def arrays_of(batch: Batch, head: str = "tokens") -> dict[str, np.ndarray]:
    """Inputs and info by their names, beside the `targets` and `weights` of one head."""
    return batch.inputs | batch.info | {"targets": batch.targets[head], "weights": batch.weights[head]}
