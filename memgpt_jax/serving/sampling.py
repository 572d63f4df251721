"""Sampling with options of its own in each row, in one compiled program for all of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32

from memgpt_jax.config.checks import check
from memgpt_jax.generation.sampling import (
    NOT_FINITE,
    Sampling,
    can_be_chosen_from,
    keep_min_p,
    keep_top_p,
    penalize_repetition,
)

MOST_BIASES = 256
"""Largest number of ids with a bias in one request."""
MOST_ALTERNATIVES = 20
"""Largest number of alternatives of a token whose log-probabilities are returned."""


class RowSampling(NamedTuple):
    """The sampling options of R rows. Unlike `Sampling`, no value of an option compiles anything anew."""

    temperature: Float32[Array, " R"]  # 0: greedy
    top_k: Int32[Array, " R"]  # V: all
    top_p: Float32[Array, " R"]  # 1: all
    min_p: Float32[Array, " R"]  # 0: all
    repetition_penalty: Float32[Array, " R"]  # 1: none
    presence_penalty: Float32[Array, " R"]
    frequency_penalty: Float32[Array, " R"]
    bias_ids: Int32[Array, "R MOST_BIASES"]  # V: no id
    bias: Float32[Array, "R MOST_BIASES"]
    alternatives: Bool[Array, " R"]  # whether log-probabilities of alternatives are wanted
    key: Array  # [R] PRNG keys


class Chosen(NamedTuple):
    """The next token of R rows."""

    token: Int32[Array, " R"]  # NOT_FINITE: the logits of the row are not finite
    logprob: Float32[Array, " R"]  # ln p of the token under the model, before all options
    top_ids: Int32[Array, "R N"]  # the most probable tokens, if a row wants them
    top_logprobs: Float32[Array, "R N"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The sampling options of one request. Raises `ValueError` for values out of range."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    """Subtracted from the logit of each token that is in the answer so far."""
    frequency_penalty: float = 0.0
    """Subtracted from the logit of a token as often as it is in the answer so far."""
    logit_bias: dict[int, float] = field(default_factory=dict)
    """Added to the logits of these ids."""
    alternatives: int = 0
    """Number of alternatives of each token whose log-probabilities are wanted."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature:
            Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)
        Sampling(temperature=self.temperature, repetition_penalty=self.repetition_penalty)
        for name in ("presence_penalty", "frequency_penalty"):
            check(-2 <= getattr(self, name) <= 2, f"{name} must be from -2 to 2, got {getattr(self, name)}")
        check(len(self.logit_bias) <= MOST_BIASES, f"logit_bias may have {MOST_BIASES} ids, got {len(self.logit_bias)}")
        check(
            all(-100 <= value <= 100 for value in self.logit_bias.values()),
            "the values of logit_bias must be -100 to 100",
        )
        check(
            0 <= self.alternatives <= MOST_ALTERNATIVES,
            f"logprobs must be from 0 to {MOST_ALTERNATIVES}, got {self.alternatives}",
        )

    def row(self, number: int, vocab_size: int) -> RowSampling:
        """The options of choice `number` as one row, on the host but for the key."""
        ids, bias = np.full((1, MOST_BIASES), vocab_size, np.int32), np.zeros((1, MOST_BIASES), np.float32)
        ids[0, : len(self.logit_bias)] = [*self.logit_bias]
        bias[0, : len(self.logit_bias)] = [*self.logit_bias.values()]
        numbers = {
            "temperature": self.temperature,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "min_p": self.min_p or 0.0,
            "repetition_penalty": self.repetition_penalty or 1.0,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
        }
        arrays: dict[str, Any] = {name: np.array([value], np.float32) for name, value in numbers.items()}
        return RowSampling(
            top_k=np.array([min(self.top_k or vocab_size, vocab_size)], np.int32),  # pyright: ignore[reportArgumentType]
            bias_ids=ids,  # pyright: ignore[reportArgumentType]
            bias=bias,  # pyright: ignore[reportArgumentType]
            alternatives=np.array([self.alternatives > 0]),  # pyright: ignore[reportArgumentType]
            key=_key(np.uint32(self.seed), np.int32(number)),
            **arrays,
        )


