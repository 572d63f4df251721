"""Held-out evaluation of spoken texts: each is said by the model, and compared with the sound of a person."""

from typing import TypedDict

import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import instance_of
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.data.sound import stretched
from memgpt_jax.data.tasks.speech_synthesis import SpeechSynthesisTask
from memgpt_jax.evaluation.documents import document_outputs
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.scoring import check_finite
from memgpt_jax.generation.speech import speak
from memgpt_jax.models.heads.frames import frame_scores

STEPS = 16
NATS = 4 * np.log(10)
"""Of a log-mel frame: they are (log10(power) + 4) / 4."""


class SpeechResult(TypedDict):
    """Results on spoken texts."""

    loss: float
    """That of the head per token, given the frames of the sound before it (`frame_scores`)."""
    l1: float
    """Mean absolute error of the log-mel frames that the model says by itself, in nats: both sounds are stretched to 16
    frames, and their mean, the loudness, is subtracted."""
    finished: float
    """Fraction of the sounds that ended within `data.source_length` tokens."""
    targets: int
    """Number of tokens of the loss."""
    examples: int
    """Number of sounds."""


def evaluate_speech(config: ExperimentConfig, params: models.Params, task: SpeechSynthesisTask) -> SpeechResult:
    """Say the text of each sound of a split in the voice of its speaker.

    Raises `ValueError` if an output is NaN or infinite.
    """
    model, settings = instance_of(config.model, HeadedConfig, "model"), config.evaluation
    number = len(task.examples[: settings.max_documents])
    documents = [task.row(index) for index in range(number)]
    asked = [document.pop("weights") > 0 for document in documents]
    expected = [document.pop("targets")[places] for document, places in zip(documents, asked, strict=True)]
    outputs = document_outputs(
        config.model,
        params,
        documents,
        [np.flatnonzero(places) for places in asked],
        rows=settings.batch_size,
        length=settings.chunk_length,
        noun="sounds",
    )
    both = [jnp.asarray(np.concatenate(side)[None], jnp.float32) for side in (outputs, expected)]
    losses = np.asarray(frame_scores(*both).losses)
    check_finite(losses)

    prompts = {tuple(prompt.tolist()): prompt for prompt in task.prompts[:number]}  # each is said in one way only
    said = speak(
        model, params, [*prompts.values()], rows=settings.batch_size, longest=task.config.source_length, noun="texts"
    )
    by_prompt = dict(zip(prompts, said, strict=True))
    found = [by_prompt[tuple(prompt.tolist())] for prompt in task.prompts[:number]]
    bands = task.config.num_mels
    errors = [
        distance(speech.frames, frames[:-1, :-1].reshape(-1, bands))
        for speech, frames in zip(found, expected, strict=True)
    ]
    return SpeechResult(
        loss=metric("loss", nats=losses.sum(dtype=np.float64), targets=losses.size),
        l1=float(np.mean(errors)),
        finished=float(np.mean([speech.finished for speech in found])),
        targets=losses.size,
        examples=number,
    )


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """The mean absolute difference of two sounds' log-mel frames [T, M], as in `SpeechResult.l1`."""
    sides = [stretched(frames.astype(np.float64), STEPS) for frames in (first, second)]
    return float(NATS * np.abs(np.subtract(*(side - side.mean() for side in sides))).mean())


def check_speech(config: ExperimentConfig, task: SpeechSynthesisTask) -> None:
    """Nothing is checked: `SpeechSynthesisTask` has read the data, and no further library is needed."""
