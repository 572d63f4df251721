"""bAbI: parsing of files and stories, rows by brute force, and the published files."""

import gzip

import numpy as np
import pytest

from memgpt_jax.config.experiment import ExperimentConfig, TrainingConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data import BabiTask, train_batches
from memgpt_jax.data.tasks.babi import BLANK, PADDING, BabiConfig
from memgpt_jax.data.tasks.babi_files import Line, babi_files, parse_stories, read_stories, words_of
from tests.laws.real_data import DATA
from tests.references.batches import arrays_of

REAL = DATA / "babi" / "en"
NAMES = ("Mary", "John", "Sandra")
ROOMS = ("office", "garden", "kitchen")


def movements(seed: int, stories: int) -> str:
    """Stories like those of task 1: two moves, a question, two moves, a question."""
    random, text = np.random.default_rng(seed), ""
    for _ in range(stories):
        where = {}
        for number in range(1, 7):
            if number % 3:
                name, room = NAMES[random.integers(3)], ROOMS[random.integers(3)]
                where[name] = (room, number)
                text += f"{number} {name} went to the {room}.\n"
            else:
                name = sorted(where)[random.integers(len(where))]
                text += f"{number} Where is {name}? \t{where[name][0]}\t{where[name][1]}\n"
    return text


LISTS = "1 Mary got the milk.\n2 Mary got the apple there.\n3 What is Mary carrying?\tmilk,apple\t1 2\n" * 4


@pytest.fixture
def folder(tmp_path):
    for part, seed, stories in (("train", 0, 20), ("test", 1, 7)):
        (tmp_path / f"qa1_single_{part}.txt").write_text(movements(seed, stories))
        with gzip.open(tmp_path / f"qa8_lists-sets_{part}.txt.gz", "wt") as file:
            file.write(LISTS)
    (tmp_path / "notes.txt").write_text("not a task")
    return tmp_path


def make(folder, split="test", **changes) -> BabiTask:
    return BabiTask(BabiConfig(**{"path": str(folder), "tasks": (1, 8)} | changes), split)


def text_of(task: BabiTask, tokens: np.ndarray) -> list[str]:
    names = {number: word for word, number in task.words.items()} | {PADDING: "_", BLANK: "?!"}
    return [names[token] for token in tokens.tolist()]


def answers(stories: list) -> list[str]:
    return [line.answer for story in stories for line in story if line.answer is not None]


def test_files_and_stories(folder):
    files = babi_files(str(folder))
    assert set(files) == {(task, part) for task in (1, 8) for part in ("train", "test")}
    (story, *others) = read_stories(files, 8, "test", 0.1)
    assert len(others) == 3 and story[2] == Line("What is Mary carrying?", "milk,apple", (0, 1))
    train, valid = (read_stories(files, 1, split, 0.25) for split in ("train", "valid"))
    assert train + valid == parse_stories(movements(0, 20).splitlines(), "") and len(valid) == 5
    for story in train:  # the supporting line names the person and the place
        for line in story:
            if line.answer:
                assert line.answer in story[line.supports[0]].text and line.text[9:13] in story[line.supports[0]].text


def test_ids_do_not_depend_on_the_chosen_tasks(folder):
    task, one = make(folder), make(folder, tasks=(8,))
    assert task.words == one.words and task.groups == ("qa1", "qa8")
    assert {"milk,apple", "milk", "apple", "?", ".", "mary", "office"} < set(task.words)
    assert sorted(task.words.values()) == list(range(2, 2 + len(task.words)))
    assert words_of("Is it Mary's, Fred?") == ["is", "it", "mary's", ",", "fred", "?"]


