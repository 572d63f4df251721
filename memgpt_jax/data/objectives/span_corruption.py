"""Span corruption, the objective of T5: the decoder generates the spans that sentinels replace in the source.

Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (2020),
section 3.1.4 and figure 2.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from memgpt_jax.config.checks import check, check_types
from memgpt_jax.config.data import ObjectiveConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.objectives.base import Objective
from memgpt_jax.data.tokenizers.base import Tokenizer

SENTINELS = 100
"""The number of sentinels, as in T5."""


@dataclass(frozen=True, kw_only=True)
class SpanCorruptionConfig(ObjectiveConfig):
    """Generate the spans of a text that are replaced by sentinels. Needs an encoder-decoder."""

    inputs: ClassVar[tuple[str, ...]] = ("source", "source_reset")

    mask_rate: float = 0.15
    """Fraction of the tokens that are hidden in spans."""
    span_length: float = 3.0
    """Mean length of the spans in tokens."""

    def __post_init__(self) -> None:
        check_types(self)
        check(0 < self.mask_rate < 1, f"mask_rate must be between 0 and 1, got {self.mask_rate}")
        check(self.span_length >= 1, f"span_length must be at least 1, got {self.span_length}")

    def check_model(self, model: Any, length: int) -> None:
        super().check_model(model, length)
        places = model.decoder.source_length
        check(
            length <= places,
            f"training.sequence_length={length} must be at most model.decoder.source_length={places}",
        )
        _, spans = span_counts(length, self.mask_rate, self.span_length)
        check(
            spans < SENTINELS,
            f"training.sequence_length={length}: {spans} hidden spans need {spans + 1} sentinels; available: "
            f"{SENTINELS}; use a smaller data.objective.mask_rate or a larger data.objective.span_length",
        )


class SpanCorruption(Objective[SpanCorruptionConfig]):
    """Rows of running text with spans hidden (`corrupt_rows`).

    The input `source` [B, S] is the text with sentinels; documents begin where `source_reset` is True. The targets
    [B, T] are the hidden spans between their sentinels; the inputs of the decoder are the targets shifted right by one,
    after a `start_id`. Each row is one document of the decoder.
    """

    def added_ids(self, tokenizer: Tokenizer) -> int:
        return max(0, 1 + int(sentinel_ids(tokenizer).max()) - tokenizer.vocab_size)

    def shapes(self, rows: int, length: int) -> Batch:
        hidden, spans = span_counts(length, self.config.mask_rate, self.config.span_length)
        source, shape = (rows, length - hidden + spans), (rows, hidden + spans + 1)
        inputs = {"tokens": (shape, np.int32), "reset": (shape, bool)}
        return zeros(inputs | {"source": (source, np.int32), "source_reset": (source, bool)}, {"tokens": shape})

    def change(self, rng: np.random.Generator, batch: Batch, tokenizer: Tokenizer) -> Batch:
        config, inputs = self.config, batch.inputs
        options = {"rate": config.mask_rate, "mean_span": config.span_length, "sentinels": sentinel_ids(tokenizer)}
        source, source_reset, targets = corrupt_rows(inputs["tokens"], inputs["reset"], rng, **options)
        first = np.zeros(targets.shape, bool)
        first[:, 0] = True
        tokens = np.where(first, tokenizer.start_id, np.roll(targets, 1, axis=1)).astype(np.int32)
        return Batch(
            inputs={"tokens": tokens, "reset": first, "source": source, "source_reset": source_reset},
            targets={"tokens": targets},
            weights={"tokens": np.ones(targets.shape, np.float32)},
            info={},
        )


def sentinel_ids(tokenizer: Tokenizer) -> np.ndarray:
    """Ids [SENTINELS] of S0, S1, ...: the tokenizer's own `<extra_id_0>`, `<extra_id_1>`, ... if it has all of them.

    Otherwise the ids after its vocabulary, in the order of T5: S0 is the last one.
    """
    if len(tokenizer.sentinel_ids) >= SENTINELS:
        return np.array(tokenizer.sentinel_ids[:SENTINELS], np.int32)
    return np.arange(tokenizer.vocab_size + SENTINELS - 1, tokenizer.vocab_size - 1, -1, dtype=np.int32)


class SpanCounts(NamedTuple):
    """Numbers that all texts of one length share."""

    hidden: int
    """Number n of hidden tokens."""
    spans: int
    """Number k of spans."""


def span_counts(length: int, rate: float, mean_span: float) -> SpanCounts:
    """The numbers of hidden tokens and of spans of a text of `length` tokens: see `corrupt_spans`.

    Raises `ValueError` if a value is out of range.
    """
    if length < 2:
        raise ValueError(f"tokens must be ids [L] with L >= 2, got {[length]}")
    if not 0 < rate < 1 or not mean_span >= 1:
        raise ValueError(f"rate={rate} must be between 0 and 1, and mean_span={mean_span} at least 1")
    hidden = min(max(round(length * rate), 1), length - 1)
    return SpanCounts(hidden, min(max(round(hidden / mean_span), 1), hidden, length - hidden + 1))


class CorruptedRows(NamedTuple):
    """A batch of corrupted texts."""

    source: np.ndarray
    """[B, S] ids."""
    source_reset: np.ndarray
    """[B, S] bool, True where a document begins. If it begins inside a hidden span, that is the span's sentinel."""
    target: np.ndarray
    """[B, T] ids."""


