"""Real text, generated tasks and needles in text, offline: tokenizers, tokenized documents, training batches.

TFDS, sentencepiece and Grain are imported when they are first used, not with this package.
"""

from memgpt_jax.data.batches import BatchIterator, train_batches
from memgpt_jax.data.tasks import (
    TASKS,
    BabiLongTask,
    BabiTask,
    JsonRecallTask,
    NeedleTask,
    Task,
    make_task,
    recall_batch,
)
from memgpt_jax.data.tasks.base import Batch
from memgpt_jax.data.text import TokenizedText, documents, load_tokenizer
from memgpt_jax.data.tokenizer import ByteTokenizer, SentencePieceTokenizer, Tokenizer, load_saved_tokenizer

__all__ = [
    "TASKS",
    "BabiLongTask",
    "BabiTask",
    "Batch",
    "BatchIterator",
    "ByteTokenizer",
    "JsonRecallTask",
    "NeedleTask",
    "SentencePieceTokenizer",
    "Task",
    "TokenizedText",
    "Tokenizer",
    "documents",
    "load_saved_tokenizer",
    "load_tokenizer",
    "make_task",
    "recall_batch",
    "train_batches",
]
