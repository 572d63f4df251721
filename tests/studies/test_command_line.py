"""The command line: names, overrides, the choice of mechanism, and errors that help."""

import dataclasses

import pytest

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.memory import KVMemoryConfig, MemoryConfig, NoMemoryConfig
from memgpt_jax.memory import MEMORIES, register_memory
from memgpt_jax.memory.none import NoMemory
from memgpt_jax.studies import command_line
from memgpt_jax.studies.command_line import load_config, override, parse, parse_arguments, sweep, sweep_words


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    workdir: str = "runs/x"
    """Folder of the run."""


def fails(capsys, function, *arguments) -> str:
    """Everything on standard error of a call that must end with exit code 2 and without a traceback."""
    with pytest.raises(SystemExit) as error:
        function(*arguments)
    assert error.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return " ".join(message.replace("│", " ").split())


def test_overrides_and_options():
    words = ["stdlib", "--model.memory.memory_size=512", "--training.steps", "20", "--workdir", "here", "--seed", "3"]
    config, options = parse(Options, "Train.", words)
    expected = load_config("stdlib")
    memory = dataclasses.replace(expected.model.memory, memory_size=512)
    expected = dataclasses.replace(
        expected,
        model=dataclasses.replace(expected.model, memory=memory),
        training=dataclasses.replace(expected.training, steps=20),
        seed=3,
    )
    assert config == expected
    assert options == Options(workdir="here")


@pytest.mark.parametrize(
    "words, value", [(["--try_it"], True), (["--try-it", "True"], True), (["--try_it", "False"], False)]
)
def test_booleans_of_a_script_are_flags(words, value):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Flag:
        try_it: bool = False
        """Whether to try it."""

    config, options = parse(Flag, "Train.", ["stdlib", *words, "--training.carry_state", "False"])
    assert options.try_it == value and not config.training.carry_state
    assert parse(Flag, "Train.", ["stdlib", *words])[1].try_it == value


def test_path_of_a_config(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from memgpt_jax.config import ExperimentConfig\ndef config():\n    return ExperimentConfig(seed=7)\n"
    )
    config, _ = parse(Options, "Train.", [str(path)])
    assert config == ExperimentConfig(seed=7)


def test_none_tuples_and_booleans():
    words = ["--model.memory_layers", "0", "2", "--model.remat", "block", "--evaluation.max_documents", "None"]
    config = override(ExperimentConfig(), words)
    assert config.model.memory_layers == (0, 2)
    assert config.model.remat == "block"
    assert config.evaluation.max_documents is None


def test_a_mechanism_and_the_fusion_that_it_needs_are_chosen_together():
    config = command_line.load_config("adapt")
    assert config.model.fusion == "attention"
    with pytest.raises(ValueError, match="fusion='attention' needs a KVMemoryConfig"):
        override(config, ["--model.memory", "titans"])
    for words in (
        ["--model.memory", "titans", "--model.fusion", "gated_add"],
        ["--model.fusion=add", "--model.memory=titans"],
    ):
        changed = override(config, words)
        assert type(changed.model.memory) is MEMORIES["titans"].config and changed.model.fusion in ("gated_add", "add")


@pytest.mark.parametrize("words", [["--model.memory", "none"], ["--model.memory=none"]])
def test_mechanism(words):
    config = override(ExperimentConfig(), words)
    assert config.model.memory == NoMemoryConfig()
    back = override(config, ["--model.memory", "kv", "--model.memory.memory_size=8"])
    assert back.model.memory == KVMemoryConfig(memory_size=8)


def test_mechanism_keeps_equal_fields(request):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class OtherConfig(MemoryConfig):
        memory_size: int = 1
        hops: int = 2

    register_memory("other", OtherConfig, NoMemory)
    request.addfinalizer(lambda: MEMORIES.unregister("other"))
    config = dataclasses.replace(ExperimentConfig(), seed=5)
    model, words = command_line.choose_implementations(config, ["--seed=1", "--model.memory", "other"])
    assert model.model.memory == OtherConfig(memory_size=KVMemoryConfig().memory_size, hops=2)
    assert words == ["--seed=1"]


def test_help_shows_fields_types_defaults_and_meanings(capsys):
    with pytest.raises(SystemExit) as error:
        parse(Options, "Train.", ["stdlib", "--help"])
    assert error.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--model.memory.memory-size INT Maximum number M of entries per layer and row." in text
    assert "(default: 1024)" in text
    assert "--workdir STR Folder of the run." in text
    assert "--model.memory {none,kv" in text
    for part in ("model", "memory", "data", "optimizer", "training", "evaluation"):
        assert f"{part} options" in text


