"""The memory that a run needs on each device: exact counts before compiling, then the compiler's own report."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from memgpt_jax import data, models, parallel
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.errors import RunError
from memgpt_jax.ops.trees import tree_bytes
from memgpt_jax.training.state import abstract_state, shardings
from memgpt_jax.training.teachers import running_teachers


class HeldBytes(NamedTuple):
    """Bytes that each device holds throughout a training step; activations and gradients come on top."""

    parameters: int
    """Parameters of the model, and of teachers that run in each step."""
    optimizer_state: int
    """State of the optimizer."""
    model_state: int
    """State of the model for the rows of the device: windows, memories, positions."""
    batch: int
    """Arrays of the batches of one call: `optimizer.accumulate_steps` x `training.steps_per_call` batches."""

    @property
    def total(self) -> int:
        """The sum of the fields."""
        return sum(self)

    def __str__(self) -> str:
        return ", ".join(f"{in_bytes(size)} of {name.replace('_', ' ')}" for name, size in self._asdict().items())


def held_bytes(config: ExperimentConfig, mesh: jax.sharding.Mesh, batch: data.Batch | None = None) -> HeldBytes:
    """Count the bytes that a training run holds on each device of a mesh. Nothing is allocated or compiled.

    Args:
        config: the experiment.
        mesh: the devices.
        batch: one batch [B, ...], or its shapes; default: a batch of `config.data`.
    """
    state, split = abstract_state(config), shardings(config, mesh)
    batch = data.batch_shapes(config.data, config.training) if batch is None else batch
    teachers = tuple(models.functional(teacher).param_shapes() for teacher in running_teachers(config))
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    number = config.training.steps_per_call * config.optimizer.accumulate_steps
    return HeldBytes(
        parameters=_shard_bytes(state.params, split.params)
        + _shard_bytes(teachers, parallel.parameter_shardings(teachers, mesh)),
        optimizer_state=_shard_bytes(state.opt_state, split.opt_state),
        model_state=_shard_bytes(state.model_state, split.model_state),
        batch=number * tree_bytes(batch) // rows,
    )


def _shard_bytes(tree: Any, split: Any) -> int:
    """Bytes of a tree of shapes on one device, given its shardings."""
    return tree_bytes(
        jax.tree.map(lambda x, part: jax.ShapeDtypeStruct(part.shard_shape(x.shape), x.dtype), tree, split)
    )


def check_held_bytes(held: HeldBytes, limit: int | None) -> None:
    """Raise `RunError` if the bytes that a run holds on a device exceed its memory.

    Args:
        held: the counts.
        limit: memory of a device in bytes; None: unknown, nothing is refused.
    """
    if limit is not None and held.total > limit:
        raise RunError(
            f"a training step needs at least {in_bytes(held.total)} of memory on each device, which has "
            f"{in_bytes(limit)}: {held}"
        )


def check_evaluation_memory(config: ExperimentConfig, limit: int | None) -> None:
    """Raise `RunError` if parameters and model state of the held-out evaluation do not fit a device.

    Args:
        config: the experiment.
        limit: memory of a device in bytes; None: unknown, nothing is refused. Where parameters are split over devices,
            the counts are an upper bound, and nothing is refused.
    """
    split = any(getattr(config.parallel, axis) > 1 for axis in ("fsdp", "tensor", "sequence"))
    rows = config.evaluation.batch_size
    if limit is None or split:
        return
    state = jax.eval_shape(lambda: models.functional(config.model).init_state(rows))
    needed = tree_bytes(abstract_state(config).params) + 2 * tree_bytes(state)  # the state before and after a call
    if needed > limit:
        raise RunError(
            f"the evaluation needs at least {in_bytes(needed)} of memory on a device, which has {in_bytes(limit)}; "
            f"lower evaluation.batch_size={rows}"
        )


def peak_bytes(compiled: jax.stages.Compiled) -> int | None:
    """Bytes on each device that the compiler reports for arguments, results and temporaries; None: no report."""
    report = compiled.memory_analysis()
    if report is None:
        return None
    results = report.output_size_in_bytes - report.alias_size_in_bytes
    return report.argument_size_in_bytes + results + report.temp_size_in_bytes


def check_peak(compiled: jax.stages.Compiled, limit: int | None) -> int | None:
    """`peak_bytes` of a compiled step. Raises `RunError` if it is more than `limit`, the memory of a device."""
    peak = peak_bytes(compiled)
    if limit is not None and peak is not None and peak > limit:
        raise RunError(
            f"the compiled training step needs {in_bytes(peak)} of memory on each device, which has {in_bytes(limit)}; "
            "lower training.batch_size or training.sequence_length, or set model.remat='block'"
        )
    return peak


def device_memory(mesh: jax.sharding.Mesh) -> int | None:
    """Bytes that a device of this process may use: an accelerator's own memory, or its share of `memory_limit`.

    None if an accelerator does not report it.
    """
    device = mesh.local_devices[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    return memory_limit() // len(mesh.local_devices)


def in_bytes(size: float) -> str:
    """A number of bytes with three digits and a unit, such as `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def memory_limit(root: Path = Path("/")) -> int:
    """Memory limit in bytes: the minimum of physical memory, control group limits and process limits.

    Args:
        root: the folder that holds `proc` and `sys`.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_group_limits(root)]
    for name in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(name)
        limits += [soft] if soft != resource.RLIM_INFINITY else []
    return min(limits)


def _group_limits(root: Path) -> Iterator[int]:
    """Limits of the control groups (versions 1 and 2) of this process and of their parents."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        group = Path(path.strip("/"))
        for folder in (top / group, *(top / parent for parent in group.parents), top):
            with contextlib.suppress(OSError, ValueError):  # no such file; "max"
                yield int((folder / name).read_text())