def corrupt_rows(
    tokens: np.ndarray,
    reset: np.ndarray,
    rng: np.random.Generator,
    *,
    rate: float,
    mean_span: float,
    sentinels: np.ndarray,
) -> CorruptedRows:
    """`corrupt_spans` of each row of tokens [B, L], in which documents begin where `reset` [B, L] is True.

    Each row uses the first ids of `sentinels`, in order.
    """
    length = tokens.shape[1]
    _, spans = span_counts(length, rate, mean_span)
    ids = sentinels[spans::-1].astype(tokens.dtype)
    rows = []
    for row, begins in zip(tokens, reset, strict=True):
        # Positions represent the tokens; numbers from L on represent the sentinels.
        places = np.arange(length)
        kept, hidden = corrupt_spans(places, rng, rate=rate, mean_span=mean_span, first_sentinel=length + spans)
        last = np.where(kept < length, kept, np.append(kept[1:], length) - 1)  # the last position represented
        begun = np.diff(np.cumsum(begins)[last], prepend=0) > 0
        row = np.concatenate([row, ids])
        rows.append((row[kept], begun, row[hidden]))
    return CorruptedRows(*(np.stack(arrays) for arrays in zip(*rows, strict=True)))


class CorruptedText(NamedTuple):
    """A text with hidden spans, and the spans; ids of the type of the text."""

    source: np.ndarray
    """The text, in which each hidden span is replaced by a sentinel."""
    target: np.ndarray
    """Each sentinel followed by its span, and one more sentinel at the end."""


def corrupt_spans(
    tokens: np.ndarray,
    rng: np.random.Generator,
    *,
    rate: float = 0.15,
    mean_span: float = 3.0,
    first_sentinel: int,
) -> CorruptedText:
    """Replace random spans of a text by sentinels.

        tokens   a b c d e f g h i
        source   a b S0 e f S1 i        S0 = first_sentinel, S1 = first_sentinel - 1, ...
        target   S0 c d S1 g h S2       the last sentinel ends it

    Of L tokens, n = round(rate L) are hidden, at least one and not all, in k = round(n / mean_span) spans, at least
    one, separated by at least one kept token. The lengths of the k spans and of the k + 1 kept parts are drawn
    uniformly. (In T5's own code every text begins with a kept and ends with a hidden token.) All texts of a length give
    sources of L - n + k and targets of n + k + 1 tokens.

    Args:
        tokens: ids [L], L >= 2.
        rng: the generator of the draws.
        rate: fraction of the tokens that are hidden.
        mean_span: mean length of a span in tokens.
        first_sentinel: the id of the first sentinel; the others count down from it.

    Raises:
        ValueError: a value is out of range, or the tokens contain ids of sentinels.
    """
    tokens = np.asarray(tokens)
    length = len(tokens)
    if tokens.ndim != 1:
        raise ValueError(f"tokens must be ids [L] with L >= 2, got {list(tokens.shape)}")
    hidden, spans = span_counts(length, rate, mean_span)
    lowest = first_sentinel - spans
    if lowest < 0 or tokens.max() >= lowest:
        raise ValueError(
            f"first_sentinel={first_sentinel} with {spans + 1} sentinels takes the ids from {lowest} on, "
            f"but tokens go up to {tokens.max()}"
        )
    kept = _parts(length - hidden + 2, spans + 1, rng)
    kept[[0, -1]] -= 1  # the parts before the first and after the last span may be empty
    sizes = np.stack([kept[:-1], _parts(hidden, spans, rng)], axis=1).reshape(-1)
    *pieces, rest = np.split(tokens, np.cumsum(sizes))  # kept, hidden, kept, hidden, ..., kept
    sentinels = np.arange(first_sentinel, lowest - 1, -1, dtype=tokens.dtype).reshape(-1, 1)
    source = [piece for pair in zip(pieces[::2], sentinels[:-1], strict=True) for piece in pair]
    target = [piece for pair in zip(sentinels[:-1], pieces[1::2], strict=True) for piece in pair]
    return CorruptedText(np.concatenate([*source, rest]), np.concatenate([*target, sentinels[-1]]))


def _parts(total: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """[number] positive integers with the sum `total`; all such sequences are equally likely."""
    cuts = 1 + np.sort(rng.choice(total - 1, number - 1, replace=False))
    return np.diff(cuts, prepend=0, append=total)
