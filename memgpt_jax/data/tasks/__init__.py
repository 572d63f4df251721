"""Tasks: generated ones that need recall, and texts of people; `memgpt_jax.data.tasks.base` defines the interface."""

from typing import Any

from memgpt_jax.config.data import TaskConfig
from memgpt_jax.config.registry import Registry
from memgpt_jax.data.tasks.babi import BabiConfig, BabiTask
from memgpt_jax.data.tasks.babilong import BabiLongConfig, BabiLongTask
from memgpt_jax.data.tasks.base import Task
from memgpt_jax.data.tasks.captions import CaptionsConfig, CaptionsTask
from memgpt_jax.data.tasks.copy import CopyConfig, CopyTask
from memgpt_jax.data.tasks.ctc_transcripts import CTCTranscriptsConfig, CTCTranscriptsTask
from memgpt_jax.data.tasks.dictionary import DictionaryConfig, DictionaryTask
from memgpt_jax.data.tasks.document_questions import DocumentQuestionsConfig, DocumentQuestionsTask
from memgpt_jax.data.tasks.graph_questions import GraphQuestionsConfig, GraphQuestionsTask
from memgpt_jax.data.tasks.item_recall import ItemRecallConfig, ItemRecallTask
from memgpt_jax.data.tasks.json_recall import JsonRecallConfig, JsonRecallTask
from memgpt_jax.data.tasks.labelled_text import LabelledTextConfig, LabelledTextTask
from memgpt_jax.data.tasks.moving_shapes import MovingShapesConfig, MovingShapesTask
from memgpt_jax.data.tasks.mqar import MQARConfig, MQARTask
from memgpt_jax.data.tasks.multi_label_text import MultiLabelTextConfig, MultiLabelTextTask
from memgpt_jax.data.tasks.needle import NeedleConfig, NeedleTask
from memgpt_jax.data.tasks.noise import NoiseNeedleConfig, NoiseNeedleTask
from memgpt_jax.data.tasks.pictures import PicturesConfig, PicturesTask
from memgpt_jax.data.tasks.preferences import PreferencesConfig, PreferencesTask
from memgpt_jax.data.tasks.questions import QuestionsConfig, QuestionsTask
from memgpt_jax.data.tasks.ratings import RatingsConfig, RatingsTask
from memgpt_jax.data.tasks.recall import RecallConfig, RecallTask, recall_batch
from memgpt_jax.data.tasks.replies import RepliesConfig, RepliesTask
from memgpt_jax.data.tasks.retrieval import RetrievalConfig, RetrievalTask
from memgpt_jax.data.tasks.scenes import ScenesConfig, ScenesTask
from memgpt_jax.data.tasks.scored_text import ScoredTextConfig, ScoredTextTask
from memgpt_jax.data.tasks.shapes import ShapesConfig, ShapesTask
from memgpt_jax.data.tasks.sounds import SoundsConfig, SoundsTask
from memgpt_jax.data.tasks.speech_synthesis import SpeechSynthesisConfig, SpeechSynthesisTask
from memgpt_jax.data.tasks.tagged_text import TaggedTextConfig, TaggedTextTask
from memgpt_jax.data.tasks.text_pairs import TextPairsConfig, TextPairsTask
from memgpt_jax.data.tasks.tracking import TrackingConfig, TrackingTask
from memgpt_jax.data.tasks.transcripts import TranscriptsConfig, TranscriptsTask
from memgpt_jax.data.tasks.triples import TriplesConfig, TriplesTask
from memgpt_jax.data.tokenizers.base import Tokenizer

TASKS: Registry[type[Task[Any]]] = Registry("task", Task, TaskConfig)
"""The tasks by name."""
register_task = TASKS.register
"""`register_task(name, config, module)`: make a task available."""

