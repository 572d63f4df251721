"""`memgpt-jax predict`: next tokens, masked tokens and answers, checked against the models themselves."""

import json

import jax
import numpy as np
import pytest

from memgpt_jax import models
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig
from memgpt_jax.data import make_task
from memgpt_jax.data.objectives.masked import MaskedConfig
from memgpt_jax.data.tasks.babi import BabiConfig
from memgpt_jax.data.tasks.copy import CopyConfig
from memgpt_jax.data.tasks.document_questions import DocumentQuestionsConfig
from memgpt_jax.data.tasks.graph_questions import GraphQuestionsConfig
from memgpt_jax.data.tasks.labelled_text import LabelledTextConfig
from memgpt_jax.data.tasks.pictures import PicturesConfig
from memgpt_jax.data.tasks.preferences import PreferencesConfig
from memgpt_jax.data.tasks.questions import QuestionsConfig
from memgpt_jax.data.tasks.retrieval import RetrievalConfig
from memgpt_jax.data.tasks.scored_text import ScoredTextConfig
from memgpt_jax.data.tasks.shapes import ShapesConfig
from memgpt_jax.data.tasks.tagged_text import TaggedTextConfig
from memgpt_jax.data.tasks.text_pairs import TextPairsConfig
from memgpt_jax.evaluation import evaluate
from memgpt_jax.models.heads import LabelHeadConfig, VectorHeadConfig
from memgpt_jax.pipelines import pipeline
from memgpt_jax.studies import entry
from memgpt_jax.studies.commands import predict
from memgpt_jax.studies.predictions import task_answers
from memgpt_jax.studies.runs import reopen
from tests.laws.runs import untrained_run

SIZES = {"d_model": 16, "num_layers": 1, "num_heads": 2, "segment_length": 8}


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """A function that makes a tiny run of a kind, once."""
    folder = tmp_path_factory.mktemp("predict")
    for split in ("train", "valid", "test"):
        (folder / "corpus" / split).mkdir(parents=True)
        (folder / "corpus" / split / "a.txt").write_text("one two three four five. " * 40)
    memory = KVMemoryConfig(memory_size=8, head_dim=8)
    text = {"corpus": "folder", "path": str(folder / "corpus"), "tokenizer": "byte", "cache_dir": str(folder / "cache")}
    copy, babi, shapes = CopyConfig(num_symbols=4, max_length=3), folder / "stories", ShapesConfig()
    babi.mkdir()
    for split in ("train", "test"):
        stories = [f"1 Mary {room}.\n2 Where?\t{room}\t1\n" for room in ("hall", "attic", "garden")]
        (babi / f"qa1_{split}.txt").write_text("".join(stories * 4))
    texts = {"documents": folder / "texts.jsonl", "judgements": folder / "judgements.txt"}
    texts["documents"].write_text("".join(f'{{"id": "{i}", "text": "one", "other": "{i}"}}\n' for i in range(12)))
    texts["judgements"].write_text("".join(f"{i} 0 {i} 1\n" for i in range(12)))
    files = {"train": str(folder / "texts.jsonl"), "tokenizer": "byte", "cache_dir": str(folder / "cache")}
    decoder = {"window_size": 8, "memory": memory, **SIZES}
    kinds = {
        "babi": (
            ModelConfig(vocab_size=32, **decoder),
            BabiConfig(path=str(babi), tasks=(1,), num_words=32, valid_share=0.5),
        ),
        "shapes": (
            HeadedConfig(
                backbone=EncoderConfig(
                    vocab_size=shapes.num_ids,
                    features=shapes.features_config,
                    memory=NoMemoryConfig(),
                    heads=(),
                    **SIZES | {"segment_length": 9},
                ),
                head=LabelHeadConfig(pool="mean"),
            ),
            shapes,
        ),
        "preferences": (
            ModelConfig(vocab_size=257, **decoder),
            PreferencesConfig(first_column="text", second_column="other", **files),
        ),
        "vectors": (
            HeadedConfig(backbone=ModelConfig(vocab_size=257, **decoder), head=VectorHeadConfig(pool="mean")),
            RetrievalConfig(**files, **{name: str(path) for name, path in texts.items()}),
        ),
        "labels": (
            HeadedConfig(
                backbone=ModelConfig(vocab_size=257, **decoder), head=LabelHeadConfig(output_names=("no", "yes"))
            ),
            LabelledTextConfig(text_column="ask", more_columns=("body",), labels=("no", "yes"), **files),
        ),
        "text": (ModelConfig(vocab_size=257, window_size=8, memory=memory, **SIZES), TextConfig(**text)),
        "masked": (
            EncoderConfig(vocab_size=260, memory=memory, **SIZES),
            TextConfig(objective=MaskedConfig(), **text),
        ),
        "copy": (ModelConfig(vocab_size=copy.num_ids, window_size=8, memory=memory, **SIZES), copy),
    }

    def make(kind):
        workdir = folder / kind
        if not workdir.exists():
            model, data = kinds[kind]
            config = ExperimentConfig(
                model=model,
                data=data,
                optimizer=OptimizerConfig(warmup_steps=1),
                training=TrainingConfig(steps=2, batch_size=2, sequence_length=16, carry_state=False),
                evaluation=EvaluationConfig(
                    max_documents=1, max_tokens=16, batch_size=2, num_batches=1, chunk_length=8
                ),
            )
            untrained_run(config, workdir)
        return workdir

    return make


