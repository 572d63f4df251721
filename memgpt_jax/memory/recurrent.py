"""Memories that are read and written by every token in turn, by a controller through an interface vector."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config_memory import RecurrentMemoryConfig
from memgpt_jax.memory.base import Memory, State, where_rows
from memgpt_jax.ops import flat_dot_general
from memgpt_jax.shapes import Array, Float32

Interface = Any  # a NamedTuple of float32 arrays: what one token asks of the slots


class Controller(NamedTuple):
    """Bytes per row: 4 (2 C + R W)."""

    hidden: Float32[Array, "B C"]
    cell: Float32[Array, "B C"]
    reads: Float32[Array, "B R W"]  # of the last token


class RecurrentState(NamedTuple):
    """The memory after the last token, whether its segment is full or not."""

    slots: State
    controller: Controller | None  # None: the interface is linear in the token


class RecurrentMemory(Memory):
    """Base of the memories that change from token to token, so that segments mean nothing to them.

        none   xi_t = W_xi x_t + b_xi                                                  y_t = W_y r_t
        lstm   h_t, c_t = LSTM([x_t; r_(t-1)], h_(t-1), c_(t-1)),  xi_t = W_xi h_t + b_xi,  y_t = W_y [h_t; r_t]

    x_t [D] is the token, xi_t [I] the interface vector with which it addresses the slots, r_t [R W] what it reads
    there, y_t [D] the read that goes out. In time a token first reads, then writes (`order="read_write"`): it reads
    what earlier tokens wrote, those of its own segment included. `order="write_read"` writes first, so that a token can
    read what it writes itself.

    The state is always that after the last token: reading for a token moves it, and a full segment writes nothing
    more. So the result does not depend on the segment length, and a token costs the same wherever it stands in its
    segment. Only `bptt_segments` counts in segments. All tokens of a call are one `lax.scan`, in front of which every
    matmul stands that needs no recurrence; the backward pass keeps the state before each token and computes the rest
    of it again.

    A mechanism implements `init_slots`, `interface` and `step`, and `fresh_slots` where a document does not begin with
    zeros.
    """

    def __init__(
        self,
        config: RecurrentMemoryConfig,
        *,
        d_model: int,
        segment_length: int,
        dtype,
        rngs: nnx.Rngs,
        interface_bias: Array,
    ):
        """Further argument: `interface_bias`, the initial b_xi, as wide as the interface vector."""
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs)
        hidden, reads = config.controller_size, config.num_read_heads * config.slot_width

        def linear(d_in, d_out, **options):
            options = {"dtype": self.dtype, "dot_general": flat_dot_general, "rngs": rngs} | options
            return nnx.Linear(d_in, d_out, kernel_init=jax.nn.initializers.normal(d_in**-0.5), **options)

        has_lstm = config.controller == "lstm"
        self.interface_vector = linear(
            hidden if has_lstm else d_model, interface_bias.size, bias_init=lambda *_: jnp.asarray(interface_bias)
        )
        self.output = linear(reads + hidden if has_lstm else reads, d_model, use_bias=False)
        if has_lstm:
            # Input, forget and output gate, candidate; the forget gate starts open.
            bias = jnp.zeros(4 * hidden, jnp.float32).at[hidden : 2 * hidden].set(1.0)
            self.lstm_token = linear(d_model, 4 * hidden, bias_init=lambda *_: bias)
            self.lstm_recurrent = linear(reads + hidden, 4 * hidden, use_bias=False)

    def init_slots(self, batch_size: int) -> State:
        """Empty slots: zeros."""
        raise NotImplementedError

    def fresh_slots(self, batch_size: int) -> State:
        """The slots with which a document begins."""
        return self.init_slots(batch_size)

    def interface(self, vector: Float32[Array, "... I"]) -> Interface:
        """What the parts of the interface vector stand for, each in its legal range."""
        raise NotImplementedError

    def step(self, interface: Interface, slots: State) -> tuple[Float32[Array, "B R W"], State]:
        """What one token of each row reads, and the slots after it has written."""
        raise NotImplementedError

    def init_state(self, batch_size):
        config = self.config
        zeros = lambda *shape: jnp.zeros((batch_size, *shape), jnp.float32)  # noqa: E731
        controller = None
        if config.controller == "lstm":
            size, reads = config.controller_size, (config.num_read_heads, config.slot_width)
            controller = Controller(zeros(size), zeros(size), zeros(*reads))
        return RecurrentState(self.init_slots(batch_size), controller)

    def fresh(self, batch_size):
        return self.init_state(batch_size)._replace(slots=self.fresh_slots(batch_size))

    def read(self, x, state, own, counts):
        """Tokens that count are new to the state. All of a document that begins in this segment are new to its own."""
        at_places = lambda by_place: jnp.take_along_axis(by_place, own.place, axis=1)  # noqa: E731
        before = jnp.pad(own.document[:, :-1], ((0, 0), (1, 0)))
        begins = (own.document > 0) & (own.document != before)
        return self._tokens(x, state, at_places(begins), counts | (at_places(own.document) > 0))

    def write(self, x, state, live):
        """Nothing: each token was written when it had read."""
        return state

    def sequence(self, segments, state):
        """One scan over all tokens, equal to the scan over `segment`."""
        batch, num_segments, length, width = segments.x.shape
        flat = lambda a: a.reshape(batch, num_segments * length, *a.shape[3:])  # noqa: E731
        cut, number = None, jnp.arange(num_segments * length)
        if self.config.bptt_segments is not None:
            cut = number % (length * (self.config.bptt_segments + 1)) == 0
        reads, state = self._tokens(flat(segments.x), state, flat(segments.reset), flat(segments.new), cut)
        return reads.reshape(segments.x.shape), state

    def _tokens(self, x, state, begins, steps, cut=None):
        """L tokens in turn, those that `steps` [B, L]; a document begins where `begins` [B, L] says so.

        The gradient is cut in front of the tokens of `cut` [L].
        """
        start, has_lstm = self.fresh(x.shape[0]), self.config.controller == "lstm"
        given = self.lstm_token(x) if has_lstm else self.interface(self.interface_vector(x).astype(jnp.float32))

        @jax.checkpoint
        def token(state, inputs):
            given, begins, steps, cut = inputs
            if cut is not None:
                state = jax.tree.map(lambda a: jnp.where(cut, jax.lax.stop_gradient(a), a), state)
            state = where_rows(begins, start, state)
            controller = self._controller(given, state.controller) if has_lstm else None
            interface = self._interface_of(controller) if has_lstm else given
            reads, slots = self.step(interface, state.slots)
            if has_lstm:
                controller = controller._replace(reads=reads)
            after = where_rows(steps, RecurrentState(slots, controller), state)
            return after, (reads, controller.hidden if has_lstm else None)

        by_time = lambda tree: jax.tree.map(lambda a: a.swapaxes(0, 1), tree)  # noqa: E731
        state, (reads, hidden) = jax.lax.scan(token, state, (*by_time((given, begins, steps)), cut))
        reads = by_time(reads.reshape(*reads.shape[:2], -1))
        if has_lstm:
            reads = jnp.concatenate([by_time(hidden), reads], axis=-1)
        return self.output(reads.astype(self.dtype)), state

    def _controller(self, token, controller: Controller) -> Controller:
        """The LSTM after a token; its reads are still those of the token before."""
        inputs = jnp.concatenate([controller.hidden, controller.reads.reshape(len(token), -1)], axis=-1)
        gates = (token + self.lstm_recurrent(inputs.astype(self.dtype))).astype(jnp.float32)
        enter, keep, leave, candidate = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(keep) * controller.cell + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
        return Controller(jax.nn.sigmoid(leave) * jnp.tanh(cell), cell, controller.reads)

    def _interface_of(self, controller: Controller) -> Interface:
        return self.interface(self.interface_vector(controller.hidden.astype(self.dtype)).astype(jnp.float32))