@jax.jit
def _key(seed: Array, number: Array) -> Array:
    """The key of a choice [1], as in `mg.generate`."""
    return jax.random.fold_in(jax.random.key(seed), number)[None]


def choose(
    logits: Float32[Array, "R V"],
    active: Bool[Array, " R"],
    options: RowSampling,
    count: Int32[Array, " R"],
    seen: Bool[Array, "R V"],
    written: Int32[Array, "R V"],
) -> Chosen:
    """The next token of each row.

    The order is logit bias, penalties, temperature, top-k, top-p, min-p. With the options of `Sampling` alone, the
    draws are those of `mg.generate` with the same seed.

    Args:
        logits: of the next token.
        active: rows whose token is wanted. Logits are sorted only if the options of one of them need it.
        options: of each row.
        count: tokens of each row's answer so far, which its key is folded with.
        seen: ids of the document, to which the repetition penalty applies.
        written: how often each id is in the answer so far.
    """
    rows = jnp.arange(logits.shape[0])[:, None]
    biased = logits.at[rows, options.bias_ids].add(options.bias, mode="drop")
    penalized = penalize_repetition(biased, seen, options.repetition_penalty[:, None])
    penalized = penalized - options.presence_penalty[:, None] * (written > 0).astype(jnp.float32)
    penalized = penalized - options.frequency_penalty[:, None] * written.astype(jnp.float32)
    greedy = jnp.argmax(penalized, axis=-1).astype(jnp.int32)
    is_random = active & (options.temperature > 0)

    def draw() -> tuple[Array, Array]:
        kept = _kept(penalized, options, is_random)
        keys = jax.vmap(jax.random.fold_in)(options.key, count)
        return jax.vmap(jax.random.categorical)(keys, kept).astype(jnp.int32), can_be_chosen_from(kept)

    random, drawn = jax.lax.cond(jnp.any(is_random), draw, lambda: (greedy, jnp.ones_like(is_random)))
    finite = can_be_chosen_from(logits) & can_be_chosen_from(penalized) & (drawn | ~is_random)
    token = jnp.where(finite, jnp.where(is_random, random, greedy), NOT_FINITE)
    logprobs = jax.nn.log_softmax(logits, axis=-1)
    logprob = jnp.take_along_axis(logprobs, jnp.maximum(token, 0)[:, None], axis=-1)[:, 0]
    number = min(MOST_ALTERNATIVES, logits.shape[-1])

    def alternatives() -> tuple[Array, Array]:
        values, ids = jax.lax.top_k(logprobs, number)
        return ids.astype(jnp.int32), values

    def none() -> tuple[Array, Array]:
        shape = (logits.shape[0], number)
        return jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32)

    return Chosen(token, logprob, *jax.lax.cond(jnp.any(active & options.alternatives), alternatives, none))


def _kept(logits: Float32[Array, "R V"], options: RowSampling, is_random: Bool[Array, " R"]) -> Float32[Array, "R V"]:
    """The logits to draw from; those of other tokens are -inf. A filter that no random row has is not computed: it
    would change nothing."""
    vocab_size = logits.shape[1]
    temperature = jnp.where(options.temperature > 0, options.temperature, 1.0)[:, None]
    logits = (logits - jnp.max(logits, axis=1, keepdims=True)) / temperature

    def top_k(logits: Array) -> Array:
        least = jnp.take_along_axis(jnp.sort(logits, axis=1), vocab_size - options.top_k[:, None], axis=1)
        return jnp.where(logits >= least, logits, -jnp.inf)

    def top_p(logits: Array) -> Array:
        return jax.vmap(keep_top_p)(logits, options.top_p)

    logits = _if_any(is_random & (options.top_k < vocab_size), top_k, logits)
    logits = _if_any(is_random & (options.top_p < 1), top_p, logits)
    return jax.vmap(keep_min_p)(logits, options.min_p)


def _if_any(rows: Bool[Array, " R"], change: Callable[[Array], Array], logits: Array) -> Array:
    return jax.lax.cond(jnp.any(rows), change, lambda same: same, logits)
