"""Key-value retrieval: rows are parsed with `json`; and the published file."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from memgpt_jax.data import JsonRecallTask
from memgpt_jax.data.tasks.json_recall import JSON_CHARACTERS, JsonRecallConfig
from tests.laws.real_data import DATA
from tests.references.batches import arrays_of

REAL = DATA / "recall" / "kv-retrieval-75_keys.jsonl.gz"
CONFIGS = [
    JsonRecallConfig(),
    JsonRecallConfig(num_pairs=16, key_length=1, value_length=3, num_questions=16),
    JsonRecallConfig(num_pairs=3, key_length=20, value_length=1, num_questions=1),
]


def check_rows(config: JsonRecallConfig, batch) -> list[list[str]]:
    """Check that every row is an object and questions whose answers are the values of their keys; return these keys."""
    shape = (len(batch.inputs["tokens"]), config.row_length)
    dtypes = {"tokens": np.int32, "targets": np.int32, "reset": bool, "weights": np.float32, "answer": np.int32}
    for name, dtype in dtypes.items():
        array = arrays_of(batch)[name]
        assert array.shape == shape and array.dtype == dtype
    assert ((batch.info["answer"] > 0) == batch.weights["tokens"]).all() and batch.inputs[
        "tokens"
    ].max() < config.num_ids
    asked = []
    for tokens, targets, answer in zip(
        batch.inputs["tokens"], batch.targets["tokens"], batch.info["answer"], strict=True
    ):
        assert (targets[:-1] == tokens[1:]).all()
        text = "".join(JSON_CHARACTERS[i] for i in [*tokens, targets[-1]]).rstrip("\n")
        if not text:
            assert not answer.any()
            continue
        first, *questions = text.split("\n")
        stored = json.loads(first)
        assert len(stored) == config.num_pairs and len(questions) == config.num_questions == answer.max()
        assert {len(key) for key in stored} == {config.key_length}
        asked.append([])
        for number, question in enumerate(questions, start=1):
            ((key, value),) = json.loads("{" + question + "}").items()
            assert stored[key] == value == "".join(JSON_CHARACTERS[i] for i in targets[answer == number])
            assert len(value) == config.value_length
            asked[-1].append(key)
        assert len(set(asked[-1])) == config.num_questions
    return asked


@pytest.mark.parametrize("config", CONFIGS)
def test_rows_by_brute_force(config):
    task = JsonRecallTask(config, "train")
    check_rows(config, task.batch(0, 16, config.row_length))
    first, again, other = (task.batch(seed, 4, 0).inputs["tokens"] for seed in (5, 5, 6))
    assert (first == again).all() and (first != other).any() and (first[0] != first[1]).any()
    assert config.row_length % 64 == 0


def published(folder: Path, records: int = 5, pairs: int = 6) -> Path:
    path = folder / "kv.jsonl.gz"
    with gzip.open(path, "wt") as file:
        for i in range(records):
            stored = [[f"{16 * i + j:04x}", f"{7 * j + i:03x}"] for j in range(pairs)]
            key, value = stored[i]
            file.write(json.dumps({"ordered_kv_records": stored, "key": key, "value": value}) + "\n")
    return path


def test_published_file(tmp_path):
    path = published(tmp_path)
    for pairs, questions in ((6, 1), (3, 2), (1, 1)):
        config = JsonRecallConfig(
            num_pairs=pairs, key_length=4, value_length=3, num_questions=questions, path=str(path)
        )
        batches = list(JsonRecallTask(config, "test").held_out(0, 2, config.row_length, 99))
        assert len(batches) == 3
        asked = [keys for batch in batches for keys in check_rows(config, batch)]
        assert [keys[0] for keys in asked] == [f"{17 * i:04x}" for i in range(5)]
    training = JsonRecallTask(config, "train").held_out(0, 2, config.row_length, 3)
    assert len([check_rows(config, batch) for batch in training]) == 3


def test_refused(tmp_path):
    for values, message in (
        ({"num_pairs": 0}, "num_pairs must be at least 1, got 0"),
        ({"num_questions": 9}, "num_questions=9 must be at most num_pairs=8"),
        ({"num_pairs": 17, "key_length": 1}, r"num_pairs=17, and that at most 16 \*\* key_length=1"),
    ):
        with pytest.raises(ValueError, match=message):
            JsonRecallConfig(**values)

    def refuse(message: str, **values):
        sizes = {"num_pairs": 3, "key_length": 4, "value_length": 3, "num_questions": 1}
        with pytest.raises(ValueError, match=message):
            JsonRecallTask(JsonRecallConfig(**sizes | values), "valid")

    path = published(tmp_path)
    refuse("must be a .jsonl or .jsonl.gz file", path=str(tmp_path / "absent.jsonl"))
    refuse(r"kv.jsonl.gz, line 1 holds 6 pairs .* at least data.num_pairs=7", path=str(path), num_pairs=7)
    refuse(r"holds keys and values of \[\(4, 3\)\] characters, not of data.key_length=5", path=str(path), key_length=5)
    plain = tmp_path / "kv.jsonl"
    for text, message in (
        ("no json", "kv.jsonl, line 1 is not JSON"),
        ("[]", "kv.jsonl, line 1 must be a JSON object, it is a list"),
        ("{}", "kv.jsonl, line 1 must be a JSON object with ordered_kv_records"),
        ('{"ordered_kv_records": [["a", "b"]], "key": "c", "value": "b"}', "one of these as key and value"),
        ('{"ordered_kv_records": [["z", "b"]], "key": "z", "value": "b"}', "holds characters other than"),
    ):
        plain.write_text(text)
        refuse(message, path=str(plain), num_pairs=1, key_length=1, value_length=1)


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not there: MEMGPT_DATA names the folder of real data")
def test_the_original_published_file():
    config = JsonRecallConfig(num_pairs=75, key_length=36, value_length=36, num_questions=1, path=str(REAL))
    batches = JsonRecallTask(config, "test").held_out(0, 50, config.row_length, 1)
    assert sum(len(check_rows(config, batch)) for batch in batches) == 500
