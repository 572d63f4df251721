"""Triples: ids, documents and filtered ranks by hand, epochs, bad files, and the frequency baseline of UMLS."""

import logging
import os
import tarfile
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, TrainingConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.triples import TriplesConfig, TriplesTask
from memgpt_jax.evaluation.links import evaluate_links
from memgpt_jax.evaluation.metrics.ranking import link_metrics, ranks_of
from memgpt_jax.models import functional
from memgpt_jax.training.start import completed
from tests.laws.models import random_params

TRAIN = [("b", "likes", "a"), ("a", "knows", "c"), ("a", "likes", "c"), ("c", "knows", "d"), ("a", "knows", "a")]
VALID, TEST = [("a", "knows", "d")], [("a", "likes", "d"), ("c", "likes", "b")]


def written(folder, **splits):
    for name, triples in splits.items():
        (folder / f"{name}.txt").write_text("".join("\t".join(triple) + "\n" for triple in triples))
    return {name: str(folder / f"{name}.txt") for name in splits}


@pytest.fixture
def paths(tmp_path):
    return written(tmp_path, train=TRAIN, valid=VALID, test=TEST)


def test_queries_and_documents_by_hand(paths):
    """Entities a, b, c, d are 0 to 3; knows and likes 4 and 5, their inverses 6 and 7."""
    config = TriplesConfig(**paths).completed()
    assert (config.num_entities, config.num_relations, config.num_ids) == (4, 2, 8)
    assert config.head_settings == {"num_outputs": 4} and config.tokens_per_triple == 2
    test = TriplesTask(config, "test")
    assert test.queries.tolist() == [[0, 5, 3], [2, 5, 1], [3, 7, 0], [1, 7, 2]]
    assert test.document(2, 5).tolist() == [2, 5]
    assert sorted(test.answers(0, 5)) == [2, 3] and sorted(test.answers(0, 4)) == [0, 2, 3]
    assert sorted(test.answers(0, 7)) == [1] and test.answers(3, 5) == []
    with_facts = TriplesTask(TriplesConfig(**paths, facts=2), "test")
    facts = {(2, 6, 0), (2, 7, 0), (2, 4, 3)}  # of c in training: known by a, liked by a, knows d
    tokens = with_facts.document(2, 5).tolist()
    assert tokens[-2:] == [2, 5] and {tuple(tokens[:3]), tuple(tokens[3:6])} < facts and len(tokens) == 8
    assert tokens == with_facts.document(2, 5).tolist()
    assert with_facts.document(3, 7).tolist() == [3, 6, 2, 3, 7]  # d has one fact


@pytest.mark.parametrize(("facts", "length"), [(0, 4), (2, 12), (50, 12)])
def test_an_epoch_asks_every_query_once_and_no_document_gives_an_answer_away(paths, facts, length):
    task = TriplesTask(TriplesConfig(**paths, facts=facts), "train")
    size, number = task.config.tokens_per_triple, len(task.learned)
    assert number == 9  # both directions of five triples, but one of the self-loop
    asked, longest, firsts = Counter(), 0, []
    batches = [batch for batch, _ in zip(task.batches(0, 3, length), range(number), strict=False)]
    for batch in batches:
        assert not np.delete(batch.weights["links"].reshape(3, -1, size), 1, axis=2).any()
        for tokens, reset, targets in zip(*batch.inputs.values(), batch.targets["links"], strict=True):
            assert reset[0] and not reset.reshape(-1, size)[:, 1:].any()
            document = []
            for place in range(0, length, size):
                document = [] if reset[place] else document
                entity, relation, answer = (*tokens[place : place + 2].tolist(), int(targets[place + 1]))
                assert all(fact[0] == entity for fact in document)
                triple = (answer, relation - 2, entity) if relation >= 6 else (entity, relation, answer)
                known = {(a, r - 2, h) if r >= 6 else (h, r, a) for h, r, a in document}
                assert triple not in known  # in neither direction
                document.append((entity, relation, answer))
                assert size == 2 or tokens[place + 2] == answer
                asked[entity, relation, answer] += 1
                longest = max(longest, len(document))
        firsts.append(batch.inputs["tokens"])
    assert set(asked) == set(map(tuple, task.learned.tolist()))
    assert max(asked.values()) - min(asked.values()) <= 1  # whole epochs, and a part of one
    assert longest == (1 if not facts else 3 if facts == 2 else 4)  # a row holds four
    again, other = (next(iter(task.batches(seed, 3, length))) for seed in (0, 1))
    assert (again.inputs["tokens"] == firsts[0]).all() and (other.inputs["tokens"] != firsts[0]).any()


