"""BABILong: rows are decoded to text and checked by brute force."""

import dataclasses
import re

import numpy as np
import pytest

from memgpt_jax.data import BabiLongTask, ByteTokenizer
from memgpt_jax.data.tasks.babi_files import babi_files, read_stories
from memgpt_jax.data.tasks.babilong import BabiLongConfig
from tests.references.batches import arrays_of

TEXT = "".join(f"It was day {number}! Nothing happened on it. " for number in range(300))
STORIES = """1 Mary went to the office.
2 John went to the garden.
3 Where is Mary? \toffice\t1
4 Mary went to the hall.
5 Where is John? \tgarden\t2
6 Where is Mary? \thall\t4
"""


@pytest.fixture
def config(folder_config, tmp_path):
    """Stories of two tasks among bytes of text."""
    for part in ("train", "test"):
        (tmp_path / f"qa1_moves_{part}.txt").write_text(STORIES * 3)
        (tmp_path / f"qa6_yes-no_{part}.txt").write_text(
            "1 Mary is in the attic.\n2 Is Mary in the attic?\tyes\t1\n" * 3
        )
    text = folder_config({"train": [TEXT], "valid": [TEXT.replace("day", "night")]})
    return BabiLongConfig(
        text=text, path=str(tmp_path), tasks=(1, 6), num_answers=6, valid_share=0.34, train_on_all_questions=False
    )


def test_rows_by_brute_force(config, tmp_path):
    task = BabiLongTask(config, "train")
    assert task.answers == ["garden", "hall", "office", "yes"] and task.groups == ("qa1", "qa6")
    stories = [read_stories(babi_files(str(tmp_path)), number, "train", 0.34)[0] for number in (1, 6)]
    batch = task.batch(0, 40, 400)
    dtypes = {"tokens": np.int32, "targets": np.int32, "reset": bool, "weights": np.float32, "target_bytes": np.int32}
    for name, dtype in dtypes.items():
        array = arrays_of(batch)[name]
        assert array.shape == (40, 400) and array.dtype == dtype
    asked = set()
    for tokens, targets, weights, group in zip(
        batch.inputs["tokens"], batch.targets["tokens"], batch.weights["tokens"], batch.info["group"], strict=True
    ):
        assert (targets[:-1] == tokens[1:]).all() and np.flatnonzero(weights).tolist() == [399]
        text = bytes(tokens[tokens < 256].tolist()).decode()
        answer = task.answers[targets[-1] - ByteTokenizer.vocab_size]
        (index,) = (i for i, x in enumerate(stories[group]) if x.answer == answer and text.endswith(f" {x.text}"))
        line, told = stories[group][index], [x.text for x in stories[group][:index] if x.answer is None]
        context = text.removesuffix(" " + line.text)
        # The statements are all there, in order, each between sentences, and the rest is the corpus.
        pattern = "|".join(map(re.escape, told))
        assert re.findall(pattern, context) == told
        for match in re.finditer(f" ({pattern})", context):
            assert match.start() == 0 or context[match.start() - 1] in ".!" or (tokens == 256).any()
        rest = re.sub(f" ({pattern})", "", context)
        assert rest in TEXT * 2 and len(rest) > 200
        asked.add((group, index))
    assert asked == {(0, 2), (0, 4), (0, 5), (1, 1)}
    assert (batch.info["target_bytes"] == (batch.targets["tokens"] < 256)).all()
    assert batch.inputs["reset"].sum() == 40 and batch.inputs["reset"][:, 0].all()


def test_statements_are_at_random_places(config):
    task = BabiLongTask(config, "train")
    statement = (np.array([300, 301], np.int32),)
    places = [int(np.flatnonzero(task.hide(np.random.default_rng(i), statement, 2000) == 300)[0]) for i in range(600)]
    assert min(places) < 100 and max(places) > 1900
    assert np.histogram(places, 10, (0, 2000))[0].min() > 30


def test_all_questions_in_training(config):
    dense = dataclasses.replace(config, train_on_all_questions=True)
    batch = BabiLongTask(dense, "train").batch(0, 40, 400)
    for tokens, targets, weights, group in zip(
        batch.inputs["tokens"], batch.targets["tokens"], batch.weights["tokens"], batch.info["group"], strict=True
    ):
        places = np.flatnonzero(weights)
        text = bytes(tokens[tokens < 256].tolist()).decode()
        assert places[-1] == 399 and len(places) == len(re.findall(r"Where is \w+\?|Is Mary in the attic\?", text))
        expected = [2, 0, 1] if group == 0 else [3]  # office, garden, hall; yes
        assert (targets[places] - ByteTokenizer.vocab_size).tolist() == expected[: len(places)]
        assert all(bytes(tokens[place - 4 : place + 1].tolist()).endswith(b"?") for place in places)
    held_out = [BabiLongTask(c, "valid").batch(0, 4, 400) for c in (dense, config)]
    assert (held_out[0].inputs["tokens"] == held_out[1].inputs["tokens"]).all() and (
        held_out[0].weights["tokens"].sum(1) == 1
    ).all()


def test_splits_seeds_and_any_length(config):
    train, valid = (BabiLongTask(config, split) for split in ("train", "valid"))

    def read(task):
        return bytes(task.batch(0, 1, 3000).inputs["tokens"][0].clip(max=255).tolist())

    assert b"day" in read(train) and b"day" not in read(valid) and b"night" in read(valid)
    first, again, other = (train.batch(seed, 4, 200).inputs["tokens"] for seed in (5, 5, 6))
    assert (first == again).all() and (first != other).any()
    assert train.batch(0, 1, 100_000).inputs["tokens"].shape == (1, 100_000)
    assert [batch.inputs["tokens"].shape for batch in valid.held_out(0, 2, 150, 3)] == [(2, 150)] * 3


def test_refused(config, tmp_path):
    for values, message in (
        ({"tasks": (21,)}, "tasks must be distinct numbers from 1 to 20"),
        ({"num_answers": 0}, "num_answers must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            BabiLongConfig(**values)
    few = BabiLongConfig(text=config.text, path=config.path, tasks=(1, 6), num_answers=3, valid_share=0.34)
    with pytest.raises(
        ValueError, match=r"have 4 answers, but data.num_answers is 3: .* model.vocab_size to at least 261"
    ):
        BabiLongTask(few, "valid")
    with pytest.raises(ValueError, match=r"do not fit into a row: set training.sequence_length to more"):
        BabiLongTask(config, "train").batch(0, 20, 40)
