"""The trained part of a run, saved alone and put over its pretrained model again."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import memgpt_jax as mg
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.files import checksums
from memgpt_jax.interop.adapters import SETTINGS, TENSORS, added_parameters, fingerprint
from memgpt_jax.ops.trees import named_leaves
from memgpt_jax.training.optimizer import is_trained
from memgpt_jax.training.pretrained import pretrained_start
from tests.laws.models import random_params
from tests.laws.runs import untrained_run

SIZES = {"vocab_size": 257, "d_model": 16, "num_layers": 1, "num_heads": 2, "segment_length": 16}
REVIEWS = [{"text": f"a {word} film {n}", "label": word} for n in range(6) for word in ("fine", "dull")]
TRAINABLE = ("head", "lora", "memory_layer", "final_norm")


def save_base(folder, seed=0, **changes):
    config = mg.ModelConfig(**SIZES | changes, window_size=32, memory=mg.NoMemoryConfig())
    model = mg.from_params(config, random_params(config, seed))
    mg.save_pretrained(model, folder, tokenizer=ByteTokenizer())
    return folder


def made_run(base, workdir, trainable=TRAINABLE):
    """A run over a base, of which every trained parameter differs from its start, in place of a training."""
    memory = mg.KVMemoryConfig(memory_size=8, head_dim=8)
    backbone = mg.ModelConfig(memory=memory, fusion="gated_add", adapter_rank=2, segment_length=16)
    start = pretrained_start(
        mg.ExperimentConfig(
            model=mg.HeadedConfig(backbone=backbone, head=mg.LabelHeadConfig(output_names=("dull", "fine"))),
            data=mg.LabelledTextConfig(tokenizer="byte"),
            pretrained=str(base),
            optimizer=mg.OptimizerConfig(trainable=trainable),
            evaluation=mg.EvaluationConfig(chunk_length=32),
        )
    )
    params, rng = start.params(start.config), np.random.default_rng(0)
    new = jax.tree.map(lambda leaf: np.float32(np.asarray(leaf) + rng.normal(scale=0.1, size=leaf.shape)), params)
    params = jax.tree.map(
        lambda old, new, trained: new if trained else old, params, new, is_trained(start.config.optimizer, params)
    )
    return untrained_run(start.config, workdir, params)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """`base`; `run`, of which head, LoRA, memory and one norm are trained; and its `adapters`."""
    root = tmp_path_factory.mktemp("adapters")
    made_run(save_base(root / "base"), root / "run")
    before = checksums.digests(root / "run")
    mg.save_pretrained(root / "run", root / "adapters", only="trained")
    assert checksums.digests(root / "run") == before  # the run is resumed as if nothing had been saved
    return root


def test_the_model_is_the_same_bitwise(root):
    found = mg.from_pretrained(root / "base", adapters=root / "adapters")
    run = mg.load_run(root / "run")
    assert found.config == run.config.model
    jax.tree.map(np.testing.assert_array_equal, mg.to_params(found), run.params)


def test_only_trained_and_added_parameters_are_saved(root):
    names = load_file(root / "adapters" / TENSORS).keys()
    base = named_leaves(mg.to_params(mg.from_pretrained(root / "base")))
    assert {name for name in names if name.removeprefix("backbone/") in base} == {"backbone/final_norm/scale"}
    whole = named_leaves(mg.load_run(root / "run").params)
    assert names == whole.keys() - {f"backbone/{name}" for name in base.keys() - {"final_norm/scale"}}


def test_a_pipeline_has_the_scores_of_the_run(root):
    texts = ["a fine film 3", "a dull film 4", "a fine, fine film" * 5]
    classify = mg.pipeline("text-classification", model=root / "base", adapters=root / "adapters")
    of_run = mg.pipeline(root / "run")
    assert classify(texts) == of_run(texts) and classify.length == of_run.length == 32


def test_a_run_can_be_saved_whole(root, tmp_path):
    mg.save_pretrained(root / "run", tmp_path / "whole")
    whole = mg.from_pretrained(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, mg.to_params(whole), mg.load_run(root / "run").params)
    assert mg.load_tokenizer(tmp_path / "whole").encode("abc") == [97, 98, 99]


def test_another_base_is_refused_and_both_are_named(root, tmp_path):
    def refused(base):
        with pytest.raises(ValueError) as caught:
            mg.from_pretrained(base, adapters=root / "adapters")
        assert repr(str(base)) in str(caught.value) and repr(str(root / "base")) in str(caught.value)
        return str(caught.value)

    assert "its weights differ (SHA-256" in refused(save_base(tmp_path / "seed", seed=1))
    assert "wrong shape: backbone/embedding is [257, 32], must be [257, 16]" in refused(
        save_base(tmp_path / "wide", d_model=32)
    )


@pytest.mark.parametrize("name", [TENSORS, SETTINGS])
def test_a_truncated_file_is_refused(name, root, tmp_path):
    folder = shutil.copytree(root / "adapters", tmp_path / "adapters")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(checksums.DamagedError, match=f"{name} differs from its checksum"):
        mg.from_pretrained(root / "base", adapters=folder)
    (folder / checksums.SUMS).unlink()
    with pytest.raises(ValueError, match=name):
        mg.from_pretrained(root / "base", adapters=folder)


def test_missing_and_other_parameters_are_refused(root, tmp_path):
    folder = shutil.copytree(root / "adapters", tmp_path / "adapters")
    tensors = load_file(folder / TENSORS)
    (folder / checksums.SUMS).unlink()
    others = {
        "missing: backbone/final_norm/scale": {
            name: array for name, array in tensors.items() if name != "backbone/final_norm/scale"
        },
        "has tensors that are not in adapters.json: other": tensors | {"other": np.zeros(2, np.float32)},
        "wrong shape: head/output/bias": tensors | {"head/output/bias": np.zeros(3, np.float32)},
    }
    for message, changed in others.items():
        save_file(changed, folder / TENSORS)
        with pytest.raises(ValueError, match=message):
            mg.from_pretrained(root / "base", adapters=folder)
    values = json.loads((folder / SETTINGS).read_text())
    (folder / SETTINGS).write_text(json.dumps({name: values[name] for name in values if name != "base_sha256"}))
    with pytest.raises(ValueError, match=r"adapters.json: the settings of the model are not valid: KeyError"):
        mg.from_pretrained(root / "base", adapters=folder)


def test_what_has_no_adapters_is_refused(root, tmp_path):
    with pytest.raises(ValueError, match="trained all parameters"):
        mg.save_pretrained(made_run(root / "base", tmp_path / "all", ()), tmp_path / "a", only="trained")
    with pytest.raises(ValueError, match="needs the folder of a run"):
        mg.save_pretrained(mg.from_pretrained(root / "base"), tmp_path / "a", only="trained")
    with pytest.raises(ValueError, match="only must be 'trained' or None, got 'lora'"):
        mg.save_pretrained(root / "run", tmp_path / "a", only="lora")
    with pytest.raises(ValueError, match=r"holds a model \(config.json\): choose another folder"):
        mg.save_pretrained(root / "run", root / "base", only="trained")
    with pytest.raises(ValueError, match=r"holds a run \(checkpoints\): choose another folder"):
        mg.save_pretrained(root / "run", root / "run", only="trained")
    with pytest.raises(ValueError, match="holds no adapters"):
        mg.from_pretrained(root / "base", adapters=root / "base")
    with pytest.raises(ValueError, match="holds adapters: give the pretrained model"):
        mg.from_pretrained(root / "adapters")
    with pytest.raises(ValueError, match="adapters= needs model="):
        mg.pipeline(root / "run", adapters=root / "adapters")
    assert not (tmp_path / "a").exists()


def test_the_fingerprint_depends_on_paths_shapes_and_values():
    params = {"a": np.array([[1.0, 0.0]], np.float32), "b": np.array([2.0], np.float32)}
    same = {"b": params["b"], "a": np.array([[1.0, -0.0]], np.float32)}  # an update of 0 turns -0 into 0
    others = [
        {"a": params["a"], "c": params["b"]},
        params | {"a": params["a"].T},
        params | {"b": np.array([np.nextafter(np.float32(2), np.float32(3))], np.float32)},
    ]
    assert fingerprint(same) == fingerprint(params)
    assert len({fingerprint(other) for other in [params, *others]}) == 4


def test_heads_of_an_encoder_are_added_parameters():
    config = mg.EncoderConfig(**SIZES, memory=mg.NoMemoryConfig(), heads=("masked",))
    plain = mg.EncoderConfig(**SIZES, memory=mg.NoMemoryConfig(), heads=())
    added = added_parameters(config)
    assert added and not added & set(named_leaves(mg.functional(plain).param_shapes()))
    headed = mg.HeadedConfig(backbone=config, head=mg.LabelHeadConfig())
    assert {f"backbone/{name}" for name in added} | {"head/output/kernel"} <= added_parameters(headed)


@pytest.mark.slow
def test_training_leaves_the_other_parameters_unchanged(tmp_path):
    """After a real training, with weight decay and dropout, the base and the adapters are the run bitwise."""
    pytest.importorskip("sklearn", reason="the extra `tasks` is not installed")
    memory = mg.KVMemoryConfig(memory_size=8, head_dim=8)
    options = {"epochs": 2, "batch_size": 4, "sequence_length": 32, "learning_rate": 1e-2, "print_progress": False}
    base, task = save_base(tmp_path / "base"), mg.LabelledTextConfig()
    options |= {"memory": memory, "adapter_rank": 2, "trainable": TRAINABLE, "patience": 5}
    run = mg.finetune(base, task, train=REVIEWS, workdir=tmp_path / "run", **options)
    mg.save_pretrained(run.workdir, tmp_path / "adapters", only="trained")
    found = mg.from_pretrained(base, adapters=tmp_path / "adapters")
    best = mg.load_run(run.workdir / "best")
    jax.tree.map(np.testing.assert_array_equal, mg.to_params(found), best.params)
    resumed = mg.finetune(base, task, train=REVIEWS, workdir=tmp_path / "run", **options)
    assert resumed.evaluation == run.evaluation


def test_adapters_keep_the_task_of_their_run_without_its_paths(tmp_path):
    data = mg.TextPairsConfig(train="folder/of/mine.jsonl", tokenizer="byte", prompt="Q {source} A ", max_new_tokens=3)
    start = pretrained_start(
        mg.ExperimentConfig(
            model=mg.ModelConfig(memory=mg.NoMemoryConfig(), adapter_rank=2, segment_length=16),
            data=data,
            pretrained=str(save_base(tmp_path / "base")),
            optimizer=mg.OptimizerConfig(trainable=("lora",)),
        )
    )
    untrained_run(start.config, tmp_path / "run", start.params(start.config))
    mg.save_pretrained(tmp_path / "run", tmp_path / "adapters", only="trained")
    assert "mine" not in (tmp_path / "adapters" / SETTINGS).read_text()
    write = mg.pipeline("translation", model=tmp_path / "base", adapters=tmp_path / "adapters")
    assert write.config == dataclasses.replace(data, train="", cache_dir="")
    assert write("ab") == mg.pipeline("translation", model=tmp_path / "run")("ab")
