"""The training stream: endless batches, the same for the same seed, resumable at every step."""

import ast
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from memgpt_jax.config.data import DataConfig, TaskConfig, TextConfig
from memgpt_jax.config.experiment import TrainingConfig
from memgpt_jax.data.corpora.text import TokenizedText, documents, make_tokenizer
from memgpt_jax.data.objectives.masked import Windows, mask_tokens, sentence_pairs, special_ids
from memgpt_jax.data.objectives.permutation import draw_permutation
from memgpt_jax.data.objectives.span_corruption import SENTINELS, corrupt_rows, sentinel_ids, span_counts
from memgpt_jax.data.tasks import make_task
from memgpt_jax.data.tasks.base import Batch
from memgpt_jax.data.tokenizers.base import Tokenizer

TASK_STREAM, PAIR_STREAM, DRAW_STREAM = 1, 2, 3  # keep seeds apart: of tasks in training, of an objective's draws


class BatchIterator(Iterator[Batch]):
    """Batches of a Grain iterator, with a state that can go into JSON."""

    def __init__(self, iterator, source: str):
        """Args: iterator: of Grain. source: what its positions belong to."""
        self.iterator = iterator
        self.source = source

    def __next__(self) -> Batch:
        return next(self.iterator)

    def get_state(self) -> dict[str, str]:
        """The position of the stream: the batches that follow depend on nothing else."""
        # As Python's own notation, because Grain tells tuples from lists and JSON does not.
        return {"source": self.source, "position": repr(self.iterator.get_state())}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to a position. Raises `ValueError` where it is one of another stream."""
        if state["source"] != self.source:
            raise ValueError(
                f"the saved data position belongs to {state['source']}, but this is {self.source}: "
                "the corpus, the tokenizer, the seed or the batch shape has changed"
            )
        self.iterator.set_state(ast.literal_eval(state["position"]))


def train_batches(
    data_config: DataConfig, training_config: TrainingConfig, seed: int, tokenizer: Tokenizer | None = None
) -> BatchIterator:
    """Endless training batches; all arrays [B, L] where no other shape is given.

    `tokens` int32; `targets` int32, the next token of the row, or a task's answer that the row does not show; `reset`
    bool, true where a document begins, which it does with `start_id`; `weights` float32, 1 where the target is
    scored; `target_bytes` int32, UTF-8 bytes that the target stands for, 0 where the tokenizer is not lossless.

    Text: each row is one stream of whole documents, one after the other without padding, which goes on from batch to
    batch. Rows share out the documents of the training split, and each shuffles its own anew in each epoch (all of
    them, where there are fewer documents than rows).
    Tasks: each row of each batch is a task of its own.
    Other objectives: see `text_batches`.

    Args:
        data_config: text or a task.
        training_config: `batch_size` B and `sequence_length` L.
        seed: at least 0; all randomness follows from it.
        tokenizer: of the text; default: the one of the config.

    Raises:
        ValueError: the corpus is refused.
    """
    batch_size, length = training_config.batch_size, training_config.sequence_length
    if isinstance(data_config, TaskConfig):
        task, length = make_task(data_config, "train", tokenizer), data_config.row_length or length
        source = f"{_without_places(data_config)}{task.content}, {batch_size} rows of {length}, seed {seed}"
        batches = _by_step(lambda rng: task.batch(rng, batch_size, length), (TASK_STREAM, seed))
        return BatchIterator(iter(batches), source)
    return text_batches(data_config, training_config, seed, tokenizer or make_tokenizer(data_config))


def _without_places(config: DataConfig) -> DataConfig:
    """The config without paths: a position in the data depends on the content of the files, not on their place."""
    places = {name: "" for name in ("path", "cache_dir") if getattr(config, name, None)}
    if isinstance(config, TaskConfig) and config.text is not None:
        places["text"] = _without_places(config.text)
    return dataclasses.replace(config, **places)


def added_ids(config: DataConfig, tokenizer: Tokenizer) -> int:
    """The number of ids after those of the tokenizer: answers of a task, or special ids of an objective.

    Special ids that the tokenizer itself has are not counted.
    """
    if isinstance(config, TaskConfig):
        return config.num_ids
    if config.objective in ("causal", "permutation"):
        return 0
    if config.objective == "span_corruption":
        return max(0, 1 + int(sentinel_ids(tokenizer).max()) - tokenizer.vocab_size)
    return max(0, 1 + max(special_ids(tokenizer)) - tokenizer.vocab_size)


def batch_shapes(data_config: DataConfig, training_config: TrainingConfig) -> Batch:
    """The arrays of `train_batches`, but for those that the model does not get, as zeros that take no memory."""
    rows, length = training_config.batch_size, training_config.sequence_length
    objective, further = "causal", {}
    if isinstance(data_config, TaskConfig):
        length = data_config.row_length or length
    else:
        objective = data_config.objective
    if "next_sentence" in objective:
        further = {"token_types": ((rows, length), np.int32), "next_sentence": ((rows,), np.int32)}
    elif objective == "permutation":
        further = {"order": ((rows, length), np.int32)}
    elif objective == "span_corruption":
        hidden, spans = span_counts(length, data_config.mask_rate, data_config.span_length)
        source, length = (rows, length - hidden + spans), hidden + spans + 1
        further = {"source": (source, np.int32), "source_reset": (source, bool)}
    types = {"tokens": np.int32, "targets": np.int32, "reset": bool, "weights": np.float32, "target_bytes": np.int32}
    arrays = {name: ((rows, length), dtype) for name, dtype in types.items()} | further
    return {name: np.broadcast_to(np.zeros((), dtype), shape) for name, (shape, dtype) in arrays.items()}


def _by_step(make: Callable[[np.random.Generator], Batch], seed: tuple[int, ...]):
    """Batches whose generators are seeded with their numbers."""
    import grain

    return _in_this_thread(grain.MapDataset.range(2**62).map(lambda step: make(np.random.default_rng((*seed, step)))))


def text_batches(
    config: TextConfig, training: TrainingConfig, seed: int, tokenizer: Tokenizer, split: str = "train"
) -> BatchIterator:
    """`train_batches` for text, of any split, by the objective of the config.

    - `causal`: rows are streams of whole documents
    - `masked`: of such rows, `tokens` with some hidden (`mask_tokens`); `targets` what they were, in their own places;
      weights 1 where there is something to say
    - `next_sentence`: rows are pairs of their own (`sentence_pairs`), with further arrays `token_types` [B, L] and
      `next_sentence` [B], the label, whose weight is at position 0
    - `masked_next_sentence`: pairs with hidden tokens; all labels together weigh as much as all hidden tokens
    - `span_corruption`: such rows with spans hidden (`corrupt_rows`) are `source` [B, S], in which documents begin at
      `source_reset` [B, S]; `targets` [B, T] are the hidden spans between their sentinels, and `tokens` the targets one
      place later, behind a `start_id`
    - `permutation`: such rows with ranks `order` [B, L] (`draw_permutation`); `targets` are the tokens in their own
      places; weights 1 where one is predicted

    What is hidden, paired and permuted follows from the seed and the number of the batch. `target_bytes` are 0 but for
    `causal`: bits per byte are of text that is read in order.

    Raises `ValueError` where the corpus is refused, or there are more spans than sentinels.
    """
    text = documents(config, split, tokenizer)
    batch_size, length = training.batch_size, training.sequence_length
    source = f"text {text.fingerprint}, {batch_size} rows of {length}, seed {seed}"
    if config.objective == "causal":
        return BatchIterator(iter(_streams(text, batch_size, length, seed, tokenizer)), source)
    special = special_ids(tokenizer)
    ordinary = np.pad(tokenizer.token_bytes, (0, added_ids(config, tokenizer))) > 0
    if "next_sentence" in config.objective:
        windows = Windows(text, length - 3)
        batches = _by_step(lambda rng: _pairs(rng, windows, batch_size, special), (PAIR_STREAM, seed))
    else:
        batches = _streams(text, batch_size, length, seed, tokenizer)

    def hide(rng: np.random.Generator, batch: Batch) -> Batch:
        return _hidden(batch, *mask_tokens(rng, batch["tokens"], ordinary, special.mask, config.mask_rate))

    def corrupt(rng: np.random.Generator, batch: Batch) -> Batch:
        spans = {"rate": config.mask_rate, "mean_span": config.span_length}
        rows = corrupt_rows(batch["tokens"], batch["reset"], rng, sentinels=sentinel_ids(tokenizer), **spans)
        return _corrupted(*rows, tokenizer)

    def permute(rng: np.random.Generator, batch: Batch) -> Batch:
        order, predicted = draw_permutation(rng, np.ones(batch["tokens"].shape, bool))
        return _hidden(batch, batch["tokens"], predicted & ordinary[batch["tokens"]]) | {"order": order}

    if config.objective == "span_corruption":
        _, number = span_counts(length, config.mask_rate, config.span_length)
        if number >= SENTINELS:
            raise ValueError(
                f"training.sequence_length={length}: {number} hidden spans need {number + 1} sentinels, and there are "
                f"{SENTINELS}; take a smaller data.mask_rate or a larger data.span_length"
            )
        source = f"{source}, spans of {config.span_length}"
    if config.objective != "next_sentence":
        change = {"span_corruption": corrupt, "permutation": permute}.get(config.objective, hide)
        draw = lambda step: np.random.default_rng((DRAW_STREAM, seed, step))  # noqa: E731
        batches = batches.map_with_index(lambda step, batch: change(draw(step), batch))
        source = f"{source}, {config.mask_rate} hidden"
    return BatchIterator(iter(batches), f"{source}, {config.objective}")


def _pairs(rng: np.random.Generator, windows: Windows, batch_size: int, special) -> Batch:
    """A batch of pairs in which the labels are scored."""
    tokens, types, label = sentence_pairs(rng, windows, batch_size, special)
    first = np.zeros(tokens.shape, bool)
    first[:, 0] = True
    return {
        "tokens": tokens,
        "targets": tokens,
        "reset": first,
        "weights": first.astype(np.float32),
        "target_bytes": np.zeros(tokens.shape, np.int32),
        "token_types": types,
        "next_sentence": label,
    }


def _hidden(batch: Batch, seen: np.ndarray, chosen: np.ndarray) -> Batch:
    """The batch with chosen tokens, which are scored, beside the labels that it may have."""
    weights = chosen.astype(np.float32)
    if "next_sentence" in batch:
        weights[:, 0] = weights.sum() / len(weights)
    nothing = np.zeros(weights.shape, np.int32)
    return batch | {"tokens": seen, "targets": batch["tokens"], "weights": weights, "target_bytes": nothing}


def _corrupted(source: np.ndarray, source_reset: np.ndarray, targets: np.ndarray, tokenizer: Tokenizer) -> Batch:
    """A batch in which all targets are scored. Each row is a text of its own for the decoder."""
    first = np.zeros(targets.shape, bool)
    first[:, 0] = True
    return {
        "tokens": np.where(first, tokenizer.start_id, np.roll(targets, 1, axis=1)).astype(np.int32),
        "targets": targets,
        "reset": first,
        "weights": np.ones(targets.shape, np.float32),
        "target_bytes": np.zeros(targets.shape, np.int32),
        "source": source,
        "source_reset": source_reset,
    }


def _streams(text: TokenizedText, batch_size: int, length: int, seed: int, tokenizer: Tokenizer):
    import grain

    def row(index: int):
        share = grain.MapDataset.range(len(text))
        if len(text) >= batch_size:
            share = share[index::batch_size]
        row_seed = np.random.SeedSequence((seed, index)).generate_state(1).item()
        pieces = share.seed(row_seed).shuffle().repeat().map(lambda document: _inputs_and_targets(text, document))
        return grain.experimental.ConcatThenSplitIterDataset(
            _in_this_thread(pieces), length_struct={"tokens": length, "targets": length}
        )

    def stack(rows) -> Batch:
        tokens = np.stack([row["tokens"] for row in rows]).astype(np.int32)
        targets = np.stack([row["targets"] for row in rows]).astype(np.int32)
        return {
            "tokens": tokens,
            "targets": targets,
            "reset": tokens == tokenizer.start_id,
            "weights": np.ones(tokens.shape, np.float32),
            "target_bytes": tokenizer.token_bytes[targets] * np.int32(tokenizer.lossless),
        }

    return grain.experimental.ZipIterDataset([row(index) for index in range(batch_size)]).map(stack)


def _inputs_and_targets(text: TokenizedText, document: int) -> Batch:
    """A document from its `start_id` on, and the token after each; after the last, the next `start_id`."""
    start, stop = text.offsets[document], text.offsets[document + 1]
    return {"tokens": text.flat[start:stop], "targets": text.flat[start + 1 : stop + 1]}


def _in_this_thread(dataset):
    """Grain's iterator over a dataset, without reading ahead: what it reads is in memory, or a memory map."""
    import grain

    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
