"""Base of memories that each token reads and writes, one token after the other, through an interface vector."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.memory import SizedMemoryConfig
from memgpt_jax.memory.base import Explanation, Memory, OwnSegment, Segment, State, stop_gradient_where
from memgpt_jax.memory.linear import linear
from memgpt_jax.ops.memory import read_slots
from memgpt_jax.ops.trees import where_rows
from memgpt_jax.shapes import Array, Bool, Float, Float32

Controller = Literal["pair", "none", "lstm"]
Order = Literal["read_write", "write_read"]


@dataclass(frozen=True, kw_only=True)
class RecurrentMemoryConfig(SizedMemoryConfig):
    """Base of mechanisms whose slots each token reads and writes, one token after the other."""

    token_recurrent: ClassVar[bool] = True

    memory_size: int = 64
    """Slots M that each layer keeps for each row."""
    slot_width: int = 64
    """Width W of a slot, of keys and of reads; an even number."""
    num_read_heads: int = 1
    """Read heads R."""
    controller: Controller = "pair"
    """Controller that addresses the slots: a matmul of the token and the one before it (`pair`), of the token alone
    (`none`), or an `lstm` of the token and the read of the token before it."""
    controller_size: int = 100
    """Width of the LSTM's state."""
    order: Order = "read_write"
    """Whether a token reads before it writes, or writes first and can read its own write."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("memory_size", "slot_width", "num_read_heads", "controller_size"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        check(self.slot_width % 2 == 0, f"slot_width must be even, got {self.slot_width}")


RecurrentT = TypeVar("RecurrentT", bound=RecurrentMemoryConfig)
Interface = Any  # a NamedTuple of float32 arrays: the parameters of one token's read and write


class LSTMState(NamedTuple):
    """Bytes per row: 4 (2 C + R W)."""

    hidden: Float32[Array, "B C"]
    cell: Float32[Array, "B C"]
    reads: Float32[Array, "B R W"]  # reads of the last token


class RecurrentState(NamedTuple):
    """The memory after the last token, whether its segment is full or not.

    Bytes per row of the controller: D itemsize for `pair`, 0 for `none`, those of `LSTMState` for `lstm`.
    """

    slots: State
    controller: LSTMState | Array | None  # `lstm`: its state; `pair`: the last token [B, D]; `none`: None


class InterfacePart(NamedTuple):
    """A part of the interface vector: its entries from `start` to `stop`, in `shape`."""

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]


class Addressed(NamedTuple):
    """The read and the write of one token of each row: r = weights matrix, and the slots after the write."""

    weights: Float32[Array, "B R M"]
    writes: Float32[Array, "B U M"]  # weights of the U write heads
    matrix: Float32[Array, "B M W"]
    slots: State


class RecurrentMemory(Memory[RecurrentT]):
    """Base of memories that change with every token, independently of segments.

        none   xi_t = W x_t + b                                                        y_t = W_y r_t
        pair   xi_t = W x_t + V x_(t-1) + b                                            y_t = W_y r_t
        lstm   xi_t = W h_t + b,  h_t, c_t = LSTM([x_t; r_(t-1)], h_(t-1), c_(t-1))    y_t = W_y [h_t; r_t]

    x_t [D] is the token, xi_t [I] the interface vector with which it addresses the slots, r_t [R W] its read of the
    slots, y_t [D] the projected read. A token first reads, then writes (`order="read_write"`): it reads what earlier
    tokens wrote, including those of its own segment. `order="write_read"` writes first, so that a token can read its
    own write.

    A read updates the state, and `write` does nothing: the state is that after the last token. The result does not
    depend on the segment length, and the cost of a token does not depend on its place in the segment. Only
    `bptt_segments` is in segments. All tokens of a call are one `lax.scan`, after all matmuls that need no recurrence;
    the backward pass stores the state before each token and recomputes the rest.

    A mechanism passes the shapes of the parts of its interface vector, and implements `init_slots`, `interface` and
    `address`, and `initial_slots` if a document does not begin with zeros.
    """

    def __init__(
        self,
        config: RecurrentT,
        *,
        d_model: int,
        segment_length: int,
        dtype: Any,
        rngs: nnx.Rngs,
        parts: dict[str, tuple[int, ...]],
    ):
        """`Memory.__init__`, with `parts`: the shapes of the parts of the interface vector, by name."""
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs)
        ends = list(itertools.accumulate(math.prod(shape) for shape in parts.values()))
        self._parts = tuple(
            InterfacePart(name, stop - math.prod(shape), stop, shape)
            for (name, shape), stop in zip(parts.items(), ends, strict=True)
        )
        hidden, reads = config.controller_size, config.num_read_heads * config.slot_width
        project = partial(linear, dtype=self.dtype, rngs=rngs)
        has_lstm = config.controller == "lstm"
        self.interface_vector = project(hidden if has_lstm else d_model, ends[-1], use_bias=True)
        self.output = project(reads + hidden if has_lstm else reads, d_model, use_bias=False)
        if has_lstm:
            # Input, forget and output gate, candidate; the forget gate is initially open.
            bias = jnp.zeros(4 * hidden, jnp.float32).at[hidden : 2 * hidden].set(1.0)
            self.lstm_token = project(d_model, 4 * hidden, use_bias=True, bias_init=lambda *_: bias)
            self.lstm_recurrent = project(reads + hidden, 4 * hidden, use_bias=False)
        if config.controller == "pair":
            self.interface_previous = project(d_model, ends[-1], use_bias=False)

    def start_as_pairs(self, key: str, add: str, biases: dict[str, Any]) -> None:
        """Set initial parameters so that slots are pairs of key and value from the first step; no effect with an LSTM.

        One half of the vector added to a slot is a key: that of the token before (controller `pair`), in the space of
        the read keys. The other half is a value of the token. Gates and other numbers start close to the given biases.
        A slot that no key addresses gives no gradient to the token that wrote it, so a memory with unrelated keys and
        undecided gates learns only after it has addressed the right slot by chance.

        Args:
            key: the part whose first R rows [W] are the read keys.
            add: the part [U, W] that is added to slots.
            biases: initial biases by name of the part, numbers or arrays of its shape.
        """
        if self.config.controller == "lstm":
            return
        at = {part.name: jnp.arange(part.start, part.stop).reshape(part.shape) for part in self._parts}
        half, readers = self.config.slot_width // 2, self.config.num_read_heads
        read_keys, added = at[key][:readers], at[add]
        kernel = self.interface_vector.kernel[...]
        query = kernel[:, read_keys[0, :half]][:, None]  # [D, 1, W / 2]
        bias = jnp.zeros(kernel.shape[1], jnp.float32)
        for name, value in biases.items():
            bias = bias.at[at[name]].set(jnp.asarray(value, jnp.float32))
            kernel = kernel.at[:, at[name].reshape(-1)].multiply(0.1)
        kernel = kernel.at[:, read_keys[:, :half]].set(query).at[:, read_keys[:, half:]].set(0.0)
        if self.config.controller == "pair":
            kernel = kernel.at[:, added[:, :half]].set(0.0)
            self.interface_previous.kernel[...] = jnp.zeros_like(kernel).at[:, added[:, :half]].set(query)
        else:
            kernel = kernel.at[:, added[:, :half]].set(query)
        assert self.interface_vector.bias is not None
        self.interface_vector.kernel[...], self.interface_vector.bias[...] = kernel, bias

    def parts_of(self, vector: Float32[Array, "... I"]) -> dict[str, Array]:
        """The parts of interface vectors by name, each in its shape."""
        return {
            part.name: vector[..., part.start : part.stop].reshape(*vector.shape[:-1], *part.shape)
            for part in self._parts
        }

    def init_slots(self, batch_size: int) -> State:
        """Empty slots: zeros."""
        raise NotImplementedError

    def initial_slots(self, batch_size: int) -> State:
        """The slots at the start of a document."""
        return self.init_slots(batch_size)

    def interface(self, vector: Float32[Array, "... I"]) -> Interface:
        """The parts of interface vectors, each mapped to its range."""
        raise NotImplementedError

    def address(self, interface: Interface, slots: State) -> Addressed:
        """The read of one token of each row, and the slots after its write."""
        raise NotImplementedError

    def init_state(self, batch_size: int) -> RecurrentState:
        config, controller = self.config, None

        def zeros(*shape: int) -> Array:
            return jnp.zeros((batch_size, *shape), jnp.float32)

        if config.controller == "lstm":
            size, reads = config.controller_size, (config.num_read_heads, config.slot_width)
            controller = LSTMState(zeros(size), zeros(size), zeros(*reads))
        elif config.controller == "pair":
            controller = jnp.zeros((batch_size, self.d_model), self.dtype)
        return RecurrentState(self.init_slots(batch_size), controller)

    def initial_state(self, batch_size: int) -> RecurrentState:
        return self.init_state(batch_size)._replace(slots=self.initial_slots(batch_size))

    def read(
        self, x: Float[Array, "B Q D"], state: RecurrentState, own_segment: OwnSegment, update_mask: Bool[Array, "B Q"]
    ) -> tuple[Float[Array, "B Q R"], RecurrentState]:
        """`update_mask` marks tokens that advance the state.

        In a document that begins inside this segment, every token advances the document's own state.
        """

        def at_positions(by_position: Array) -> Array:
            return jnp.take_along_axis(by_position, own_segment.position, axis=1)

        before = jnp.pad(own_segment.document[:, :-1], ((0, 0), (1, 0)))
        begins = (own_segment.document > 0) & (own_segment.document != before)
        steps = update_mask | (at_positions(own_segment.document) > 0)
        return self._tokens(x, state, at_positions(begins), steps)

    def write(self, x: Float[Array, "B T D"], state: RecurrentState, write_mask: Bool[Array, "B T"]) -> RecurrentState:
        """The unchanged state: `read` has already written each token."""
        return state

    def explain(self, x: Float[Array, "B Q D"], state: RecurrentState) -> Explanation:
        """Weights over the M slots at the time of each of the Q tokens, which are processed in order.

        With an LSTM, the unprojected read is the hidden state followed by this read.
        """
        nothing = jnp.zeros(x.shape[:2], bool)

        def parts(addressed: Addressed) -> tuple[Array, Array, Array]:
            return addressed.weights, addressed.writes, addressed.matrix

        _, found, _ = self._scan(parts, x, state, nothing, ~nothing)
        weights, writes, matrix = (jnp.swapaxes(a, 0, 1) for a in found)
        valid = jnp.ones((len(x), matrix.shape[2]), bool)
        return Explanation(weights, matrix[:, :, :, None], valid, writes=writes)

    def sequence(self, segments: Segment, state: RecurrentState) -> tuple[Float[Array, "B S T R"], RecurrentState]:
        """One scan over all tokens, equal to the scan over `segment`."""
        batch, num_segments, length, _ = segments.x.shape

        def flat(a: Array) -> Array:
            return a.reshape(batch, num_segments * length, *a.shape[3:])

        cut = None
        if self.gradient_period is not None:
            cut = jnp.arange(num_segments * length) % self.gradient_period == 0
        reads, state = self._tokens(flat(segments.x), state, flat(segments.reset), flat(segments.is_new), cut)
        return reads.reshape(*segments.is_new.shape, -1), state

    def _tokens(
        self,
        x: Float[Array, "B L D"],
        state: RecurrentState,
        begins: Bool[Array, "B L"],
        steps: Bool[Array, "B L"],
        cut: Bool[Array, "L"] | None = None,
    ) -> tuple[Float[Array, "B L R"], RecurrentState]:
        """Unprojected reads [B, L, R] of L tokens, and the state after the last of them; see `_scan`."""
        state, reads, hidden = self._scan(_reads, x, state, begins, steps, cut)
        reads = jnp.swapaxes(reads.reshape(*reads.shape[:2], -1), 0, 1)
        if hidden is not None:
            reads = jnp.concatenate([jnp.swapaxes(hidden, 0, 1), reads], axis=-1)
        return reads.astype(self.dtype), state

    def _scan(
        self,
        result: Callable[[Addressed], Any],
        x: Float[Array, "B L D"],
        state: RecurrentState,
        begins: Bool[Array, "B L"],
        steps: Bool[Array, "B L"],
        cut: Bool[Array, "L"] | None = None,
    ) -> tuple[RecurrentState, Any, Array | None]:
        """Scan over L tokens: the state after them, the result for each, and the LSTM's hidden states or None.

        The results and hidden states have the time axis first.

        Args:
            result: function of the `Addressed` of a token.
            x: the tokens [B, L, D].
            state: the state before.
            begins: tokens with which documents begin, [B, L].
            steps: tokens that advance the state, [B, L]; they are consecutive.
            cut: tokens in front of which the gradient into the state stops, [L].
        """
        initial = self.initial_state(x.shape[0])
        given, last = self._given(x, state.controller, begins, steps, cut)
        if self.config.controller == "pair":  # its state does not depend on the slots
            state, initial = (s._replace(controller=None) for s in (state, initial))

        @jax.checkpoint
        def token(state: RecurrentState, inputs: Any) -> tuple[RecurrentState, Any]:
            given, begins, steps, cut = inputs
            if cut is not None:
                state = stop_gradient_where(cut, state)
            state = where_rows(begins, initial, state)
            interface, controller, hidden = given, None, None
            if isinstance(state.controller, LSTMState):
                controller = self._lstm(given, state.controller)
                hidden = controller.hidden
                interface = self._interface_of(self.interface_vector(hidden.astype(self.dtype)))
            addressed = self.address(interface, state.slots)
            if controller is not None:
                controller = controller._replace(reads=_reads(addressed))
            after = RecurrentState(addressed.slots, controller)
            return where_rows(steps, after, state), (result(addressed), hidden)

        by_time = jax.tree.map(lambda a: a.swapaxes(0, 1), (given, begins, steps))
        state, (found, hidden) = jax.lax.scan(token, state, (*by_time, cut))
        if self.config.controller == "pair":
            state = state._replace(controller=last)
        return state, found, hidden

    def _given(
        self,
        x: Float[Array, "B L D"],
        controller: Any,
        begins: Bool[Array, "B L"],
        steps: Bool[Array, "B L"],
        cut: Bool[Array, "L"] | None,
    ) -> tuple[Any, Array | None]:
        """Interfaces (or inputs of the LSTM) of all tokens, which do not depend on the slots, and the last token."""
        if self.config.controller == "lstm":
            return self.lstm_token(x), None
        if self.config.controller == "none":
            return self._interface_of(self.interface_vector(x)), None
        if cut is not None:
            controller = jax.lax.stop_gradient(controller)  # the first token that steps need not be the first of all
        just_before = jnp.pad(steps[:, :-1], ((0, 0), (1, 0)))
        previous = jnp.where(just_before[..., None], jnp.roll(x, 1, axis=1), controller[:, None].astype(x.dtype))
        previous = jnp.where(begins[..., None], 0, previous)
        if cut is not None:
            previous = jnp.where(cut[None, :, None], jax.lax.stop_gradient(previous), previous)
        place = jnp.max(jnp.where(steps, jnp.arange(x.shape[1]), -1), axis=1)
        last = jnp.take_along_axis(x, jnp.maximum(place, 0)[:, None, None], axis=1)[:, 0]
        last = where_rows(place >= 0, last.astype(controller.dtype), controller)
        return self._interface_of(self.interface_vector(x) + self.interface_previous(previous)), last

    def _interface_of(self, vector: Float[Array, "B ... I"]) -> Interface:
        return self.interface(vector.astype(jnp.float32))

    def _lstm(self, token: Float[Array, "B gates"], state: LSTMState) -> LSTMState:
        """The LSTM after a token, still with the reads of the token before."""
        inputs = jnp.concatenate([state.hidden, state.reads.reshape(len(token), -1)], axis=-1)
        gates = (token + self.lstm_recurrent(inputs.astype(self.dtype))).astype(jnp.float32)
        enter, keep, leave, candidate = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(keep) * state.cell + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
        return LSTMState(jax.nn.sigmoid(leave) * jnp.tanh(cell), cell, state.reads)


def _reads(addressed: Addressed) -> Float32[Array, "B R W"]:
    return read_slots(addressed.matrix, addressed.weights)
