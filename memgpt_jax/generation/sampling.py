"""Choosing the next token: pure functions on logits [..., V] that compose."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Float32, Int32


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

    The most probable token always stays. Holtzman et al. 2020, "The curious case of neural text degeneration".
    """
    descending = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
    probabilities = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities  # mass of the strictly more probable tokens
    inside = (before < p).at[..., 0].set(True)
    threshold = jnp.min(jnp.where(inside, descending, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= threshold, logits, -jnp.inf)


def keep_min_p(logits: Float[Array, "... V"], p: float) -> Float[Array, "... V"]:
    """Rule out (-inf) tokens less probable than p times the most probable one.

    Nguyen et al. 2024, "Turning up the heat: min-p sampling".
    """
    return jnp.where(logits >= jnp.max(logits, axis=-1, keepdims=True) + math.log(p), logits, -jnp.inf)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen: greedily without temperature and filters, else drawn at random.

    In this order: repetition penalty, temperature, top-k, top-p, min-p. `ValueError` for values out of range.
    """

    temperature: float | None = None
    """Softmax temperature; 0: greedy. Default: 1 with a filter, else greedy."""
    top_k: int | None = None
    """Draw among the k most probable tokens only."""
    top_p: float | None = None
    """Draw among the fewest tokens that hold this probability together."""
    min_p: float | None = None
    """Draw among tokens with at least this share of the most probable one's probability."""
    repetition_penalty: float | None = None
    """Above 1: tokens of the prompt and of the answer become less likely. Acts on greedy and beam search too."""

    def __post_init__(self):
        valid = {
            "temperature": ("at least 0 (0: the most probable token)", lambda x: x >= 0),
            "top_k": ("a whole number of at least 1", lambda x: x >= 1 and x == int(x)),
            "top_p": ("above 0 and at most 1", lambda x: 0 < x <= 1),
            "min_p": ("above 0 and at most 1", lambda x: 0 < x <= 1),
            "repetition_penalty": ("above 0", lambda x: x > 0),
        }
        for name, (range_, is_valid) in valid.items():
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and is_valid(value)):
                raise ValueError(f"{name} must be {range_}, got {value}")
        if self.temperature == 0 and self.filters:
            raise ValueError(f"temperature=0 takes the most probable token, which leaves {self.filters} nothing to do")

    @property
    def filters(self) -> dict[str, float]:
        """The filters that are given."""
        values = {name: getattr(self, name) for name in ("top_k", "top_p", "min_p")}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0 or (self.temperature is None and not self.filters)

    def __call__(self, logits: Float[Array, "... V"], seen: Bool[Array, "... V"] | None) -> Float32[Array, "... V"]:
        """The logits to choose from; `seen` marks the tokens that a repetition penalty falls on."""
        logits = logits.astype(jnp.float32)
        if self.repetition_penalty is not None:
            logits = penalize_repetition(logits, seen, self.repetition_penalty)
        if self.is_greedy:
            return logits
        if self.temperature is not None:
            logits = logits / self.temperature
        for name, keep in (("top_k", keep_top_k), ("top_p", keep_top_p), ("min_p", keep_min_p)):
            if name in self.filters:
                logits = keep(logits, self.filters[name])
        return logits

    def choose(
        self, keys: Array, logits: Float[Array, "B V"], seen: Bool[Array, "B V"] | None = None
    ) -> Int32[Array, "B"]:
        """Each row's next token; `keys` [B] are the rows' own PRNG keys."""
        logits = self(logits, seen)
        if self.is_greedy:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)
