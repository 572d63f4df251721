"""Configurations survive JSON, and differences are named."""

import dataclasses
import json
import sys

import pytest

from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.config.serialization import differences, differences_from_json, from_json, to_json
from memgpt_jax.data.tasks.recall import RecallConfig

CONFIGS = [
    ExperimentConfig(),
    ExperimentConfig(model=ModelConfig(memory=NoMemoryConfig()), data=RecallConfig(), seed=3),
    ExperimentConfig(
        model=ModelConfig(memory=KVMemoryConfig(gate="scale", bptt_segments=2), memory_layers=(0, 2)),
        data=TextConfig(corpus="folder", path="texts"),
    ),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_reads_back_equal(config):
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


def test_fields_that_an_older_version_did_not_write_take_their_defaults():
    values = to_json(ExperimentConfig(seed=5))
    del values["model"]["norm"]
    assert from_json(values) == ExperimentConfig(seed=5)


def test_unknown_fields_and_types_are_refused_with_the_valid_ones():
    values = to_json(ExperimentConfig())
    values["model"]["widht"] = 3
    with pytest.raises(ValueError, match=r"ModelConfig has no field 'widht'; valid: .*d_model"):
        from_json(values)
    values = to_json(ExperimentConfig())
    values["model"]["memory"] = {"type": "DiskMemoryConfig"}
    with pytest.raises(ValueError, match=r"'DiskMemoryConfig'; valid: .*NoMemoryConfig, .*KVMemoryConfig"):
        from_json(values)


def test_a_class_outside_of_the_package_is_imported_by_name(tmp_path, monkeypatch):
    (tmp_path / "tokens_of_someone.py").write_text(
        "import dataclasses\nfrom memgpt_jax.config.memory import MemoryConfig\n\n"
        "@dataclasses.dataclass(frozen=True, kw_only=True)\nclass KVMemoryConfig(MemoryConfig):\n    rank: int = 1\n"
    )
    (tmp_path / "broken_of_someone.py").write_text("1 / 0\n")
    values = to_json(ExperimentConfig())
    values["model"]["memory"] = {"type": "KVMemoryConfig", "import": "tokens_of_someone:KVMemoryConfig", "rank": 7}
    with pytest.raises(ValueError, match=r"'KVMemoryConfig' .*tokens_of_someone.*No module named.*import the module"):
        from_json(values)
    monkeypatch.syspath_prepend(tmp_path)
    memory = from_json(values).model.memory
    assert (type(memory).__module__, memory.rank) == ("tokens_of_someone", 7)
    assert type(from_json(to_json(ExperimentConfig())).model.memory) is KVMemoryConfig
    moved = dataclasses.replace(ExperimentConfig(), model=ModelConfig(memory=memory))
    assert not [line for line in differences(ExperimentConfig(), moved) if ".import" in line]
    values["model"]["memory"]["import"] = "broken_of_someone:Config"
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        from_json(values)
    values["model"]["memory"]["import"] = "numpy:ndarray"
    with pytest.raises(ValueError, match=r"numpy:ndarray, which is no configuration that is valid here"):
        from_json(values)


@pytest.mark.parametrize("module", ["unittest.__main__", "this", "pip.__main__"])
def test_a_module_of_python_and_a_program_are_not_imported(module, capsys):
    values = to_json(ModelConfig())
    values["memory"] |= {"import": f"{module}:Config"}
    imported = set(sys.modules)
    with pytest.raises(ValueError, match=r"cannot be imported \(ValueError: it is no module that defines"):
        from_json(values, (ModelConfig,))
    assert not capsys.readouterr().out and module not in set(sys.modules) - imported


def test_differences_name_each_field_with_both_values():
    old = ExperimentConfig()
    assert differences(old, ExperimentConfig()) == []
    assert differences(old, ExperimentConfig(seed=1)) == ["seed: 0 → 1"]
    model = dataclasses.replace(old.model, memory=NoMemoryConfig())
    changed = differences(old, dataclasses.replace(old, model=model))
    assert "model.memory.type: 'KVMemoryConfig' → 'NoMemoryConfig'" in changed
    assert "model.memory.memory_size: 1024 → absent" in changed


def test_a_stored_config_is_compared_without_being_built(tmp_path, monkeypatch):
    """Absent fields have their defaults; no module is imported."""
    for config in CONFIGS:
        assert differences_from_json(json.loads(json.dumps(to_json(config))), config) == []
    values = to_json(CONFIGS[2])
    del values["model"]["memory"]["evict"], values["model"]["norm"], values["seed"]
    assert differences_from_json(values, CONFIGS[2]) == []
    values["model"]["memory"]["gate"], values["model"]["d_model"] = "none", "wide"
    found = differences_from_json(values, CONFIGS[2], ignored=("gate",))
    assert found == ["model.d_model: 'wide' → 128"]
    (tmp_path / "forged_module.py").write_text("raise SystemExit\n")
    monkeypatch.syspath_prepend(tmp_path)
    values["model"]["memory"] |= {"type": "X", "import": "forged_module:X"}
    assert "model.memory.type: 'X' → 'KVMemoryConfig'" in differences_from_json(values, CONFIGS[2])
    assert differences_from_json(3, CONFIGS[2]) == ["int → ExperimentConfig"]
