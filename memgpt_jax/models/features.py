"""Raw features of tokens, projected to the width of the model: patches of pictures, frames of sound, and vectors."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.features import FRAMES, FeaturesConfig, FramesConfig, PatchesConfig, SensesConfig, VectorsConfig
from memgpt_jax.config.model import PositionedStackConfig
from memgpt_jax.models.arguments import on_host
from memgpt_jax.models.layers import adapted_linear, norm
from memgpt_jax.ops.memory import gather_entries
from memgpt_jax.ops.pools import POOLS, Element, pool
from memgpt_jax.shapes import Array, Bool, Flags, Float, Float32, Int32, Stream

Raw = Float32[Array, "B L F"]


class Features(nnx.Module):
    """The projection of features of one kind."""

    config: Any
    """A `FeaturesConfig`."""

    @property
    def parts(self) -> tuple["Features", ...]:
        """The projections of all kinds of features, each with its own token: this one."""
        return (self,)

    def init_state(self, batch_size: int) -> Any:
        """The state before the first token, batch axis first. Default: none."""
        return ()

    def __call__(self, features: Raw, state: Any, present: Flags, reset: Flags, valid: Flags) -> tuple[Stream, Any]:
        """The projected features [B, L, D], and the state after the call.

        Args:
            features: 0 where `present` is False.
            state: the state after the previous call.
            present: True for the tokens that have features.
            reset: True for the first token of a document.
            valid: False for padding on the right.
        """
        raise NotImplementedError


class Vectors(Features):
    """y = W x of each vector x."""

    def __init__(self, config: PositionedStackConfig, rngs: nnx.Rngs):
        assert config.features is not None
        self.config, self.dtype = config.features, jnp.dtype(config.dtype)
        self.projection = adapted_linear(config, self.config.size, config.d_model, rngs)

    def __call__(self, features: Raw, state: Any, present: Flags, reset: Flags, valid: Flags) -> tuple[Stream, Any]:
        return self.projection(features.astype(self.dtype)), state


class Patches(Features):
    """y = W x of each patch x; with a stem, x is a pixel of the convolved picture.

    stem: for each width, p <- gelu(norm(conv_3x3(p))), Xiao et al., "Early Convolutions Help Transformers See Better"
    (2021). The patches of a row of the batch are cut into pictures of N = grid[0] grid[1] consecutive patches.
    """

    def __init__(self, config: PositionedStackConfig, rngs: nnx.Rngs):
        assert isinstance(config.features, PatchesConfig)
        self.config, self.dtype = config.features, jnp.dtype(config.dtype)
        widths = (self.config.channels, *self.config.stem)
        pairs = zip(widths, self.config.stem, strict=False)
        self.stem = nnx.List([adapted_linear(config, 9 * d_in, d_out, rngs) for d_in, d_out in pairs])
        self.norms = nnx.List([norm(config, width, rngs) for width in self.config.stem])
        d_in = widths[-1] if self.config.stem else self.config.size
        self.projection = adapted_linear(config, d_in, config.d_model, rngs)

    def __call__(self, features: Raw, state: Any, present: Flags, reset: Flags, valid: Flags) -> tuple[Stream, Any]:
        x = features.astype(self.dtype)
        return self.projection(self._convolved(x, present) if self.config.stem else x), state

    def _convolved(self, x: Float[Array, "B L F"], present: Flags) -> Float[Array, "B L C"]:
        """The stem. A patch beyond the whole pictures that fit into the call is NaN."""
        (rows, columns), size, length = self.config.grid, self.config.patch_size, x.shape[1]
        number = max(1, length // (rows * columns))  # pictures of a row of the batch
        rank = jnp.cumsum(present, axis=1, dtype=jnp.int32) - 1
        order = jnp.argsort(~present, axis=1, stable=True)[:, : number * rows * columns]  # patches come first
        x = gather_entries(x, order)
        x = jnp.pad(x, ((0, 0), (0, number * rows * columns - x.shape[1]), (0, 0)))
        x = x.reshape(-1, rows, columns, self.config.channels, size, size).transpose(0, 1, 4, 2, 5, 3)
        x = x.reshape(-1, self.config.height, self.config.width, self.config.channels)
        first = len(self.stem) - (size.bit_length() - 1)  # with stride 2
        for index, (kernel, normalise) in enumerate(zip(self.stem, self.norms, strict=True)):
            x = jax.nn.gelu(normalise(kernel(neighbours(x, stride=1 + (index >= first)))))
        x = x.reshape(len(present), number * rows * columns, -1)
        beyond = (rank >= x.shape[1])[..., None]
        return jnp.where(beyond, jnp.nan, gather_entries(x, jnp.clip(rank, 0, x.shape[1] - 1)))


def neighbours(x: Float[Array, "N Y X C"], *, stride: int) -> Float[Array, "N Y/s X/s 9*C"]:
    """The 3x3 pixels around every `stride`-th pixel, 0 outside of the picture.

    A matmul follows: inside a loop, XLA's convolution on CPU took 15 times as long.
    """
    (_, height, width, _), padded = x.shape, jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    parts = [(slice(y, y + height, stride), slice(x, x + width, stride)) for y in range(3) for x in range(3)]
    return jnp.concatenate([padded[:, rows, columns] for rows, columns in parts], axis=-1)


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


class Senses(Features):
    """Patches and frames in one stream."""

    def __init__(self, config: PositionedStackConfig, rngs: nnx.Rngs):
        assert isinstance(config.features, SensesConfig)
        self.config = config.features
        self.pictures = Patches(replace(config, features=self.config.pictures), rngs)
        self.sound = Frames(replace(config, features=self.config.sound), rngs)

    @property
    def parts(self) -> tuple[Features, ...]:
        return self.pictures, self.sound

    def init_state(self, batch_size: int) -> Any:
        return self.sound.init_state(batch_size)  # patches have none


MODULES: dict[type[FeaturesConfig], Callable[[PositionedStackConfig, nnx.Rngs], Features]] = {
    PatchesConfig: Patches,
    FramesConfig: Frames,
    VectorsConfig: Vectors,
    SensesConfig: Senses,
}
"""The module of each class of configuration."""


def make_features(config: PositionedStackConfig, rngs: nnx.Rngs) -> Features | None:
    """The projection of the features of a stack; None if it has none."""
    return None if config.features is None else MODULES[type(config.features)](config, rngs)


def read_features(
    module: Features | None, features: Any, tokens: Array, state: Any, reset: Flags, valid: Flags
) -> tuple[Stream | None, Any]:
    """What features add to the embeddings of tokens, 0 for tokens without features, and the state after the call.

    Args:
        module: the projection; None: the model has no features, and nothing is added.
        features: the input `features` [B, L, F]; None: no token has features, and one that should have gives NaN.
        tokens, state, reset, valid: of the call.

    Raises:
        ValueError: the features have a wrong shape or type or, with values on the host, are missing or not finite.
    """
    if module is None:
        check(features is None, "features: this model has none (features=None in its configuration)")
        return None, state
    config = module.config
    present = jnp.isin(tokens, jnp.array(config.tokens)) & valid
    if features is None:
        known = on_host(present)
        check(
            known is None or not known.any(),
            f"features are missing: tokens of id {' and '.join(map(str, config.tokens))} need features "
            f"[B, L, {config.size}]",
        )
        return jnp.where(present, jnp.float32(jnp.nan), 0)[..., None], state
    is_array = isinstance(features, np.ndarray | jax.Array)
    got = f"{features.dtype}{list(features.shape)}" if is_array else f"a {type(features).__name__}"
    shape = (*tokens.shape, config.size)
    fits = is_array and features.shape == shape and jnp.issubdtype(features.dtype, jnp.floating)
    check(fits, f"features must be floats{list(shape)}, [B, L, F] like tokens, got {got}")
    values, known = on_host(features), on_host(present)
    if values is not None and known is not None:
        wrong = np.argwhere(known & ~np.isfinite(values).all(axis=-1))
        check(not len(wrong), f"features are not finite: row {wrong[:1, 0]}, token {wrong[:1, 1]}")
    total = None
    for part in module.parts:
        own = (tokens == part.config.token) & valid
        x = jnp.where(own[..., None], jnp.asarray(features, jnp.float32)[..., : part.config.size], 0)
        y, state = part(x, state, own, reset, valid)
        y = jnp.where(own[..., None], y, 0)
        total = y if total is None else total + y
    return total, state
