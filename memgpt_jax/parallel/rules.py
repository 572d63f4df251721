"""The shardings of parameters, model states and batches over the mesh.

Models and steps are written for one device; XLA's partitioner splits each operation by the shardings of its operands
and adds the collectives. Parameters are split by their paths. A model's state is split as the types of the state
declare it: `mesh_axes` of a NamedTuple gives, for each field, the mesh axes of the dimensions after the batch axis.
"""

import math
import re
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from memgpt_jax.ops.mesh import HEADS, ROWS
from memgpt_jax.ops.trees import path_name

PARAMETERS = (
    (r"(^|/)output/kernel$", PartitionSpec(HEADS, "fsdp")),  # split over heads, or hidden or model channels
    (r"relative_embedding$", PartitionSpec(None, HEADS)),
    (r"embedding$", PartitionSpec(HEADS, "fsdp")),
    (r"kernel$", PartitionSpec("fsdp", HEADS)),
    (r"", PartitionSpec()),
)
"""The first pattern found in the path of a parameter gives the axes of its dimensions. An axis that does not divide its
dimension (a gate of one head has width 1) leaves it whole."""


def parameter_shardings(params: Any, mesh: Mesh) -> Any:
    """The `NamedSharding` of every array in a tree of parameters, or of optimizer state in their structure."""

    def leaf(path: tuple, array: Any):
        name = path_name(path)
        spec = next(spec for pattern, spec in PARAMETERS if re.search(pattern, name))
        if "/stacked/" in name:  # leading axis: the layers (`training.optimizer.stacked`)
            spec = PartitionSpec(None, *spec)
        return NamedSharding(mesh, _fitting(spec, array.shape, mesh))

    return jax.tree.map_with_path(leaf, params)


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """The `NamedSharding` of every array of a model's state: rows over the data axes, others by `mesh_axes`."""

    def is_named(node: Any):
        return isinstance(node, tuple) and hasattr(node, "_fields")

    def split(axes: tuple, tree: Any):
        def leaf(array: Any):
            return NamedSharding(mesh, _fitting(PartitionSpec(ROWS, *axes), array.shape, mesh))

        return jax.tree.map(leaf, tree)

    def node(tree: Any):
        if not is_named(tree):
            return split((), tree)
        declared, fields = getattr(type(tree), "mesh_axes", {}), tree._asdict()
        parts = {name: split(declared[name], value) for name, value in fields.items() if name in declared}
        return type(tree)(**{name: parts[name] if name in parts else walk(value) for name, value in fields.items()})

    def walk(tree: Any):
        return jax.tree.map(node, tree, is_leaf=is_named)

    return walk(state)


def _fitting(spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The spec without the axes that do not divide their dimension."""

    def fits(axes: str | tuple[str, ...] | None, dimension: int):
        names = axes if isinstance(axes, tuple) else (axes,)
        return axes is not None and dimension % math.prod(mesh.shape[name] for name in names) == 0

    return PartitionSpec(*(axes if fits(axes, size) else None for axes, size in zip(spec, shape, strict=False)))


def rows_sharding(mesh: Mesh, batch_axis: int = 0) -> NamedSharding:
    """Sharding that splits `batch_axis` over the data axes."""
    return NamedSharding(mesh, PartitionSpec(*[None] * batch_axis, ROWS))


def replicated(mesh: Mesh) -> NamedSharding:
    """Fully replicated sharding, so that every process can fetch the array."""
    return NamedSharding(mesh, PartitionSpec())


def split_rows(batch: Any, mesh: Mesh, batch_axis: int) -> Any:
    """Shard the rows of a batch over the devices.

    Args:
        batch: a pytree of NumPy arrays, of which every process holds a full copy.
        mesh: the device mesh.
        batch_axis: the axis of the rows in every array.
    """
    sharding = rows_sharding(mesh, batch_axis)

    def split(array: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(array.shape, sharding, lambda rows: array[rows])

    return jax.tree.map(split, batch)
