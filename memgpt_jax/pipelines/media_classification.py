"""Labels of pictures and of sounds, with the calls and results of the transformers library."""

from typing import Any, ClassVar

import jax
import numpy as np

from memgpt_jax.config.checks import instance_of
from memgpt_jax.data.tasks.labelled_media import LabelledMediaConfig
from memgpt_jax.data.tasks.pictures import PicturesConfig
from memgpt_jax.data.tasks.sounds import SoundsConfig
from memgpt_jax.evaluation.documents import end_outputs
from memgpt_jax.evaluation.scoring import check_finite
from memgpt_jax.pipelines.base import Loaded, check_sizes, labelling
from memgpt_jax.pipelines.media import picture_features, sound_features


class MediaClassification:
    """Labels of pictures or sounds. Implement `features`."""

    kind: ClassVar[type[LabelledMediaConfig]]
    """The configuration of the task on which the run was trained."""

    def __init__(self, loaded: Loaded, *, rows: int = 16):
        """
        Args:
            rows: inputs that are read at the same time.

        Raises:
            ValueError: the model has not been trained by a run on such a task.
        """
        self.config: Any = instance_of(loaded.data, self.kind, "the task of the run")
        self.model, _, self.labels = labelling(loaded, of_words=False)
        check_sizes(rows=rows)
        self.params, self.rows, self.length = loaded.params, rows, loaded.length

    def features(self, item: Any) -> np.ndarray:
        """The features [s, F] of an input. Raises `ValueError` if it is not valid."""
        raise NotImplementedError

    def __call__(self, inputs: Any, *, top_k: int | None = 5) -> list[Any]:
        """The most probable labels.

        Args:
            inputs: a picture or a sound, or a list of them: see `features`.
            top_k: number of labels, in descending order of probability; None: all.

        Returns:
            A list of {"score", "label"} for one input, a list of such lists for a list of inputs.
        """
        if top_k is not None:
            check_sizes(top_k=top_k)
        several = isinstance(inputs, list | tuple)
        documents = [self.config.document(self.features(item)) for item in (inputs if several else [inputs])]
        outputs = end_outputs(self.model, self.params, documents, rows=self.rows, length=self.length)
        found = [self._labels(logits)[:top_k] for logits in outputs]
        return found if several else found[0]

    def _labels(self, logits: np.ndarray) -> list[dict[str, Any]]:
        check_finite(logits)
        scores = np.asarray(jax.nn.softmax(logits))
        order = np.argsort(-scores, kind="stable")
        return [{"score": float(scores[number]), "label": self.labels[number]} for number in order]

    def record(self, text: str, *, top: int = 5, question: str | None = None) -> dict[str, Any]:
        """The result for one file as an object of JSON: {"text"}, its path, and {"labels"}."""
        return {"text": text, "labels": self(text, top_k=top)}


class ImageClassification(MediaClassification):
    """Labels of pictures.

    >>> see = mg.pipeline("image-classification", model="runs/cifar10")
    >>> see("cat.png", top_k=1)
    [{"score": 0.98, "label": "cat"}]
    """

    kind = PicturesConfig

    def features(self, item: Any) -> np.ndarray:
        """The patches of a path, an image of Pillow, or a uint8 array [Y, X, C]."""
        return picture_features(self.config, item)


class AudioClassification(MediaClassification):
    """Labels of sounds.

    >>> hear = mg.pipeline("audio-classification", model="runs/spoken_digits")
    >>> hear("number.wav", top_k=1)
    [{"score": 0.98, "label": "7"}]
    """

    kind = SoundsConfig

    def features(self, item: Any) -> np.ndarray:
        """The frames of a path, of samples [n] at the sample rate of the task, or of {"raw", "sampling_rate"}."""
        return sound_features(self.config, item)
