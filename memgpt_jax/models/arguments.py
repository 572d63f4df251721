"""Checks of the arguments of a model.

Shapes and types are always checked, values only where they are on the host; a wrong one raises `ValueError`. Inside
`jit`, where values are not known, a wrong one gives NaN.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax.checks import check
from memgpt_jax.shapes import Bool, Flags, Stream, Tokens


def on_host(array: Any) -> np.ndarray | None:
    """The values of an array; None if it is traced, or if other processes hold parts of it."""
    if isinstance(array, jax.core.Tracer) or not getattr(array, "is_fully_addressable", True):
        return None
    return np.asarray(array)


def check_tokens(tokens: Tokens, vocab_size: int, valid: Flags | None = None) -> None:
    """Raise `ValueError` unless the tokens are integers [B, L], and the `valid` ones are ids of the vocabulary."""
    is_array = isinstance(tokens, np.ndarray | jax.Array)
    got = f"{tokens.dtype}{list(tokens.shape)}" if is_array else f"a {type(tokens).__name__}"
    fits = is_array and tokens.ndim == 2 and tokens.shape[1] > 0 and jnp.issubdtype(tokens.dtype, jnp.integer)
    check(fits, f"tokens must be integers [B, L] with L >= 1, got {got}")
    _check_ids("tokens", tokens, vocab_size, valid)


def check_targets(targets: Tokens, tokens: Tokens, vocab_size: int) -> None:
    """Raise `ValueError` unless the targets are ids of the vocabulary, one for each token."""
    is_array = isinstance(targets, np.ndarray | jax.Array)
    got = f"{targets.dtype}{list(targets.shape)}" if is_array else f"a {type(targets).__name__}"
    fits = is_array and targets.shape == tokens.shape and jnp.issubdtype(targets.dtype, jnp.integer)
    check(fits, f"targets must be integers{list(tokens.shape)} like tokens, got {got}")
    _check_ids("targets", targets, vocab_size)


def _check_ids(name: str, ids: Tokens, vocab_size: int, valid: Flags | None = None) -> None:
    values, present = on_host(ids), None if valid is None else on_host(valid)
    if values is None or (valid is not None and present is None):
        return
    values = values if present is None or present.shape != values.shape else values[present]
    if values.size and not 0 <= values.min() <= values.max() < vocab_size:
        raise ValueError(f"{name} must be from 0 to {vocab_size - 1}, got {values.min()} to {values.max()}")


def filled_flags(shape: tuple[int, int], reset: Flags | None, valid: Flags | None) -> tuple[Flags, Flags]:
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


def padding_leads(valid: Flags) -> Bool[jax.Array, "B"]:
    """The rows in which a valid token follows one that is not valid."""
    return (valid[:, 1:] & ~valid[:, :-1]).any(axis=1)


def poisoned(x: Stream, tokens: Tokens, vocab_size: int, valid: Flags) -> Stream:
    """The embeddings, with NaN for tokens outside the vocabulary and in rows whose padding is not on the right."""
    ids = tokens.astype(jnp.int32)
    wrong = (valid & ((ids < 0) | (ids >= vocab_size))) | padding_leads(valid)[:, None]
    return jnp.where(wrong[..., None], jnp.nan, x)


def check_state(state: Any, expected: Any, rows: int, others: str) -> None:
    """Raise `ValueError` unless the state has the class, the structure, the shapes and the types of the expected one.

    Args: rows: the number of rows of the call; others: the end of the message if the state has another number.
    """
    wanted, got = type(expected).__name__, type(state).__name__
    check(isinstance(state, type(expected)), f"state must be a {wanted}, got {got}: use init_state(batch_size)")
    found, wanted = _leaves(state), _leaves(expected)
    batches = {shape[0] for shape, _ in found.values() if shape}
    same_rows = found.keys() != wanted.keys() or len(batches) != 1 or batches == {rows}
    check(same_rows, f"state has {next(iter(batches), 0)} rows, {others}")
    for name in [*wanted, *found]:
        if found.get(name) != wanted.get(name):
            pair = found.get(name), wanted.get(name)
            got, must = (f"{leaf[1]}{list(leaf[0])}" if leaf else "absent" for leaf in pair)
            raise ValueError(f"state is one of a model with another config: state{name} is {got}, must be {must}")


def _leaves(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each array by its path."""
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
    return {name: (np.shape(leaf), str(getattr(leaf, "dtype", type(leaf)))) for name, leaf in leaves.items()}
