"""Held-out evaluation: every document streams from an empty memory, as a reader would meet it.

With nats n_t of target t, summed over all documents:

    loss = sum n_t / tokens        bits per byte = sum n_t / (ln 2 bytes)
    perplexity per token = exp(loss)        perplexity per word = exp(sum n_t / words)

Bytes (UTF-8) and whitespace-separated words are those of the text itself, whatever the tokenizer, as reported for PG-19
(Rae et al., 2020). For a truncated document they are known only if the tokenizer is lossless.
"""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from memgpt_jax import data, models
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.memory import Alignment
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.ops import everywhere

logger = logging.getLogger(__name__)

FIRST_BUCKET = 64
HELD_OUT_SEED = 0x5EED
CHUNK = 1 << 24  # tokens that are counted at once


def evaluate(
    config: ExperimentConfig, params: models.Params, tokenizer: data.Tokenizer | None = None
) -> dict[str, Any]:
    """Evaluate `params` as `config.evaluation` says; on generated tasks, on batches that no training seed draws.

    Parameters do not depend on the size of the memory: to read with another one, give a config with another
    `model.memory.memory_size`. Returns a dictionary that JSON can hold. For text: `loss` (nats per token),
    `bits_per_byte`, `perplexity_per_token`, `perplexity_per_word`, the counts `documents`, `tokens`, `bytes` and
    `words`, and `curve`, a list of `{start, end, bits_per_byte, tokens, bytes}` for the tokens at positions
    [start, end) of their documents. If the tokenizer is not lossless, `curve` is empty, and if `max_tokens` truncates a
    document, every figure that needs bytes or words is None, with a warning. For other objectives, on
    `config.evaluation.num_batches` batches that are always the same: of the tokens of text to be predicted `loss`
    (nats), `accuracy`, the count `predictions`, and `unigram_loss`, that of a model which knows how frequent each is in
    the training split; of pairs of sentences `next_sentence_loss`, `next_sentence_accuracy` and the count `pairs`. For
    tasks: `loss`, `accuracy` (share of the answers), the count `answers`, and `groups`, the accuracy of each group that
    the task reports one by one, with `failed_tasks`, how many of them are below what the task asks for. Rows are as
    long as those of training. An answer is right where all its tokens are.

    Raises `ValueError` if there is nothing to evaluate, or a loss is NaN or infinite.
    """
    if isinstance(config.data, TaskConfig):
        return evaluate_task(config, params, data.make_task(config.data, config.evaluation.split, tokenizer))
    tokenizer = data.make_tokenizer(config.data) if tokenizer is None else tokenizer
    evaluators = {"documents": evaluate_text, "batches": evaluate_objective}
    return evaluators[data.make_objective(config.data.objective).evaluation](config, params, tokenizer)


def evaluate_text(config: ExperimentConfig, params, tokenizer) -> dict:
    """`evaluate` for text. The first token of a document is predicted from the id that begins every document."""
    settings = config.evaluation
    corpus = data.documents(config.data, settings.split, tokenizer)
    number = len(corpus) if settings.max_documents is None else min(settings.max_documents, len(corpus))
    texts = {i: np.asarray(corpus[i], np.int32) for i in range(number) if len(corpus[i])}
    if not texts:
        raise ValueError(f"the {settings.split} split of {config.data.corpus!r} holds no text to evaluate")
    num_bytes, words = text_size(corpus, texts, tokenizer, settings.max_tokens)
    texts = {i: text[: settings.max_tokens] for i, text in texts.items()}

    longest = max(map(len, texts.values()))
    check_positions(config, longest)
    nats, bytes_, tokens = np.zeros(longest), np.zeros(longest, np.int64), np.zeros(longest, np.int64)  # by position
    losses = document_losses(config, params, tokenizer.start_id, list(texts.values()))
    for text, loss in zip(texts.values(), losses, strict=True):
        nats[: len(text)] += loss
        bytes_[: len(text)] += tokenizer.token_bytes[text]
        tokens[: len(text)] += 1
    total, count = float(nats.sum()), int(tokens.sum())
    return {
        "loss": total / count,
        "bits_per_byte": total / math.log(2) / num_bytes if num_bytes else None,
        "perplexity_per_token": perplexity(total, count),
        "perplexity_per_word": perplexity(total, words) if words else None,
        "documents": len(texts),
        "tokens": count,
        "bytes": num_bytes,
        "words": words,
        "curve": position_curve(nats, bytes_, tokens) if tokenizer.lossless else [],
    }


