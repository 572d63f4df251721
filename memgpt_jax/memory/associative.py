"""Fast weights: an associative matrix that every token writes an outer product of its key and value into."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.memory import ProjectedMemoryConfig, Visibility
from memgpt_jax.memory.base import OwnSegment, Segment, flatten_segments
from memgpt_jax.memory.linear import linear
from memgpt_jax.memory.projected import ProjectedMemory
from memgpt_jax.ops.memory import Writes, scan_fast_weight_heads, unit_features
from memgpt_jax.ops.mesh import HEADS, declare_axes
from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32

FeatureMap = Literal["none", "elu", "dpfp"]


@dataclass(frozen=True, kw_only=True)
class AssociativeMemoryConfig(ProjectedMemoryConfig):
    """Fast weights: a matrix per head that holds outer products of keys and values, with a linear or a delta rule."""

    memory_size: int = 64
    """Features M of a key, per head: the rows of the matrix, and the number of orthogonal keys that it distinguishes.
    Except with `dpfp`, M is also the width of the key and query projections, so it is fixed in a trained model."""
    num_heads: int = 1
    """Heads, with one matrix each."""
    head_dim: int = 64
    """Width K of a value, per head: the columns of the matrix; with `dpfp` also of a key before its features."""
    rule: Literal["delta", "linear"] = "delta"
    """Update by a pair: `linear` adds it; `delta` replaces the value that the matrix holds at its key."""
    feature_map: FeatureMap = "none"
    """Features of queries and keys, normalised to unit length: `none`, `elu` (all positive), or `dpfp` (sparse
    products; M, at least 2 K, does not change the number of parameters)."""
    normalize: bool = False
    """Divide a read by the sum of its weights; for the linear rule with `elu` or `dpfp`."""
    gate_bias: float = 0.0
    """Initial bias b_g of the write strength g = sigmoid(W_g x + b_g) of the normalised stream x, one per head."""
    forget: bool = False
    """Let every token scale the matrix by 1 - f, f = sigmoid(W_f x + b_f), before it is written."""
    forget_bias: float = -5.0
    """Initial bias b_f of the forget gate, when `forget` is on."""
    initial_entries: int = 0
    """Number of trainable pairs in the matrix at the start of a document."""
    visibility: Visibility = "segment"
    """A token reads the pairs of earlier `segment`s, or also those of each earlier `token` of its own segment, itself
    included."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.memory_size >= 1, f"memory_size must be at least 1, got {self.memory_size}")
        check(self.initial_entries >= 0, f"initial_entries must be at least 0, got {self.initial_entries}")
        check(
            not self.normalize or (self.rule == "linear" and self.feature_map != "none"),
            "normalize=True needs rule='linear' and feature_map='elu' or 'dpfp', whose features are positive, got "
            f"rule={self.rule!r} and feature_map={self.feature_map!r}",
        )
        check(
            self.feature_map != "dpfp" or self.head_dim >= 2,
            f"feature_map='dpfp' needs a head_dim of at least 2, got {self.head_dim}",
        )
        check(
            self.match_state_bytes is not None or self.memory_size >= self.smallest_memory_size,
            f"feature_map='dpfp' needs a memory_size of at least 2 * head_dim = {2 * self.head_dim}, got "
            f"{self.memory_size}: fewer features do not contain all channels",
        )

    @property
    def smallest_memory_size(self) -> int:
        return 2 * self.head_dim if self.feature_map == "dpfp" else 1


class AssociativeState(NamedTuple):
    """Bytes per row: 4 H M (K + 1 with `normalize`) + (writer_conv - 1) D itemsize."""

    matrix: Float32[Array, "B H M columns"]  # A, K columns; with `normalize`, one column more: the normaliser z
    conv_cache: Float[Array, "B reach D"]  # the last writer_conv - 1 tokens before the segment

    mesh_axes = declare_axes(matrix=(HEADS,))


