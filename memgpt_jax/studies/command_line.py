"""The command line of the commands: a config by name, then overrides, which tyro checks and explains.

    memgpt-jax train quickstart --model.memory.memory_size=512 --training.steps 20 --workdir runs/quickstart

A name stands for `configs/NAME.py`, whose `config()` returns an `ExperimentConfig`; a path to such a file works too.
`--model.memory none|kv|...` chooses the mechanism, `--data.objective causal|masked|...` the objective of text; fields
that the old and the new one share keep their values.
"""

import contextlib
import copy
import dataclasses
import difflib
import importlib.util
import io
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.registry import Registry
from memgpt_jax.data.objectives import OBJECTIVES
from memgpt_jax.memory import MEMORIES

PACKAGED = Path(__file__).resolve().parents[1] / "configs"  # in an installed wheel
CONFIGS = PACKAGED if PACKAGED.is_dir() else Path(__file__).resolve().parents[2] / "configs"
"""The folder of named configs: inside an installed package, or `configs/` of the repository."""
MEMORY_FIELD = r"model(\.\w+)*\.memory"
"""Fields that choose a mechanism, by their paths in any model."""
MECHANISM, OBJECTIVE = "--model.memory", "--data.objective"

Arguments = TypeVar("Arguments")


@contextlib.contextmanager
def one_line_errors(kind: type[Exception] | tuple[type[Exception], ...] = ValueError) -> Iterator[None]:
    """Print an error of the given kind as one line and exit with code 2: its message needs no traceback."""
    try:
        yield
    except kind as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


