"""Rows of whole documents: endless, shuffled in every epoch, resumable. Grain is imported on first use."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from memgpt_jax.data.batch import Batch
from memgpt_jax.data.examples.order import shuffled
from memgpt_jax.data.streams import divided_streams, in_this_thread, seeded_batches

SAMPLES = 2
"""The stream of the seeds of `sampled_rows`."""

Arrays = dict[str, np.ndarray]


def packed_rows(
    row: Callable[[int], Arrays],
    number: int,
    seed: int,
    rows: int,
    length: int,
    *,
    head: str = "labels",
    augmented: Callable[[int, np.random.Generator], Arrays] | None = None,
) -> Any:
    """Endless batches of documents packed into rows, a Grain `IterDataset`.

    Documents are put into the first of B rows with room for them; when none has room, the rows are a batch. The padding
    at the end of a row is a document of its own, of id 0, without targets.

    Args:
        row: the arrays of a document by its index: `tokens` [n], `targets` [n] or [n, C] and `weights` [n], n <= L, and
            further inputs [n] or [n, F] of the model by name.
        number: of documents.
        seed: of the order of the documents; each epoch has another order.
        rows: batch rows B.
        length: tokens L of a row.
        head: name of the targets in the batch.
        augmented: in place of `row`, the arrays of a document by its index and a generator, which is determined by
            the seed, the epoch and the document; default: no random changes.
    """
    import grain

    indices = shuffled(np.arange(number), seed)
    documents = indices.map(row) if augmented is None else indices.random_map(augmented)
    packed = grain.experimental.FirstFitPackIterDataset(
        in_this_thread(documents),
        length_struct=dict.fromkeys(row(0), length),
        num_packing_bins=rows,
        shuffle_bins=False,
    )
    return packed.batch(rows).map(lambda arrays: _as_batch(arrays, head))


def streamed_rows(row: Callable[[int], Arrays], number: int, seed: int, rows: int, length: int) -> Any:
    """Endless batches of streams of documents of any length, a Grain `IterDataset`, for the head `tokens`.

    Each of B rows is a stream that continues from batch to batch, as in `divided_streams`, and shuffles its documents
    in every epoch.

    Args:
        row: `tokens`, `targets` and `weights` [n] of a document by its index.
        number: of documents.
        seed: of the order of the documents.
        rows: batch rows B.
        length: tokens L of a row.
    """

    def begun(index: int) -> Arrays:
        arrays = row(index)
        return arrays | {"reset": np.arange(len(arrays["tokens"])) == 0}

    def documents(own: range, own_seed: int) -> Any:
        return shuffled(np.array(own), own_seed).map(begun)

    def stack(parts: Sequence[Arrays]) -> Batch:
        tokens, reset, targets, weights = (
            np.stack([part[name] for part in parts]) for name in ("tokens", "reset", "targets", "weights")
        )
        return Batch({"tokens": tokens, "reset": reset}, {"tokens": targets}, {"tokens": weights}, {})

    return divided_streams(documents, number, seed, rows, length).map(stack)


def padded_rows(
    row: Callable[[int], Batch],
    number: int,
    seed: int,
    rows: int,
    *,
    augmented: Callable[[int, np.random.Generator], Batch] | None = None,
) -> Any:
    """Endless batches of documents with a row each, a Grain `IterDataset`.

    Args:
        row: the batch of one row with a document, by its index.
        number: of documents.
        seed: of the order of the documents; each epoch has another order.
        rows: batch rows B.
        augmented: as in `packed_rows`.
    """
    indices = shuffled(np.arange(number), seed)
    documents = indices.map(row) if augmented is None else indices.random_map(augmented)
    return in_this_thread(documents).batch(rows, batch_fn=_joined)


def _joined(batches: Sequence[Batch]) -> Batch:
    """One batch of the rows of several."""
    parts = [
        {name: np.concatenate([batch[part][name] for batch in batches]) for name in batches[0][part]}
        for part in range(len(Batch._fields))
    ]
    return Batch(*parts)


def sampled_rows(
    row: Callable[[int], Arrays],
    number: int,
    seed: int,
    rows: int,
    length: int,
    *,
    mean: int,
    head: str = "labels",
    augmented: Callable[[int, np.random.Generator], Arrays] | None = None,
) -> Any:
    """Endless batches of documents drawn at random (Poisson sampling), one in each row, a Grain `IterDataset`.

    Each document is in a batch with the probability mean / number, independently of the others and of other batches. If
    there are more than B, B of them are chosen at random; rows that are left are padding.

    Args:
        row, number, seed, rows, length, head, augmented: as in `packed_rows`.
        mean: of the number of documents of a batch, before those above B are left out.
    """

    def draw(rng: np.random.Generator) -> Batch:
        drawn = rng.binomial(number, min(1.0, mean / number))
        chosen = rng.choice(number, min(drawn, rows), replace=False)
        arrays = {name: np.zeros((rows, length, *array.shape[1:]), array.dtype) for name, array in row(0).items()}
        valid, reset = np.zeros((rows, length), bool), np.zeros((rows, length), bool)
        for place, index in enumerate(chosen):
            found = row(int(index)) if augmented is None else augmented(int(index), rng)
            for name, values in found.items():
                arrays[name][place, : len(values)] = values
                valid[place, : len(values)] = True
        reset[:, 0] = True
        targets, weights = arrays.pop("targets"), arrays.pop("weights")
        return Batch(arrays | {"reset": reset, "valid": valid}, {head: targets}, {head: weights}, {})

    return seeded_batches(draw, (SAMPLES, seed))


def _as_input(array: np.ndarray) -> np.ndarray:
    """Ids as int32, features as float32."""
    return array.astype(np.int32 if np.issubdtype(array.dtype, np.integer) else np.float32)


def _as_batch(arrays: dict[str, np.ndarray], head: str) -> Batch:
    inputs = {
        name: array
        for name, array in arrays.items()
        if name not in ("targets", "weights") and not name.endswith(("_segment_ids", "_positions"))
    }
    document = arrays["tokens_segment_ids"]
    begins = np.diff(document, axis=1, prepend=-1) != 0
    return Batch(
        inputs={name: _as_input(array) for name, array in inputs.items()} | {"reset": begins},
        targets={head: arrays["targets"]},
        weights={head: arrays["weights"].astype(np.float32)},
        info={},
    )
