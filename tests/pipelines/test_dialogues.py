"""Slots of dialogues: what the system has asked, which is not scored, decides what the user's words mean."""

import json

import pytest

import memgpt_jax as mg
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from tests.laws.models import random_params

pytest.importorskip("seqeval", reason="the extra `tasks` is not installed")
MODEL = mg.EncoderConfig(
    vocab_size=257, d_model=32, num_layers=1, num_heads=2, segment_length=16, memory=mg.NoMemoryConfig(), heads=()
)

NAMES = ("Paris", "Sofia", "Sydney", "Austin", "Dallas")


def dialogue(slot, name):
    """A question of the system and the answer of the user, which is a slot as a whole."""
    span = {"slot": slot, "start": 0, "exclusive_end": len(name)}
    return {
        "turns": [
            {"speaker": "SYSTEM", "utterance": f"{slot}?", "frames": [{"slots": []}]},
            {"speaker": "USER", "utterance": name, "frames": [{"slots": [span]}]},
        ]
    }


@pytest.fixture(scope="module")
def slots(tmp_path_factory):
    """An encoder, fine-tuned to dialogues."""
    workdir = tmp_path_factory.mktemp("slots")
    train = workdir / "dialogues.jsonl"
    train.write_text("\n".join(json.dumps(dialogue(slot, name)) for slot in ("city", "who") for name in NAMES))
    params = random_params(MODEL)
    return mg.finetune(
        mg.from_params(MODEL, params),
        mg.TaggedTextConfig(form="sgd", tag_column="slots", valid=str(train)),
        train=str(train),
        workdir=workdir / "run",
        tokenizer=ByteTokenizer(),
        epochs=60,
        batch_size=4,
        sequence_length=64,
        learning_rate=3e-3,
        dropout=0.0,
        print_progress=False,
    )


def test_the_question_decides_the_slot_of_an_answer(slots):
    assert slots.evaluation["f1"] == slots.evaluation["accuracy"] == 1
    assert slots.evaluation["words"] == slots.evaluation["types"]["city"]["support"] * 2 == 10
    assert slots.evaluation["mistakes"] == []
    tag = mg.pipeline(slots.workdir)
    for slot in ("city", "who"):
        found = tag(f"SYSTEM: {slot}? USER: Sofia")[-1]
        assert (found["entity"], found["word"]) == (f"B-{slot}", "Sofia")
