"""Rows of running text, and datasets whose batch i is seeded by i. Grain is imported on first use."""

from collections.abc import Callable
from typing import Any

import numpy as np

from memgpt_jax.data.batch import Batch
from memgpt_jax.data.corpora.text import TokenizedText
from memgpt_jax.data.tokenizers.base import Tokenizer


def token_streams(text: TokenizedText, rows: int, length: int, seed: int, tokenizer: Tokenizer) -> Any:
    """Endless batches of running text, a Grain `IterDataset`; the targets of the head `tokens` are the next tokens.

    Each row is one stream of whole documents without padding, continued from batch to batch. The documents are divided
    among the rows by their numbers, and each row shuffles its own in every epoch. With fewer documents than rows, each
    row reads all. Rows with shorter documents repeat theirs sooner: documents are not all read equally often.
    """
    import grain

    def documents(own: range, own_seed: int) -> Any:
        indices = grain.MapDataset.range(own.start, own.stop, own.step).seed(own_seed).shuffle().repeat()
        return indices.map(lambda document: _inputs_and_targets(text, document))

    def stack(rows: Any) -> Batch:
        tokens = np.stack([row["tokens"] for row in rows]).astype(np.int32)
        targets = np.stack([row["targets"] for row in rows]).astype(np.int32)
        return Batch(
            inputs={"tokens": tokens, "reset": tokens == tokenizer.start_id},
            targets={"tokens": targets},
            weights={"tokens": np.ones(tokens.shape, np.float32)},
            info={"target_bytes": tokenizer.token_bytes[targets] * np.int32(tokenizer.lossless)},
        )

    return divided_streams(documents, len(text), seed, rows, length).map(stack)


def divided_streams(documents: Callable[[range, int], Any], number: int, seed: int, rows: int, length: int) -> Any:
    """Endless tuples of the arrays of B rows, each a stream of documents without padding, a Grain `IterDataset`.

    The documents are divided among the rows. With fewer documents than rows, each row has all.

    Args:
        documents: an endless Grain `MapDataset` of the arrays [n] of some documents by name, from the indices of the
            documents and the seed of their order.
        number: of documents.
        seed: from which those of the rows follow.
        rows: B.
        length: tokens of a row.
    """
    import grain

    def stream(place: int) -> Any:
        own = range(place, number, rows) if number >= rows else range(number)
        items = documents(own, np.random.SeedSequence((seed, place)).generate_state(1).item())
        lengths = dict.fromkeys(items[0], length)
        return grain.experimental.ConcatThenSplitIterDataset(in_this_thread(items), length_struct=lengths)

    return grain.experimental.ZipIterDataset([stream(place) for place in range(rows)])


def seeded_batches(make: Callable[[np.random.Generator], Batch], seed: tuple[int, ...]) -> Any:
    """Endless batches, a Grain `IterDataset`: `make` gets for batch i a generator with the seed `(*seed, i)`."""
    import grain

    return in_this_thread(grain.MapDataset.range(2**62).map(lambda step: make(np.random.default_rng((*seed, step)))))


def _inputs_and_targets(text: TokenizedText, document: int) -> dict[str, np.ndarray]:
    """The tokens of a document, starting with `start_id`, and their next tokens; the last target is a `start_id`."""
    start, stop = text.offsets[document], text.offsets[document + 1]
    return {"tokens": text.flat[start:stop], "targets": text.flat[start + 1 : stop + 1]}


def in_this_thread(dataset: Any) -> Any:
    """A Grain `IterDataset` without prefetching threads: the data are in memory, or memory-mapped."""
    import grain

    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