def test_rows_by_brute_force(folder):
    task = make(folder, "train")
    batch = task.batch(0, 16, 80)
    dtypes = {"tokens": np.int32, "targets": np.int32, "reset": bool, "weights": np.float32, "target_bytes": np.int32}
    for name, dtype in dtypes.items():
        array = arrays_of(batch)[name]
        assert array.shape == (16, 80) and array.dtype == dtype
    assert set(batch.info["group"]) == {0, 1} and not batch.info["target_bytes"].any()
    files = babi_files(str(folder))
    known = [
        {" ".join(story_words(story)) for story in read_stories(files, task_number, "train", 0.1)}
        for task_number in (1, 8)
    ]
    for i in range(16):
        tokens, targets, weights = (arrays["tokens"][i] for arrays in batch[:3])
        assert (targets[:-1] == tokens[1:]).all()
        words = text_of(task, np.append(tokens, targets[-1]))
        starts = np.flatnonzero(batch.inputs["reset"][i]).tolist()
        assert starts[0] == 0 and len(starts) > 1
        for start, end in zip(starts, [*starts[1:], 81], strict=True):
            assert " ".join(words[start:end]).rstrip(" _") in known[batch.info["group"][i]]
        asked = [words[place] for place in np.flatnonzero(weights)]
        assert asked == ["?"] * words.count("?") and len(asked) >= 2


def story_words(story) -> list[str]:
    return [word for line in story for word in (*words_of(line.text), *([line.answer] if line.answer else []))]


@pytest.mark.parametrize(("length", "rows"), [(60, 4), (34, 3), (17, 2), (60, 64)])
def test_every_question_once(folder, length, rows):
    task = make(folder, long_stories="cut")
    found, groups = [], []
    for batch in task.held_out(0, rows, length, 1):
        assert batch.inputs["tokens"].shape == (rows, length)
        asked = batch.weights["tokens"] > 0
        found += text_of(task, batch.targets["tokens"][asked])
        groups += np.broadcast_to(batch.info["group"][:, None], asked.shape)[asked].tolist()
    expected = [answers(read_stories(babi_files(str(folder)), number, "test", 0.1)) for number in (1, 8)]
    assert found == [answer for part in expected for answer in part]
    assert groups == [0] * 14 + [1] * 4


def test_long_stories_lose_whole_sentences_at_their_start(folder):
    task = make(folder, tasks=(1,), long_stories="cut")
    story = read_stories(babi_files(str(folder)), 1, "test", 0.1)[0]
    whole = story_words(story)  # 34 words
    for length in range(17, 34):
        first, second = (text_of(task, piece[0]) for piece in task.pieces(length)[0][:2])
        lines = [story_words([line]) for line in story]
        ends = np.cumsum([len(line) for line in lines])
        assert first == whole[: max(end for end in ends if end <= length)]
        # As many whole lines as fit end with the second question.
        fitting = max(n for n in range(1, 7) if sum(map(len, lines[-n:])) <= length)
        assert second == [word for line in lines[-fitting:] for word in line]
        assert [int(piece[2].sum()) for piece in task.pieces(length)[0][:2]] == [1, 1]
    with pytest.raises(ValueError, match=r"a story of qa1 has 34 tokens, a row 33: set training.sequence_length"):
        make(folder, tasks=(1,)).batch(0, 2, 33)
    with pytest.raises(ValueError, match="a question of qa1 has 5 tokens, a row only 4"):
        task.batch(0, 2, 4)


def test_answers_can_be_hidden(folder):
    shown, hidden = (make(folder, show_answers=show).batch(3, 8, 60) for show in (True, False))
    answer = np.roll(shown.weights["tokens"], 1, axis=1) > 0
    answer[:, 0] = False
    assert (hidden.inputs["tokens"][answer] == BLANK).all() and (hidden.inputs["tokens"] == shown.inputs["tokens"])[
        ~answer
    ].all()
    for name in ("targets", "weights", "reset", "group"):
        assert (arrays_of(hidden)[name] == arrays_of(shown)[name]).all()
    part = make(folder, tasks=(1,), show_answers=False, long_stories="cut").pieces(33)[0][1]
    assert (part[1] == BLANK).sum() == 2 and part[2].sum() == 1  # also where the question was asked in a row before


