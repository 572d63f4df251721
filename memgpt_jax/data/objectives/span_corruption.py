"""Span corruption, the objective of T5: spans of a text are hidden behind sentinels, and are to be written.

Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (2020),
section 3.1.4 and figure 2.
"""

import numpy as np

SENTINELS = 100
"""The number of sentinels, as in T5."""


def sentinel_ids(tokenizer) -> np.ndarray:
    """Ids [SENTINELS] of S0, S1, ...: the tokenizer's own `<extra_id_0>`, `<extra_id_1>`, ... if it has all of them.

    Otherwise the ids after its vocabulary, in the order of T5: S0 is the last one.
    """
    if len(tokenizer.sentinel_ids) >= SENTINELS:
        return np.array(tokenizer.sentinel_ids[:SENTINELS], np.int32)
    return np.arange(tokenizer.vocab_size + SENTINELS - 1, tokenizer.vocab_size - 1, -1, dtype=np.int32)


def span_counts(length: int, rate: float, mean_span: float) -> tuple[int, int]:
    """Of a text of L tokens, how many are hidden, and in how many spans: n and k of `corrupt_spans`.

    Raises `ValueError` where a value is out of range.
    """
    if length < 2:
        raise ValueError(f"tokens must be ids [L] with L >= 2, got {[length]}")
    if not 0 < rate < 1 or not mean_span >= 1:
        raise ValueError(f"rate={rate} must be between 0 and 1, and mean_span={mean_span} at least 1")
    hidden = min(max(round(length * rate), 1), length - 1)
    return hidden, min(max(round(hidden / mean_span), 1), hidden, length - hidden + 1)


def corrupt_rows(
    tokens: np.ndarray,
    reset: np.ndarray,
    rng: np.random.Generator,
    *,
    rate: float,
    mean_span: float,
    sentinels: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`corrupt_spans` of each row [L] of a batch, in which documents begin at `reset` [B, L].

    The sentinels of a row are `sentinels`, from the first on.

    Returns:
        Sources [B, S]; where in them documents begin [B, S], a sentinel standing for all that it hides; targets [B, T].
    """
    length = tokens.shape[1]
    _, spans = span_counts(length, rate, mean_span)
    ids = sentinels[spans::-1].astype(tokens.dtype)
    rows = []
    for row, begins in zip(tokens, reset, strict=True):
        # Places stand for the tokens, and the numbers behind them for the sentinels.
        places = np.arange(length)
        kept, hidden = corrupt_spans(places, rng, rate=rate, mean_span=mean_span, first_sentinel=length + spans)
        last = np.where(kept < length, kept, np.append(kept[1:], length) - 1)  # of the places that each stands for
        begun = np.diff(np.cumsum(begins)[last], prepend=0) > 0
        row = np.concatenate([row, ids])
        rows.append((row[kept], begun, row[hidden]))
    return tuple(np.stack(arrays) for arrays in zip(*rows, strict=True))


def corrupt_spans(
    tokens: np.ndarray,
    rng: np.random.Generator,
    *,
    rate: float = 0.15,
    mean_span: float = 3.0,
    first_sentinel: int,
) -> tuple[np.ndarray, np.ndarray]:
    """A text with spans hidden, and what was hidden.

        tokens   a b c d e f g h i
        source   a b S0 e f S1 i        S0 = first_sentinel, S1 = first_sentinel - 1, ...
        target   S0 c d S1 g h S2       the last sentinel ends it

    Of L tokens, n = round(rate L) are hidden, at least one and not all, in k = round(n / mean_span) spans, at least
    one, with a kept token or more between them. How n is cut into k spans, and L - n into what stands before, between
    and after them, is drawn uniformly. (T5's own code lets a kept token begin and a hidden one end every text.) So all
    texts of a length give sources of L - n + k and targets of n + k + 1 tokens.

    Arguments:
        tokens: ids [L], L >= 2.
        first_sentinel: the id of the first sentinel; the others count down from it.

    Returns:
        The ids of source and target, of the type of `tokens`.

    Raises:
        ValueError: a value is out of range, or there are ids among the tokens that are sentinels.
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
    kept[[0, -1]] -= 1  # before the first span and after the last one there may be nothing
    sizes = np.stack([kept[:-1], _parts(hidden, spans, rng)], axis=1).reshape(-1)
    *pieces, rest = np.split(tokens, np.cumsum(sizes))  # kept, hidden, kept, hidden, ..., kept
    sentinels = np.arange(first_sentinel, lowest - 1, -1, dtype=tokens.dtype).reshape(-1, 1)
    source = [piece for pair in zip(pieces[::2], sentinels[:-1], strict=True) for piece in pair]
    target = [piece for pair in zip(sentinels[:-1], pieces[1::2], strict=True) for piece in pair]
    return np.concatenate([*source, rest]), np.concatenate([*target, sentinels[-1]])


def _parts(total: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """One of the ways to write `total` as a sum of `number` whole numbers above 0, all equally likely."""
    cuts = 1 + np.sort(rng.choice(total - 1, number - 1, replace=False))
    return np.diff(cuts, prepend=0, append=total)
