"""Names of the mesh axes, and sharding constraints on arrays inside operations.

XLA's partitioner chooses the sharding of an operation from those of its operands. Where these differ, as with
parameters and rows that the same devices split, it may choose the one with more communication or repeated work; the
functions here decide instead. They act on the meshes of `memgpt_jax.parallel`; on any other mesh they do nothing.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from memgpt_jax.ops.quantized import StoredMatrix

ROWS = ("data", "fsdp")
"""Axes over which batch rows are split. With `fsdp`, too, each device processes its own rows."""
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
    """Number of parts into which the active mesh splits memory entries: the size of its axis `ENTRIES`, or 1."""
    return jax.sharding.get_abstract_mesh().shape.get(ENTRIES, 1)


def num_row_parts(rows: int) -> int:
    """Number of parts into which the active mesh splits `rows` rows; 1 if it does not divide them."""
    shape = jax.sharding.get_abstract_mesh().shape
    parts = math.prod(shape[axis] for axis in ROWS) if is_multi_device() else 1
    return parts if rows % parts == 0 else 1


def row_and_head_axes(rows: int, heads: int) -> tuple[tuple[str, ...] | None, str | None]:
    """The axes of the active mesh that split `rows` rows and `heads` heads; None if they do not divide them."""
    over_heads = jax.sharding.get_abstract_mesh().shape[HEADS] if is_multi_device() else 1
    return (
        ROWS if num_row_parts(rows) > 1 else None,
        HEADS if over_heads > 1 and heads % over_heads == 0 else None,
    )


def on_each_device(
    function: Callable, arrays: tuple, in_specs: tuple, out_specs: Any, *, check_vma: bool = True
) -> Any:
    """`function(*arrays)` on each device's own part of the arrays, for functions that never mix rows or heads.

    The specs say how the arrays are split (see `row_and_head_axes`). Devices exchange sums of gradients only. Without
    such a mesh, `function` gets the whole arrays.

    check_vma: as in `jax.shard_map`; False for kernels.
    """
    if not is_multi_device():
        return function(*arrays)
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=check_vma)(*arrays)


def is_multi_device() -> bool:
    """True if the active mesh is one of `memgpt_jax.parallel`, has more than one device, outside any `shard_map`."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.size > 1 and set(AXES) <= set(mesh.auto_axes)


def is_single_device() -> bool:
    """True if no array is split over devices here: one device, or inside a `shard_map` over all axes."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.size <= 1 or set(mesh.manual_axes) == set(mesh.axis_names)


def split_vocabulary(embedding: Any) -> Any:
    """Split embeddings [V, D], if they are an array, and their gradients over V: each device holds whole vectors."""
    if isinstance(embedding, StoredMatrix):
        return embedding
    if not is_multi_device():
        return jnp.asarray(embedding)  # a NumPy array cannot be indexed by a tracer
    _, words = row_and_head_axes(1, embedding.shape[0])
    return jax.lax.with_sharding_constraint(embedding, PartitionSpec(words))


def replicate(tree: Any) -> Any:
    """Replicate arrays on every device, so that every process can fetch them."""
    if is_single_device():
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), tree)


def split_rows(tree: Any) -> Any:
    """Split arrays [B, ...] and their gradients over batch rows, and over no other axis."""

    def split(x: jax.Array):
        rows, _ = row_and_head_axes(x.shape[0], 1)
        return x if rows is None else jax.lax.with_sharding_constraint(x, PartitionSpec(rows))

    return jax.tree.map(split, tree)