def test_padded_sentences_do_not_share_segments(folder):
    plain, aligned = (make(folder, tasks=(8,), sentence_length=size) for size in (None, 4))
    (row,) = aligned.held_out(0, 1, 96, 1)
    words = text_of(aligned, row.inputs["tokens"][0])
    assert " ".join(words[:20]) == "mary got the milk . _ _ _ mary got the apple there . _ _ what is mary carrying"
    assert words[20:24] == ["?", "milk,apple", "_", "_"]
    assert np.flatnonzero(row.weights["tokens"][0]).tolist() == [20, 44, 68, 92]
    assert np.flatnonzero(row.inputs["reset"][0]).tolist() == [0, 24, 48, 72]
    (row,) = plain.held_out(0, 1, 96, 1)
    assert " ".join(text_of(plain, row.inputs["tokens"][0])[:6]) == "mary got the milk . mary"


def test_streams_resume(folder):
    config, shape = BabiConfig(path=str(folder), tasks=(1, 8)), TrainingConfig(batch_size=3, sequence_length=40)
    whole, resumed = (train_batches(config, shape, 5) for _ in range(2))
    first, second = (next(whole) for _ in range(2))
    next(resumed)
    assert (next(resumed).inputs["tokens"] == second.inputs["tokens"]).all() and (
        first.inputs["tokens"] != second.inputs["tokens"]
    ).any()


def test_refused(folder, tmp_path):
    for values, message in (
        ({"tasks": (0, 1)}, r"tasks must be distinct numbers from 1 to 20, at least one, got \(0, 1\)"),
        ({"tasks": ()}, "at least one"),
        ({"tasks": (2, 2)}, "distinct"),
        ({"valid_share": 1.0}, "valid_share must be between 0 and 1, got 1.0"),
        ({"num_words": 0}, "num_words must be at least 1, got 0"),
        ({"sentence_length": 0}, "sentence_length must be None or at least 1, got 0"),
        ({"long_stories": "crop"}, "long_stories must be one of 'error', 'cut', got 'crop'"),
    ):
        with pytest.raises(ValueError, match=message):
            BabiConfig(**values)
    for changes, message in (
        ({"path": None}, "data.path=None must be a folder of bAbI's files"),
        ({"path": str(tmp_path / "absent")}, "must be a folder of bAbI's files"),
        ({"tasks": (3,)}, r"holds no train file of task 3 \(qa3_"),
        ({"valid_share": 0.01}, "too short for data.valid_share=0.01: valid has no story"),
        ({"num_words": 20}, r"needs 2\d ids, but data.num_words is 20: set data.num_words and model.vocab_size"),
    ):
        with pytest.raises(ValueError, match=message):
            make(folder, "train" if "tasks" in changes else "valid", **changes)
    with pytest.raises(ValueError, match="vocab_size=100 must be at least 256"):
        ExperimentConfig(model=ModelConfig(vocab_size=100), data=BabiConfig())
    for text, message in (
        ("1 A.\n3 B.\n", r"f, line 2: expected '2 statement' or .*, got '3 B.'"),
        ("2 A.\n", "line 1: expected '1 statement'"),
        ("1 A?\tb\t1\n", "numbers of earlier lines"),
        ("1 A.\n2 A?\t\t1\n", "line 2"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_stories(text.splitlines(), "f")
    (folder / "qa1_again_train.txt").write_text("1 A.\n")
    with pytest.raises(ValueError, match="are both the train file of task 1: keep one"):
        babi_files(str(folder))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not there: MEMGPT_DATA names the folder of real data")
def test_the_published_files():
    task = BabiTask(BabiConfig(path=str(REAL), long_stories="cut"), "test")
    asked = np.zeros(20)
    for batch in task.held_out(0, 64, 256, 1):
        np.add.at(asked, batch.info["group"], batch.weights["tokens"].sum(1))
    assert (asked == 1000).all()
    batch = BabiTask(BabiConfig(path=str(REAL), tasks=(19,)), "train").batch(0, 4, 64)
    assert all("," in word for word in text_of(task, batch.targets["tokens"][batch.weights["tokens"] > 0]))