class AssociativeMemory(ProjectedMemory[AssociativeMemoryConfig]):
    """Associative matrix A [M, K] per head, with phi(.) [M] of unit length and M = `memory_size`.

        Reader   r = W_o A^T phi(W_q x),   with `normalize` A^T phi / (z . phi)
        Writer   g = sigmoid(W_g x + b_g),  k = W_k conv(x) + b_k,  v = W_v x + b_v,  f = sigmoid(W_f x + b_f)
                 linear   A' = (1 - f) A + g phi(k) v^T,   z' = (1 - f) z + g phi(k)
                 delta    A' = (1 - f) A + g phi(k) (v - (1 - f) A^T phi(k))^T

    f = 0 without `forget`. Because phi has unit length, the delta rule replaces the share g of what A holds at k (phi =
    p / sqrt(p . p + 1e-6), so less of it where the features p before normalisation are shorter than about 0.01).

    **Long streams.** After 100,000 tokens of noise, the delta rule, and the linear rule with `forget`, learn new pairs
    as a fresh memory does. The linear rule without `forget` only adds: after n tokens of noise, the share of new pairs
    in a read falls as n^-1/2 (to 0.21 of that in a fresh memory), and with `normalize`, whose z grows with n, the
    change of reads by new pairs falls as 1/n (to 0.00). Figures: `python tests/laws/after_noise.py 100000 1
    associative "linear rule" "linear rule with forget" "normalised linear rule"`.

    Sources: Katharopoulos et al., "Transformers are RNNs" (2020), for the linear rule and z; Schlag et al., "Linear
    Transformers Are Secretly Fast Weight Programmers" (2021), for the delta rule and dpfp; Munkhdalai et al.,
    "Leave No Context Behind" (2024), and Rodkin et al., "Associative Recurrent Memory Transformer" (2024), for a matrix
    beside attention that segments read before they write it; Yang et al., "Gated Delta Networks" (2025), for f.
    """

    gates: ClassVar[tuple[str, ...]] = ("write_gate", "forget_gate")

    def __init__(
        self, config: AssociativeMemoryConfig, *, d_model: int, segment_length: int, dtype: Any, rngs: nnx.Rngs
    ):
        heads, width = config.num_heads, config.head_dim
        key_width = width if config.feature_map == "dpfp" else config.memory_size
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs)
        self.add_projections(rngs=rngs, key_width=key_width)
        constant, normal = jax.nn.initializers.constant, partial(jax.nn.initializers.normal, dtype=jnp.float32)
        gate = partial(linear, d_model, heads, use_bias=True, dtype=jnp.float32, rngs=rngs)
        self.write_gate = gate(bias_init=constant(config.gate_bias))
        if config.forget:
            self.forget_gate = gate(bias_init=constant(config.forget_bias))
        if config.initial_entries:
            shape = (config.initial_entries, heads)
            self.initial_keys = nnx.Param(normal(key_width**-0.5)(rngs.params(), (*shape, key_width)))
            self.initial_values = nnx.Param(normal(1.0)(rngs.params(), (*shape, width)))

    def init_state(self, batch_size: int) -> AssociativeState:
        config = self.config
        columns = config.head_dim + config.normalize
        return AssociativeState(
            jnp.zeros((batch_size, config.num_heads, config.memory_size, columns), jnp.float32),
            self.conv.init_state(batch_size),
        )

    def initial_state(self, batch_size: int) -> AssociativeState:
        state, matrix = self.init_state(batch_size), self._initial_matrix()
        return state if matrix is None else state._replace(matrix=state.matrix + matrix[None])

    def read(
        self,
        x: Float[Array, "B Q D"],
        state: AssociativeState,
        own_segment: OwnSegment,
        update_mask: Bool[Array, "B Q"],
    ) -> tuple[Float[Array, "B Q R"], AssociativeState]:
        if self.config.visibility == "segment":
            query = self._features(self.query(x))
            return self._output(jnp.einsum("bqhm,bhmk->bqhk", query, state.matrix)), state
        convolved = self.convolve_own(own_segment.x, own_segment.document, state.conv_cache)
        writes = self._writes(own_segment.x, convolved, own_segment.document >= 0)
        document = jax.lax.cummax(jnp.maximum(own_segment.document, 0), axis=1)
        not_full = jnp.zeros((x.shape[0], 1), bool)
        read, _ = self._run(own_segment.x[:, None], writes, state, document[:, None], not_full)
        return jnp.take_along_axis(read[:, 0], own_segment.position[..., None], axis=1), state

    def write(
        self, x: Float[Array, "B T D"], state: AssociativeState, write_mask: Bool[Array, "B T"]
    ) -> AssociativeState:
        convolved, conv_cache = self.convolve_segment(x, write_mask, state.conv_cache)
        writes = self._writes(x, convolved, write_mask)
        no_reset, full = jnp.zeros((x.shape[0], 1, x.shape[1]), jnp.int32), jnp.ones((x.shape[0], 1), bool)
        _, matrix = self._run(None, writes, state, no_reset, full)
        return AssociativeState(matrix, conv_cache)

    def sequence(self, segments: Segment, state: AssociativeState) -> tuple[Float[Array, "B S T R"], AssociativeState]:
        """All segments at once, equal to the scan over `segment`: see `scan_fast_weights`."""
        call = flatten_segments(segments)
        convolved, conv_cache = self.convolve_call(call, state.conv_cache)
        writes = self._writes(call.x, convolved, call.document >= 0)
        in_segment = jnp.cumsum(segments.reset, axis=2, dtype=jnp.int32)
        read, matrix = self._run(segments.x, writes, state, in_segment, segments.full, self.bptt_segments)
        return read, AssociativeState(matrix, conv_cache)

    def write_gates(self, x: Float[Array, "B L D"]) -> Float32[Array, "B L"]:
        return jnp.mean(jax.nn.sigmoid(self.write_gate(x.astype(jnp.float32))), axis=-1)

    def stats(self, state: AssociativeState) -> dict[str, Array]:
        matrix = state.matrix[..., : self.config.head_dim]
        norms = jnp.sqrt(jnp.sum(matrix * matrix, axis=(2, 3)))
        return {"matrix_norm_mean": jnp.mean(norms), "matrix_norm_max": jnp.max(norms)} | super().stats(state)

    def _features(self, x: Float[Array, "... HK"]) -> Float32[Array, "B L H M"]:
        return unit_features(self.heads(x), self.config.feature_map, self.config.memory_size)

    def _values(self, values: Float[Array, "... K"]) -> Float32[Array, "... V"]:
        """The values as float32; with `normalize`, a 1 after each (V = K + 1), whose column of the matrix is z."""
        values = values.astype(jnp.float32)
        if not self.config.normalize:
            return values
        return jnp.concatenate([values, jnp.ones_like(values[..., :1])], axis=-1)

    def _initial_matrix(self) -> Float32[Array, "H M K"] | None:
        """A_0 = sum_i phi(k_i) v_i^T over the learned initial entries; None if there are none."""
        config = self.config
        if config.initial_entries == 0:
            return None
        keys = unit_features(self.initial_keys[...], config.feature_map, config.memory_size)
        return jnp.einsum("nhm,nhk->hmk", keys, self._values(self.initial_values[...]))

    def _writes(
        self, x: Float[Array, "B L D"], convolved: Float[Array, "B L D"], present: Bool[Array, "B L"]
    ) -> Writes:
        """The writes of L tokens, [B, L, H, ...]; tokens that are not present have a gate of 0 and forget nothing."""
        log_keep = None
        if self.config.forget:  # log(1 - sigmoid(y)) = log sigmoid(-y)
            log_keep = jax.nn.log_sigmoid(-self.forget_gate(x.astype(jnp.float32)))
            log_keep = jnp.where(present[..., None], log_keep, 0)
        return Writes(
            keys=self._features(self.key(convolved)),
            values=self._values(self.heads(self.value(x))),
            gate=jnp.where(present[..., None], jax.nn.sigmoid(self.write_gate(x.astype(jnp.float32))), 0),
            log_keep=log_keep,
        )

    def _run(
        self,
        x: Float[Array, "B S T D"] | None,
        writes: Writes,
        state: AssociativeState,
        document: Int32[Array, "B S T"],
        full: Bool[Array, "B S"],
        bptt_segments: int | None = None,
    ) -> tuple[Any, Float32[Array, "B H M columns"]]:
        """`scan_fast_weight_heads`: reads [B, S, T, H K] of `x`, and the matrix."""
        query = None if x is None else self._features(self.query(x.reshape(x.shape[0], -1, x.shape[-1])))
        read, matrix = scan_fast_weight_heads(
            writes,
            query,
            state.matrix,
            self._initial_matrix(),
            document,
            full,
            delta=self.config.rule == "delta",
            own=self.config.visibility == "token",
            bptt_segments=bptt_segments,
        )
        if x is None or read is None:
            return None, matrix
        return self._output(read).reshape(*x.shape[:-1], -1), matrix

    def _output(self, read: Float32[Array, "B L H K"]):
        """Heads side by side, for W_o; divided by the normaliser with `normalize`."""
        if self.config.normalize:
            read = read[..., :-1] / (read[..., -1:] + jnp.float32(1e-6))
        return self.side_by_side(read)
