"""The description of the machine for measurements, and the memory limit of this process."""

import contextlib
import os
import platform
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