def experiment(paths, facts, chunk, **settings):
    memory = mg.KVMemoryConfig(memory_size=6, head_dim=4)
    sizes = {"vocab_size": 8, "d_model": 8, "num_layers": 1, "num_heads": 2, "window_size": 2, "segment_length": 3}
    return ExperimentConfig(
        model=mg.HeadedConfig(backbone=mg.ModelConfig(**sizes, memory=memory), head=mg.LinkHeadConfig(num_outputs=4)),
        data=TriplesConfig(**paths, facts=facts),
        training=TrainingConfig(sequence_length=12),
        evaluation=EvaluationConfig(split="test", batch_size=2, chunk_length=chunk, max_documents=None, **settings),
    )


@pytest.mark.slow
def test_filtered_ranks_equal_loops_whatever_the_calls(paths):
    config, calls = experiment(paths, 2, 9), experiment(paths, 2, 3)
    task, model = TriplesTask(config.data, "test"), functional(config.model)
    apply, filtered = jax.jit(model.apply), 0
    known = {tuple(query) for split in ("train", "valid", "test") for query in TriplesTask(config.data, split).queries}
    known |= {(0, 6, 0)}  # the inverse of the self-loop
    for seed in range(4):
        params, ranks, nats = random_params(model.config, seed), [], []
        for entity, relation, answer in task.queries.tolist():
            tokens = task.document(entity, relation)
            padded = np.pad(tokens, (0, 8 - len(tokens)))[None]
            scores = np.asarray(apply(params, padded, model.init_state(1))[0])[0, len(tokens) - 1]
            others = [e for e in range(4) if e != answer and (entity, relation, e) not in known]
            ranks.append(1 + sum(scores[e] > scores[answer] for e in others))
            nats.append(-np.log(np.exp(scores[answer]) / np.exp(scores).sum()))
            filtered += 1 + sum(scores > scores[answer]) > ranks[-1]
        found = evaluate_links(config, params, task)
        assert found["triples"] == 2 and found.pop("loss") == pytest.approx(np.mean(nats), rel=1e-4)
        del found["triples"]
        assert found == link_metrics([np.array([ranks[0], ranks[2]]), np.array([ranks[1], ranks[3]])])
        again = mg.evaluate(calls, params)
        assert {name: again[name] for name in found} == found
    assert filtered > 0


def test_metrics_of_links_by_hand():
    found = link_metrics([np.array([1.0, 1.5]), np.array([3.0, 12.0])])
    assert found["mrr"] == pytest.approx((1 + 1 / 1.5 + 1 / 3 + 1 / 12) / 4)
    assert (found["hits_1"], found["hits_3"], found["hits_10"]) == (0.25, 0.75, 0.75)
    assert found["mrr_interval"] == pytest.approx([(1 / 3 + 1 / 12) / 2, (1 + 1 / 1.5) / 2])


def test_training_sets_the_number_of_entities(paths):
    config = experiment(paths, 2, 3)
    config = completed(with_fields(config, {"model.head": mg.LinkHeadConfig(num_outputs=2, scorer="rotate")}))
    assert config.model.head == mg.LinkHeadConfig(num_outputs=4, scorer="rotate") and config.data.num_entities == 4


@pytest.mark.slow
def test_a_shallow_model_learns_the_training_triples(paths, tmp_path):
    paths |= written(tmp_path, train=[(f"e{n}", "next", f"e{n + 1}") for n in range(6)], valid=[("e6", "next", "e0")])
    changes = {
        "model.backbone.num_layers": 0,
        "model.backbone.vocab_size": 9,
        "model.backbone.d_model": 16,
        "data": TriplesConfig(train=paths["train"], valid=paths["valid"]),
        "training": TrainingConfig(steps=200, batch_size=4, sequence_length=6, carry_state=False, checkpoint_every=200),
        "evaluation.split": "valid",
    }
    mg.train(with_fields(experiment(paths, 0, 6), changes), tmp_path / "run", print_progress=False)
    run = mg.load_run(tmp_path / "run")
    learned = TriplesTask(run.config.data, "train")
    assert evaluate_links(run.config, run.params, learned)["mrr"] > 0.95

    predict = mg.pipeline(tmp_path / "run")
    found = predict("e2", "next", top_k=3)
    assert found[0]["entity"] == "e3" and predict("e2", "next", inverse=True)[0]["entity"] == "e1"
    assert len(found) == 3 and 1 >= found[0]["score"] > found[1]["score"] > found[2]["score"]
    assert predict.record("e4\tnext", top=1)["predictions"] == predict("e4", "next", top_k=1)
    for arguments, message in (
        (("f", "next"), "entity: the entity 'f' is in no triple of data.train"),
        (("e1", "last"), "relation: the relation 'last' is in no triple of data.train"),
    ):
        with pytest.raises(ValueError, match=message):
            predict(*arguments)
    with pytest.raises(ValueError, match="use the pipeline 'link-prediction', not 'feature-extraction'"):
        mg.pipeline("feature-extraction", model=tmp_path / "run")
    written(tmp_path, train=TRAIN, valid=VALID)
    with pytest.raises(ValueError, match=r"data\.train holds 4 entities, data\.num_entities=7"):
        mg.pipeline("link-prediction", model=tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train", "a\tknows\tb\na knows b\n", "train.txt, line 2 must be HEAD, RELATION and TAIL, separated by tabs"),
        ("train", "a\tknows\t\n", "line 1 must be HEAD"),
        ("train", "\n", "train.txt has no triples"),
        ("test", "a\tlikes\te\n", "test.txt, line 1: the entity 'e' is in no triple of data.train"),
        ("test", "a\thates\tb\n", "test.txt, line 1: the relation 'hates' is in no triple of data.train"),
        ("test", "a\tlikes\tb\na\tknows\tc\n", "test.txt, line 2: the triple is in data.train, too"),
        ("test", "a\tlikes\t\xff\n", "line 1 is not valid UTF-8 at byte 8 of the line"),
    ],
)
def test_bad_files_are_named(paths, name, content, message):
    Path(paths[name]).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        TriplesTask(TriplesConfig(**paths), "test")


