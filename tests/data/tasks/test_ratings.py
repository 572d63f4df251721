"""Histories of ratings: splits, tokens and targets by hand, rankings against loops, bad files, and real data."""

import os
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.checkpoint import load_run
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, TrainingConfig
from memgpt_jax.data.examples.ratings import FIRST_ITEM, RARE, START
from memgpt_jax.data.tasks.ratings import RatingsConfig, RatingsTask
from memgpt_jax.evaluation.metrics.ranking import ranking_metrics, ranks_of
from memgpt_jax.evaluation.ranking import evaluate_ranking
from memgpt_jax.models import functional
from tests.laws.models import random_params

HEADER = "userId,movieId,rating,timestamp\n"


def written(path, users):
    """A file of `users`: for each a list of (item, rating) in order of time, which is not the order of the lines."""
    lines = [
        f"{user},{item},{rating},{1000 + time}\n"
        for user, rated in users.items()
        for time, (item, rating) in reversed([*enumerate(rated)])
    ]
    path.write_text(HEADER + "".join(lines))
    return str(path)


@pytest.fixture
def small(tmp_path):
    """Nine users; the films 10 and 9 have two ratings or more, the film 99 only one."""
    users = {
        user: [(10, 4.0), (9, 2.0), (20 + user % 2, 3.5), (30, 1.0), (31, 5.0), (32, 0.5)] for user in range(1, 10)
    }
    users[2] = [(99, 5.0), *users[2]]
    users[11] = [(10, 3.0)]  # too few
    return written(tmp_path / "ratings.csv", users)


def config_of(path, **options):
    return RatingsConfig(path=path, **{"min_ratings": 2, "held_out": 2.0, "valid_every": 4} | options)


def test_next_items_by_hand(small):
    train, valid, test = (RatingsTask(config_of(small), split) for split in ("train", "valid", "test"))
    config = train.config
    assert config.num_items == 7 and config.levels == (0.5, 1, 2, 3, 3.5, 4, 5)
    ids = {item: FIRST_ITEM + place for place, item in enumerate((9, 10, 20, 21, 30, 31, 32))}  # by number, not by text
    assert config.num_ids == FIRST_ITEM + 7
    second = [ids[10], ids[9], ids[20], ids[30], ids[31], ids[32]]  # the film 99 is left out
    assert test.documents[1]["tokens"].tolist() == [START, *second[:-1]]
    assert test.places[1].tolist() == [4, 5] and test.targets[1].tolist() == second[4:]
    assert len(test.histories) == len(train.histories) == 9 and [h.user for h in valid.histories] == ["4", "8"]
    assert valid.places[0].tolist() == [2, 3] and valid.targets[0].tolist() == second[2:4]
    assert [len(places) for places in train.places] == [4, 4, 4, 2, 4, 4, 4, 2, 4]
    row = train.row(1, 0, 3)
    assert row["tokens"].tolist() == [START, *second[:2]] and row["targets"].tolist() == second[:3]
    assert train.row(1, 3, 3)["tokens"].tolist() == [second[2]]
    learned = [value for h in train.histories for value in h.ratings[h.asked]]
    assert config.mean == pytest.approx(np.mean(learned)) and config.std == pytest.approx(np.std(learned))


def items_file(tmp_path, text="movieId,title,genres\n"):
    lines = [f"{item},Film {item} ({1990 + item}),{'Comedy|Crime' if item % 2 else 'Drama'}\n" for item in range(9, 33)]
    path = tmp_path / "items.csv"
    path.write_text(text + "".join(lines))
    return str(path)


