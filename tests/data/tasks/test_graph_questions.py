"""Questions over a graph: neighbourhoods and rows by hand, metrics of a planted model, edits, and bad files."""

import json
import logging
import shutil

import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, TrainingConfig
from memgpt_jax.data import ByteTokenizer
from memgpt_jax.data.examples.neighbourhoods import Neighbourhoods
from memgpt_jax.data.examples.triples import Graph, read_triples
from memgpt_jax.data.tasks.graph_questions import GraphQuestionsConfig, GraphQuestionsTask
from memgpt_jax.evaluation.graph_questions import evaluate_graph_questions
from memgpt_jax.evaluation.metrics.walks import Asked, Edited, graph_metrics
from memgpt_jax.pipelines.base import Loaded
from memgpt_jax.pipelines.graph_questions import GraphQuestions
from memgpt_jax.training.start import completed
from tests.laws.models import random_params

TRIPLES = ["sea|by|ann", "sea|by|bob", "sea|in|1950", "hat|by|ann", "hat|in|1960", "ship|by|bob", "ship|in|1950"]
"""Films, authors and years."""
QUESTIONS = ["who wrote [hat]\tann", "who wrote [sea]\tann|bob", "who wrote [ship]\tcarl|bob", "who wrote [moon]\tann"]


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "kb.txt").write_text("\n".join(TRIPLES) + "\n")
    (tmp_path / "test.txt").write_text("\n".join(QUESTIONS) + "\n")
    (tmp_path / "train.txt").write_text("".join(f"{question}\n" for question in QUESTIONS * 4))
    files = {"triples": "kb.txt", "train": "train.txt", "test": "test.txt"}
    files = {name: str(tmp_path / file) for name, file in files.items()}
    return files | {"form": "metaqa", "tokenizer": "byte", "graph_size": 8, "training_graph_size": 4}


def named(graph, around):
    names = [graph.entities[number] for number in around.entities]
    relations = ["by", "in", "~by", "~in"]
    return [(names[h], relations[r], names[t]) for h, r, t in around.triples.tolist()]


def test_neighbourhoods_by_hand(settings, tmp_path):
    triples = read_triples(tmp_path / "kb.txt")
    graph = Graph(triples)
    neighbourhoods = Neighbourhoods(graph, triples)
    hat = graph.number_of("hat")
    one = neighbourhoods.around(hat, 1, 8)
    assert one.entities[0] == hat and sorted(named(graph, one)) == [("hat", "by", "ann"), ("hat", "in", "1960")]
    # A step takes each relation with the same probability, then each triple of it: 1/2, 1/2; from 1960 back 1/2, from
    # ann back to hat 1/4 and on to sea 1/4.
    two = named(graph, neighbourhoods.around(hat, 2, 3))
    assert two[2] == ("1960", "~in", "hat") and sorted(two[:2]) == sorted(named(graph, one))
    assert sorted(named(graph, neighbourhoods.around(hat, 2, 9)))[1:3] == [("ann", "~by", "hat"), ("ann", "~by", "sea")]
    three = neighbourhoods.around(hat, 3, 100)
    assert ("sea", "by", "bob") in named(graph, three) and ("bob", "~by", "ship") not in named(graph, three)
    for most in range(1, 12):  # every head is the topic or a tail
        around = neighbourhoods.around(hat, 3, most)
        assert len(around.triples) <= most and {*around.triples[:, 0]} <= {0, *around.triples[:, 2]}
        assert around.triples[:, ::2].max() == len(around.entities) - 1 <= len(around.triples)
    assert not len(neighbourhoods.around(None, 2, 8).triples)


def test_a_run_is_resumed_after_its_files_have_moved(settings, tmp_path):
    """The digest of the questions, which a resumed run compares, does not depend on the place of the file."""
    moved = settings | {"test": str(shutil.copy(settings["test"], tmp_path / "moved.txt"))}
    first, second = (GraphQuestionsTask(GraphQuestionsConfig(**files), "test") for files in (settings, moved))
    assert first.content == second.content and first.questions != second.questions


