"""The description of the machine for measurements, and the memory limit of this process."""

import contextlib
import os
import platform
import resource
from collections.abc import Iterator
from pathlib import Path

import jax


def describe_machine() -> str:
    """Processor, number of usable cores, accelerators, Python and jax versions."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kinds = [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    accelerators = f", {len(kinds)} x {kinds[0]}" if kinds else ""
    return f"{cpu}, {cores} core(s){accelerators}; Python {platform.python_version()}, jax {jax.__version__}"


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
