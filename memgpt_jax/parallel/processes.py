"""Multi-process training: joining the processes, barriers, and values broadcast from the main process."""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np

from memgpt_jax.config.checks import check

HEARTBEAT_SECONDS = 15
"""A process that sends no heartbeat for this time is treated as dead."""


def join_processes(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Make this process one of several that train together, before any other use of JAX.

    Without arguments JAX finds the others by itself: on TPU pods, under Slurm, and under Open MPI. When one process
    dies, the others exit within half a minute.

    Args:
        coordinator: `host:port` of process 0, which all can reach.
        num_processes: number of processes.
        process_id: index of this process, from 0.

    Raises:
        ValueError: only some of the arguments are given, or none is and JAX does not find the others.
    """
    given = [value is not None for value in (coordinator, num_processes, process_id)]
    check(all(given) or not any(given), "give all of coordinator, num_processes and process_id, or none of them")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (RuntimeError, ValueError) as error:
        others = "outside of TPU pods, Slurm and Open MPI, give coordinator, num_processes and process_id"
        hint = "" if all(given) else f"; {others}"
        raise ValueError(f"the processes could not be joined ({error}){hint}") from error


def is_main() -> bool:
    """Whether this is the main process (index 0), which writes metrics, tables and plots."""
    return jax.process_index() == 0


@contextlib.contextmanager
def main_first(name: str) -> Iterator[None]:
    """Context manager: the main process completes the block before the others enter it and read the files it wrote."""
    if not is_main():
        barrier(name)
    yield
    if is_main():
        barrier(name)


def barrier(name: str) -> None:
    """Wait until all processes have called this with the same name."""
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices(name)


def broadcast_from_main(value: bool) -> bool:
    """The value of the main process, in all processes."""
    if jax.process_count() == 1:
        return value
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return bool(broadcast_one_to_all(np.asarray(value)))
