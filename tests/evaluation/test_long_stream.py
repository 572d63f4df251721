"""Recall along a stream: models that know every answer or none, and comparison with direct questions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax import models
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data import ByteTokenizer, NeedleTask
from memgpt_jax.data.tasks.needle import NeedleConfig
from memgpt_jax.data.tasks.recall import RecallConfig
from memgpt_jax.evaluation import HELD_OUT_SEED, evaluate, long_stream, recall_along_stream
from memgpt_jax.ops import Scores
from tests.laws.models import random_params


@pytest.fixture
def config(tmp_path):
    """A small experiment on bytes."""
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.txt").write_text("Once upon a time there was a number, 42. " * 30)
    text = TextConfig(corpus="folder", path=str(tmp_path), tokenizer="byte", cache_dir=str(tmp_path / "cache"))
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=257 + 26,
            d_model=16,
            num_layers=1,
            num_heads=2,
            window_size=8,
            segment_length=16,
            memory=KVMemoryConfig(memory_size=32, head_dim=8),
        ),
        data=NeedleConfig(text=text, num_needles=4, num_questions=2, num_words=26, gap_length=16),
        training=TrainingConfig(sequence_length=192, carry_state=False),
        evaluation=EvaluationConfig(batch_size=3, num_batches=2, chunk_length=112),
    )


def stub(monkeypatch, correct):
    """A model whose state counts calls and tokens, and whose answers are right if `correct(state)` is True."""

    def score_chunk(config, params, *, tokens, targets, state, **options):
        right = jnp.broadcast_to(correct(state), tokens.shape)
        return {"tokens": Scores(jnp.zeros(tokens.shape), right)}, state + tokens.shape[1]

    monkeypatch.setattr(models.ModelFunctions, "init_state", lambda self, rows: jnp.zeros((), jnp.int32))
    monkeypatch.setattr(long_stream, "read_chunk", lambda config, params, tokens, state: state + tokens.shape[1])
    monkeypatch.setattr(long_stream, "score_chunk", score_chunk)


@pytest.mark.parametrize(("knows", "accuracy"), [(True, 1.0), (False, 0.0)])
def test_a_perfect_and_an_ignorant_model(config, monkeypatch, knows, accuracy):
    stub(monkeypatch, lambda state: knows)
    seen = []
    results = recall_along_stream(config, None, (300, 1, 112), advance=seen.append)
    assert results == [{"length": n, "accuracy": accuracy, "answers": 12} for n in (112, 336)]
    assert seen == [112, 224, 336]


def test_questions_do_not_change_the_state_of_the_stream(config, monkeypatch):
    stub(monkeypatch, lambda state: state < 300)  # forgets: questions take the state to 224, but the stream does not
    results = recall_along_stream(config, None, (112, 224, 336, 448))
    assert [point["accuracy"] for point in results] == [1.0, 1.0, 0.0, 0.0]


def test_recall_equals_direct_questions(config):
    params = random_params(config.model)
    seen = []
    spy = long_stream.ask

    def ask(model, params, state, *, questions, scored, chunk):
        seen.append((state, questions, scored))
        return spy(model, params, state, questions=questions, scored=scored, chunk=chunk)

    long_stream.ask = ask
    try:
        (point,) = recall_along_stream(config, params, (336,))
    finally:
        long_stream.ask = spy
    ((state, questions, scored),) = seen
    logits, _ = jax.jit(models.functional(config.model).apply)(params, questions, state)
    guesses = np.asarray(logits).argmax(-1)[:, :-1]
    hits = ((guesses == questions[:, 1:]) * scored[:, 1:]).sum()
    assert point["accuracy"] == pytest.approx(hits / 12) and scored.sum() == point["answers"] == 12


def test_losses_that_are_not_finite_are_refused(config):
    params = random_params(config.model)
    params["final_norm"]["scale"] = params["final_norm"]["scale"].at[3].set(np.nan)
    with pytest.raises(ValueError, match="tokens is NaN or infinite"):
        recall_along_stream(config, params, (112,))


@pytest.mark.slow
def test_evaluate_uses_held_out_rows(config):
    params = random_params(config.model)
    result = evaluate(config, params, ByteTokenizer())
    task, random, hits = NeedleTask(config.data, "valid"), np.random.default_rng(HELD_OUT_SEED), 0.0
    apply, state = jax.jit(models.functional(config.model).apply), models.functional(config.model).init_state(3)
    for _ in range(2):
        batch = task.batch(random, 3, 192)
        logits, _ = apply(params, batch.inputs["tokens"], state)
        hits += ((np.asarray(logits).argmax(-1) == batch.targets["tokens"]) * batch.weights["tokens"]).sum()
    assert result["answers"] == 12 and result["accuracy"] == pytest.approx(hits / 12)


def test_errors(config):
    with pytest.raises(ValueError, match="a long stream needs an experiment with NeedleConfig, got RecallConfig"):
        recall_along_stream(dataclasses.replace(config, data=RecallConfig()), None, (1,))
    crowded = dataclasses.replace(config, data=dataclasses.replace(config.data, num_needles=7))
    with pytest.raises(ValueError, match="112 tokens in front of the questions cannot hold 7 needles of 19 tokens"):
        recall_along_stream(crowded, None, (1,))
