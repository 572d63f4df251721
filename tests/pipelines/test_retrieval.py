"""Vectors of texts from data to prediction: queries find the document that has their word."""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import memgpt_jax as mg
from memgpt_jax.config.experiment import TrainingConfig
from memgpt_jax.data import batch_shapes, make_task
from memgpt_jax.data.examples.trec import read_judgements, read_trec
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.evaluation.metrics.retrieval import retrieval_metrics
from memgpt_jax.models.heads import make_head
from memgpt_jax.models.heads.vectors import contrast
from tests.laws.models import random_params
from tests.laws.real_data import DATA
from tests.pipelines.resuming import check_resuming

pytest.importorskip("ir_measures", reason="the extra `tasks` is not installed")
CRANFIELD = DATA / "retrieval" / "cranfield"
SIZES = {"vocab_size": 257, "d_model": 32, "num_layers": 1, "num_heads": 2, "segment_length": 16}
WORDS = ("wing", "heat", "flow", "drag", "jets", "mach")


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> mg.RetrievalConfig:
    """Six documents and 24 queries, each with one of six words."""
    folder = tmp_path_factory.mktemp("collection")
    documents = [{"id": f"d{number}", "text": f"about {word}"} for number, word in enumerate(WORDS)]
    queries = [{"id": f"q{number}", "text": f"{WORDS[number % 6]} {number}"} for number in range(24)]
    for name, rows in {"documents": documents, "queries": queries}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"q{number} 0 d{number % 6} 1\nq{number} 0 d{(number + 1) % 6} 0\n" for number in range(24)]
    (folder / "judgements.txt").write_text("".join(lines))
    files = {"documents": str(folder / "documents.jsonl"), "judgements": str(folder / "judgements.txt")}
    return mg.RetrievalConfig(train=str(folder / "queries.jsonl"), valid_every=4, max_length=16, **files)


@pytest.fixture(scope="module")
def found(task, tmp_path_factory):
    config = mg.EncoderConfig(**SIZES, memory=mg.NoMemoryConfig(), heads=())
    base = mg.from_params(config, random_params(config))
    options = {"epochs": 12, "batch_size": 12, "sequence_length": 16, "learning_rate": 3e-3, "dropout": 0.0}
    options |= {"tokenizer": ByteTokenizer(), "print_progress": False}
    return mg.finetune(base, task, workdir=tmp_path_factory.mktemp("run"), **options)


def test_the_documents_are_found(found):
    result = found.evaluation
    assert result["queries"] == 6 and result["documents"] == 6
    assert result["ndcg_10"] > 0.95 and result["mrr"] > 0.9 and result["recall_100"] == 1 and result["loss"] < 0.5


def test_the_pipeline_gives_unit_vectors_that_rank(found):
    vectors = mg.pipeline(found.workdir)
    asked, documents = vectors(" heat\n 7"), vectors([f"about {word}" for word in WORDS])
    assert asked.shape == (32,) and documents.shape == (6, 32)
    np.testing.assert_allclose(np.linalg.norm(documents, axis=1), 1, rtol=1e-5)
    assert np.argmax(documents @ asked) == 1 and (asked == vectors("heat 7")).all()
    assert mg.pipeline(found.workdir, pool="none")("heat").shape == (1, 5, 32)
    with pytest.raises(ValueError, match="pool must be 'none', 'mean' or 'head', got 'max'"):
        mg.pipeline(found.workdir, pool="max")


def test_a_memory_that_holds_the_documents_ranks_as_the_products_do():
    rng = np.random.default_rng(0)
    documents, asked = rng.normal(size=(40, 8)).astype(np.float32), rng.normal(size=(3, 8)).astype(np.float32)
    documents, asked = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (documents, asked))
    config = mg.KNNMemoryConfig(memory_size=40, top_k=40, num_heads=1, head_dim=8)
    memory = mg.memory.make_memory(config, d_model=8, segment_length=1, dtype=jnp.float32, rngs=nnx.Rngs(0))
    memory.query.kernel[...] = jnp.eye(8)
    entries = jnp.asarray(documents)[None, :, None]
    state = memory.write_entries(entries, entries, memory.init_state(1))
    weights = np.asarray(memory.explain(jnp.asarray(asked)[None], state).weights[0, :, 0])
    names = [str(number) for number in range(40)]
    judged = [{names[number]: 1 for number in rng.choice(40, 4, replace=False)} for _ in asked]
    assert retrieval_metrics(weights, names, judged) == retrieval_metrics(asked @ documents.T, names, judged)