def objects(printed: str) -> list[dict]:
    return [json.loads(line) for line in printed.splitlines()]


def logits_of(model, params, tokens: np.ndarray) -> np.ndarray:
    """Those of one row."""
    return np.asarray(jax.jit(models.functional(model).apply)(params, tokens)[0][0])


def expected(logits: np.ndarray, top: int) -> list[tuple[int, float]]:
    shifted = np.exp(logits[:257] - np.max(logits[:257]))
    probabilities = shifted / np.sum(shifted)
    return [(int(token), float(probabilities[token])) for token in np.argsort(-probabilities, kind="stable")[:top]]


def test_next_tokens_are_those_of_the_model(run_of, memgpt, tmp_path):
    workdir, text = run_of("text"), "two three four five"  # longer than two segments
    (tmp_path / "more.txt").write_text("one\n")
    words = ["--text", text, "--input", tmp_path / "more.txt", "--top", 3]
    first, second = objects(memgpt("predict", workdir, *words))
    config, params, tokenizer = reopen(workdir)[:3]
    tokens = np.array([[tokenizer.start_id, *tokenizer.encode(text)]], np.int32)
    logits = logits_of(config.model, params, tokens)
    found = [(row["token"], row["probability"]) for row in first["predictions"]]
    assert [token for token, _ in found] == [token for token, _ in expected(logits[-1], 3)]
    np.testing.assert_allclose([p for _, p in found], [p for _, p in expected(logits[-1], 3)], rtol=1e-4)
    assert (first["tokens"], second["text"], second["tokens"]) == (tokens.size, "one", 4)


@pytest.mark.slow
def test_masked_tokens_are_predicted_in_their_places(run_of, memgpt, tmp_path):
    workdir = run_of("masked")
    memgpt("predict", workdir, "--text", "o<mask>e t<mask>", "--top", 2, "--output", tmp_path / "out.jsonl")
    (found,) = objects((tmp_path / "out.jsonl").read_text())
    config, params, tokenizer = reopen(workdir)[:3]
    mask = 257  # the first id after those of the byte tokenizer
    tokens = np.array([[tokenizer.start_id, *b"o", mask, *b"e t", mask]], np.int32)
    logits = logits_of(config.model, params, tokens)
    for place, rows in zip((2, 6), found["predictions"], strict=True):
        assert [row["token"] for row in rows] == [token for token, _ in expected(logits[place], 2)]
    assert "the text has no <mask>" in memgpt("predict", workdir, "--text", "one", code=2)


@pytest.mark.slow
def test_answers_of_a_task_agree_with_its_accuracy(run_of, memgpt):
    workdir = run_of("copy")
    rows = objects(memgpt("predict", workdir, "--rows", 2))
    answers = [answer for row in rows for answer in row["answers"]]
    evaluation = evaluate(*reopen(workdir)[:2])
    assert len(answers) == evaluation["answers"] and [row["row"] for row in rows] == [0, 1]
    assert sum(answer["correct"] for answer in answers) / len(answers) == pytest.approx(evaluation["accuracy"])
    assert len(objects(memgpt("predict", workdir, "--rows", 1))) == 1


@pytest.mark.slow
def test_labels_of_rows_with_features_are_those_that_evaluate_counts(run_of, memgpt):
    rows = objects(memgpt("predict", run_of("shapes"), "--rows", 2))
    evaluation = evaluate(*reopen(run_of("shapes"))[:2])
    right = [answer["correct"] for row in rows for answer in row["answers"]]
    assert len(right) == evaluation["answers"] == 2 and np.mean(right) == pytest.approx(evaluation["accuracy"])


