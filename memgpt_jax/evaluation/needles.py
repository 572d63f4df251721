"""Needles in a stream: facts in its first chunk, asked for after ever more text."""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from memgpt_jax import data, models
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.needle import NeedleConfig
from memgpt_jax.evaluation.evaluate import HELD_OUT_SEED, check_finite, score_chunk


def needle_stream(
    config: ExperimentConfig,
    params,
    lengths: Sequence[int],
    tokenizer=None,
    advance: Callable[[int], None] = lambda tokens: None,
) -> list[dict]:
    """Recall of all needles of the first `evaluation.chunk_length` tokens, after each of several lengths of text.

    Each of `evaluation.batch_size` rows is one stream of held-out text from a place of its own (where the split ends,
    it begins again), read in chunks with carried state. State is a value: at each length, questions about every needle
    go to a copy, and the stream goes on as if nothing had been asked. So one pass gives recall at all lengths, in
    memory that does not grow.

    Arguments:
        config: an experiment with needles; parameters do not depend on its memory's size, nor on `num_needles`.
        params: what was trained.
        lengths: tokens of the stream after which to ask, each rounded up to whole chunks.
        tokenizer: of the text; default: the one of the config.
        advance: called after each chunk with the tokens that each row has read.

    Returns:
        `{length, accuracy, answers}` for each length, in ascending order.

    Raises:
        ValueError: the experiment hides no needles, a chunk cannot hold them, or a loss is NaN or infinite.
    """
    if not isinstance(config.data, NeedleConfig):
        raise ValueError(
            f"a stream of needles needs an experiment trained on them, not on {type(config.data).__name__}"
        )
    chunk, rows = config.evaluation.chunk_length, config.evaluation.batch_size
    ask_at = sorted({-(-length // chunk) * chunk for length in lengths})
    random = np.random.default_rng(HELD_OUT_SEED)  # the same streams for every training seed
    task = data.NeedleTask(config.data, config.evaluation.split, tokenizer)
    facts = task.facts(random, rows)
    tokens = task.hide(random, facts, chunk)
    start = random.integers(len(task.flat), size=rows)
    results, state = [], models.functional(config.model).init_state(rows)
    for read in range(chunk, ask_at[-1] + 1, chunk):
        state = jax.block_until_ready(skim(config.model, params, tokens, state))
        if read in ask_at:
            hits, answers = ask(config.model, params, state, *task.questions(facts), chunk)
            results.append({"length": read, "accuracy": hits / answers, "answers": answers})
        advance(read)
        tokens = task.text(start + read, chunk)
    return results


@functools.partial(jax.jit, static_argnums=0)
def skim(model: ModelConfig, params, tokens, state):
    """The state after a chunk of whole segments."""
    return models.functional(model).apply(params, tokens, state, alignment="aligned")[1]


def ask(model: ModelConfig, params, state, questions: np.ndarray, scored: np.ndarray, chunk: int) -> tuple[int, int]:
    """(right answers, answers) of questions [B, Q] whose `scored` tokens are to be known, read in chunks."""
    padding = -questions.shape[1] % chunk
    tokens, scored = (np.pad(x, ((0, 0), (0, padding))) for x in (questions, scored))
    targets, weights = np.roll(tokens, -1, axis=1), np.roll(scored, -1, axis=1)
    hits = 0
    for first in range(0, tokens.shape[1], chunk):
        part = np.s_[:, first : first + chunk]
        options = {"targets": {"tokens": targets[part]}, "state": state, "alignment": "aligned"}
        scores, state = score_chunk(model, params, tokens=tokens[part], **options)
        check_finite(np.asarray(scores["tokens"].losses)[weights[part] > 0])
        hits += int(np.sum(np.asarray(scores["tokens"].correct) * weights[part]))
    return hits, int(weights.sum())
