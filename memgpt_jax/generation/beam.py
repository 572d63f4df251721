"""Beam search in which each beam has its own memory."""

import functools
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32

from memgpt_jax import models
from memgpt_jax.config.checks import check
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.generation.decode import Prefilled, fork
from memgpt_jax.generation.sampling import Sampling, can_be_chosen_from
from memgpt_jax.models import ModelState, Params

IMPOSSIBLE = -1e30  # the score of a beam that does not exist; finite, so that no sum or difference of scores is NaN
LARGEST_NORMALIZER = 1e20  # of n ** length_penalty: scores log p / n ** length_penalty stay far from IMPOSSIBLE


class BeamSettings(NamedTuple):
    """Beam search as the transformers library defines it."""

    num_beams: int
    length_penalty: float  # a text of n new tokens scores log p / n ** length_penalty
    early_stopping: bool | Literal["never"]  # when to stop once num_beams texts are finished; see `_cannot_improve`

    def check(self, max_new_tokens: int) -> None:
        """Raise `ValueError` if a value is out of range for answers of this length."""
        penalty, stopping = self.length_penalty, self.early_stopping
        is_number = isinstance(penalty, int | float) and math.isfinite(penalty)
        check(is_number, f"length_penalty must be a number, got {penalty!r}")
        largest = math.log(LARGEST_NORMALIZER) / math.log(max(max_new_tokens, 2))
        check(
            abs(penalty) <= largest,
            f"length_penalty={penalty!r} must be from {-largest:.3g} to {largest:.3g} for {max_new_tokens} new tokens, "
            "so that scores log p / n ** length_penalty are finite",
        )
        is_valid = isinstance(stopping, bool) or stopping == "never"
        check(is_valid, f'early_stopping must be True, False or "never", got {stopping!r}')


class Beams(NamedTuple):
    """The search of B rows with K beams each; sequences hold new tokens, and -1 after the end."""

    count: Int32[Array, ""]  # new tokens of each open beam
    tokens: Int32[Array, "B K N"]
    score: Float32[Array, "B K"]  # log p of the open beams, best first
    finished_tokens: Int32[Array, "B K N"]
    finished_score: Float32[Array, "B K"]  # log p / n ** length_penalty, best first; IMPOSSIBLE where there is none
    done: Bool[Array, "B"]
    finite: Bool[Array, "B"]  # all logits so far were finite
    penalized: Bool[Array, "B*K V"] | None
    state: ModelState  # B * K rows


@functools.partial(jax.jit, static_argnames=("config", "settings", "capacity"))
def beam_search(
    config: ModelConfig,
    params: Params,
    prompts: Prefilled,
    *,
    sampling: Sampling,
    settings: BeamSettings,
    capacity: int,
) -> tuple[Int32[Array, "B K N"], Float32[Array, "B K"]]:
    """The K best continuations found for each row, best first, and their scores.

    Args:
        config, params: the decoder.
        prompts: B prompts that have been read, and the limits of their answers.
        sampling: the options against repetitions; it draws nothing.
        settings: the number of beams K and the rules of the search.
        capacity: N, at least the largest of `prompts.limit`.

    Returns:
        New tokens, -1 after the end, and scores log p / n ** length_penalty. A continuation that does not exist scores
        IMPOSSIBLE. All scores of a row are NaN if its logits were not finite.
    """
    num, model = settings.num_beams, models.from_params(config, params)
    logits, state, limit, penalized, stop, _ = prompts
    batch = logits.shape[0]
    no_tokens = jnp.full((batch, num, capacity), -1, jnp.int32)
    impossible = jnp.full((batch, num), IMPOSSIBLE, jnp.float32)
    first, finite = impossible.at[:, 0].set(0), jnp.ones(batch, bool)
    forked = fork((penalized, state), num)  # all beams are equal at the start: only the first may be continued
    beams = Beams(jnp.int32(0), no_tokens, first, no_tokens, impossible, limit < 1, finite, *forked)

    def step(beams: Beams):
        done = jnp.repeat(beams.done, num)
        token = jnp.take(beams.tokens, beams.count - 1, axis=2).reshape(-1, 1)
        logits, state = model(jnp.maximum(token, 0), beams.state, valid=~done[:, None])
        return _extend(sampling, settings, logits[:, 0], limit, stop, beams._replace(state=state))

    beams = _extend(sampling, settings, fork(logits, num), limit, stop, beams)
    beams = jax.lax.while_loop(lambda beams: ~jnp.all(beams.done), step, beams)
    return beams.finished_tokens, jnp.where(beams.finite[:, None], beams.finished_score, jnp.nan)


