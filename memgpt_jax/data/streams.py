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
    among the rows, and each row shuffles its own in every epoch. With fewer documents than rows, each row reads all.
    """
    import grain

    def row(index: int) -> Any:
        documents = grain.MapDataset.range(len(text))
        if len(text) >= rows:
            documents = documents[index::rows]
        row_seed = np.random.SeedSequence((seed, index)).generate_state(1).item()
        pieces = documents.seed(row_seed).shuffle().repeat().map(lambda document: _inputs_and_targets(text, document))
        return grain.experimental.ConcatThenSplitIterDataset(
            in_this_thread(pieces), length_struct={"tokens": length, "targets": length}
        )

    def stack(rows) -> Batch:
        tokens = np.stack([row["tokens"] for row in rows]).astype(np.int32)
        targets = np.stack([row["targets"] for row in rows]).astype(np.int32)
        return Batch(
            inputs={"tokens": tokens, "reset": tokens == tokenizer.start_id},
            targets={"tokens": targets},
            weights={"tokens": np.ones(tokens.shape, np.float32)},
            info={"target_bytes": tokenizer.token_bytes[targets] * np.int32(tokenizer.lossless)},
        )

    return grain.experimental.ZipIterDataset([row(index) for index in range(rows)]).map(stack)


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
