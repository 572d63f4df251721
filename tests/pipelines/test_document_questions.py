"""Questions about documents: from files to answers of one reading."""

import json
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data import batch_shapes, make_task, train_batches
from memgpt_jax.data.examples.records import read_records
from memgpt_jax.data.tasks.document_questions import DocumentQuestionsConfig, documents
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.evaluation import evaluate
from memgpt_jax.evaluation.document_questions import Reader
from memgpt_jax.pipelines import Reading
from memgpt_jax.studies import entry
from memgpt_jax.studies.command_line import load_config
from tests.laws.models import random_params
from tests.laws.real_data import DATA
from tests.pipelines.resuming import check_resuming

BYTES = ByteTokenizer()
START = BYTES.start_id
MODEL = mg.ModelConfig(
    vocab_size=257,
    d_model=32,
    num_layers=2,
    num_heads=2,
    segment_length=8,
    window_size=16,
    memory=mg.KVMemoryConfig(memory_size=16, head_dim=8),
)

SMALL = with_fields(MODEL, {"num_layers": 1, "d_model": 16})
NAMES, PLACES = ("Ada", "Tom", "Eva", "Bob"), ("Rome", "Oslo", "Bern", "Lima")
ROWS = [
    {
        "document": " ".join(f"{name} is in {PLACES[(number + shift) % 4]}." for number, name in enumerate(NAMES)),
        "questions": [
            {"question": f"{name}?", "answers": [PLACES[(number + shift) % 4], "x"]}
            for number, name in enumerate(NAMES)
        ],
    }
    for shift in range(4)
]
TASK = DocumentQuestionsConfig(prompt="{document}|{question} ", metrics=("exact",), max_new_tokens=6, valid_every=2)


@pytest.fixture(scope="module")
def params():
    return random_params(SMALL)


