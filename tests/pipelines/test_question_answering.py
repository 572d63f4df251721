"""Questions whose answers are spans: from files to answers at exact places."""

import gzip
import itertools
import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memgpt_jax as mg
from memgpt_jax.data.corpora.sources import SPLITS
from memgpt_jax.data.tasks.questions import QuestionsConfig, QuestionsTask
from memgpt_jax.data.tasks.windows import Windows, encode_text
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.evaluation.answers import SpanLogits, _joined
from memgpt_jax.evaluation.metrics.spans import exact_match, normal, span_metrics, word_f1
from memgpt_jax.pipelines import QuestionAnswering
from memgpt_jax.pipelines.base import load
from memgpt_jax.studies import entry
from tests.laws.models import random_params
from tests.laws.real_data import DATA

BYTES = ByteTokenizer()
REAL = DATA / "squad" / "squad-dev-v1.1.part.json.gz"
SIZES = {"vocab_size": 257, "d_model": 32, "num_layers": 1, "num_heads": 2, "segment_length": 32}
NAMES, PLACES = ("Ada", "Tom", "Eva", "Bob"), ("Rome", "Oslo", "Bern", "Lima", "Kiev")
ROWS = [
    {"question": "where?", "context": f"{name} is in {place}.", "answer": place, "start": len(f"{name} is in ")}
    for place in PLACES
    for name in NAMES
]


