"""Causal language modelling: predict each next token of running text."""

from typing import Any

import numpy as np

from memgpt_jax.config.data import CausalConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.corpora.text import TokenizedText
from memgpt_jax.data.objectives.base import Objective
from memgpt_jax.data.streams import token_streams
from memgpt_jax.data.tokenizers.base import Tokenizer


class Causal(Objective[CausalConfig]):
    """The unchanged rows of `token_streams`; the only objective with `target_bytes`, for bits per byte."""

    evaluation = "documents"

    def shapes(self, rows: int, length: int) -> Batch:
        shape = (rows, length)
        return zeros(
            {"tokens": (shape, np.int32), "reset": (shape, bool)},
            {"tokens": shape},
            {"target_bytes": (shape, np.int32)},
        )

    def batches(self, text: TokenizedText, tokenizer: Tokenizer, rows: int, length: int, seed: int) -> Any:
        return token_streams(text, rows, length, seed, tokenizer)
