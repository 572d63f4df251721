"""What operations know of the mesh that they run on: in how many parts it splits rows, heads and entries.

XLA's partitioner splits each operation by how its operands are split. Where two ways meet, as with parameters and rows
that the same devices split, it may choose the one that moves or repeats more: there the functions below say which.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec

ROWS = ("data", "fsdp")


def entry_parts() -> int:
    """In how many parts the active mesh splits the entries of memories: the size of its axis `sequence`, or 1."""
    return jax.sharding.get_abstract_mesh().shape.get("sequence", 1)


def row_parts(rows: int) -> int:
    """In how many parts the active mesh splits so many rows: 1 where it does not divide them."""
    mesh = jax.sharding.get_abstract_mesh()
    parts = math.prod(mesh.shape[axis] for axis in ROWS if axis in mesh.auto_axes)
    return parts if rows % parts == 0 else 1


def split_axes(rows: int, heads: int) -> tuple[tuple[str, ...] | None, str | None]:
    """The axes of the active mesh that split so many rows, and so many heads; None where they do not divide them."""
    mesh = jax.sharding.get_abstract_mesh()
    over_heads = mesh.shape["tensor"] if "tensor" in mesh.auto_axes else 1
    return (
        ROWS if row_parts(rows) > 1 else None,
        "tensor" if over_heads > 1 and heads % over_heads == 0 else None,
    )


def on_each_device(function: Callable, arrays: tuple, in_specs: tuple, out_specs) -> Any:
    """`function` of arrays [B, ...], in which rows and heads keep to themselves.

    On a mesh each device runs it with its own rows and heads, which the specs say (see `split_axes`), and nothing moves
    but sums of gradients.
    """
    if runs_alone():
        return function(*arrays)
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs)(*arrays)


def runs_alone() -> bool:
    """Whether what is traced runs on one device, or on each for itself: nothing in it is split over devices."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.size <= 1 or not mesh.auto_axes


def whole_vectors(embedding: Any) -> Any:
    """Embeddings [V, D] of which, and of whose gradients, each device of the active mesh holds whole vectors."""
    _, words = split_axes(1, embedding.shape[0])
    if runs_alone():
        return embedding
    return jax.lax.with_sharding_constraint(embedding, PartitionSpec(words))


def by_rows(tree: Any) -> Any:
    """Arrays [B, ...] of which, and of whose gradients, each device of the active mesh holds its own rows, whole."""

    def split(x):
        rows, _ = split_axes(x.shape[0], 1)
        return x if rows is None else jax.lax.with_sharding_constraint(x, PartitionSpec(rows))

    return jax.tree.map(split, tree)
