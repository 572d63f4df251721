"""Training: `train` trains a config in a folder and can be resumed at every step; the parts of a loop of one's own."""

from memgpt_jax.errors import RunError
from memgpt_jax.training.finetune import Finetuned, finetune
from memgpt_jax.training.loop import train
from memgpt_jax.training.metrics import read_metrics
from memgpt_jax.training.optimizer import make_optimizer
from memgpt_jax.training.own_batches import Batches
from memgpt_jax.training.state import LossFunction, Totals, TrainState
from memgpt_jax.training.state import create as create_state
from memgpt_jax.training.step import cross_entropy, train_step

__all__ = [
    "Batches",
    "Finetuned",
    "LossFunction",
    "RunError",
    "Totals",
    "TrainState",
    "create_state",
    "cross_entropy",
    "finetune",
    "make_optimizer",
    "read_metrics",
    "train",
    "train_step",
]
