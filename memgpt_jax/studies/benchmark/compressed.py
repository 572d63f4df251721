"""A run whose memories are compressed while it reads documents: bytes of memory, and bits per byte of what follows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memgpt_jax import data, models
from memgpt_jax.checkpoint import load_run
from memgpt_jax.config.checks import check, instance_of, whole
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import EvaluationConfig
from memgpt_jax.config.memory import Compression, KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.progress_bar import track
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.row_losses import row_losses
from memgpt_jax.generation.questions import read_documents
from memgpt_jax.models.memory_compression import compress_memory
from memgpt_jax.ops.trees import tree_bytes


def compressed_rows(
    workdir: Path, sizes: Sequence[int], ways: Sequence[Compression], read: int, scored: int, documents: int
) -> list[dict[str, Any]]:
    """A row for the whole memory, and one for each number of entries and way to compress it.

    Args:
        workdir: a run on text.
        sizes: entries per layer that stay.
        ways: values of `by` of `compress_memory`.
        read: tokens of a document that are read before the memories are compressed.
        scored: tokens after them, whose bits per byte are measured.
        documents: maximum number of documents: the first ones of the validation split that are long enough.

    Raises:
        ValueError: no document is long enough, or as in `compress_memory`.
    """
    for name, value in (("read", read), ("scored", scored), ("documents", documents)):
        whole(name, value, 1)
    run = load_run(workdir)
    config, tokenizer = instance_of(run.config.model, ModelConfig, "the model of the run"), run.tokenizer
    instance_of(config.memory, KVMemoryConfig, "the memory of the run")
    assert tokenizer is not None
    model = models.from_params(config, run.params)
    corpus = data.documents(instance_of(run.config.data, TextConfig, "data"), "valid", tokenizer)
    long = [index for index in range(len(corpus)) if len(corpus[index]) >= read + scored][:documents]
    check(bool(long), f"no document of the validation split has {read + scored:,} tokens")
    forms = [(None, None), *((size, by) for size in sizes for by in ways)]
    nats, entries, memory_bytes, num_bytes = np.zeros(len(forms)), [0] * len(forms), [0] * len(forms), 0
    for index in track(long, "documents"):
        ids = np.concatenate([[tokenizer.start_id], corpus[index]])[: read + scored + 1].astype(np.int32)
        row = {"tokens": ids[read:-1], "targets": ids[read + 1 :], "weights": np.ones(scored, np.float32)}
        num_bytes += int(tokenizer.token_bytes[row["targets"]].sum())
        before = read_documents(config, run.params, [ids[:read]])
        for place, (size, by) in enumerate(forms):
            small, state = model, before
            if size is not None and by is not None:
                small, state = compress_memory(model, before, size, by)
            settings = EvaluationConfig(batch_size=1, chunk_length=scored)
            (losses,) = row_losses(small.config, run.params, settings, [row], state=state)
            nats[place] += losses.sum(dtype=np.float64)
            memories = [layer.stream.memory for layer in state.layers if layer.stream]
            memory_bytes[place], entries[place] = tree_bytes(memories), memories[0].entries.valid.shape[1]
    found = [metric("bits_per_byte", nats=float(each), bytes=num_bytes) for each in nats]
    return [
        {
            "entries": number,
            "by": by or "all",
            "kB": size_of / 1e3,
            "share of bytes": size_of / memory_bytes[0],
            "bits per byte": bits,
            "worse by, %": 100 * (bits / found[0] - 1),
        }
        for (_, by), number, size_of, bits in zip(forms, entries, memory_bytes, found, strict=True)
    ]
