"""A pretrained model gets a memory, which alone is trained, and four variants are measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax import models
from memgpt_jax.data import ByteTokenizer
from memgpt_jax.studies.commands import adapt
from tests.laws.models import random_params

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "adapt.py"
CONFIG = """
from memgpt_jax.config import EvaluationConfig, ExperimentConfig, ModelConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.memory import KVMemoryConfig


def config():
    return ExperimentConfig(
        model=ModelConfig(
            window_size=8,
            segment_length=8,
            memory=KVMemoryConfig(memory_size=16, head_dim=4),
            memory_layers=(1,),
            fusion="gated_add",
        ),
        data=TextConfig(corpus="folder", path="TEXTS", tokenizer="pretrained", cache_dir="CACHE"),
        optimizer=OptimizerConfig(warmup_steps=1, trainable=("memory_layer",)),
        training=TrainingConfig(steps=2, batch_size=2, sequence_length=16),
        evaluation=EvaluationConfig(max_documents=1, max_tokens=64, batch_size=1, chunk_length=16),
    )
"""


@pytest.fixture
def base(tmp_path):
    """A model without memory, and its tokenizer."""
    config = mg.ModelConfig(
        vocab_size=257, d_model=16, num_heads=2, num_layers=2, window_size=64, memory=mg.NoMemoryConfig()
    )
    model = mg.from_params(config, random_params(config))
    mg.save_pretrained(model, tmp_path / "base", tokenizer=ByteTokenizer())
    return model


@pytest.fixture
def words(base, tmp_path):
    """The words of the command line for a small experiment."""
    for split in ("train", "valid", "test"):
        folder = tmp_path / "texts" / split
        folder.mkdir(parents=True)
        for number in range(3):
            (folder / f"{number}.txt").write_text("a text that is long enough for several segments. " * (3 + number))
    text = CONFIG.replace("TEXTS", str(tmp_path / "texts")).replace("CACHE", str(tmp_path / "cache"))
    (tmp_path / "small.py").write_text(text)
    return [str(tmp_path / "small.py"), "--pretrained", str(tmp_path / "base"), "--workdir", str(tmp_path / "run")]


@pytest.mark.slow
def test_the_four_figures(base, words, tmp_path, memgpt):
    printed = memgpt("adapt", *words)

    results = json.loads((tmp_path / "run" / "adapt.json").read_text())
    full, window, untrained, trained = (results[name]["bits_per_byte"] for name in results)
    assert list(results) == ["full attention", "window", "window, memory untrained", "window, memory trained"]
    assert untrained == pytest.approx(window, abs=1e-6)
    assert len({full, window, trained}) == 3
    assert (tmp_path / "run" / "adapt.png").is_file()
    assert "window, memory trained: recovers" in printed

    adapted, frozen = mg.from_pretrained(tmp_path / "run"), models.to_params(base)
    moved = jax.tree.map(
        lambda old, new: not np.array_equal(old, new), frozen, pruned(models.to_params(adapted), frozen)
    )
    assert not any(jax.tree.leaves(moved))
    assert np.any(models.to_params(adapted)["blocks"]["1"]["memory_layer"]["memory"]["output"]["kernel"])


@pytest.mark.slow
def test_four_devices_give_the_figures_of_one(words, tmp_path):
    found = {}
    changes = ["--model.fusion", "attention", "--model.memory.qk_norm", "False", "--evaluation.max_documents", "2"]
    for devices, mesh in ((1, []), (4, ["--parallel.data", "2", "--parallel.tensor", "2"])):
        command = [sys.executable, SCRIPT, *words[:-1], tmp_path / str(devices), *changes, *mesh]
        command += ["--evaluation.batch_size", "2"]
        subprocess.run(command, check=True, env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)})
        results = json.loads((tmp_path / str(devices) / "adapt.json").read_text())
        found[devices] = [result["bits_per_byte"] for result in results.values()]
    assert len(found[1]) == 4
    assert found[4] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.slow
def test_a_variant_is_measured_again_where_its_settings_are_others(words, monkeypatch, memgpt):
    measured = []

    def counted(config, params, tokenizer):
        measured.append(config.evaluation.max_tokens)
        return {"bits_per_byte": float(len(measured)), "curve": []}

    monkeypatch.setattr(adapt, "evaluate", counted)
    for changes, number in (([], 3), ([], 3), (["--evaluation.max-tokens", "32"], 6), (["--training.steps", "3"], 9)):
        memgpt("adapt", *words, "--train", "False", *changes)
        assert len(measured) == number
    assert measured[3:] == [32] * 3 + [64] * 3


def pruned(tree, like):
    """The part of a tree that another one has too."""
    return {key: pruned(tree[key], like[key]) for key in like} if isinstance(like, dict) else tree