def written(folder, rows=ROWS, **options):
    (folder / "stories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return with_fields(TASK, {"train": str(folder / "stories.jsonl")} | options)


def fairytales(folder, sections="1,2"):
    for name in ("questions", "section-stories"):
        (folder / name / "val").mkdir(parents=True)
    story = 'section,text\n1,"Once, \nAda."\n2,In Rome.\n'
    (folder / "section-stories" / "val" / "a-b-story.csv").write_text(story)
    rows = f'q,cor_section,question,answer1,answer2,answer4\n1,"{sections}",Where?,Rome,,in Rome\n2,1,Who?,Ada,,\n'
    (folder / "questions" / "val" / "a-b-questions.csv").write_text(rows)
    return str(folder / "questions" / "val")


def test_fairytaleqa_is_read_as_published(tmp_path):
    config = DocumentQuestionsConfig(train=fairytales(tmp_path), form="fairytaleqa", valid="v")
    (story,) = documents(config, "train")
    assert story.text == "Once, Ada.\n\nIn Rome."
    assert story.questions == (("Where?", ("Rome", "in Rome")), ("Who?", ("Ada",)))
    whole, part = documents(with_fields(config, {"context": "given"}), "train")
    assert whole.text == story.text and part.text == "Once, Ada." and part.questions == (("Who?", ("Ada",)),)


def test_a_missing_section_or_story_of_fairytaleqa_is_refused(tmp_path):
    folder = Path(fairytales(tmp_path, sections="1,3"))
    config = DocumentQuestionsConfig(train=str(folder), form="fairytaleqa", valid="v")
    with pytest.raises(ValueError, match=r"a-b-questions.csv, .*: the story .*a-b-story.csv has no section 3"):
        documents(config, "train")
    (tmp_path / "section-stories" / "val" / "a-b-story.csv").unlink()
    with pytest.raises(ValueError, match=r"there is no .*a-b-story.csv"):
        documents(config, "train")


def test_squality_qmsum_and_lambada_are_read_as_published(tmp_path):
    response = {"response_text": "To Rome."}
    story = {"document": "Ada left.", "questions": [{"question_text": "Why?", "responses": [response, response]}]}
    turns = [{"speaker": name, "content": name.lower()} for name in "ABC"]
    query = {"query": "All?", "answer": "abc", "relevant_text_span": [["1", "2"]]}
    meeting = {"meeting_transcripts": turns, "general_query_list": [{"query": "Sum?", "answer": "x"}]}
    meeting |= {"specific_query_list": [query]}

    def read(form, values):
        (tmp_path / "a.jsonl").write_text(json.dumps(values) + "\n")
        return next(iter(read_records(tmp_path / "a.jsonl", form))).values

    assert read("squality", story)["questions"] == [{"question": "Why?", "answers": ["To Rome.", "To Rome."]}]
    found = read("qmsum", meeting)
    assert found["document"] == "A: a\nB: b\nC: c"
    assert [question["context"] for question in found["questions"]] == ["", "B: b\nC: c"]
    assert read("lambada", {"text": "Come here, said\nAda "}) == {"source": "Come here, said", "target": "Ada"}
    with pytest.raises(ValueError, match="line 1: a passage must have at least two words"):
        read("lambada", {"text": "Ada"})
    with pytest.raises(ValueError, match=r"line 1, specific_query_list 1: .* the turns 1 to 3 of 3 turns"):
        read("qmsum", meeting | {"specific_query_list": [query | {"relevant_text_span": [[1, 3]]}]})
    with pytest.raises(ValueError, match="must hold pairs of numbers"):
        read("qmsum", meeting | {"specific_query_list": [query | {"relevant_text_span": ["all"]}]})
    with pytest.raises(ValueError, match="line 1, question 1 has no field 'responses'"):
        read("squality", story | {"questions": [{}]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"document": " "}, "line 1: field 'document' is empty"),
        ({"document": None}, "line 1: field 'document' must be a str"),
        ({"questions": []}, "line 1: the document has no questions"),
        ({"questions": "a?"}, "line 1: field 'questions' must be a list"),
        ({"questions": ["a?"]}, "line 1, question 1 must be a JSON object"),
        ({"questions": [{"question": "a?", "answers": []}]}, "line 1, question 1: field 'answers' must be a list of"),
        ({"questions": [{"question": "a?", "answers": ["b", " "]}]}, "line 1, question 1: field 'answers' must be"),
        ({"questions": [{"question": "", "answers": ["b"]}]}, "line 1, question 1: field 'question' is empty"),
    ],
)
def test_bad_records_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        documents(written(tmp_path, [ROWS[0] | change], valid="v"), "train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "{document}"}, "data.prompt must hold {document} and, after it, {question}, each once"),
        ({"prompt": "{question} {document}"}, "data.prompt must hold {document} and, after it, {question}"),
        ({"metrics": ("meteor",)}, "data.metrics must be distinct names of bleu, chrf, rouge, exact"),
        ({"context": "part"}, "context must be one of 'document', 'given', 'nearest'"),
        ({"passages": 0}, "passages must be at least 1, got 0"),
        ({"passage_words": 0}, "passage_words must be at least 1, got 0"),
        ({"read_again": 0}, "read_again must be at least 1, got 0"),
        ({"repetition_penalty": 0.5}, "data.repetition_penalty must be from 1 .* to 1000, got 0.5"),
        ({"no_repeat_ngram_size": 0}, "no_repeat_ngram_size must be at least 1, got 0"),
        (
            {"repetition_penalty": 1.2, "read_again": 1},
            "data.read_again cannot be compared with",
        ),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DocumentQuestionsConfig(**options)


def test_experiments_that_do_not_fit_are_refused():
    encoder = mg.Seq2SeqConfig(
        encoder=mg.EncoderConfig(heads=()), decoder=mg.ModelConfig(source_length=8, memory=mg.NoMemoryConfig())
    )
    with pytest.raises(ValueError, match="questions about documents need a decoder, not a Seq2SeqConfig"):
        mg.ExperimentConfig(model=encoder, data=TASK)
    with pytest.raises(ValueError, match=r"DocumentQuestionsConfig needs training\.carry_state=True"):
        mg.ExperimentConfig(model=SMALL, data=TASK, training=mg.TrainingConfig(carry_state=False))


def test_rows_are_streams_of_documents_with_a_question_each(tmp_path):
    config = written(tmp_path, document_tokens=5)
    task, training = make_task(config, "train", BYTES), mg.TrainingConfig(batch_size=2, sequence_length=8)
    row = task.row(1)  # the second question of the first of two documents
    assert row["tokens"].tolist() == [START, *b"Ada |Tom? Oslo"[:4], *b"|Tom? Oslo"]
    assert row["targets"].tolist() == [*row["tokens"][1:], START]
    assert row["weights"].tolist() == [0] * 9 + [1] * 6  # " ", "Oslo" and the end
    batches = train_batches(config, training, 0, BYTES)
    state, first = batches.get_state(), next(batches)
    for part, shapes in zip(first, batch_shapes(config, training), strict=True):
        assert {n: (a.shape, a.dtype) for n, a in part.items()} == {n: (a.shape, a.dtype) for n, a in shapes.items()}
    batches.set_state(state)
    np.testing.assert_array_equal(next(batches).targets["tokens"], first.targets["tokens"])
    found = [*islice(task.batches(0, 2, 8), 16)]
    tokens, resets = (np.concatenate([batch.inputs[name] for batch in found], axis=1) for name in ("tokens", "reset"))
    np.testing.assert_array_equal(resets, tokens == START)
    rows = {tuple(task.row(number)["tokens"].tolist()) for number in range(8)}
    for stream in tokens:  # each stream is made of whole rows; its four questions come once an epoch
        pieces = [tuple(piece.tolist()) for piece in np.split(stream, np.flatnonzero(stream == START)[1:])]
        assert set(pieces[:4]) == set(pieces[4:8]) and len(set(pieces[:4])) == 4 and set(pieces[:8]) <= rows
    assert task.training_tokens(8) == 8 * 15


def test_several_questions_follow_one_reading(tmp_path):
    task = make_task(written(tmp_path, questions_per_reading=3), "train", BYTES)
    first, rest = task.row(0), task.row(1)
    ids = [START if character == "." else ord(character) for character in "|Ada? Rome.|Tom? Oslo.|Eva? Bern."]
    document = task.tokens.document(task.documents[0].text)
    assert [*first["tokens"], first["targets"][-1]] == [*document, *ids]
    answers = [*np.flatnonzero(first["weights"])]
    assert "".join(chr(token) if token < 256 else "." for token in first["targets"][answers]) == " Rome. Oslo. Bern."
    assert bytes(int(token) for token in rest["tokens"][len(document) :]) == b"|Bob? Lima"
    assert len(task.readings) == 2 * len(task.documents)
    with pytest.raises(ValueError, match="questions_per_reading must be at least 1, got 0"):
        written(tmp_path, questions_per_reading=0)


def settings(**options):
    return mg.EvaluationConfig(**{"max_documents": None, "max_tokens": None, "batch_size": 4} | options)


@pytest.mark.parametrize("batch_size", [8, pytest.param(2, marks=pytest.mark.slow)])
def test_one_reading_gives_the_losses_and_answers_of_whole_rows(tmp_path, params, batch_size):
    """Loss and greedy answers equal those of each document, question and answer in one row from an empty memory.

    Both documents of 4 questions are read at the same time, or one after the other; one is longer.
    """
    rows = [row | {"document": row["document"] + " And so on." * number} for number, row in enumerate(ROWS)]
    data = written(tmp_path, rows, read_again=1)
    config = mg.ExperimentConfig(model=SMALL, data=data, evaluation=settings(batch_size=batch_size))
    found = evaluate(config, params, BYTES)
    task = make_task(config.data, "valid", BYTES)
    losses, right, apply = [], [], jax.jit(mg.functional(SMALL).apply)
    for document in task.documents:
        ids = task.tokens.document(document.text)
        for question in document.questions:
            row = task.tokens.row(ids, [(question.text, question.answers[0])])
            logits, _ = apply(params, row["tokens"][None], None, None)
            log_p = np.asarray(jax.nn.log_softmax(logits[0]))[np.arange(len(row["tokens"])), row["targets"]]
            losses.append(-log_p[row["weights"] > 0])
            prompt = np.concatenate([ids, task.tokens.question(question.text)])
            whole = mg.generate((SMALL, params), prompt[None], max_new_tokens=6, stop=[START])
            right.append(task.tokens.answers.text(whole.ids[0, len(prompt) :]) in question.answers)
    assert found["loss"] == pytest.approx(np.concatenate(losses).mean(), abs=1e-4)
    assert found["targets"] == sum(map(len, losses)) and found["documents"] == 2 and found["questions"] == 8
    assert found["exact_match"] == np.mean(right)
    assert found["by_length"]["unit"] == "words of the document"
    assert sum(group["number"] for group in found["by_length"]["groups"]) == 8
    assert found["same_answers"] == 1 and found["seconds_per_question"] > 0
    assert found["seconds_per_question_read_again"] > 0


@pytest.mark.slow
def test_limits_of_documents_and_tokens(tmp_path, params):
    def result(**changes):
        return evaluate(
            mg.ExperimentConfig(model=SMALL, data=written(tmp_path), evaluation=settings(**changes)), params, BYTES
        )

    whole, cut = result(max_documents=1), result(max_documents=1, max_tokens=5)
    assert whole["questions"] == cut["questions"] == 4 and "same_answers" not in whole
    assert whole["loss"] != cut["loss"]


def test_no_ngram_is_twice_in_an_answer_of_evaluation_or_pipeline(tmp_path, params):
    config = mg.ExperimentConfig(
        model=SMALL, data=written(tmp_path, max_new_tokens=20), evaluation=settings(max_documents=1)
    )
    once = with_fields(config, {"data.no_repeat_ngram_size": 1})
    (document,) = make_task(config.data, "valid", BYTES).documents[:1]

    def answers(config: mg.ExperimentConfig) -> list[str]:
        reader = Reader(config, params, make_task(config.data, "valid", BYTES))
        return reader.answers([document], reader.read([document]))

    assert any(len(set(text)) < len(text) for text in answers(config))
    letters = [text.replace("\N{REPLACEMENT CHARACTER}", "") for text in answers(once)]  # without invalid bytes
    assert all(len(set(text)) == len(text) > 0 for text in letters)
    options = {"prompt": TASK.prompt, "no_repeat_ngram_size": 1}
    ask = mg.pipeline("document-questions", model=(SMALL, params), tokenizer=BYTES, **options).read(document.text)
    questions = [question.text for question in document.questions]
    assert [result["answer"] for result in ask(questions, max_new_tokens=20)] == answers(once)


@pytest.mark.slow
def test_a_repetition_penalty_applies_to_question_and_answer(tmp_path, params):
    """Not to the document: answers equal those of `generate` from the state after the document."""
    config = mg.ExperimentConfig(
        model=SMALL, data=written(tmp_path, repetition_penalty=100.0), evaluation=settings(max_documents=1)
    )
    task = make_task(config.data, "valid", BYTES)
    (document,) = task.documents[:1]
    reader = Reader(config, params, task)
    state = reader.read([document])
    found, plain = reader.answers([document], state), []
    for question in document.questions:
        prompt = task.tokens.question(question.text)
        options = {"max_new_tokens": 6, "stop": [START], "repetition_penalty": 100.0}
        ids = mg.generate((SMALL, params), prompt[None], state=state, **options).ids[0, len(prompt) :]
        plain.append(task.tokens.answers.text(ids))
        assert not set(ids.tolist()) & set(prompt.tolist()) and len(set(ids.tolist())) == len(ids)
    assert found == plain
    options = {"prompt": TASK.prompt, "repetition_penalty": 100.0}
    pipeline = mg.pipeline("document-questions", model=(SMALL, params), tokenizer=BYTES, **options)
    ask = pipeline.read(document.text)
    assert [ask(question.text, max_new_tokens=6)["answer"] for question in document.questions] == plain
    for seed in range(8):  # some of the answers hold the last id of the document, which is not penalized
        tree = random_params(SMALL, seed)
        pipeline.params = tree
        reader = Reader(config, tree, task)
        assert reader.answers([document], reader.read([document]))[:1] == [
            pipeline.read(document.text)(document.questions[0].text, max_new_tokens=6)["answer"]
        ]


@pytest.mark.slow
def test_questions_leave_a_reading_unchanged(tmp_path, params):
    pipeline = mg.pipeline("document-questions", model=(SMALL, params), tokenizer=BYTES, rows=2)
    ask = pipeline.read(ROWS[0]["document"])
    before = jax.tree.map(np.array, ask.session.state)
    first = ask("Ada?", max_new_tokens=5)
    assert list(first) == ["answer"]
    several = ask(["Tom?", "Ada?", "Eva?"], max_new_tokens=5)
    assert several[1] == first == ask("Ada?", max_new_tokens=5)
    jax.tree.map(np.testing.assert_array_equal, before, ask.session.state)
    assert pipeline(question=" Ada?\n", context=f"\n {ROWS[0]['document']} ", max_new_tokens=5) == first
    ask.session.save(tmp_path / "session")
    loaded = mg.Session.load(tmp_path / "session", (pipeline.model, params), BYTES)
    assert Reading(pipeline, loaded)("Ada?", max_new_tokens=5) == first
    assert ask([]) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe: pipe.read(" "), "the document is empty"),
        (lambda pipe: pipe.read(3), "inputs must be a text or a list of texts, got a int"),
        (lambda pipe: pipe.read("a")(" "), "a question is empty"),
        (lambda pipe: pipe.read("a")("b", max_new_tokens=0), "max_new_tokens must be"),
        (lambda pipe: pipe.record("a"), "it has no question"),
    ],
)
def test_calls_that_are_refused(params, call, message):
    pipeline = mg.pipeline("document-questions", model=(SMALL, params), tokenizer=BYTES)
    with pytest.raises(ValueError, match=message):
        call(pipeline)


