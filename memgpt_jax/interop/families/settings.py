"""Settings of pretrained models: the keys of config.json, with the valid values and the default of each.

A family has a table of `Setting` by key, with every key that changes the results of its models: the key is either read,
or only the values that this library supports are valid. Other keys are reported, unless they are known to be harmless.
"""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from memgpt_jax.interop.families.harmless import HARMLESS

REQUIRED = object()

logger = logging.getLogger(__name__)


def _unchanged(value: Any) -> Any:
    return value


class Setting(NamedTuple):
    """One key: its valid values, its default, and its other names."""

    check: Callable[[Any], bool]
    """Whether a value is valid; not called for null."""
    valid: str
    """Description of the valid values, for error messages."""
    default: Any = REQUIRED
    """Value of an absent key."""
    null: bool = False
    """Whether null is valid; it is read as `None`."""
    also: tuple[str, ...] = ()
    """Other names of the key (`attribute_map` of the transformers library)."""
    translate: Callable[[Any], Any] = _unchanged
    """The function from a valid value to the result of reading it."""


def size(
    default: Any = REQUIRED, *, also: tuple[str, ...] = (), null: bool = False, low: int = 1, high: int = 2**31 - 1
) -> Setting:
    """A whole number."""

    def check(value: Any):
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return Setting(check, f"a whole number from {low} to {high}", default, null, also)


def layers(default: Any = REQUIRED, *, also: tuple[str, ...] = (), null: bool = False) -> Setting:
    """A number of layers, at most 10,000, so that a damaged value does not build a model without end."""
    return size(default, also=also, null=null, high=10_000)


def number(default: Any = REQUIRED, *, null: bool = False, low: float = 0.0) -> Setting:
    """A finite number: above zero, or of at least `low`."""

    def check(value: Any):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value) and value >= low and value > 0

    return Setting(check, f"a number of at least {low}" if low else "a number above 0", default, null, translate=float)


def flag(default: Any = REQUIRED, *, null: bool = False) -> Setting:
    """True or false."""
    return Setting(lambda value: isinstance(value, bool), "true or false", default, null)


def word(choices: Mapping[str, Any], default: Any = REQUIRED, *, also: tuple[str, ...] = ()) -> Setting:
    """One of the keys of `choices`, read as its value."""

    def known(value: Any):
        return isinstance(value, str) and value in choices

    default = choices.get(default, default)
    return Setting(known, ", ".join(choices), default, also=also, translate=choices.__getitem__)


def only(*values: Any) -> Setting:
    """A setting that is not supported: only the values that switch it off are valid. Default: the first."""

    def known(value: Any):
        return any(type(value) is type(one) and value == one for one in values)

    valid = ", ".join("null" if value is None else repr(value) for value in values)
    return Setting(known, valid, values[0], null=None in values)


def architecture(values: Mapping[str, Any], choices: Mapping[str, Any], default: str) -> str:
    """The class of transformers that config.json names, or the default. Raises `ValueError` for an unknown class."""
    found = values.get("architectures") or [default]
    name = found[0] if isinstance(found, list) else found
    if not isinstance(name, str) or name not in choices:
        raise ValueError(f"config.json: architecture {name!r} is not supported; valid: {', '.join(choices)}")
    return name


def words(*choices: str) -> Setting:
    """A list of words, or null."""

    def check(value: Any):
        return isinstance(value, list) and all(one in choices for one in value)

    return Setting(check, f"a list of {', '.join(choices)}", None, null=True)


def mapping() -> Setting:
    """A dictionary, or null."""
    return Setting(lambda value: isinstance(value, dict), "a dictionary, or null", None, null=True)


UNSUPPORTED = {
    "add_cross_attention": only(False, None),
    "attention_chunk_size": only(None),
    "compression_config": only(None),
    "is_encoder_decoder": only(False),
    "layer_types": words("full_attention", "attention"),
    "per_layer_config": only(None, {}),
    "pruned_heads": only(None, {}),
    "quantization_config": only(None),
    "sliding_window": only(None),
    "tie_encoder_decoder": only(False, None),
}
"""Settings that are not supported, unless the table of a family overrides the key."""


def read(
    table: Mapping[str, Setting],
    values: Mapping[str, Any],
    *,
    harmless: frozenset[str] = HARMLESS,
    where: str = "config.json",
    strict: bool = False,
) -> dict[str, Any]:
    """The value of each setting of the table, defaults filled in.

    Keys that are neither in the table nor harmless are logged as a warning; if `strict`, they are an error.

    Raises `ValueError` that names the key if a value is invalid, missing, or given twice with different values.
    """
    found, names, missing = {}, {}, []
    for key, setting in table.items():
        given = {name: values[name] for name in (key, *setting.also) if name in values}
        for name, value in given.items():
            if not (setting.null if value is None else setting.check(value)):
                null = ", or null" if setting.null and "null" not in setting.valid else ""
                raise ValueError(f"{where}: {name}={value!r} is not supported; valid: {setting.valid}{null}")
        if len({repr(value) for value in given.values()}) > 1:
            both = " and ".join(f"{name}={value!r}" for name, value in given.items())
            raise ValueError(f"{where}: {both} contradict each other; give one of them")
        names |= dict.fromkeys((key, *setting.also))
        value = next(iter(given.values()), setting.default)
        if value is REQUIRED:
            missing.append(f"{key} ({setting.valid})")
        found[key] = setting.translate(value) if given and value is not None else value
    unknown = {key: value for key, value in values.items() if key not in names and key not in harmless}
    listed = ", ".join(f"{key}={value!r}" for key, value in unknown.items() if value is not None)
    if listed and strict:
        raise ValueError(f"{where}: {listed}: unknown, so it may change the outputs of the model")
    if missing:
        raise ValueError(f"{where}: missing {', '.join(missing)}")
    if listed:
        logger.warning(
            "%s: %s: unknown and ignored, as in the transformers library. If it changes the outputs of the model, the "
            "outputs here differ.",
            where,
            listed,
        )
    return found


def check_divides(settings: Mapping[str, Any], part: str, whole: str) -> None:
    """Raise `ValueError` unless one size divides the other."""
    if settings[whole] % settings[part]:
        raise ValueError(f"config.json: {part}={settings[part]} must divide {whole}={settings[whole]}")


def keys(*tables: Mapping[str, Setting]) -> frozenset[str]:
    """All keys of tables with all of their names, and `model_type` and `architectures`, which select the table.

    `pad_token_id` is not among them: most families do not read it, and the others write it.
    """
    names = {name for table in tables for key, setting in table.items() for name in (key, *setting.also)}
    return frozenset(names | {"model_type", "architectures"}) - {"pad_token_id"}
