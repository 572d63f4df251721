"""Held-out evaluation of objectives other than causal language modelling, on batches like those of training."""

import dataclasses
from typing import Any, NamedTuple, TypedDict

import numpy as np

from memgpt_jax import data, models
from memgpt_jax.config.checks import instance_of
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.scoring import HELD_OUT_SEED, check_finite, score_chunk

CHUNK = 1 << 24  # tokens per call of np.bincount


class ObjectiveResult(TypedDict, total=False):
    """Results on held-out batches: the first four keys for a head with one target per token, the others for a head with
    one target per row."""

    loss: float
    """Nats per predicted token of text."""
    accuracy: float
    unigram_loss: float
    """Nats per predicted token under a unigram model of the training split."""
    predictions: int
    """Number of predicted tokens of text."""
    next_sentence_loss: float
    """Nats per pair of sentences; for another head with labels of rows, `HEAD_loss`."""
    next_sentence_accuracy: float
    pairs: int
    """Number of rows."""


class _Predictions(NamedTuple):
    """Predictions of one head, [N] each."""

    nats: np.ndarray
    correct: np.ndarray
    unigram_nats: np.ndarray | None


def evaluate_batches(config: ExperimentConfig, params: models.Params, tokenizer: data.Tokenizer) -> ObjectiveResult:
    """Evaluate `evaluation.num_batches` batches, which do not depend on the training seed.

    State is carried from batch to batch if `training.carry_state` is set. Special tokens are not counted as text.

    Raises `ValueError` if the corpus is not valid, or a loss is NaN or infinite.
    """
    settings, model, text = config.evaluation, config.model, instance_of(config.data, TextConfig, "data")
    training = dataclasses.replace(config.training, batch_size=settings.batch_size)
    batches = data.text_batches(text, training, HELD_OUT_SEED, tokenizer, settings.split)
    unigram = unigram_losses(data.documents(text, "train", tokenizer).flat, model.vocab_size)
    is_text = np.zeros(max(model.vocab_size, tokenizer.vocab_size), bool)  # either may be larger
    is_text[: tokenizer.vocab_size] = tokenizer.token_bytes > 0
    state = fresh = models.functional(model).init_state(settings.batch_size)
    found: dict[str, list[_Predictions]] = {}
    for _, batch in zip(range(settings.num_batches), batches, strict=False):
        options = {"targets": batch.targets, "state": state, "alignment": model.alignment_of_inputs(batch.inputs)}
        scores, after = score_chunk(model, params, **options, **batch.inputs)
        state = after if training.carry_state else fresh
        for head, targets in batch.targets.items():
            losses, correct = (np.asarray(array, np.float64) for array in scores[head])
            part = _Predictions(losses, correct, None)
            if targets.ndim == 2:
                counted = (batch.weights[head] > 0) & is_text[targets]
                part = _Predictions(losses[counted], correct[counted], unigram[targets[counted]])
            found.setdefault(head, []).append(part)
    result: Any = ObjectiveResult()  # whose keys contain the names of heads
    for head, parts in found.items():
        nats = np.concatenate([part.nats for part in parts])
        correct = np.concatenate([part.correct for part in parts])
        check_finite(nats)
        if not nats.size:
            continue
        figures = {
            "loss": metric("loss", nats=nats.sum(), targets=nats.size),
            "accuracy": metric("accuracy", correct=correct.sum(), targets=nats.size),
        }
        unigram_nats = [part.unigram_nats for part in parts if part.unigram_nats is not None]
        if not unigram_nats:
            result |= {f"{head}_{name}": value for name, value in figures.items()} | {"pairs": nats.size}
        else:
            by_frequency = np.concatenate(unigram_nats).sum()
            figures["unigram_loss"] = metric("loss", nats=by_frequency, targets=nats.size)
            result |= figures | {"predictions": nats.size}
    return result


def batch_results(config: ExperimentConfig) -> list[str]:
    """The names of the numbers that `evaluate_batches` measures, without those that it counts."""
    found = []
    for head, targets in data.batch_shapes(config.data, config.training).targets.items():
        found += ["loss", "accuracy", "unigram_loss"] if targets.ndim == 2 else [f"{head}_loss", f"{head}_accuracy"]
    return found


def check_batches(config: ExperimentConfig, tokenizer: data.Tokenizer) -> None:
    """Make the first batch of `evaluate_batches`; `ValueError` if the corpus is not valid."""
    text = instance_of(config.data, TextConfig, "data")
    training = dataclasses.replace(config.training, batch_size=config.evaluation.batch_size)
    next(data.text_batches(text, training, HELD_OUT_SEED, tokenizer, config.evaluation.split))


def unigram_losses(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """-log p of each id under a unigram model with add-one smoothing, [V], in nats."""
    counts = np.ones(vocab_size)
    for start in range(0, len(tokens), CHUNK):
        counts += np.bincount(tokens[start : start + CHUNK], minlength=vocab_size)
    return -np.log(counts / counts.sum())