def test_the_prompt_of_a_pipeline_is_what_it_reads(params):
    options = {"model": (SMALL, params), "tokenizer": BYTES, "prompt": "Read {document}|{question}= "}
    prompt = [START, *b"Read Ada is in Rome.|Ada?="]  # the space behind is the beginning of the answer
    whole = mg.generate((SMALL, params), [prompt], max_new_tokens=4, stop=[START])
    ask = mg.pipeline("document-questions", **options).read("Ada is in Rome.")
    assert ask.session.num_tokens == 1 + len("Read Ada is in Rome.")
    assert ask("Ada?", max_new_tokens=4)["answer"] == TASK.tokens(BYTES).answers.text(whole.ids[0, len(prompt) :])


def test_each_question_reads_its_nearest_passages(tmp_path, params):
    """In the files of a task and in a pipeline: answers and sources are those of reading the passages alone."""
    pytest.importorskip("bm25s", reason="the extra `tasks` is not installed")
    text = ROWS[0]["document"]
    config = written(tmp_path, context="nearest", passages=1, passage_words=3, valid="v")
    first, *others = documents(config, "train")[:4]
    assert (first.text, first.questions[0].text) == ("Ada is in Rome.", "Ada?")
    assert [document.text for document in others] == ["Tom is in Oslo.", "Eva is in Bern.", "Bob is in Lima."]
    options = {"model": (SMALL, params), "tokenizer": BYTES, "prompt": TASK.prompt}
    whole = mg.pipeline("document-questions", **options)
    parts = mg.pipeline("document-questions", context="nearest", passages=1, **options)
    parts.config = with_fields(parts.config, {"passage_words": 3})
    found = parts.read(text)(["Eva?", " Tom?"], max_new_tokens=4, sources=1)
    for result, sentence, question in zip(found, ("Eva is in Bern.", "Tom is in Oslo."), ("Eva?", "Tom?"), strict=True):
        expected = whole.read(sentence)(question, max_new_tokens=4, sources=1)
        assert result["answer"] == expected["answer"]
        (source,), (other,) = result["sources"], expected["sources"]
        assert source["text"] == sentence == text[source["start"] : source["end"]]
        assert source["weight"] == other["weight"]
    assert parts(question="Eva?", context=text, max_new_tokens=4) == {"answer": found[0]["answer"]}
    assert parts.read(text)([]) == []
    with pytest.raises(ValueError, match="a question is empty"):
        parts.read(text)([" "])


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    options = {"batch_size": 8, "sequence_length": 32, "learning_rate": 5e-3, "dropout": 0.0, "epochs": 60}
    base = mg.from_params(MODEL, random_params(MODEL))
    return mg.finetune(
        base,
        TASK,
        train=ROWS[:1],
        valid=ROWS[:1],
        workdir=tmp_path_factory.mktemp("stories"),
        tokenizer=BYTES,
        print_progress=False,
        **options,
    )


