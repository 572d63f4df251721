"""Fine-tuning on one's own data, and the pipelines of the result."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import memgpt_jax as mg
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.evaluation import mistakes
from memgpt_jax.evaluation.documents import document_outputs
from memgpt_jax.evaluation.metrics.entities import entities_of
from memgpt_jax.evaluation.mistakes import Mistake
from memgpt_jax.models.heads.labels import chain_of
from memgpt_jax.ops.crf import Chain, marginals
from memgpt_jax.pipelines import PIPELINES
from memgpt_jax.pipelines.token_classification import Word, entities_of_words
from memgpt_jax.studies import entry
from memgpt_jax.training.start import Hooks, prepare
from tests.laws.models import random_params
from tests.pipelines.resuming import check_resuming

pytest.importorskip("sklearn", reason="the extra `tasks` is not installed")
SIZES = {"vocab_size": 257, "d_model": 32, "num_layers": 1, "num_heads": 2, "segment_length": 16}
WORDS = {"good": ("fine", "lovely", "great"), "bad": ("dull", "awful", "slow")}
REVIEWS = [
    {"text": f"a {word} film {number}", "label": label}
    for number in range(7)
    for label, words in WORDS.items()
    for word in words
]
SENTENCES = [
    {"words": [first, "saw", name, "today"], "tags": ["O", "O", "B-per" if name[0].isupper() else "O", "O"]}
    for first in ("she", "he", "it", "one", "who")
    for name in ("Ada", "Tom", "rain", "cats")
]
OPTIONS = {
    "epochs": 20,
    "batch_size": 4,
    "sequence_length": 64,
    "learning_rate": 3e-3,
    "dropout": 0.0,
    "print_progress": False,
}
MODELS = {
    "decoder": mg.ModelConfig(**SIZES, window_size=64, memory=mg.NoMemoryConfig()),
    "encoder": mg.EncoderConfig(**SIZES, memory=mg.NoMemoryConfig(), heads=()),
}


def base(name):
    config = MODELS[name]
    return mg.from_params(config, random_params(config))


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """A decoder with memory, fine-tuned on 42 reviews."""
    workdir = tmp_path_factory.mktemp("reviews")
    options = {"tokenizer": ByteTokenizer(), "memory": mg.KVMemoryConfig(memory_size=16, head_dim=8)}
    return mg.finetune(base("decoder"), mg.LabelledTextConfig(), train=REVIEWS, workdir=workdir, **options, **OPTIONS)


def test_a_small_set_is_learned(reviews):
    assert reviews.evaluation["accuracy"] == 1 and reviews.evaluation["examples"] == 4
    assert reviews.evaluation["accuracy_interval"] == [1, 1] and set(reviews.evaluation["classes"]) == {"bad", "good"}
    assert mg.load_run(reviews.workdir).config.model.head.output_names == ("bad", "good")


def test_the_pipeline_has_the_results_of_transformers(reviews):
    classify = mg.pipeline(reviews.workdir)
    (one,) = classify("a lovely film 3")
    assert one["label"] == "good" and 0.5 < one["score"] <= 1
    assert [found["label"] for found in classify(["a dull film 1", "a great film 2"])] == ["bad", "good"]
    both = classify("a dull film 1", top_k=None)
    assert [found["label"] for found in both] == ["bad", "good"] and sum(f["score"] for f in both) == pytest.approx(1)
    assert [len(found) for found in classify(["a", "b"], top_k=None)] == [2, 2]
    assert classify([]) == []
    named = mg.pipeline("text-classification", model=str(reviews.workdir))
    assert named("a slow film 5") == classify("a slow film 5")


@pytest.mark.slow
def test_scores_do_not_depend_on_calls_rows_and_chunks(reviews):
    texts = ["a dull film 1" + " and then some more" * number for number in range(5)]
    classify = mg.pipeline(reviews.workdir)
    alone = [classify(text)[0] for text in texts]
    together = mg.pipeline(reviews.workdir, rows=3, length=7)(texts)
    for one, other in zip(alone, together, strict=True):
        assert one["label"] == other["label"] and one["score"] == pytest.approx(other["score"], abs=1e-5)
    streamed = [*classify.stream(["a du", "", "ll film", " 1", " and then", " some more", ""])]
    assert len(streamed) > 1 and streamed[-1]["score"] == pytest.approx(alone[1]["score"], abs=1e-5)


def test_a_run_of_another_model_is_refused_and_its_model_kept(reviews, tmp_path):
    """Other weights, another tokenizer, another folder; the same model is accepted."""
    workdir = reviews.workdir
    saved = {path.name: path.stat().st_mtime_ns for path in (workdir / "base").iterdir()}
    options = OPTIONS | {"train": REVIEWS, "workdir": workdir, "memory": mg.KVMemoryConfig(memory_size=16, head_dim=8)}
    config = MODELS["decoder"]
    weights = jax.tree.map(lambda leaf: leaf + 1, random_params(config))
    narrow = dataclasses.replace(config, window_size=32)
    for message, model, tokenizer in (
        ("another model", mg.from_params(config, weights), ByteTokenizer()),
        ("another model", mg.from_params(narrow, random_params(config)), ByteTokenizer()),
        ("another tokenizer", base("decoder"), types.SimpleNamespace(fingerprint="other")),
    ):
        with pytest.raises(ValueError, match=message):
            mg.finetune(model, mg.LabelledTextConfig(), tokenizer=tokenizer, **options)
    mg.save_pretrained(base("decoder"), tmp_path / "other", tokenizer=ByteTokenizer())
    with pytest.raises(ValueError, match="holds a run of another model"):
        mg.finetune(tmp_path / "other", mg.LabelledTextConfig(), **options)
    again = mg.finetune(base("decoder"), mg.LabelledTextConfig(), tokenizer=ByteTokenizer(), **options)
    assert again.evaluation == reviews.evaluation
    assert {path.name: path.stat().st_mtime_ns for path in (workdir / "base").iterdir()} == saved


def test_a_resumed_run_is_the_same_bitwise(reviews, tmp_path):
    check_resuming(reviews, tmp_path)


@pytest.fixture
def memgpt_command(capsys):
    """Runs a command and returns what it wrote to stderr."""

    def run(command: str, *words, code: int = 0) -> str:
        capsys.readouterr()
        try:
            ended = entry.main([command, *map(str, words)])
        except SystemExit as end:
            ended = end.code
        errors = capsys.readouterr().err
        assert (ended or 0) == code, errors
        return errors

    return run


def test_predictions_are_written_resumed_and_bad_lines_are_named(reviews, tmp_path, memgpt_command):
    texts = ["a dull film 1", None, "a great film 2", "a \ud83d", "one\u2028line"]
    lines = [json.dumps({"text": text} if text else {"other": 1}) for text in texts]
    lines.insert(1, "{")
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    words = [reviews.workdir, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl", "--top", 1]
    errors = memgpt_command("predict", *words)
    assert (
        "line 2 is skipped: it is not JSON" in errors and "line 3 is skipped: the object has no column 'text'" in errors
    )
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().split("\n")[:-1]]
    assert "line 5 is skipped" in errors and "the text holds the lone surrogate U+D83D" in errors
    assert [(row["line"], row["labels"][0]["label"]) for row in found[:2]] == [(1, "bad"), (4, "good")]
    assert [row["line"] for row in found] == [1, 4, 6]

    first = (tmp_path / "out.jsonl").read_text().split("\n")[0]
    (tmp_path / "out.jsonl").write_text(first + "\n" + '{"line": 4, "la')  # killed while it wrote
    memgpt_command("predict", *words)
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().split("\n")[:-1]] == found
    (tmp_path / "out.jsonl").write_text(first.replace("a dull film 1", "another text") + "\n")
    assert "the output holds line 1 of another input" in memgpt_command("predict", *words, code=2)
    (tmp_path / "out.jsonl").write_text("something else\n")
    assert "is not the output of this command" in memgpt_command("predict", *words, code=2)


@pytest.mark.slow
def test_evaluations_by_the_first_tokens_of_each_text(reviews, tmp_path, memgpt_command):
    memgpt_command("evaluate", reviews.workdir, "--lengths", 3, 64, "--output", tmp_path)
    results = json.loads((tmp_path / "comparison.json").read_text())
    found = {result["length"]: result["accuracy"] for result in results.values()}
    assert found[64] == 1 and found[3] < 1  # the first three bytes are the same in all reviews
    assert (tmp_path / "comparison.png").stat().st_size > 1000


def test_a_report_has_the_worst_mistakes_and_a_confusion_matrix(reviews, people, tmp_path, memgpt_command):
    rows = [{"text": "a fine *film*\n", "label": "bad"}, {"text": "a dull film 2", "label": "bad"}]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--change", f"data.test={tmp_path / 'test.jsonl'}", "--split", "test", "--output", tmp_path]
    memgpt_command("evaluate", reviews.workdir, *words, "--report", tmp_path / "report.md")
    report = (tmp_path / "report.md").read_text()
    assert "| bad | 1.0000 | 0.5000 | 0.6667 | 2 |" in report and "## The 1 worst mistakes" in report
    assert "**bad**, predicted **good**" in report and "line 1)" in report and r"> a fine \*film\*" in report
    assert (tmp_path / "report-1.png").stat().st_size > 1000
    assert "dull" not in report

    memgpt_command("evaluate", people.workdir, "--output", tmp_path, "--report", tmp_path / "tags.md")
    report = (tmp_path / "tags.md").read_text()
    assert "| per | 1.0000 | 1.0000 | 1.0000 |" in report and "| distinct f1 | 1.0000 |" in report
    assert "| first recall | 1.0000 |" in report and "same type |" not in report  # no name comes twice: None


def test_the_worst_mistakes_come_first_and_long_texts_are_cut():
    found = mistakes.worst(
        Mistake(where="", text="x" * number, expected="a", predicted="b", loss=float(number)) for number in range(1000)
    )
    assert [mistake["loss"] for mistake in found] == list(range(999, 979, -1))
    assert found[0]["text"] == "x" * 599 + "…" and len(found[0]["text"]) == 600


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """An encoder, fine-tuned to tag names."""
    workdir = tmp_path_factory.mktemp("people")
    task = mg.TaggedTextConfig(tag_column="tags")
    return mg.finetune(base("encoder"), task, train=SENTENCES, workdir=workdir, tokenizer=ByteTokenizer(), **OPTIONS)


def test_tags_and_entities(people):
    pytest.importorskip("seqeval", reason="the extra `tasks` is not installed")
    assert people.evaluation["f1"] == 1 and people.evaluation["types"]["per"]["support"] >= 1
    tag = mg.pipeline(people.workdir)
    text = "she saw Ada today"
    (found,) = tag(text)
    assert (found["entity"], found["word"], found["index"]) == ("B-per", "Ada", 3)
    assert text[found["start"] : found["end"]] == "Ada"
    (entity,) = mg.pipeline(people.workdir, aggregation_strategy="simple")(text)
    assert (entity["entity_group"], entity["word"], entity["start"], entity["end"]) == ("per", "Ada", 8, 11)
    assert [len(row) for row in tag([text, "she saw rain today"])] == [1, 0]


@given(st.lists(st.sampled_from(["O", *(f"{mark}-{kind}" for mark in "BIESLU" for kind in ("a", "a-b"))]), max_size=9))
def test_entities_are_those_that_the_evaluation_counts(tags):
    pytest.importorskip("seqeval", reason="the extra `tasks` is not installed")
    found = entities_of_words([Word(number, number, tag, 1.0) for number, tag in enumerate(tags)])
    places = [(words[0].tag.partition("-")[2], words[0].start, words[-1].start) for words in found]
    assert places == entities_of(tags)


def test_a_chain_decides_between_tags_of_a_word_by_those_of_its_neighbours():
    """The emissions of all tags are equal; the chain begins with B-per, which I-per follows."""
    head = mg.LabelHeadConfig(num_outputs=3, output_names=("B-per", "I-per", "O"), pool="none", crf=True)
    config = mg.HeadedConfig(backbone=MODELS["encoder"], head=head)
    params = random_params(config)
    transitions = np.zeros((3, 3), np.float32)
    transitions[0, 1] = transitions[1, 2] = transitions[2, 2] = 2.0
    params["head"] |= {"chain_transitions": transitions, "chain_start": np.array([1, 0, 0], np.float32)}
    params["head"]["output"] = {"kernel": np.zeros((32, 3), np.float32), "bias": np.zeros(3, np.float32)}
    options = {"model": (config, params), "tokenizer": ByteTokenizer()}
    tag = mg.pipeline("token-classification", **options)
    (entity,) = mg.pipeline("token-classification", aggregation_strategy="simple", **options)("Ada Lovelace saw it")
    assert (entity["entity_group"], entity["word"]) == ("per", "Ada Lovelace")
    found = tag("Ada Lovelace saw it")
    assert [word["entity"] for word in found] == ["B-per", "I-per"]
    chain = Chain(transitions, np.array([1, 0, 0]), np.zeros(3))
    p = marginals(np.zeros((4, 3)), chain)
    np.testing.assert_allclose([word["score"] for word in found], [p[0, 0], p[1, 1]], rtol=1e-5)
    assert tag("") == []


@pytest.mark.slow
def test_tags_with_a_chain_are_learned(tmp_path):
    pytest.importorskip("seqeval", reason="the extra `tasks` is not installed")
    head = mg.LabelHeadConfig(pool="none", crf=True)
    options = OPTIONS | {"workdir": tmp_path, "tokenizer": ByteTokenizer(), "head": head}
    run = mg.finetune(base("encoder"), mg.TaggedTextConfig(tag_column="tags"), train=SENTENCES, **options)
    assert run.evaluation["f1"] == 1 and 0 <= run.evaluation["loss"] < 0.5
    chain = chain_of(mg.load_run(tmp_path).params["head"])
    o, person = (run.config.model.head.output_names.index(tag) for tag in ("O", "B-per"))
    assert chain.start[o] > chain.start[person]  # no sentence begins with a name


def test_what_does_not_fit_is_refused(reviews, people, tmp_path):
    with pytest.raises(ValueError, match="use the pipeline 'token-classification'"):
        mg.pipeline("text-classification", model=people.workdir)
    with pytest.raises(ValueError, match="use the pipeline 'text-classification'"):
        mg.pipeline("token-classification", model=reviews.workdir)
    with pytest.raises(ValueError, match="task must be one of 'text-classification'"):
        mg.pipeline("sentiment", model=reviews.workdir)
    with pytest.raises(ValueError, match=r"pipeline\('text-classification'\) needs model="):
        mg.pipeline("text-classification")
    with pytest.raises(ValueError, match="model must be a HeadedConfig, got ModelConfig"):
        mg.pipeline("text-classification", model=base("decoder"), tokenizer=ByteTokenizer())
    with pytest.raises(ValueError, match="a model in memory needs a tokenizer"):
        mg.finetune(base("decoder"), mg.LabelledTextConfig(), train=REVIEWS, workdir=tmp_path)
    classify, tag = mg.pipeline(reviews.workdir), mg.pipeline(people.workdir)
    for inputs, found in (([1], "int"), (None, "NoneType"), (b"ab", "bytes"), ({"text": "a"}, "dict")):
        for call in (classify, tag):
            with pytest.raises(ValueError, match=f"inputs must be a text or a list of texts, got a {found}"):
                call(inputs)
    with pytest.raises(ValueError, match="the text holds the lone surrogate"):
        classify("a \ud83d")
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        classify("a", top_k=0)
    for top_k in (2.5, True, "1"):
        with pytest.raises(ValueError, match="top_k must be a whole number, got"):
            classify("a", top_k=top_k)
    for rows in (2.5, True, "2"):
        with pytest.raises(ValueError, match="rows must be a whole number, got"):
            mg.pipeline(reviews.workdir, rows=rows)
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        mg.pipeline(reviews.workdir, length=0)
    message = "batch is no option: the pipeline 'text-classification' has the options rows, length"
    with pytest.raises(ValueError, match=message):
        mg.pipeline(reviews.workdir, batch=4)
    memory = mg.ModelConfig(**SIZES, memory=mg.KVMemoryConfig(memory_size=16, head_dim=8))
    with pytest.raises(ValueError, match="knowledge is missing: the pipeline 'knowledge-question-answering' has"):
        mg.pipeline("knowledge-question-answering", model=(memory, {}), tokenizer=ByteTokenizer())
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        mg.pipeline(reviews.workdir, rows=0)
    with pytest.raises(ValueError, match="there is no such folder; for a pipeline by name, one of 'text-class"):
        mg.pipeline("sentiment-analysis")
    small = mg.ModelConfig(**SIZES | {"vocab_size": 50}, memory=mg.NoMemoryConfig())
    with pytest.raises(ValueError, match="the tokenizer has 257 ids, the model 50"):
        mg.pipeline("text-generation", model=(small, {}), tokenizer=ByteTokenizer())
    assert set(PIPELINES) >= {"text-classification", "token-classification", "text-generation"}


def test_an_encoder_reads_long_texts_in_calls_as_it_was_trained():
    """A row in calls of `call_length` equals these calls one after the other."""
    backbone = mg.EncoderConfig(**SIZES, memory=mg.KVMemoryConfig(memory_size=16, head_dim=8), heads=())
    config = mg.HeadedConfig(backbone=backbone, head=mg.LabelHeadConfig(num_outputs=3), call_length=16)
    model = mg.functional(config)
    params = random_params(model.config)
    tokens = np.random.default_rng(0).integers(256, size=(1, 64), dtype=np.int32)
    whole, _ = jax.jit(model.apply)(params, tokens, reset=np.arange(64)[None] == 0)
    (ends,) = document_outputs(config, params, [{"tokens": tokens[0]}], [np.arange(64)], rows=1, length=16)
    np.testing.assert_allclose(whole[0], ends, atol=1e-5)
    with pytest.raises(ValueError, match="tokens must be a multiple of call_length=16, got 20"):
        model.apply(params, tokens[:, :20])


@pytest.mark.parametrize("call", [pytest.param(24, marks=pytest.mark.slow), 16])
def test_a_text_of_any_length_is_read_in_calls_of_any_length(call):
    """Calls of a power of two would not do for calls of 24 tokens."""
    backbone = mg.EncoderConfig(**SIZES, memory=mg.KVMemoryConfig(memory_size=16, head_dim=8), heads=())
    config = mg.HeadedConfig(backbone=backbone, head=mg.LabelHeadConfig(num_outputs=3), call_length=call)
    model = config, random_params(config)
    found = [
        mg.pipeline("text-classification", model=model, tokenizer=ByteTokenizer(), length=length)("a" * 27)[0]["score"]
        for length in (call, 2 * call)
    ]
    assert found[0] == pytest.approx(found[1])
    with pytest.raises(ValueError, match=f"calls of {call + 8} tokens must be a multiple of model.call_length={call}"):
        mg.pipeline("text-classification", model=model, tokenizer=ByteTokenizer(), length=call + 8)("a")


@pytest.mark.parametrize("name", ["feature-extraction", "text-classification", "stream"])
def test_a_text_beyond_learned_positions_is_refused(name):
    backbone = mg.ModelConfig(**SIZES, memory=mg.NoMemoryConfig(), position="learned", num_positions=16)
    config = mg.HeadedConfig(backbone=backbone, head=mg.LabelHeadConfig(num_outputs=3))
    read = mg.pipeline(
        name.replace("stream", "text-classification"), model=(config, random_params(config)), tokenizer=ByteTokenizer()
    )
    with pytest.raises(
        ValueError, match=r"a text has \d+ tokens, and the model has learned positions for num_positions=16"
    ):
        [*read.stream("a text " for _ in range(5))] if name == "stream" else read("a text " * 5)


def test_a_validation_text_beyond_learned_positions_is_refused_before_training(tmp_path):
    config = mg.ModelConfig(**SIZES, memory=mg.NoMemoryConfig(), position="learned", num_positions=16)
    model = mg.from_params(config, random_params(config))
    rows = [{"text": f"text {number}", "label": number % 2} for number in range(4)]
    texts = {"train": rows, "valid": [rows[0] | {"text": "a" * 30}], "tokenizer": ByteTokenizer()}
    options = {"workdir": tmp_path / "run", "sequence_length": 16, "print_progress": False}
    with pytest.raises(mg.RunError, match="a text has 31 tokens, and the model has learned positions for"):
        mg.finetune(model, mg.LabelledTextConfig(), **texts, **options)
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_an_encoder_reads_as_many_tokens_in_a_call_as_it_has_positions():
    for positions in (48, 600):
        backbone = mg.EncoderConfig(
            **SIZES, memory=mg.NoMemoryConfig(), heads=(), num_positions=positions, position="learned"
        )
        config = mg.HeadedConfig(backbone=backbone, head=mg.LabelHeadConfig(num_outputs=3))
        assert (
            mg.pipeline("text-classification", model=(config, random_params(config)), tokenizer=ByteTokenizer()).length
            == positions
        )


def test_no_texts_have_no_vectors():
    for pool, shape in (("mean", (0, 32)), ("none", (0,))):
        vectors = mg.pipeline("feature-extraction", model=base("decoder"), tokenizer=ByteTokenizer(), pool=pool)
        assert np.shape(vectors([])) == shape


def test_vectors_are_the_hidden_states():
    model, tokenizer, text = base("decoder"), ByteTokenizer(), "two words of a text"
    ids = np.array([[tokenizer.start_id, *text.encode()]], np.int32)
    hidden = np.asarray(jax.jit(lambda: model.hidden(ids).stream)())
    vectors = mg.pipeline("feature-extraction", model=model, tokenizer=tokenizer, length=7)
    np.testing.assert_allclose(vectors(text), hidden, atol=1e-5)
    assert [array.shape for array in vectors([text, "a"])] == [hidden.shape, (1, 2, 32)]
    mean = mg.pipeline("feature-extraction", model=model, tokenizer=tokenizer, pool="mean")([text])
    expected = hidden.mean(axis=1)
    np.testing.assert_allclose(mean, expected / np.linalg.norm(expected), atol=1e-5)


def test_a_causal_model_without_a_head_writes():
    write = mg.pipeline("text-generation", model=base("decoder"), tokenizer=ByteTokenizer())
    (found,) = write("ab", max_new_tokens=3)
    assert found["generated_text"].startswith("ab")
    (answer,) = write("ab", max_new_tokens=3, return_full_text=False)
    assert "ab" + answer["generated_text"] == found["generated_text"]
    assert [len(row) for row in write(["a", "b"], max_new_tokens=2, num_return_sequences=2, temperature=1.0)] == [2, 2]


def test_rows_may_be_corrected_before_a_run_has_begun(tmp_path):
    options = OPTIONS | {"tokenizer": ByteTokenizer(), "workdir": tmp_path}
    with pytest.raises(ValueError, match="has no column 'label'"):
        mg.finetune(base("decoder"), mg.LabelledTextConfig(), train=[*REVIEWS, {"text": "no label"}], **options)
    with pytest.raises(ValueError, match=r"model\.head\.pool='none' does not fit"):  # the rows are those of this call
        mg.finetune(
            base("decoder"), mg.LabelledTextConfig(), train=REVIEWS, head=mg.LabelHeadConfig(pool="none"), **options
        )


@pytest.mark.slow
def test_other_examples_in_the_same_folder_are_refused_and_other_held_out_ones_are_read(tmp_path):
    options = OPTIONS | {"epochs": 1, "tokenizer": ByteTokenizer(), "workdir": tmp_path / "run"}
    files = {"train": tmp_path / "train.jsonl", "valid": tmp_path / "valid.jsonl"}

    def write(split, rows):
        files[split].write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run():
        return mg.finetune(base("decoder"), mg.LabelledTextConfig(), **files, **options).evaluation

    write("train", REVIEWS)
    write("valid", REVIEWS[:5])
    assert run()["examples"] == 5
    write("valid", REVIEWS[:9])
    assert run()["examples"] == 9
    write("train", REVIEWS[::-1])
    with pytest.raises(mg.RunError, match="the saved data position belongs to"):
        run()
    lists = options | {"workdir": tmp_path / "lists"}
    mg.finetune(base("decoder"), mg.LabelledTextConfig(), train=REVIEWS, **lists)
    with pytest.raises(ValueError, match=r"holds a run with other examples \(train\): choose another workdir"):
        mg.finetune(base("decoder"), mg.LabelledTextConfig(), train=REVIEWS[1:], **lists)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be positive, got 0"),
        ({"train": {"text": ["a"]}}, "train must be a list of dictionaries"),
        ({"train": [("a", 1)]}, "train, row 1 must be a dictionary by column, it is tuple"),
        ({"train": [{"text": "\ud83d", "label": 1}]}, "train, row 1 cannot be written as JSON"),
        ({"train": [{"text": "a", "label": object()}]}, "train, row 1 cannot be written as JSON: a object"),
        ({"memory": "kv"}, "memory must be a MemoryConfig, got str"),
        ({"head": mg.LabelHeadConfig(pool="none")}, "model.head.pool='none' does not fit a label for each text"),
        ({"head": mg.LabelHeadConfig(loss="binary")}, "model.head.loss='binary' needs several labels"),
        ({"task": mg.LabelledTextConfig(sample_rows=2)}, "task.sample_rows is for private training"),
        ({"model": "a folder"}, "model='a folder' has a tokenizer of its own"),
        ({"call_length": 48}, "training.sequence_length=64 must be a multiple of model.call_length=48"),
    ],
)
def test_arguments_of_finetune_that_are_refused(tmp_path, options, message):
    arguments = {"model": base("decoder"), "task": mg.LabelledTextConfig(), "train": REVIEWS}
    arguments |= {"tokenizer": ByteTokenizer(), "workdir": tmp_path} | OPTIONS | options
    with pytest.raises((ValueError, mg.RunError), match=message):
        mg.finetune(**arguments)


def test_a_start_from_a_model_with_a_head_keeps_its_labels_and_reads_texts_as_the_data_say(reviews, tmp_path):
    def start(rows, **changes):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = mg.LabelledTextConfig(train=str(tmp_path / "rows.jsonl"), tokenizer="pretrained", max_length=48)
        return dataclasses.replace(reviews.config, data=data, pretrained=str(reviews.workdir), **changes)

    head = prepare(start(REVIEWS), Hooks(None, None)).config.model.head
    assert head.output_names == ("bad", "good") and head.max_length == 48 and reviews.config.data.max_length != 48
    renamed = [row | {"label": row["label"].upper()} for row in REVIEWS]
    with pytest.raises(mg.RunError, match=r"output_names=\('bad', 'good'\), and the data need \('BAD', 'GOOD'\)"):
        prepare(start(renamed), Hooks(None, None))
    model = dataclasses.replace(reviews.config.model, head=mg.FusionHeadConfig())
    with pytest.raises(mg.RunError, match=r"has a LabelHeadConfig, but model\.head is a FusionHeadConfig"):
        prepare(start(REVIEWS, model=model), Hooks(None, None))


@pytest.mark.slow
def test_a_memory_of_the_pretrained_model_is_kept(tmp_path):
    config = mg.ModelConfig(**SIZES, window_size=16, memory=mg.KVMemoryConfig(memory_size=16, head_dim=8))
    model = mg.from_params(config, random_params(config, 3))
    task, options = mg.LabelledTextConfig(), OPTIONS | {"epochs": 0.1, "trainable": "head", "lr_multipliers": "head=2"}
    run = mg.finetune(model, task, train=REVIEWS, workdir=tmp_path, tokenizer=ByteTokenizer(), **options)
    assert run.config.optimizer.lr_multipliers == ("head=2",)
    assert run.config.model.backbone.memory == config.memory and run.config.data.labels == ("bad", "good")
    kept = mg.load_run(tmp_path).params["backbone"]
    jax.tree.map(np.testing.assert_array_equal, kept, mg.to_params(model))  # and only the head is trained


@pytest.mark.slow
def test_an_encoder_decoder_learns_with_both_stacks(tmp_path):
    stack = SIZES | {"memory": mg.NoMemoryConfig()}
    config = mg.Seq2SeqConfig(
        encoder=mg.EncoderConfig(**stack, heads=()), decoder=mg.ModelConfig(**stack, window_size=64, source_length=64)
    )
    model = mg.from_params(config, random_params(config))
    options = OPTIONS | {"epochs": 0.3, "workdir": tmp_path, "tokenizer": ByteTokenizer()}
    mg.finetune(model, mg.LabelledTextConfig(), train=REVIEWS, **options)
    before, after = mg.to_params(model)["encoder"], mg.load_run(tmp_path).params["backbone"]["encoder"]
    assert all(np.any(a != b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
