"""`reset` and `valid` from the segment ids and attention masks of other libraries."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.models.arguments import on_host, padding_leads
from memgpt_jax.shapes import Array, Flags, Int


class TokenFlags(NamedTuple):
    """The flags of a model's call, in the order of its arguments: `model(tokens, state, *flags)`."""

    reset: Flags
    """True for the first token of a document."""
    valid: Flags
    """False for padding on the right."""


def flags_from_segment_ids(ids: Int[Array, "B L"]) -> TokenFlags:
    """`reset` and `valid` of packed rows, from segment ids or from an attention mask.

    reset_t = ids_t != 0 and (t = 0 or ids_t != ids_{t-1})        valid_t = ids_t != 0

    Each row begins a document. If it continues one of the previous call, clear its first flag:
    `flags.reset.at[:, 0].set(False)`.

    Args:
        ids: integers or bools [B, L]. Tokens of one document have the same id, which differs from the ids of the
            documents next to it; 0 is padding, on the right only. An attention mask of ones and zeros is one document
            per row.

    Returns:
        `TokenFlags(reset, valid)`, bool [B, L].

    Raises:
        ValueError: `ids` are not integers or bools [B, L], or padding comes before a token in a row. For traced ids the
            model gives NaN in such a row instead.
    """
    is_array = hasattr(ids, "shape") and hasattr(ids, "dtype")
    got = f"{ids.dtype}{list(ids.shape)}" if is_array else f"a {type(ids).__name__}"
    fits = is_array and ids.ndim == 2 and (ids.dtype == bool or jnp.issubdtype(ids.dtype, jnp.integer))
    check(fits, f"segment ids must be integers or bools [B, L], got {got}")
    values = on_host(ids)
    if values is not None:
        wrong = np.flatnonzero(padding_leads(values != 0)).tolist()
        check(not wrong, f"segment ids: rows {wrong} have padding (0) in front of tokens: pad on the right")
    ids = jnp.asarray(ids).astype(jnp.int32)
    valid = ids != 0
    changes = jnp.concatenate([jnp.ones_like(valid[:, :1]), ids[:, 1:] != ids[:, :-1]], axis=1)
    return TokenFlags(changes & valid, valid)