def test_missing_files_and_settings_that_do_not_fit_are_named(paths):
    with pytest.raises(ValueError, match=r"data\.train must name a file of triples, got None"):
        TriplesTask(TriplesConfig(), "train")
    with pytest.raises(ValueError, match=r"data\.valid must name a file of triples, got None"):
        TriplesTask(TriplesConfig(train=paths["train"], test=paths["test"]), "valid")
    with pytest.raises(ValueError, match="facts must be at least 0"):
        TriplesConfig(facts=-1)
    for given, message in (
        ({"num_entities": 2, "num_relations": 2}, r"data\.train holds 4 entities, data\.num_entities=2"),
        ({"num_relations": 1}, r"data\.train holds 2 relations, data\.num_relations=1"),
    ):
        with pytest.raises(ValueError, match=message):
            TriplesTask(TriplesConfig(**paths, **given), "train")
    encoder = mg.EncoderConfig(vocab_size=8, d_model=8, heads=(), memory=mg.NoMemoryConfig())
    with pytest.raises(ValueError, match="needs a decoder: this EncoderConfig reads the answer after its query"):
        ExperimentConfig(data=TriplesConfig(), model=mg.HeadedConfig(backbone=encoder, head=mg.LinkHeadConfig()))
    with pytest.raises(ValueError, match="sequence_length=1024 must be a multiple of 3 tokens of a triple"):
        decoder = mg.ModelConfig(vocab_size=8, d_model=8, num_heads=1, memory=mg.NoMemoryConfig())
        ExperimentConfig(data=TriplesConfig(facts=1), model=mg.HeadedConfig(backbone=decoder, head=mg.LinkHeadConfig()))


def test_repeated_triples_count_once_and_are_logged(paths, caplog):
    with Path(paths["train"]).open("a") as file:
        file.write("b\tlikes\ta\n\nb\tlikes\ta\n")
    with caplog.at_level(logging.WARNING):
        task = TriplesTask(TriplesConfig(**paths), "train")
    assert len(task.learned) == 9 and "train.txt repeats 2 triples, which count once" in caplog.text


def test_the_frequency_baseline_of_umls(tmp_path):
    """How often the relation has an entity in training: filtered MRR 0.661, as another program finds it."""
    archive = Path(os.environ.get("MEMGPT_DATA") or "") / "kg" / "umls.tar.gz"
    if not archive.is_file():
        pytest.skip("MEMGPT_DATA does not name a folder with kg/umls.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(tmp_path, filter="data")
    paths = {split: str(tmp_path / f"{split}.txt") for split in ("train", "valid", "test")}
    task = TriplesTask(TriplesConfig(**paths), "test")
    assert (task.config.num_ids, len(task.queries)) == (227, 1322)
    counts = np.zeros((task.config.num_ids, task.config.num_entities))
    np.add.at(counts, (task.learned[:, 1], task.learned[:, 2]), 1)
    scores, answers = counts[task.queries[:, 1]], task.queries[:, 2]
    right = np.zeros(scores.shape, bool)
    for row, (entity, relation, answer) in enumerate(task.queries.tolist()):
        right[row, task.answers(entity, relation)] = True
        right[row, answer] = False
    ranks = ranks_of(scores, answers, right)
    assert round(link_metrics([ranks])["mrr"], 3) == 0.661
