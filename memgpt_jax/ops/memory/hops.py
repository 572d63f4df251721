"""Reading in several hops: the result of each hop is part of the next hop's query."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax.ops.attention.dense import attend, attention_weights, masked_bias, normalize, null_logits
from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32


class Hops(NamedTuple):
    """The maps of N hops. Each head is a separate memory network of width K."""

    inputs: Float32[Array, "N H K K"]  # A_n
    outputs: Float32[Array, "N H K K"]  # C_n
    input_ages: Float32[Array, "N A H K"]  # T_A,n: row a - 1 belongs to age a, the last row to all older ones
    output_ages: Float32[Array, "N A H K"]  # T_C,n
    update: Float32[Array, "H K K"] | None  # U; None: the identity
    temperature: Float32[Array, "H"] | None  # t, with normalized q; None: q is not normalized
    null_key: Float32[Array, "H K"] | None  # key of an entry that is always visible and has the output 0


def multi_hop_read(
    query: Float[Array, "B Q H K"],
    keys: Float[Array, "B E H K"],
    values: Float[Array, "B E H K"],
    age: Int32[Array, "B E"],
    visible: Bool[Array, "B Q E"],
    hops: Hops,
) -> Float[Array, "B Q H K"]:
    """The query after N hops through the stored vectors z (`keys`) and y (`values`) of E entries.

        u_1 = query,    q_n = t unit(A_n^T u_n) or A_n^T u_n,    p_e = softmax_e(q_n . z_e + u_n . T_A,n[age_e])
        u_{n+1} = U u_n + sum_e p_e (C_n y_e + T_C,n[age_e])

    As q . z = u . A z and sum_e p_e C y_e = C sum_e p_e y_e, all hops share the entries. Ages are appended to the
    vectors as one-hot indicators, so that each hop is one attention. A token that sees nothing keeps U u_n.
    """
    u, keys, values, bias, hops = _prepare(query, keys, values, age, visible, hops)
    for n in range(hops.inputs.shape[0]):
        question, sink = _question(u, hops, n)
        u = _answered(u, attend(question, keys, values, bias, sink), hops, n)
    return u[:, :, 0].swapaxes(1, 2)


def multi_hop_weights(
    query: Float[Array, "B Q H K"],
    keys: Float[Array, "B E H K"],
    values: Float[Array, "B E H K"],
    age: Int32[Array, "B E"],
    visible: Bool[Array, "B Q E"],
    hops: Hops,
) -> Float32[Array, "N B Q H E"]:
    """The weights p_e of each hop of `multi_hop_read`; the null entry has the rest of each softmax."""
    u, keys, values, bias, hops = _prepare(query, keys, values, age, visible, hops)
    found = []
    for n in range(hops.inputs.shape[0]):
        question, sink = _question(u, hops, n)
        weights = attention_weights(question, keys, bias, sink)
        u = _answered(u, jnp.einsum("bhrqe,bhek->bhrqk", weights.astype(values.dtype), values), hops, n)
        found.append(weights[:, :, 0].swapaxes(1, 2))
    return jnp.stack(found)


def _prepare(query: Array, keys: Array, values: Array, age: Array, visible: Array, hops: Hops):
    """Arguments in the layout of `attend`: u [B, H, 1, Q, K]; keys, values [B, H, E, K + A] with age indicators."""
    num_ages, dtype = hops.input_ages.shape[1], query.dtype
    hops = jax.tree.map(lambda x: x.astype(dtype), hops)
    if num_ages:
        which = jax.nn.one_hot(jnp.clip(age, 1, num_ages) - 1, num_ages, dtype=dtype)
        which = jnp.broadcast_to(which[:, :, None], (*keys.shape[:3], num_ages))
        keys, values = (jnp.concatenate([x, which], axis=-1) for x in (keys, values))
    bias = masked_bias(visible)[:, None, None]
    return query.swapaxes(1, 2)[:, :, None], keys.swapaxes(1, 2), values.swapaxes(1, 2), bias, hops


def _question(u: Array, hops: Hops, n: int):
    """The query of hop n, [B, H, 1, Q, K + A], and the logit of the null entry."""
    question = jnp.einsum("bhrqi,hij->bhrqj", u, hops.inputs[n])
    if hops.temperature is not None:
        question = normalize(question).astype(u.dtype) * hops.temperature[None, :, None, None, None]
    sink = None if hops.null_key is None else null_logits(question, hops.null_key)
    about_age = jnp.einsum("bhrqi,ahi->bhrqa", u, hops.input_ages[n])
    return jnp.concatenate([question, about_age], axis=-1), sink


def _answered(u: Array, found: Array, hops: Hops, n: int):
    """u_{n+1}, from u_n and the attention output of hop n."""
    width = u.shape[-1]
    found, age_share = found[..., :width], found[..., width:]
    answer = jnp.einsum("bhrqj,hij->bhrqi", found, hops.outputs[n])
    answer = answer + jnp.einsum("bhrqa,ahi->bhrqi", age_share, hops.output_ages[n])
    kept = u if hops.update is None else jnp.einsum("bhrqj,hij->bhrqi", u, hops.update)
    return kept + answer


def position_encoding(length: int, width: int) -> np.ndarray:
    """Weights l [length, width], float32, of a bag of words with an encoding of their order.

        l_jk = (1 - j / J) - (k / d) (1 - 2 j / J),    j = 1..J words, k = 1..d channels

    End-To-End Memory Networks (Sukhbaatar et al., 2015), section 4.1.
    """
    j = np.arange(1, length + 1)[:, None] / length
    k = np.arange(1, width + 1)[None, :] / width
    return ((1 - j) - k * (1 - 2 * j)).astype(np.float32)