def test_rows_by_hand(settings, caplog):
    with caplog.at_level(logging.WARNING):
        task = GraphQuestionsTask(GraphQuestionsConfig(**settings), "test")
    assert "split test: the topics of 1 questions are in no triple" in caplog.text
    assert task.config.relations == ("by", "in") and task.config.head_settings == {"hops": 1, "graph_size": 8}
    assert task.config.output_names == ("by", "in", "inverse of by", "inverse of in")
    batch = task.row(1, 16)
    assert ByteTokenizer().decode(batch.inputs["tokens"][0, 1:13].tolist()) == "who wrote []"
    assert batch.inputs["valid"][0].tolist() == [True] * 13 + [False] * 3
    around = task.around("sea", 4)
    assert batch.inputs["triples"][0].tolist() == [*around.triples.tolist(), [-1, -1, -1]]
    names = [task.graph.entities[number] for number in around.entities]
    right = [name for name, flag in zip([*names, ""], batch.targets["entities"][0, 12], strict=True) if flag]
    assert sorted(right) == ["ann", "bob"] and batch.weights["entities"].sum() == batch.weights["entities"][0, 12] == 1
    assert not task.row(3, 16).weights["entities"].any() and batch.targets["entities"].sum() == 2
    with pytest.raises(ValueError, match=r"test.txt, line 1: the question has 13 tokens, a row only 12"):
        task.row(0, 12)
    found = next(iter(task.batches(0, 4, 16)))
    shapes = task.shapes(task.config, 4, 16)
    for part, expected in zip(found[:3], shapes[:3], strict=True):
        assert {name: (array.shape, array.dtype) for name, array in part.items()} == {
            name: (array.shape, array.dtype) for name, array in expected.items()
        }


@pytest.fixture
def planted(settings):
    """A model that follows `by`, whatever it reads."""
    sizes = {"vocab_size": 257, "d_model": 8, "num_heads": 1, "segment_length": 16}
    backbone = mg.ModelConfig(**sizes, num_layers=0, memory=mg.NoMemoryConfig())
    config = ExperimentConfig(
        model=mg.HeadedConfig(backbone=backbone, head=mg.WalkHeadConfig()),
        data=GraphQuestionsConfig(**settings, edits=5),
        training=TrainingConfig(sequence_length=16),
        evaluation=EvaluationConfig(split="test", batch_size=4, max_documents=None),
    )
    config = completed(config)
    params = random_params(config.model)
    params["head"]["output"] = {"kernel": np.zeros((8, 5), np.float32), "bias": np.array([0, 9, 0, 0, 0], np.float32)}
    return config, params


def test_metrics_of_a_planted_model(planted):
    config, params = planted
    found = evaluate_graph_questions(config, params, GraphQuestionsTask(config.data, "test"))
    one, two = (n * np.exp(9) / (n * np.exp(9) + 1) for n in (1, 2))  # authors by ln e^9, the year by ln 1
    assert found["loss"] == pytest.approx(-np.mean(np.log([one, two, one])), abs=1e-4)
    assert found.pop("hits_1_interval") == [0.25, 1.0] and found.pop("mistakes") == []
    del found["loss"]
    assert found == {
        "hits_1": 0.75,  # the topic moon is unknown
        "cited": 1.0,
        "edited": 1.0,
        "kept": 1.0,
        "edits": 3,
        "questions": 4,
        "reachable": 0.75,
    }
    other = {**params, "head": {"output": params["head"]["output"] | {"bias": np.array([0, 0, 9, 0, 0], np.float32)}}}
    wrong = mg.evaluate(config, other, ByteTokenizer())
    assert (wrong["hits_1"], wrong["cited"], wrong["edited"], wrong["edits"]) == (0, None, None, 0)
    mistakes = {mistake["text"]: mistake["predicted"] for mistake in wrong["mistakes"]}
    assert mistakes == {"who wrote [hat]": "1960", "who wrote [sea]": "1950", "who wrote [ship]": "1950"}


def test_metrics_by_hand():
    right = np.array([False, True, True, False])
    tied = Asked(np.array([-9.0, -1.0, -2.0, -1.0]), right, 3)
    wrong = Asked(np.array([-9.0, -3.0, -2.0, -1.0]), right, 3)
    edits = [
        Edited(tied, 3, np.array([-9.0, -5.0, -0.5, -1.0]), np.array([-9.0, -1.0, -1.5, -1.0])),  # 2 is another answer
        Edited(tied, 0, np.array([-9.0, -5.0, -0.5, -1.0]), np.array([-9.0, -1.2, -1.0, -1.0])),
    ]
    found = graph_metrics([tied, wrong], edits)
    assert found.pop("hits_1_interval") == [0, 0.5]
    assert found == {"hits_1": 0.25, "cited": 0.0, "edited": 0.5, "kept": 0.5, "edits": 2}


