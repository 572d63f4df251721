"""The choice of a dialogue's next turn, from data to prediction: the first turn decides which reply is right."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.config.experiment import TrainingConfig
from memgpt_jax.data import batch_shapes, make_task
from memgpt_jax.data.tasks.labelled_text import cut, document_ids
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.evaluation import evaluate
from memgpt_jax.evaluation.documents import end_outputs
from memgpt_jax.evaluation.metrics.ranking import reply_metrics
from memgpt_jax.models.heads.vectors import contrast
from tests.laws.models import random_params
from tests.laws.real_data import DATA
from tests.pipelines.resuming import check_resuming

SGD = DATA / "dialogue" / "sgd_multi"
BYTES = ByteTokenizer()
SIZES = {"vocab_size": 257, "d_model": 32, "num_layers": 1, "num_heads": 2, "segment_length": 16}
ANSWERS = {"train": "A seat?", "hotel": "A room?", "film": "Which one?", "bank": "How much?"}


def dialogue(place, number):
    """Four turns: a wish, its reply, a number, and a reply that is the same in all dialogues."""
    said = [("USER", f"{number} {place}"), ("SYSTEM", ANSWERS[place]), ("USER", str(number)), ("SYSTEM", "Done.")]
    return {"turns": [{"speaker": speaker, "utterance": text} for speaker, text in said]}


def written(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Sixteen dialogues, four of each place."""
    records = [dialogue(place, number) for number in range(4) for place in ANSWERS]
    path = written(tmp_path_factory.mktemp("dialogues") / "a.jsonl", records)
    return mg.RepliesConfig(train=path, valid=path, reply_speaker="SYSTEM", max_length=16, candidates=5)


@pytest.fixture(scope="module")
def run(task, tmp_path_factory):
    config = mg.EncoderConfig(**SIZES, memory=mg.NoMemoryConfig(), heads=())
    base = mg.from_params(config, random_params(config))
    options = {"epochs": 12, "batch_size": 16, "sequence_length": 16, "learning_rate": 3e-3, "dropout": 0.0}
    workdir = tmp_path_factory.mktemp("run")
    return mg.finetune(base, task, workdir=workdir, tokenizer=BYTES, print_progress=False, **options)


def test_the_reply_that_fits_the_history_is_found(run):
    assert run.evaluation["replies"] == 32 and run.evaluation["recall_1_interval"] == [1, 1]
    assert run.evaluation["recall_1"] == run.evaluation["mrr"] == 1 and run.evaluation["loss"] < 0.3


def test_the_pipeline_reads_the_end_of_a_history_as_the_evaluation_does(run, task):
    vectors, train = mg.pipeline(run.workdir), make_task(task, "train", BYTES)
    history = "I have said a lot before.\n0 film"
    scores = vectors([*ANSWERS.values()]) @ vectors(history)
    assert np.argmax(scores) == [*ANSWERS].index("film")
    config, params = mg.load_run(run.workdir).config, mg.load_run(run.workdir).params
    (expected,) = end_outputs(config.model, params, [train.ids(history)], rows=1, length=16)
    assert len(train.ids(history)) == 16
    np.testing.assert_allclose(vectors(history), expected, atol=1e-5)
    np.testing.assert_array_equal(vectors(f"\n{history}".replace(" ", "  ")), vectors(history))


def test_a_resumed_run_is_the_same_bitwise(run, tmp_path):
    check_resuming(run, tmp_path)


def test_every_turn_of_the_speaker_after_the_first_is_a_reply(tmp_path):
    said = [("BOT", "Hi."), ("ME", "a  b"), ("BOT", "c"), ("BOT", "d"), ("ME", "e")]
    objects = [{"who": speaker, "said": text} for speaker, text in said]
    path = written(tmp_path / "a.jsonl", [{"talk": objects, "list": [text for _, text in said]}, {"talk": objects[:3]}])
    fields = {"text_column": "talk", "utterance_field": "said", "speaker_field": "who"}
    config = mg.RepliesConfig(train=path, valid=path, reply_speaker="BOT", **fields)
    task = make_task(config, "valid", BYTES)
    assert task.replies == [(0, "Hi.\na b", "c"), (0, "Hi.\na b\nc", "d"), (1, "Hi.\na b", "c")]
    assert task.texts == ["c", "d"] and list(task.answers) == [0, 1, 0]
    path = written(tmp_path / "b.jsonl", [{"turns": [text for _, text in said]}])
    texts = make_task(mg.RepliesConfig(train=path, valid=path), "valid", BYTES)  # of every speaker, from plain texts
    assert [reply.text for reply in texts.replies] == ["a b", "c", "d", "e"]
    assert texts.replies[-1].history == "Hi.\na b\nc\nd"


def test_the_last_tokens_are_kept():
    ids = document_ids(BYTES, "abcdef")
    assert bytes(cut(BYTES, ids, 4, "left")[1:].tolist()) == b"def" and cut(BYTES, ids, 4, "left")[0] == ids[0]
    assert np.array_equal(cut(BYTES, ids, 7, "left"), ids) and bytes(cut(BYTES, ids, 4)[1:].tolist()) == b"abc"

    separated = ByteTokenizer()
    separated.special_ids = {"sep": 1}  # a token at the end of a text stays there
    assert document_ids(separated, "abcdef", 4, "left")[1:].tolist() == [*b"ef", 1]
    assert document_ids(separated, "abcdef", 4)[1:].tolist() == [*b"ab", 1]


