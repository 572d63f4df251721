"""The mesh of a run's devices, and the check that it fits an experiment."""

import dataclasses
import math

import jax
from jax.sharding import AxisType, Mesh

from memgpt_jax.config.checks import check
from memgpt_jax.config.experiment import ExperimentConfig, ParallelConfig
from memgpt_jax.memory import resolved
from memgpt_jax.ops.mesh import AXES


def make_mesh(config: ParallelConfig) -> Mesh:
    """The mesh of the devices of all processes; by default `data` uses all devices that the other axes do not use.

    A single process may use fewer devices than it has; it then uses the first ones.

    Raises:
        ValueError: the sizes do not fit the number of devices.
    """
    devices, several = jax.devices(), jax.process_count() > 1
    others = {axis: getattr(config, axis) for axis in AXES if axis != "data"}
    named = " x ".join(f"{axis}={size}" for axis, size in others.items())
    whole, rest = divmod(len(devices), math.prod(others.values()))
    check(
        whole > 0 and (config.data is not None or rest == 0),
        f"the mesh {named} must divide the number of devices; {len(devices)} available",
    )
    sizes = others | {"data": config.data or whole}
    number = math.prod(sizes.values())
    fits = number == len(devices) if several else number <= len(devices)
    check(fits, f"the mesh data={config.data} x {named} needs {number} devices; {len(devices)} available")
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
            (f"{stack}.memory.num_kv_heads", getattr(memory, "kv_heads", 0), "tensor", size["tensor"]),
            (f"{stack}.memory.memory_size", getattr(memory, "memory_size", 0), "sequence", size["sequence"]),
        ]
    for name, dimension, axis, number in dimensions:
        check(dimension % number == 0, f"{name}={dimension} must be a multiple of parallel {axis}={number}")