register_task("recall", RecallConfig, RecallTask)
register_task("copy", CopyConfig, CopyTask)
register_task("item_recall", ItemRecallConfig, ItemRecallTask)
register_task("mqar", MQARConfig, MQARTask)
register_task("dictionary", DictionaryConfig, DictionaryTask)
register_task("noise_needle", NoiseNeedleConfig, NoiseNeedleTask)
register_task("tracking", TrackingConfig, TrackingTask)
register_task("shapes", ShapesConfig, ShapesTask)
register_task("moving_shapes", MovingShapesConfig, MovingShapesTask)
register_task("scenes", ScenesConfig, ScenesTask)
register_task("needle", NeedleConfig, NeedleTask)
register_task("babi", BabiConfig, BabiTask)
register_task("babilong", BabiLongConfig, BabiLongTask)
register_task("json_recall", JsonRecallConfig, JsonRecallTask)
register_task("labelled_text", LabelledTextConfig, LabelledTextTask)
register_task("multi_label_text", MultiLabelTextConfig, MultiLabelTextTask)
register_task("tagged_text", TaggedTextConfig, TaggedTextTask)
register_task("scored_text", ScoredTextConfig, ScoredTextTask)
register_task("ratings", RatingsConfig, RatingsTask)
register_task("triples", TriplesConfig, TriplesTask)
register_task("text_pairs", TextPairsConfig, TextPairsTask)
register_task("questions", QuestionsConfig, QuestionsTask)
register_task("retrieval", RetrievalConfig, RetrievalTask)
register_task("replies", RepliesConfig, RepliesTask)
register_task("preferences", PreferencesConfig, PreferencesTask)
register_task("document_questions", DocumentQuestionsConfig, DocumentQuestionsTask)
register_task("graph_questions", GraphQuestionsConfig, GraphQuestionsTask)
register_task("pictures", PicturesConfig, PicturesTask)
register_task("sounds", SoundsConfig, SoundsTask)
register_task("captions", CaptionsConfig, CaptionsTask)
register_task("transcripts", TranscriptsConfig, TranscriptsTask)
register_task("ctc_transcripts", CTCTranscriptsConfig, CTCTranscriptsTask)
register_task("speech_synthesis", SpeechSynthesisConfig, SpeechSynthesisTask)


def make_task(config: TaskConfig, split: str, tokenizer: Tokenizer | None = None) -> Task[Any]:
    """The task of a configuration on one split, `train`, `valid` or `test`.

    Raises `ValueError` if no task is registered for the configuration, or its data are not valid.
    """
    return TASKS.of(config)(config, split, tokenizer)


__all__ = [
    "TASKS",
    "BabiLongTask",
    "BabiTask",
    "CTCTranscriptsConfig",
    "CTCTranscriptsTask",
    "CaptionsConfig",
    "CaptionsTask",
    "DocumentQuestionsConfig",
    "DocumentQuestionsTask",
    "GraphQuestionsConfig",
    "GraphQuestionsTask",
    "JsonRecallTask",
    "LabelledTextConfig",
    "LabelledTextTask",
    "MovingShapesConfig",
    "MovingShapesTask",
    "MultiLabelTextConfig",
    "MultiLabelTextTask",
    "NeedleTask",
    "PicturesConfig",
    "PicturesTask",
    "PreferencesConfig",
    "PreferencesTask",
    "QuestionsConfig",
    "QuestionsTask",
    "RatingsConfig",
    "RatingsTask",
    "RecallTask",
    "RepliesConfig",
    "RepliesTask",
    "RetrievalConfig",
    "RetrievalTask",
    "ScenesConfig",
    "ScenesTask",
    "ScoredTextConfig",
    "ScoredTextTask",
    "ShapesConfig",
    "ShapesTask",
    "SoundsConfig",
    "SoundsTask",
    "SpeechSynthesisConfig",
    "SpeechSynthesisTask",
    "TaggedTextConfig",
    "TaggedTextTask",
    "Task",
    "TextPairsConfig",
    "TextPairsTask",
    "TranscriptsConfig",
    "TranscriptsTask",
    "TriplesConfig",
    "TriplesTask",
    "make_task",
    "recall_batch",
    "register_task",
]
