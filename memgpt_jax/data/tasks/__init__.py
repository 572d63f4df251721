"""Tasks that ask for what was read before, all behind the interface of `memgpt_jax.data.tasks.base`."""

from memgpt_jax.config_data import NeedleConfig, RecallConfig, TaskConfig
from memgpt_jax.config_reading import BabiConfig, BabiLongConfig, JsonRecallConfig
from memgpt_jax.config_tasks import (
    CopyConfig,
    DictionaryConfig,
    ItemRecallConfig,
    MQARConfig,
    NoiseNeedleConfig,
    TrackingConfig,
)
from memgpt_jax.data.tasks.babi import BabiTask
from memgpt_jax.data.tasks.babilong import BabiLongTask
from memgpt_jax.data.tasks.base import Task
from memgpt_jax.data.tasks.copy import CopyTask
from memgpt_jax.data.tasks.dictionary import DictionaryTask
from memgpt_jax.data.tasks.item_recall import ItemRecallTask
from memgpt_jax.data.tasks.json_recall import JsonRecallTask
from memgpt_jax.data.tasks.mqar import MQARTask
from memgpt_jax.data.tasks.needle import NeedleTask
from memgpt_jax.data.tasks.noise import NoiseNeedleTask
from memgpt_jax.data.tasks.recall import RecallTask, recall_batch
from memgpt_jax.data.tasks.tracking import TrackingTask

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
