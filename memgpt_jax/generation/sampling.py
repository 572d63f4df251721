"""Choosing the next token: pure functions on logits [..., V] that compose."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jaxtyping import Bool, Float, Float32, Int32

from memgpt_jax.config.checks import check, whole

NOT_FINITE = -2
"""The value that replaces the next id of a row whose logits are not finite."""


def can_be_chosen_from(logits: Float[Array, "... V"]) -> Bool[Array, "..."]:
    """Whether logits have a largest finite value: none is NaN or +inf, and not all are -inf."""
    return jnp.isfinite(jnp.max(logits, axis=-1))  # the maximum propagates NaN


def check_rows(finite: Bool[Array | np.ndarray, " R"], copies: int = 1) -> None:
    """Raise `ValueError` with the numbers of the prompts whose logits are not finite; each prompt has `copies` rows."""
    wrong = np.unique(np.flatnonzero(~np.asarray(finite)) // copies)
    check(
        not wrong.size,
        f"there is no next token for prompt {', '.join(map(str, wrong))}: the logits hold NaN or +inf, or are all "
        "-inf. The parameters or the state hold values that are not finite, a computation overflows, or "
        "no_repeat_ngram_size leaves no id",
    )


def penalize_repetition(
    logits: Float[Array, "... V"], penalized: Bool[Array, "... V"], penalty: float | Float[Array, ""]
) -> Float[Array, "... V"]:
    """Divide the positive logits of the `penalized` ids by the penalty and multiply the negative ones by it.

    Keskar et al. 2019, "CTRL", section 4.1. A penalty of 1 changes nothing.
    """
    return jnp.where(penalized, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def repeats_ngram(
    answer: Int32[Array, "R N"], count: Int32[Array, " R"], size: int, vocab_size: int
) -> Bool[Array, "R V"]:
    """The ids that, as the next ones, would end an n-gram of `size` ids that the answer has already.

    Paulus et al. 2017, "A deep reinforced model for abstractive summarization", section 2.5.

    Args:
        answer: ids of R answers.
        count: number of ids of each answer so far; those after them are ignored.
        size: n, at least 1. With 1, no id is chosen twice.
        vocab_size: V.
    """
    if size > answer.shape[1]:
        return jnp.zeros((answer.shape[0], vocab_size), bool)
    start = np.arange(answer.shape[1] - size + 1)
    places = start[:, None] + np.arange(size)

    def of_row(answer: Int32[Array, " N"], count: Int32[Array, ""]) -> Bool[Array, " V"]:
        ngrams = answer[places]
        newest = jax.lax.dynamic_slice(answer, (count - size + 1,), (size - 1,))
        equal = jnp.all(ngrams[:, :-1] == newest[None], axis=1) & (start + size <= count)
        last = jnp.where(equal, ngrams[:, -1], vocab_size)  # out of range: dropped
        return jnp.zeros(vocab_size, bool).at[last].set(True, mode="drop")

    return jax.vmap(of_row)(answer, count)


def keep_top_k(logits: Float[Array, "... V"], k: int) -> Float[Array, "... V"]:
    """Set all but the k highest logits to -inf. Logits equal to the k-th highest are kept; k above V keeps all."""
    kth = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][..., -1:]
    return jnp.where(logits >= kth, logits, -jnp.inf)


def keep_top_p(logits: Float[Array, "... V"], p: float | Float[Array, ""]) -> Float[Array, "... V"]:
    """Set all logits outside the nucleus to -inf: the smallest set of most probable tokens whose probability reaches p.

    Among equally probable tokens, those with the lowest ids are kept. At least one token is kept, and p = 1 keeps all.
    Holtzman et al. 2020, "The curious case of neural text degeneration".
    """
    descending = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
    probabilities = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities  # the probability of all more probable tokens
    number = jnp.maximum(jnp.sum(before < p, axis=-1, keepdims=True), 1)
    least = jnp.take_along_axis(descending, number - 1, axis=-1)
    equal = logits == least
    left = number - jnp.sum(logits > least, axis=-1, keepdims=True)  # number of equal ones to keep
    kept = (logits > least) | (equal & (jnp.cumsum(equal, axis=-1) <= left))
    return jnp.where(kept | (p >= 1), logits, -jnp.inf)


def keep_min_p(logits: Float[Array, "... V"], p: float | Float[Array, ""]) -> Float[Array, "... V"]:
    """Set the logits of tokens less probable than p times the most probable token to -inf.

    Nguyen et al. 2024, "Turning up the heat: min-p sampling".
    """
    return jnp.where(logits >= jnp.max(logits, axis=-1, keepdims=True) + jnp.log(jnp.float32(p)), logits, -jnp.inf)


def _is_temperature(value: float) -> bool:
    return value == 0 or 1e-6 <= value <= 1e6


def _is_top_p(value: float) -> bool:
    return 0 < value <= 1


def _is_min_p(value: float) -> bool:
    return 0 <= value <= 1


def _is_penalty(value: float) -> bool:
    return 1e-30 <= value <= 1e30


VALID = {
    "temperature": ("0 (greedy), or from 1e-6 to 1e6", _is_temperature),
    "top_p": ("above 0 and at most 1", _is_top_p),
    "min_p": ("from 0 to 1", _is_min_p),
    "repetition_penalty": ("from 1e-30 to 1e30", _is_penalty),
}


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling` as keyword arguments of `generate`, `stream_generate` and `Session`."""

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    no_repeat_ngram_size: int | None


