"""Fusion of a memory read with the residual stream or with another read, and of the vectors of several modalities."""

import jax
import jax.numpy as jnp

from memgpt_jax.config.checks import check
from memgpt_jax.shapes import Array, Float, Float32


def joint_softmax(
    first: Float[Array, "*b K"],
    first_lse: Float32[Array, "*b"],
    second: Float[Array, "*b K"],
    second_lse: Float32[Array, "*b"],
) -> tuple[Float[Array, "*b K"], Float32[Array, "*b"]]:
    """Merge two reads of the same queries into one softmax over the entries of both; returns (r, lambda).

        r = lambda r_1 + (1 - lambda) r_2,    lambda = Z_1 / (Z_1 + Z_2) = sigmoid(lse_1 - lse_2)

    lse_n = log Z_n is the log-sum-exp of read n, as returned by `attend_with_lse`.
    """
    share = jax.nn.sigmoid(first_lse - second_lse)
    return blend(share[..., None], first, second), share


def blend(
    share: Float32[Array, "*#b #K"], first: Float[Array, "*b K"], second: Float[Array, "*b K"]
) -> Float[Array, "*b K"]:
    """s a + (1 - s) b, in float32: in bfloat16, 1 - s is 0 from s = 0.998 on."""
    mixed = share * first.astype(jnp.float32) + (1 - share) * second.astype(jnp.float32)
    return mixed.astype(first.dtype)


def gated_fusion(
    stream: Float[Array, "... D"], read: Float[Array, "... D"], gate_logit: Float[Array, "... C"]
) -> tuple[Float[Array, "... D"], Float32[Array, "... C"]]:
    """f = lambda * h + (1 - lambda) * r with lambda = sigmoid(gate_logit), in float32; returns (f, lambda).

    Each of C gates controls D / C consecutive channels: C = D is one gate per channel, C = H one per head.

    Raises:
        ValueError: C does not divide D.
    """
    width, gates = stream.shape[-1], gate_logit.shape[-1]
    check(gates >= 1 and width % gates == 0, f"the number of gates must divide the {width} channels, got {gates}")
    gate = jax.nn.sigmoid(gate_logit.astype(jnp.float32))
    return blend(jnp.repeat(gate, width // gates, axis=-1), stream, read), gate


def gated_modalities(
    vectors: Float[Array, "*b M D"], gate_logits: Float[Array, "*b M D"]
) -> tuple[Float[Array, "*b D"], Float32[Array, "*b M D"]]:
    """f = sum_m g_m * v_m over M modalities, with gates g = softmax_m(gate_logits), in float32; returns (f, g).

    Each channel has gates of its own. For M = 2 it is `gated_fusion` with the difference of the two logits: Arevalo et
    al., "Gated Multimodal Units for Information Fusion" (2017), section 3.
    """
    gates = jax.nn.softmax(gate_logits.astype(jnp.float32), axis=-2)
    return jnp.sum(gates * vectors.astype(jnp.float32), axis=-2).astype(vectors.dtype), gates
