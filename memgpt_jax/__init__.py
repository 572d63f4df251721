"""memgpt_jax: transformers whose layers own a differentiable external memory.

    import memgpt_jax as mg

Namespaces: `mg.memory` (mechanisms), `mg.tasks` (generated tasks and tasks on files), `mg.data` (tokenizers, corpora,
objectives, batches), `mg.knowledge` (texts written into a memory), `mg.ops` (pure functions of arrays), `mg.training`,
`mg.interop`.
`mg.functional(config)` is a model as pure functions.
"""

from memgpt_jax import data, interop, knowledge, memory, ops, training
from memgpt_jax.checkpoint import load_run
from memgpt_jax.config.data import CausalConfig, TaskConfig, TextConfig
from memgpt_jax.config.distill import DistillConfig
from memgpt_jax.config.experiment import (
    EvaluationConfig,
    ExperimentConfig,
    OptimizerConfig,
    ParallelConfig,
    PrivateConfig,
    TrainingConfig,
)
from memgpt_jax.config.features import FramesConfig, PatchesConfig, SensesConfig, VectorsConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import KVMemoryConfig, MemoryConfig, NoMemoryConfig, SizedMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig, Seq2SeqConfig, XLNetConfig
from memgpt_jax.config.texts import AugmentConfig, CleanConfig
from memgpt_jax.data import Objective, Task, load_tokenizer, register_objective, register_task, tasks
from memgpt_jax.data.objectives.masked import MaskedConfig
from memgpt_jax.data.objectives.masked_next_sentence import MaskedNextSentenceConfig
from memgpt_jax.data.objectives.next_sentence import NextSentenceConfig
from memgpt_jax.data.objectives.permutation import PermutationConfig
from memgpt_jax.data.objectives.span_corruption import SpanCorruptionConfig
from memgpt_jax.data.tasks.babi import BabiConfig
from memgpt_jax.data.tasks.babilong import BabiLongConfig
from memgpt_jax.data.tasks.captions import CaptionsConfig
from memgpt_jax.data.tasks.copy import CopyConfig
from memgpt_jax.data.tasks.ctc_transcripts import CTCTranscriptsConfig
from memgpt_jax.data.tasks.dictionary import DictionaryConfig
from memgpt_jax.data.tasks.document_questions import DocumentQuestionsConfig
from memgpt_jax.data.tasks.graph_questions import GraphQuestionsConfig
from memgpt_jax.data.tasks.item_recall import ItemRecallConfig
from memgpt_jax.data.tasks.json_recall import JsonRecallConfig
from memgpt_jax.data.tasks.labelled_text import LabelledTextConfig
from memgpt_jax.data.tasks.moving_shapes import MovingShapesConfig
from memgpt_jax.data.tasks.mqar import MQARConfig
from memgpt_jax.data.tasks.multi_label_text import MultiLabelTextConfig
from memgpt_jax.data.tasks.needle import NeedleConfig
from memgpt_jax.data.tasks.noise import NoiseNeedleConfig
from memgpt_jax.data.tasks.pictures import PicturesConfig
from memgpt_jax.data.tasks.preferences import PreferencesConfig
from memgpt_jax.data.tasks.questions import QuestionsConfig
from memgpt_jax.data.tasks.ratings import RatingsConfig
from memgpt_jax.data.tasks.recall import RecallConfig
from memgpt_jax.data.tasks.replies import RepliesConfig
from memgpt_jax.data.tasks.retrieval import RetrievalConfig
from memgpt_jax.data.tasks.scenes import ScenesConfig
from memgpt_jax.data.tasks.scored_text import ScoredTextConfig
from memgpt_jax.data.tasks.shapes import ShapesConfig
from memgpt_jax.data.tasks.sounds import SoundsConfig
from memgpt_jax.data.tasks.speech_synthesis import SpeechSynthesisConfig
from memgpt_jax.data.tasks.tagged_text import TaggedTextConfig
from memgpt_jax.data.tasks.text_pairs import TextPairsConfig
from memgpt_jax.data.tasks.tracking import TrackingConfig
from memgpt_jax.data.tasks.transcripts import TranscriptsConfig
from memgpt_jax.data.tasks.triples import TriplesConfig
from memgpt_jax.errors import RunError
from memgpt_jax.evaluation import Metric, evaluate, register_metric
from memgpt_jax.generation import Generated, Piece, Sampling, Session, generate, stream_generate
from memgpt_jax.inspector import EntryList, Trace, edit_entry, forget, list_entries, trace, write_page
from memgpt_jax.interop import add_memory, from_pretrained, save_pretrained, wrap
from memgpt_jax.interop.families import register_family
from memgpt_jax.memory import MEMORIES, Memory, memory_bytes_per_row, register_memory
from memgpt_jax.memory.associative import AssociativeMemoryConfig
from memgpt_jax.memory.compressive import CompressiveMemoryConfig
from memgpt_jax.memory.dnc import DNCMemoryConfig
from memgpt_jax.memory.knn import KNNMemoryConfig
from memgpt_jax.memory.memn2n import MemN2NMemoryConfig
from memgpt_jax.memory.ntm import NTMMemoryConfig
from memgpt_jax.memory.titans import TitansMemoryConfig
from memgpt_jax.memory.tokens import TokensMemoryConfig
from memgpt_jax.models import (
    Encoder,
    EncoderDecoder,
    EncoderState,
    GraphNetwork,
    Headed,
    MemGPT,
    MemoryLayer,
    ModalityFusion,
    ModelFunctions,
    ModelState,
    Params,
    Seq2SeqState,
    TokenFlags,
    XLNet,
    attention_weights,
    compress_memory,
    count_parameters,
    flags_from_segment_ids,
    from_params,
    functional,
    model_state_bytes,
    parameter_bytes,
    quantize,
    to_params,
)
from memgpt_jax.models.heads import Head, HeadLayer, register_head, register_head_layer
from memgpt_jax.models.heads.frames import FramesHeadConfig
from memgpt_jax.models.heads.fusion import FusionHeadConfig, GraphHeadConfig
from memgpt_jax.models.heads.labels import LabelHeadConfig
from memgpt_jax.models.heads.links import LinkHeadConfig
from memgpt_jax.models.heads.scalars import ScalarHeadConfig
from memgpt_jax.models.heads.spans import SpanHeadConfig
from memgpt_jax.models.heads.transcripts import CTCHeadConfig
from memgpt_jax.models.heads.vectors import VectorHeadConfig
from memgpt_jax.models.heads.walks import WalkHeadConfig
from memgpt_jax.pipelines import pipeline
from memgpt_jax.training import finetune, train

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 — in groups
    # run experiments
    "train",
    "finetune",
    "load_run",
    "evaluate",
    "pipeline",
    "RunError",
    # models
    "MemGPT",
    "Encoder",
    "EncoderDecoder",
    "XLNet",
    "Headed",
    "MemoryLayer",
    "ModalityFusion",
    "GraphNetwork",
    "ModelState",
    "EncoderState",
    "Seq2SeqState",
    "TokenFlags",
    "flags_from_segment_ids",
    "compress_memory",
    "count_parameters",
    "parameter_bytes",
    "model_state_bytes",
    "memory_bytes_per_row",
    # models as pure functions
    "functional",
    "ModelFunctions",
    "Params",
    "to_params",
    "from_params",
    # pretrained models and models of other libraries
    "from_pretrained",
    "save_pretrained",
    "load_tokenizer",
    "add_memory",
    "quantize",
    "wrap",
    # generation
    "generate",
    "Generated",
    "stream_generate",
    "Piece",
    "Sampling",
    "Session",
    # inspection
    "trace",
    "Trace",
    "write_page",
    "forget",
    "list_entries",
    "EntryList",
    "edit_entry",
    "attention_weights",
    # extensions
    "MEMORIES",
    "Memory",
    "register_memory",
    "Objective",
    "register_objective",
    "Task",
    "register_task",
    "Head",
    "register_head",
    "HeadLayer",
    "register_head_layer",
    "Metric",
    "register_metric",
    "register_family",
    # namespaces
    "data",
    "interop",
    "knowledge",
    "memory",
    "ops",
    "tasks",
    "training",
    # configurations of experiments and models
    "ExperimentConfig",
    "TrainingConfig",
    "OptimizerConfig",
    "EvaluationConfig",
    "ParallelConfig",
    "PrivateConfig",
    "DistillConfig",
    "TextConfig",
    "ModelConfig",
    "EncoderConfig",
    "Seq2SeqConfig",
    "XLNetConfig",
    "HeadedConfig",
    "LabelHeadConfig",
    "FusionHeadConfig",
    "GraphHeadConfig",
    "LinkHeadConfig",
    "WalkHeadConfig",
    "ScalarHeadConfig",
    "SpanHeadConfig",
    "VectorHeadConfig",
    "CTCHeadConfig",
    "FramesHeadConfig",
    "PatchesConfig",
    "FramesConfig",
    "VectorsConfig",
    "SensesConfig",
    # configurations of memory mechanisms
    "MemoryConfig",
    "SizedMemoryConfig",
    "NoMemoryConfig",
    "KVMemoryConfig",
    "KNNMemoryConfig",
    "NTMMemoryConfig",
    "DNCMemoryConfig",
    "MemN2NMemoryConfig",
    "TokensMemoryConfig",
    "AssociativeMemoryConfig",
    "CompressiveMemoryConfig",
    "TitansMemoryConfig",
    # configurations of objectives
    "CausalConfig",
    "MaskedConfig",
    "NextSentenceConfig",
    "MaskedNextSentenceConfig",
    "SpanCorruptionConfig",
    "PermutationConfig",
    # configurations of tasks
    "TaskConfig",
    "RecallConfig",
    "CopyConfig",
    "ItemRecallConfig",
    "MQARConfig",
    "DictionaryConfig",
    "NoiseNeedleConfig",
    "TrackingConfig",
    "NeedleConfig",
    "BabiConfig",
    "BabiLongConfig",
    "JsonRecallConfig",
    "LabelledTextConfig",
    "MultiLabelTextConfig",
    "TaggedTextConfig",
    "PreferencesConfig",
    "QuestionsConfig",
    "RepliesConfig",
    "RetrievalConfig",
    "DocumentQuestionsConfig",
    "ScenesConfig",
    "ScoredTextConfig",
    "RatingsConfig",
    "CleanConfig",
    "AugmentConfig",
    "TextPairsConfig",
    "TriplesConfig",
    "GraphQuestionsConfig",
    "ShapesConfig",
    "MovingShapesConfig",
    "PicturesConfig",
    "SoundsConfig",
    "CaptionsConfig",
    "TranscriptsConfig",
    "CTCTranscriptsConfig",
    "SpeechSynthesisConfig",
]


def __dir__() -> list[str]:
    """The public names alone, for tab completion."""
    return sorted(__all__)
