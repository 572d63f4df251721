"""Predictions of a trained model for texts and for rows of a task, as values that JSON can hold."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from memgpt_jax import data, models
from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.model import BaseModelConfig, EncoderConfig, ModelConfig
from memgpt_jax.data.objectives.special_ids import special_ids
from memgpt_jax.evaluation.scoring import HELD_OUT_SEED, predict_chunk, read_rows
from memgpt_jax.generation.prefill import prefill
from memgpt_jax.shapes import Tokens

MASK = "<mask>"
"""The word that marks a masked token in a text."""


def next_tokens(
    config: ModelConfig, params: models.Params, tokenizer: data.Tokenizer, text: str, top: int
) -> dict[str, Any]:
    """The most probable tokens after a text of any length.

    Returns:
        `text`, `tokens` (the number read, with the id that begins a document) and `predictions`, a list of `top`
        `{token, text, probability}` in descending order.
    """
    ids = np.array([tokenizer.start_id, *tokenizer.encode(text)], np.int32)
    logits, _ = prefill(config, params, [ids], models.functional(config).init_state(1))
    return {"text": text, "tokens": len(ids), "predictions": _most_probable(logits[0], tokenizer, top)}


def masked_tokens(
    config: EncoderConfig, params: models.Params, tokenizer: data.Tokenizer, text: str, top: int
) -> dict[str, Any]:
    """The most probable tokens at each `<mask>` of a text.

    Returns:
        `text`, `tokens` and `predictions`: for each mask a list of `top` `{token, text, probability}`.

    Raises:
        ValueError: the text has no `<mask>`.
    """
    first, *others = text.split(MASK)
    if not others:
        raise ValueError(f"the text has no {MASK}: {text[:80]!r}")
    special = special_ids(tokenizer)
    ids = [tokenizer.start_id, *tokenizer.encode(first)]
    places = []
    for part in others:
        places.append(len(ids))
        ids += [special.mask, *tokenizer.encode(part)]
    if "sep" in tokenizer.special_ids:
        ids.append(special.sep)
    logits, _ = _apply(config, params, np.array([ids], np.int32))
    return {
        "text": text,
        "tokens": len(ids),
        "predictions": [_most_probable(logits[0, place], tokenizer, top) for place in places],
    }


def task_answers(
    config: ExperimentConfig, params: models.Params, tokenizer: data.Tokenizer | None, num_rows: int
) -> Iterator[dict[str, Any]]:
    """The answers of a model to the first rows of a task's held-out set, which is the one of `evaluate`.

    Yields, for each of `num_rows` rows, its `line` from 1, `row` and `answers`: a list of `{position, expected,
    predicted, correct}`, with the scored targets (ids, or numbers of labels) and the most probable ones.

    Raises `ValueError` if the task is not evaluated by the answers of rows (`Task.evaluation`).
    """
    task = data.make_task(instance_of(config.data, TaskConfig, "data"), config.evaluation.split, tokenizer)
    rows, length = config.evaluation.batch_size, config.row_length or config.training.sequence_length
    check(
        task.evaluation == "answers",
        f"predict cannot show rows of {type(config.data).__name__}, which is evaluated as {task.evaluation!r}: "
        "memgpt-jax evaluate measures the run",
    )
    number = 0
    for batch in task.held_out(HELD_OUT_SEED, rows, length, -(-num_rows // rows)):
        best = np.concatenate(read_rows(config, params, batch, predict_chunk), axis=1)
        (targets,), (weights,) = batch.targets.values(), batch.weights.values()
        scored = weights > 0
        numbers = batch.info.get("answer", np.broadcast_to(np.arange(targets.shape[1]), targets.shape))
        for row in range(min(rows, num_rows - number)):
            answers = []
            for answer in dict.fromkeys(numbers[row][scored[row]].tolist()):
                (places,) = np.nonzero(scored[row] & (numbers[row] == answer))
                expected, predicted = targets[row, places].tolist(), best[row, places].tolist()
                answers.append(
                    {
                        "position": int(places[0]) + 1,
                        "expected": expected,
                        "predicted": predicted,
                        "correct": expected == predicted,
                    }
                )
            yield {"line": number + 1, "row": number, "answers": answers}
            number += 1


def predict_text(
    model: BaseModelConfig, params: models.Params, tokenizer: data.Tokenizer, text: str, top: int
) -> dict[str, Any]:
    """`next_tokens` of a decoder, `masked_tokens` of an encoder with a `masked` head.

    Raises:
        ValueError: the model predicts neither.
    """
    if isinstance(model, ModelConfig):
        return next_tokens(model, params, tokenizer, text, top)
    if isinstance(model, EncoderConfig) and "masked" in model.heads:
        return masked_tokens(model, params, tokenizer, text, top)
    raise ValueError(
        f"predict supports decoders and encoders with a 'masked' head; the model of this run is of "
        f"{type(model).__name__}"
    )


@functools.partial(jax.jit, static_argnums=0)
def _apply(config: BaseModelConfig, params: models.Params, tokens: Tokens) -> Any:
    return models.functional(config).apply(params, tokens)


def _most_probable(logits: Any, tokenizer: data.Tokenizer, top: int) -> list[dict[str, Any]]:
    probabilities = np.asarray(jax.nn.softmax(logits[: tokenizer.vocab_size]))
    best = np.argsort(-probabilities, kind="stable")[:top].tolist()
    return [
        {"token": token, "text": tokenizer.decode([token]), "probability": float(probability)}
        for token, probability in zip(best, probabilities[best], strict=True)
    ]
