"""The interface of a memory mechanism.

A mechanism is an NNX module that holds parameters only; its state is an argument and a result of each operation.
The order of operations is: reset, read, write. The tokens of a segment read what earlier segments wrote; when the
segment is complete, its tokens are written.

The state is a NamedTuple of arrays with the batch axis first. A class attribute `mesh_axes` of it declares which mesh
axes split the other dimensions of a field, for example `mesh_axes = declare_axes(keys=(ENTRIES, HEADS))` for keys
[B, M, H, K] (`memgpt_jax.ops.mesh.declare_axes`); every other field is split over rows only.
"""

from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.memory import MemoryConfig
from memgpt_jax.ops.attention.positions import Rotary
from memgpt_jax.ops.trees import where_rows
from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32

State = Any  # a NamedTuple of arrays of fixed shapes, each with the batch axis first
ConfigT = TypeVar("ConfigT", bound=MemoryConfig)


class Segment(NamedTuple):
    """One segment of each row; it is incomplete if a call ends inside the segment."""

    x: Float[Array, "B T D"]
    reset: Bool[Array, "B T"]  # True for the first token of a document
    present: Bool[Array, "B T"]  # False for empty slots, and for tokens of a document that ended before this call
    is_new: Bool[Array, "B T"]  # True for tokens of this call; tokens of earlier calls have already been read
    full: Bool[Array, "B"]  # all T tokens are present, so the segment is written


class OwnSegment(NamedTuple):
    """The segment that Q reading tokens belong to."""

    x: Float[Array, "B T D"]
    document: Int32[Array, "B T"]  # number of resets up to the token; 0: the document continues; -1: no token
    position: Int32[Array, "B Q"]  # position of each of the Q tokens in the segment


class CallTokens(NamedTuple):
    """The tokens of all S segments of a call as one sequence of L = S T tokens."""

    x: Float[Array, "B L D"]
    document: Int32[Array, "B L"]  # number of resets up to the token; 0: the document continues; -1: no token
    write_mask: Bool[Array, "B L"]  # the token's document is open at the end of the token's segment
    open_document: Int32[Array, "B 1"]  # number of the document that is open after the call
    num_written: Int32[Array, "B 1"]  # number of tokens in full segments, which come first


class Explanation(NamedTuple):
    """A read as a weighted sum of entries: read = sum_m weights[..., m] values[m], heads side by side, + residual."""

    weights: Float32[Array, "B Q H M"]
    """Weight of each entry; the weights of a token and head sum to at most 1."""
    values: Float[Array, "B #Q M #H V"]
    """The vector that an entry adds to the read at weight 1."""
    valid: Bool[Array, "B M"]
    """False where there is no entry: its weight is 0."""
    residual: Float[Array, "B Q R"] | None = None
    """The part of the read that comes from no entry; None: 0."""
    writes: Float32[Array, "B Q U M"] | None = None
    """The weights with which each of U write heads writes the entries at the token, which sum to at most 1; None: whole
    segments are written."""

    def read(self) -> Float[Array, "B Q R"]:
        """The unprojected read. Where the residual is narrower than H V, groups of heads (hops) are summed."""
        batch, length, heads, num = self.weights.shape
        values = jnp.broadcast_to(self.values, (batch, length, num, heads, self.values.shape[-1]))
        found = jnp.einsum("bqhm,bqmhv->bqhv", self.weights, values.astype(jnp.float32)).reshape(batch, length, -1)
        if self.residual is None:
            return found
        width = self.residual.shape[-1]
        return self.residual.astype(jnp.float32) + jnp.sum(found.reshape(batch, length, -1, width), axis=2)


class Origins(NamedTuple):
    """The tokens from which the entries come, counted from the end of the last segment that was written.

    Entry m comes from the `length` tokens that begin `start` tokens before this end: with length 1, from that token;
    with more, from one of them or from a mixture. Where there is no entry, the values have no meaning.
    """

    start: Int32[Array, "B M"]
    length: Int32[Array, "B M"]


def whole_segment(
    x: Float[Array, "B T D"], reset: Bool[Array, "B T"] | None = None, valid: Bool[Array, "B T"] | None = None
) -> Segment:
    """The `Segment` of T tokens that all arrive in one call."""
    batch, length, _ = x.shape
    reset = jnp.zeros((batch, length), bool) if reset is None else reset
    valid = jnp.ones((batch, length), bool) if valid is None else valid
    return Segment(x, reset, valid, valid, jnp.ones(batch, bool))


def flatten_segments(segments: Segment) -> CallTokens:
    """The `CallTokens` of a `Segment` whose arrays have an S axis after the batch axis."""
    batch, _, length, _ = segments.x.shape
    x, reset, present = (a.reshape(batch, -1, *a.shape[3:]) for a in (segments.x, segments.reset, segments.present))
    document = jnp.cumsum(reset, axis=1, dtype=jnp.int32)
    at_end = jnp.repeat(document[:, length - 1 :: length], length, axis=1)
    num_written = jnp.sum(segments.full, axis=1, keepdims=True, dtype=jnp.int32) * length
    return CallTokens(
        x, jnp.where(present, document, -1), present & (document == at_end), document[:, -1:], num_written
    )