@pytest.mark.slow
def test_a_story_is_learned(learned):
    """Four answers, each after a document of several calls: the place of the name that is asked for."""
    assert learned.config.training.carry_state and learned.evaluation["exact_match"] == 1
    ask = mg.pipeline(learned.workdir).read(ROWS[0]["document"])
    assert [found["answer"] for found in ask([f"{name}?" for name in NAMES])] == list(PLACES)


@pytest.mark.slow
def test_a_resumed_run_is_the_same_bitwise(learned, tmp_path):
    check_resuming(learned, tmp_path)


@pytest.mark.slow
def test_predictions_of_the_command(learned, tmp_path, capsys):
    line = {"context": ROWS[0]["document"], "question": "Tom?"}
    (tmp_path / "in.jsonl").write_text(json.dumps(line) + "\n")
    entry.main(["predict", str(learned.workdir), "--input", str(tmp_path / "in.jsonl")])
    assert json.loads(capsys.readouterr().out) == {
        "line": 1,
        "question": "Tom?",
        "text": ROWS[0]["document"],
        "answer": "Oslo",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "train", "test"),
    [("fairytaleqa", (209, 23), (23, 1025)), ("squality", (45, 5), (25, 125)), ("qmsum", (54, 6), (35, 272))],
)
def test_the_splits_of_the_configs(monkeypatch, name, train, test):
    if not (DATA / name).is_dir():
        pytest.skip(f"MEMGPT_DATA does not name a folder with {name}")
    monkeypatch.setenv("MEMGPT_DATA", str(DATA))
    config = with_fields(load_config(name).data, {"context": "document"})
    found = {split: documents(config, split) for split in ("train", "valid", "test")}
    assert (len(found["train"]), len(found["valid"])) == train
    assert (len(found["test"]), sum(len(document.questions) for document in found["test"])) == test