def test_each_document_of_a_row_is_answered_from_an_empty_memory(run_of):
    config, params, _ = reopen(run_of("babi"))[:3]
    params = jax.tree.map(lambda leaf: 3 * leaf, params)  # so that answers depend on what was read before
    batch = next(make_task(config.data, "valid").held_out(0, 2, 16, 1))
    found = next(task_answers(config, params, None, 1))["answers"]
    starts = np.flatnonzero(batch.inputs["reset"][0])
    assert len(starts) == len(found) >= 2
    for answer in found:
        first = max(start for start in starts if start < answer["position"])
        logits = logits_of(config.model, params, batch.inputs["tokens"][:1, first : answer["position"]])
        assert answer["predicted"] == [int(logits[-1].argmax())]


@pytest.mark.slow
def test_vectors_are_those_of_the_pipeline(run_of, memgpt):
    (found,) = objects(memgpt("predict", run_of("vectors"), "--text", "two three"))
    np.testing.assert_allclose(found["vector"], pipeline(run_of("vectors"))("two three"), rtol=1e-6)
    vectors = pipeline(run_of("vectors"), pool="none").record("two three")["vectors"]
    assert np.shape(vectors) == (10, 16)


def test_errors_are_one_line(run_of, memgpt, tmp_path):
    assert "--text or --input is missing" in memgpt("predict", run_of("text"), code=2)
    for kind in ("CopyConfig", "ShapesConfig"):
        message = f"a run on {kind} answers rows of its held-out set: leave out --text"
        assert message in memgpt("predict", run_of(kind.removesuffix("Config").lower()), "--text", "one", code=2)
    for words in ([], ["--text", "one"]):
        message = "predict does not support runs on PreferencesConfig: memgpt-jax evaluate measures them"
        assert message in memgpt("predict", run_of("preferences"), *words, code=2)
    message = "was trained on CopyConfig; generate continues texts with runs on TextConfig: use memgpt-jax predict"
    assert message in memgpt("generate", run_of("copy"), code=2)
    assert "cannot be read" in memgpt("predict", run_of("text"), "--input", tmp_path / "nowhere", code=2)
    assert "top must be at least 1" in memgpt("predict", run_of("text"), "--top", 0, code=2)
    (tmp_path / "a.txt").write_text("one\n")
    for words in (["--text", "one"], ["--text", "one", "--input", tmp_path / "a.txt"]):
        assert "--column needs" in memgpt("predict", run_of("text"), *words, "--column", "review", code=2)
    assert "--rows is for runs on" in memgpt("predict", run_of("text"), "--text", "one", "--rows", 3, code=2)


def test_lines_end_at_line_feeds_and_json_is_refused(tmp_path):
    columns = predict.Columns(("text",), None)
    (tmp_path / "a.txt").write_bytes("\ufeffone\rtwo\r\nthree\u2028four\n".encode())
    lines = predict.input_lines(predict.Arguments(workdir=tmp_path, input=tmp_path / "a.txt"), columns)
    assert [line.text for line in lines] == ["one\rtwo", "three\u2028four"]
    (tmp_path / "a.json").write_text('[{"text": "one"}]')
    with pytest.raises(ValueError, match=r"a.json must be a text file with one text per line, or a .jsonl file"):
        predict.input_lines(predict.Arguments(workdir=tmp_path, input=tmp_path / "a.json"), columns)


def test_a_file_of_another_command_is_not_changed(run_of, memgpt, tmp_path):
    output = tmp_path / "notes.txt"
    for content in (b"no line end", b'[{"line": 1}]', b'{"lines": 3}', b"\xff\xfe", b'{"line": 1, "text": "a"}\nmine'):
        output.write_bytes(content)
        words = ["--text", "one", "--output", output]
        assert "is not the output of this command" in memgpt("predict", run_of("text"), *words, code=2)
        assert output.read_bytes() == content