def test_texts_of_items(small, tmp_path):
    """In the order of the ids; the start, rare items and items without a record have none."""
    found = config_of(small, items_path=items_file(tmp_path)).descriptions()
    genres = ("", "", "Comedy|Crime", "Drama", "Drama", "Comedy|Crime", "Drama", "Comedy|Crime", "Drama")
    everybody, even, odd = "0 1 2 3 4 5 6 7 8", "1 5", "0 2 4 6 8"  # of users 4 and 8, two films more are validation
    assert found.texts == (genres, ("", "", everybody, everybody, even, odd, "0 1 2 4 5 6 8", "", ""))
    np.testing.assert_array_equal(found.numbers, [np.nan, np.nan, 1999, 2000, 2010, 2011, 2020, 2021, 2022])
    (tmp_path / "items.csv").write_text("movieId,title,genres\n10,Ten,Drama\n")
    config = config_of(small, items_path=str(tmp_path / "items.csv"), text_columns=["genres", "title"])
    assert config.descriptions().texts[0][FIRST_ITEM:][:3] == ("", "Drama Ten", "")
    assert np.isnan(config.descriptions().numbers).all() and config_of(small).descriptions() is None


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("movieId,title,genres\n9,Again,Drama\n", {}, "items.csv, line 3: a second record of the item '9'"),
        ("item,title,genres\n", {}, "no column 'movieId'"),
        ("movieId,title,genres\n", {"text_columns": ("plot",)}, "no column 'plot'"),
        ("movieId,title,genres\n", {"number_column": "year"}, "no column 'year'"),
        ("", {"items_path": "none.csv"}, "data.items_path: there is no file 'none.csv'"),
    ],
)
def test_bad_files_of_items(small, tmp_path, text, options, message):
    config = config_of(small, **{"items_path": items_file(tmp_path, text)} | options)
    with pytest.raises(ValueError, match=re.escape(message)):
        config.descriptions()


@pytest.mark.slow
def test_training_begins_with_the_texts_of_items(small, tmp_path):
    """Films of one genre are nearer to each other than to others."""
    config = ExperimentConfig(
        model=mg.ModelConfig(vocab_size=9, d_model=64, num_layers=1, window_size=8, segment_length=8),
        data=config_of(small, items_path=items_file(tmp_path)),
        training=TrainingConfig(steps=1, batch_size=2, sequence_length=8, carry_state=False),
        evaluation=EvaluationConfig(batch_size=2, chunk_length=8),
    )
    mg.train(config, tmp_path / "run")
    vectors = np.asarray(load_run(tmp_path / "run", step=0).params["embedding"])[FIRST_ITEM:]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines, odd = vectors @ vectors.T, np.array([9, 10, 20, 21, 30, 31, 32]) % 2
    same = (odd[:, None] == odd) & ~np.eye(7, dtype=bool)
    assert cosines[same].mean() > cosines[odd[:, None] != odd].mean() + 0.1  # 0.19 expected


def test_ratings_by_hand(small):
    task = RatingsTask(config_of(small, ask="rating", held_out=0.3), "test")
    level = {value: task.items.stop + place for place, value in enumerate(task.config.levels)}
    tokens = task.documents[1]["tokens"]  # seven films, of which two are asked for
    assert tokens[0] == RARE and tokens[1] == level[5.0] and len(tokens) == 13
    assert tokens[3] == level[4.0] and tokens[5] == level[2.0]
    assert task.places[1].tolist() == [10, 12] and task.targets[1].tolist() == [5.0, 0.5]
    assert task.targets[1].dtype == np.float32 and task.config.num_ids == FIRST_ITEM + 7 + 7
    batch = RatingsTask(task.config, "train").batch(0, 2, 16)
    assert batch.targets["numbers"].dtype == np.float32
    weighted = batch.weights["numbers"] > 0
    items = (batch.inputs["tokens"] >= RARE) & (batch.inputs["tokens"] < task.items.stop)
    assert (items == weighted).all() and (batch.targets["numbers"][weighted] >= 0.5).all()


def test_a_packed_history_has_its_next_items_as_targets(small):
    batch = RatingsTask(config_of(small), "train").batch(0, 2, 16)
    tokens, targets, weights = batch.inputs["tokens"], batch.targets["tokens"], batch.weights["tokens"]
    starts = batch.inputs["reset"] & (weights > 0)
    assert (tokens[starts] == START).all() and starts.sum() >= 4
    inside = (weights[:, :-1] > 0) & (weights[:, 1:] > 0) & ~batch.inputs["reset"][:, 1:]
    assert inside.any() and (targets[:, :-1][inside] == tokens[:, 1:][inside]).all()


