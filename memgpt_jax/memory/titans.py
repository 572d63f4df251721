"""Titans' long-term memory: a small network that is trained at test time on the tokens that are written."""

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.memory import ProjectedMemoryConfig
from memgpt_jax.memory.base import OwnSegment, Segment, flatten_segments, stop_gradient_where
from memgpt_jax.memory.linear import linear
from memgpt_jax.memory.projected import ProjectedMemory
from memgpt_jax.ops.attention import map_rows, normalize
from memgpt_jax.ops.memory import Pairs, inner_network, inner_update
from memgpt_jax.ops.mesh import HEADS, declare_axes
from memgpt_jax.shapes import Array, Bool, Float, Float32


@dataclass(frozen=True, kw_only=True)
class TitansMemoryConfig(ProjectedMemoryConfig):
    """Titans: a small network per head, trained on written tokens by gradient descent with momentum."""

    memory_size: int = 64
    """Width M of the network's hidden layers; with one layer, of its keys. A trained model keeps its size."""
    num_heads: int = 1
    """Heads, with one network each."""
    head_dim: int = 64
    """Width K of a value, per head, and of a key if there is a hidden layer."""
    num_layers: int = 2
    """Layers of the network; 1: a matrix."""
    chunk_length: int = 16
    """Largest number of tokens whose gradients are taken at the same weights; chunks of a segment are equal."""
    inner_rate: float = 0.25
    """Largest step size: theta = inner_rate sigmoid(W x + b), x the normalised stream. Networks of a few hidden
    channels may diverge."""
    rate_bias: float = 0.0
    """Initial bias of the step size's gate."""
    inertia_bias: float = 0.0
    """Initial bias of eta, the decay of the momentum per token. With the other defaults and 2 (eta = 0.88), a memory
    still learns after 10,000 tokens of noise; with 4 (eta = 0.98), the momentum sums 50 tokens and reads grow without
    bound."""
    forget_bias: float = -5.0
    """Initial bias of alpha, the decay rate per token of the weights towards their initial values."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("memory_size", "num_layers", "chunk_length"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        check(self.inner_rate > 0, f"inner_rate must be positive, got {self.inner_rate}")


class TitansState(NamedTuple):
    """Bytes per row: 8 H P + (writer_conv - 1) D itemsize, with P weights of a network.

    P = M K with one layer, 2 M K with two, and M M more for every further one.
    """

    learned: tuple[Float32[Array, "B H _ _"], ...]  # D per layer: the weights minus the initial weights
    momentum: tuple[Float32[Array, "B H _ _"], ...]  # S per layer: past surprise
    conv_cache: Float[Array, "B reach D"]  # the last writer_conv - 1 tokens before the segment

    mesh_axes = declare_axes(learned=(HEADS,), momentum=(HEADS,))


class TitansMemory(ProjectedMemory[TitansMemoryConfig]):
    """A network M per head, trained on every token that is written; hidden width M = `memory_size`.

        Reader   r = W_o M(q),   q = unit(W_q x)
        Writer   k = unit(W_k conv(x) + b_k),  v = W_v x + b_v,  loss = |M(k) - v|^2,  per head and token
                 theta = `inner_rate` sigmoid(W_t x + b_t),  eta = sigmoid(W_e x + b_e),  alpha = sigmoid(W_a x + b_a)
                 S' = eta S - s theta d loss / d M,   M' = M* + (1 - alpha) (M - M*) + S'

    `ops.memory.inner_network` defines M, and `ops.memory.inner_update` the factor s <= 1, which bounds the step. The
    gradients of `chunk_length` tokens are taken at the weights before the first of them. The initial weights M* of a
    document are parameters; those of the last layer start at 0, so that an untrained memory reads 0 at first.

    **Decay.** In the paper the weights decay towards 0, M' = (1 - alpha) M + S'. A network with hidden layers then
    stops learning: the gradient of each layer is proportional to the weights of the others, so once all are 0 they stay
    0 (with `forget_bias=-5` and two layers, after 3,584 tokens of noise). Here D = M - M* decays, and D is the state.
    After 100,000 tokens of noise, new pairs change the reads 0.99 times as much as those of an initial memory, and 0.98
    times with three layers; with the paper's decay 0.00 times (`python tests/laws/after_noise.py 100000 1 titans
    "titans of three layers"`).

    Source: Behrouz, Zhong and Mirrokni, "Titans: Learning to Memorize at Test Time" (2025), section 3.
    """

    gates: ClassVar[tuple[str, ...]] = ("rate_gate", "inertia_gate", "forget_gate")

    def __init__(self, config: TitansMemoryConfig, *, d_model: int, segment_length: int, dtype: Any, rngs: nnx.Rngs):
        heads, width, size = config.num_heads, config.head_dim, config.memory_size
        key_width = size if config.num_layers == 1 else width
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs)
        self.add_projections(rngs=rngs, key_width=key_width)
        normal, constant = jax.nn.initializers.normal, jax.nn.initializers.constant
        gate = partial(linear, d_model, heads, use_bias=True, dtype=jnp.float32, rngs=rngs)
        self.rate_gate = gate(bias_init=constant(config.rate_bias))
        self.inertia_gate = gate(bias_init=constant(config.inertia_bias))
        self.forget_gate = gate(bias_init=constant(config.forget_bias))
        widths = [key_width] + [size] * (config.num_layers - 1) + [width]  # widths of keys, hidden layers and values
        shapes = [(heads, *shape) for shape in itertools.pairwise(widths)]
        initial = [normal(1.0)(rngs.params(), shape) for shape in shapes[:-1]] + [jnp.zeros(shapes[-1])]
        self.initial_weights = nnx.List([nnx.Param(weight.astype(jnp.float32)) for weight in initial])

    def init_state(self, batch_size: int) -> TitansState:
        def zeros():
            shape = (batch_size, self.config.num_heads)
            return tuple(jnp.zeros((*shape, *weight.shape[1:]), jnp.float32) for weight in self.initial_weights)

        return TitansState(zeros(), zeros(), self.conv.init_state(batch_size))

    def read(
        self, x: Float[Array, "B Q D"], state: TitansState, own_segment: OwnSegment, update_mask: Bool[Array, "B Q"]
    ) -> tuple[Float[Array, "B Q R"], TitansState]:
        weights = tuple(weight[...][None] + d for weight, d in zip(self.initial_weights, state.learned, strict=True))
        read = jax.vmap(jax.vmap(inner_network))(weights, jnp.moveaxis(self._unit(self.query(x)), 2, 1))
        return self.side_by_side(jnp.moveaxis(read, 1, 2)), state

    def write(self, x: Float[Array, "B T D"], state: TitansState, write_mask: Bool[Array, "B T"]) -> TitansState:
        batch, length, _ = x.shape
        convolved, conv_cache = self.convolve_segment(x, write_mask, state.conv_cache)
        pairs = self._pairs(x, convolved, write_mask)
        no_reset, full = jnp.zeros((batch, 1, length), bool), jnp.ones((batch, 1), bool)
        _, learned, momentum = self._run(None, pairs, state, no_reset, full, cut=jnp.zeros(1, bool))
        return TitansState(learned, momentum, conv_cache)

    def sequence(self, segments: Segment, state: TitansState) -> tuple[Float[Array, "B S T R"], TitansState]:
        """Equal to the scan over `segment`; the scan contains only what depends on the weights."""
        call = flatten_segments(segments)
        convolved, conv_cache = self.convolve_call(call, state.conv_cache)
        pairs = self._pairs(call.x, convolved, call.write_mask)
        after_reset = jnp.cumsum(segments.reset, axis=2) > 0
        cut = self.cut_before(jnp.arange(after_reset.shape[1], dtype=jnp.int32))
        read, learned, momentum = self._run(call.x, pairs, state, after_reset, segments.full, cut)
        return read.reshape(*after_reset.shape, -1), TitansState(learned, momentum, conv_cache)

    def write_gates(self, x: Float[Array, "B L D"]) -> Float32[Array, "B L"]:
        return jnp.mean(jax.nn.sigmoid(self.rate_gate(x.astype(jnp.float32))), axis=-1)

    def stats(self, state: TitansState) -> dict[str, Array]:
        def norm(layers: tuple[Array, ...]) -> Array:
            return jnp.mean(jnp.sqrt(sum(jnp.sum(layer * layer, axis=(2, 3)) for layer in layers)))

        return {"learned_norm": norm(state.learned), "surprise_norm": norm(state.momentum)} | super().stats(state)

    def _unit(self, x: Float[Array, "B L HK"]) -> Float32[Array, "B L H K"]:
        """Heads of a projection, of unit length in float32."""
        return normalize(self.heads(x))

    def _pairs(
        self, x: Float[Array, "B L D"], convolved: Float[Array, "B L D"], write_mask: Bool[Array, "B L"]
    ) -> Pairs:
        """Training pairs of L tokens, [B, L, H, ...]; tokens outside of `write_mask` have no effect."""
        precise, write_mask = x.astype(jnp.float32), write_mask[..., None]
        return Pairs(
            keys=self._unit(self.key(convolved)),
            values=self.heads(self.value(x)).astype(jnp.float32),
            rate=jnp.where(write_mask, self.config.inner_rate * jax.nn.sigmoid(self.rate_gate(precise)), 0),
            log_inertia=jnp.where(write_mask, jax.nn.log_sigmoid(self.inertia_gate(precise)), 0),
            log_keep=jnp.where(write_mask, jax.nn.log_sigmoid(-self.forget_gate(precise)), 0),  # log(1 - alpha)
        )

    def _run(
        self,
        x: Float[Array, "B L D"] | None,
        pairs: Pairs,
        state: TitansState,
        after_reset: Bool[Array, "B S T"],
        full: Bool[Array, "B S"],
        cut: Bool[Array, "S"],
    ) -> tuple[Any, tuple[Array, ...], tuple[Array, ...]]:
        """The scan over segments, for each row and head: reads [B, L, H K] of `x`, learned weights and momentum.

        Args:
            x: tokens that read, [B, L, D]; None: no reads.
            pairs: from `_pairs`.
            state: the state before the segments.
            after_reset: the token's document began in its segment, [B, S, T].
            full: segments that are written, [B, S].
            cut: segments in front of which the gradient into the state stops, [S].
        """
        batch, num_segments, length = after_reset.shape
        heads = self.config.num_heads
        num_chunks = -(-length // self.config.chunk_length)
        chunk = -(-length // num_chunks)

        def by_head(a: Array) -> Array:
            """[B, L, H, ...] -> [B H, S, T, ...]"""
            return jnp.moveaxis(a, 2, 1).reshape(batch * heads, num_segments, length, *a.shape[3:])

        def chunks(a: Array) -> Array:
            """[B H, S, T, ...] -> [B H, S, chunks, C, ...]; padded tokens have no effect."""
            padding = ((0, 0), (0, 0), (0, num_chunks * chunk - length), *((0, 0),) * (a.ndim - 3))
            return jnp.pad(a, padding).reshape(batch * heads, num_segments, num_chunks, chunk, *a.shape[3:])

        def step(initial: tuple[Array, ...], carry: Any, segment: Any) -> tuple[Any, Array | None]:
            pairs, query, after_reset, full, cut = segment
            carry = stop_gradient_where(cut, carry)
            start = jax.tree.map(lambda a: jnp.where(after_reset[-1], 0, a), carry)

            def update(carry: tuple, pairs: Pairs):
                learned, momentum = carry
                return inner_update(initial, learned, momentum, pairs), None

            read = None
            if query is not None:
                read = inner_network(jax.tree.map(jnp.add, initial, carry[0]), query)
                carried = read

                def with_initial():
                    return jnp.where(after_reset[:, None], inner_network(initial, query), carried)

                read = jax.lax.cond(after_reset[-1], with_initial, lambda: carried)
            after, _ = jax.lax.scan(update, start, pairs)
            return jax.tree.map(lambda new, old: jnp.where(full, new, old), after, start), read

        def scan_row(row: Any) -> Any:
            initial, carry, by_segment = row
            return jax.lax.scan(partial(step, initial), carry, by_segment)

        by_segment = (
            jax.tree.map(lambda a: chunks(by_head(a)), pairs),
            None if x is None else by_head(self._unit(self.query(x))),
            jnp.repeat(after_reset, heads, axis=0),
            jnp.repeat(full, heads, axis=0),
            jnp.broadcast_to(cut, (batch * heads, num_segments)),
        )
        initial = tuple(jnp.tile(weight[...], (batch, 1, 1)) for weight in self.initial_weights)
        carry = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), (state.learned, state.momentum))
        rows = (initial, carry, by_segment)
        after, read = map_rows(scan_row, rows, recompute=False)
        if x is not None:
            read = self.side_by_side(jnp.moveaxis(read.reshape(batch, heads, num_segments * length, -1), 1, 2))
        learned, momentum = jax.tree.map(lambda a: a.reshape(batch, heads, *a.shape[1:]), after)
        return read, learned, momentum
