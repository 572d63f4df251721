"""Answers with the sentences that were read for them: the pipeline, and the evaluation against the right context."""

import json

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data import make_task
from memgpt_jax.data.examples.question_tokens import QuestionTokens
from memgpt_jax.data.tasks.document_questions import Document, DocumentQuestionsConfig, Question, documents
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.evaluation import check_evaluation, document_questions, evaluate
from memgpt_jax.generation.citations import Weights
from memgpt_jax.pipelines import Reading

pytest.importorskip("sentencex")
BYTES = ByteTokenizer()
MODEL = mg.ModelConfig(
    vocab_size=257,
    d_model=16,
    num_layers=1,
    num_heads=2,
    segment_length=8,
    window_size=16,
    memory=mg.KVMemoryConfig(memory_size=64, head_dim=8),
)
SENTENCES = ["Ada is in K\N{LATIN SMALL LETTER O WITH DIAERESIS}ln.", "Tom \N{GRINNING FACE} is in Rome.", "Eva left."]
STORY = f" {SENTENCES[0]} {SENTENCES[1]}\n\n{SENTENCES[2]}"
TASK = DocumentQuestionsConfig(
    prompt="{document}|{question} ", metrics=("exact",), max_new_tokens=4, valid="v", cite=True
)


@pytest.fixture(scope="module")
def params():
    return jax.jit(mg.functional(MODEL).init)(jax.random.key(0))


@pytest.fixture(scope="module")
def pipeline(params):
    return mg.pipeline("document-questions", model=(MODEL, params), tokenizer=BYTES)


@pytest.mark.slow
def test_sources_are_sentences_of_the_text(pipeline, tmp_path):
    ask = pipeline.read(STORY)
    before = jax.tree.map(np.array, ask.session.state)
    found = ask("Who?", sources=3, max_new_tokens=3)
    assert list(found) == ["answer", "sources"] and ask("Who?", max_new_tokens=3) == {"answer": found["answer"]}
    assert {source["text"] for source in found["sources"]} == set(SENTENCES)
    assert all(STORY[source["start"] : source["end"]] == source["text"] for source in found["sources"])
    shares = [source["weight"] for source in found["sources"]]
    lifts = [source["weight"] - source["usual"] for source in found["sources"]]
    assert lifts == sorted(lifts, reverse=True) and min(shares) > 0 and sum(shares) < 1
    both = ask(["Where is Tom?", "Who?"], sources=1, max_new_tokens=3)
    assert both[1]["sources"][0]["text"] == found["sources"][0]["text"] and len(both[0]["sources"]) == 1
    jax.tree.map(np.testing.assert_array_equal, before, ask.session.state)
    ask.session.save(tmp_path / "session")
    loaded = mg.Session.load(tmp_path / "session", (pipeline.model, pipeline.params), BYTES)
    assert Reading(pipeline, loaded, STORY)("Who?", sources=3, max_new_tokens=3) == found
    with pytest.raises(ValueError, match="sources need the text of the document"):
        Reading(pipeline, loaded)("Who?", sources=1)
    with pytest.raises(ValueError, match="the session has not read the whole document"):
        Reading(pipeline, loaded, STORY * 2)("Who?", sources=1)
    with pytest.raises(ValueError, match="sources must be at least 1, got 0"):
        ask("Who?", sources=0)


def test_a_memory_without_entries_of_tokens_is_refused():
    config = with_fields(MODEL, {"memory": mg.AssociativeMemoryConfig()})
    params = jax.jit(mg.functional(config).init)(jax.random.key(0))
    ask = mg.pipeline("document-questions", model=(config, params), tokenizer=BYTES).read("Ada.")
    with pytest.raises(ValueError, match=r"sources need a memory .*: kv, compressive; the model has associative"):
        ask("Who?", sources=1, max_new_tokens=1)


def test_the_places_of_tokens():
    tokens = QuestionTokens(BYTES, "# {document} {question}")
    text = "a\N{GRINNING FACE}b"
    assert tokens.ends(text).tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 3]  # the start, two bytes of the prompt, the text

    class Lossy(ByteTokenizer):
        """Writes a letter in two bytes that has one in the text."""

        token_bytes = np.full(257, 2) * (np.arange(257) < 256)

        def __init__(self):
            pass

    assert QuestionTokens(Lossy(), "{document} {question}").ends("abcd").tolist() == [0, 1, 2, 3, 4]


def test_the_places_of_contexts():
    text = "One.\n\nTwo.\n\nOne.\n\nThree."
    asked = ["Two.", "One.\n\nTwo.", "Two.\n\nThree.", "Two.\n\nOne.", "Four.", "", "Two.\n\nFour."]
    document = Document("here", text, tuple(Question("?", ("a",)) for _ in asked), tuple(asked))
    found = [document.places(number) for number in range(len(asked))]
    assert found == [[(6, 10)], [(0, 10)], [(6, 10), (18, 24)], [(6, 16)], [], [], []]
    document = document._replace(contexts=("Three.\nOne.\n Two.",))
    assert document.places(0) == [(18, 24), (0, 4), (6, 10)]


