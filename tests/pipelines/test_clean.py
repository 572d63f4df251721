"""Texts are cleaned as in training: the head of a run remembers how, and spans index the original text."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.config.serialization import from_json, to_json
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.training import train
from memgpt_jax.training.start import completed
from tests.laws.models import random_params

pytest.importorskip("phonenumbers", reason="the extra `tasks` is not installed")
CLEAN = mg.CleanConfig(unicode="NFKC", html=True, control=True, scrub=("mail", "phone"), lower=True, whitespace=True)
BACKBONE = mg.ModelConfig(
    vocab_size=257, d_model=16, num_layers=1, num_heads=2, segment_length=16, window_size=16, memory=mg.NoMemoryConfig()
)

BYTES = ByteTokenizer()
TEXTS = ["<p>A  FINE\x00 \ufb01lm, write to ada@example.org</p>", "Dull.", "<br>"]
CLEANED = ["a fine film, write to [mail]", "dull.", ""]


def pipelines(name, head=mg.LabelHeadConfig(num_outputs=3), **changes):  # noqa: B008 — it is frozen
    """The same model with changes of its head, by default with cleaning, and without."""
    heads = dataclasses.replace(head, **(changes or {"clean": CLEAN})), head
    configs = [mg.HeadedConfig(backbone=BACKBONE, head=head) for head in heads]
    params = random_params(configs[0])
    return [mg.pipeline(name, model=(config, params), tokenizer=BYTES) for config in configs]


def test_labels_are_those_of_the_cleaned_text():
    cleaning, plain = pipelines("text-classification")
    assert [mg.data.clean(text, CLEAN).text for text in TEXTS] == CLEANED
    assert cleaning(TEXTS, top_k=None) == plain(CLEANED, top_k=None) != plain(TEXTS, top_k=None)
    with pytest.raises(ValueError, match="stream cannot clean texts, and the run does: CleanConfig"):
        next(cleaning.stream(["a"]))


def test_numbers_and_vectors_are_those_of_the_cleaned_text():
    cleaning, plain = pipelines("text-regression", mg.ScalarHeadConfig())
    assert cleaning(TEXTS) == plain(CLEANED) != plain(TEXTS)
    cleaning, plain = pipelines("feature-extraction")
    for found, same in zip(cleaning(TEXTS), plain(CLEANED), strict=True):
        np.testing.assert_array_equal(found, same)


@pytest.mark.parametrize(
    ("name", "head"),
    [("text-classification", mg.LabelHeadConfig(num_outputs=3)), ("text-regression", mg.ScalarHeadConfig())],
)
def test_the_end_of_a_long_text_is_read_where_the_head_says_so(name, head):
    cut, plain = pipelines(name, head, max_length=9, truncation_side="left")
    assert cut("It was not a dull film") == plain("ull film") != plain("It was n")
    if name == "text-classification":
        with pytest.raises(ValueError, match="truncation_side='left'"):
            next(cut.stream(["a"]))


def test_tagged_words_are_cleaned_and_keep_their_places():
    head = mg.LabelHeadConfig(num_outputs=3, pool="none", output_names=("O", "B-x", "I-x"))
    cleaning, plain = pipelines("token-classification", head)
    text = "😀 E\u0301COLE  \ufb01n call 020 7946 0958 \x00 Now"
    found, words = cleaning(text), ["😀", "école", "fin", "call", *["[phone]"] * 3, "", "now"]
    assert all(text[item["start"] : item["end"]] == item["word"] for item in found) and found
    same = plain.of_words(words)
    assert [item["index"] for item in found] == [item["index"] for item in same]
    np.testing.assert_allclose([item["score"] for item in found], [item["score"] for item in same], rtol=1e-5)


def test_a_run_remembers_how_its_texts_are_cleaned(tmp_path):
    rows = [{"text": f"<b>A &amp; {i}</b>", "label": "ab"[i % 2], "score": i} for i in range(12)]
    rows.append({"text": "<i>", "label": "a", "score": 0})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = mg.LabelledTextConfig(train=str(tmp_path / "a.jsonl"), tokenizer="byte", clean=CLEAN)
    config = mg.ExperimentConfig(
        model=mg.HeadedConfig(backbone=BACKBONE, head=mg.LabelHeadConfig()),
        data=data,
        training=mg.TrainingConfig(sequence_length=16, carry_state=False),
        evaluation=mg.EvaluationConfig(chunk_length=16),
    )
    whole = completed(config)
    assert whole.model.head.clean == CLEAN
    assert from_json(json.loads(json.dumps(to_json(whole)))) == whole
    for split, text in (("train", "a & 0"), ("valid", "a & 9")):
        task = mg.tasks.make_task(whole.data, split, BYTES)
        assert task.examples[0].text == text and bytes(task.ids[0][1:].astype(np.uint8)).decode() == text
    scores = mg.ScoredTextConfig(train=data.train, number_column="score", tokenizer="byte", clean=CLEAN)
    task = mg.tasks.make_task(scores, "valid", BYTES)
    assert bytes(task.documents[0]["tokens"][1:].astype(np.uint8)).decode() == "a & 9"
    train = mg.tasks.make_task(whole.data, "train", BYTES)
    assert train.examples[-1].text == "" and len(train.ids[-1]) == 1  # nothing remains but the start


@pytest.mark.slow
def test_a_run_on_cleaned_and_augmented_texts_resumes_bitwise(tmp_path):
    """Killed after its last but one checkpoint; its pipeline cleans what it is given."""
    words = {"good": ("FINE", "<b>Lovely</b>", "Great"), "bad": ("DULL", "<i>Awful</i>", "Slow")}
    rows = [{"text": f"a {w} film {i}", "label": label} for i in range(7) for label in words for w in words[label]]
    task = mg.LabelledTextConfig(clean=CLEAN, augment=mg.AugmentConfig(swap=0.1, delete=0.1, insert=0.1))
    model = mg.from_params(BACKBONE, random_params(BACKBONE))
    options = {"epochs": 40, "batch_size": 4, "sequence_length": 64, "learning_rate": 1e-2, "dropout": 0.0}
    run = mg.finetune(model, task, train=rows, workdir=tmp_path / "run", tokenizer=BYTES, **options)
    whole = mg.load_run(run.workdir)
    steps = sorted(int(path.name) for path in (run.workdir / "checkpoints").iterdir() if path.name.isdecimal())
    shutil.rmtree(run.workdir / "checkpoints" / str(steps[-1]))
    assert mg.load_run(run.workdir).step == steps[-2] < steps[-1]
    train(whole.config, run.workdir, print_progress=False)
    jax.tree.map(np.testing.assert_array_equal, mg.load_run(run.workdir).params, whole.params)
    classify = mg.pipeline(run.workdir)
    assert classify("<p>A lovely</p>") == classify("A  LOVELY\x00")
    assert [found["label"] for found in classify(["a GREAT film 3", "a <b>dull</b> film 2"])] == ["good", "bad"]


def test_cleaning_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"data.clean.stop_words='en' would remove words that have tags"):
        mg.TaggedTextConfig(clean=mg.CleanConfig(stop_words="en"))
    with pytest.raises(ValueError, match=r"data.clean.lower=True removes the case"):
        mg.TaggedTextConfig(clean=mg.CleanConfig(lower=True), case_as_token_type=True)
    with pytest.raises(ValueError, match=r"head.clean must be the default: questions"):
        mg.SpanHeadConfig(clean=CLEAN)
