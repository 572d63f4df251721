"""Numbers of texts."""

from collections.abc import Sequence
from typing import Any

from memgpt_jax.config.checks import instance_of
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.data.tasks.labelled_text import document_ids
from memgpt_jax.data.text import clean
from memgpt_jax.evaluation.documents import end_outputs
from memgpt_jax.evaluation.scoring import check_finite
from memgpt_jax.models.heads.scalars import ScalarHeadConfig
from memgpt_jax.pipelines.base import Loaded, check_sizes, texts_of


class TextRegression:
    """Numbers of texts of any length. The transformers library has no pipeline of this name.

    >>> rate = mg.pipeline("runs/stars")
    >>> rate(["A fine film.", "Two hours lost."])
    [{"score": 4.4}, {"score": 1.7}]

    A text is read in calls of `length` tokens with the memory carried, so memory does not grow with its length.
    """

    def __init__(self, loaded: Loaded, *, rows: int = 16, length: int | None = None):
        """
        Args:
            rows: texts read at the same time.
            length: tokens of a call; default: that of the run's evaluation.

        Raises:
            ValueError: the model has no head for numbers.
        """
        self.config = instance_of(loaded.config, HeadedConfig, "model")
        self.head = instance_of(self.config.head, ScalarHeadConfig, "model.head")
        self.params, self.tokenizer = loaded.params, loaded.tokenizer
        self.rows, self.length = rows, loaded.length if length is None else length
        check_sizes(rows=self.rows, length=self.length)

    def __call__(self, inputs: str | Sequence[str]) -> list[dict[str, float]]:
        """A list with one {"score"} for each text, also for a single one, in the unit of the training numbers.

        Raises `ValueError` if an output is NaN or infinite.
        """
        texts = [clean(text, self.head.clean).text for text in texts_of(inputs)]
        ids = [document_ids(self.tokenizer, text, self.head.max_length, self.head.truncation_side) for text in texts]
        outputs = end_outputs(self.config, self.params, ids, rows=self.rows, length=self.length)
        for output in outputs:
            check_finite(output)
        return [{"score": float(output[0])} for output in outputs]

    def record(self, text: str, *, top: int = 5, question: str | None = None) -> dict[str, Any]:
        """The result for one text as an object of JSON: {"text", "score"}."""
        return {"text": text} | self(text)[0]
