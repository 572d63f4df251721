"""Settings of a pretrained model that are not used survive a load and a save unchanged."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

import memgpt_jax as mg
from memgpt_jax import models
from memgpt_jax.checkpoint import Checkpoints
from memgpt_jax.data import ByteTokenizer
from memgpt_jax.interop.origin import Origin
from memgpt_jax.training.pretrained import pretrained_start
from memgpt_jax.training.saving import save_run
from memgpt_jax.training.state import state_of
from tests.references import foreign

EXTRA = {
    "bos_token_id": 1,
    "eos_token_id": [2, 5],
    "pad_token_id": None,
    "transformers_version": "4.40.1",
    "torch_dtype": "bfloat16",
    "initializer_range": 0.02,
    "use_cache": True,
    "task_specific_params": {"summarization": {"max_length": 200, "prefix": "caf\u00e9: "}},
    "id2label": {"0": "no", "1": "yes"},
}
GENERATION = {"eos_token_id": [2, 7], "do_sample": True, "top_p": 0.9, "stop_strings": ["\n\n"], "max_length": 4096}


def write(case, folder, extra=EXTRA, generation=GENERATION):
    """A foreign model with settings that we do not use."""
    foreign.write(case, folder)
    values = foreign.CASES[case] | extra
    values = {"architectures": ["LlamaForCausalLM"]} | values if values["model_type"] == "llama" else values
    (folder / "config.json").write_text(json.dumps(values))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def read(folder, name="config.json"):
    return json.loads((folder / name).read_text())


def names_of(values, *left):
    return {key: value for key, value in values.items() if key not in left}


ROUND_TRIPS = ["llama", "llama3", "llama_biases", "mistral", "qwen2", "gpt2", "bert_masked", "roberta", "t5", "xlnet"]


@pytest.mark.parametrize("case", ROUND_TRIPS)
def test_unused_settings_survive_load_and_save(case, tmp_path):
    extra = EXTRA if case != "roberta" else EXTRA | {"pad_token_id": 1}  # which says where its positions begin
    folder = write(case, tmp_path / "base", extra)
    model = mg.from_pretrained(folder)
    assert model.origin.stop_ids == (2, 7)
    mg.save_pretrained(model, tmp_path / "again")
    expected, got = read(folder), read(tmp_path / "again")
    assert names_of(got, "architectures") == names_of(expected, "architectures") | {"torch_dtype": "float32"}
    assert got["architectures"] == expected.get("architectures", got["architectures"])
    assert read(tmp_path / "again", "generation_config.json") == GENERATION
    assert mg.from_pretrained(tmp_path / "again").config == model.config


def test_settings_of_a_changed_model_replace_those_of_the_origin(tmp_path):
    folder = write("mistral", tmp_path / "base")
    model = mg.from_pretrained(folder, window_size=5, dtype="bfloat16")
    mg.save_pretrained(model, tmp_path / "again")
    got = read(tmp_path / "again")
    assert got["sliding_window"] == 5
    kept = {key: got[key] for key in EXTRA if key != "torch_dtype"}
    assert kept == names_of(EXTRA, "torch_dtype") and got["torch_dtype"] == "float32"
    assert mg.from_pretrained(tmp_path / "again").config.window_size == 5


def test_a_model_with_memory_keeps_the_origin(tmp_path):
    base = mg.from_pretrained(write("llama", tmp_path / "base"))
    model = mg.add_memory(base, mg.KVMemoryConfig(memory_size=5, head_dim=4), segment_length=4)
    assert model.origin is base.origin
    mg.save_pretrained(model, tmp_path / "again")
    again = mg.from_pretrained(tmp_path / "again")
    assert again.config == model.config and again.origin.stop_ids == (2, 7)
    assert names_of(read(tmp_path / "again"), "memgpt").keys() == read(tmp_path / "base").keys()


def test_a_run_keeps_the_origin(tmp_path):
    """The run keeps it in `workdir/pretrained`, because the pretrained model may be deleted before the run is read."""
    folder = write("llama", tmp_path / "base")
    memory = mg.KVMemoryConfig(memory_size=8, head_dim=4)
    model = mg.ModelConfig(vocab_size=257, memory=memory, window_size=8, segment_length=8, fusion="gated_add")
    start = pretrained_start(
        mg.ExperimentConfig(model=model, data=mg.TextConfig(tokenizer="byte"), pretrained=str(folder))
    )
    params = start.params(start.config)
    np.testing.assert_array_equal(params["embedding"], mg.from_pretrained(folder).embedding[...])
    start.keep_origin(tmp_path / "run")
    with Checkpoints(tmp_path / "run") as checkpoints:
        save_run(checkpoints, start.config, state_of(start.config, params), None)
    run = mg.from_pretrained(tmp_path / "run")
    assert run.origin.stop_ids == (2, 7)
    mg.save_pretrained(run, tmp_path / "again")
    assert {key: read(tmp_path / "again")[key] for key in EXTRA if key != "torch_dtype"} == names_of(
        EXTRA, "torch_dtype"
    )
    assert read(tmp_path / "again", "generation_config.json") == GENERATION


class Ids(ByteTokenizer):
    """A tokenizer with ids for the beginning, the end and padding."""

    bos_id, eos_id, pad_id = 11, 12, 13


@pytest.mark.parametrize(
    "extra, expected",
    [
        ({}, (11, 12, 13)),
        ({"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}, (11, 12, 13)),
        ({"bos_token_id": 0, "eos_token_id": 3, "pad_token_id": 0}, (0, 3, 0)),
        ({"eos_token_id": [4, 5]}, (11, [4, 5], 13)),
    ],
)
def test_missing_ids_are_taken_from_the_tokenizer(extra, expected, tmp_path):
    write("llama", tmp_path / "base", extra, None)
    mg.save_pretrained(mg.from_pretrained(tmp_path / "base"), tmp_path / "again", tokenizer=Ids())
    got = read(tmp_path / "again")
    assert tuple(got[f"{name}_token_id"] for name in ("bos", "eos", "pad")) == expected
    assert not (tmp_path / "again" / "generation_config.json").exists()


def test_an_end_id_is_not_invented(tmp_path):
    """`start_id`, which starts documents, is not an end id."""

    class Endless(ByteTokenizer):
        bos_id = eos_id = pad_id = None

    write("llama", tmp_path / "base", {}, None)
    model = mg.from_pretrained(tmp_path / "base")
    mg.save_pretrained(model, tmp_path / "again", tokenizer=Endless())
    assert model.origin.stop_ids == () and not {"bos_token_id", "eos_token_id"} & read(tmp_path / "again").keys()


@pytest.mark.parametrize(
    "config, generation, expected",
    [
        ({}, None, ()),
        ({"eos_token_id": None}, {}, ()),
        ({"eos_token_id": 2}, None, (2,)),
        ({"eos_token_id": 2}, {"top_k": 3}, (2,)),
        ({"eos_token_id": 2}, {"eos_token_id": [3, 4]}, (3, 4)),
        ({}, {"eos_token_id": 0}, (0,)),
    ],
)
def test_ids_that_end_a_text(config, generation, expected):
    assert Origin(config, generation).stop_ids == expected


@pytest.mark.parametrize("value", ["2", 2.0, True, [2, None], {"a": 1}])
def test_invalid_ids_are_refused(value):
    with pytest.raises(ValueError, match=r"generation_config.json: eos_token_id must be a token id or a list of them"):
        Origin({}, {"eos_token_id": value})


def test_compiled_programs_do_not_depend_on_the_origin(tmp_path):
    first = mg.from_pretrained(write("gpt2", tmp_path / "a"))
    second = mg.from_pretrained(write("gpt2", tmp_path / "b", {"eos_token_id": 9}, None))
    assert first.origin.stop_ids != second.origin.stop_ids and first.config == second.config
    assert nnx.split(first)[0] == nnx.split(second)[0] and hash(first.origin) == hash(second.origin)
    jax.tree.map(np.testing.assert_array_equal, models.to_params(first), models.to_params(second))
    assert mg.from_pretrained(foreign.write("t5", tmp_path / "t5")).decoder.origin.stop_ids == ()


def test_the_library_reads_back_what_it_wrote(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers and torch are not installed")
    import torch

    theirs = foreign.library_model("llama").to(torch.bfloat16)
    theirs.config.update({"bos_token_id": 1, "eos_token_id": [2, 5], "pad_token_id": 0, "initializer_range": 0.03})
    theirs.generation_config = transformers.GenerationConfig(eos_token_id=[2, 7], do_sample=True, top_p=0.75, top_k=11)
    theirs.save_pretrained(tmp_path / "theirs")
    mg.save_pretrained(mg.from_pretrained(tmp_path / "theirs"), tmp_path / "ours")
    kind = transformers.LlamaForCausalLM
    first, again = (kind.from_pretrained(tmp_path / name, dtype=torch.float32).eval() for name in ("theirs", "ours"))
    tokens = torch.from_numpy(foreign.tokens_of("llama"))
    with torch.no_grad():
        np.testing.assert_array_equal(again(tokens).logits.numpy(), first(tokens).logits.numpy())
    assert again.generation_config.to_dict() == first.generation_config.to_dict()
    mine, expected = read(tmp_path / "ours"), read(tmp_path / "theirs")
    assert names_of(mine, "dtype") == names_of(expected, "dtype")
    assert (expected["dtype"], mine["dtype"]) == ("bfloat16", "float32")
    assert mg.from_pretrained(tmp_path / "ours").origin.stop_ids == (2, 7)
    assert mg.from_pretrained(tmp_path / "ours").config == mg.from_pretrained(tmp_path / "theirs").config


@pytest.mark.parametrize(
    ("case", "key", "value"),
    [("llama", "rope_theta", 500.0), pytest.param("gpt2", "n_positions", 7, marks=pytest.mark.slow)],
)
def test_an_edit_that_contradicts_the_saved_memory_config_is_refused(case, key, value, tmp_path):
    model = mg.add_memory(mg.from_pretrained(write(case, tmp_path / "base")), mg.KVMemoryConfig(memory_size=5))
    mg.save_pretrained(model, tmp_path / "memory")
    mg.from_pretrained(tmp_path / "memory")
    values = read(tmp_path / "memory") | {key: value}
    (tmp_path / "memory" / "config.json").write_text(json.dumps(values))  # as an editor of another library writes it
    with pytest.raises(ValueError, match="contradicts its entry 'memgpt'"):
        mg.from_pretrained(tmp_path / "memory")
