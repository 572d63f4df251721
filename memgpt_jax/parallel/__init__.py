"""How a run is spread over devices: a mesh with named axes, and a table of which axes split which array.

Only this module knows the axes, and `ops.mesh`, which names them, for what is split by hand.
Models and steps are written for one device; given arrays that are split as said here, XLA's partitioner splits every
operation accordingly and adds the collectives.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from memgpt_jax.config.checks import check
from memgpt_jax.config.experiment import ExperimentConfig, ParallelConfig
from memgpt_jax.memory import resolved
from memgpt_jax.ops.mesh import AXES, ROWS
from memgpt_jax.ops.trees import path_name

# The first pattern that is found in the path of an array says which axes split its dimensions. An axis that does not
# divide its dimension (a gate of one head has a width of 1) leaves it whole.
PARAMETERS = (
    (r"(^|/)output/kernel$", PartitionSpec("tensor", "fsdp")),  # its input is split over heads or hidden channels
    (r"relative_embedding$", PartitionSpec(None, "tensor")),
    (r"embedding$", PartitionSpec("tensor", "fsdp")),
    (r"kernel$", PartitionSpec("fsdp", "tensor")),
    (r"", PartitionSpec()),
)
STATE = (
    (r"(window|source)/(keys|values)$", PartitionSpec(ROWS, None, "tensor")),
    (r"memory/(entries/)?(keys|values)$", PartitionSpec(ROWS, "sequence", "tensor")),
    (r"memory/ring_(keys|values)$", PartitionSpec(ROWS, "tensor", "sequence")),
    (r"entries/", PartitionSpec(ROWS, "sequence")),
    (r"memory/(matrix|weights|momentum)", PartitionSpec(ROWS, "tensor")),
    (r"", PartitionSpec(ROWS)),
)


HEARTBEAT_SECONDS = 15  # a process that is silent for so long is dead


def join_processes(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None):
    """Make this process one of several that train together, before JAX is used in any other way.

    Without arguments JAX finds the others by itself: on TPU pods, under Slurm, and under Open MPI. When one of them
    dies, the others end too, within half a minute.

    Arguments:
        coordinator: `host:port` of process 0, which all can reach.
        num_processes: how many there are.
        process_id: which of them this is, from 0.

    Raises:
        ValueError: only some of the arguments are given, or nothing is and JAX does not find the others.
    """
    given = [value is not None for value in (coordinator, num_processes, process_id)]
    check(all(given) or not any(given), "give all of coordinator, num_processes and process_id, or none of them")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the other processes were not found ({error}); outside of TPU pods, Slurm and Open MPI, give coordinator, "
            "num_processes and process_id"
        ) from error


def make_mesh(config: ParallelConfig) -> Mesh:
    """The mesh of all devices, of every process; `data` takes those that the other axes leave.

    One process may use fewer devices than it has: the first ones.

    Raises:
        ValueError: the sizes do not fit the number of devices.
    """
    devices, several = jax.devices(), jax.process_count() > 1
    others = {axis: getattr(config, axis) for axis in AXES if axis != "data"}
    named = ", ".join(f"parallel.{axis}={size}" for axis, size in others.items())
    whole, rest = divmod(len(devices), math.prod(others.values()))
    check(whole and (config.data or not rest), f"{named} must divide the number of devices, {len(devices)}")
    sizes = others | {"data": config.data or whole}
    number = math.prod(sizes.values())
    fits = number == len(devices) if several else number <= len(devices)
    check(fits, f"parallel.data={config.data}, {named} take {number} devices, but there are {len(devices)}")
    shape = tuple(sizes[axis] for axis in AXES)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices[:number])


def check_divides(config: ExperimentConfig, mesh: Mesh) -> None:
    """Raise `ValueError` unless the mesh divides the dimensions of the experiment that its axes split."""
    size = dict(mesh.shape)
    rows = size["data"] * size["fsdp"]
    dimensions = [("training.batch_size", config.training.batch_size, "data x fsdp", rows)]
    for stack, model in dataclasses.replace(config, model=resolved(config.model)).stacks.items():
        memory = model.effective_memory
        dimensions += [
            (f"{stack}.d_model", model.d_model, "fsdp", size["fsdp"]),
            (f"{stack}.num_heads", model.num_heads, "tensor", size["tensor"]),
            (f"{stack}.num_kv_heads", model.kv_heads, "tensor", size["tensor"]),
            (f"{stack}.d_ff", model.feed_forward_dim, "tensor", size["tensor"]),
            (f"{stack}.memory.num_heads", getattr(memory, "num_heads", 0), "tensor", size["tensor"]),
            (f"{stack}.memory.memory_size", getattr(memory, "memory_size", 0), "sequence", size["sequence"]),
        ]
    for name, dimension, axis, number in dimensions:
        check(dimension % number == 0, f"{name}={dimension} must be a multiple of parallel {axis}={number}")


def shardings(tree: Any, rules: tuple, mesh: Mesh) -> Any:
    """The `NamedSharding` of every array of a tree, by the rules for paths."""

    def leaf(path, array):
        name = path_name(path)
        spec = next(spec for pattern, spec in rules if re.search(pattern, name))
        if "/stacked/" in name:  # an array for each layer (`training.optimizer.stacked`)
            spec = PartitionSpec(None, *spec)
        return NamedSharding(mesh, _fitting(spec, array.shape, mesh))

    return jax.tree.map_with_path(leaf, tree)


def _fitting(spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The spec without the axes that do not divide their dimension."""

    def fits(axes, dimension):
        names = axes if isinstance(axes, tuple) else (axes,)
        return axes is not None and dimension % math.prod(mesh.shape[name] for name in names) == 0

    return PartitionSpec(*(axes if fits(axes, size) else None for axes, size in zip(spec, shape, strict=False)))


def rows_sharding(mesh: Mesh, batch_axis: int = 0) -> NamedSharding:
    """Of arrays whose batch axis is the given one."""
    return NamedSharding(mesh, PartitionSpec(*[None] * batch_axis, ROWS))


def split_rows(batch: Any, mesh: Mesh, batch_axis: int) -> Any:
    """A pytree of arrays that every host holds whole, as arrays of which each device gets its rows."""
    sharding = rows_sharding(mesh, batch_axis)

    def put(array: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(array.shape, sharding, lambda rows: array[rows])

    return jax.tree.map(put, batch)


def everywhere(mesh: Mesh) -> NamedSharding:
    """Of arrays that every device holds whole, so that every host can fetch them."""
    return NamedSharding(mesh, PartitionSpec())


def is_main() -> bool:
    """Whether this process is the one that writes metrics, tables and plots."""
    return jax.process_index() == 0


@contextlib.contextmanager
def main_first(what: str) -> Iterator[None]:
    """The main process goes through the block before all others enter it: they find what it has written."""
    if not is_main():
        meet(what)
    yield
    if is_main():
        meet(what)


def meet(name: str) -> None:
    """Wait until all processes have called this with the same name."""
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices(name)


def agree(value: bool) -> bool:
    """Whether it is so for the main process, told to all."""
    if jax.process_count() == 1:
        return value
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return bool(broadcast_one_to_all(np.asarray(value)))
