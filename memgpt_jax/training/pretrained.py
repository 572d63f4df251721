"""Training that starts from the weights of a pretrained model."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from memgpt_jax import models
from memgpt_jax.config.checks import check
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.heads import HeadConfig, HeadedConfig
from memgpt_jax.config.model import BaseModelConfig, Seq2SeqConfig, StackConfig
from memgpt_jax.files.saved_files import replacing_files
from memgpt_jax.interop.add_memory import with_base
from memgpt_jax.interop.folder import writable
from memgpt_jax.interop.origin import Origin, write_origin
from memgpt_jax.interop.pretrained import RUN_ORIGIN, describe

EXPERIMENT_FIELDS = (
    "memory",
    "memory_layers",
    "fusion",
    "fusion_bias",
    "window_size",
    "window_bits",
    "segment_length",
    "adapter_rank",
    "dropout",
    "dtype",
)
"""Fields of a stack that are taken from the experiment; all others come from the pretrained model. The `heads` of an
encoder and the `source_length` of the decoder of an encoder-decoder are taken from the experiment, too."""


class PretrainedStart(NamedTuple):
    """An experiment that starts from a pretrained model."""

    config: ExperimentConfig
    """The experiment with the architecture of the pretrained model."""
    params: Callable[[ExperimentConfig], models.Params]
    """The parameters for `config`, or for `config` with another memory: those of the pretrained model, and new ones,
    which do not change its outputs before they are trained. Heads that the pretrained model lacks are drawn anew."""
    origin: Origin | None
    """See `Pretrained.origin`."""
    new_heads: tuple[str, ...]
    """The heads of an encoder that the pretrained model lacks."""

    def keep_origin(self, workdir: Path) -> None:
        """Write the origin into the folder of a run, from which `from_pretrained(workdir)` reads it.

        Raises `ValueError` if it cannot be written.
        """
        if self.origin is not None:
            folder = workdir / RUN_ORIGIN
            with writable(folder), replacing_files(folder) as new:
                write_origin(new, self.origin)


def pretrained_start(config: ExperimentConfig) -> PretrainedStart:
    """The experiment that starts from the pretrained model `config.pretrained`.

    Args:
        config: the experiment. Its model must have the class of the pretrained model's config; of the model's fields,
            only `EXPERIMENT_FIELDS`, the heads of an encoder and the `source_length` of an encoder-decoder are used.

    Raises:
        ValueError: `pretrained` is None, the classes differ, or an error of `from_pretrained` or `add_memory`.
    """
    if config.pretrained is None:
        raise ValueError("pretrained must name a pretrained model, got None")
    base = describe(config.pretrained)
    check(
        base.bits is None,
        f"pretrained={config.pretrained!r} is quantised and cannot be trained: train the model itself",
    )
    model = config.model
    gets_head = isinstance(model, HeadedConfig) and not isinstance(base.config, HeadedConfig)
    if isinstance(model, HeadedConfig) and gets_head:
        _check_class(config.pretrained, base.config, model.backbone, "model.backbone")
        model = dataclasses.replace(model, backbone=_with_experiment(base.config, model.backbone))
    else:
        _check_class(config.pretrained, base.config, model, "model")
        if isinstance(base.config, HeadedConfig) and isinstance(model, HeadedConfig):
            _check_head(config.pretrained, base.config.head, model.head)
        model = _with_experiment(base.config, model)
    data = config.data
    if getattr(data, "tokenizer", None) == "pretrained":
        data = dataclasses.replace(data, tokenizer=config.pretrained)

    def params(config: ExperimentConfig) -> models.Params:
        key, model = jax.random.key(config.seed), config.model
        if not isinstance(model, HeadedConfig) or not gets_head:
            return with_base(model, base.params(), key)
        return models.functional(model).init(key) | {"backbone": with_base(model.backbone, base.params(), key)}

    new_heads = () if gets_head else tuple(name for name in model.heads if name not in base.config.heads)
    return PretrainedStart(dataclasses.replace(config, data=data, model=model), params, base.origin, new_heads)


def _check_class(pretrained: str, base: BaseModelConfig, model: BaseModelConfig, name: str) -> None:
    check(
        type(model) is type(base),
        f"pretrained={pretrained!r} is a {type(base).__name__}, but {name} is a {type(model).__name__}: make {name} a "
        f"{type(base).__name__}",
    )


def _check_head(pretrained: str, base: HeadConfig, head: HeadConfig) -> None:
    check(
        type(head) is type(base),
        f"pretrained={pretrained!r} has a {type(base).__name__}, but model.head is a {type(head).__name__}: make "
        f"model.head a {type(base).__name__}",
    )


def _with_experiment(base: BaseModelConfig, experiment: BaseModelConfig) -> BaseModelConfig:
    """The config of the pretrained model with the fields that are taken from the experiment."""
    names = (*EXPERIMENT_FIELDS, "source_length" if isinstance(base, Seq2SeqConfig) else "heads")
    others = experiment.stacks
    return base.with_stacks({name: _with_fields(stack, others[name], names) for name, stack in base.stacks.items()})


def _with_fields(base: StackConfig, experiment: StackConfig, names: tuple[str, ...]) -> StackConfig:
    kept = {item.name: getattr(experiment, item.name) for item in dataclasses.fields(base) if item.name in names}
    return dataclasses.replace(base, **kept).with_execution_of(experiment)
