"""Pools of hidden states in a stream: after each token, one vector for the document up to and including this token.

A pool is a monoid. Each token gives an element, and elements combine associatively, so that a call of L tokens is a
parallel scan, and the element after it is a state of fixed size: a document of any length is pooled in constant memory,
and any division into calls gives the same vectors, up to rounding. Counts are exact for 2^24 tokens of a document.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from memgpt_jax.ops.trees import where_rows
from memgpt_jax.shapes import Array, Flags, Float, Float32

Element = dict[str, Float32[Array, "..."]]
"""What a pool keeps of some tokens; arrays [..., D] or [...]."""
LOWEST = float(jnp.finfo(jnp.float32).min) / 2
"""Below every hidden state and every logit; finite, so that differences of two of them are."""


class Pool(NamedTuple):
    """The functions of a monoid."""

    empty: Callable[[int, int], Element]
    """(rows, width): the element of no tokens, for each row."""
    element: Callable[[Float32[Array, "B L D"], Float32[Array, "B L"]], Element]
    """(hidden states, logits): the element of each token."""
    combine: Callable[[Element, Element], Element]
    """(earlier, later): the element of both."""
    read: Callable[[Element], Float32[Array, "... D"]]
    """The pooled vector; 0 where there are no tokens."""


def pool(
    pool: Pool,
    h: Float[Array, "B L D"],
    state: Element,
    reset: Flags,
    valid: Flags,
    logits: Float32[Array, "B L"] | None = None,
    present: Flags | None = None,
) -> tuple[Float32[Array, "B L D"], Element]:
    """The pooled vector of each token's document up to and including the token, and the state after the call.

    Args:
        pool: one of `POOLS`.
        h: hidden states.
        state: `pool.empty(B, D)`, or the state after the previous call.
        reset: True for the first token of a document.
        valid: False for padding, which adds nothing.
        logits: of each token, for `attention`; default: 0.
        present: the tokens that are pooled; default: all that are valid.
    """
    x = h.astype(jnp.float32)
    items = pool.element(x, jnp.zeros(x.shape[:2], jnp.float32) if logits is None else logits)
    nothing = jax.tree.map(lambda leaf: leaf[:, None], pool.empty(x.shape[0], x.shape[2]))
    items = where_rows(valid if present is None else valid & present, items, nothing)
    items = jax.tree.map(lambda first, rest: jnp.concatenate([first[:, None], rest], axis=1), state, items)
    begins = jnp.pad(reset & valid, ((0, 0), (1, 0)))

    def within_documents(earlier: tuple, later: tuple):
        begins, items = zip(earlier, later, strict=True)
        return begins[0] | begins[1], where_rows(begins[1], items[1], pool.combine(*items))

    _, items = jax.lax.associative_scan(within_documents, (begins, items), axis=1)
    after = jax.tree.map(lambda leaf: leaf[:, -1], items)
    return pool.read(jax.tree.map(lambda leaf: leaf[:, 1:], items)), after


def _empty(rows: int, width: int, **start: float) -> Element:
    """`value`, 0 or as given, and `count` 0 of each row; further arrays of one number a row."""
    value = jnp.full((rows, width), start.pop("value", 0.0), jnp.float32)
    return {"value": value} | {name: jnp.full(rows, number, jnp.float32) for name, number in start.items()}


def _counted(h: Float32[Array, "B L D"], logits: Float32[Array, "B L"]) -> Element:
    return {"value": h, "count": jnp.ones_like(logits)}


def _mean(earlier: Element, later: Element) -> Element:
    return jax.tree.map(jnp.add, earlier, later)


def _max(earlier: Element, later: Element) -> Element:
    return {
        "value": jnp.maximum(earlier["value"], later["value"]),
        "count": earlier["count"] + later["count"],
    }


def _first(earlier: Element, later: Element) -> Element:
    return where_rows(earlier["count"] > 0, earlier, later)


def _last(earlier: Element, later: Element) -> Element:
    return where_rows(later["count"] > 0, later, earlier)


def _attention(earlier: Element, later: Element) -> Element:
    """The online softmax: sums of exp(logit - peak) and of exp(logit - peak) h, for the greatest logit, `peak`."""
    peak = jnp.maximum(earlier["peak"], later["peak"])
    scales = jnp.exp(earlier["peak"] - peak), jnp.exp(later["peak"] - peak)
    return {
        "value": scales[0][..., None] * earlier["value"] + scales[1][..., None] * later["value"],
        "count": scales[0] * earlier["count"] + scales[1] * later["count"],
        "peak": peak,
    }


def _value(element: Element) -> Float32[Array, "... D"]:
    return jnp.where(element["count"][..., None] > 0, element["value"], 0.0)


def _ratio(element: Element) -> Float32[Array, "... D"]:
    count = element["count"][..., None]
    return element["value"] / jnp.where(count > 0, count, 1.0)


POOLS: dict[str, Pool] = {
    "first": Pool(partial(_empty, count=0.0), _counted, _first, _value),
    "last": Pool(partial(_empty, count=0.0), _counted, _last, _value),
    "mean": Pool(partial(_empty, count=0.0), _counted, _mean, _ratio),
    "max": Pool(partial(_empty, value=LOWEST, count=0.0), _counted, _max, _value),
    "attention": Pool(
        partial(_empty, count=0.0, peak=LOWEST),
        lambda h, logits: _counted(h, logits) | {"peak": logits},
        _attention,
        _ratio,
    ),
}
"""first: h of the first token. last: h of the last token. mean: Σ h / n. max: the greatest of each component.
attention: Σ softmax(logits) h, with the online softmax of Milakov and Gimelshein, "Online normalizer calculation for
softmax" (2018)."""
