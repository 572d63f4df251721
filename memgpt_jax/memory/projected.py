"""What mechanisms share that project tokens to queries, keys and values."""

from functools import partial

import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.memory import AttendedMemoryConfig, ProjectedMemoryConfig
from memgpt_jax.memory.base import Memory, linear
from memgpt_jax.memory.writer_conv import WriterConv
from memgpt_jax.ops import unit
from memgpt_jax.shapes import Array, Float, Int32


class ProjectedMemory(Memory):
    """Base with the projections q = W_q x, k = W_k conv(x) + b_k, v = W_v x + b_v and W_o, over H heads of width K.

    Keys and queries may have another width than values.
    """

    def __init__(
        self,
        config: ProjectedMemoryConfig,
        *,
        d_model: int,
        segment_length: int,
        dtype,
        rngs: nnx.Rngs,
        key_width: int | None = None,
    ):
        """Further argument: `key_width`, of a key per head; default `head_dim`."""
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs)
        keys = config.num_heads * (config.head_dim if key_width is None else key_width)
        values = config.num_heads * config.head_dim
        project = partial(linear, dtype=self.dtype, rngs=rngs)
        self.query = project(d_model, keys, use_bias=False)
        self.key = project(d_model, keys)
        # Keys start in the space of queries, and the convolution as a shift by one token: from the first step, a token
        # reads what followed the entries that resemble it. From unrelated projections, reading a memory of a thousand
        # entries starts as their mean, and gets too little gradient to become anything else.
        self.key.kernel[...] = jnp.copy(self.query.kernel[...])
        self.value = project(d_model, values)
        self.output = project(values, d_model, use_bias=False)
        self.conv = WriterConv(config.writer_conv, d_model, self.dtype)

    def heads(self, x: Float[Array, "*b HK"]) -> Float[Array, "*b H K"]:
        """Heads apart."""
        return x.reshape(*x.shape[:-1], self.config.num_heads, x.shape[-1] // self.config.num_heads)

    def side_by_side(self, out: Float[Array, "B Q H K"]) -> Float[Array, "B Q HK"]:
        """The heads' reads in the compute type, for W_o."""
        return out.reshape(*out.shape[:2], -1).astype(self.dtype)


class AttendedMemory(ProjectedMemory):
    """Base of those that store keys and values, and read them by attention.

    With `qk_norm`, q and k have unit length, and q is scaled by a learned temperature per head, else by K^-1/2.
    """

    def __init__(self, config: AttendedMemoryConfig, *, d_model: int, segment_length: int, dtype, rngs: nnx.Rngs):
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs)
        if config.qk_norm:
            self.log_temperature = nnx.Param(jnp.full(config.num_heads, jnp.log(jnp.float32(config.temperature))))

    def queries(self, x: Float[Array, "B Q D"]) -> Float[Array, "B Q H K"]:
        """Queries that carry their scale."""
        query = self.unit(self.heads(self.query(x)))
        if self.config.qk_norm:
            query = query * jnp.exp(self.log_temperature[...])[None, None, :, None]
        else:
            query = query * jnp.asarray(self.config.head_dim**-0.5, query.dtype)
        return query.astype(self.dtype)

    def keys_and_values(
        self, x: Float[Array, "B L D"], document: Int32[Array, "B L"], tail: Float[Array, "B W-1 D"]
    ) -> tuple[Float[Array, "B L H K"], Float[Array, "B L H K"]]:
        """One entry for each token; the W - 1 tokens before them (of document 0) are in `tail`."""
        stop = None if self.config.bptt_segments is None else self.segment_length
        convolved = self.conv(x, document, tail, stop)
        return self.unit(self.heads(self.key(convolved))).astype(self.dtype), self.heads(self.value(x))

    def unit(self, x: Float[Array, "*b K"]) -> Float[Array, "*b K"]:
        """Unit length in float32, or unchanged without `qk_norm`."""
        return unit(x) if self.config.qk_norm else x
