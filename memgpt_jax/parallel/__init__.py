"""Runs on several devices and processes: the mesh, how arrays are split over it, and the processes."""

from memgpt_jax.ops.mesh import AXES
from memgpt_jax.parallel.mesh import check_divides, make_mesh
from memgpt_jax.parallel.processes import agree, is_main, join_processes, main_first, meet
from memgpt_jax.parallel.rules import parameter_shardings, replicated, rows_sharding, split_rows, state_shardings

__all__ = [
    "AXES",
    "agree",
    "check_divides",
    "is_main",
    "join_processes",
    "main_first",
    "make_mesh",
    "meet",
    "parameter_shardings",
    "replicated",
    "rows_sharding",
    "split_rows",
    "state_shardings",
]
