"""Pipelines: a trained model as one function of texts, pictures or sounds.

Names, arguments and results are those of the transformers library, where it has such a pipeline.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memgpt_jax.config.checks import check
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.data.tasks.triples import TriplesConfig
from memgpt_jax.pipelines.base import Loaded, load
from memgpt_jax.pipelines.document_questions import DocumentQuestions, Passages, Reading
from memgpt_jax.pipelines.feature_extraction import FeatureExtraction
from memgpt_jax.pipelines.graph_questions import GraphQuestions
from memgpt_jax.pipelines.knowledge_questions import KnowledgeQuestions
from memgpt_jax.pipelines.link_prediction import LinkPrediction
from memgpt_jax.pipelines.media_classification import AudioClassification, ImageClassification
from memgpt_jax.pipelines.media_to_text import ImageToText, SpeechRecognition
from memgpt_jax.pipelines.question_answering import QuestionAnswering
from memgpt_jax.pipelines.speech_streams import CTCSpeechRecognition, speech_recognition
from memgpt_jax.pipelines.text_classification import TextClassification
from memgpt_jax.pipelines.text_generation import TextGeneration
from memgpt_jax.pipelines.text_regression import TextRegression
from memgpt_jax.pipelines.text_to_speech import TextToSpeech
from memgpt_jax.pipelines.text_to_text import Summarization, TextToText, Translation
from memgpt_jax.pipelines.token_classification import TokenClassification

PIPELINES: dict[str, Callable[..., Any]] = {
    "text-classification": TextClassification,
    "token-classification": TokenClassification,
    "text-regression": TextRegression,
    "question-answering": QuestionAnswering,
    "document-questions": DocumentQuestions,
    "knowledge-question-answering": KnowledgeQuestions,
    "text-generation": TextGeneration,
    "feature-extraction": FeatureExtraction,
    "link-prediction": LinkPrediction,
    "graph-questions": GraphQuestions,
    "summarization": Summarization,
    "translation": Translation,
    "text2text-generation": TextToText,
    "image-to-text": ImageToText,
    "automatic-speech-recognition": speech_recognition,
    "image-classification": ImageClassification,
    "audio-classification": AudioClassification,
    "text-to-speech": TextToSpeech,
}
"""The pipelines by name."""


def pipeline(
    task: str | Path,
    model: Any = None,
    tokenizer: Any = None,
    *,
    step: int | None = None,
    adapters: str | Path | None = None,
    **options: Any,
) -> Any:
    """A trained model as a function of texts.

    >>> classify = mg.pipeline("runs/sst2")
    >>> classify = mg.pipeline("text-classification", model="runs/sst2")
    >>> classify("A fine film.")
    [{"label": "1", "score": 0.98}]

    Args:
        task: the folder of a run, whose task determines the pipeline; or the name of a pipeline in `PIPELINES`.
        model: with a name, the folder of a run or of a saved model, a name on the Hub, a model, or `(config, params)`.
        tokenizer: default: that of the run or folder.
        step: of a run: the step of the checkpoint; default: the best of its validations, else the latest.
        adapters: with a folder or name as `model`: a folder of adapters that were trained over it (`save_pretrained`
            with `only="trained"`), with a tokenizer.
        options: of the pipeline, such as `aggregation_strategy`.

    Raises:
        ValueError: there is no such pipeline, model or tokenizer, the model does not fit the pipeline, or an option is
            unknown, missing or not valid.
    """
    names = ", ".join(map(repr, PIPELINES))
    if model is not None:
        check(str(task) in PIPELINES, f"task must be one of {names}, got {task!r}")
        loaded = load(model, tokenizer, step, adapters)
        check(
            task == "link-prediction" or not isinstance(loaded.data, TriplesConfig),
            f"the model predicts links: use the pipeline 'link-prediction', not {task!r}",
        )
        return _pipeline(str(task), loaded, options)
    check(adapters is None, "adapters= needs model=, the folder or the name of their pretrained model")
    check(
        str(task) not in PIPELINES,
        f"pipeline({task!r}) needs model=: the folder of a run or of a saved model, or a model",
    )
    check(
        Path(task).expanduser().is_dir(),
        f"pipeline({task!r}): there is no such folder; for a pipeline by name, one of {names}, give model=",
    )
    loaded = load(task, tokenizer, step)
    return _pipeline(_task_of(loaded), loaded, options)


def _pipeline(task: str, loaded: Loaded, options: dict[str, Any]) -> Any:
    """The pipeline of a name. Raises `ValueError` if an option is none of it, or one that it needs is missing."""
    found = inspect.signature(PIPELINES[task]).parameters.values()
    valid = {option.name: option for option in found if option.kind is option.KEYWORD_ONLY}
    needed = {name for name, option in valid.items() if option.default is option.empty}
    for names, problem in ((options.keys() - valid.keys(), "is no option"), (needed - options.keys(), "is missing")):
        listed = ", ".join(valid) or "none"
        check(not names, f"{', '.join(sorted(names))} {problem}: the pipeline {task!r} has the options {listed}")
    return PIPELINES[task](loaded, **options)


def _task_of(loaded: Loaded) -> str:
    """The pipeline of the run's task, else of its head, else of a decoder. Raises `ValueError` if there is none."""
    config = loaded.config
    found = getattr(loaded.data, "pipeline", None)
    if isinstance(config, HeadedConfig):
        found = found or config.head.pipeline
        check(found is not None, f"there is no pipeline for a {type(config.head).__name__}: call the model itself")
    check(
        found is not None or config.causal,
        f"there is no pipeline for a {type(config).__name__}: give a name of {', '.join(PIPELINES)}",
    )
    return found or "text-generation"


__all__ = [
    "PIPELINES",
    "AudioClassification",
    "CTCSpeechRecognition",
    "DocumentQuestions",
    "FeatureExtraction",
    "GraphQuestions",
    "ImageClassification",
    "ImageToText",
    "KnowledgeQuestions",
    "LinkPrediction",
    "Passages",
    "QuestionAnswering",
    "Reading",
    "SpeechRecognition",
    "Summarization",
    "TextClassification",
    "TextGeneration",
    "TextRegression",
    "TextToSpeech",
    "TextToText",
    "TokenClassification",
    "Translation",
    "pipeline",
]
