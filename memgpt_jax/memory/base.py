"""The interface of a memory mechanism.

A mechanism is an NNX module that holds parameters only; its state goes in as an argument and comes out as a result.
In time the order is: reset, then read, then write. A segment's tokens read what earlier segments wrote; when the
segment is full, its tokens are written.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.memory import MemoryConfig
from memgpt_jax.ops import flat_dot_general
from memgpt_jax.shapes import Array, Bool, Float, Int32

State = Any  # a pytree of arrays of fixed shapes, each with the batch axis first


class Segment(NamedTuple):
    """One segment of every row. Rows may hold fewer than T tokens when a call ends inside the segment."""

    x: Float[Array, "B T D"]
    reset: Bool[Array, "B T"]  # a document begins with this token
    exists: Bool[Array, "B T"]  # the token belongs to the document that is open, or to one that begins here
    new: Bool[Array, "B T"]  # the token arrived with this call (it was not read for before)
    full: Bool[Array, "B"]  # all T tokens are there: write


class Own(NamedTuple):
    """What a block of Q tokens needs to know of its own segment."""

    x: Float[Array, "B T D"]
    document: Int32[Array, "B T"]  # equal for tokens of one document; 0: the one that was open before; -1: no token
    place: Int32[Array, "B Q"]  # where in the segment each of the Q tokens stands


def whole_segment(
    x: Float[Array, "B T D"], reset: Bool[Array, "B T"] | None = None, valid: Bool[Array, "B T"] | None = None
) -> Segment:
    """The `Segment` of T tokens that all arrive at once."""
    batch, length, _ = x.shape
    reset = jnp.zeros((batch, length), bool) if reset is None else reset
    valid = jnp.ones((batch, length), bool) if valid is None else valid
    return Segment(x, reset, valid, valid, jnp.ones(batch, bool))


class Line(NamedTuple):
    """The tokens of all S segments of a call in one line, L = S T, and what follows for them from time alone."""

    x: Float[Array, "B L D"]
    document: Int32[Array, "B L"]  # counts the resets up to the token; 0: the one that was open before; -1: no token
    live: Bool[Array, "B L"]  # of the document that is open at the end of the token's own segment
    open_document: Int32[Array, "B 1"]  # the number of the one that is open after the call
    written: Int32[Array, "B 1"]  # tokens in full segments: the first ones


def in_line(segments: Segment) -> Line:
    """The `Line` of a `Segment` whose arrays have an S axis after the batch axis."""
    batch, _, length, _ = segments.x.shape
    x, reset, exists = (a.reshape(batch, -1, *a.shape[3:]) for a in (segments.x, segments.reset, segments.exists))
    document = jnp.cumsum(reset, axis=1, dtype=jnp.int32)
    at_end = jnp.repeat(document[:, length - 1 :: length], length, axis=1)
    written = jnp.sum(segments.full, axis=1, keepdims=True, dtype=jnp.int32) * length
    return Line(x, jnp.where(exists, document, -1), exists & (document == at_end), document[:, -1:], written)


def where_rows(condition: Bool[Array, "*b"], yes: State, no: State) -> State:
    """`yes` in the rows (or entries: leading axes) where the condition holds, else `no`."""
    pick = lambda a, b: jnp.where(condition.reshape(*condition.shape, *(1,) * (a.ndim - condition.ndim)), a, b)  # noqa: E731
    return jax.tree.map(pick, yes, no)


def linear(d_in: int, d_out: int, *, dtype, rngs: nnx.Rngs, **options) -> nnx.Linear:
    """A dense layer that starts with the variance of its input."""
    kernel_init = jax.nn.initializers.normal(d_in**-0.5)
    return nnx.Linear(
        d_in, d_out, kernel_init=kernel_init, dtype=dtype, dot_general=flat_dot_general, rngs=rngs, **options
    )


class Memory(nnx.Module):
    """Base of every mechanism: implement `init_state`, `read` and `write`; override `sequence` with a parallel form."""

    output: nnx.Linear | None = None
    """W_o [R, D], without a bias, on what `read`, `segment` and `sequence` return; None: the stream takes it as it is.
    Whoever calls them applies it, once for all tokens (`project_out`)."""
    cuts_by_age = False
    """Whether `read` knows how old an entry is, and itself cuts its gradient where `bptt_segments` says."""

    def __init__(self, config: MemoryConfig, *, d_model: int, segment_length: int, dtype, rngs: nnx.Rngs):
        """Mechanisms create their parameters here, after a call of this.

        Arguments:
            config: the mechanism's own.
            d_model: width D of the tokens that come in and of the reads that go out.
            segment_length: tokens T of a segment.
            dtype: compute type; parameters are float32.
            rngs: from which parameters are drawn.
        """
        self.config, self.d_model, self.segment_length, self.dtype = config, d_model, segment_length, jnp.dtype(dtype)

    def init_state(self, batch_size: int) -> State:
        """An empty memory; it holds no parameters."""
        raise NotImplementedError

    def fresh(self, batch_size: int) -> State:
        """The memory with which a document begins: `init_state` with learned initial entries in place."""
        return self.init_state(batch_size)

    def read(
        self, x: Float[Array, "B Q D"], state: State, own: Own, counts: Bool[Array, "B Q"]
    ) -> tuple[Float[Array, "B Q R"], State]:
        """What each of Q tokens reads, in front of `output`.

        Only tokens that count may change the state (usage statistics).
        """
        raise NotImplementedError

    def write(self, x: Float[Array, "B T D"], state: State, live: Bool[Array, "B T"]) -> State:
        """The memory after a full segment, of which only the `live` tokens (of the open document) are stored."""
        raise NotImplementedError

    def project_out(self, read: Float[Array, "*b R"]) -> Float[Array, "*b D"]:
        """W_o on what was read."""
        return read if self.output is None else self.output(read)

    def stats(self, state: State) -> dict[str, Array]:
        """Measurements to log, such as occupancy, a histogram of write gates, age of entries; `bytes` per row."""
        leaves = jax.tree.leaves(state)
        return {"bytes": jnp.asarray(sum(leaf.nbytes // leaf.shape[0] for leaf in leaves), jnp.float32)}

    def segment(self, segment: Segment, state: State) -> tuple[Float[Array, "B T R"], State]:
        """Read for every token of a segment, then write the segment. The recurrent form, and the definition."""
        batch, length, _ = segment.x.shape
        document = jnp.cumsum(segment.reset, axis=1, dtype=jnp.int32)
        place = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
        own = Own(segment.x, jnp.where(segment.exists, document, -1), place)
        after_reset = document > 0
        has_reset = after_reset[:, -1]

        def restart(before):
            """Tokens after a reset read from a fresh memory, and it replaces the old one."""
            read, state = before
            open_document = after_reset & (document == document[:, -1:])  # others that begin here end here
            fresh_read, fresh = self.read(segment.x, self.fresh(batch), own, segment.new & open_document)
            return jnp.where(after_reset[..., None], fresh_read, read), where_rows(has_reset, fresh, state)

        before = self.read(segment.x, state, own, segment.new & ~after_reset)
        read, state = jax.lax.cond(jnp.any(has_reset), restart, lambda before: before, before)
        live = segment.exists & (document == document[:, -1:])
        return read, where_rows(segment.full, self.write(segment.x, state, live), state)

    def sequence(self, segments: Segment, state: State) -> tuple[Float[Array, "B S T R"], State]:
        """`segment` over S segments (a `Segment` whose arrays have an S axis after the batch axis).

        With `bptt_segments` = n, the gradient is cut in front of every (n + 1)-th segment of the call, so that it flows
        through at most n of them; a mechanism that `cuts_by_age` has cut it already, exactly n segments back.
        """
        segments = jax.tree.map(lambda x: x.swapaxes(0, 1), segments)
        bptt_segments = None if self.cuts_by_age else getattr(self.config, "bptt_segments", None)

        def step(carry, segment):
            number, state = carry
            if bptt_segments is not None:
                cut = number % (bptt_segments + 1) == 0
                state = jax.tree.map(lambda x: jnp.where(cut, jax.lax.stop_gradient(x), x), state)
            read, state = jax.checkpoint(self.segment)(segment, state)  # saved: the state alone
            return (number + 1, state), read

        (_, state), reads = jax.lax.scan(step, (jnp.int32(0), state), segments)
        return reads.swapaxes(0, 1), state
