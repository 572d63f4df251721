"""bAbI and BABILong by the command lines that a user types, on tiny files."""

import json
from pathlib import Path

import pytest

CONFIG = """
from memgpt_jax.config import *
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.data.tasks.babi import BabiConfig
from memgpt_jax.data.tasks.babilong import BabiLongConfig

def config():
    model = ModelConfig(
        vocab_size=300, d_model=16, num_layers=1, num_heads=2, window_size=16, segment_length=16,
        memory=KVMemoryConfig(memory_size=32, head_dim=8),
    )
    return ExperimentConfig(
        model=model,
        data={data},
        training=TrainingConfig(steps=2, batch_size=2, sequence_length=96, carry_state=False),
        evaluation=EvaluationConfig(split="test", batch_size=2, num_batches=1, chunk_length=64),
    )
"""
STORY = "1 Ann is in the den.\n2 Where is Ann?\tden\t1\n"
TASKS = {
    "babi": 'BabiConfig(path="{folder}", tasks=(1, 4), valid_share=0.5)',
    "babilong": 'BabiLongConfig(path="{folder}", valid_share=0.5, text=TextConfig('
    'corpus="folder", path="{folder}/corpus", tokenizer="byte", cache_dir="{folder}/cache"))',
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Files of two tasks and a corpus, and configs of tiny models on them."""
    for name in ("qa1_one", "qa4_four"):
        for part in ("train", "test"):
            (tmp_path / f"{name}_{part}.txt").write_text(STORY * 4)
    for split in ("train", "test"):
        (tmp_path / "corpus" / split).mkdir(parents=True)
        (tmp_path / "corpus" / split / "a.txt").write_text("Nothing happened. " * 40)
    for name, data in TASKS.items():
        config = CONFIG.replace("{data}", data).replace("{folder}", str(tmp_path))
        (tmp_path / f"{name}.py").write_text(config)
    return tmp_path


@pytest.mark.slow
def test_babi_by_task(folder, memgpt):
    workdir = folder / "run"
    assert "accuracy" in memgpt("train", folder / "babi.py", "--workdir", workdir)
    results = json.loads((workdir / "evaluation.json").read_text())
    assert set(results["groups"]) == {"qa1", "qa4"} and results["answers"] == 8
    assert results["failed_tasks"] == sum(accuracy < 0.95 for accuracy in results["groups"].values())
    text = memgpt("evaluate", workdir, "--change", "data.tasks=4")
    (comparison,) = json.loads((workdir / "comparison.json").read_text()).values()
    assert comparison["answers"] == 4 and comparison["groups"] == {"qa4": pytest.approx(results["groups"]["qa4"])}
    assert "failed tasks" in text and "qa4" in text and "qa1" not in text
    assert "was not trained on BABILong" in memgpt("babilong", workdir, code=2)


@pytest.mark.slow
def test_babilong_at_several_lengths(folder, memgpt):
    workdir = folder / "run"
    memgpt("train", folder / "babilong.py", "--workdir", workdir)
    text = memgpt("babilong", workdir, "--lengths", 300, 100, "--num-rows", 3)
    (points,) = json.loads((workdir / "babilong.json").read_text()).values()
    assert [(point["length"], point["answers"]) for point in points] == [(100, 4), (300, 4)]
    assert all(point["groups"] == {"qa1": point["accuracy"]} for point in points) and "300" in text
    assert (workdir / "babilong.png").read_bytes().startswith(b"\x89PNG")
    assert "do not fit into a row" in memgpt("babilong", workdir, "--lengths", 20, code=2)