def check_positions(config: ExperimentConfig, longest: int) -> None:
    """Raise `ValueError` if the longest document to evaluate exceeds the table of learned positions."""
    positions = config.model.num_positions
    if config.model.position == "learned" and longest > positions:
        raise ValueError(
            f"evaluation.max_tokens={config.evaluation.max_tokens}: a document has {longest} tokens to evaluate, and "
            f"the model has learned positions for model.num_positions={positions}; evaluation.max_tokens may be at "
            f"most {positions}"
        )


def text_size(
    corpus: data.TokenizedText, texts: dict[int, np.ndarray], tokenizer, max_tokens: int | None
) -> tuple[int | None, int | None]:
    """Bytes and words of the first `max_tokens` tokens of documents {number: ids}; None where they are not known."""
    if tokenizer.lossless:
        parts = [text[:max_tokens] for text in texts.values()]
        words = sum(len(tokenizer.decode(part.tolist()).split()) for part in parts)
        return sum(int(tokenizer.token_bytes[part].sum()) for part in parts), words
    lengths = [len(text) for text in texts.values()]
    truncated = sum(length > (max_tokens or math.inf) for length in lengths)
    if not truncated:
        return sum(map(corpus.bytes_of, texts)), sum(map(corpus.words_of, texts))
    logger.warning(
        f"evaluation.max_tokens={max_tokens} cuts {truncated} of {len(texts)} documents, and the tokenizer is not "
        "lossless: the bytes and words of the parts are not known, and bits_per_byte is None. Set "
        f"evaluation.max_tokens to at least {max(lengths)}"
    )
    return None, None