def test_an_output_is_continued_for_the_same_model_and_kind_of_input_alone(run_of, memgpt, tmp_path):
    output, workdir = tmp_path / "out.jsonl", run_of("copy")
    memgpt("predict", workdir, "--rows", 2, "--output", output)
    written = output.read_bytes()
    assert [row["row"] for row in objects(written.decode())] == [0, 1]
    output.write_bytes(written[:20])  # killed within the first line
    memgpt("predict", workdir, "--rows", 2, "--output", output)
    assert output.read_bytes() == written
    config = reopen(workdir).config
    params = jax.tree.map(lambda leaf: leaf + 1, reopen(workdir).params)
    untrained_run(config, tmp_path / "other", params)
    for other in (tmp_path / "other", run_of("text")):
        words = ["--rows", 3] if other.name == "other" else ["--text", "one"]
        assert "of another run or step" in memgpt("predict", other, *words, "--output", output, code=2)
    assert output.read_bytes() == written

    output.unlink()
    text = run_of("text")
    (tmp_path / "in.txt").write_text("é\nü\n")
    memgpt("predict", text, "--input", tmp_path / "in.txt", "--output", output)
    written = output.read_bytes()
    output.write_bytes(written[: written.rfind("ü".encode()) + 1])  # killed within a character
    memgpt("predict", text, "--input", tmp_path / "in.txt", "--output", output)
    assert output.read_bytes() == written


def test_a_line_that_is_nested_too_deeply_is_skipped(run_of, memgpt, tmp_path):
    (tmp_path / "in.jsonl").write_text("[" * 200_000 + '\n{"text": "one"}\n')
    memgpt("predict", run_of("text"), "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl")
    assert [row["line"] for row in objects((tmp_path / "out.jsonl").read_text())] == [2]


def write_objects(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_objects_are_read_as_the_task_of_the_run_reads_them(run_of, memgpt, tmp_path):
    rows = [{"ask": "is it?", "body": ["one", "two"], "text": "no"}, {"ask": "is it?"}, {"ask": "a", "body": "b"}]
    words = [run_of("labels"), "--input", write_objects(tmp_path / "in.jsonl", rows)]
    found = objects(memgpt("predict", *words))
    assert [(row["line"], row["text"]) for row in found] == [(1, "is it? one two"), (3, "a b")]
    expected = pipeline(run_of("labels"))("is it? one two", top_k=None)
    assert [label["label"] for label in found[0]["labels"]] == [label["label"] for label in expected]
    output = ["--output", tmp_path / "out.jsonl"]
    for _ in range(2):  # started again, it finds the joined texts
        memgpt("predict", *words, *output)
    assert [row["text"] for row in objects((tmp_path / "out.jsonl").read_text())] == ["is it? one two", "a b"]
    assert [row["text"] for row in objects(memgpt("predict", *words, "--column", "ask"))] == ["is it?", "is it?", "a"]


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        (TextConfig(corpus="folder", path="a", text_column="body"), ("body",)),
        (ScoredTextConfig(text_column="review"), ("review",)),
        (TextPairsConfig(source_column="en", target_column="de"), ("en",)),
        (TextPairsConfig(form="triples"), ("text",)),
        (TaggedTextConfig(), ("text",)),
        (GraphQuestionsConfig(), ("question",)),
        (PicturesConfig(path_column="file"), ("file",)),
        (QuestionsConfig(text_column="story", question_column="ask"), ("story",)),
        (DocumentQuestionsConfig(), ("context",)),
    ],
)
def test_columns_are_those_of_the_task(task, columns):
    assert task.input_columns == columns


def test_lines_that_are_skipped_are_counted_and_one_must_be_used(run_of, memgpt, tmp_path, capsys):
    rows = write_objects(tmp_path / "in.jsonl", [{"review": "one"}, {"review": None}, {"review": ""}])
    words = [run_of("text"), "--input", rows, "--output", tmp_path / "out.jsonl"]
    message = "none of the 3 lines can be used: their text is read from 'text', --column names another field"
    assert message in memgpt("predict", *words, code=2)
    for _ in range(2):
        assert not entry.main(["predict", *map(str, words), "--column", "review"])
        assert capsys.readouterr().err.endswith("lines skipped: 2 of 3\n")


@pytest.mark.parametrize(
    ("kind", "fields", "more"), [("labels", {"ask": "a", "body": "b"}, 0), ("text", {"text": "one"}, 2)]
)
def test_an_output_with_another_number_of_results_is_not_continued(run_of, memgpt, tmp_path, kind, fields, more):
    """Of two labels, 3 results are as many as 5."""
    output = tmp_path / "out.jsonl"
    words = [run_of(kind), "--input", write_objects(tmp_path / "in.jsonl", [fields] * 2), "--output", output, "--top"]
    message = "the output holds lines of another --top, 1: give --top 1, or choose another file"
    memgpt("predict", *words, 1)
    written = output.read_bytes()
    assert message in memgpt("predict", *words, 3, code=2) and output.read_bytes() == written
    output.unlink()
    memgpt("predict", *words, 3)
    assert "lines of another --top" in memgpt("predict", *words, 1, code=2)
    memgpt("predict", *words, 5, code=more)