def test_every_field_has_a_meaning(capsys):
    with pytest.raises(SystemExit):
        parse(Options, "Train.", ["--help"])
    text = capsys.readouterr().out
    for line, following in zip(text.splitlines(), text.splitlines()[1:], strict=False):
        if line.startswith("│ --"):
            assert following.strip("│ ") and not following.strip("│ ").startswith(("(default", "--")), line


def test_wrong_names_and_values(capsys):
    def parse_words(*words):
        return fails(capsys, parse, Options, "Train.", list(words))

    assert "--model.memory.select" in parse_words("stdlib", "--model.memory.slot=3")
    assert "'log_bias', 'scale'" in parse_words("stdlib", "--model.memory.gate=foo")
    assert "--training.steps" in parse_words("stdlib", "--training.steps=many")
    assert "memory_size must be at least 0, got -4" in parse_words("stdlib", "--model.memory.memory_size=-4")
    assert "none, kv" in parse_words("stdlib", "--model.memory", "vk")
    message = parse_words("stdlib", "--training.sequence_length=65")
    assert "training.sequence_length=65 must be a multiple of model.segment_length" in message
    message = parse_words("stdlob")
    assert "Perhaps you meant stdlib" in message and "quickstart, recall" in message
    assert "the first argument must be a config" in parse_words("--seed=3")
    assert "there is no config 'missing.py'" in parse_words("missing.py")


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["--training.step", "3"],
            r"^Unrecognized options: --training.step, 3 Perhaps you meant: --training.steps INT",
        ),
        (["--model.memory.slots=3"], r"Unrecognized options: --model.memory.slots=3.* --model.memory.select"),
        (["--training.steps=many"], r"--training.steps: invalid literal for int\(\)"),
        (["--training.steps=0"], "steps must be at least 1, got 0"),
        (["--model.memory", "vk"], "must be one of none, kv"),
        (["--help"], "--help"),
    ],
)
def test_a_wrong_override_raises_one_line_and_prints_nothing(words, message, capsys):
    with pytest.raises(ValueError, match=message) as error:
        override(ExperimentConfig(), words)
    assert "\n" not in str(error.value) and "│" not in str(error.value)
    assert capsys.readouterr() == ("", "")


def test_config_file_without_config(tmp_path, capsys):
    (tmp_path / "empty.py").write_text("")
    assert "does not define config()" in fails(capsys, parse, Options, "Train.", [str(tmp_path / "empty.py")])


def test_script_without_config(capsys):
    assert parse_arguments(Options, "Evaluate.", ["--workdir", "there"]) == Options(workdir="there")
    assert "--workdir" in fails(capsys, parse_arguments, Options, "Evaluate.", ["--workdri", "there"])


def test_sweep():
    assert sweep(["model.memory.memory_size=0,64", "seed=0,1"]) == [
        {"model.memory.memory_size": "0", "seed": "0"},
        {"model.memory.memory_size": "0", "seed": "1"},
        {"model.memory.memory_size": "64", "seed": "0"},
        {"model.memory.memory_size": "64", "seed": "1"},
    ]
    words = sweep_words({"model.memory": "none", "model.memory_layers": "0 1"})
    config = override(ExperimentConfig(), words)
    assert config.model.memory == NoMemoryConfig() and config.model.memory_layers == (0, 1)


@pytest.mark.parametrize("words", [["seed"], ["seed="], ["=1"], ["seed=1,,2"], ["seed=1", "seed=2"]])
def test_wrong_sweeps(words):
    with pytest.raises(ValueError, match="sweep"):
        sweep(words)


def test_a_sweep_over_mechanisms_leaves_out_what_one_does_not_have():
    sizes = ["model.memory.match_state_bytes=64,128", "seed=0,1"]
    swept = sweep(["model.memory=none,kv", *sizes])
    assert swept[:2] == [{"model.memory": "none", "seed": "0"}, {"model.memory": "none", "seed": "1"}]
    assert len(swept) == 6 and all("model.memory.match_state_bytes" in values for values in swept[2:])
    assert len(sweep(["model.memory=none", *sizes[1:]])) == 2
    with pytest.raises(ValueError, match=r"none of the swept mechanisms has model\.memory\.slots"):
        sweep(["model.memory=none,kv", "model.memory.slots=1"])
    headed = sweep(["model.backbone.memory=none,kv", "model.backbone.memory.memory_size=64,128"])
    assert headed[0] == {"model.backbone.memory": "none"} and len(headed) == 3
    config = override(ExperimentConfig(), sweep_words(swept[-1]))
    assert config.model.memory == KVMemoryConfig(match_state_bytes=128)