@one_line_errors()
def parse(
    arguments: type[Arguments], description: str | None, argv: Sequence[str] | None = None
) -> tuple[ExperimentConfig, Arguments]:
    """Read `CONFIG [--field value ...]` from `argv` (default: the command line).

    `arguments` is a dataclass of the command's own options (such as `workdir`), which are added to those of the config.
    Returns the overridden config and the arguments. Wrong words end the program with exit code 2 and one message that
    names the nearest valid choices.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    wants_help = "-h" in words or "--help" in words
    if words and not words[0].startswith("-"):
        name = words.pop(0)
    elif wants_help:
        name = "CONFIG"
    else:
        raise ValueError(f"the first argument must be a config: {', '.join(config_names())}, or the path of a .py file")
    default = ExperimentConfig() if name == "CONFIG" else load_config(name)
    description = (
        f"{description}\n\nCONFIG: {', '.join(config_names())}, or the path of a .py file with `config()`. "
        f"Defaults below are those of {name}.\n{MECHANISM} {{{','.join(MEMORIES)}}}: the memory mechanism, whose "
        f"options are then shown under `model.memory`.\n{OBJECTIVE} {{{','.join(OBJECTIVES)}}}: the objective of text."
    )
    default, words = choose_implementations(default, spell_out(arguments, words))
    command = dataclasses.make_dataclass(
        "Command",
        [
            ("arguments", Annotated[arguments, tyro.conf.arg(name="")]),
            ("config", Annotated[ExperimentConfig, tyro.conf.arg(name="")], dataclasses.field(default=default)),
        ],
        kw_only=True,
    )
    result = run_tyro(command, words, prog=f"{Path(sys.argv[0]).name} {name}", description=description)
    return result.config, result.arguments


@one_line_errors()
def parse_arguments(
    arguments: type[Arguments], description: str | None, argv: Sequence[str] | None = None
) -> Arguments:
    """Read the options of a command without a config; errors as in `parse`."""
    words = spell_out(arguments, list(sys.argv[1:] if argv is None else argv))
    return run_tyro(arguments, words, prog=Path(sys.argv[0]).name, description=description)


def override(config: ExperimentConfig, words: Sequence[str]) -> ExperimentConfig:
    """The config with overrides such as `["--model.memory", "none", "--seed=3"]`.

    Raises:
        ValueError: a field or a value is wrong; the message names the nearest valid fields.
    """
    if not words:
        return config
    config, words = choose_implementations(config, list(words))
    with io.StringIO() as printed:
        try:
            with contextlib.redirect_stderr(printed):
                return run_tyro(ExperimentConfig, words, default=config, prog="overrides", add_help=False)
        except SystemExit:
            lines = [line.strip(" │|") for line in printed.getvalue().splitlines() if re.search(r"\w", line)]
            raise ValueError(" ".join(lines[1:])) from None  # the first is the title of a box


def load_config(name: str) -> ExperimentConfig:
    """The config of `configs/NAME.py`, or of the `.py` file at a path; `ValueError` if there is none."""
    path = Path(name) if name.endswith(".py") else CONFIGS / f"{name}.py"
    if not path.is_file():
        near = difflib.get_close_matches(name, config_names(), n=3)
        hint = f" Perhaps you meant {' or '.join(near)}." if near else ""
        raise ValueError(
            f"there is no config {name!r}.{hint} Available: {', '.join(config_names())}, or a path to a .py file"
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "config"):
        raise ValueError(f"{path} does not define config() -> ExperimentConfig")
    return module.config()


def config_names() -> list[str]:
    """Names of the configs, in alphabetical order."""
    return sorted(path.stem for path in CONFIGS.glob("*.py"))


def assignments(words: Sequence[str], noun: str = "a change") -> dict[str, str]:
    """`["data.context_length=64", "seed=1"]` as a dictionary. `ValueError` names the `noun` of a malformed word."""
    values = {}
    for word in words:
        name, equals, value = word.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if not equals or not name or not value:
            raise ValueError(f"{noun} must be field=value, got {word!r}")
        if name in values:
            raise ValueError(f"{noun} names {name} twice")
        values[name] = value
    return values


def sweep(words: Sequence[str]) -> list[dict[str, str]]:
    """All combinations of `["model.memory.memory_size=0,64", "seed=0,1"]`, the last field varying fastest.

    Values are words of the command line; the parts of a tuple are separated by spaces: `"field=0 1,2 3"`. If
    a memory such as `model.memory` or `model.backbone.memory` is swept, a field that a mechanism does not have is left
    out of its combinations, and equal combinations are merged. `ValueError` if a word has another form, or no
    mechanism has a field.
    """
    fields = {name: values.split(",") for name, values in assignments(words, "a sweep").items()}
    for name, values in fields.items():
        if "" in values:
            raise ValueError(f"a sweep must be field=value,value,..., got {name}={','.join(values)}")
    product = [dict(zip(fields, values, strict=True)) for values in itertools.product(*fields.values())]
    combinations = []
    for values in map(_applicable, product):
        if values not in combinations:
            combinations.append(values)
    unused = fields.keys() - {name for values in combinations for name in values}
    if unused:
        raise ValueError(f"none of the swept mechanisms has {', '.join(sorted(unused))}")
    return combinations


def _applicable(values: dict[str, str]) -> dict[str, str]:
    """The values without the fields that the implementations chosen by them, if any, do not have."""
    for part, chosen in list(values.items()):
        registry = MEMORIES if re.fullmatch(MEMORY_FIELD, part) else OBJECTIVES if part == "data.objective" else {}
        entry = registry.get(chosen)
        if entry is not None and entry.config is not None:
            names = {f"{part}.{field.name}" for field in dataclasses.fields(entry.config)}
            values = {name: word for name, word in values.items() if not name.startswith(f"{part}.") or name in names}
    return values


def sweep_words(values: dict[str, str]) -> list[str]:
    """The command-line words of one combination: `{"seed": "1"}` gives `["--seed", "1"]`."""
    return [word for name, value in values.items() for word in (f"--{name}", *value.split())]


def choose_implementations(config: ExperimentConfig, words: list[str]) -> tuple[ExperimentConfig, list[str]]:
    """Remove the names of implementations from the words, and put their configurations into the config.

    `--model.memory NAME` chooses a mechanism (for an encoder-decoder `--model.encoder.memory NAME` and
    `--model.decoder.memory NAME`), `--data.objective NAME` an objective. Fields that the old and the new configuration
    share keep their values. This comes before tyro, which can override the fields of a configuration, but not replace
    its class.
    """
    paths = zip(config.stacks, config.model.stacks, strict=True)
    flags: dict[str, tuple[str, str, Registry[Any]]]
    flags = {f"--{path}.memory": (stack, "memory", MEMORIES) for path, stack in paths}
    if isinstance(config.data, TextConfig):
        flags["--data.objective"] = ("data", "objective", OBJECTIVES)
    parts, rest, remaining = {**config.model.stacks, "data": config.data}, [], iter(words)
    for word in remaining:
        flag, equals, name = word.partition("=")
        if flag not in flags:
            rest.append(word)
            continue
        part, field, registry = flags[flag]
        name = name if equals else next(remaining, "")
        if name not in registry:
            raise ValueError(f"{flag} must be one of {', '.join(registry)}, got {name!r}")
        config_class, old = registry[name].config, getattr(parts[part], field)
        assert config_class is not None  # a mechanism or an objective has one
        names = {item.name for item in dataclasses.fields(config_class)}
        new = config_class(**{key: value for key, value in vars(old).items() if key in names})
        parts[part] = _unchecked(parts[part], field, new)  # other words may make it valid; tyro builds it anew
    data = parts.pop("data")
    return dataclasses.replace(config, model=config.model.with_stacks(parts), data=data), rest


def _unchecked(config: Any, field: str, value: Any) -> Any:
    """A copy of a configuration with another value of a field, without its checks."""
    changed = copy.copy(config)
    object.__setattr__(changed, field, value)
    return changed


def spell_out(arguments: type, words: list[str]) -> list[str]:
    """The words with `True` after each boolean option of a script that has no value: `--extend` is `--extend True`."""
    names = [item.name for item in dataclasses.fields(arguments) if item.type is bool]
    flags = {f"--{spelling}" for name in names for spelling in (name, name.replace("_", "-"))}
    spelled = []
    for word, following in itertools.zip_longest(words, words[1:], fillvalue="--"):
        spelled += [word, "True"] if word in flags and following.startswith("-") else [word]
    return spelled


def run_tyro(target: Any, words: Sequence[str], **options) -> Any:
    """Let tyro parse the words; a boolean is written `--field True` (`spell_out` adds the `True`)."""
    return tyro.cli(target, args=words, config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff), **options)


def text_argument(name: str, value: str) -> str:
    """A text of the command line: itself, or with `@FILE` the content of a file.

    Raises `ValueError` with the name of the option if the file cannot be read.
    """
    if not value.startswith("@"):
        return value
    try:
        return Path(value.removeprefix("@")).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} {value} cannot be read as UTF-8 text: {error}") from None
