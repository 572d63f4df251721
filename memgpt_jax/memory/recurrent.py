"""Memories that are read and written by every token in turn, by a controller through an interface vector."""

import itertools
import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.memory import SizedMemoryConfig
from memgpt_jax.memory.base import Memory, State, linear, where_rows
from memgpt_jax.shapes import Array, Float32

Controller = Literal["pair", "none", "lstm"]
Order = Literal["read_write", "write_read"]


@dataclass(frozen=True, kw_only=True)
class RecurrentMemoryConfig(SizedMemoryConfig):
    """Base of those whose slots every token reads and writes in turn."""

    token_recurrent: ClassVar[bool] = True

    memory_size: int = 64
    """Slots M that each layer keeps for each row."""
    slot_width: int = 64
    """Width W of a slot, of keys and of reads; an even number."""
    num_read_heads: int = 1
    """Heads R that read."""
    controller: Controller = "pair"
    """What addresses the slots: a matmul of the token and the one before it (`pair`), of the token alone (`none`), or
    an `lstm` that sees the token and what the token before it read."""
    controller_size: int = 100
    """Width of the LSTM's state."""
    order: Order = "read_write"
    """Whether a token reads before it writes, or writes first and so can read what it writes itself."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("memory_size", "slot_width", "num_read_heads", "controller_size"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        check(self.slot_width % 2 == 0, f"slot_width must be even, got {self.slot_width}")


Interface = Any  # a NamedTuple of float32 arrays: what one token asks of the slots


class LSTMState(NamedTuple):
    """Bytes per row: 4 (2 C + R W)."""

    hidden: Float32[Array, "B C"]
    cell: Float32[Array, "B C"]
    reads: Float32[Array, "B R W"]  # of the last token


class RecurrentState(NamedTuple):
    """The memory after the last token, whether its segment is full or not.

    Bytes per row of the controller: D itemsize for `pair`, 0 for `none`, those of `LSTMState` for `lstm`.
    """

    slots: State
    controller: LSTMState | Array | None  # of `lstm`; of `pair` the last token [B, D]; of `none` nothing


class RecurrentMemory(Memory):
    """Base of the memories that change from token to token, so that segments mean nothing to them.

        none   xi_t = W x_t + b                                                        y_t = W_y r_t
        pair   xi_t = W x_t + V x_(t-1) + b                                            y_t = W_y r_t
        lstm   xi_t = W h_t + b,  h_t, c_t = LSTM([x_t; r_(t-1)], h_(t-1), c_(t-1))    y_t = W_y [h_t; r_t]

    x_t [D] is the token, xi_t [I] the interface vector with which it addresses the slots, r_t [R W] what it reads
    there, y_t [D] the read that goes out. In time a token first reads, then writes (`order="read_write"`): it reads
    what earlier tokens wrote, those of its own segment included. `order="write_read"` writes first, so that a token can
    read what it writes itself.

    The state is always that after the last token: reading for a token moves it, and a full segment writes nothing
    more. So the result does not depend on the segment length, and a token costs the same wherever it stands in its
    segment. Only `bptt_segments` counts in segments. All tokens of a call are one `lax.scan`, in front of which every
    matmul stands that needs no recurrence; the backward pass keeps the state before each token and computes the rest
    of it again.

    A mechanism names the parts of its interface vector, with their shapes, and implements `init_slots`, `interface` and
    `step`, and `fresh_slots` where a document does not begin with zeros.
    """

    def __init__(
        self,
        config: RecurrentMemoryConfig,
        *,
        d_model: int,
        segment_length: int,
        dtype,
        rngs: nnx.Rngs,
        parts: dict[str, tuple[int, ...]],
    ):
        """Further argument: `parts`, the shapes of the interface vector's parts, by name."""
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs)
        sizes = [math.prod(shape) for shape in parts.values()]
        ends = list(itertools.accumulate(sizes))
        self._parts = tuple(
            (name, end - math.prod(shape), end, shape) for (name, shape), end in zip(parts.items(), ends, strict=True)
        )
        hidden, reads = config.controller_size, config.num_read_heads * config.slot_width
        project = partial(linear, dtype=self.dtype, rngs=rngs)
        has_lstm = config.controller == "lstm"
        self.interface_vector = project(hidden if has_lstm else d_model, ends[-1])
        self.output = project(reads + hidden if has_lstm else reads, d_model, use_bias=False)
        if has_lstm:
            # Input, forget and output gate, candidate; the forget gate starts open.
            bias = jnp.zeros(4 * hidden, jnp.float32).at[hidden : 2 * hidden].set(1.0)
            self.lstm_token = project(d_model, 4 * hidden, bias_init=lambda *_: bias)
            self.lstm_recurrent = project(reads + hidden, 4 * hidden, use_bias=False)
        if config.controller == "pair":
            self.interface_previous = project(d_model, ends[-1], use_bias=False)

    def start_as_pairs(self, key: str, add: str, biases: dict[str, Any]) -> None:
        """Initial values with which slots are pairs of key and value from the first step, unless there is an LSTM.

        One half of what is added to a slot is a key, that of the token before where the controller sees it, in the
        space of the keys that read; the other half is a value of the token. Gates and other numbers start close to the
        given biases. A slot that no key finds again gives no gradient to what wrote it, so that a memory that starts
        with unrelated keys and undecided gates first has to find something by chance.

        Arguments:
            key: the part whose first R rows [W] are the keys that read.
            add: the part [U, W] that is added to slots.
            biases: initial biases by the name of the part, numbers or arrays of its shape.
        """
        if self.config.controller == "lstm":
            return
        at = {name: jnp.arange(low, high).reshape(shape) for name, low, high, shape in self._parts}
        half, readers = self.config.slot_width // 2, self.config.num_read_heads
        read_keys, added = at[key][:readers], at[add]
        kernel = self.interface_vector.kernel[...]
        query = kernel[:, read_keys[0, :half]][:, None]  # [D, 1, W / 2]
        bias = jnp.zeros(kernel.shape[1], jnp.float32)
        for name, value in biases.items():
            bias = bias.at[at[name]].set(value)
            kernel = kernel.at[:, at[name].reshape(-1)].multiply(0.1)
        kernel = kernel.at[:, read_keys[:, :half]].set(query).at[:, read_keys[:, half:]].set(0.0)
        if self.config.controller == "pair":
            kernel = kernel.at[:, added[:, :half]].set(0.0)
            self.interface_previous.kernel[...] = jnp.zeros_like(kernel).at[:, added[:, :half]].set(query)
        else:
            kernel = kernel.at[:, added[:, :half]].set(query)
        self.interface_vector.kernel[...], self.interface_vector.bias[...] = kernel, bias

    def parts_of(self, vector: Float32[Array, "... I"]) -> dict[str, Array]:
        """The parts of interface vectors by name, each in its shape."""
        return {
            name: vector[..., low:high].reshape(*vector.shape[:-1], *shape) for name, low, high, shape in self._parts
        }

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
            controller = LSTMState(zeros(size), zeros(size), zeros(*reads))
        elif config.controller == "pair":
            controller = jnp.zeros((batch_size, self.d_model), self.dtype)
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
        return reads.reshape(*segments.new.shape, -1), state

    def _tokens(self, x, state, begins, steps, cut=None):
        """L tokens in turn, those that `steps` [B, L], which stand side by side; documents begin at `begins` [B, L].

        The gradient is cut in front of the tokens of `cut` [L].
        """
        fresh = self.fresh(x.shape[0])
        given, last = self._given(x, state.controller, begins, steps, cut)
        if self.config.controller == "pair":  # its state is known before the slots are
            state, fresh = (s._replace(controller=None) for s in (state, fresh))

        @jax.checkpoint
        def token(state, inputs):
            given, begins, steps, cut = inputs
            if cut is not None:
                state = jax.tree.map(lambda a: jnp.where(cut, jax.lax.stop_gradient(a), a), state)
            state = where_rows(begins, fresh, state)
            interface, controller, hidden = given, None, None
            if self.config.controller == "lstm":
                controller = self._lstm(given, state.controller)
                hidden = controller.hidden
                interface = self._interface_of(self.interface_vector(hidden.astype(self.dtype)))
            reads, slots = self.step(interface, state.slots)
            if controller is not None:
                controller = controller._replace(reads=reads)
            return where_rows(steps, RecurrentState(slots, controller), state), (reads, hidden)

        by_time = lambda tree: jax.tree.map(lambda a: a.swapaxes(0, 1), tree)  # noqa: E731
        state, (reads, hidden) = jax.lax.scan(token, state, (*by_time((given, begins, steps)), cut))
        reads = by_time(reads.reshape(*reads.shape[:2], -1))
        if hidden is not None:
            reads = jnp.concatenate([by_time(hidden), reads], axis=-1)
        if self.config.controller == "pair":
            state = state._replace(controller=last)
        return reads.astype(self.dtype), state

    def _given(self, x, controller, begins, steps, cut):
        """What is known of all tokens before their turn: interfaces, or what goes into the LSTM; and the last token."""
        if self.config.controller == "lstm":
            return self.lstm_token(x), None
        if self.config.controller == "none":
            return self._interface_of(self.interface_vector(x)), None
        just_before = jnp.pad(steps[:, :-1], ((0, 0), (1, 0)))
        previous = jnp.where(just_before[..., None], jnp.roll(x, 1, axis=1), controller[:, None].astype(x.dtype))
        previous = jnp.where(begins[..., None], 0, previous)
        if cut is not None:
            previous = jnp.where(cut[None, :, None], jax.lax.stop_gradient(previous), previous)
        place = jnp.max(jnp.where(steps, jnp.arange(x.shape[1]), -1), axis=1)
        last = jnp.take_along_axis(x, jnp.maximum(place, 0)[:, None, None], axis=1)[:, 0]
        last = where_rows(place >= 0, last.astype(controller.dtype), controller)
        return self._interface_of(self.interface_vector(x) + self.interface_previous(previous)), last

    def _interface_of(self, vector) -> Interface:
        return self.interface(vector.astype(jnp.float32))

    def _lstm(self, token, state: LSTMState) -> LSTMState:
        """The LSTM after a token; its reads are still those of the token before."""
        inputs = jnp.concatenate([state.hidden, state.reads.reshape(len(token), -1)], axis=-1)
        gates = (token + self.lstm_recurrent(inputs.astype(self.dtype))).astype(jnp.float32)
        enter, keep, leave, candidate = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(keep) * state.cell + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
        return LSTMState(jax.nn.sigmoid(leave) * jnp.tanh(cell), cell, state.reads)
