"""Frames of sound, two a token, convolved as in Whisper: whole in an encoder, causal in a decoder."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.features import FRAMES, FramesConfig
from memgpt_jax.config.model import PositionedStackConfig
from memgpt_jax.models.layers import adapted_linear
from memgpt_jax.models.projections import Features, Raw
from memgpt_jax.ops.memory import gather_entries
from memgpt_jax.ops.pools import POOLS, Element, pool
from memgpt_jax.shapes import Array, Bool, Flags, Float, Float32, Int32, Stream


class FramesState(NamedTuple):
    """The last two tokens of the open document, and with `center` the sums of its frames."""

    features: Float32[Array, "B 2 F"]
    known: Bool[Array, "B 2"]  # whether there was such a token, with features
    sums: Element | tuple[()]  # of the pool `mean`: of the bands, and of the tokens with features


REACH = 2
"""Tokens before a token that the causal convolutions see: 3 frames."""


class Frames(Features):
    """h_t = gelu(W_1 [x_{t+o}; o] + b_1) at every frame t;  y_i = gelu(W_2 [h_{2i-1}; h_{2i}; h_{2i+1}] + b_2).

    o = -1, 0, 1 in an encoder, where frames outside of the call are 0; o = -2, -1, 0 in a decoder, so that token i sees
    no frame after its own 2i and 2i + 1. Frames of other documents, x and h, are 0.

    With `center`, x_t is the frame minus the mean of the frames of its document up to the end of its token.
    """

    def __init__(self, config: PositionedStackConfig, rngs: nnx.Rngs):
        assert isinstance(config.features, FramesConfig)
        self.config, self.causal, self.dtype = config.features, config.causal, jnp.dtype(config.dtype)
        check(
            self.causal or not self.config.center,
            "features.center=True needs a decoder; for an encoder, data.center=True centers whole sounds",
        )
        width = config.d_model
        self.first = adapted_linear(config, 3 * self.config.num_mels, width, rngs, use_bias=True)
        self.second = adapted_linear(config, 3 * width, width, rngs, use_bias=True)

    def init_state(self, batch_size: int) -> Any:
        if not self.causal:
            return ()
        shape = (batch_size, REACH, self.config.size)
        sums = POOLS["mean"].empty(batch_size, self.config.num_mels + 1) if self.config.center else ()
        return FramesState(jnp.zeros(shape, jnp.float32), jnp.zeros(shape[:2], bool), sums)

    def __call__(self, features: Raw, state: Any, present: Flags, reset: Flags, valid: Flags) -> tuple[Stream, Any]:
        document = jnp.cumsum(reset, axis=1, dtype=jnp.int32)
        x, documents = features, jnp.where(present, document, -1)  # tokens without frames belong to no document
        if self.causal:
            sums = state.sums
            if self.config.center:
                x, sums = centered(x, sums, present, reset, valid)
            x = jnp.concatenate([state.features, x], axis=1)
            documents = jnp.concatenate([jnp.where(state.known, 0, -1), documents], axis=1)
            state = _last_tokens(x, documents, document, valid, sums)
        frames = x.astype(self.dtype).reshape(len(x), -1, self.config.num_mels)
        of_frames = jnp.repeat(documents, FRAMES, axis=1)
        h = jax.nn.gelu(
            self.first(taps(frames, of_frames, (-2, -1, 0) if self.causal else (-1, 0, 1))), approximate=False
        )
        y = jax.nn.gelu(self.second(taps(h, of_frames, (-1, 0, 1), stride=FRAMES)), approximate=False)
        return y[:, -features.shape[1] :], state


def centered(x: Raw, sums: Element, present: Flags, reset: Flags, valid: Flags) -> tuple[Raw, Element]:
    """The frames minus the mean of each band over the document up to and including the token, and the sums after it.

    Args:
        x: frames of tokens, 0 where `present` is False.
        sums: those of the tokens before.
        present, reset, valid: as in `Features.__call__`.
    """
    frames = x.reshape(*x.shape[:2], FRAMES, -1)
    counted = jnp.concatenate([frames.mean(axis=2), present[..., None].astype(jnp.float32)], axis=-1)
    mean, sums = pool(POOLS["mean"], counted, sums, reset, valid)
    share = mean[..., -1:]  # of the tokens that have features
    mean = mean[..., :-1] / jnp.where(share > 0, share, 1.0)
    return jnp.where(present[..., None], (frames - mean[:, :, None]).reshape(x.shape), 0.0), sums


def taps(
    x: Float[Array, "B T C"], document: Int32[Array, "B T"], offsets: Sequence[int], stride: int = 1
) -> Float[Array, "B T/s 3*C"]:
    """The inputs at the given offsets from every `stride`-th place, 0 where they are of another document.

    Inputs are in the order (channel, offset), as in the kernels of torch.
    """
    left, right, length = -min(offsets), max(offsets), x.shape[1]
    x = jnp.pad(x, ((0, 0), (left, right), (0, 0)))
    document = jnp.pad(document, ((0, 0), (left, right)), constant_values=-1)

    def at(array: Array, offset: int) -> Array:
        return array[:, left + offset : left + offset + length : stride]

    centre = at(document, 0)
    found = [jnp.where((at(document, offset) == centre)[..., None], at(x, offset), 0) for offset in offsets]
    return jnp.stack(found, axis=-1).reshape(len(x), -1, len(offsets) * x.shape[2])


def _last_tokens(
    features: Raw, documents: Int32[Array, "B L"], document: Int32[Array, "B L-2"], valid: Flags, sums: Any
) -> FramesState:
    """The state after a call, given the tokens of the state before it and of the call."""
    number = jnp.sum(valid, axis=1, dtype=jnp.int32)[:, None]
    before = jnp.concatenate([jnp.zeros_like(number), document], axis=1)
    is_open = jnp.take_along_axis(before, number, axis=1)
    last, of_last = gather_entries((features, documents), number + jnp.arange(REACH, dtype=jnp.int32)[None])
    known = of_last == is_open
    return FramesState(jnp.where(known[..., None], last, 0), known, sums)
