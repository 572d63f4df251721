"""Mixup: Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018); of hidden states: Verma et al. (2019)."""

import jax
import jax.numpy as jnp

from memgpt_jax.shapes import Array, Flags, Int32, Shaped


def partners(key: Array, asked: Flags) -> Int32[Array, "B L"]:
    """The partner of each token: its place in the flattened call, from 0 to B L - 1.

    The partners of the asked tokens are a random permutation of them, over all B rows. Each other token is its own
    partner.

    Args:
        key: a PRNG key.
        asked: True for the tokens that get a partner.
    """
    flat = asked.reshape(-1)
    ordered = jnp.argsort(~flat)  # stable: the asked tokens in order, then the others in order
    shuffled = jnp.argsort(jnp.where(flat, jax.random.uniform(key, flat.shape), 1.0))
    found = jnp.zeros(flat.shape, jnp.int32).at[ordered].set(shuffled.astype(jnp.int32))
    return found.reshape(asked.shape)


def of_partners(x: Shaped[Array, "B L ..."], partner: Int32[Array, "B L"]) -> Shaped[Array, "B L ..."]:
    """x of the partner of each token."""
    return x.reshape(-1, *x.shape[2:])[partner.reshape(-1)].reshape(x.shape)
