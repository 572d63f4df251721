"""The description of a family of pretrained models: a table of names and shapes, and a translation of its config."""

import dataclasses
from collections.abc import Callable, Container, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from memgpt_jax.config.model import BaseModelConfig, ModelConfig

Config = TypeVar("Config", bound=BaseModelConfig)

ACTIVATIONS = {
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_fast": "gelu",
    "gelu": "gelu_exact",
    "gelu_python": "gelu_exact",
    "relu": "relu",
}
"""The activation for each name in transformers. The first name of an activation is used for writing."""


ZERO = ""
"""The name of a part that is 0, such as the bias of keys in a model without one: the softmax does not depend on it."""


class Weight(NamedTuple):
    """One parameter, and the tensors of a file that contain it."""

    parameter: str
    """Path in the tree of parameters, such as "blocks/0/attention/query_key_value/kernel"."""
    tensors: tuple[str, ...]
    """Names in the file; several are joined along the last axis, each transposed first if `transposed`. A part with the
    name `ZERO` is 0, and is not in the file."""
    transposed: bool = False
    """Whether the tensors are [out, in]; the parameter is [in, out]."""
    widths: tuple[int, ...] = ()
    """Width of the last axis of each part, after transposition; optional for a single tensor."""
    shape: tuple[int, ...] = ()
    """Shape of each tensor, if it is not that of its part of the parameter (transposed if `transposed`)."""
    rows: tuple[tuple[int, ...], ...] = ()
    """Shape of each tensor, if the tensors are the rows of the parameter instead of being joined. A row `ZERO` must be
    0 when it is written."""


def _no_tensors(config: BaseModelConfig) -> dict[str, str]:
    return {}


def _unchanged(config: Config, names: Container[str]) -> Config:
    return config


class Family(NamedTuple, Generic[Config]):
    """One kind of model in the layout of the transformers library."""

    architectures: dict[str, str]
    """`model_type` of config.json: the class of transformers that holds the whole model."""
    from_hf: Callable[[dict[str, Any]], Config]
    """The config for the values of a config.json. Raises `ValueError` for a setting that is not supported."""
    to_hf: Callable[[Config], dict[str, Any]]
    """The values of a config.json, with `model_type`, for a config that the family may be able to express."""
    weight_table: Callable[[Config], list[Weight]]
    """The tensors of each parameter."""
    config_class: type[BaseModelConfig] = ModelConfig
    """The class of its configs."""
    prefixes: tuple[str, ...] = ()
    """Prefixes of the names of tensors, which differ between the models of a family."""
    read_keys: frozenset[str] = frozenset()
    """Keys of config.json that `from_hf` uses, including alternative names. A save may keep other keys unchanged."""
    renames: tuple[tuple[str, str], ...] = ()
    """Parts of names in old files, each with its current form."""
    ignored: str = r"(?!)"
    """Pattern of the names of buffers, which are not learned. This and all fields below use names without prefix."""
    body: str = r""
    """Pattern of the start of the names of all tensors that do not belong to a head."""
    tied_tensors: Callable[[Config], dict[str, str]] = _no_tensors
    """{name of a tied tensor: name of the tensor that it equals}; a file may have one of them or both."""
    fitted: Callable[[Config, Container[str]], Config] = _unchanged
    """The config without heads that have no tensors in the file; with an untied output if the file has one."""

    def bare(self, name: str) -> str:
        """The current name of a tensor, without prefix."""
        prefix = next((prefix for prefix in self.prefixes if name.startswith(prefix)), "")
        name = name.removeprefix(prefix)
        for old, new in self.renames:
            name = name.replace(old, new)
        return name


def untied(config: ModelConfig, names: Container[str]) -> ModelConfig:
    """The config of a decoder, with an untied output if the file has one: see `Family.fitted`."""
    return dataclasses.replace(config, tie_embeddings=False) if "lm_head.weight" in names else config


def linear_weights(path: str, *names: str, widths: Sequence[int] = (), bias: bool = False) -> list[Weight]:
    """The weights of a matmul that consists of concatenated linear layers of torch.

    Args:
        path: path of the matmul in the tree of parameters.
        names: names of the layers in the file.
        widths: number of outputs of each layer.
        bias: whether the layers have a bias.
    """
    kernels = tuple(f"{name}.weight" for name in names)
    found = [Weight(f"{path}/kernel", kernels, transposed=True, widths=tuple(widths))]
    if bias:
        found.append(Weight(f"{path}/bias", tuple(f"{name}.bias" for name in names), widths=tuple(widths)))
    return found


def layer_norm_weights(path: str, name: str) -> list[Weight]:
    """Scale and bias of a normalisation."""
    return [Weight(f"{path}/scale", (f"{name}.weight",)), Weight(f"{path}/bias", (f"{name}.bias",))]


def hf_name(choices: dict[str, str], setting: str) -> str:
    """The transformers name of a setting. Without one, the setting itself, which cannot be read back."""
    return next((name for name, ours in choices.items() if ours == setting), setting)
