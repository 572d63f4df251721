"""The values of the config.json of a saved model."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import BaseModelConfig, ModelConfig, Seq2SeqConfig, StackConfig
from memgpt_jax.config.serialization import differences, to_json
from memgpt_jax.data.tokenizers.base import Tokenizer
from memgpt_jax.interop.assembly import OURS
from memgpt_jax.interop.families import FAMILIES, Family
from memgpt_jax.interop.origin import Origin

TOKEN_IDS = {"bos_token_id": "bos_id", "eos_token_id": "eos_id", "pad_token_id": "pad_id"}
"""Keys of config.json: the tokenizer's attribute with the same id."""


def family_of(kind: Any) -> Family[Any]:
    """The family with this `model_type` of config.json. Raises `ValueError` if there is none."""
    families = [entry.module for entry in FAMILIES.values()]
    for family in families:
        if isinstance(kind, str) and kind in family.architectures:
            return family
    if kind == "clip":
        raise ValueError("config.json: a CLIPModel is two models: give part='text' or part='vision'")
    known = ", ".join(kind for family in families for kind in family.architectures)
    raise ValueError(f"config.json: model_type={kind!r} is not supported; valid: {known}")


class SavedConfig(NamedTuple):
    """The saved form of a config."""

    values: dict[str, Any]
    """The values of config.json."""
    family: Family[Any] | None
    """The family that can express the model without its memory; None: there is none."""


def saved_config(
    config: BaseModelConfig, origin: Origin | None, tokenizer: Tokenizer | None, *, as_ours: bool = False
) -> SavedConfig:
    """The config.json for a model.

    Settings of the origin are kept unless they contradict the model. Ids of special tokens that the origin lacks are
    taken from the tokenizer, if one is given. With `as_ours`, no family is chosen.
    """
    old = {} if origin is None else {name: value for name, value in origin.config.items() if name != OURS}
    plain = _architecture(config)
    expressed = iter(()) if as_ours else _expressed(plain, old.get("model_type"))
    family, values = next(expressed, (None, {"model_type": OURS}))
    ids = {name: old[name] for name in TOKEN_IDS if old.get(name) is not None}
    for name, field in TOKEN_IDS.items():
        found = getattr(tokenizer, field, None)
        if name not in ids and found is not None and not (name == "pad_token_id" and name in values):
            ids[name] = found
    values = (values if family is None else _with_origin(family, plain, old, values)) | ids
    values |= {name: "float32" for name in ("dtype", "torch_dtype") if name in values}
    is_whole = family is not None and _read_back(family, values, plain) == config
    return SavedConfig(values if is_whole else values | {OURS: to_json(config)}, family)


def check_agreement(family: Family[Any], values: dict[str, Any], ours: BaseModelConfig) -> None:
    """Raise `ValueError` if the values of config.json contradict the config of this library beside them."""
    plain = _architecture(ours)
    read = family.fitted(family.from_hf(values), _names(family, plain))
    changed = differences(plain, _architecture(read))
    if changed:
        raise ValueError(
            f"config.json contradicts its entry {OURS!r}, which holds the settings of the model with its memory:\n  "
            + "\n  ".join(changed)
            + "\nChange both, or neither"
        )


def _expressed(plain: BaseModelConfig, first: str | None = None) -> Iterator[tuple[Family[Any], dict[str, Any]]]:
    """Each (family that can express the model, its values of config.json). Args: first: the model type to try first."""
    for _, family in sorted(FAMILIES.values(), key=lambda entry: first not in entry[1].architectures):
        values = family.to_hf(plain) if type(plain) is family.config_class else {}
        if values and _fits(family, values, plain):
            yield family, {"architectures": [family.architectures[values["model_type"]]]} | values


def _read_back(family: Family[Any], values: dict[str, Any], plain: BaseModelConfig) -> BaseModelConfig | None:
    """The config that these values give, together with the names of the model's tensors; None if they are not valid."""
    known = {name: values[name] for name in values if name in family.read_keys or name == "pad_token_id"}
    try:  # unknown keys were logged when the origin was read
        return family.fitted(family.from_hf(known), _names(family, plain))
    except (ValueError, TypeError):  # settings that only this library has
        return None


def _names(family: Family[Any], plain: BaseModelConfig) -> set[str]:
    """The names of the tensors of a model."""
    return {family.bare(name) for weight in family.weight_table(plain) for name in weight.tensors}


def _fits(family: Family[Any], values: dict[str, Any], plain: BaseModelConfig) -> bool:
    """Whether these values give the model without its memory."""
    read = _read_back(family, values, plain)
    return read is not None and _architecture(read) == plain


def _with_origin(
    family: Family[Any], plain: BaseModelConfig, old: dict[str, Any], values: dict[str, Any]
) -> dict[str, Any]:
    """The values, with the settings of the origin added that do not change the config that is read."""
    unchanged = old | {"architectures": values["architectures"]}
    if old.get("model_type") == values["model_type"] and _fits(family, unchanged, plain):
        return unchanged
    others = {name: value for name, value in old.items() if name not in family.read_keys}
    return others | values if _fits(family, others | values, plain) else values


def _architecture(config: BaseModelConfig) -> BaseModelConfig:
    """The config without memory, and with defaults for all fields that do not change the base model's function."""
    plain = config.with_stacks({name: _plain(stack) for name, stack in config.stacks.items()})
    if not isinstance(plain, Seq2SeqConfig):
        return plain
    return dataclasses.replace(
        plain, decoder=dataclasses.replace(plain.decoder, source_length=plain.decoder.window_size)
    )


def _plain(config: StackConfig) -> StackConfig:
    """`_architecture` of one stack."""
    default = ModelConfig(memory=NoMemoryConfig())
    names = ["memory", "memory_layers", "fusion", "fusion_bias", "segment_length", "adapter_rank", "dropout", "dtype"]
    names += ["window_bits"] if isinstance(config, ModelConfig) else []
    widths = {
        "num_kv_heads": config.kv_heads,
        "head_dim": config.attention_head_dim,
        "d_ff": config.feed_forward_dim,
    }
    plain = {name: getattr(default, name) for name in names}
    return dataclasses.replace(config, **plain, **widths).with_execution_of(default)
