"""`memgpt-jax zero_shot`: a pretrained model is evaluated as it is."""

import json

import pytest

import memgpt_jax as mg
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.data import ByteTokenizer
from memgpt_jax.evaluation import evaluate
from tests.laws.models import random_params

PASSAGES = ["She was in Rome, and he came to Rome", "No, said Ada. Yes, said Ada"]
CONFIG = """
import memgpt_jax as mg

def config():
    return mg.ExperimentConfig(
        model=mg.ModelConfig(memory=mg.KVMemoryConfig(memory_size=8), fusion="gated_add", fusion_bias=0.0,
                             window_size=64, segment_length=64),
        data=mg.TextPairsConfig(valid={path!r}, train={path!r}, form="lambada", prompt="{{source}} ",
                                metrics=("begins",), max_new_tokens=4),
        pretrained="none",
        evaluation=mg.EvaluationConfig(batch_size=2, chunk_length=64),
    )
"""


@pytest.fixture
def files(tmp_path):
    model = mg.ModelConfig(
        vocab_size=257,
        d_model=16,
        num_layers=1,
        num_heads=2,
        memory=NoMemoryConfig(),
        window_size=64,
        segment_length=64,
    )
    base = mg.from_params(model, random_params(model))
    mg.save_pretrained(base, tmp_path / "base", tokenizer=ByteTokenizer())
    data = tmp_path / "lambada.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in PASSAGES))
    (tmp_path / "words.py").write_text(CONFIG.format(path=str(data)))
    return tmp_path, base


def test_the_results_are_those_of_the_pretrained_model(files, memgpt):
    folder, base = files
    words = ["zero_shot", folder / "words.py", "--pretrained", folder / "base", "--output", folder / "out" / "a.json"]
    printed = memgpt(*words)
    found = json.loads((folder / "out" / "a.json").read_text())
    data = mg.TextPairsConfig(
        valid=str(folder / "lambada.jsonl"),
        train=str(folder / "lambada.jsonl"),
        form="lambada",
        prompt="{source} ",
        metrics=("begins",),
        max_new_tokens=4,
    )
    config = mg.ExperimentConfig(model=base.config, data=data, evaluation=mg.EvaluationConfig(chunk_length=64))
    expected = evaluate(config, mg.to_params(base), ByteTokenizer())
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5)  # the new memory changes nothing
    assert found["begins"] == expected["begins"] and found["examples"] == 2 and found["seconds"] > 0
    assert f"{found['loss']:.4f}" in printed


def test_a_head_that_the_weights_lack_is_refused(tmp_path, memgpt):
    model = mg.EncoderConfig(vocab_size=260, d_model=16, num_layers=1, num_heads=2, memory=NoMemoryConfig(), heads=())
    base = mg.from_params(model, random_params(model))
    mg.save_pretrained(base, tmp_path, tokenizer=ByteTokenizer())
    error = memgpt("zero_shot", "crows_pairs_masked", "--pretrained", tmp_path, code=2)
    assert error.startswith("error: ") and "has no head 'masked'" in error


def test_a_config_without_weights_is_one_clear_line(files, memgpt):
    error = memgpt("zero_shot", files[0] / "words.py", "--pretrained", files[0] / "nowhere", code=2)
    assert error.startswith("error: ") and "nowhere" in error and "Traceback" not in error
