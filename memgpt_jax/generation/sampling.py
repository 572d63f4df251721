"""Choosing the next token: pure functions on logits [..., V] that compose."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Float32, Int32

from memgpt_jax.config.checks import check, whole

NOT_FINITE = -2
"""The id in place of the next token of a row whose logits are not finite."""


def can_be_chosen_from(logits: Float[Array, "... V"]) -> Bool[Array, "..."]:
    """Whether a token can be chosen from logits: none is NaN or +inf, and not all are -inf (ruled out)."""
    return jnp.isfinite(jnp.max(logits, axis=-1))  # the maximum propagates NaN


def check_rows(finite: Bool[Array, " R"], copies: int = 1) -> None:
    """Raise `ValueError` that names the prompts whose next token cannot be chosen; each has `copies` rows."""
    wrong = np.unique(np.flatnonzero(~np.asarray(finite)) // copies)
    check(
        not wrong.size,
        f"there is no next token for prompt {', '.join(map(str, wrong))}: the logits hold NaN or +inf, or are all "
        "-inf. The parameters or the state hold values that are not finite, or a computation overflows",
    )


def penalize_repetition(
    logits: Float[Array, "... V"], seen: Bool[Array, "... V"], penalty: float
) -> Float[Array, "... V"]:
    """Make tokens that were seen less likely: positive logits are divided by the penalty, negative ones multiplied.

    Keskar et al. 2019, "CTRL", section 4.1. A penalty of 1 changes nothing.
    """
    penalized = jnp.where(logits > 0, logits / penalty, logits * penalty)
    return jnp.where(seen, penalized, logits)


def keep_top_k(logits: Float[Array, "... V"], k: int) -> Float[Array, "... V"]:
    """Rule out (-inf) all but the k highest logits; ties with the k-th stay in. k above V keeps all."""
    kth = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][..., -1:]
    return jnp.where(logits >= kth, logits, -jnp.inf)


def keep_top_p(logits: Float[Array, "... V"], p: float) -> Float[Array, "... V"]:
    """Rule out (-inf) all but the nucleus: the fewest most probable tokens whose probabilities reach p.

    Among equally probable tokens, those with the lowest ids are kept. At least one token is kept, and with p = 1 all
    are. Holtzman et al. 2020, "The curious case of neural text degeneration".
    """
    descending = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
    probabilities = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities  # the probability of all more probable tokens
    number = jnp.maximum(jnp.sum(before < p, axis=-1, keepdims=True), 1)
    least = jnp.take_along_axis(descending, number - 1, axis=-1)
    equal = logits == least
    left = number - jnp.sum(logits > least, axis=-1, keepdims=True)  # how many of the equal ones are kept
    kept = (logits > least) | (equal & (jnp.cumsum(equal, axis=-1) <= left))
    return jnp.where(kept | (p >= 1), logits, -jnp.inf)


def keep_min_p(logits: Float[Array, "... V"], p: float) -> Float[Array, "... V"]:
    """Rule out (-inf) tokens less probable than p times the most probable one.

    Nguyen et al. 2024, "Turning up the heat: min-p sampling".
    """
    return jnp.where(logits >= jnp.max(logits, axis=-1, keepdims=True) + jnp.log(jnp.float32(p)), logits, -jnp.inf)


VALID = {
    "temperature": ("0 (the most probable token), or from 1e-6 to 1e6", lambda x: x == 0 or 1e-6 <= x <= 1e6),
    "top_p": ("above 0 and at most 1", lambda x: 0 < x <= 1),
    "min_p": ("from 0 to 1", lambda x: 0 <= x <= 1),
    "repetition_penalty": ("from 1e-30 to 1e30", lambda x: 1e-30 <= x <= 1e30),
}


def _checked(name: str, value) -> float | int | None:
    """The value of a `Sampling` field as a number; None where it does nothing."""
    if name == "top_k":
        return whole(name, value, 0) or None
    valid, is_valid = VALID[name]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    check(is_valid(number), f"{name} must be {valid}, got {value!r}")
    return None if name == "min_p" and number == 0 else number


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["temperature", "top_p", "min_p", "repetition_penalty"],
    meta_fields=["top_k"],
)
@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen: greedily without temperature and filters, else drawn at random.

    In this order: repetition penalty, temperature, top-k, top-p, min-p. `ValueError` for values out of range. A pytree:
    other numbers for the same filters do not compile anything again, but for `top_k`.
    """

    temperature: float | None = None
    """Softmax temperature; 0: greedy. Default: 1 with a filter, else greedy."""
    top_k: int | None = None
    """Draw among the k most probable tokens only, and those as probable as the k-th; 0: all."""
    top_p: float | None = None
    """Draw among the fewest tokens that hold this probability together; of equal ones, the lowest ids."""
    min_p: float | None = None
    """Draw among tokens with at least this share of the most probable one's probability; 0: all."""
    repetition_penalty: float | None = None
    """Above 1: tokens of the prompt and of the answer become less likely, except the id that begins the document. It
    also acts on greedy and beam search."""

    def __post_init__(self):
        values = {name: value for name, value in vars(self).items() if value is not None}
        if any(isinstance(value, jax.core.Tracer) or type(value) is object for value in values.values()):
            return  # taken apart and put together again inside a transformation
        for name, value in values.items():
            object.__setattr__(self, name, _checked(name, value))
        if self.temperature == 0:
            check(not self.filters, f"temperature=0 takes the most probable token: {self.filters} have nothing to do")
            object.__setattr__(self, "temperature", None)

    @property
    def filters(self) -> dict[str, float]:
        """The filters that are given."""
        values = {name: getattr(self, name) for name in ("top_k", "top_p", "min_p")}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature is None and not self.filters

    def __call__(self, logits: Float[Array, "... V"], seen: Bool[Array, "... V"] | None) -> Float32[Array, "... V"]:
        """The logits to choose from; `seen` marks the tokens that a repetition penalty falls on."""
        logits = logits.astype(jnp.float32)
        if self.repetition_penalty is not None:
            logits = penalize_repetition(logits, seen, self.repetition_penalty)
        if self.is_greedy:
            return logits
        if self.temperature is not None:
            logits = (logits - jnp.max(logits, axis=-1, keepdims=True)) / self.temperature
        for name, keep in (("top_k", keep_top_k), ("top_p", keep_top_p), ("min_p", keep_min_p)):
            if name in self.filters:
                logits = keep(logits, self.filters[name])
        return logits

    def choose(
        self, keys: Array, logits: Float[Array, "B V"], seen: Bool[Array, "B V"] | None = None
    ) -> Int32[Array, "B"]:
        """Each row's next token; `keys` [B] are the rows' own PRNG keys. NOT_FINITE where the logits are not."""
        kept = self(logits, seen)
        token = jnp.argmax(kept, axis=-1) if self.is_greedy else jax.vmap(jax.random.categorical)(keys, kept)
        finite = can_be_chosen_from(logits) & can_be_chosen_from(kept)
        return jnp.where(finite, token.astype(jnp.int32), NOT_FINITE)
