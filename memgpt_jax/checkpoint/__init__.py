"""Checkpoints of a run on disk, and `load_run`, which opens a run to use its model.

This package alone uses Orbax. It reads and writes trees of arrays and JSON values, and knows no trainer.
"""

from memgpt_jax.checkpoint.checkpoints import DAMAGED, Checkpoints
from memgpt_jax.checkpoint.folder import run_folder
from memgpt_jax.checkpoint.run import BEST, Run, check_run, load_run, load_run_tokenizer

__all__ = [
    "BEST",
    "DAMAGED",
    "Checkpoints",
    "Run",
    "check_run",
    "load_run",
    "load_run_tokenizer",
    "run_folder",
]
