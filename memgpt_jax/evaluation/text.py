"""Held-out evaluation of text: each document starts from an empty memory, and each of its tokens is predicted.

With nats n_t of target t, summed over all documents:

    loss = sum n_t / tokens        bits per byte = sum n_t / (ln 2 bytes)
    perplexity per token = exp(loss)        perplexity per word = exp(sum n_t / words)

Bytes (UTF-8) and whitespace-separated words are counted in the text itself, independent of the tokenizer, as reported
for PG-19 (Rae et al., 2020). For a truncated document they are known only if the tokenizer is lossless.
"""

import logging
import math
from typing import NamedTuple, TypedDict

import numpy as np

from memgpt_jax import data, models
from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.evaluation.documents import learned_positions
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.scoring import check_finite, score_chunk

logger = logging.getLogger(__name__)

FIRST_BUCKET = 64  # tokens


class CurvePoint(TypedDict):
    """Tokens at positions [start, end) of their documents."""

    start: int
    end: int
    bits_per_byte: float
    tokens: int
    """Tokens of all documents at these positions."""
    bytes: int
    """UTF-8 bytes of these tokens."""


class TextResult(TypedDict):
    """Results on held-out text; None if the bytes or words of truncated documents are unknown."""

    loss: float
    """Nats per token."""
    bits_per_byte: float | None
    perplexity_per_token: float
    perplexity_per_word: float | None
    documents: int
    tokens: int
    bytes: int | None
    words: int | None
    curve: list[CurvePoint]
    """Bits per byte by position in the document, in buckets of doubling size; [] if the tokenizer is not lossless."""


def evaluate_text(config: ExperimentConfig, params: models.Params, tokenizer: data.Tokenizer) -> TextResult:
    """Evaluate whole documents. The first token of a document is predicted from `start_id`.

    Raises `ValueError` if there is no text, a document is too long for the model, or a loss is NaN or infinite.
    """
    settings, text_config = config.evaluation, instance_of(config.data, TextConfig, "data")
    corpus = data.documents(text_config, settings.split, tokenizer)
    number = len(corpus) if settings.max_documents is None else min(settings.max_documents, len(corpus))
    texts = {i: np.asarray(corpus[i], np.int32) for i in range(number) if len(corpus[i])}
    if not texts:
        raise ValueError(f"the {settings.split} split of {text_config.corpus!r} holds no text to evaluate")
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
    return TextResult(
        loss=metric("loss", nats=total, targets=count),
        bits_per_byte=metric("bits_per_byte", nats=total, bytes=num_bytes),
        perplexity_per_token=metric("perplexity", nats=total, targets=count),
        perplexity_per_word=metric("perplexity", nats=total, targets=words),
        documents=len(texts),
        tokens=count,
        bytes=num_bytes,
        words=words,
        curve=position_curve(nats, bytes_, tokens) if tokenizer.lossless else [],
    )


def check_text(config: ExperimentConfig, tokenizer: data.Tokenizer) -> None:
    """Open the documents of `evaluate_text`; `ValueError` if one is longer than the table of learned positions."""
    settings, text_config = config.evaluation, instance_of(config.data, TextConfig, "data")
    texts = data.documents(text_config, settings.split, tokenizer)
    positions = learned_positions(config.model)
    if positions is None:
        return
    found = np.diff(texts.offsets)[: settings.max_documents].max() - 1
    check_positions(config, int(found if settings.max_tokens is None else min(found, settings.max_tokens)))
    if config.training.carry_state:
        longest = int(np.diff(data.documents(text_config, "train", tokenizer).offsets).max())
        check(
            longest <= positions,
            f"a document of the training split has {longest} tokens, and the model has learned positions for "
            f"model.num_positions={positions}: set training.carry_state=False, so that every batch starts at position "
            "0, take shorter documents, or set model.num_positions",
        )


def check_positions(config: ExperimentConfig, longest: int) -> None:
    """Raise `ValueError` if the longest document to evaluate exceeds the table of learned positions."""
    positions = learned_positions(config.model)
    if positions is not None and longest > positions:
        raise ValueError(
            f"evaluation.max_tokens={config.evaluation.max_tokens}: a document has {longest} tokens to evaluate, and "
            f"the model has learned positions for model.num_positions={positions}; evaluation.max_tokens may be at "
            f"most {positions}"
        )


