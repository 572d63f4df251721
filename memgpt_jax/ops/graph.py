"""Message passing over the edges of a graph."""

import jax
import jax.numpy as jnp

from memgpt_jax.shapes import Array, Float, Int32


def messages(
    x: Float[Array, "B N D"], edges: Int32[Array, "B E 3"], num_kinds: int, group: Int32[Array, "B N"] | None = None
) -> Float[Array, "B N R D"]:
    """What each node receives by the edges of each of R kinds: the mean of the nodes at which these edges begin.

        m_ik = 1 / c_ik sum_{edges (j, k, i)} x_j,    c_ik the number of edges of the kind k that end at i

    m_ik is 0 where there is no such edge. This is the sum in equation 2 of Schlichtkrull et al., "Modeling Relational
    Data with Graph Convolutional Networks" (2018), before the kernels. Loops and repeated edges count like others. Sums
    and counts are float32, the mean has the type of the nodes.

    Args:
        x: the nodes.
        edges: source, kind and target of each edge, in any order. An edge with a number that does not exist, such as a
            kind of -1, is none.
        num_kinds: R.
        group: the group of each node; edges between two groups are none, and nodes of group -1 are masked: they neither
            send nor receive. Default: all nodes are in one group.
    """
    nodes = x.shape[1]
    numbers = jnp.zeros(x.shape[:2], jnp.int32) if group is None else group

    def row(x: Array, edges: Array, group: Array) -> Array:
        source, kind, target = edges.T
        ends = jnp.stack([source, target])
        known = (kind >= 0) & (kind < num_kinds) & ((ends >= 0) & (ends < nodes)).all(axis=0)
        of_source, of_target = group[jnp.clip(ends, 0, nodes - 1)]
        known = known & (of_source == of_target) & (of_source >= 0)
        place = jnp.where(known, target * num_kinds + kind, nodes * num_kinds)  # beyond the last place: dropped
        sent = x.astype(jnp.float32)[jnp.clip(source, 0, nodes - 1)]
        total = jax.ops.segment_sum(sent, place, nodes * num_kinds)
        count = jax.ops.segment_sum(known.astype(jnp.float32), place, nodes * num_kinds)
        return (total / jnp.maximum(count, 1)[:, None]).astype(x.dtype).reshape(nodes, num_kinds, -1)

    return jax.vmap(row)(x, edges, numbers)
