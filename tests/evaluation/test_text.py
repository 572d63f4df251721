"""Evaluation of text equals a slow direct computation, one document and one number at a time."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest

from memgpt_jax import data, models
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.recall import RecallConfig
from memgpt_jax.evaluation import HELD_OUT_SEED, evaluate
from memgpt_jax.evaluation.scoring import score_chunk
from memgpt_jax.evaluation.text import position_curve
from tests.laws.models import random_params

MODEL = ModelConfig(
    vocab_size=257,
    d_model=16,
    num_layers=1,
    num_heads=2,
    window_size=8,
    segment_length=8,
    memory=KVMemoryConfig(memory_size=24, head_dim=8),
)
CONFIG = ExperimentConfig(
    model=MODEL,
    data=TextConfig(tokenizer="byte"),
    training=TrainingConfig(sequence_length=16),
    evaluation=EvaluationConfig(max_documents=None, max_tokens=None, batch_size=2, chunk_length=16),
)

TEXTS = ["one two  three\n", "é" * 40, "x", "", "a longer document, of several segments and chunks " * 3]


@pytest.fixture
def tokenizer(monkeypatch):
    """A byte tokenizer, and a held-out split with the documents TEXTS."""
    tokenizer = data.ByteTokenizer()
    encoded = [np.array(tokenizer.encode(text), np.int32) for text in TEXTS]
    monkeypatch.setattr(data, "documents", lambda config, split, tokenizer: encoded)
    return tokenizer


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@functools.partial(jax.jit, static_argnums=0)
def read(model, params, tokens):
    """Logits of whole texts, read in one call from a fresh state."""
    return models.functional(model).apply(params, tokens, models.functional(model).init_state(len(tokens)))[0]


def direct_losses(config, params, tokenizer, text: str) -> list[float]:
    """Nats of each token of a text, from log-softmax of the logits of one plain call."""
    ids = tokenizer.encode(text)
    tokens = np.zeros((1, 160), np.int32)  # what stands to the right of the text is not seen
    tokens[0, : len(ids)] = [tokenizer.start_id, *ids[:-1]]
    logits = np.asarray(read(config.model, params, tokens), np.float64)[0, : len(ids)]
    return [math.log(sum(math.exp(x) for x in row)) - row[target] for row, target in zip(logits, ids, strict=True)]


def test_losses_equal_a_direct_computation(tokenizer, params):
    losses = [direct_losses(CONFIG, params, tokenizer, text) for text in TEXTS if text]
    total, number = sum(map(sum, losses)), sum(map(len, losses))
    words = sum(len(text.split()) for text in TEXTS)
    result = evaluate(CONFIG, params, tokenizer)
    assert (result["documents"], result["tokens"], result["bytes"], result["words"]) == (4, number, number, words)
    assert result["loss"] == pytest.approx(total / number, rel=1e-5)
    assert result["bits_per_byte"] == pytest.approx(total / math.log(2) / number, rel=1e-5)
    assert result["perplexity_per_token"] == pytest.approx(math.exp(total / number), rel=1e-4)
    assert math.log(result["perplexity_per_word"]) == pytest.approx(total / words, rel=1e-5)
    first, second = result["curve"][:2]
    start = [loss for document in losses for loss in document[:64]]
    assert (first["start"], first["end"], first["tokens"]) == (0, 64, len(start))
    assert first["bits_per_byte"] == pytest.approx(sum(start) / math.log(2) / len(start), rel=1e-5)
    assert (second["start"], second["end"]) == (64, 128)
    assert sum(bucket["tokens"] for bucket in result["curve"]) == number


def test_results_do_not_depend_on_batches_and_chunks(tokenizer, params):
    one_row = dataclasses.replace(CONFIG.evaluation, batch_size=1, chunk_length=256)
    three_rows = dataclasses.replace(CONFIG.evaluation, batch_size=3, chunk_length=8)
    configs = (dataclasses.replace(CONFIG, evaluation=changed) for changed in (one_row, three_rows))
    expected, result = (evaluate(config, params, tokenizer) for config in configs)
    assert result["bits_per_byte"] == pytest.approx(expected["bits_per_byte"], rel=1e-5)


def test_a_second_evaluation_compiles_nothing(tokenizer, params):
    compiled = score_chunk._cache_size()
    evaluate(CONFIG, params, tokenizer)
    once = score_chunk._cache_size()
    evaluate(CONFIG, jax.tree.map(lambda x: 2 * x, params), tokenizer)
    assert once == score_chunk._cache_size() and once <= compiled + 1


def test_max_documents_and_max_tokens(tokenizer, params):
    limits = EvaluationConfig(max_documents=2, max_tokens=10, batch_size=2, chunk_length=16)
    result = evaluate(dataclasses.replace(CONFIG, evaluation=limits), params, tokenizer)
    losses = [direct_losses(CONFIG, params, tokenizer, text)[:10] for text in TEXTS[:2]]
    assert (result["documents"], result["tokens"]) == (2, 20)
    assert result["loss"] == pytest.approx(sum(map(sum, losses)) / 20, rel=1e-5)


LINES = ["one two  three\n\n", "é" * 30, "  a longer document, of several segments and chunks  " * 3]


class Corpus(list):
    """The ids of LINES, with known numbers of bytes and words."""

    def __init__(self, tokenizer):
        super().__init__(np.array(tokenizer.encode(text), np.int32) for text in LINES)

    def bytes_of(self, index):
        return len(LINES[index].encode())

    def words_of(self, index):
        return len(LINES[index].split())


class Stripping(data.ByteTokenizer):
    """A tokenizer that loses spaces, as many do: the bytes of its ids differ from those of the text."""

    lossless = False

    def encode(self, text):
        return super().encode(" ".join(text.split()))


def test_bytes_and_words_do_not_depend_on_the_tokenizer(monkeypatch, params):
    monkeypatch.setattr(data, "documents", lambda config, split, tokenizer: Corpus(tokenizer))
    result = evaluate(CONFIG, params, Stripping())
    size, words = sum(len(text.encode()) for text in LINES), sum(len(text.split()) for text in LINES)
    assert result["tokens"] < size and (result["bytes"], result["words"], result["curve"]) == (size, words, [])
    nats = result["loss"] * result["tokens"]
    assert result["bits_per_byte"] == pytest.approx(nats / math.log(2) / size)
    assert math.log(result["perplexity_per_word"]) == pytest.approx(nats / words)


def test_bytes_of_truncated_documents_are_unknown_with_a_lossy_tokenizer(monkeypatch, params, caplog):
    monkeypatch.setattr(data, "documents", lambda config, split, tokenizer: Corpus(tokenizer))
    cut = dataclasses.replace(CONFIG, evaluation=dataclasses.replace(CONFIG.evaluation, max_tokens=60))
    result = evaluate(cut, params, Stripping())
    names = ("bits_per_byte", "perplexity_per_word", "bytes", "words")
    assert [result[name] for name in names] == [None] * 4 and result["curve"] == []
    assert result["loss"] > 0 and "max_tokens=60 cuts 1 of 3 documents" in caplog.text
    exact = evaluate(cut, params, data.ByteTokenizer())
    assert exact["bytes"] == sum(min(60, len(text.encode())) for text in LINES) and exact["curve"]


def test_memory_size_may_change(tokenizer, params):
    memory = dataclasses.replace(MODEL.memory, memory_size=0)
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, memory=memory))
    empty, full = (evaluate(config, params, tokenizer) for config in (config, CONFIG))
    assert empty["curve"][0]["bits_per_byte"] != full["curve"][0]["bits_per_byte"]
    assert empty["tokens"] == full["tokens"]


def test_a_split_without_text_is_refused(monkeypatch, params):
    monkeypatch.setattr(data, "documents", lambda config, split, tokenizer: [])
    with pytest.raises(ValueError, match="valid split of 'stdlib' holds no text"):
        evaluate(CONFIG, params, data.ByteTokenizer())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_losses_that_are_not_finite_are_refused(tokenizer, params, value):
    broken = params | {"final_norm": {"scale": params["final_norm"]["scale"].at[3].set(value)}}
    with pytest.raises(ValueError, match=r"the loss of 246 of 246 tokens is NaN or infinite: the parameters"):
        evaluate(CONFIG, broken, tokenizer)
    one = params | {"embedding": params["embedding"].at[ord("x")].set(value)}  # also of its logit, everywhere
    with pytest.raises(ValueError, match="tokens is NaN or infinite"):
        evaluate(CONFIG, one, tokenizer)


def test_documents_longer_than_the_learned_positions_are_refused(tokenizer):
    model = dataclasses.replace(MODEL, position="learned", num_positions=74)
    params, config = random_params(model), dataclasses.replace(CONFIG, model=model)
    with pytest.raises(ValueError, match=r"max_tokens=None: a document has 150 .* model\.num_positions=74"):
        evaluate(config, params, tokenizer)
    short = dataclasses.replace(
        CONFIG.evaluation, max_tokens=70
    )  # padding reads on beyond the table, and is not counted
    assert math.isfinite(evaluate(dataclasses.replace(config, evaluation=short), params, tokenizer)["loss"])


def test_curve():
    ones = np.ones(200)
    curve = position_curve(ones * math.log(2), ones.astype(int) * 2, ones.astype(int))
    assert [(bucket["start"], bucket["end"]) for bucket in curve] == [(0, 64), (64, 128), (128, 200)]
    assert all(bucket["bits_per_byte"] == pytest.approx(0.5) for bucket in curve)


def test_recall():
    task = RecallConfig(num_pairs=2, num_keys=8, num_values=8, num_fillers=4, context_length=16, query_length=4)
    model = dataclasses.replace(MODEL, vocab_size=task.num_ids)
    settings = EvaluationConfig(batch_size=4, num_batches=2)
    config = ExperimentConfig(model=model, data=task, evaluation=settings)
    params = random_params(model, 1)
    result = evaluate(config, params)

    random, hits, nats = np.random.default_rng(HELD_OUT_SEED), 0, 0.0
    for _ in range(2):
        batch = data.recall_batch(task, random, 4)
        logits = np.asarray(read(model, params, batch.inputs["tokens"]), np.float64)
        for row, column in zip(*np.nonzero(batch.weights["tokens"]), strict=True):
            target = batch.targets["tokens"][row, column]
            hits += int(np.argmax(logits[row, column]) == target)
            nats += float(np.log(np.exp(logits[row, column]).sum()) - logits[row, column, target])
    assert result["answers"] == 2 * 4 * 2
    assert result["accuracy"] == pytest.approx(hits / 16)
    assert result["loss"] == pytest.approx(nats / 16, rel=1e-5)
