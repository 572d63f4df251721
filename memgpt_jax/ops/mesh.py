"""What operations know of the mesh that they run on: in how many parts it splits rows, heads and entries.

XLA's partitioner splits each operation by how its operands are split. Where two ways meet, as with parameters and rows
that the same devices split, it may choose the one that moves or repeats more: there the functions below say which.
They do so on the meshes of `memgpt_jax.parallel`; on any other, all is left to the partitioner.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

ROWS = ("data", "fsdp")
"""Axes over which batch rows are split: both, as with `fsdp` each device works on rows of its own, too."""
HEADS = "tensor"
"""Axis over which heads and hidden channels are split."""
ENTRIES = "sequence"
"""Axis over which the entries of memories are split."""
AXES = (*ROWS, HEADS, ENTRIES)


def declare_axes(**fields: tuple[str | None, ...]) -> Mapping[str, tuple[str | None, ...]]:
    """The value of `mesh_axes` in a NamedTuple of arrays [B, ...]: the axes that split the dimensions after the batch.

    Args:
        fields: for each field that is split over more than rows, `HEADS`, `ENTRIES` or None for each dimension.

    Raises:
        ValueError: another axis.
    """
    for name, axes in fields.items():
        unknown = set(axes) - {HEADS, ENTRIES, None}
        if unknown:
            raise ValueError(
                f"{name} cannot be split over {', '.join(map(repr, unknown))}; valid: HEADS, ENTRIES, None"
            )
    return MappingProxyType(fields)


def num_entry_parts() -> int:
    """In how many parts the active mesh splits the entries of memories: the size of its axis `sequence`, or 1."""
    return jax.sharding.get_abstract_mesh().shape.get(ENTRIES, 1)


def num_row_parts(rows: int) -> int:
    """In how many parts the active mesh splits so many rows: 1 where it does not divide them."""
    shape = jax.sharding.get_abstract_mesh().shape
    parts = math.prod(shape[axis] for axis in ROWS) if is_multi_device() else 1
    return parts if rows % parts == 0 else 1


def row_and_head_axes(rows: int, heads: int) -> tuple[tuple[str, ...] | None, str | None]:
    """The axes of the active mesh that split so many rows, and so many heads; None where they do not divide them."""
    over_heads = jax.sharding.get_abstract_mesh().shape[HEADS] if is_multi_device() else 1
    return (
        ROWS if num_row_parts(rows) > 1 else None,
        HEADS if over_heads > 1 and heads % over_heads == 0 else None,
    )


def on_each_device(
    function: Callable, arrays: tuple, in_specs: tuple, out_specs: Any, *, check_vma: bool = True
) -> Any:
    """`function` of arrays [B, ...], in which rows and heads keep to themselves.

    On a mesh each device runs it with its own rows and heads, by the specs (see `row_and_head_axes`); devices exchange
    sums of gradients only.
    """
    if not is_multi_device():
        return function(*arrays)
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=check_vma)(*arrays)


def is_multi_device() -> bool:
    """Whether the active mesh has several devices, all axes of `memgpt_jax.parallel`, and is not split by them yet."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.size > 1 and set(AXES) <= set(mesh.auto_axes)


def is_single_device() -> bool:
    """Whether what is traced runs on one device, or on each for itself: nothing in it is split over devices."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.size <= 1 or set(mesh.manual_axes) == set(mesh.axis_names)


def split_vocabulary(embedding: Any) -> Any:
    """Embeddings [V, D] of which, and of whose gradients, each device of the active mesh holds whole vectors."""
    if not is_multi_device():
        return jnp.asarray(embedding)  # a NumPy array cannot be indexed by a tracer
    _, words = row_and_head_axes(1, embedding.shape[0])
    return jax.lax.with_sharding_constraint(embedding, PartitionSpec(words))


def replicate(tree: Any) -> Any:
    """Arrays of which each device of the active mesh holds the whole, so that every process can fetch them."""
    if is_single_device():
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), tree)


def split_rows(tree: Any) -> Any:
    """Arrays [B, ...] of which, and of whose gradients, each device of the active mesh holds its own rows, whole."""

    def split(x):
        rows, _ = row_and_head_axes(x.shape[0], 1)
        return x if rows is None else jax.lax.with_sharding_constraint(x, PartitionSpec(rows))

    return jax.tree.map(split, tree)
