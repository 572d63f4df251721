"""Rotary positions of pretrained models, in the keys of config.json of versions 4 and 5 of the transformers library.

Version 4: `rope_theta` and `rope_scaling` (with `type`, later `rope_type`). Version 5: `rope_parameters`; the old keys
are still read.
"""

import math
from typing import Any, NamedTuple

from memgpt_jax.config.rotary import RotaryScalingConfig
from memgpt_jax.interop.families.settings import mapping, number, only, read, size, word

SETTINGS = {
    "rope_theta": number(None, low=1.0),
    "rope_scaling": mapping(),
    "rope_parameters": mapping(),
    "partial_rotary_factor": only(None, 1, 1.0),
    "original_max_position_embeddings": size(None, null=True),
    "rope_interleaved": only(False, None),
    "use_mrope": only(False, None),
}
"""Keys of config.json."""

BASE = 10000.0
KIND = {"rope_type": word({kind: kind for kind in ("linear", "llama3", "yarn", "default")}, "default", also=("type",))}
PLACE = {
    "rope_theta": number(None, low=1.0),
    "partial_rotary_factor": only(None, 1, 1.0),
    # separate dictionaries for types of layers, and settings of kinds that are not supported
    **dict.fromkeys(
        ("full_attention", "sliding_attention", "mrope_section", "short_factor", "long_factor"), only(None)
    ),
}
"""Keys of the dictionary `rope_scaling` or `rope_parameters`, for every kind of scaling."""
FACTOR = number(low=1.0)
INSIDE = {
    "default": {"factor": only(None, 1, 1.0)},
    "linear": {"factor": FACTOR},
    "llama3": {
        "factor": FACTOR,
        "original_max_position_embeddings": size(None),
        "low_freq_factor": number(),
        "high_freq_factor": number(),
    },
    "yarn": {
        "factor": FACTOR._replace(null=True),
        "original_max_position_embeddings": size(None),
        "beta_slow": number(1.0, null=True),
        "beta_fast": number(32.0, null=True),
        "attention_factor": number(None, null=True),
        "mscale": number(None, null=True),
        "mscale_all_dim": number(None, null=True),
        "truncate": only(True),
    },
}
"""Further keys of the dictionary, by kind of scaling."""


class Rotary(NamedTuple):
    """The wavelengths of rotary positions."""

    base: float
    """Base of the wavelengths."""
    scaling: RotaryScalingConfig


def rotary(settings: dict[str, Any], positions: int) -> Rotary:
    """The base and the scaling of wavelengths.

    Args:
        settings: the values that were read with `SETTINGS`.
        positions: `max_position_embeddings`.
    """
    places = [name for name in ("rope_scaling", "rope_parameters") if settings[name]]
    found = [_rotary(name, settings[name], settings, positions) for name in places]
    if len(places) == 2 and found[0] != found[1]:
        both = " and ".join(f"{name}={settings[name]!r}" for name in places)
        raise ValueError(f"config.json: {both} contradict each other; give one of them")
    return found[0] if found else Rotary(settings["rope_theta"] or BASE, RotaryScalingConfig())


def _rotary(name: str, values: dict[str, Any], settings: dict[str, Any], positions: int) -> Rotary:
    """`rotary` for one dictionary, whose values must not contradict other keys of config.json."""
    where = f"config.json: {name}"
    kind = read(KIND, values, harmless=frozenset(values), where=where)["rope_type"]
    inside = read(KIND | PLACE | INSIDE[kind], values, harmless=frozenset(("finetuned",)), where=where)
    for key in ("rope_theta", "original_max_position_embeddings"):
        outer, inner = settings[key], inside.get(key)
        if None not in (outer, inner) and outer != inner:
            raise ValueError(f"{where}: {key}={inner!r} contradicts {key}={outer!r} beside it; give one of them")
    base = inside["rope_theta"] or settings["rope_theta"] or BASE
    if kind == "default":
        return Rotary(base, RotaryScalingConfig())
    if kind == "linear":
        return Rotary(base, RotaryScalingConfig(kind="linear", factor=inside["factor"]))
    original = settings["original_max_position_embeddings"] or inside["original_max_position_embeddings"] or positions
    if kind == "llama3":
        slow, fast, attention, factor = inside["low_freq_factor"], inside["high_freq_factor"], 1.0, inside["factor"]
        names = "low_freq_factor", "high_freq_factor"
    else:
        slow, fast, names = inside["beta_slow"] or 1.0, inside["beta_fast"] or 32.0, ("beta_slow", "beta_fast")
        factor = inside["factor"] or positions / original
        attention = inside["attention_factor"] or _yarn_attention(factor, inside["mscale"], inside["mscale_all_dim"])
    if not slow < fast:
        raise ValueError(f"{where}: {names[0]}={slow} must be below {names[1]}={fast}")
    if factor < 1 or base == 1:
        raise ValueError(f"{where}: factor={factor} must be at least 1, and rope_theta={base} above 1")
    scaling = RotaryScalingConfig(
        kind=kind,
        factor=factor,
        original_positions=original,
        slow_turns=slow,
        fast_turns=fast,
        attention_factor=attention,
    )
    return Rotary(base, scaling)


def _yarn_attention(factor: float, scale: float | None, scale_of_all: float | None) -> float:
    """The default of `attention_factor`, the scale of rotated queries and keys: 0.1 m ln(factor) + 1."""

    def grown(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1

    return grown(scale) / grown(scale_of_all) if scale and scale_of_all else grown(1)


def rope_scaling(scaling: RotaryScalingConfig) -> dict[str, Any]:
    """The value of `rope_scaling` for a scaling, which `rotary` reads."""
    names = {
        "linear": {},
        "llama3": {
            "original_max_position_embeddings": scaling.original_positions,
            "low_freq_factor": scaling.slow_turns,
            "high_freq_factor": scaling.fast_turns,
        },
        "yarn": {
            "original_max_position_embeddings": scaling.original_positions,
            "beta_slow": scaling.slow_turns,
            "beta_fast": scaling.fast_turns,
            "attention_factor": scaling.attention_factor,
        },
    }
    return {"rope_type": scaling.kind, "factor": scaling.factor} | names[scaling.kind]
