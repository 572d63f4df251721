"""Checks of the arguments of a model.

Shapes and types are always checked; values are checked only if they are on the host. An invalid argument raises
`ValueError`. Inside `jit`, where values are unknown, an invalid value gives NaN.
"""

import warnings
from collections.abc import Container, Mapping
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from memgpt_jax.config.checks import check
from memgpt_jax.config.model import ComputeType, MemoryLayerConfig, ModelConfig
from memgpt_jax.ops.int8_vectors import Int8Vectors, is_int8
from memgpt_jax.shapes import Array, Flags, Stream, Targets, Tokens


def on_host(array: Any) -> np.ndarray | None:
    """The values of an array; None if it is traced, or if other processes hold parts of it."""
    if isinstance(array, Tracer) or not getattr(array, "is_fully_addressable", True):
        return None
    return np.asarray(array)


def check_tokens(tokens: Tokens, vocab_size: int, valid: Flags | None = None) -> Tokens:
    """The tokens as int32. Raises `ValueError` unless they are integers [B, L] and valid ones are vocabulary ids."""
    is_array = isinstance(tokens, np.ndarray | jax.Array)
    got = f"{tokens.dtype}{list(tokens.shape)}" if is_array else f"a {type(tokens).__name__}"
    fits = is_array and tokens.ndim == 2 and tokens.shape[1] > 0 and jnp.issubdtype(tokens.dtype, jnp.integer)
    check(fits, f"tokens must be integers [B, L] with L >= 1, got {got}")
    _check_range("tokens", tokens, vocab_size, valid)
    return jnp.asarray(tokens, jnp.int32)


def check_targets(
    targets: Targets,
    tokens: Tokens,
    classes: dict[str, int],
    rows: Container[str] = (),
    sizes: Mapping[str, int] | None = None,
) -> Targets:
    """The targets of each head as int32.

    Args:
        targets: integers by name of the head.
        tokens: the tokens of the call [B, L].
        classes: the number of classes of each head of the model.
        rows: names of the heads whose targets are [B]; the targets of other heads are [B, L].
        sizes: numbers C of a target of the heads whose targets have one more axis of numbers 0 or 1.

    Raises:
        ValueError: the model has no head of that name, or its targets have a wrong shape, type or value.
    """
    is_dict = isinstance(targets, dict) and targets
    check(bool(is_dict), f"targets must be a dictionary {{head: ids}}, got {type(targets).__name__}")
    for head in targets:
        check(head in classes, f"targets: the model has no head {head!r}; valid: {', '.join(classes) or 'none'}")
    checked = {}
    for head, ids in targets.items():
        shape, size = (tokens.shape[:1] if head in rows else tokens.shape), (sizes or {}).get(head)
        shape, count = (shape, classes[head]) if size is None else ((*shape, size), 2)
        checked[head] = check_numbers(f"targets[{head!r}]", ids, shape, count)
    return checked


def check_numbers(
    name: str, numbers: Any, shape: tuple[int, ...], count: int | None = None, *, least: int = 0
) -> Array:
    """The numbers as int32. Raises `ValueError` unless they are integers of that shape, from `least` to `count` - 1."""
    is_array = isinstance(numbers, np.ndarray | jax.Array)
    got = f"{numbers.dtype}{list(numbers.shape)}" if is_array else f"a {type(numbers).__name__}"
    fits = is_array and numbers.shape == shape and jnp.issubdtype(numbers.dtype, jnp.integer)
    check(fits, f"{name} must be integers{list(shape)} like tokens, got {got}")
    if count is not None:
        _check_range(name, numbers, count, least=least)
    return jnp.asarray(numbers, jnp.int32)


def _check_range(name: str, numbers: Any, count: int, valid: Flags | None = None, *, least: int = 0) -> None:
    values, present = on_host(numbers), None if valid is None else on_host(valid)
    if values is None or (valid is not None and present is None):
        return
    has_flags = present is not None and present.shape == values.shape and present.dtype == bool
    values = values[present] if has_flags else values
    if values.size and not least <= values.min() <= values.max() < count:
        raise ValueError(f"{name} must be from {least} to {count - 1}, got {values.min()} to {values.max()}")


def filled_flags(shape: tuple[int, ...], reset: Flags | None, valid: Flags | None) -> tuple[Flags, Flags]:
    """`reset` (default: all False) and `valid` (default: all True) of a call; `reset` is False where `valid` is.

    Raises `ValueError` if they are not bool [B, L], or if a valid token of a row follows one that is not valid.
    """
    for name, flags in (("reset", reset), ("valid", valid)):
        is_array = flags is None or isinstance(flags, np.ndarray | jax.Array)
        check(is_array, f"{name} must be bool{list(shape)} like tokens, got a {type(flags).__name__}")
        if flags is not None and (flags.shape != shape or flags.dtype != bool):
            raise ValueError(f"{name} must be bool{list(shape)} like tokens, got {flags.dtype}{list(flags.shape)}")
    if valid is None:
        return jnp.zeros(shape, bool) if reset is None else jnp.asarray(reset), jnp.ones(shape, bool)
    values = on_host(valid)
    if values is not None and (wrong := np.flatnonzero(padding_leads(values))).size:
        raise ValueError(
            f"valid: rows {wrong.tolist()} have padding in front of tokens. Pad on the right: in each row of a call, "
            "the first tokens are valid and the others are not"
        )
    return jnp.zeros(shape, bool) if reset is None else reset & valid, jnp.asarray(valid)