def test_a_resumed_run_is_the_same_bitwise(found, tmp_path):
    check_resuming(found, tmp_path)


@pytest.mark.slow
def test_vectors_do_not_depend_on_the_division_into_calls():
    memory = mg.KVMemoryConfig(memory_size=8, head_dim=8)
    config = mg.HeadedConfig(
        backbone=mg.ModelConfig(**SIZES | {"segment_length": 4}, window_size=4, memory=memory),
        head=mg.VectorHeadConfig(pool="attention"),
    )
    model = mg.functional(config)
    params = random_params(model.config)
    tokens = np.random.default_rng(0).integers(257, size=(2, 12)).astype(np.int32)
    apply = jax.jit(model.apply)
    whole, _ = apply(params, tokens, model.init_state(2))
    first, state = apply(params, tokens[:, :5], model.init_state(2))
    second, _ = apply(params, tokens[:, 5:], state)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=-1), 1, rtol=1e-5)
    assert np.abs(whole[0, -1] - whole[0, 0]).max() > 1e-3


def reference(vectors: np.ndarray, numbers: np.ndarray, temperature: float) -> tuple[list[float], list[bool]]:
    """The loss of each text with plain loops, float64."""
    losses, correct = [], []
    for i, number in enumerate(numbers):
        others = [j for j, other in enumerate(numbers) if number * other < 0]
        own = [j for j in others if numbers[j] == -number]
        weights = {j: np.exp(float(vectors[i] @ vectors[j]) / temperature) for j in others}
        losses.append(-np.log(sum(weights[j] for j in own) / sum(weights.values())) if own else 0.0)
        correct.append(bool(own) and max(weights, key=weights.get) in own)
    return losses, correct


def test_the_loss_is_that_of_the_textbook():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(9, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = np.array([1, -1, 2, -2, 1, -1, 0, 3, -4], np.int32)  # two pairs of query 1, an empty row, two alone
    losses, correct = contrast(jnp.asarray(vectors, jnp.float32), jnp.asarray(numbers), 0.1)
    large = contrast(jnp.asarray(vectors, jnp.float32), jnp.asarray(np.sign(numbers) * 10**6 + numbers), 0.1)
    np.testing.assert_array_equal(large, (losses, correct))  # products of such numbers are beyond int32
    expected, expected_correct = reference(vectors, numbers, 0.1)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)
    assert list(correct) == expected_correct and sum(expected_correct) > 0


