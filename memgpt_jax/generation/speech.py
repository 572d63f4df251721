"""Speech: a decoder with a `FramesHeadConfig` says what a prompt asks for, frame after frame."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check
from memgpt_jax.config.features import FRAMES
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.data.progress_bar import track
from memgpt_jax.shapes import Array, Flags, Float32, Int32, Tokens


class Speech(NamedTuple):
    """What was said."""

    frames: np.ndarray
    """Log-mel frames, float32 [T, M]."""
    finished: bool
    """False: the most tokens were said before the end."""


def speak(
    config: HeadedConfig,
    params: models.Params,
    prompts: Sequence[np.ndarray],
    *,
    rows: int,
    longest: int,
    noun: str = "",
) -> list[Speech]:
    """The frames after each prompt. The state of the model has a constant size, whatever is said.

    Each token reads the frames that the token before it predicted, until one predicts the end. At least one token is
    said. The outputs are those of one call with the same frames.

    Args:
        config: a decoder with features and a head for frames.
        params: its parameters.
        prompts: the ids [n] before the frames, such as `SpeechSynthesisConfig.prompt`.
        rows: prompts that are spoken at the same time.
        longest: maximum number of tokens of a sound, two frames each.
        noun: of the prompts, for a progress bar; empty: no bar.

    Raises:
        ValueError: a frame is NaN or infinite.
    """
    found: list[Any] = [None] * len(prompts)
    by_length = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    groups = [by_length[first : first + rows] for first in range(0, len(prompts), rows)]
    size = 1 << (max(map(len, prompts), default=1) - 1).bit_length()  # a power of two: few shapes are compiled
    for group in track(groups, noun) if noun else groups:
        tokens = np.zeros((rows, size), np.int32)
        for row, index in enumerate(group):
            tokens[row, : len(prompts[index])] = prompts[index]
        sizes = np.array([*(len(prompts[index]) for index in group), *[1] * (rows - len(group))], np.int32)
        frames, lengths, ended = map(np.asarray, _speak(config, longest, params, tokens, sizes, len(group)))
        for row, index in enumerate(group):
            said = frames[row, : lengths[row]]
            check(bool(np.isfinite(said).all()), "a frame that the model predicts is NaN or infinite")
            found[index] = Speech(said.reshape(FRAMES * len(said), -1), bool(ended[row]))
    return found


class _Said(NamedTuple):
    """What has been said, and what is said next."""

    number: Int32[Array, ""]  # of tokens
    outputs: Float32[Array, "B C"]  # at the last token
    frames: Float32[Array, "B N F"]
    lengths: Int32[Array, "B"]  # tokens of the sounds that have ended
    ended: Flags
    state: Any


@functools.partial(jax.jit, static_argnums=(0, 1))
def _speak(
    config: HeadedConfig, longest: int, params: Any, tokens: Tokens, sizes: Int32[Array, "B"], used: Int32[Array, ""]
) -> tuple[Float32[Array, "B N F"], Int32[Array, "B"], Flags]:
    """The frames of each prompt, the number of its tokens, and whether it has ended. Args: used: number of rows."""
    model, rows = models.functional(config), tokens.shape[0]
    places = jnp.arange(tokens.shape[1])[None]
    reset = jnp.broadcast_to(places == 0, tokens.shape)

    def read(tokens: Tokens, features: Array, state: Any, **flags: Array) -> tuple[Array, Any]:
        outputs, state = model.apply(params, tokens, state, features=features, **flags)
        return outputs.astype(jnp.float32), state

    width = config.last_stack.features.size  # pyright: ignore[reportAttributeAccessIssue]
    outputs, state = read(
        tokens, jnp.zeros((*tokens.shape, width)), model.init_state(rows), reset=reset, valid=places < sizes[:, None]
    )
    first = jnp.take_along_axis(outputs, (sizes - 1)[:, None, None], axis=1)[:, 0]
    begin = _Said(
        jnp.int32(0),
        first,
        jnp.zeros((rows, longest, width), jnp.float32),
        jnp.full(rows, longest, jnp.int32),
        jnp.arange(rows) >= used,
        state,
    )

    def step(said: _Said) -> _Said:
        spoken = said.outputs[:, :-1]
        frames = jax.lax.dynamic_update_index_in_dim(said.frames, spoken, said.number, axis=1)
        outputs, state = read(jnp.zeros((rows, 1), jnp.int32), spoken[:, None], said.state)
        number, ends = said.number + 1, (outputs[:, 0, -1] > 0) & ~said.ended
        lengths = jnp.where(ends, number, said.lengths)
        return _Said(number, outputs[:, 0], frames, lengths, said.ended | ends, state)

    said = jax.lax.while_loop(lambda said: (said.number < longest) & ~said.ended.all(), step, begin)
    return said.frames, said.lengths, said.ended
