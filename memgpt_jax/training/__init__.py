"""Training: `train` a config in a folder, resumable at every step; `load` what it saved."""

from memgpt_jax.errors import RunError
from memgpt_jax.training.checkpoint import load
from memgpt_jax.training.loop import train
from memgpt_jax.training.metrics import read_metrics

__all__ = ["RunError", "load", "read_metrics", "train"]
