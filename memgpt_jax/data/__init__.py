"""Data: corpora of text, tokenizers, tokenized documents, objectives, generated tasks, training batches.

TFDS, sentencepiece and Grain are imported when they are first used, not with this package.
"""

from memgpt_jax.data.batch import Batch
from memgpt_jax.data.batches import (
    BatchIterator,
    added_ids,
    batch_shapes,
    content_of,
    text_batches,
    tokenizer_of,
    train_batches,
    without_paths,
)
from memgpt_jax.data.corpora.text import TokenizedText, documents, make_tokenizer
from memgpt_jax.data.examples.entity_pairs import EntityPair, entity_pairs
from memgpt_jax.data.examples.triple_lines import parse_triples
from memgpt_jax.data.griffin_lim import waveform
from memgpt_jax.data.objectives import OBJECTIVES, Objective, make_objective, register_objective
from memgpt_jax.data.pictures import patches, read_picture
from memgpt_jax.data.sound import log_mel, read_sound
from memgpt_jax.data.tasks import (
    TASKS,
    BabiLongTask,
    BabiTask,
    JsonRecallTask,
    NeedleTask,
    Task,
    make_task,
    recall_batch,
    register_task,
)
from memgpt_jax.data.text import (
    Cleaned,
    Paraphrase,
    back_translate,
    clean,
    clean_words,
    personal,
    scrub,
    sentences,
    write_vectors,
)
from memgpt_jax.data.tokenizers.base import Tokenizer
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.data.tokenizers.load import load_tokenizer, read_tokenizer
from memgpt_jax.data.tokenizers.sentencepiece_file import SentencePieceTokenizer

__all__ = [
    "OBJECTIVES",
    "TASKS",
    "BabiLongTask",
    "BabiTask",
    "Batch",
    "BatchIterator",
    "ByteTokenizer",
    "Cleaned",
    "EntityPair",
    "JsonRecallTask",
    "NeedleTask",
    "Objective",
    "Paraphrase",
    "SentencePieceTokenizer",
    "Task",
    "TokenizedText",
    "Tokenizer",
    "added_ids",
    "back_translate",
    "batch_shapes",
    "clean",
    "clean_words",
    "content_of",
    "documents",
    "entity_pairs",
    "load_tokenizer",
    "log_mel",
    "make_objective",
    "make_task",
    "make_tokenizer",
    "parse_triples",
    "patches",
    "personal",
    "read_picture",
    "read_sound",
    "read_tokenizer",
    "recall_batch",
    "register_objective",
    "register_task",
    "scrub",
    "sentences",
    "text_batches",
    "tokenizer_of",
    "train_batches",
    "waveform",
    "without_paths",
    "write_vectors",
]
