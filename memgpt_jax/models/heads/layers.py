"""Layers of heads: they transform the hidden states of a stream, each with a state of its own.

A layer is causal on a causal backbone: any division of a document into calls gives the same outputs. Over an encoder,
whose tokens see their whole call, `conv` is centred and `gru` and `lstm` also run backwards within the call.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.heads import StreamHeadConfig
from memgpt_jax.config.registry import Registry
from memgpt_jax.memory.linear import linear
from memgpt_jax.ops.linear import matmul
from memgpt_jax.ops.memory import gather_entries
from memgpt_jax.ops.trees import where_rows
from memgpt_jax.shapes import Array, Flags, Float, Int32, Stream


class HeadLayer(nnx.Module):
    """A layer from width `d_in` to the width W of the head. It holds parameters only."""

    def __init__(self, config: StreamHeadConfig, d_in: int, width: int, *, causal: bool, dtype: Any, rngs: nnx.Rngs):
        """Args: config: of the head; causal: of the backbone; dtype: compute type, parameters are float32."""
        self.config, self.d_in, self.width, self.causal, self.dtype = config, d_in, width, causal, dtype

    def init_state(self, batch_size: int) -> Any:
        """The state at the start of a document, batch axis first, without parameters. Default: none."""
        return ()

    def __call__(self, x: Stream, state: Any, reset: Flags, valid: Flags) -> tuple[Float[Array, "B L W"], Any]:
        """The outputs, and the state after the last valid token.

        Args:
            x: inputs [B, L, d_in].
            state: the state after the previous call.
            reset: True for the first token of a document.
            valid: False for padding on the right, which changes no output of a valid token and no state.
        """
        raise NotImplementedError


class MLP(HeadLayer):
    """y_t = gelu(W x_t + b)."""

    def __init__(self, config: StreamHeadConfig, d_in: int, width: int, *, causal: bool, dtype: Any, rngs: nnx.Rngs):
        super().__init__(config, d_in, width, causal=causal, dtype=dtype, rngs=rngs)
        self.dense = linear(d_in, width, use_bias=True, dtype=dtype, rngs=rngs)

    def __call__(self, x: Stream, state: Any, reset: Flags, valid: Flags) -> tuple[Float[Array, "B L W"], Any]:
        return jax.nn.gelu(self.dense(x)), state


class Tanh(MLP):
    """y_t = tanh(W x_t + b): over the first token, the pooler of BERT."""

    def __call__(self, x: Stream, state: Any, reset: Flags, valid: Flags) -> tuple[Float[Array, "B L W"], Any]:
        return jnp.tanh(self.dense(x)), state


class Convolution(HeadLayer):
    """y_t = gelu(sum_j W_j x_{t-j} + b) over K = `kernel_size` taps within the document.

    Causal: j = 0 ... K-1, and the state holds the last K - 1 inputs of the open document, zeros where there are none.
    Centred: j = -(K-1)/2 ... (K-1)/2 within the call, without a state.
    """

    def __init__(self, config: StreamHeadConfig, d_in: int, width: int, *, causal: bool, dtype: Any, rngs: nnx.Rngs):
        super().__init__(config, d_in, width, causal=causal, dtype=dtype, rngs=rngs)
        size = config.kernel_size
        check(causal or size % 2 == 1, f"head.kernel_size={size} must be odd over an encoder: its taps are centred")
        self.dense = linear(size * d_in, width, use_bias=True, dtype=dtype, rngs=rngs)

    def init_state(self, batch_size: int) -> Float[Array, "B K-1 D"]:
        reach = self.config.kernel_size - 1 if self.causal else 0
        return jnp.zeros((batch_size, reach, self.d_in), self.dtype)

    def __call__(self, x: Stream, state: Any, reset: Flags, valid: Flags) -> tuple[Float[Array, "B L W"], Any]:
        size, length = self.config.kernel_size, x.shape[1]
        margin = 0 if self.causal else size // 2
        document = jnp.cumsum(reset, axis=1, dtype=jnp.int32)
        known = jnp.where(valid, document, -1)  # padding belongs to no document
        inputs = jnp.concatenate([state, x.astype(state.dtype)], axis=1)
        documents = jnp.concatenate([jnp.zeros(state.shape[:2], jnp.int32), known], axis=1)
        inputs = jnp.pad(inputs, ((0, 0), (margin, margin), (0, 0)))
        documents = jnp.pad(documents, ((0, 0), (margin, margin)), constant_values=-1)
        taps = []
        for start in range(size):
            part = slice(start, start + length)
            same = documents[:, part] == document
            taps.append(jnp.where(same[..., None], inputs[:, part], 0))
        y = jax.nn.gelu(self.dense(jnp.concatenate(taps, axis=-1)))
        return y, self._next_state(state, x, document, valid)

    def _next_state(self, state: Array, x: Stream, document: Int32[Array, "B L"], valid: Flags) -> Array:
        reach = state.shape[1]
        if not reach:
            return state
        number = jnp.sum(valid, axis=1, dtype=jnp.int32)[:, None]
        inputs = jnp.concatenate([state, x.astype(state.dtype)], axis=1)
        documents = jnp.concatenate([jnp.zeros(state.shape[:2], jnp.int32), document], axis=1)
        last, of_last = gather_entries((inputs, documents), number + jnp.arange(reach, dtype=jnp.int32)[None])
        open_document = jnp.take_along_axis(jnp.concatenate([jnp.zeros_like(number), document], axis=1), number, axis=1)
        return jnp.where((of_last == open_document)[..., None], last, 0)


class Recurrent(HeadLayer):
    """A recurrent layer: one `_cell` per token, reset at the start of a document.

    Over an encoder, half of the outputs come from a second cell that reads the call backwards, document by document.
    """

    num_gates: int
    """Number of vectors that the cell computes from a token and its state."""
    num_vectors: int
    """Number of vectors of the state."""

    def __init__(self, config: StreamHeadConfig, d_in: int, width: int, *, causal: bool, dtype: Any, rngs: nnx.Rngs):
        super().__init__(config, d_in, width, causal=causal, dtype=dtype, rngs=rngs)
        check(causal or width % 2 == 0, f"head.width={width} must be even over an encoder: half of it reads backwards")
        self.hidden = width if causal else width // 2
        self.input = nnx.List([self._linear(d_in, True, rngs) for _ in range(1 if causal else 2)])
        self.recurrent = nnx.List([self._linear(self.hidden, False, rngs) for _ in range(1 if causal else 2)])

    def _linear(self, d_in: int, use_bias: bool, rngs: nnx.Rngs) -> nnx.Linear:
        return linear(d_in, self.num_gates * self.hidden, use_bias=use_bias, dtype=self.dtype, rngs=rngs)

    def init_state(self, batch_size: int) -> tuple[Float[Array, "B W"], ...]:
        return tuple(jnp.zeros((batch_size, self.hidden), jnp.float32) for _ in range(self.num_vectors))

    def __call__(self, x: Stream, state: Any, reset: Flags, valid: Flags) -> tuple[Float[Array, "B L W"], Any]:
        y, after = self._read(0, x, state, reset, valid)
        if self.causal:
            return y, after
        ends = jnp.concatenate([reset[:, 1:], jnp.zeros_like(reset[:, :1])], axis=1)  # the next document begins
        flipped = [jnp.flip(array, axis=1) for array in (x, ends, valid)]
        backward, _ = self._read(1, flipped[0], self.init_state(len(x)), flipped[1], flipped[2])
        return jnp.concatenate([y, jnp.flip(backward, axis=1)], axis=-1), after

    def _read(self, direction: int, x: Stream, state: Any, reset: Flags, valid: Flags) -> tuple[Array, Any]:
        """Outputs [B, L, hidden] and the state after the last valid token, of one direction."""
        fresh, kernel = self.init_state(len(x)), self.recurrent[direction].kernel[...]

        def step(state: Any, token: tuple[Array, Array, Array]) -> tuple[Any, Array]:
            gates, begins, present = token
            before = where_rows(begins, fresh, state)
            after = self._cell(gates.astype(jnp.float32), matmul(before[0], kernel), before)
            after = where_rows(present, after, state)
            return after, after[0]

        by_token = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), (self.input[direction](x), reset, valid))
        state, y = jax.lax.scan(step, state, by_token)
        return jnp.swapaxes(y, 0, 1).astype(self.dtype), state

    def _cell(self, gates: Array, recurrent: Array, state: Any) -> Any:
        """The state after a token; its first vector is the output.

        Args:
            gates: W x + b [B, num_gates hidden].
            recurrent: U h [B, num_gates hidden], for the first vector h of the state.
            state: vectors [B, hidden].
        """
        raise NotImplementedError


class GRU(Recurrent):
    """A gated recurrent unit: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder" (2014).

    r, z = sigmoid(W x + U h + b);   n = tanh(W_n x + b_n + r U_n h);   h' = (1 - z) n + z h
    """

    num_gates, num_vectors = 3, 1

    def _cell(self, gates: Array, recurrent: Array, state: Any) -> Any:
        (h,) = state
        (r, z, n), (ur, uz, un) = jnp.split(gates, 3, axis=-1), jnp.split(recurrent, 3, axis=-1)
        r, z = jax.nn.sigmoid(r + ur), jax.nn.sigmoid(z + uz)
        return ((1 - z) * jnp.tanh(n + r * un) + z * h,)


class LSTM(Recurrent):
    """A long short-term memory: Hochreiter and Schmidhuber (1997), with a forget gate (Gers et al., 2000).

    i, f, o = sigmoid(W x + U h + b);   c' = f c + i tanh(W_g x + U_g h + b_g);   h' = o tanh(c')
    The forget gate has 1 added, so that the cell initially keeps its state.
    """

    num_gates, num_vectors = 4, 2

    def _cell(self, gates: Array, recurrent: Array, state: Any) -> Any:
        _, c = state
        i, f, o, g = jnp.split(gates + recurrent, 4, axis=-1)
        c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c


class NoLayer(HeadLayer):
    """The identity: the head is linear."""

    def __init__(self, config: StreamHeadConfig, d_in: int, width: int, *, causal: bool, dtype: Any, rngs: nnx.Rngs):
        super().__init__(config, d_in, d_in, causal=causal, dtype=dtype, rngs=rngs)

    def __call__(self, x: Stream, state: Any, reset: Flags, valid: Flags) -> tuple[Float[Array, "B L W"], Any]:
        return x, state


HEAD_LAYERS: Registry[type[HeadLayer]] = Registry("head layer", HeadLayer)
"""The layers of heads by name, as in `StreamHeadConfig.layers`."""
register_head_layer: Callable[[str, None, type[HeadLayer]], None] = HEAD_LAYERS.register
"""`register_head_layer(name, None, module)`: make a layer available in `StreamHeadConfig.layers`."""

register_head_layer("linear", None, NoLayer)
register_head_layer("mlp", None, MLP)
register_head_layer("tanh", None, Tanh)
register_head_layer("conv", None, Convolution)
register_head_layer("gru", None, GRU)
register_head_layer("lstm", None, LSTM)