def written(folder, contexts, **options):
    row = {"document": STORY, "questions": [{"question": "Who?", "answers": ["a"], "context": c} for c in contexts]}
    (folder / "stories.jsonl").write_text(json.dumps(row) + "\n")
    return with_fields(TASK, {"train": str(folder / "stories.jsonl"), "valid": str(folder / "stories.jsonl")} | options)


def test_the_right_source_is_in_the_context(tmp_path, params, monkeypatch):
    """The second sentence is read alone: right for one of the three questions whose context is known."""
    config = written(tmp_path, [SENTENCES[1], None, SENTENCES[0], "missing", f"{SENTENCES[0]}\n\n{SENTENCES[2]}"])
    ends, calls = QuestionTokens(BYTES, TASK.prompt).ends(STORY.strip()), []
    place = STORY.strip().index("Rome")

    def second(model, state, tokens, asked, **options):
        calls.append([question for question, _ in asked])
        return Weights(np.tile(ends == place, (len(asked), 1)), np.zeros(len(ends)))

    experiment = mg.ExperimentConfig(model=MODEL, data=config, evaluation=mg.EvaluationConfig(max_tokens=None))
    found = evaluate(experiment, params, BYTES)
    assert 0 <= found["source_right"] <= 1 and found["source_questions"] == 3 and found["questions"] == 5
    lengths = [len(sentence) for sentence in SENTENCES]
    share = (lengths[1] + lengths[0] + lengths[0] + lengths[2]) / 3 / len(STORY.strip())
    assert found["source_chance"] == pytest.approx(share)
    monkeypatch.setattr(document_questions, "question_weights", second)
    found = evaluate(experiment, params, BYTES)
    assert found["source_right"] == pytest.approx(1 / 3) and calls == [["Who?"] * 3]
    words = sorted([len(" ".join(SENTENCES[2:]).split()), len(" ".join(SENTENCES[1:]).split()), 0])
    assert found["by_length"]["unit"] == "words after the evidence" and found["by_length"]["metric"] == "exact_match"
    assert [group["mean_length"] for group in found["by_length"]["groups"]] == words
    assert "source_right" not in evaluate(with_fields(experiment, {"data.cite": False}), params, BYTES)


def test_a_source_in_a_passage_of_another_part_is_wrong(tmp_path, params):
    """Each question reads the passage of the name that it asks for."""
    pytest.importorskip("bm25s", reason="the extra `tasks` is not installed")
    config = written(tmp_path, [], context="nearest", passages=1, passage_words=3)
    asked = [("Tom?", SENTENCES[1]), ("Ada?", SENTENCES[1]), ("Eva?", None)]
    questions = [{"question": text, "answers": ["a"], "context": context} for text, context in asked]
    (tmp_path / "stories.jsonl").write_text(json.dumps({"document": STORY, "questions": questions}) + "\n")
    found = evaluate(mg.ExperimentConfig(model=MODEL, data=config), params, BYTES)
    assert (found["source_right"], found["source_chance"], found["source_questions"]) == (0.5, 0.5, 2)


@pytest.mark.slow
def test_text_after_max_tokens_does_not_count(tmp_path, params):
    """The document ends within the last sentence."""
    config = written(tmp_path, [SENTENCES[0], SENTENCES[2]])
    read = STORY.strip()[:-3]
    settings = mg.EvaluationConfig(max_tokens=1 + len(read.encode()))
    experiment = mg.ExperimentConfig(model=MODEL, data=config, evaluation=settings)
    found = evaluate(experiment, params, BYTES)
    assert found["source_questions"] == 1 and found["source_chance"] == pytest.approx(len(SENTENCES[0]) / len(read))
    (group,) = found["by_length"]["groups"]
    assert group["number"] == 1 and group["mean_length"] == len(read.removeprefix(SENTENCES[0]).split())
    with pytest.raises(ValueError, match=r"holds, within evaluation.max_tokens=4 tokens; there is none"):
        check_evaluation(with_fields(experiment, {"evaluation.max_tokens": 4}), BYTES)


def test_contexts_do_not_change_the_examples(tmp_path):
    one, other = (make_task(written(tmp_path, [c], cite=False), "train", BYTES).content for c in (SENTENCES[0], None))
    assert one == other
    given = documents(written(tmp_path, [SENTENCES[0], None], cite=False, context="given"), "train")
    assert [document.text for document in given] == [SENTENCES[0], STORY.strip()]


def test_evaluations_that_cannot_cite_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data.cite=True with data.context='given'"):
        with_fields(TASK, {"context": "given"})

    def refused(message, contexts, memory=MODEL.memory):
        model = with_fields(MODEL, {"memory": memory})
        with pytest.raises(ValueError, match=message):
            check_evaluation(mg.ExperimentConfig(model=model, data=written(tmp_path, contexts)), BYTES)

    refused("data.cite=True needs questions with a context that their document holds", ["missing"])
    refused("sources need a memory whose entries come from tokens: .* has none", [SENTENCES[0]], mg.NoMemoryConfig())
