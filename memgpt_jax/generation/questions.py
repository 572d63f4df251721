"""Answers to questions about documents that have been read: each question is a fork of the state after its document."""

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from memgpt_jax import models
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.examples.question_tokens import QuestionTokens
from memgpt_jax.generation.completion import generate
from memgpt_jax.generation.decode import take_rows
from memgpt_jax.generation.prefill import power_of_two, prefill
from memgpt_jax.generation.sampling import SamplingOptions
from memgpt_jax.models import ModelState, Params


def read_documents(config: ModelConfig, params: Params, documents: Sequence[np.ndarray]) -> ModelState:
    """The state after the ids [n] of each document, one row each; more rows, up to a power of two, are new documents.

    Raises `ValueError` if logits are not finite.
    """
    number = power_of_two(len(documents))  # few shapes to compile
    none = np.zeros(0, np.int32)
    prompts = [*documents, *[none] * (number - len(documents))]
    return prefill(config, params, prompts, models.functional(config).init_state(number))[1]


def answer_prompts(
    model: tuple[ModelConfig, Params],
    tokens: QuestionTokens,
    prompts: Sequence[np.ndarray],
    state: ModelState | None = None,
    of: Sequence[int] | None = None,
    *,
    rows: int,
    max_new_tokens: int,
    **sampling: Unpack[SamplingOptions],
) -> list[str]:
    """The answers to prompts, by greedy decoding if no option says otherwise.

    Args:
        model: a decoder and its parameters.
        tokens: decodes the answers.
        prompts: ids of questions, or without `state` of documents with a question each.
        state: rows that have read documents; they are not modified. Default: nothing was read.
        of: the row of `state` that each prompt continues; default: the first.
        rows: prompts that are answered at the same time.
        max_new_tokens: maximum number of tokens of an answer.
        sampling: see `generate`; a repetition penalty applies to ids of the prompt and of the answer so far.

    Raises:
        ValueError: an option is not valid, or logits are not finite.
    """
    found: list[str] = []
    for first in range(0, len(prompts), rows):
        group = list(prompts[first : first + rows])
        number = len(group)
        if state is not None:  # questions are short: a few more rows cost less than another shape to compile
            number = min(rows, power_of_two(number))
        places = [0] * number if of is None else [*of[first : first + rows], *[0] * (number - len(group))]
        answers = generate(
            model,
            group + group[-1:] * (number - len(group)),
            tokenizer=tokens.tokenizer,
            state=None if state is None else take_rows(state, places),
            max_new_tokens=max_new_tokens,
            **sampling,
            stop=[tokens.answers.end_id],
        )
        rows_found = zip(group, answers.ids, answers.lengths, strict=False)
        found += [tokens.answers.text(ids[len(prompt) : length]) for prompt, ids, length in rows_found]
    return found
