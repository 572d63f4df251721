"""Targets of sources: a model writes a translation, a summary, a caption or another text after each source."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.model import BaseModelConfig, ModelConfig, Seq2SeqConfig
from memgpt_jax.data.examples.pair_tokens import PairTokens, source_inputs
from memgpt_jax.data.progress_bar import track
from memgpt_jax.generation.completion import generate
from memgpt_jax.models import ModelState, Params
from memgpt_jax.shapes import Array, Flags, Tokens


def write_targets(
    model: BaseModelConfig,
    params: Params,
    tokens: PairTokens,
    sources: Sequence[str | np.ndarray],
    *,
    rows: int,
    max_new_tokens: int,
    noun: str = "",
    **options: Any,
) -> list[str]:
    """The text that a model writes after each source.

    A decoder reads a source of any length with the memory carried; the encoder of an encoder-decoder reads its first
    `source_length` tokens.

    Args:
        model: a `ModelConfig` or a `Seq2SeqConfig`.
        params: its parameters.
        tokens: encodes sources, and decodes the answers.
        sources: texts, or for an encoder with features arrays [s, F] of at most `source_length` tokens.
        rows: sources that are read at the same time.
        max_new_tokens: maximum number of tokens of an answer.
        noun: of the sources, for a progress bar; empty: no bar.
        options: of `generate`, such as `num_beams`.

    Raises:
        ValueError: an option is not valid, or logits are not finite.
    """
    ids = [tokens.source(text) for text in sources]
    found = [""] * len(ids)
    by_length = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
    groups = [by_length[first : first + rows] for first in range(0, len(ids), rows)]
    options |= {"max_new_tokens": max_new_tokens, "stop": [tokens.end_id]}
    for group in track(groups, noun) if noun else groups:
        prompts, state, decoder = _begun(model, params, tokens, [ids[index] for index in group])
        answers = generate(decoder, prompts, tokenizer=tokens.tokenizer, state=state, **options)
        for index, prompt, row, length in zip(group, prompts, answers.ids, answers.lengths, strict=True):
            found[index] = tokens.text(row[len(prompt) : length])
    return found


def _begun(
    model: BaseModelConfig, params: Params, tokens: PairTokens, ids: list[np.ndarray]
) -> tuple[list[np.ndarray], ModelState | None, tuple[ModelConfig, Params]]:
    """The prompts of the decoder, its state before them, and the decoder."""
    if not isinstance(model, Seq2SeqConfig):
        assert isinstance(model, ModelConfig)
        return ids, None, (model, params)
    length = model.decoder.source_length if tokens.source_length is None else tokens.source_length
    assert length is not None
    state = _read_source(model, params, **source_inputs(ids, len(ids), length))
    start = np.array([tokens.tokenizer.start_id], np.int32)
    return [start] * len(ids), state, (model.decoder, params["decoder"])


@functools.partial(jax.jit, static_argnums=0)
def _read_source(
    config: Seq2SeqConfig,
    params: Params,
    *,
    source: Tokens,
    source_reset: Flags,
    source_valid: Flags,
    source_features: Array | None = None,
) -> ModelState:
    """The state of the decoder after the encoder has read sources [B, S]."""
    model = models.from_params(config, params)
    return model.read_source(source, reset=source_reset, valid=source_valid, features=source_features).decoder
