"""One check for every fine-tuned run: resumed from its checkpoint before the last, it is the same."""

import shutil

import jax
import numpy as np

import memgpt_jax as mg
from memgpt_jax.checkpoint import Checkpoints
from memgpt_jax.training import train


def check_resuming(run, tmp_path):
    """A copy of the run without its last checkpoint ends with the same parameters, bitwise, and the same evaluation."""
    whole, copy = mg.load_run(run.workdir), tmp_path / "copy"
    shutil.copytree(run.workdir, copy)
    steps = sorted(int(path.name) for path in (copy / "checkpoints").iterdir() if path.name.isdecimal())
    shutil.rmtree(copy / "checkpoints" / str(steps[-1]))
    with Checkpoints(copy) as checkpoints:
        assert checkpoints.latest_step() == steps[-2]
    result = train(whole.config, copy, print_progress=False)
    jax.tree.map(np.testing.assert_array_equal, mg.load_run(copy).params, whole.params)
    assert result["evaluation"] == run.evaluation