def test_batches_are_histories_and_replies_and_equal_replies_belong_together(task):
    train = make_task(task, "train", BYTES)
    batch = next(iter(train.batches(0, 32, 16)))
    shapes = jax.tree.map(lambda array: (array.shape, array.dtype), batch)
    training = TrainingConfig(batch_size=32, sequence_length=16)
    assert shapes == jax.tree.map(lambda array: (array.shape, array.dtype), batch_shapes(task, training))
    tokens, valid = batch.inputs["tokens"], batch.inputs["valid"]
    texts = [bytes(row[flags][1:].tolist()).decode() for row, flags in zip(tokens, valid, strict=True)]
    numbers = batch.targets["pairs"].sum(axis=1)
    assert np.array_equal(numbers[::2], -numbers[1::2]) and (numbers[::2] > 0).all()
    assert texts.count("Done.") >= 2 and len(set(numbers[1::2])) == len(set(texts[1::2]))
    kept = {reply.history[-15:]: reply.text for reply in train.replies}
    assert all(kept[history] == reply for history, reply in zip(texts[::2], texts[1::2], strict=True))
    # With vectors that are equal for equal replies, and those of the histories equal to their reply's, all is right.
    vectors = np.eye(8, dtype=np.float32)[abs(numbers)]
    losses, correct = contrast(jnp.asarray(vectors), jnp.asarray(numbers), 0.01)
    assert correct.all() and np.abs(losses).max() < 1e-6


def test_candidates_are_those_of_the_draws(task):
    valid = make_task(task, "valid", BYTES)
    choices = valid.choices()
    draws = np.random.default_rng(0).integers(32, size=(32, 4))
    for reply, row, drawn in zip(valid.replies, choices, draws, strict=True):
        assert [valid.texts[place] for place in row] == [reply.text, *(valid.replies[place].text for place in drawn)]


@pytest.mark.slow
def test_the_evaluation_is_that_of_plain_loops_for_any_calls(task):
    """Each history against its different candidates; a decoder may read in any calls."""
    memory = mg.KVMemoryConfig(memory_size=8, head_dim=8)
    backbone = mg.ModelConfig(**SIZES | {"segment_length": 4}, window_size=4, memory=memory)
    model = mg.HeadedConfig(backbone=backbone, head=mg.VectorHeadConfig(temperature=0.5))
    params = random_params(model, 1)
    valid = make_task(task, "valid", BYTES)
    texts = [*{reply.history for reply in valid.replies[:9]}, *valid.texts]
    found = end_outputs(model, params, [valid.ids(text) for text in texts], rows=4, length=16)
    vectors = dict(zip(texts, found, strict=True))
    ranks, losses, numbers = [], [], []
    for reply, row in zip(valid.replies[:9], valid.choices(), strict=False):
        others = [valid.texts[place] for place in {*row[1:]} if valid.texts[place] != reply.text]
        numbers.append(1 + len(others))
        own, *rest = (float(vectors[reply.history] @ vectors[text]) for text in (reply.text, *others))
        ranks.append(1 + sum(score > own for score in rest))
        losses.append(np.log(sum(np.exp(score / 0.5) for score in (own, *rest))) - own / 0.5)
    for length in (4, 16):
        settings = mg.EvaluationConfig(batch_size=4, chunk_length=length, max_documents=9)
        config = mg.ExperimentConfig(model=model, data=task, pretrained="x", evaluation=settings)
        found = evaluate(config, params, BYTES)
        assert found["mrr"] == pytest.approx(np.mean(1 / np.array(ranks))) and found["replies"] == 9
        assert found["recall_1"] == pytest.approx(np.mean(np.array(ranks) == 1))
        assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
        assert found["candidates"] == pytest.approx(np.mean(numbers)) and 1 < found["candidates"] < 5
    assert len(set(ranks)) > 1


def test_metrics_of_hand_made_ranks():
    found = reply_metrics([np.array([1.0, 1.5]), np.array([2.0, 4.0])])
    assert found["recall_1"] == 0.5 and found["mrr"] == pytest.approx((1 + 1 / 1.5 + 1 / 2 + 1 / 4) / 4)
    assert found["recall_1_interval"] == [0, 1]


@pytest.mark.parametrize(
    ("turns", "options", "message"),
    [
        ("Hi.", {}, r"a.jsonl, line 1: field 'turns' must be a list, it is a str"),
        (["Hi.", "You."], {"reply_speaker": "BOT"}, "line 1, turn 1 must be a JSON object with 'speaker', it is a str"),
        ([{"text": "Hi."}], {}, "line 1, turn 1 has no field 'utterance'; it has 'text'"),
        (["Hi.", " "], {}, "line 1, turn 2: the reply is empty"),
        (["Hi."], {}, "split 'train' has no reply: no turn follows another$"),
        ([{"speaker": "A", "utterance": "a"}] * 2, {"reply_speaker": "B"}, "data.reply_speaker='B'.* speakers are A"),
        (["Hi."], {"candidates": 1}, "data.candidates must be at least 2, got 1"),
        (["Hi."], {"max_length": 2}, "data.max_length must be at least 3, got 2"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, turns, options, message):
    path = written(tmp_path / "a.jsonl", [{"turns": turns}])
    with pytest.raises(ValueError, match=message):
        make_task(mg.RepliesConfig(train=path, valid=path, **options), "train", BYTES)


@pytest.mark.skipif(not SGD.is_dir(), reason="the dialogues of SGD are absent")
def test_the_published_dialogues():
    test = {"test": str(SGD / "dev.jsonl.gz"), "test_every": 4, "test_fold": 3}
    task = make_task(mg.RepliesConfig(train="none", **test, reply_speaker="SYSTEM"), "test", BYTES)
    assert len(task.replies) == 1223 and len(task.texts) == 1136 and task.choices().shape == (1223, 20)
    assert task.replies[0] == (0, "Find me something cool to do.", "What category shall I search?")