@pytest.mark.parametrize(("ask", "head"), [("next", "tokens"), ("rating", "numbers")])
def test_dropped_items_leave_the_history_of_the_others(small, ask, head):
    """Of each history an ordered part is left, other ones in another epoch, and what is kept keeps its target."""
    task = RatingsTask(config_of(small, ask=ask, drop=0.5), "train")
    whole, stride = task.row(1, 0, 16), 2 if ask == "rating" else 1
    generators = [np.random.default_rng(seed) for seed in range(40)]
    rows = [task.dropped(whole, rng) for rng in generators]
    known = dict(zip(whole["tokens"].tolist(), whole["targets"].tolist(), strict=True))
    for row in rows:
        tokens, targets = row["tokens"].tolist(), row["targets"].tolist()
        if ask == "next":
            assert tokens == [START, *targets[:-1]]
            assert targets == [item for item in whole["targets"].tolist() if item in targets] and targets
        else:
            assert all(known[token] == target for token, target in zip(tokens, targets, strict=True)) and tokens
            assert row["weights"].tolist() == [1 - place % stride for place in range(len(tokens))]
    kept = np.mean([np.ceil(len(row["tokens"]) / stride) for row in rows]) / np.ceil(len(whole["tokens"]) / stride)
    assert 0.35 < kept < 0.65
    all_items = RatingsTask(config_of(small, ask=ask), "train")
    one, same, full = (next(iter(each.batches(0, 2, 16))).targets[head] for each in (task, task, all_items))
    assert (one == same).all() and (one != full).any()
    none = RatingsTask(config_of(small, ask=ask, drop=0.999), "train")
    assert len(none.dropped(whole, generators[0])["tokens"]) in (stride, stride - 1)


def test_ranks_equal_loops():
    rng = np.random.default_rng(0)
    scores, targets = rng.integers(6, size=(20, 15)).astype(np.float32), rng.integers(15, size=20)  # many ties
    excluded = rng.random(scores.shape) < 0.3
    excluded[np.arange(20), targets] = False
    found = ranks_of(scores, targets, excluded)
    for row, target in enumerate(targets):
        others = [scores[row, i] for i in range(15) if i != target and not excluded[row, i]]
        expected = 1 + sum(other > scores[row, target] for other in others)
        assert found[row] == expected + sum(other == scores[row, target] for other in others) / 2


def test_metrics_of_rankings_by_hand():
    found = ranking_metrics([np.array([1.0, 11.0]), np.array([3.0, 10.0])])
    assert found["hit_rate_10"] == 0.75
    assert found["ndcg_10"] == pytest.approx((1 + 0 + 0.5 + 1 / np.log2(11)) / 4)
    assert found["mrr"] == pytest.approx((1 + 1 / 11 + 1 / 3 + 1 / 10) / 4)
    assert found["hit_rate_10_interval"] == [0.5, 1.0]


def experiment(path, chunk, memory):
    model = mg.ModelConfig(
        vocab_size=16, d_model=8, num_layers=1, num_heads=2, window_size=2, segment_length=2, memory=memory
    )
    return ExperimentConfig(
        model=model,
        data=config_of(path),
        training=TrainingConfig(sequence_length=16),
        evaluation=EvaluationConfig(split="test", batch_size=4, chunk_length=chunk, max_documents=None),
    )


def test_a_ranking_does_not_depend_on_calls_and_leaves_out_what_was_seen(small):
    memory = mg.KVMemoryConfig(memory_size=8, head_dim=4)
    whole, parts = experiment(small, 16, memory), experiment(small, 2, memory)
    task = RatingsTask(whole.data, "test")
    params = random_params(whole.model)
    one, other = (evaluate_ranking(config, params, task) for config in (whole, parts))
    assert one["predictions"] == 18 and one["users"] == 9
    for name in ("loss", "hit_rate_10", "ndcg_10", "mrr"):
        assert one[name] == pytest.approx(other[name], rel=1e-4)
    # Of seven films, a user has had four, then five: the rank is at most 3, then 2.
    assert one["hit_rate_10"] == 1 and one["mrr"] >= (1 / 3 + 1 / 2) / 2


