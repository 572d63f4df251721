"""What a family of pretrained models is: a table of names and shapes, and a translation of its config."""

import dataclasses
from collections.abc import Callable, Container, Sequence
from typing import Any, NamedTuple

from memgpt_jax.config.model import ModelConfig

ACTIVATIONS = {
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_fast": "gelu",
    "gelu": "gelu_exact",
    "gelu_python": "gelu_exact",
    "relu": "relu",
}
"""Our name of each activation of transformers; of several with the same one, the first is written."""


class Weight(NamedTuple):
    """One array of ours, and the tensors of theirs that it is made of."""

    ours: str
    """Path in the tree of parameters, such as "blocks/0/attention/query_key_value/kernel"."""
    theirs: tuple[str, ...]
    """Names; several are joined along the last axis, each transposed first where they are `transposed`."""
    transposed: bool = False
    """Theirs are [out, in], ours [in, out]."""
    widths: tuple[int, ...] = ()
    """Last axis of each part, once transposed; may be left out where there is one."""
    shape: tuple[int, ...] = ()
    """Shape of each tensor of theirs, where it has other axes than the part that it becomes, or is the transpose of."""


class Family(NamedTuple):
    """One kind of model in the layout of the transformers library."""

    architectures: dict[str, str]
    """`model_type` of config.json: the class of transformers that holds the whole model."""
    config: Callable[[dict[str, Any]], ModelConfig]
    """Our config for the values of a config.json. Raises `ValueError` where it asks for what we do not have."""
    values: Callable[[ModelConfig], dict[str, Any]]
    """The values of a config.json, `model_type` among them, for a config that the family may be able to express."""
    weights: Callable[[ModelConfig], list[Weight]]
    """Where each array is."""
    kind: type[ModelConfig] = ModelConfig
    """Which of our configs expresses it."""
    prefixes: tuple[str, ...] = ()
    """What may stand in front of names, or may not: models of one family differ in it."""
    reads: frozenset[str] = frozenset()
    """Keys of config.json that `config` uses, with all of their names. A save may keep other keys unchanged."""
    renames: tuple[tuple[str, str], ...] = ()
    """Parts of names in old files, each with its current form."""
    ignored: str = r"(?!)"
    """Pattern of the names of buffers, which are not learned. This and all fields below use names without prefix."""
    body: str = r""
    """Pattern of the beginning of the names of all tensors that do not belong to a head."""
    copies: Callable[[ModelConfig], dict[str, str]] = lambda config: {}
    """The name of each tied tensor, with the name of the tensor that it equals; files may have both, or either."""
    fitted: Callable[[ModelConfig, Container[str]], ModelConfig] = lambda config, names: config
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


def linear(ours: str, *theirs: str, widths: Sequence[int] = (), bias: bool = False) -> list[Weight]:
    """A matmul of ours made of torch's linear layers, side by side."""
    weights = tuple(f"{name}.weight" for name in theirs)
    found = [Weight(f"{ours}/kernel", weights, transposed=True, widths=tuple(widths))]
    if bias:
        found.append(Weight(f"{ours}/bias", tuple(f"{name}.bias" for name in theirs), widths=tuple(widths)))
    return found


def layer_norm(ours: str, theirs: str) -> list[Weight]:
    """Scale and bias of a normalisation."""
    return [Weight(f"{ours}/scale", (f"{theirs}.weight",)), Weight(f"{ours}/bias", (f"{theirs}.bias",))]


def word_of(choices: dict[str, str], ours: str) -> str:
    """Their word for one of our settings; ours where they have none, which no model reads back."""
    return next((theirs for theirs, word in choices.items() if word == ours), ours)