def stop_gradient_where(condition: Bool[Array, "*b"], tree: State) -> State:
    """The tree, without gradient where the condition, an array over the leading axes, holds."""
    return where_rows(condition, jax.lax.stop_gradient(tree), tree)


class Memory(nnx.Module, Generic[ConfigT]):
    """Base of every mechanism: implement `init_state`, `read` and `write`; override `sequence` with a parallel form."""

    gates: ClassVar[tuple[str, ...]] = ()
    """Attributes (modules or parameters) that are gates: they train with `optimizer.gate_lr_multiplier` and without
    weight decay."""
    decayed: ClassVar[tuple[str, ...]] = ()
    """Attributes that are plain parameters (`nnx.Param`) and have weight decay. Without a declaration, the
    kernels and embeddings of Flax's own layers have weight decay, and no other parameter has."""
    cuts_by_age: ClassVar[bool] = False
    """How `bptt_segments` = n limits gradients through the memory.

    True: the gradient of each token reaches exactly the n segments before its own; the mechanism itself stops it at
    entries that are older. False: the gradient into the state stops in front of segments 0, n + 1, 2 (n + 1), ... of a
    call (`cut_before`), so that it reaches between 0 and n segments, depending on the place of the token. A call of one
    token is no exception: no gradient flows into the state that comes in (`incoming`)."""
    output: nnx.Linear | None = None
    """Output projection W_o, [R, D], no bias. `read`, `segment` and `sequence` return unprojected reads [..., R]; the
    caller applies `project_out`. None: reads already have width D."""

    def __init__(self, config: ConfigT, *, d_model: int, segment_length: int, dtype: Any, rngs: nnx.Rngs):
        """Mechanisms call this first and then create their parameters.

        Args:
            config: the configuration of the mechanism.
            d_model: width D of the tokens and of the projected reads.
            segment_length: tokens T of a segment.
            dtype: compute type; parameters are float32.
            rngs: random keys of the initial parameters.
        """
        self.config, self.d_model, self.segment_length, self.dtype = config, d_model, segment_length, jnp.dtype(dtype)

    def init_state(self, batch_size: int) -> State:
        """An empty memory: zeros, independent of the parameters.

        No array stands for two fields: `jax.jit` donates each array of a state once.
        """
        raise NotImplementedError

    def initial_state(self, batch_size: int) -> State:
        """The memory at the start of a document: `init_state` with the learned initial entries."""
        return self.init_state(batch_size)

    def restarted(self, state: State, batch_size: int) -> State:
        """The memory at the start of a document that follows others: `initial_state`, and what a reset keeps."""
        return self.initial_state(batch_size)

    def read(
        self, x: Float[Array, "B Q D"], state: State, own_segment: OwnSegment, update_mask: Bool[Array, "B Q"]
    ) -> tuple[Float[Array, "B Q R"], State]:
        """The unprojected read of each of Q tokens, and the state after reading.

        Only the tokens of `update_mask` may change the state (for example usage statistics).
        """
        raise NotImplementedError

    def write(self, x: Float[Array, "B T D"], state: State, write_mask: Bool[Array, "B T"]) -> State:
        """The memory after a full segment; only the tokens of `write_mask` (those of the open document) are stored."""
        raise NotImplementedError

    def explain(self, x: Float[Array, "B Q D"], state: State) -> Explanation:
        """Optional: the reads of Q tokens as weighted sums of the entries in the state.

        Entries of the tokens' own segment are not included.

        Raises:
            NotImplementedError: the mechanism has no entries, or does not implement this.
        """
        raise NotImplementedError(self.missing("explain"))

    def origins(self, state: State) -> Origins:
        """Optional: the tokens from which the entries of `explain` come, derived from counters of the state.

        The state holds entries of tokens alone, without any of `write_entries`.

        Raises:
            NotImplementedError: the mechanism has no entries of tokens, or does not implement this.
            ValueError: the entries of this configuration cannot be assigned to tokens.
        """
        raise NotImplementedError(self.missing("origins"))

    def write_gates(self, x: Float[Array, "B L D"]) -> Float32[Array, "B L"]:
        """Optional: how strongly each token is written, from 0 to 1; with several heads their mean.

        Raises `NotImplementedError` if the mechanism has no such gate, or does not implement this.
        """
        raise NotImplementedError(self.missing("write_gates"))

    def write_entries(
        self,
        keys: Float[Array, "B N H K"],
        values: Float[Array, "B N H K"],
        state: State,
        valid: Bool[Array, "B N"] | None = None,
    ) -> State:
        """Optional: the memory after N entries have been written directly, without tokens (external knowledge).

        Args:
            keys: keys in the space of the queries; normalised as the mechanism normalises its own.
            values: values, as W_v x + b_v would give them.
            state: the memory before.
            valid: which of the N entries are written; default: all.

        Raises:
            NotImplementedError: the mechanism has no key-value entries.
        """
        raise NotImplementedError(self.missing("write_entries"))

    def join_attention(self, query_bias: bool, rotary: Rotary | None = None) -> None:
        """Optional: share self-attention's softmax and its output projection.

        Args:
            query_bias: queries have a bias, q = W_q x + b_q.
            rotary: the rotary positions of self-attention; None: it has others, or none.

        Raises:
            NotImplementedError: the mechanism cannot share a softmax.
        """
        raise NotImplementedError(self.missing("join_attention"))

    def after(self, state: State, tokens: Int32[Array, "B"]) -> State:
        """The state for an `explain` of tokens that come this number of tokens after the last full segment.

        Default: the state, as reads do not depend on the place of a token in its segment.
        """
        del tokens
        return state

    def missing(self, name: str) -> str:
        """The message that the mechanism does not implement an optional method; it names those that do."""

        def subclasses(cls: type) -> list[type]:
            return [cls, *(other for child in cls.__subclasses__() for other in subclasses(child))]

        having = sorted({cls.__name__ for cls in subclasses(Memory) if name in vars(cls) and cls is not Memory})
        return f"{type(self).__name__} does not implement `{name}`; these mechanisms do: {', '.join(having)}"

    def project_out(self, read: Float[Array, "*b R"]) -> Float[Array, "*b D"]:
        """W_o applied to an unprojected read."""
        return read if self.output is None else self.output(read)

    def stats(self, state: State) -> dict[str, Array]:
        """Statistics to log, such as occupancy or a histogram of write gates; by default `bytes` of one row."""
        leaves = jax.tree.leaves(state)
        return {"bytes": jnp.asarray(sum(leaf.nbytes // leaf.shape[0] for leaf in leaves), jnp.float32)}

    @property
    def bptt_segments(self) -> int | None:
        """`SizedMemoryConfig.bptt_segments`, explained in `cuts_by_age`; None if the mechanism does not have it."""
        return getattr(self.config, "bptt_segments", None)

    @property
    def gradient_period(self) -> int | None:
        """Number of tokens after which a gradient between neighbouring tokens of a call stops; None: no limit."""
        if self.bptt_segments is None:
            return None
        return self.segment_length * (1 if self.cuts_by_age else self.bptt_segments + 1)

    def cut_before(self, segment: Int32[Array, "*s"]) -> Bool[Array, "*s"]:
        """Whether the gradient into the state stops in front of segment number s of a call; see `cuts_by_age`."""
        if self.bptt_segments is None or self.cuts_by_age:
            return jnp.zeros(jnp.shape(segment), bool)
        return segment % (self.bptt_segments + 1) == 0

    def incoming(self, state: State, begins: Bool[Array, "B"]) -> State:
        """The state that comes into a call, for the reads of its first segment: without gradient if `cut_before(0)`.

        Rows in which a document begins keep the gradient into their initial entries.
        """
        if self.bptt_segments is None or self.cuts_by_age:
            return state
        return stop_gradient_where(~begins, state)

    def segment(self, segment: Segment, state: State) -> tuple[Float[Array, "B T R"], State]:
        """Read for every token of a segment, then write the segment. The recurrent form, and the definition."""
        batch, length, _ = segment.x.shape
        document = jnp.cumsum(segment.reset, axis=1, dtype=jnp.int32)
        position = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
        own_segment = OwnSegment(segment.x, jnp.where(segment.present, document, -1), position)
        after_reset = document > 0
        has_reset = after_reset[:, -1]

        def restart(before: tuple[Array, State]) -> tuple[Array, State]:
            """Tokens after a reset read an initial memory, which then replaces the old one."""
            read, state = before
            open_document = after_reset & (document == document[:, -1:])  # other documents also end in this segment
            initial, update_mask = self.restarted(state, batch), segment.is_new & open_document
            initial_read, initial = self.read(segment.x, initial, own_segment, update_mask)
            return jnp.where(after_reset[..., None], initial_read, read), where_rows(has_reset, initial, state)

        def keep(before: tuple[Array, State]) -> tuple[Array, State]:
            return before

        before = self.read(segment.x, state, own_segment, segment.is_new & ~after_reset)
        read, state = jax.lax.cond(jnp.any(has_reset), restart, keep, before)
        write_mask = segment.present & (document == document[:, -1:])
        return read, where_rows(segment.full, self.write(segment.x, state, write_mask), state)

    def sequence(self, segments: Segment, state: State) -> tuple[Float[Array, "B S T R"], State]:
        """`segment` over S segments (a `Segment` whose arrays have an S axis after the batch axis)."""
        segments = jax.tree.map(lambda x: x.swapaxes(0, 1), segments)
        cuts = self.bptt_segments is not None and not self.cuts_by_age

        def step(carry: tuple[Array, State], segment: Segment) -> tuple[tuple[Array, State], Array]:
            number, state = carry
            if cuts:
                state = stop_gradient_where(self.cut_before(number), state)
            read, state = jax.checkpoint(self.segment)(segment, state)  # the backward pass stores the state only
            return (number + 1, state), read

        (_, state), reads = jax.lax.scan(step, (jnp.int32(0), state), segments)
        return reads.swapaxes(0, 1), state
