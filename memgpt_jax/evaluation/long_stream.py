"""Recall in one long stream: facts in its first chunk, queried after increasing lengths of text."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import jax
import numpy as np

from memgpt_jax import data, models
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.model import BaseModelConfig
from memgpt_jax.data.tasks.needle import NeedleConfig
from memgpt_jax.evaluation.scoring import HELD_OUT_SEED, check_finite, read_chunk, score_chunk


class RecallPoint(TypedDict):
    """Recall after one length of text."""

    length: int
    """Tokens of the stream before the questions."""
    accuracy: float
    """Fraction of the answers that have the highest logit."""
    answers: int
    """Number of answers."""


def _ignore(tokens: int) -> None:
    """The default of `advance`."""


def recall_along_stream(
    config: ExperimentConfig,
    params: models.Params,
    lengths: Sequence[int],
    tokenizer: data.Tokenizer | None = None,
    advance: Callable[[int], None] = _ignore,
) -> list[RecallPoint]:
    """Recall of all needles of the first `evaluation.chunk_length` tokens, after each of several lengths of text.

    Each of `evaluation.batch_size` rows is one stream of held-out text with its own random start (it wraps around at
    the end of the split), read in chunks with carried state. At each length, questions about every needle are read
    starting from the state of the stream, and the resulting state is discarded. So one pass measures recall at all
    lengths, with constant memory.

    Args:
        config: an experiment with needles; parameters depend neither on its memory's size nor on `num_needles`.
        params: the trained parameters.
        lengths: tokens of the stream before the questions, each rounded up to whole chunks.
        tokenizer: tokenizer of the text; default: the config's.
        advance: called after each chunk with the number of tokens that each row has read.

    Returns:
        One point for each length, in ascending order.

    Raises:
        ValueError: the experiment has no needles, a chunk cannot hold them, or a loss is NaN or infinite.
    """
    if not isinstance(config.data, NeedleConfig):
        raise ValueError(f"a long stream needs an experiment with NeedleConfig, got {type(config.data).__name__}")
    chunk, rows = config.evaluation.chunk_length, config.evaluation.batch_size
    ask_at = sorted({-(-length // chunk) * chunk for length in lengths})
    random = np.random.default_rng(HELD_OUT_SEED)  # the same streams for every training seed
    task = data.NeedleTask(config.data, config.evaluation.split, tokenizer)
    facts = task.facts(random, rows)
    tokens = task.hide(random, facts, chunk)
    start = random.integers(len(task.flat), size=rows)
    results, state = [], models.functional(config.model).init_state(rows)
    for read in range(chunk, ask_at[-1] + 1, chunk):
        state = jax.block_until_ready(read_chunk(config.model, params, tokens, state))
        if read in ask_at:
            questions, scored = task.questions(facts)
            right = ask(config.model, params, state, questions=questions, scored=scored, chunk=chunk)
            answers = int(scored.sum())
            results.append(RecallPoint(length=read, accuracy=right / answers, answers=answers))
        advance(read)
        tokens = task.text(start + read, chunk)
    return results


def ask(
    model: BaseModelConfig, params: models.Params, state: Any, *, questions: np.ndarray, scored: np.ndarray, chunk: int
) -> int:
    """The number of right answers to questions [B, Q], read in chunks.

    Args: scored: [B, Q], 1 for tokens that are answers, 0 for all others.
    """
    padding = -questions.shape[1] % chunk
    tokens, scored = (np.pad(x, ((0, 0), (0, padding))) for x in (questions, scored))
    targets, weights = np.roll(tokens, -1, axis=1), np.roll(scored, -1, axis=1)
    right = 0
    for first in range(0, tokens.shape[1], chunk):
        part = np.s_[:, first : first + chunk]
        options = {"targets": {"tokens": targets[part]}, "state": state, "alignment": "aligned"}
        scores, state = score_chunk(model, params, tokens=tokens[part], **options)
        check_finite(np.asarray(scores["tokens"].losses)[weights[part] > 0])
        right += int(np.sum(np.asarray(scores["tokens"].correct) * weights[part]))
    return right