def _extend(
    sampling: Sampling, settings: BeamSettings, logits: Array, limit: Array, stop: Array, beams: Beams
) -> Beams:
    """Extend every open beam by every token: keep the best that end as finished, and the best others as open beams."""
    batch, num, capacity = beams.tokens.shape
    vocab_size = logits.shape[-1]
    lengths = jnp.broadcast_to(beams.count, batch * num)
    forbidden = sampling.forbidden(beams.tokens.reshape(batch * num, capacity), lengths, vocab_size)
    log_p = sampling(jax.nn.log_softmax(logits.astype(jnp.float32)), beams.penalized, forbidden)
    finite = (can_be_chosen_from(logits) & can_be_chosen_from(log_p)).reshape(batch, num)
    finite = beams.finite & jnp.all(finite | (beams.score <= IMPOSSIBLE / 2) | beams.done[:, None], axis=1)
    total = beams.score[..., None] + log_p.reshape(batch, num, vocab_size)
    # Each open beam has at most `stops` continuations that end, so num of these do not.
    kept = min(num * max(2, 1 + stop.shape[0]), num * vocab_size)
    score, index = jax.lax.top_k(total.reshape(batch, -1), kept)
    parent, token = index // vocab_size, (index % vocab_size).astype(jnp.int32)
    tokens = jnp.take_along_axis(beams.tokens, parent[..., None], axis=1)
    tokens = jnp.where((jnp.arange(capacity) == beams.count)[None, None], token[..., None], tokens)
    count = beams.count + 1
    at_limit = (count >= limit)[:, None]
    ends = jnp.any(token[..., None] == stop[None, None], axis=-1) | at_limit

    # A text that ends counts if it is among the best num of all; the others could only fill up the list.
    ends_well = ends & (jnp.arange(kept) < num)[None] & ~beams.done[:, None]
    length = count.astype(jnp.float32) ** settings.length_penalty
    ended_score = jnp.where(ends_well & (score > IMPOSSIBLE / 2), score / length, IMPOSSIBLE)
    both = jnp.concatenate([beams.finished_score, ended_score], axis=1)
    finished_score, best = jax.lax.top_k(both, num)
    finished_tokens = jnp.take_along_axis(
        jnp.concatenate([beams.finished_tokens, tokens], axis=1), best[..., None], axis=1
    )

    open_score, best = jax.lax.top_k(jnp.where(ends, IMPOSSIBLE, score), num)
    tokens = jnp.take_along_axis(tokens, best[..., None], axis=1)
    parent = jnp.take_along_axis(parent, best, axis=1)
    rows = (jnp.arange(batch)[:, None] * num + parent).reshape(-1)
    state, penalized = jax.tree.map(lambda x: x[rows], (beams.state, beams.penalized))
    if penalized is not None:
        newest = jnp.take_along_axis(token, best, axis=1).reshape(-1)
        penalized = penalized.at[jnp.arange(batch * num), newest].set(True)
    done = beams.done | ~finite | at_limit[:, 0] | _cannot_improve(settings, open_score, finished_score, count, limit)
    return Beams(count, tokens, open_score, finished_tokens, finished_score, done, finite, penalized, state)


def _cannot_improve(
    settings: BeamSettings, open_score: Array, finished_score: Array, count: Array, limit: Array
) -> Bool[Array, "B"]:
    """Whether the search of a row ends: it has num_beams finished texts and, by `early_stopping`,

    - True: that is enough;
    - False: the best open beam, were it to end now, would not be among them;
    - "never": it could not come among them at any length up to the limit.
    """
    full = finished_score[:, -1] > IMPOSSIBLE / 2
    if settings.early_stopping is True:
        return full
    longest = settings.early_stopping == "never" and settings.length_penalty > 0
    length = (limit if longest else jnp.broadcast_to(count, limit.shape)).astype(jnp.float32)
    reachable = open_score[:, 0] / length**settings.length_penalty
    return full & (reachable <= finished_score[:, -1])
