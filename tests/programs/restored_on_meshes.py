"""Restores a checkpoint on three meshes of 8 devices, and prints a digest of all of its bytes for each.

python restored_on_meshes.py WORKDIR
"""

import dataclasses
import hashlib
import sys

import jax
import numpy as np

from memgpt_jax import parallel
from memgpt_jax.checkpoint import Checkpoints
from memgpt_jax.config.experiment import ParallelConfig
from memgpt_jax.training.saving import restore_run
from memgpt_jax.training.state import TrainState, shardings

MESHES = (ParallelConfig(data=8), ParallelConfig(fsdp=8), ParallelConfig(data=2, tensor=2, sequence=2))


def digest(state: TrainState) -> str:
    """Of parameters, optimizer state and memory."""
    leaves = jax.tree.leaves((state.params, state.opt_state, state.model_state))
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()


def main(workdir: str) -> None:
    jax.config.update("jax_num_cpu_devices", 8)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        saved = checkpoints.config(checkpoints.find(None))
        for sizes in MESHES:
            config = dataclasses.replace(saved, parallel=sizes)
            mesh = parallel.make_mesh(sizes)
            state, _ = restore_run(checkpoints, config, shardings(config, mesh))
            assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
            print(digest(state))


if __name__ == "__main__":
    main(sys.argv[1])