def _checked(name: str, value: Any) -> float | int | None:
    """The value of a `Sampling` field as a number; None if it has no effect."""
    if name in ("top_k", "no_repeat_ngram_size"):
        return whole(name, value, 0) or None
    valid, is_valid = VALID[name]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    check(is_valid(number), f"{name} must be {valid}, got {value!r}")
    return None if name == "min_p" and number == 0 else number


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["temperature", "top_p", "min_p", "repetition_penalty"],
    meta_fields=["top_k", "no_repeat_ngram_size"],
)
@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen: greedily without temperature and filters, else at random.

    The order is repetition penalty, repeated n-grams, temperature, top-k, top-p, min-p. Raises `ValueError` for values
    out of range. A pytree: other values of the same options do not recompile anything, except those of `top_k` and
    `no_repeat_ngram_size`.
    """

    temperature: float | None = None
    """Softmax temperature; 0: greedy. Default: 1 with a filter, else greedy."""
    top_k: int | None = None
    """Draw among the k most probable tokens, and those as probable as the k-th; 0: all tokens."""
    top_p: float | None = None
    """Draw among the smallest set of most probable tokens whose probability reaches this; of equal ones, lowest ids."""
    min_p: float | None = None
    """Draw among tokens at least this fraction as probable as the most probable one; 0: all tokens."""
    repetition_penalty: float | None = None
    """Above 1: ids of the prompt and of the answer become less probable, except the id that begins the document. It
    applies to greedy decoding and beam search, too."""
    no_repeat_ngram_size: int | None = None
    """No n-gram of this number of ids is twice in an answer; 0: n-grams are repeated freely. Unlike in the transformers
    library, those of the prompt can be repeated, so that an answer does not depend on what is prompt and what the
    state has read. It applies to greedy decoding and beam search, too."""

    def __post_init__(self) -> None:
        values = {name: value for name, value in vars(self).items() if value is not None}
        if any(isinstance(value, Tracer) or type(value) is object for value in values.values()):
            return  # JAX rebuilds the dataclass from tracers or placeholders inside a transformation
        for name, value in values.items():
            object.__setattr__(self, name, _checked(name, value))
        if self.temperature == 0:
            check(not self.filters, f"temperature=0 is greedy; remove {_listed(self.filters)}")
            object.__setattr__(self, "temperature", None)

    @property
    def filters(self) -> dict[str, float]:
        """The values of top_k, top_p and min_p that are not None."""
        values = {name: getattr(self, name) for name in ("top_k", "top_p", "min_p")}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is chosen, without random draws."""
        return self.temperature is None and not self.filters

    def forbidden(
        self, answer: Int32[Array, "R N"] | None, count: Int32[Array, " R"], vocab_size: int
    ) -> Bool[Array, "R V"] | None:
        """The ids that would repeat an n-gram of the first `count` ids of the answer; None without the option."""
        if self.no_repeat_ngram_size is None or answer is None:
            return None
        return repeats_ngram(answer, count, self.no_repeat_ngram_size, vocab_size)

    def __call__(
        self,
        logits: Float[Array, "... V"],
        penalized: Bool[Array, "... V"] | None = None,
        forbidden: Bool[Array, "... V"] | None = None,
    ) -> Float32[Array, "... V"]:
        """The logits to choose from.

        Args:
            logits: of the next token.
            penalized: ids to which the repetition penalty applies.
            forbidden: ids that are not chosen.
        """
        logits = logits.astype(jnp.float32)
        if self.repetition_penalty is not None and penalized is not None:
            logits = penalize_repetition(logits, penalized, self.repetition_penalty)
        if forbidden is not None:
            logits = jnp.where(forbidden, -jnp.inf, logits)
        if self.is_greedy:
            return logits
        if self.temperature is not None:
            logits = (logits - jnp.max(logits, axis=-1, keepdims=True)) / self.temperature
        if self.top_k is not None:
            logits = keep_top_k(logits, self.top_k)
        if self.top_p is not None:
            logits = keep_top_p(logits, self.top_p)
        if self.min_p is not None:
            logits = keep_min_p(logits, self.min_p)
        return logits

    def choose(
        self,
        keys: Array,
        logits: Float[Array, "B V"],
        penalized: Bool[Array, "B V"] | None = None,
        forbidden: Bool[Array, "B V"] | None = None,
    ) -> Int32[Array, "B"]:
        """The next token of each row, NOT_FINITE if its logits are not finite or all ids are forbidden.

        Args:
            keys: [B] one PRNG key per row.
            logits, penalized, forbidden: as in a call.
        """
        kept = self(logits, penalized, forbidden)
        token = jnp.argmax(kept, axis=-1) if self.is_greedy else jax.vmap(jax.random.categorical)(keys, kept)
        finite = can_be_chosen_from(logits) & can_be_chosen_from(kept)
        return jnp.where(finite, token.astype(jnp.int32), NOT_FINITE)
