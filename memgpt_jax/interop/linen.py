"""Modules of this library as Flax Linen modules, through Flax's bridge."""

from collections.abc import Callable
from typing import Any

from flax import nnx
from flax.core import FrozenDict


class ToLinen(nnx.bridge.ToLinen):
    """Flax's bridge, with the state before the first call: see `to_linen`."""

    def init_state(self, batch_size: int) -> Any:
        """`init_state` of the NNX module. It holds no parameters, so the Linen module needs no variables for it."""
        return initial_state(self.nnx_class, *self.args, **self.kwargs)(batch_size)


def initial_state(module_class: Callable[..., nnx.Module], *args: Any, **kwargs: Any) -> Callable[[int], Any]:
    """`init_state` of an NNX module whose parameters are not allocated."""

    def make() -> Any:  # a module with `init_state`
        return module_class(*args, **kwargs, rngs=nnx.Rngs(0))

    return nnx.eval_shape(make).init_state


def to_linen(module_class: Callable[..., nnx.Module], *args: Any, name: str | None = None, **kwargs: Any) -> ToLinen:
    """A Linen module that wraps an NNX module of this library.

        layer = to_linen(MemoryLayer, KVMemoryConfig(memory_size=256), d_model=64, segment_length=16)
        state = layer.init_state(batch_size)
        variables = layer.init(key, h, state)
        y, state = layer.apply(variables, h, state)

    It works alone and inside a Linen model. State remains an argument and a result; `variables["params"]` holds the
    parameters, float32, under the names of the NNX module. Call other methods by name:
    `layer.apply(variables, segment, state, nnx_method="segment")` for a mechanism alone.

    Arguments:
        module_class: `MemoryLayer`, `MemGPT` or a mechanism of `MEMORIES`.
        args, kwargs: its arguments except `rngs`, which Linen provides; they must be hashable.
        name: name of the Linen submodule.
    """
    return ToLinen(module_class, args=args, kwargs=FrozenDict(kwargs), name=name)