def document_losses(config: ExperimentConfig, params, start_id: int, texts: list[np.ndarray]) -> list[np.ndarray]:
    """Nats of every token of every document, each document a row that starts from a fresh state.

    Rows take documents of similar length, longest first. Shorter ones run on over padding: nothing of a finished row
    is used again, so its padding needs no mask, all rows stay at common segment boundaries, and one shape is compiled.
    With learned positions, each token of padding begins a document, as its position may be beyond the table.
    """
    rows, length = config.evaluation.batch_size, config.evaluation.chunk_length
    losses = [np.empty(len(text)) for text in texts]
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    for first in range(0, len(order), rows):
        group = order[first : first + rows]
        padded = -(-len(texts[group[0]]) // length) * length
        stream = np.full((rows, padded + 1), start_id, np.int32)
        reset = np.ones((rows, padded), bool) if config.model.position == "learned" else None
        for row, i in enumerate(group):
            stream[row, 1 : len(texts[i]) + 1] = texts[i]
            if reset is not None:
                reset[row, : len(texts[i])] = False
        state = models.functional(config.model).init_state(rows)
        for start in range(0, padded, length):
            inputs = {"tokens": stream[:, start : start + length]}
            if reset is not None:
                inputs["reset"] = reset[:, start : start + length]
            targets = {"tokens": stream[:, start + 1 : start + length + 1]}
            scores, state = score_chunk(
                config.model, params, targets=targets, state=state, alignment="aligned", **inputs
            )
            chunk = np.asarray(scores["tokens"].losses)
            for row, i in enumerate(group):
                losses[i][start : start + length] = chunk[row, : max(0, len(texts[i]) - start)]
    check_finite(np.concatenate(losses))
    return losses


@functools.partial(jax.jit, static_argnums=0, static_argnames="alignment")
def score_chunk(model: ModelConfig, params, *, targets, state, alignment: Alignment, **inputs):
    """`score` of a model, compiled once for each model and each shape, with scores that every process can fetch."""
    scores, state = models.functional(model).score(params, targets=targets, state=state, alignment=alignment, **inputs)
    return jax.tree.map(everywhere, scores), state


def check_finite(losses: np.ndarray) -> None:
    """Raise `ValueError` if the loss of a token is NaN or infinite."""
    wrong = int(np.sum(~np.isfinite(losses)))
    if wrong:
        raise ValueError(
            f"the loss of {wrong:,} of {losses.size:,} tokens is NaN or infinite: the parameters hold values that are "
            "not finite, or a computation overflows"
        )


def position_curve(nats: np.ndarray, bytes_: np.ndarray, tokens: np.ndarray) -> list[dict]:
    """Bits per byte against position in the document, from sums by position, in buckets that double in size."""
    curve, start, end = [], 0, FIRST_BUCKET
    while start < len(nats):
        bucket = slice(start, end)
        if bytes_[bucket].any():
            curve.append(
                {
                    "start": start,
                    "end": min(end, len(nats)),
                    "bits_per_byte": bits_per_byte(nats[bucket], bytes_[bucket]),
                    "tokens": int(tokens[bucket].sum()),
                    "bytes": int(bytes_[bucket].sum()),
                }
            )
        start, end = end, 2 * end
    return curve


def bits_per_byte(nats: np.ndarray, bytes_: np.ndarray) -> float:
    """Nats per token and bytes per token, summed and divided: bits that one byte of the text costs."""
    return float(nats.sum() / math.log(2) / bytes_.sum())


def perplexity(nats: float, count: int) -> float:
    """exp(nats / count); infinite where double precision overflows."""
    return math.exp(nats / count) if nats < 709 * count else math.inf


def evaluate_objective(config: ExperimentConfig, params, tokenizer) -> dict:
    """`evaluate` for all objectives but `causal`. Memory goes from batch to batch where it did so in training.

    Marks and sentinels, which are no text, are not counted.
    """
    settings, model = config.evaluation, config.model
    training = dataclasses.replace(config.training, batch_size=settings.batch_size)
    batches = data.text_batches(config.data, training, HELD_OUT_SEED, tokenizer, settings.split)
    unigram = unigram_losses(data.documents(config.data, "train", tokenizer).flat, model.vocab_size)
    is_text = np.zeros(max(model.vocab_size, tokenizer.vocab_size), bool)  # either may be larger
    is_text[: tokenizer.vocab_size] = tokenizer.token_bytes > 0
    alignment = model.alignment_of(training.sequence_length)
    state = fresh = models.functional(model).init_state(settings.batch_size)
    found, labels = [], []  # one tuple for each prediction: nats, whether it is right, the unigram model's nats
    for _, batch in zip(range(settings.num_batches), batches, strict=False):
        options = {"targets": batch.targets, "state": state, "alignment": alignment}
        scores, after = score_chunk(model, params, **options, **batch.inputs)
        state = after if training.carry_state else fresh
        for head, targets in batch.targets.items():
            losses, correct = (np.asarray(array, np.float64) for array in scores[head])
            if targets.ndim == 1:
                labels.append([losses, correct])
            else:
                counted = (batch.weights[head] > 0) & is_text[targets]
                found.append([losses[counted], correct[counted], unigram[targets[counted]]])
    result = {}
    if found:
        found = np.concatenate(found, axis=1)
        check_finite(found[0])
        means = zip(("loss", "accuracy", "unigram_loss"), found.mean(axis=1).tolist(), strict=True)
        result |= dict(means) | {"predictions": found.shape[1]}
    if labels:
        labels = np.concatenate(labels, axis=1)
        check_finite(labels[0])
        means = zip(("next_sentence_loss", "next_sentence_accuracy"), labels.mean(axis=1).tolist(), strict=True)
        result |= dict(means) | {"pairs": labels.shape[1]}
    return result


def unigram_losses(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """[V] nats of every id for a model that knows how often each occurs in `tokens`, and once more: -log p."""
    counts = np.ones(vocab_size)
    for start in range(0, len(tokens), CHUNK):
        counts += np.bincount(tokens[start : start + CHUNK], minlength=vocab_size)
    return -np.log(counts / counts.sum())


def evaluate_task(config: ExperimentConfig, params, task: data.Task) -> dict:
    """`evaluate` for tasks: the share of answers all of whose tokens have the highest logit."""
    rows, length = config.evaluation.batch_size, config.row_length or config.training.sequence_length
    score = row_scorer(config, params)
    nats, tokens, hits, answers = (np.zeros(max(1, len(task.groups))) for _ in range(4))
    # The same questions for every training seed.
    for batch in task.held_out(HELD_OUT_SEED, rows, length, config.evaluation.num_batches):
        losses, correct = score(batch)
        weights, group = batch.weights["tokens"], batch.info.get("group", np.zeros(rows, np.int32))
        check_finite(losses[weights > 0])
        right, asked = count_answers(correct, weights, batch.info.get("answer"))
        for total, values in (
            (nats, np.sum(np.where(weights > 0, losses, 0) * weights, axis=1, dtype=np.float64)),
            (tokens, np.sum(weights, axis=1, dtype=np.float64)),
            (hits, right),
            (answers, asked),
        ):
            np.add.at(total, group, values)
    accuracies = dict(zip(task.groups, (hits / np.maximum(answers, 1)).tolist(), strict=False))
    result = {
        "loss": float(nats.sum() / tokens.sum()),
        "accuracy": float(hits.sum() / answers.sum()),
        "answers": int(answers.sum()),
    }
    if task.passing_accuracy is not None:
        result["failed_tasks"] = sum(accuracy < task.passing_accuracy for accuracy in accuracies.values())
    return result | ({"groups": accuracies} if task.groups else {})


def row_scorer(config: ExperimentConfig, params) -> Callable[[data.Batch], tuple[np.ndarray, np.ndarray]]:
    """A function from a batch to the losses and the correctness [B, L] of its targets, each row from a fresh state.

    Rows longer than `evaluation.chunk_length` are read in chunks with carried state: what the device holds does not
    grow with them.
    """
    segment, chunk = config.model.segment_length, config.evaluation.chunk_length

    def score_batch(batch: data.Batch) -> tuple[np.ndarray, np.ndarray]:
        rows, length = batch.inputs["tokens"].shape
        state, parts = models.functional(config.model).init_state(rows), []
        for first in range(0, length, chunk):
            inputs, targets = (
                {name: array[:, first : first + chunk] for name, array in arrays.items()}
                for arrays in (batch.inputs, batch.targets)
            )
            # True: every chunk begins at a boundary of segments.
            aligned = chunk % segment == 0 and inputs["tokens"].shape[1] % segment == 0
            options = {"targets": targets, "state": state, "alignment": "aligned" if aligned else "any"}
            scores, state = score_chunk(config.model, params, **inputs, **options)
            parts.append(jax.device_get(scores["tokens"]))
        return tuple(np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))

    return score_batch


def count_answers(
    correct: np.ndarray, weights: np.ndarray, answer: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Per row [B], how many answers are right and how many there are.

    An answer is right where all of its targets are. Its targets are those with weight that share a number of `answer`
    [B, L] int32; without it, every target with weight is an answer of its own.
    """
    if answer is None:
        answer = np.broadcast_to(np.arange(weights.shape[1]), weights.shape)
    row, column = np.nonzero(weights)
    pairs, index = np.unique(np.stack([row, answer[row, column]]), axis=1, return_inverse=True)
    wrong = np.bincount(index.reshape(-1), ~correct[row, column], pairs.shape[1])
    right = np.bincount(pairs[0], wrong == 0, len(weights))
    return right, np.bincount(pairs[0], minlength=len(weights))
