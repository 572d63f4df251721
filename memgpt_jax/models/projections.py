"""The interface of the projection of raw features to the width of a model."""

from typing import Any

from flax import nnx

from memgpt_jax.shapes import Array, Flags, Float32, Stream

Raw = Float32[Array, "B L F"]


class Features(nnx.Module):
    """The projection of features of one kind."""

    config: Any
    """A `FeaturesConfig`."""

    @property
    def parts(self) -> tuple["Features", ...]:
        """The projections of all kinds of features, each with its own token: this one."""
        return (self,)

    def init_state(self, batch_size: int) -> Any:
        """The state before the first token, batch axis first. Default: none."""
        return ()

    def __call__(self, features: Raw, state: Any, present: Flags, reset: Flags, valid: Flags) -> tuple[Stream, Any]:
        """The projected features [B, L, D], and the state after the call.

        Args:
            features: 0 where `present` is False.
            state: the state after the previous call.
            present: True for the tokens that have features.
            reset: True for the first token of a document.
            valid: False for padding on the right.
        """
        raise NotImplementedError