def base():
    config = mg.EncoderConfig(**SIZES, memory=mg.NoMemoryConfig(), heads=(), token_types=2)
    return mg.from_params(config, random_params(config))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A small encoder that answers where somebody is."""
    options = {"epochs": 40, "batch_size": 4, "sequence_length": 64, "learning_rate": 3e-3, "dropout": 0.0}
    return mg.finetune(
        base(),
        QuestionsConfig(question_types=True, overlap=8, valid_every=5),
        train=ROWS,
        workdir=tmp_path_factory.mktemp("places"),
        tokenizer=BYTES,
        print_progress=False,
        **options,
    )


def test_a_small_set_is_learned(places):
    found = places.evaluation
    assert found["exact_match"] == 1 and found["f1"] == 1 and found["questions"] == 4 and found["mistakes"] == []
    head = mg.load_run(places.workdir).config.model.head
    assert isinstance(head, mg.SpanHeadConfig) and head.question_types and head.overlap == 8


def test_the_pipeline_has_the_results_of_transformers(places):
    ask = mg.pipeline(places.workdir)
    text = "Eva is in Oslo."
    answer = ask(question="where?", context=text)
    assert answer == {"score": pytest.approx(answer["score"]), "start": 10, "end": 14, "answer": "Oslo"}
    assert 0.3 < answer["score"] <= 1
    assert ask(question=["where?"], context=[text])[0]["answer"] == "Oslo"
    both = ask(question=["where?", "where?"], context=[text, "Tom is in Rome."])
    assert [found["answer"] for found in both] == ["Oslo", "Rome"]
    assert [found["answer"] for found in ask(question=["where?"] * 2, context=text)] == ["Oslo"] * 2
    three = ask(question="where?", context=text, top_k=3)
    assert three[0]["answer"] == "Oslo" and [found["score"] for found in three] == sorted(
        (found["score"] for found in three), reverse=True
    )
    assert ask(question=[], context=[]) == []
    named = mg.pipeline("question-answering", model=str(places.workdir), rows=3)
    assert named(question="where?", context=text)["start"] == 10


def test_answers_are_as_long_as_the_run_allows(places):
    """By default all have one word with `max_answer_tokens=1`, and several with 30."""
    loaded, words = load(places.workdir), {"question": "where?", "context": "Eva is in Oslo.", "top_k": 20}
    short = QuestionAnswering(loaded._replace(data=QuestionsConfig(question_types=True, max_answer_tokens=1)))
    usual = QuestionAnswering(loaded._replace(data=None))
    assert not any(" " in found["answer"] for found in short(**words))
    assert any(" " in found["answer"] for found in usual(**words))
    assert short(max_answer_len=30, **words) == usual(**words) and usual(max_answer_len=1, **words) == short(**words)


@pytest.fixture(scope="module")
def ask_in_short_windows(places):
    return mg.pipeline(places.workdir, length=32, rows=2)


@given(text=st.text(max_size=90), question=st.text(min_size=1, max_size=90))
@settings(max_examples=25)
def test_the_answer_is_always_the_text_at_its_place(ask_in_short_windows, text, question):
    text = f"\U0001f468\u200d\U0001f469 cafe\u0301 {text}"
    for found in ask_in_short_windows(question=f"? {question}", context=text, top_k=4):
        assert found["answer"] and text[found["start"] : found["end"]] == found["answer"]


def test_predictions_of_lines_with_question_and_context(places, tmp_path, capsys):
    rows = [ROWS[0], {"question": "where?"}, {"context": "Bob is in Rome."}, ROWS[7]]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "predict",
        places.workdir,
        "--input",
        tmp_path / "in.jsonl",
        "--output",
        tmp_path / "out.jsonl",
        "--top",
        2,
    ]
    for _ in range(2):  # started again, it has nothing to do
        assert not entry.main([*map(str, words)])
    errors = capsys.readouterr().err
    assert "line 2 is skipped: the object has no column 'context'" in errors
    assert "line 3 is skipped: it has no question: give --question" in errors
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["line"], row["question"], row["answers"][0]["answer"]) for row in found] == [
        (1, "where?", "Rome"),
        (4, "where?", "Oslo"),
    ]
    assert [len(row["answers"]) for row in found] == [2, 2] and found[1]["text"] == ROWS[7]["context"]


def test_a_report_has_the_wrong_answers(places, tmp_path):
    rows = [ROWS[0], {"question": "who?", "context": "Eva is in Oslo.", "answer": "Eva", "start": 0}]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["evaluate", places.workdir, "--change", f"data.test={tmp_path / 'test.jsonl'}", "--split", "test"]
    words += ["--output", tmp_path, "--report", tmp_path / "report.md"]
    assert not entry.main([*map(str, words)])
    report = (tmp_path / "report.md").read_text()
    assert "| exact match | 0.5000 |" in report and "## The 1 worst mistakes" in report
    assert "**Eva**, predicted **Oslo**" in report and "line 2)" in report and r"> who? \| Eva is in Oslo." in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"question": "", "context": "a"}, "question must not be empty"),
        ({"question": "a", "context": " "}, "context has no words"),
        ({"question": ["a"], "context": ["a", "b"]}, "must have the same number, got 1 and 2"),
        ({"question": "a", "context": 3}, "must be a text or a list of texts, got a int"),
        ({"question": "a", "context": "a", "top_k": 0}, "top_k must be at least 1, got 0"),
        ({"question": "a", "context": "a", "max_answer_len": 0}, "max_answer_len must be at least 1, got 0"),
        ({"question": "a", "context": "a", "handle_impossible_answer": True}, "trained with data.no_answer=True"),
    ],
)
def test_arguments_that_are_refused(places, arguments, message):
    with pytest.raises(ValueError, match=message):
        mg.pipeline(places.workdir)(**arguments)


def test_other_models_are_refused(places):
    with pytest.raises(ValueError, match=r"model.head must be a LabelHeadConfig, got SpanHeadConfig"):
        mg.pipeline("text-classification", model=places.workdir)
    with pytest.raises(ValueError, match="length must be at least 16, got 8"):
        mg.pipeline(places.workdir, length=8)


@given(st.text(max_size=60), st.integers(16, 40), st.integers(1, 12))
@settings(max_examples=100)
def test_windows_hold_every_word_and_share_no_more_than_the_overlap(text, length, overlap):
    encoded = encode_text(BYTES, text)
    windows = Windows(BYTES, length, overlap, types=True)
    found = windows.all("who is it?", encoded)
    if not encoded.ids:
        assert [list(window.words) for window in found] == [[]]
        return
    assert sorted({word for window in found for word in window.words}) == list(range(len(encoded.ids)))
    for window in found:
        tokens = window.inputs["tokens"]
        assert len(tokens) <= length and len(window.inputs["token_types"]) == len(tokens)
        for word, first, last in zip(window.words, window.starts, window.ends, strict=True):
            kept = tokens[first : last + 1].tolist()
            assert kept == encoded.ids[word][: len(kept)] and window.inputs["token_types"][first] == 1
    for one, other in itertools.pairwise(found):
        shared = sum(len(encoded.ids[word]) for word in one.words if word in other.words)
        assert one.words.start < other.words.start <= one.words.stop and shared <= overlap
    joined = BYTES.decode([number for ids in encoded.ids for number in ids])
    assert text.startswith(joined) and not text[len(joined) :].strip()


def task_of(tmp_path, rows, **options):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return QuestionsTask(QuestionsConfig(train=str(path), valid=str(path), **options), "train", BYTES)


def test_targets_are_at_the_first_and_last_token_of_the_answer(tmp_path):
    task = task_of(tmp_path, ROWS)
    (row,) = [row for row in task.rows(64) if row.question == 0]
    arrays = task.arrays(task.windows(64), row)
    tokens, targets = arrays["tokens"], arrays["targets"]
    first, last = (targets[:, side].argmax() for side in (0, 1))
    assert BYTES.decode(tokens[first : last + 1].tolist()) == " Rome"
    assert (targets == 1).sum() == 2 and (targets[: tokens.tolist().index(ord("\n")) + 1] == -1).all()
    assert arrays["weights"].nonzero()[0].tolist() == [len(tokens) - 1]
    batch = task.batch(0, 2, 64)
    assert batch.targets["spans"].shape == (2, 64, 2) and batch.weights["spans"].shape == (2, 64)
    shapes = QuestionsTask.shapes(task.config, 2, 64)
    jax.tree.map(lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, b.dtype)), batch, shapes)


def test_windows_without_the_answer_are_left_out_or_have_none(tmp_path):
    text = "zero one two three four five six seven eight nine"
    row = {"question": "?", "context": text, "answer": "nine", "start": text.index("nine")}
    task = task_of(tmp_path, [row])
    assert len(task.rows(24)) == 1
    task = task_of(tmp_path, [row, {"question": "?", "context": text, "answer": "", "start": None}], no_answer=True)
    rows = task.rows(24)
    assert len(rows) > 4 and sum(row.target is None for row in rows) == len(rows) - 1
    for row in rows:
        targets = task.arrays(task.windows(24), row)["targets"]
        assert targets[0].tolist() == [int(row.target is None)] * 2 and (targets == 1).sum() == 2
    with pytest.raises(ValueError, match="no window of 24 tokens holds an answer: give longer rows"):
        task_of(tmp_path, [row_of(text, text)]).rows(24)


def row_of(text, answer, start=0, question="who?"):
    return {"question": question, "context": text, "answer": answer, "start": start}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (row_of("a b", "b", 5), "line 1: start=5 is outside the 3 characters"),
        (row_of("a b", "b", -1), "line 1: start=-1 is outside"),
        (row_of("a b", "b", 0), "line 1: the answer is 'b', but the text at start=0 is 'a'"),
        (row_of("a b", "b c", 2), "the answer is 'b c', but the text at start=2 is 'b'"),
        (row_of("a b", "b", "two"), "line 1: column 'start' must be a whole number, got 'two'"),
        (row_of("a b", "b", 1.5), "must be a whole number, got 1.5"),
        (row_of("a b", "", None), "line 1: the question has no answer; set data.no_answer=True"),
        (row_of("a  b", " ", 1), "line 1: the answer is empty"),
        (row_of("a b", "b", 2, question=" "), "line 1: the question is empty"),
        (row_of("a b", 3, 2), "line 1: column 'answer' must be a string"),
        ({"question": "who?", "context": "a"}, "line 1 has no column 'answer'; it has 'question', 'context'"),
        (row_of("a b", {"text": ["b"]}), "line 1: column 'answer' must be an answer, or a dictionary of the lists"),
        (row_of("a b", {"text": ["b"], "answer_start": [1]}), "the answer is 'b', but the text at start=1 is ' '"),
        (row_of("a b", {"text": [], "answer_start": []}), "line 1: the question has no answer"),
    ],
)
def test_rows_that_are_refused(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        task_of(tmp_path, [row])


@pytest.mark.parametrize("start", ["2", "2.0", 2.0])
def test_a_start_may_be_a_whole_number_of_any_type(tmp_path, start):
    assert task_of(tmp_path, [row_of("a b", "b", start)]).examples[0].answers == [("b", 2)]


def test_answers_may_have_the_form_of_hugging_face(tmp_path):
    """And a column that is not asked for, such as `answers` beside `answer`, is not read."""
    several = {"text": ["b", "c", "b"], "answer_start": [2, 4, 2]}
    for column, row in (("answers", {"answers": several}), ("answer", {"answer": several, "answers": ["c"]})):
        task = task_of(tmp_path, [row_of("a b c", "b") | row], answer_column=column)
        assert task.examples[0].answers == [("b", 2), ("c", 4), ("b", 2)]


def test_no_text_is_in_two_splits_whatever_the_order(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [row_of(f"text {number}", "text", question=f"{ask}?") for ask in range(4) for number in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = QuestionsConfig(train=str(path), valid_every=2, test_every=3)
    texts = [{example.text for example in QuestionsTask(config, split, BYTES).examples} for split in SPLITS]
    assert sorted(itertools.chain(*texts)) == [f"text {number}" for number in range(5)]
    assert [len(QuestionsTask(config, split, BYTES).examples) for split in SPLITS] == [8, 8, 4]


def test_articles_that_share_a_text_are_in_one_split(tmp_path):
    texts = ["a x", "b x", "c x", "d x", "a x", "e x"]
    rows = [row_of(text, "x", 2) | {"title": f"t{number}"} for number, text in enumerate(texts)]
    rows[5]["title"] = "t1"
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = QuestionsConfig(train=str(tmp_path / "a.jsonl"), valid_every=2, test_every=3)
    found = [[example.text[0] for example in QuestionsTask(config, split, BYTES).examples] for split in SPLITS]
    assert sorted(map(sorted, found)) == [["a", "a", "d"], ["b", "e"], ["c"]]


def test_an_id_that_is_used_twice_is_refused(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        rows = [row_of(f"{name} {number}", name) | {"id": number} for number in range(3)]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"b.jsonl, line 1: another question has the id 0, .*a.jsonl, line 1"):
        QuestionsConfig(train=str(tmp_path)).records("train")
    folder = tmp_path / "squad"
    folder.mkdir()
    for name in ("c.json", "d.json"):
        squad(folder, name=name)
    with pytest.raises(ValueError, match=r"d.json, article 1.*: another question has the id '0-0'"):
        QuestionsConfig(train=str(folder), valid=str(folder), form="squad").records("train")


def squad(tmp_path, change=lambda content: None, name="squad.json.gz"):
    content = {
        "data": [
            {
                "title": f"t{article}",
                "paragraphs": [
                    {
                        "context": f"Café {article} is {part}.",
                        "qas": [
                            {
                                "id": f"{article}-{part}",
                                "question": "what?",
                                "answers": [{"text": str(article), "answer_start": 5}],
                            }
                        ],
                    }
                    for part in range(2)
                ],
            }
            for article in range(6)
        ]
    }
    change(content)
    data = json.dumps(content).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return tmp_path / name


def test_squad_files_are_split_by_articles(tmp_path):
    config = QuestionsConfig(train=str(squad(tmp_path)), form="squad", test_every=3, valid_every=2)
    found = {
        split: [q.where for q in QuestionsTask(config, split, BYTES).examples] for split in ("train", "valid", "test")
    }
    articles = {split: [int(where.split("article ")[1][0]) for where in wheres] for split, wheres in found.items()}
    assert articles == {"train": [1, 1, 4, 4], "valid": [2, 2, 5, 5], "test": [3, 3, 6, 6]}
    assert found["train"][1].endswith("squad.json.gz, article 1, paragraph 2, question 1 (id 0-1)")


def test_of_several_answers_the_one_given_most_often_is_learned(tmp_path):
    def change(content):
        question = content["data"][0]["paragraphs"][0]["qas"][0]
        question["answers"] = [{"text": text, "answer_start": 0} for text in ("Café 0", "Café", "Café")]

    config = QuestionsConfig(train=str(squad(tmp_path, change)), form="squad")
    example = QuestionsTask(config, "train", BYTES).examples[0]
    assert example.target == (0, 4) and len(example.answers) == 3


def wrong(where, value):
    def change(content):
        for key in where[:-1]:
            content = content[key]
        content[where[-1]] = value

    return change


QUESTION = ["data", 0, "paragraphs", 0, "qas", 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wrong(["data"], 3), "field 'data' must be a list, it is a int"),
        (wrong(["data", 0], {}), "article 1 has no field 'paragraphs'"),
        (wrong(["data", 0, "paragraphs", 1, "context"], None), "article 1, paragraph 2: field 'context' must be a str"),
        (
            wrong([*QUESTION, "id"], "3-1"),
            r"article 4, paragraph 2, question 1 \(id 3-1\): another question has the same",
        ),
        (wrong([*QUESTION, "answers"], [{"text": "0"}]), r"\(id 0-0\) has no field 'answer_start'"),
        (wrong([*QUESTION, "answers"], [{"text": "0", "answer_start": 99}]), r"\(id 0-0\): start=99 is outside the 12"),
        (wrong([*QUESTION, "answers"], [{"text": "0", "answer_start": 6}]), r"\(id 0-0\): the answer is '0', but"),
        (wrong([*QUESTION, "answers"], []), r"\(id 0-0\): the question has no answer"),
    ],
)
def test_squad_files_that_are_refused(tmp_path, change, message):
    path = squad(tmp_path, change, "a.json")
    with pytest.raises(ValueError, match=message) as error:
        QuestionsTask(QuestionsConfig(train=str(path), form="squad"), "train", BYTES)
    assert "a.json" in str(error.value)


def test_a_file_that_is_not_json_and_a_model_without_token_types_are_refused(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a.json is not JSON"):
        QuestionsTask(QuestionsConfig(train=str(tmp_path / "a.json"), form="squad"), "train", BYTES)
    model = mg.HeadedConfig(backbone=mg.EncoderConfig(heads=()), head=mg.SpanHeadConfig())
    with pytest.raises(ValueError, match=r"data.question_types needs a model with token types"):
        mg.ExperimentConfig(model=model, data=QuestionsConfig(question_types=True))
    with pytest.raises(ValueError, match="needs a model with the head 'spans'"):
        mg.ExperimentConfig(model=mg.HeadedConfig(head=mg.LabelHeadConfig()), data=QuestionsConfig())


@pytest.mark.parametrize(
    ("answer", "references", "match", "f1"),
    [
        ("The  Café!", ["café"], 1, 1),
        ("a cat", ["dog", "the cat sat"], 0, 2 / 3),
        ("cat cat dog", ["cat dog dog"], 0, 2 / 3),
        ("1,000", ["1000"], 1, 1),
        ("x", ["y"], 0, 0),
        ("", [], 1, 1),
        ("x", [], 0, 0),
        ("the", ["a"], 1, 1),
        ("a", ["the", "cat"], 0, 0),
    ],
)
def test_exact_match_and_f1_are_those_of_squad(answer, references, match, f1):
    assert exact_match(answer, references) == match and word_f1(answer, references) == pytest.approx(f1)
    found = span_metrics([answer] * 2, [references] * 2)
    assert found["exact_match"] == match and found["f1"] == pytest.approx(f1)
    assert normal(" An apple, a day.") == "apple day"


def test_the_best_span_is_the_best_of_all_pairs():
    rng = np.random.default_rng(0)
    encoded = encode_text(BYTES, "one two three four five six seven")
    begins, ends = encoded.bounds()
    for none in (None, rng.normal(size=2).astype(np.float32)):
        logits = SpanLogits(rng.normal(size=(7, 2)).astype(np.float32), none)
        both = logits.words if none is None else np.concatenate([logits.words, none[None]])
        p = np.exp(both) / np.exp(both).sum(axis=0)
        pairs = {
            (i, j): p[i, 0] * p[j, 1] for i in range(7) for j in range(i, 7) if i == j or ends[j] - begins[i] <= 12
        }
        if none is not None:
            pairs[None, None] = p[7, 0] * p[7, 1]
        order = sorted(pairs, key=lambda pair: -pairs[pair])
        found = logits.best(encoded, 5, 12)
        assert [(answer.first, answer.last) for answer in found] == order[:5]
        np.testing.assert_allclose([answer.score for answer in found], [pairs[pair] for pair in order[:5]], rtol=1e-5)
        spans = logits.best(encoded, 100, 12, allow_none=False)
        assert [(answer.first, answer.last) for answer in spans] == [pair for pair in order if pair[0] is not None]
        np.testing.assert_allclose(spans[0].score, pairs[spans[0].first, spans[0].last], rtol=1e-5)


def test_a_word_in_two_windows_has_the_logits_of_the_one_with_more_context():
    encoded = encode_text(BYTES, " ".join("abcdefghij"))
    windows = Windows(BYTES, 24, 6, types=False).all("?", encoded)
    outputs = [np.full((1 + 2 * len(window.words), 2), number, np.float32) for number, window in enumerate(windows)]
    found = _joined(windows, outputs, no_answer=True)
    for word in range(10):
        margins = [
            min(word - window.words.start, window.words.stop - 1 - word) if word in window.words else -1
            for window in windows
        ]
        assert found.words[word].tolist() == [np.argmax(margins)] * 2
    assert found.none is not None and found.none.tolist() == [0, 0]


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not there: MEMGPT_DATA names the folder of real data")
def test_the_published_part_of_squad_is_split_as_in_the_baselines():
    config = QuestionsConfig(train=str(REAL), form="squad", test_every=4, valid_every=9)
    found = {split: config.records(split) for split in ("train", "valid", "test")}
    assert {split: len(records) for split, records in found.items()} == {"train": 5206, "valid": 748, "test": 2098}
    titles = [{record.values["title"] for record in records} for records in found.values()]
    assert [len(names) for names in titles] == [24, 3, 9] and len(set.union(*titles)) == 36
