"""Runs on several devices and processes: the mesh, the shardings of arrays, and synchronisation of processes."""

from memgpt_jax.ops.mesh import AXES
from memgpt_jax.parallel.mesh import check_divides, make_mesh
from memgpt_jax.parallel.processes import barrier, broadcast_from_main, is_main, join_processes, main_first
from memgpt_jax.parallel.rules import parameter_shardings, replicated, rows_sharding, split_rows, state_shardings

__all__ = [
    "AXES",
    "barrier",
    "broadcast_from_main",
    "check_divides",
    "is_main",
    "join_processes",
    "main_first",
    "make_mesh",
    "parameter_shardings",
    "replicated",
    "rows_sharding",
    "split_rows",
    "state_shardings",
]
