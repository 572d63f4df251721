"""Tasks that ask for what was read before, all behind the interface of `memgpt_jax.data.tasks.base`."""

from memgpt_jax.config.data import TaskConfig
from memgpt_jax.data.tasks.babi import BabiConfig, BabiTask
from memgpt_jax.data.tasks.babilong import BabiLongConfig, BabiLongTask
from memgpt_jax.data.tasks.base import Task
from memgpt_jax.data.tasks.copy import CopyConfig, CopyTask
from memgpt_jax.data.tasks.dictionary import DictionaryConfig, DictionaryTask
from memgpt_jax.data.tasks.item_recall import ItemRecallConfig, ItemRecallTask
from memgpt_jax.data.tasks.json_recall import JsonRecallConfig, JsonRecallTask
from memgpt_jax.data.tasks.mqar import MQARConfig, MQARTask
from memgpt_jax.data.tasks.needle import NeedleConfig, NeedleTask
from memgpt_jax.data.tasks.noise import NoiseNeedleConfig, NoiseNeedleTask
from memgpt_jax.data.tasks.recall import RecallConfig, RecallTask, recall_batch
from memgpt_jax.data.tasks.tracking import TrackingConfig, TrackingTask

TASKS = {
    RecallConfig: RecallTask,
    CopyConfig: CopyTask,
    ItemRecallConfig: ItemRecallTask,
    MQARConfig: MQARTask,
    DictionaryConfig: DictionaryTask,
    NoiseNeedleConfig: NoiseNeedleTask,
    TrackingConfig: TrackingTask,
    NeedleConfig: NeedleTask,
    BabiConfig: BabiTask,
    BabiLongConfig: BabiLongTask,
    JsonRecallConfig: JsonRecallTask,
}
"""The task of each config. A task of your own is one more entry."""


def make_task(config: TaskConfig, split: str, tokenizer=None) -> Task:
    """The task that a config describes, on one split; `ValueError` if there is none or it refuses its data."""
    if type(config) not in TASKS:
        valid = ", ".join(cls.__name__ for cls in TASKS)
        raise ValueError(f"unknown task config {type(config).__name__}; valid: {valid}")
    return TASKS[type(config)](config, split, tokenizer)


__all__ = [
    "TASKS",
    "BabiLongTask",
    "BabiTask",
    "JsonRecallTask",
    "NeedleTask",
    "RecallTask",
    "Task",
    "make_task",
    "recall_batch",
]
