"""BM25 equals its formula, and its weight decides between the words and the vectors."""

import dataclasses
import json
import math

import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.data.text.bm25 import bm25_scores
from memgpt_jax.evaluation import evaluate
from memgpt_jax.evaluation.retrieval import standard_scores
from tests.laws.models import random_params

pytest.importorskip("bm25s", reason="the extra `tasks` is not installed")
DOCUMENTS = ["wing of the wing", "heated flows, flowing heat", "", "drag of a wing in hypersonic flow", "Über wings"]


def reference(query: list[str], documents: list[list[str]], k: float = 1.5, b: float = 0.75) -> list[float]:
    """The formula of the docstring with plain loops, float64."""
    mean, scores = sum(map(len, documents)) / len(documents), []
    for document in documents:
        score = 0.0
        for word in query:
            having, count = sum(word in other for other in documents), document.count(word)
            weight = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            score += weight * count / (count + k * (1 - b + b * len(document) / mean))
        scores.append(score)
    return scores


@pytest.mark.parametrize("language", [None, "english"])
def test_scores_equal_the_formula(language):
    stems = {"heated": "heat", "flows": "flow", "flowing": "flow", "wings": "wing"} if language else {}
    split = [[stems.get(word, word) for word in text.lower().replace(",", "").split()] for text in DOCUMENTS]
    queries = ["Wing flows", "flow flow", "nothing known", "", "WINGS über"]
    expected = [reference([stems.get(word, word) for word in query.lower().split()], split) for query in queries]
    found = bm25_scores(queries, DOCUMENTS, language)
    assert found.shape == (5, 5) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not bm25_scores(["wing"], ["", " "], language).any()


def test_standard_scores():
    found = standard_scores(np.array([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]], np.float32))
    np.testing.assert_allclose(found[0].mean(), 0, atol=1e-12)
    np.testing.assert_allclose(found[0].std(), 1)
    assert not found[1].any()


def test_languages_that_have_no_stemmer():
    with pytest.raises(ValueError, match=r"language must be None or one of arabic, .*, got 'klingon'"):
        bm25_scores(["a"], ["b"], "klingon")


@pytest.mark.slow
def test_a_large_weight_ranks_by_words(tmp_path):
    """Untrained vectors do not find the document; shared words do, and the loss stays that of the products."""
    rows = {
        "documents": [{"id": f"d{number}", "text": text} for number, text in enumerate(DOCUMENTS)],
        "queries": [{"id": "q", "text": "hypersonic"}, {"id": "r", "text": "heating"}],
    }
    for name, records in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "judgements.txt").write_text("q 0 d3 1\nr 0 d1 1\n")
    files = {"documents": str(tmp_path / "documents.jsonl"), "judgements": str(tmp_path / "judgements.txt")}
    queries = str(tmp_path / "queries.jsonl")
    data = mg.RetrievalConfig(train=queries, valid=queries, tokenizer="byte", bm25_weight=100.0, **files)
    backbone = mg.EncoderConfig(vocab_size=257, d_model=8, num_layers=1, num_heads=2, segment_length=16, heads=())
    model = mg.HeadedConfig(backbone=backbone, head=mg.VectorHeadConfig())
    config = mg.ExperimentConfig(model=model, data=data, training=mg.TrainingConfig(sequence_length=32))
    params = random_params(model)
    found = evaluate(config, params)
    assert found["mrr"] == found["ndcg_10"] == 1
    alone = evaluate(dataclasses.replace(config, data=dataclasses.replace(data, bm25_weight=0.0)), params)
    assert alone["loss"] == found["loss"] and alone["mrr"] < 1
    with pytest.raises(ValueError, match="language must be None or one of"):
        evaluate(dataclasses.replace(config, data=dataclasses.replace(data, bm25_language="x")), params)
    with pytest.raises(ValueError, match=r"data.bm25_weight must be at least 0, got -1"):
        dataclasses.replace(data, bm25_weight=-1.0)
