"""Scores of tasks: whole answers, groups, failed tasks, and rows longer than a chunk."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from memgpt_jax import data, models
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.base import Task, scored_rows
from memgpt_jax.data.tasks.recall import RecallConfig
from memgpt_jax.evaluation import HELD_OUT_SEED, evaluate, evaluate_task, tasks
from memgpt_jax.evaluation.metrics.answers import count_answers
from memgpt_jax.evaluation.scoring import RowScores
from tests.laws.models import random_params

MODEL = ModelConfig(
    vocab_size=144,
    d_model=16,
    num_layers=1,
    num_heads=2,
    window_size=8,
    segment_length=8,
    memory=KVMemoryConfig(memory_size=24, head_dim=8),
)
CONFIG = ExperimentConfig(
    model=MODEL,
    data=RecallConfig(context_length=48, query_length=8),  # the row's length is the task's: any chunk is valid
    training=TrainingConfig(sequence_length=56),
    evaluation=EvaluationConfig(batch_size=4),
)


@functools.partial(jax.jit, static_argnums=0)
def apply(config, params, tokens, state, reset=None):
    return models.functional(config).apply(params, tokens, state, reset)


class Words(Task):
    """Random rows of two documents with answers of two tokens, in three groups, the last of which has no rows."""

    groups = ("a", "b", "c")
    passing_accuracy = 0.5

    def held_out(self, rng, batch_size, length, num_batches):
        rng = np.random.default_rng(rng)
        for _ in range(2):
            tokens = rng.integers(144, size=(batch_size, length + 1))
            answer = np.zeros((batch_size, length), np.int32)
            answer[:, 10:12], answer[:, 13], answer[:, 15] = 1, 7, 7
            batch = scored_rows(tokens, answer > 0, answer=answer, group=np.array([0, 1, 1, 0], np.int32))
            batch.inputs["reset"][:, 12] = True
            batch.weights["tokens"][-1] = 0  # a row of padding
            yield batch


def test_whole_answers():
    correct = np.array([[1, 1, 0, 1, 1], [1, 0, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
    weights = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], np.float32)
    answer = np.array([[3, 3, 5, 5, 5], [1, 2, 2, 1, 4], [1, 1, 2, 2, 0]], np.int32)
    right, asked = count_answers(correct, weights, answer)
    assert right.tolist() == [1, 2, 0] and asked.tolist() == [2, 3, 0]
    right, asked = count_answers(correct, weights)
    assert right.tolist() == [3, 4, 0] and asked.tolist() == [4, 5, 0]
    right, asked = count_answers(correct, 0 * weights, answer)
    assert right.tolist() == asked.tolist() == [0, 0, 0]


@pytest.mark.parametrize("known", [1.0, 0.5, 0.0])
def test_groups_and_failed_tasks(monkeypatch, known):
    """A model that predicts all tokens, the first 14 tokens of each row, or no token correctly."""

    def score_rows(config, params, batch):
        losses = np.full(batch.inputs["tokens"].shape, 2.0, np.float32)
        return RowScores(losses, np.broadcast_to(np.arange(56) < {1.0: 56, 0.5: 14, 0.0: 0}[known], losses.shape))

    monkeypatch.setattr(tasks, "score_rows", score_rows)
    result = evaluate_task(CONFIG, None, Words(CONFIG.data, "test"))
    share = known  # of the second answer, one token is among the first 14
    assert result["accuracy"] == share and result["answers"] == 2 * 3 * 2 and result["loss"] == pytest.approx(2.0)
    assert result["groups"] == {"a": share, "b": share}  # of c nothing was asked
    assert result["failed_tasks"] == (0 if share >= 0.5 else 2)


@pytest.mark.parametrize(
    "chunk", [12, *(pytest.param(chunk, marks=pytest.mark.slow) for chunk in (24, 1024, 16))]
)  # chunks that divide; whole rows, twice; unaligned
def test_chunks_equal_a_direct_computation(chunk):
    params = random_params(MODEL)
    settings = dataclasses.replace(CONFIG.evaluation, chunk_length=chunk)
    config = dataclasses.replace(CONFIG, evaluation=settings)
    result = evaluate_task(config, params, Words(config.data, "test"))
    hits, nats, number = np.zeros(2), 0.0, 0
    for batch in Words(config.data, "test").held_out(HELD_OUT_SEED, 4, 56, 1):
        state = models.functional(MODEL).init_state(4)
        logits, _ = apply(MODEL, params, batch.inputs["tokens"], state, batch.inputs["reset"])
        log_probabilities = np.asarray(jax.nn.log_softmax(logits), np.float64)
        for row in range(3):
            for places in ((10, 11), (13, 15)):
                targets = [batch.targets["tokens"][row, place] for place in places]
                chosen = [log_probabilities[row, place] for place in places]
                hits[batch.info["group"][row]] += all(c.argmax() == t for c, t in zip(chosen, targets, strict=True))
                nats, number = nats - sum(c[t] for c, t in zip(chosen, targets, strict=True)), number + 2
    assert result["loss"] == pytest.approx(nats / number, rel=1e-5)
    assert result["groups"]["a"] == pytest.approx(hits[0] / 4) and result["groups"]["b"] == pytest.approx(hits[1] / 8)


def test_losses_that_are_not_finite_are_refused():
    params = random_params(MODEL)
    params["final_norm"]["scale"] = params["final_norm"]["scale"].at[3].set(np.nan)
    with pytest.raises(ValueError, match="the loss of 12 of 12 tokens is NaN or infinite"):
        evaluate_task(CONFIG, params, Words(CONFIG.data, "test"))


@pytest.mark.slow
def test_rows_are_read_in_chunks(monkeypatch):
    seen, score = [], models.ModelFunctions.score

    def spy(self, params, **options):
        seen.append((options["tokens"].shape, options["alignment"]))
        return score(self, params, **options)

    monkeypatch.setattr(models.ModelFunctions, "score", spy)
    task = RecallConfig(num_pairs=2, num_keys=8, num_values=8, num_fillers=4, context_length=196, query_length=4)
    settings = EvaluationConfig(batch_size=2, num_batches=1, chunk_length=64)
    config = dataclasses.replace(CONFIG, data=task, evaluation=settings)
    whole = dataclasses.replace(config, evaluation=dataclasses.replace(settings, chunk_length=1024))
    params = random_params(MODEL, 1)
    chunked = evaluate(config, params)
    assert set(seen) == {((2, 64), "aligned"), ((2, 8), "aligned")}
    assert chunked["loss"] == pytest.approx(evaluate(whole, params)["loss"], rel=1e-5)
    assert "groups" not in chunked and "failed_tasks" not in chunked


def test_a_task_with_answers_of_several_tokens():
    from memgpt_jax.data.tasks.json_recall import JsonRecallConfig

    task = JsonRecallConfig(num_pairs=2, key_length=2, value_length=2, num_questions=2)
    model = dataclasses.replace(MODEL, vocab_size=task.num_ids)
    settings = EvaluationConfig(batch_size=3, num_batches=2)
    config = ExperimentConfig(model=model, data=task, evaluation=settings)
    params, hits = random_params(model, 1), 0
    for batch in data.make_task(task, "valid").held_out(HELD_OUT_SEED, 3, 64, 2):
        logits, _ = apply(model, params, batch.inputs["tokens"], models.functional(model).init_state(3))
        right = np.asarray(logits).argmax(-1) == batch.targets["tokens"]
        hits += sum(right[row][batch.info["answer"][row] == number].all() for row in range(3) for number in (1, 2))
    result = evaluate(config, params)
    assert result["answers"] == 12 and result["accuracy"] == pytest.approx(hits / 12)
