"""Base class of the models: state, hidden states and diagnostics."""

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import jax
from flax import nnx

from memgpt_jax.models.arguments import check_state
from memgpt_jax.models.blocks import Block, memory_stats
from memgpt_jax.shapes import Array, Flags, Float32, Stream, Tokens

State = TypeVar("State")


class Hidden(NamedTuple, Generic[State]):
    """Hidden states of a call, and the state after it."""

    stream: Stream
    """Last hidden states [B, L, D]; normalised, if the model ends with a normalisation."""
    state: State
    """The state after the call."""
    gates: tuple[Float32[Array, "B L"], ...]
    """The mean fusion gate of each token, per layer."""
    last_input: Stream | None = None
    """The stream before the last block; of a decoder."""


class Model(nnx.Module, Generic[State]):
    """Base of the models. A model holds parameters only: its state is an argument and a result of each call."""

    blocks: Sequence[Block]
    origin: Any
    """A `memgpt_jax.interop.origin.Origin`: JSON files beside the weights. Only models of `from_pretrained` have it."""

    def init_state(self, batch_size: int) -> State:
        """The state of `batch_size` rows before the first token. It holds no parameters."""
        raise NotImplementedError

    def state_or_initial(self, state: State | None, rows: int) -> State:
        """The state, or `init_state(rows)` for None. Raises `ValueError` if it does not fit the model or the rows."""
        if state is None:
            return self.init_state(rows)
        check_state(state, jax.eval_shape(lambda: self.init_state(rows)), rows, f"tokens have {rows}")
        return state

    def hidden(self, tokens: Tokens, state: State | None = None, *flags: Any, **options: Any) -> Hidden[State]:
        """The last hidden states, the state after the call and the fusion gates."""
        raise NotImplementedError

    def diagnostics(
        self,
        tokens: Tokens,
        state: State | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        **options: Any,
    ) -> dict[str, Array]:
        """Measurements of a call: mean fusion gates and the memory's statistics, one row per layer with a memory.

        Takes the arguments of `hidden`.
        """
        hidden = self.hidden(tokens, state, reset, valid, **options)
        after: Any = hidden.state
        return memory_stats(self.blocks, after.layers, hidden.gates, valid)