def test_answers_follow_the_triples_that_a_user_changes(planted):
    config, params = planted
    ask = GraphQuestions(Loaded(config.model, params, ByteTokenizer(), 16, config.data))
    assert [(one["entity"], one["triple"]) for one in ask("who wrote [hat]")] == [
        ("ann", ("hat", "by", "ann")),
        ("1960", ("hat", "in", "1960")),
    ]
    before = ask("who wrote [sea]")
    assert {one["entity"] for one in before[:2]} == {"ann", "bob"} and before[0]["score"] == pytest.approx(
        0.5, abs=0.01
    )
    ask.remove([("hat", "by", "ann")])
    ask.add([("hat", "by", " eve "), ["moon", "by", "eve"]])
    assert ask("who wrote [hat]", top_k=1)[0]["entity"] == "eve"
    assert ask("who wrote [moon]")[0]["triple"] == ("moon", "by", "eve") and ask("who wrote [sun]") == []
    assert ask("who wrote [sea]") == before
    assert ask.record("who wrote [hat]", top=1)["predictions"] == ask("who wrote [hat]", top_k=1)
    for call, message in (
        (lambda: ask("who wrote hat"), r"the question must have one topic in brackets, \[TOPIC\], got 'who wrote hat'"),
        (lambda: ask.add([("hat", "of", "ann")]), "the model has no relation 'of'; it has by, in"),
        (lambda: ask.add([("hat", "by", "  ")]), "a triple must be three texts .*, none of them empty"),
        (lambda: ask.add([("hat", "by")]), "a triple must be three texts"),
        (lambda: ask.add([("hat", "by", 1950)]), "a triple must be three texts"),
        (lambda: ask.add(["cat"]), "a triple must be three texts .*, got 'cat'"),
        (lambda: ask.add(("hat", "by", "ann")), "a triple must be three texts .*, got 'hat'"),
        (lambda: ask.remove([("hat", "by", "ann")]), r"there is no triple \('hat', 'by', 'ann'\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "triples",
            "sea|by\n",
            r"kb.txt, line 1 must be HEAD, RELATION and TAIL, separated by tabs or by \|, got 'sea",
        ),
        ("test", "who wrote [sea]\n", "test.txt, line 1 must be a question, a tab and its answers, got 'who"),
        ("test", "who wrote sea\tann\n", "line 1: the question must have one topic in brackets"),
        ("test", "[sea] or [hat]\tann\n", "line 1: the question must have one topic in brackets"),
        ("test", "who wrote [sea]\t \n", "line 1: the question has no answers"),
    ],
)
def test_bad_files_are_named(settings, tmp_path, name, content, message):
    (tmp_path / settings[name].rsplit("/", 1)[1]).write_text(content)
    with pytest.raises(ValueError, match=message):
        GraphQuestionsTask(GraphQuestionsConfig(**settings), "test")


def test_settings_that_do_not_fit_are_named(settings):
    with pytest.raises(ValueError, match=r"data\.triples must name a file of triples, got None"):
        GraphQuestionsConfig().completed()
    with pytest.raises(ValueError, match=r"data\.training_graph_size=9 must be at most data\.graph_size=8"):
        GraphQuestionsConfig(**settings | {"training_graph_size": 9})
    with pytest.raises(ValueError, match=r"data\.triples has the relation 'in'; data\.relations are by"):
        GraphQuestionsTask(GraphQuestionsConfig(**settings, relations=("by",)), "test")
    with pytest.raises(ValueError, match="needs a model with the head 'entities'"):
        ExperimentConfig(data=GraphQuestionsConfig(), model=mg.HeadedConfig(head=mg.LabelHeadConfig()))


@pytest.mark.slow
def test_two_reads_are_learned_from_answers_alone(tmp_path):
    """Authors of other films of the year of a film, over a graph of 40 films: the topic itself is no answer."""
    rng = np.random.default_rng(0)
    films = {f"film{number}": (f"author{rng.integers(12)}", f"year{rng.integers(8)}") for number in range(40)}
    lines = [f"{film}|by|{author}\n{film}|in|{year}" for film, (author, year) in films.items()]
    (tmp_path / "kb.txt").write_text("\n".join(lines))
    records = []
    for film, (author, year) in films.items():
        of_author = [other for other, (name, _) in films.items() if name == author and other != film]
        of_year = [other for other, (_, when) in films.items() if when == year and other != film]
        for text, answers in (("films by the author of", of_author), ("films of the year of", of_year)):
            records += [{"question": f"{text} [{film}]", "answers": answers}] if answers else []
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    files = {"train": str(tmp_path / "train.jsonl"), "triples": str(tmp_path / "kb.txt")}
    sizes = {"vocab_size": 257, "d_model": 16, "num_layers": 1, "num_heads": 2, "segment_length": 32}
    config = ExperimentConfig(
        model=mg.HeadedConfig(
            backbone=mg.ModelConfig(**sizes, window_size=32, memory=mg.NoMemoryConfig()), head=mg.WalkHeadConfig()
        ),
        data=GraphQuestionsConfig(**files, hops=2, tokenizer="byte", graph_size=256, valid_every=5, edits=10),
        optimizer=mg.OptimizerConfig(learning_rate=1e-2),
        training=TrainingConfig(steps=150, batch_size=16, sequence_length=32, carry_state=False),
        evaluation=EvaluationConfig(max_documents=None),
    )
    mg.train(config, tmp_path / "run", print_progress=False)
    run = mg.load_run(tmp_path / "run")
    found = mg.evaluate(run.config, run.params, ByteTokenizer())
    assert found["hits_1"] > 0.9 and found["cited"] > 0.9
    ask = mg.pipeline(tmp_path / "run")
    assert ask("films of the year of [film3]")[0]["entity"] != "film3"