def test_scores_are_those_of_the_last_tokens_and_gradients_are_finite():
    stack = mg.EncoderConfig(**SIZES, memory=mg.NoMemoryConfig(), heads=())
    head = make_head(mg.VectorHeadConfig(), stack, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(1)
    h = jnp.asarray(rng.normal(size=(4, 5, 32)), jnp.float32)
    targets = np.zeros((4, 5), np.int32)
    targets[[0, 1, 2, 3], [4, 2, 0, 3]] = [1, -1, 2, -2]

    @jax.jit
    def loss(h):
        outputs, _ = head(h)
        return head.score(outputs, head.check_targets(targets, targets)).losses

    losses = loss(h)
    mean = np.cumsum(np.asarray(h), axis=1) / np.arange(1, 6)[None, :, None]
    ends = mean[[0, 1, 2, 3], [4, 2, 0, 3]]
    expected, _ = reference(ends / np.linalg.norm(ends, axis=1, keepdims=True), np.array([1, -1, 2, -2]), 0.05)
    np.testing.assert_allclose(losses[[0, 1, 2, 3], [4, 2, 0, 3]], expected, rtol=1e-4, atol=1e-5)
    assert np.sum(np.asarray(losses) != 0) <= 4
    gradient = jax.grad(lambda h: loss(h).sum())(h)
    assert np.isfinite(gradient).all() and not np.any(gradient[1, 3:]) and np.any(gradient[1, :3])
    with pytest.raises(ValueError, match=r"targets\['pairs'\] must be integers\[4, 5\] like tokens, got float64"):
        head.check_targets(targets.astype(float), targets)


def test_batches_are_pairs_of_a_query_and_its_document(task):
    train = make_task(task, "train", ByteTokenizer())
    batch = next(iter(train.batches(0, 6, 16)))
    shapes = jax.tree.map(lambda array: (array.shape, array.dtype), batch)
    training = TrainingConfig(batch_size=6, sequence_length=16)
    assert shapes == jax.tree.map(lambda array: (array.shape, array.dtype), batch_shapes(task, training))
    for row in range(0, 6, 2):
        numbers = [batch.targets["pairs"][row + place].sum() for place in (0, 1)]
        assert numbers[0] == -numbers[1] > 0
        texts = [bytes(int(t) for t in batch.inputs["tokens"][row + place] if 0 < t < 256).decode() for place in (0, 1)]
        assert texts[0].split()[0] == texts[1].split()[-1]
    assert np.array_equal(batch.weights["pairs"] > 0, batch.targets["pairs"] != 0)
    assert len(train.queries) == len(train.pairs) == 18
    with pytest.raises(ValueError, match=r"training\.batch_size must be even"):
        train.batches(0, 5, 16)


def test_metrics_of_hand_made_rankings():
    scores = np.array([[0.9, 0.5, 0.7], [0.1, 0.1, 0.1]])
    found = retrieval_metrics(scores, ["a", "b", "c"], [{"b": 1, "a": 0}, {"c": 1}])
    assert found["mrr"] == pytest.approx(1 / 3) and found["average_precision"] == pytest.approx(1 / 3)
    assert found["ndcg_10"] == pytest.approx(0.5) and found["recall_100"] == 1  # 1 / log2(1 + 3)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("judgements", "q0 0 d0\n", "line 1 must be QUERY ITERATION DOCUMENT RELEVANCE"),
        ("judgements", "q0 0 d0 1\nq0 0 d0 1\n", "line 2 judges document 'd0' for query 'q0' again"),
        ("judgements", "q0 0 d9 1\n", "names an unknown document 'd9'"),
        ("judgements", "\n", "has no judgements"),
        ("judgements", "q0 0 d0 0\n", "no query of the split 'train' has a relevant document"),
        (
            "documents",
            '{"id": "d0", "text": "a"}\n{"id": "d0", "text": "b"}\n',
            "another record has the same 'id': 'd0'",
        ),
    ],
)
def test_files_that_do_not_fit_are_named(task, tmp_path, name, content, message):
    path = tmp_path / ("judgements.txt" if name == "judgements" else "documents.jsonl")
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        make_task(mg.RetrievalConfig(**{**vars(task), name: str(path)}), "train", ByteTokenizer())


def test_documents_and_topics_in_xml(tmp_path):
    path = tmp_path / "documents.xml"
    path.write_text("<doc>\n<docno> 7 </docno><text>a\nb</text></doc>\n<DOC><docno>9</docno><text/></DOC>")
    assert [values for _, values in read_trec(path)] == [
        {"docno": "7", "text": "a\nb", "number": "1"},
        {"docno": "9", "text": "", "number": "2"},
    ]
    content = "<DOC><ID>d1</ID><TEXT><P>Lift <b>of</b> wings.</P> <P>More.</P></TEXT><P>A</P><P>B</P></DOC>"
    path.write_text(f'\ufeff<?xml version="1.0"?>{content}')
    assert [values for _, values in read_trec(path)] == [
        {"id": "d1", "text": "Lift of wings. More.", "p": "A\nB", "number": "1"}
    ]
    path.write_text("<doc><docno>")
    with pytest.raises(ValueError, match="cannot be read as XML"):
        list(read_trec(path))
    path.write_text("<other/>")
    with pytest.raises(ValueError, match="has no element <doc> or <top>"):
        list(read_trec(path))


def test_compressed_files_of_trec(tmp_path):
    for name, content in (("documents.xml.gz", "<doc><docno>7</docno></doc>"), ("judgements.gz", "q1 0 d1 1\n")):
        (tmp_path / name).write_bytes(gzip.compress(content.encode()))
    assert [values["docno"] for _, values in read_trec(tmp_path / "documents.xml.gz")] == ["7"]
    assert read_judgements(tmp_path / "judgements.gz") == [("q1", "d1", 1)]


def test_judgements_after_a_byte_order_mark(tmp_path):
    path = tmp_path / "judgements"
    path.write_text("\ufeffq1 0 d1 1\nq2 0 d2 0\n")
    assert read_judgements(path) == [("q1", "d1", 1), ("q2", "d2", 0)]


def test_the_published_files():
    if not CRANFIELD.exists():
        pytest.skip("the development data is absent")
    assert sum(1 for _ in read_trec(CRANFIELD / "cran.all.1400.xml")) == 1400
    assert sum(1 for _ in read_trec(CRANFIELD / "cran.qry.xml")) == 225
    assert len({judgement.query for judgement in read_judgements(CRANFIELD / "cranqrel.trec.txt")}) == 225