def test_ratings_are_evaluated_in_their_unit_whatever_the_calls(small):
    backbone = mg.ModelConfig(
        vocab_size=20, d_model=8, num_layers=1, num_heads=2, window_size=2, segment_length=2, memory=mg.NoMemoryConfig()
    )
    config = ExperimentConfig(
        model=mg.HeadedConfig(backbone=backbone, head=mg.ScalarHeadConfig(pool="none", mean=3.0, std=1.5)),
        data=config_of(small, ask="rating", held_out=0.3),
        training=TrainingConfig(sequence_length=16),
        evaluation=EvaluationConfig(split="test", batch_size=4, chunk_length=4, max_documents=None),
    )
    model, task = functional(config.model), RatingsTask(config.data, "test")
    params = random_params(model.config)
    found = mg.evaluate(config, params)
    apply, errors = jax.jit(model.apply), []
    for document, places, ratings in zip(task.documents, task.places, task.targets, strict=True):
        tokens = np.zeros((1, 14), np.int32)
        tokens[0, : len(document["tokens"])] = document["tokens"]
        outputs, _ = apply(params, tokens, model.init_state(1))
        errors += [*(np.asarray(outputs)[0, places, 0] - ratings)]
    assert found["numbers"] == len(errors) and found["documents"] == 9
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-4)
    assert found["mae"] == pytest.approx(np.mean(np.abs(errors)), rel=1e-4)
    assert found["loss"] == pytest.approx((found["rmse"] / 1.5) ** 2, rel=1e-4)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (HEADER + "1,2,good,5\n", {}, r"ratings.csv, line 2: column 'rating' must be a finite number, it is 'good'"),
        (HEADER + "1,2,3,\n", {}, "line 2: column 'timestamp' must be a finite number, it is ''"),
        (HEADER + ",2,3,4\n", {}, "line 2: column 'userId' must be a label, it is empty"),
        (HEADER + "1,2,3,4\n1,2,5,6\n", {}, "line 3: the user rates the item a second time, after .*line 2"),
        ("user,movieId,rating,timestamp\n1,2,3,4\n", {}, "line 2 has no column 'userId'"),
        (HEADER, {}, "has no records"),
        (HEADER + "1,2,3,4\n", {}, "holds no user with twice the items of data.held_out=2.0"),
        (HEADER, {"held_out": 1.5}, "data.held_out must be a whole number from 1 on or between 0 and 1, got 1.5"),
        (HEADER, {"held_out": 0.0}, "data.held_out must be a whole number from 1 on or between 0 and 1, got 0.0"),
        (HEADER, {"held_out": -0.5}, "data.held_out must be a whole number from 1 on or between 0 and 1, got -0.5"),
        (HEADER, {"ask": "user"}, "ask"),
        (HEADER, {"valid_every": 1}, "data.valid_every must be at least 2"),
        (HEADER, {"drop": 1.0}, r"data.drop must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_files_are_named(tmp_path, content, options, message):
    path = tmp_path / "ratings.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        RatingsTask(config_of(str(path), **options), "train")


def test_missing_files_and_distinct_ratings_without_end_are_named(tmp_path, small):
    with pytest.raises(ValueError, match=r"data\.path must name a file"):
        RatingsTask(RatingsConfig(), "train")
    with pytest.raises(ValueError, match="there is no file"):
        RatingsTask(RatingsConfig(path=str(tmp_path / "none.csv")), "train")
    with pytest.raises(ValueError, match="asks for nothing"):
        RatingsTask(config_of(small, valid_every=100), "valid")
    many = written(tmp_path / "many.csv", {1: [(item, item / 7) for item in range(150)]})
    with pytest.raises(ValueError, match="holds 150 distinct ratings"):
        RatingsTask(config_of(many), "train")


def test_given_statistics_and_levels_are_kept(small):
    levels = (0.5, 1.0, 2.0, 3.0, 3.5, 4.0, 5.0, 6.0)
    config = config_of(small, ask="rating", mean=2.0, levels=levels).completed()
    assert (config.mean, config.levels) == (2.0, levels) and config.std and config.num_items == 7
    again = config_of(small, ask="rating", num_items=9, mean=2.0).completed()
    assert again.num_items == 9 and again.levels == levels[:-1] and again.std == config.std
    for wrong, message in (
        ({"num_items": 5}, "holds 7 items"),
        ({"levels": (1.0,)}, r"holds the ratings \[0.5, 2.0"),
        ({"std": 0.0}, "std"),
    ):
        with pytest.raises(ValueError, match=message):
            config_of(small, ask="rating", **wrong).completed()


def test_a_model_that_would_read_the_answer_is_refused():
    sizes = {"vocab_size": 64, "memory": mg.NoMemoryConfig()}
    head = mg.ScalarHeadConfig(pool="none")
    data = RatingsConfig(path="ratings.csv", ask="rating")
    ExperimentConfig(data=data, model=mg.HeadedConfig(backbone=mg.ModelConfig(**sizes), head=head))
    odd = {"training": mg.TrainingConfig(sequence_length=129, carry_state=False)}
    odd |= {"evaluation": mg.EvaluationConfig(chunk_length=129)}
    thirds = mg.HeadedConfig(backbone=mg.ModelConfig(**sizes, segment_length=3), head=head)
    with pytest.raises(ValueError, match=r"training.sequence_length=129 must be even"):
        ExperimentConfig(data=data, model=thirds, **odd)
    encoder = mg.EncoderConfig(**sizes, heads=())
    both = mg.Seq2SeqConfig(encoder=encoder, decoder=mg.ModelConfig(**sizes, source_length=64))
    for backbone in (encoder, both):
        with pytest.raises(ValueError, match=r"needs a decoder: this .* reads the rating after its item"):
            ExperimentConfig(data=data, model=mg.HeadedConfig(backbone=backbone, head=head))
    for model in (encoder, mg.HeadedConfig(backbone=mg.ModelConfig(**sizes), head=head)):
        with pytest.raises(ValueError, match="needs a"):
            ExperimentConfig(data=RatingsConfig(path="ratings.csv"), model=model)


@pytest.mark.slow
def test_the_split_of_movielens():
    folder = os.environ.get("MEMGPT_DATA")
    path = Path(folder or "") / "recommendation" / "ml-latest-small" / "ratings.csv.gz"
    if not path.is_file():
        pytest.skip("MEMGPT_DATA does not name a folder with recommendation/ml-latest-small")
    task = RatingsTask(RatingsConfig(path=str(path)), "test")
    assert len(task.histories) == 602 and sum(map(len, task.places)) == 6020 and task.config.num_items == 3650
    # Popularity in what comes before the last ten films: HR@10 0.0472, NDCG@10 0.0244, MRR 0.0243.
    counts = np.zeros(task.items.stop, np.float32)
    for history in task.histories:
        np.add.at(counts, history.items[: history.asked[0]], 1)
    ranks = []
    for history in task.histories:
        seen = np.zeros((len(history.asked), len(counts)), bool)
        for row, place in enumerate(history.asked):
            seen[row, history.items[:place]] = True
        scores = np.broadcast_to(counts, seen.shape)[:, task.items]
        ranks.append(ranks_of(scores, history.items[history.asked] - task.items.start, seen[:, task.items]))
    found = ranking_metrics(ranks)
    assert [round(found[name], 4) for name in ("hit_rate_10", "ndcg_10", "mrr")] == [0.0472, 0.0244, 0.0243]
    assert sum(map(len, RatingsTask(RatingsConfig(path=str(path), ask="rating", held_out=0.1), "test").places)) == 9818
