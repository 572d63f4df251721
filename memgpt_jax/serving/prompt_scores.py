"""Log-probabilities of the tokens of a prompt, while it is read."""

from collections.abc import Generator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from memgpt_jax import models
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.models import ModelState, Params
from memgpt_jax.serving.requests import FailedError, PromptToken
from memgpt_jax.serving.sampling import MOST_ALTERNATIVES

LENGTH = 128
"""Most tokens of a call: their logits are in memory together."""


def score_pieces(
    config: ModelConfig, params: Params, tokens: list[int], state: ModelState, alternatives: int
) -> Generator[None, None, tuple[list[PromptToken], ModelState]]:
    """Read all tokens but the last in calls of `LENGTH`, and yield after each.

    Args:
        config, params: the decoder.
        tokens: ids, at least one.
        state: one row; it is not modified.
        alternatives: the number of alternatives of each token.

    Returns:
        The score of each token, of which the first has no log-probability, and the state.

    Raises:
        FailedError: a log-probability is not finite.
    """
    scores = [PromptToken(tokens[0], None, [])]
    for start in range(0, len(tokens) - 1, LENGTH):
        part = tokens[start : start + LENGTH + 1]
        padded = np.zeros((2, 1, LENGTH), np.int32)
        padded[0, 0, : len(part) - 1], padded[1, 0, : len(part) - 1] = part[:-1], part[1:]
        logprobs, top_ids, top, state = _score(config, params, padded[0], padded[1], np.int32(len(part) - 1), state)
        columns: Any = [np.asarray(x)[: len(part) - 1] for x in (logprobs, top_ids, top)]
        if not all(np.isfinite(column).all() for column in columns):
            raise FailedError("the log-probabilities of the prompt are not finite")
        scores += [
            PromptToken(token, logprob, list(zip(ids[:alternatives], values[:alternatives], strict=True)))
            for token, logprob, ids, values in zip(part[1:], *(column.tolist() for column in columns), strict=True)
        ]
        yield
    return scores, state


@partial(jax.jit, static_argnums=0)
def _score(
    config: ModelConfig,
    params: Params,
    tokens: Int32[Array, "1 L"],
    following: Int32[Array, "1 L"],
    present: Int32[Array, ""],
    state: ModelState,
) -> tuple[Array, Array, Array, ModelState]:
    """ln p of each following token, the most probable ids and their ln p, and the state after the tokens."""
    valid = jnp.arange(tokens.shape[1])[None, :] < present
    logits, state = models.from_params(config, params)(tokens, state, valid=valid)
    logprobs = jax.nn.log_softmax(logits[0], axis=-1)
    values, ids = jax.lax.top_k(logprobs, min(MOST_ALTERNATIVES, logprobs.shape[-1]))
    return jnp.take_along_axis(logprobs, following[0][:, None], axis=-1)[:, 0], ids, values, state
