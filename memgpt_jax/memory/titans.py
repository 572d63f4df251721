"""Titans' long-term memory: a small network that learns at test time what surprises it."""

import itertools
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.memory import ProjectedMemoryConfig
from memgpt_jax.memory.base import in_line, linear
from memgpt_jax.memory.projected import ProjectedMemory
from memgpt_jax.ops import Pairs, learn, map_rows, network, unit
from memgpt_jax.shapes import Array, Float, Float32


@dataclass(frozen=True, kw_only=True)
class TitansMemoryConfig(ProjectedMemoryConfig):
    """Titans: a small network per head whose weights are trained on what is written, by surprise with momentum."""

    memory_size: int = 64
    """Width M of the network's hidden layers; with one layer, of its keys. A trained model keeps its size."""
    num_heads: int = 1
    """Heads, each with a network of its own."""
    head_dim: int = 64
    """Width K of a value, per head, and of a key where there is a hidden layer."""
    num_layers: int = 2
    """Layers of the network; 1: a matrix."""
    chunk_length: int = 16
    """Tokens whose gradients are taken at the same weights; a segment has as many equal chunks as it needs."""
    inner_rate: float = 0.25
    """Largest step size: theta = inner_rate sigmoid(W h + b). Networks of a few hidden channels may diverge."""
    rate_bias: float = 0.0
    """Initial bias of the step size's gate."""
    inertia_bias: float = 0.0
    """Initial bias of eta, the share of the momentum that each token keeps. With the other defaults and 2 (eta = 0.88),
    a memory still learns after 10,000 tokens of noise; with 4 (eta = 0.98), the momentum of 50 tokens adds up, and
    reads grow without bound."""
    forget_bias: float = -5.0
    """Initial bias of alpha, the share of what was learned that each token forgets: weights decay towards the initial
    ones."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("memory_size", "num_layers", "chunk_length"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        check(self.inner_rate > 0, f"inner_rate must be positive, got {self.inner_rate}")


class TitansState(NamedTuple):
    """Bytes per row: 8 H P + (writer_conv - 1) D itemsize, with P weights of a network.

    P = M K with one layer, 2 M K with two, and M M more for every further one.
    """

    learned: tuple[Float32[Array, "B H I O"], ...]  # of each layer, D: the weights minus the initial weights
    momentum: tuple[Float32[Array, "B H I O"], ...]  # past surprise S
    tail: Float[Array, "B W-1 D"]  # the tokens before the segment that the Writer's convolution still reaches


class TitansMemory(ProjectedMemory):
    """A network M per head, trained on every token that is written; hidden width M = `memory_size`.

        Reader   r = W_o M(q),   q = unit(W_q x)
        Writer   k = unit(W_k conv(x) + b_k),  v = W_v x + b_v,  loss = |M(k) - v|^2,  per head and token
                 theta = `inner_rate` sigmoid(W_t x + b_t),  eta = sigmoid(W_e x + b_e),  alpha = sigmoid(W_a x + b_a)
                 S' = eta S - theta d loss / d M,   M' = M* + (1 - alpha) (M - M*) + S'

    The gradients of `chunk_length` tokens are taken at the weights before the first of them. The initial weights M* of
    a document are parameters; those of the last layer start at 0, so that an untrained memory reads 0 at first.

    **Decay.** In the paper the weights decay towards 0, M' = (1 - alpha) M + S'. Then a network with hidden layers
    stops learning: the gradient of each layer is proportional to the weights of the others, so once all are 0 they
    stay 0 (with `forget_bias=-5` and two layers, after 3,584 tokens of noise). Here D = M - M* decays, and D is the
    state. After 100,000 tokens of noise, new pairs change the reads 0.99 times as much as those of a fresh memory, and
    0.98 times with three layers; with the paper's decay 0.00 times (`python tests/checkers/after_noise.py 100000 1
    titans "titans of three layers"`).

    Source: Behrouz, Zhong and Mirrokni, "Titans: Learning to Memorize at Test Time" (2025), section 3.
    """

    def __init__(self, config: TitansMemoryConfig, *, d_model: int, segment_length: int, dtype, rngs: nnx.Rngs):
        heads, width, size = config.num_heads, config.head_dim, config.memory_size
        key_width = size if config.num_layers == 1 else width
        super().__init__(
            config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs, key_width=key_width
        )
        normal, constant = jax.nn.initializers.normal, jax.nn.initializers.constant
        gate = partial(linear, d_model, heads, dtype=jnp.float32, rngs=rngs)
        self.rate_gate = gate(bias_init=constant(config.rate_bias))
        self.inertia_gate = gate(bias_init=constant(config.inertia_bias))
        self.forget_gate = gate(bias_init=constant(config.forget_bias))
        widths = [key_width] + [size] * (config.num_layers - 1) + [width]  # of keys, hidden layers, values
        shapes = [(heads, *shape) for shape in itertools.pairwise(widths)]
        initial = [normal(1.0)(rngs.params(), shape) for shape in shapes[:-1]] + [jnp.zeros(shapes[-1])]
        self.initial_weights = nnx.List([nnx.Param(weight.astype(jnp.float32)) for weight in initial])

    def init_state(self, batch_size):
        def zeros():
            shape = (batch_size, self.config.num_heads)
            return tuple(jnp.zeros((*shape, *weight.shape[1:]), jnp.float32) for weight in self.initial_weights)

        return TitansState(zeros(), zeros(), self.conv.init_state(batch_size))

    def read(self, x, state, own, counts):
        weights = tuple(weight[...][None] + d for weight, d in zip(self.initial_weights, state.learned, strict=True))
        read = jax.vmap(jax.vmap(network))(weights, jnp.moveaxis(self._unit(self.query(x)), 2, 1))
        return self.side_by_side(jnp.moveaxis(read, 1, 2)), state

    def write(self, x, state, live):
        batch, length, _ = x.shape
        document = jnp.where(live, 0, -1)
        pairs = self._pairs(x, document, live, state.tail)
        whole = jnp.ones((batch, 1), bool)
        _, learned, momentum = self._run(None, pairs, state, jnp.zeros((batch, 1, length), bool), whole)
        return TitansState(learned, momentum, self.conv.next_tail(x, document, state.tail))

    def sequence(self, segments, state):
        """Equal to the scan over `segment`: only what depends on the weights is left to a scan."""
        x, document, live, open_document, written = in_line(segments)
        begun = jnp.cumsum(segments.reset, axis=2) > 0
        bptt = self.config.bptt_segments
        if bptt is not None:
            state = state._replace(tail=jax.lax.stop_gradient(state.tail))
        pairs = self._pairs(x, document, live, state.tail, None if bptt is None else (bptt + 1) * self.segment_length)
        read, learned, momentum = self._run(x, pairs, state, begun, segments.full, bptt)
        tail = self.conv.next_tail(x, document, state.tail, written, open_document)
        return read.reshape(*begun.shape, -1), TitansState(learned, momentum, tail)

    def stats(self, state):
        def norm(layers):
            return jnp.mean(jnp.sqrt(sum(jnp.sum(layer * layer, axis=(2, 3)) for layer in layers)))

        return {"learned_norm": norm(state.learned), "surprise_norm": norm(state.momentum)} | super().stats(state)

    def _unit(self, x) -> Float32[Array, "B L H K"]:
        """Heads apart, of unit length in float32."""
        return unit(self.heads(x))

    def _pairs(self, x, document, live, tail, stop_every=None) -> Pairs:
        """What L tokens teach, [B, L, H, ...]; those that are not live teach nothing."""
        precise, live = x.astype(jnp.float32), live[..., None]
        return Pairs(
            keys=self._unit(self.key(self.conv(x, document, tail, stop_every))),
            values=self.heads(self.value(x)).astype(jnp.float32),
            rate=jnp.where(live, self.config.inner_rate * jax.nn.sigmoid(self.rate_gate(precise)), 0),
            log_inertia=jnp.where(live, jax.nn.log_sigmoid(self.inertia_gate(precise)), 0),
            log_keep=jnp.where(live, jax.nn.log_sigmoid(-self.forget_gate(precise)), 0),  # log(1 - alpha)
        )

    def _run(self, x, pairs, state, begun, full, bptt=None):
        """The scan over segments, for each row and head alone: reads [B, L, D] of `x`, learned weights and momentum.

        begun [B, S, T]: the token's document began in the segment. full [B, S]: segments that are written.
        """
        batch, num_segments, length = begun.shape
        heads = self.config.num_heads
        num_chunks = -(-length // self.config.chunk_length)
        chunk = -(-length // num_chunks)

        def by_head(a):
            """[B, L, H, ...] -> [B H, S, T, ...]"""
            return jnp.moveaxis(a, 2, 1).reshape(batch * heads, num_segments, length, *a.shape[3:])

        def chunks(a):
            """[B H, S, T, ...] -> [B H, S, chunks, C, ...]; padding teaches nothing."""
            padding = ((0, 0), (0, 0), (0, num_chunks * chunk - length), *((0, 0),) * (a.ndim - 3))
            return jnp.pad(a, padding).reshape(batch * heads, num_segments, num_chunks, chunk, *a.shape[3:])

        def step(initial, carry, segment):
            pairs, query, begun, full, cut = segment
            carry = jax.tree.map(lambda a: jnp.where(cut, jax.lax.stop_gradient(a), a), carry)
            start = jax.tree.map(lambda a: jnp.where(begun[-1], 0, a), carry)
            read = None
            if query is not None:
                read = network(jax.tree.map(jnp.add, initial, carry[0]), query)
                carried = read
                read = jax.lax.cond(
                    begun[-1],
                    lambda: jnp.where(begun[:, None], network(initial, query), carried),
                    lambda: carried,
                )
            after, _ = jax.lax.scan(lambda carry, pairs: (learn(initial, *carry, pairs), None), start, pairs)
            return jax.tree.map(lambda new, old: jnp.where(full, new, old), after, start), read

        number = jnp.arange(num_segments, dtype=jnp.int32)
        cut = jnp.zeros_like(number, bool) if bptt is None else number % (bptt + 1) == 0
        by_segment = (
            jax.tree.map(lambda a: chunks(by_head(a)), pairs),
            None if x is None else by_head(self._unit(self.query(x))),
            jnp.repeat(begun, heads, axis=0),
            jnp.repeat(full, heads, axis=0),
            jnp.broadcast_to(cut, (batch * heads, num_segments)),
        )
        flat = lambda tree: jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), tree)  # noqa: E731
        initial = tuple(jnp.tile(weight[...], (batch, 1, 1)) for weight in self.initial_weights)
        rows = (initial, flat((state.learned, state.momentum)), by_segment)
        scan_row = lambda row: jax.lax.scan(partial(step, row[0]), row[1], row[2])  # noqa: E731
        after, read = map_rows(scan_row, rows, recompute=False)
        if x is not None:
            read = self.side_by_side(jnp.moveaxis(read.reshape(batch, heads, num_segments * length, -1), 1, 2))
        return read, *jax.tree.map(lambda a: a.reshape(batch, heads, *a.shape[1:]), after)
