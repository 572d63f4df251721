"""BERT's two objectives together: masked tokens in pairs of sentences, and the label of the pair.

Source: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding" (2019),
section 3.1.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from memgpt_jax.data.batch import Batch
from memgpt_jax.data.corpora.text import TokenizedText
from memgpt_jax.data.objectives.masked import Masked, MaskedConfig
from memgpt_jax.data.objectives.next_sentence import pair_batches, pair_shapes
from memgpt_jax.data.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class MaskedNextSentenceConfig(MaskedConfig):
    """Predict masked tokens of a pair of sentences, and whether the second follows the first.

    Needs an encoder with the heads `masked`, `pooler` and `next_sentence`, and two token types.
    """

    heads: ClassVar[tuple[str, ...]] = ("masked", "next_sentence")
    inputs: ClassVar[tuple[str, ...]] = ("token_types",)


class MaskedNextSentence(Masked):
    """Rows of `NextSentence` with masked tokens; in a batch, labels and masked tokens have the same total weight."""

    def shapes(self, rows: int, length: int) -> Batch:
        return pair_shapes(rows, length, {"masked": (rows, length), "next_sentence": (rows,)})

    def batches(self, text: TokenizedText, tokenizer: Tokenizer, rows: int, length: int, seed: int) -> Any:
        return self.changed_batches(pair_batches(text, tokenizer, rows, length, seed), tokenizer, seed)

    def change(self, rng: np.random.Generator, batch: Batch, tokenizer: Tokenizer) -> Batch:
        masked, label = super().change(rng, batch, tokenizer), batch.targets["next_sentence"]
        weights = np.full(label.shape, masked.weights["masked"].sum() / len(label), np.float32)
        return masked._replace(
            targets=masked.targets | {"next_sentence": label}, weights=masked.weights | {"next_sentence": weights}
        )
