"""Raw features of tokens, projected to the width of the model: patches of pictures, frames of sound, and vectors."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.features import FeaturesConfig, FramesConfig, PatchesConfig, SensesConfig, VectorsConfig
from memgpt_jax.config.model import PositionedStackConfig
from memgpt_jax.models.arguments import on_host
from memgpt_jax.models.frames import Frames
from memgpt_jax.models.layers import adapted_linear, make_norm
from memgpt_jax.models.projections import Features, Raw
from memgpt_jax.ops.memory import gather_entries
from memgpt_jax.shapes import Array, Flags, Float, Int32, Stream


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
    (2021). The patches of a document are cut into pictures of N = grid[0] grid[1] consecutive patches, which must be
    whole in a call.
    """

    def __init__(self, config: PositionedStackConfig, rngs: nnx.Rngs):
        assert isinstance(config.features, PatchesConfig)
        self.config, self.dtype = config.features, jnp.dtype(config.dtype)
        widths = (self.config.channels, *self.config.stem)
        pairs = zip(widths, self.config.stem, strict=False)
        self.stem = nnx.List([adapted_linear(config, 9 * d_in, d_out, rngs) for d_in, d_out in pairs])
        self.norms = nnx.List([make_norm(config, width, rngs) for width in self.config.stem])
        d_in = widths[-1] if self.config.stem else self.config.size
        self.projection = adapted_linear(config, d_in, config.d_model, rngs)

    def __call__(self, features: Raw, state: Any, present: Flags, reset: Flags, valid: Flags) -> tuple[Stream, Any]:
        x = features.astype(self.dtype)
        return self.projection(self._convolved(x, present, reset) if self.config.stem else x), state

    def _convolved(self, x: Float[Array, "B L F"], present: Flags, reset: Flags) -> Float[Array, "B L C"]:
        """The stem. A patch of a picture that is not whole in the call is NaN, with values on the host an error."""
        (rows, columns), size = self.config.grid, self.config.patch_size
        found = pictures(present, reset, rows * columns)
        wrong = on_host(present & (found.place < 0))
        check(
            wrong is None or not wrong.any(),
            f"features.stem: a picture must be whole in a call, all its {rows * columns} patches in one document",
        )
        x = gather_entries(x, found.patches)
        x = x.reshape(-1, rows, columns, self.config.channels, size, size).transpose(0, 1, 4, 2, 5, 3)
        x = x.reshape(-1, self.config.height, self.config.width, self.config.channels)
        first = len(self.stem) - (size.bit_length() - 1)  # with stride 2
        for index, (kernel, normalise) in enumerate(zip(self.stem, self.norms, strict=True)):
            x = jax.nn.gelu(normalise(kernel(neighbours(x, stride=1 + (index >= first)))))
        x = gather_entries(x.reshape(len(present), found.patches.shape[1], -1), jnp.maximum(found.place, 0))
        return jnp.where((present & (found.place < 0))[..., None], jnp.nan, x)


class Pictures(NamedTuple):
    """The whole pictures in a call, P in a row at most."""

    patches: Int32[Array, "B P*N"]
    """The token of each patch, picture by picture; any tokens in place of pictures that there are not."""
    place: Int32[Array, "B L"]
    """The place of each token in `patches`; -1 if it is no patch of a whole picture."""


def pictures(present: Flags, reset: Flags, size: int) -> Pictures:
    """The pictures of `size` consecutive patches of each document, P = max(1, L // size).

    Args:
        present: True for the tokens that are patches.
        reset: True for the first token of a document.
        size: N, patches of a picture.
    """

    def earlier(flags: Flags) -> Int32[Array, "B L"]:
        return jnp.cumsum(flags, axis=1, dtype=jnp.int32) - flags.astype(jnp.int32)

    length = present.shape[1]
    number = max(1, length // size)
    before = earlier(present)
    rank = before - jax.lax.cummax(jnp.where(reset, before, 0), axis=1)  # the patch of its document that a token is
    document = jnp.where(present, jnp.cumsum(reset, axis=1, dtype=jnp.int32), -1)
    order = jnp.argsort(~present, axis=1, stable=True)  # patches come first
    ranks, documents = (jnp.take_along_axis(array, order, axis=1) for array in (rank, document))
    last = jnp.pad(documents, ((0, 0), (0, size)), constant_values=-1)[:, size - 1 : size - 1 + length]
    whole = (documents >= 0) & (ranks % size == 0) & (last == documents)  # at the first patch of a whole picture
    firsts = jnp.argsort(~whole, axis=1, stable=True)[:, :number]
    places = firsts[..., None] + jnp.arange(size, dtype=jnp.int32)[None, None]
    places = jnp.minimum(places, length - 1).reshape(len(present), number * size)
    first = jnp.clip(before - rank % size, 0, length - 1)  # of the picture of each token, among the patches
    picture, is_whole = (jnp.take_along_axis(array, first, axis=1) for array in (earlier(whole), whole))
    place = jnp.where(present & is_whole, picture * size + rank % size, -1)
    return Pictures(jnp.take_along_axis(order, places, axis=1), place)


def neighbours(x: Float[Array, "N Y X C"], *, stride: int) -> Float[Array, "N Y/s X/s 9*C"]:
    """The 3x3 pixels around every `stride`-th pixel, 0 outside of the picture.

    A matmul follows: inside a loop, XLA's convolution on CPU took 15 times as long.
    """
    (_, height, width, _), padded = x.shape, jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    parts = [(slice(y, y + height, stride), slice(x, x + width, stride)) for y in range(3) for x in range(3)]
    return jnp.concatenate([padded[:, rows, columns] for rows, columns in parts], axis=-1)


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
