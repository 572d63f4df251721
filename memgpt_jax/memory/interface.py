"""A check that a mechanism fits the interface of `Memory`, whose errors name the method."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.memory.base import Memory, OwnSegment, State

MemoryT = TypeVar("MemoryT", bound=Memory[Any])
ROWS = 2
_fitting: set[tuple[Any, ...]] = set()
"""Class, configuration and shapes of the mechanisms that have been checked."""


def checked(memory: MemoryT) -> MemoryT:
    """The mechanism, after its `init_state`, `initial_state`, `read` and `write` have been traced once, without values.

    Those of this package are not traced: tests check them.

    Raises:
        ValueError: a method returns another structure, shape or type than the interface asks for.
    """
    case = (type(memory), repr(memory.config), memory.d_model, memory.segment_length, memory.dtype)
    if not type(memory).__module__.startswith("memgpt_jax.") and case not in _fitting:
        _check(memory)
        _fitting.add(case)
    return memory


def _check(memory: Memory[Any]) -> None:
    name, length, width = type(memory).__name__, memory.segment_length, memory.d_model

    def state_of(memory: Memory[Any]) -> State:
        state = memory.init_state(ROWS)
        _check_state(f"{name}.init_state", state)
        return state

    def trace(method: str, *arguments: Any) -> Any:
        return nnx.eval_shape(lambda memory, arguments: getattr(memory, method)(*arguments), memory, arguments)

    state = nnx.eval_shape(state_of, memory)
    initial = nnx.eval_shape(lambda memory: memory.initial_state(ROWS), memory)
    _check_same(f"{name}.initial_state", initial, state)

    def array(*shape: int, dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((ROWS, *shape), dtype)

    x, token = (array(size, width, dtype=memory.dtype) for size in (length, 1))
    ids, place = (array(size, dtype=jnp.int32) for size in (length, 1))
    written, mask = (array(size, dtype=bool) for size in (length, 1))
    found = trace("read", token, state, OwnSegment(x, ids, place), mask)
    check(
        isinstance(found, tuple) and len(found) == 2,
        f"{name}.read must return the pair (read, state), got {type(found).__name__}",
    )
    read, after = found
    channels = width if memory.output is None else memory.output.kernel.shape[0]
    reason = "D" if memory.output is None else "the input of `output`"
    shape = (ROWS, 1, channels)
    check(
        getattr(read, "shape", None) == shape,
        f"{name}.read: the read of one token of {ROWS} rows must be {list(shape)} (R = {channels}: {reason}), "
        f"got {_described(read)}",
    )
    _check_same(f"{name}.read", after, state)
    _check_same(f"{name}.write", trace("write", x, state, written), state)


def _check_state(method: str, state: State) -> None:
    """Every leaf is an array of its own with the batch axis first."""
    places: dict[int, str] = {}
    for path, leaf in jax.tree.leaves_with_path(state):
        field = _field(path)
        check(
            getattr(leaf, "shape", ())[:1] == (ROWS,),
            f"{method}({ROWS}): {field} is {_described(leaf)}; every array of a state has the batch axis first",
        )
        check(
            id(leaf) not in places,
            f"{method}: {places.get(id(leaf))} and {field} are one array, which cannot be donated twice: make two",
        )
        places[id(leaf)] = field


def _check_same(method: str, state: State, expected: State) -> None:
    """Raise `ValueError` unless a state has the structure, shapes and types of `init_state`."""
    structure, wanted = jax.tree.structure(state), jax.tree.structure(expected)
    check(structure == wanted, f"{method}: the state must be {wanted} as in `init_state`, got {structure}")
    for (path, leaf), other in zip(jax.tree.leaves_with_path(state), jax.tree.leaves(expected), strict=True):
        check(
            (leaf.shape, leaf.dtype) == (other.shape, other.dtype),
            f"{method}: {_field(path)} is {_described(leaf)}, in `init_state` {_described(other)}",
        )


def _field(path: Any) -> str:
    return f"field `{jax.tree_util.keystr(path).lstrip('.')}`" if path else "the state"


def _described(value: Any) -> str:
    """Such as "float32[2,8]"; of a value that is no array, its class."""
    if not hasattr(value, "shape"):
        return type(value).__name__
    return f"{value.dtype}[{','.join(map(str, value.shape))}]"
