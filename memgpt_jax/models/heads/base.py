"""The interface of a head: outputs computed from a model's last hidden states, and their scores against targets."""

from typing import Any, ClassVar

from flax import nnx

from memgpt_jax.config.heads import HeadConfig
from memgpt_jax.config.model import StackConfig
from memgpt_jax.ops import Scores
from memgpt_jax.shapes import Array, Flags, Float, Int, Stream


class Head(nnx.Module):
    """A head with C outputs at each of P positions: P = L for an output per token, P = 1 for one per row.

    It holds parameters only. As in a model, its state is an argument and a result of each call.
    """

    reads: ClassVar[str | None] = None
    """Name of the head whose outputs it reads; None: it reads the last hidden states."""
    labels_rows: ClassVar[bool] = False
    """True: its targets are [B], one for each row. False: [B, L], one for each token."""

    def __init__(self, config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs):
        """Args: config: its own configuration. stack: that of the stack whose last hidden states it reads."""
        self.config, self.stack = config, stack

    @property
    def num_classes(self) -> int:
        """Number of classes of a target; 0: the head is not scored, because another head reads its outputs."""
        return 0

    @property
    def target_size(self) -> int | None:
        """Numbers of a target, each from 0 to 1, if it is several labels: the axis after those of `labels_rows`."""
        return None

    def init_state(self, batch_size: int) -> Any:
        """The state before the first call: arrays with the batch axis first, without parameters. Default: none."""
        return ()

    def __call__(
        self, h: Stream, state: Any = (), reset: Flags | None = None, valid: Flags | None = None
    ) -> tuple[Float[Array, "B P C"], Any]:
        """The outputs, and the state after the call.

        Args:
            h: the last hidden states [B, L, D], or the outputs of the head `reads`.
            state: the state of the head after the previous call.
            reset: as in the model's call.
            valid: as in the model's call.
        """
        raise NotImplementedError

    def score(
        self, outputs: Float[Array, "B P C"], targets: Int[Array, "B ..."], embedding: Float[Array, "V D"] | None = None
    ) -> Scores:
        """Loss in nats and correctness of each target.

        Args:
            outputs: outputs of `__call__`.
            targets: ids below `num_classes`, [B, L] or [B] (`labels_rows`).
            embedding: the token embedding of the model, for heads that share it.
        """
        raise NotImplementedError
