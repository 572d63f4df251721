"""Base classes of mechanisms that project tokens to queries, keys and values, in heads."""

from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.memory import AttendedMemoryConfig, ProjectedMemoryConfig
from memgpt_jax.memory.base import CallTokens, Memory
from memgpt_jax.memory.linear import linear
from memgpt_jax.memory.writer_conv import WriterConv
from memgpt_jax.ops.attention import normalize
from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32

ProjectedT = TypeVar("ProjectedT", bound=ProjectedMemoryConfig)
AttendedT = TypeVar("AttendedT", bound=AttendedMemoryConfig)


class ProjectedMemory(Memory[ProjectedT]):
    """Base with H heads, G keys and values (`kv_heads`), and a convolution in front of the Writer's keys.

    A mechanism sets `conv`.

    `add_projections` makes q = W_q x, k = W_k conv(x) + b_k, v = W_v x + b_v and W_o, for mechanisms that use these.
    """

    conv: WriterConv

    def add_projections(self, *, rngs: nnx.Rngs, key_width: int | None = None) -> None:
        """Create `query`, `key`, `value`, `output` and `conv`.

        Args:
            rngs: random keys of the initial parameters.
            key_width: width of a key and a query per head; default: `head_dim`, the width of a value.
        """
        config = self.config
        width = config.head_dim if key_width is None else key_width
        project = partial(linear, dtype=self.dtype, rngs=rngs)
        self.query = project(self.d_model, config.num_heads * width, use_bias=False)
        self.key = project(self.d_model, config.kv_heads * width, use_bias=True)
        # Keys start in the space of the queries, and the convolution as a shift by one token, so that from the first
        # step a token reads what followed the entries that resemble it. With unrelated projections, a read of a
        # thousand entries starts as their mean, and its gradient is too small to change that. A key that several heads
        # read starts in the space of the first of them.
        queries = self.heads(self.query.kernel[...])
        self.key.kernel[...] = jnp.copy(queries[:, :: config.num_heads // config.kv_heads].reshape(self.d_model, -1))
        self.value = project(self.d_model, config.kv_heads * config.head_dim, use_bias=True)
        self.output = project(config.num_heads * config.head_dim, self.d_model, use_bias=False)
        self.conv = WriterConv(config.writer_conv, self.d_model, self.dtype)

    def convolve_segment(
        self, x: Float[Array, "B T D"], write_mask: Bool[Array, "B T"], conv_cache: Float[Array, "B reach D"]
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B reach D"]]:
        """conv(x) for a segment that `write` stores, and the cache after it."""
        document = jnp.where(write_mask, 0, -1)
        stop_every = self.gradient_period if self.cuts_by_age else None  # else `sequence` has cut the cache
        return self.conv(x, document, conv_cache, stop_every), self.conv.next_cache(x, document, conv_cache)

    def convolve_call(
        self, call: CallTokens, conv_cache: Float[Array, "B reach D"]
    ) -> tuple[Float[Array, "B L D"], Float[Array, "B reach D"]]:
        """conv(x) for the tokens of a call, and the cache after the last full segment."""
        if self.gradient_period is not None:
            conv_cache = jax.lax.stop_gradient(conv_cache)
        convolved = self.conv(call.x, call.document, conv_cache, self.gradient_period)
        after = self.conv.next_cache(call.x, call.document, conv_cache, call.num_written, call.open_document)
        return convolved, after

    def convolve_own(
        self, x: Float[Array, "B T D"], document: Int32[Array, "B T"], conv_cache: Float[Array, "B reach D"]
    ) -> Float[Array, "B T D"]:
        """conv(x) for the segment of the reading tokens."""
        return self.conv(x, document, conv_cache, self.gradient_period if self.cuts_by_age else None)

    def heads(self, x: Float[Array, "*b HK"], number: int | None = None) -> Float[Array, "*b H K"]:
        """Split the last axis into `number` heads, by default H."""
        number = self.config.num_heads if number is None else number
        return x.reshape(*x.shape[:-1], number, x.shape[-1] // number)

    def side_by_side(self, out: Float[Array, "B Q H K"]) -> Float[Array, "B Q HK"]:
        """Join the heads of a read, in the compute type, for W_o."""
        return out.reshape(*out.shape[:2], out.shape[2] * out.shape[3]).astype(self.dtype)


class AttendedMemory(ProjectedMemory[AttendedT]):
    """Base of mechanisms that read keys and values by attention.

    With `qk_norm`, queries and keys have unit length and queries are scaled by a learned temperature per head;
    otherwise queries are scaled by K^-1/2.
    """

    def initial_log_temperature(self) -> nnx.Param:
        """The logarithm of a temperature per head, [H], initially that of the configuration."""
        return nnx.Param(jnp.full(self.config.num_heads, jnp.log(jnp.float32(self.config.temperature))))

    def add_projections(self, *, rngs: nnx.Rngs, key_width: int | None = None) -> None:
        """`ProjectedMemory.add_projections`, and `log_temperature` with `qk_norm`."""
        super().add_projections(rngs=rngs, key_width=key_width)
        if self.config.qk_norm:
            self.log_temperature = self.initial_log_temperature()

    def scaled(
        self, query: Float[Array, "B Q H K"], log_temperature: Float32[Array, "H"] | None
    ) -> Float[Array, "B Q H K"]:
        """Queries multiplied by exp(log_temperature), or by K^-1/2 without `qk_norm`; in the compute type."""
        if log_temperature is not None:
            query = query * jnp.exp(log_temperature).astype(query.dtype)[None, None, :, None]
        else:
            query = query * jnp.asarray(self.config.head_dim**-0.5, query.dtype)
        return query.astype(self.dtype)

    def queries(self, x: Float[Array, "B Q D"]) -> Float[Array, "B Q H K"]:
        """Normalised and scaled queries."""
        log_temperature = self.log_temperature[...] if self.config.qk_norm else None
        return self.scaled(self.unit(self.heads(self.query(x))), log_temperature)

    def keys_and_values(
        self, x: Float[Array, "B L D"], convolved: Float[Array, "B L D"]
    ) -> tuple[Float[Array, "B L G K"], Float[Array, "B L G K"]]:
        """One entry for each token, from the token and from conv(x)."""
        keys, values = (self.heads(out, self.config.kv_heads) for out in (self.key(convolved), self.value(x)))
        return self.unit(keys).astype(self.dtype), values

    def unit(self, x: Float[Array, "*b K"]) -> Float[Array, "*b K"]:
        """Unit length in float32, or unchanged without `qk_norm`."""
        return normalize(x) if self.config.qk_norm else x