class TextSize(NamedTuple):
    """The size of documents; None: unknown."""

    bytes: int | None
    """UTF-8 bytes."""
    words: int | None
    """Words separated by whitespace."""


def text_size(
    corpus: data.TokenizedText, texts: dict[int, np.ndarray], tokenizer: data.Tokenizer, max_tokens: int | None
) -> TextSize:
    """The size of the first `max_tokens` tokens of documents {index: ids}."""
    if tokenizer.lossless:
        parts = [text[:max_tokens] for text in texts.values()]
        words = sum(len(tokenizer.decode(part.tolist()).split()) for part in parts)
        return TextSize(sum(int(tokenizer.token_bytes[part].sum()) for part in parts), words)
    lengths = [len(text) for text in texts.values()]
    truncated = sum(length > (max_tokens or math.inf) for length in lengths)
    if not truncated:
        return TextSize(sum(map(corpus.bytes_of, texts)), sum(map(corpus.words_of, texts)))
    logger.warning(
        f"evaluation.max_tokens={max_tokens} cuts {truncated} of {len(texts)} documents, and the tokenizer is not "
        "lossless: the bytes and words of the parts are unknown, and bits_per_byte is None. Set "
        f"evaluation.max_tokens to at least {max(lengths)}"
    )
    return TextSize(None, None)


def document_losses(
    config: ExperimentConfig, params: models.Params, start_id: int, texts: list[np.ndarray]
) -> list[np.ndarray]:
    """Nats of every token of every document; each document is a row that starts from a fresh state.

    A batch has documents of similar length; batches are in order of decreasing length. Shorter documents are padded, so
    that one shape is compiled and all rows have the same segment boundaries. The padding needs no mask, because nothing
    of a finished row is used again. With learned positions, each padding token starts a document, because its position
    would exceed the table.
    """
    rows, length = config.evaluation.batch_size, config.evaluation.chunk_length
    losses = [np.empty(len(text)) for text in texts]
    longest_first = np.argsort([-len(text) for text in texts], kind="stable").tolist()
    for first in range(0, len(texts), rows):
        group = longest_first[first : first + rows]
        padded = -(-len(texts[group[0]]) // length) * length
        stream = np.full((rows, padded + 1), start_id, np.int32)
        reset = np.ones((rows, padded), bool) if learned_positions(config.model) is not None else None
        for row, i in enumerate(group):
            stream[row, 1 : len(texts[i]) + 1] = texts[i]
            if reset is not None:
                reset[row, : len(texts[i])] = False
        state = models.functional(config.model).init_state(rows)
        for start in range(0, padded, length):
            inputs = {"tokens": stream[:, start : start + length]}
            if reset is not None:
                inputs["reset"] = reset[:, start : start + length]
            options = {"targets": {"tokens": stream[:, start + 1 : start + length + 1]}, "alignment": "aligned"}
            scores, state = score_chunk(config.model, params, state=state, **options, **inputs)
            chunk = np.asarray(scores["tokens"].losses)
            for row, i in enumerate(group):
                losses[i][start : start + length] = chunk[row, : max(0, len(texts[i]) - start)]
    check_finite(np.concatenate(losses))
    return losses


def position_curve(nats: np.ndarray, bytes_: np.ndarray, tokens: np.ndarray) -> list[CurvePoint]:
    """Bits per byte by position in the document, from sums [longest document] over all documents."""
    curve, start, end = [], 0, FIRST_BUCKET
    while start < len(nats):
        bucket = slice(start, end)
        if bytes_[bucket].any():
            size = int(bytes_[bucket].sum())
            curve.append(
                CurvePoint(
                    start=start,
                    end=min(end, len(nats)),
                    bits_per_byte=metric("bits_per_byte", nats=float(nats[bucket].sum()), bytes=size),
                    tokens=int(tokens[bucket].sum()),
                    bytes=size,
                )
            )
        start, end = end, 2 * end
    return curve
