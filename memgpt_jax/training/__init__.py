"""Training: `train` trains a config in a folder and can be resumed at every step."""

from memgpt_jax.errors import RunError
from memgpt_jax.training.loop import train
from memgpt_jax.training.metrics import read_metrics

__all__ = ["RunError", "read_metrics", "train"]