def check_stream(config: MemoryLayerConfig, x: Any, name: str) -> None:
    """Raise `ValueError` unless x, the argument `name`, is an array of floats [B, L, D] with L >= 1."""
    is_array = isinstance(x, np.ndarray | jax.Array)
    fits = is_array and x.ndim == 3 and x.shape[1] > 0 and x.shape[2] == config.d_model
    got = f"{x.dtype}{list(x.shape)}" if is_array else f"a {type(x).__name__}"
    fits = fits and jnp.issubdtype(x.dtype, jnp.floating)
    check(fits, f"{name} must be floats [B, L, {config.d_model}] with L >= 1, got {got}")


def padding_leads(valid: Any) -> Any:
    """The rows [B] in which a valid token follows one that is not valid; flags [B, L] of NumPy or JAX."""
    return (valid[:, 1:] & ~valid[:, :-1]).any(axis=1)


def nan_where_invalid(x: Stream, tokens: Tokens, vocab_size: int, valid: Flags) -> Stream:
    """The embeddings, with NaN for tokens outside the vocabulary and in rows whose padding is not on the right."""
    wrong = (valid & ((tokens < 0) | (tokens >= vocab_size))) | padding_leads(valid)[:, None]
    return jnp.where(wrong[..., None], jnp.nan, x)


def check_context(config: ModelConfig, positions: Tokens, valid: Flags | None) -> None:
    """Warn if a call exceeds the context of a pretrained model; no warning if its arguments are traced.

    Args:
        config: the configuration of the model.
        positions: position of each token in its document, [B, L].
        valid: False for padding; None: no padding.
    """
    if config.context_length is None or config.memory.stores:
        return
    places, present = on_host(positions), None if valid is None else on_host(valid)
    if places is None or (valid is not None and present is None):
        return
    warn_beyond_context(
        config, 1 + int(np.max(places if present is None else places[present], initial=-1)), stacklevel=6
    )


def warn_beyond_context(config: ModelConfig, tokens: int, stacklevel: int) -> None:
    """Warn if a text of this number of tokens exceeds the context of a pretrained model without a memory."""
    context = config.context_length
    if context is not None and tokens > context and not config.memory.stores:
        warnings.warn(
            f"the text may become longer than context_length={context} tokens, the longest that the model was trained "
            f"on: each token attends to the window_size={config.window_size} tokens before it only",
            stacklevel=stacklevel,
        )


def check_state(state: Any, expected: Any, rows: int, others: str) -> None:
    """Raise `ValueError` unless the state has the class, structure, shapes and types of the expected state.

    Vectors of 8 bits may be floats, with which a call is differentiable.

    Args:
        state: the state to check.
        expected: a state of the model, or its shapes.
        rows: the number of rows of the call.
        others: the end of the message if the state has another number of rows, for example "tokens have 2".
    """
    wanted, got = type(expected).__name__, type(state).__name__
    check(isinstance(state, type(expected)), f"state must be a {wanted}, got {got}: use init_state(batch_size)")
    found, wanted = _leaves(state), _leaves(expected)
    batches = {shape[0] for shape, _ in found.values() if shape}
    same_rows = found.keys() != wanted.keys() or len(batches) != 1 or batches == {rows}
    check(same_rows, f"state has {next(iter(batches), 0)} rows, {others}")
    for name in [*wanted, *found]:
        pair = found.get(name), wanted.get(name)
        if pair[0] != pair[1] and not _are_floats_of(*pair):
            got, must = (f"{leaf[1]}{list(leaf[0])}" if leaf else "absent" for leaf in pair)
            raise ValueError(f"state does not fit the config of this model: state{name} is {got}, must be {must}")
    got, must = (jax.tree.structure(tree, is_leaf=is_int8) for tree in (state, expected))
    check(got == must, f"state does not fit the config of this model: its structure is {got}, must be {must}")


Leaf = tuple[tuple[int, ...], str]  # shape and type


def _leaves(tree: Any) -> dict[str, Leaf]:
    """Shape and type of each array by its path."""

    def describe(leaf: Any) -> Leaf:
        if is_int8(leaf):
            return leaf.shape, Int8Vectors.__name__
        return np.shape(leaf), str(getattr(leaf, "dtype", type(leaf)))

    leaves = jax.tree.leaves_with_path(tree, is_leaf=is_int8)
    return {jax.tree_util.keystr(path): describe(leaf) for path, leaf in leaves}


def _are_floats_of(found: Leaf | None, wanted: Leaf | None) -> bool:
    """Whether the array holds the floats of the vectors of 8 bits that are wanted."""
    if found is None or wanted is None or wanted[1] != Int8Vectors.__name__:
        return False
    return found[0] == wanted[0] and found[1] in get_args(ComputeType)
