"""Conversion of the tensors of a pretrained model to parameters, and of parameters to tensors."""

import functools
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check
from memgpt_jax.config.model import BaseModelConfig
from memgpt_jax.interop.families import Family, Weight
from memgpt_jax.interop.families.base import ZERO
from memgpt_jax.interop.tensors import Tensors
from memgpt_jax.models.model_functions import abstract_model
from memgpt_jax.ops.trees import named_leaves

OURS = "memgpt"
"""Key of config.json for the config of this library, and prefix of tensors that only this library has."""
SHOWN = 8
"""Largest number of names in a warning."""
LM_HEAD, OUTPUT = "lm_head.weight", ("output/kernel", "decoder/output/kernel")
LANGUAGE_MODELS = r".*(CausalLM|LMHead|DoubleHeads|ConditionalGeneration).*"
"""The classes of transformers whose files hold `LM_HEAD`, unless it is tied."""

logger = logging.getLogger(__name__)


class Plan(NamedTuple):
    """How the parameters of a model are made from a file."""

    config: BaseModelConfig
    """The config of the model, without the heads that the file lacks."""
    family: Family[Any] | None
    """None: the file has the names of this library."""
    table: list[Weight]
    """The tensors of each parameter."""
    names: dict[str, str]
    """The name of each tensor in the file, by its name in the table without prefix."""
    drawn: tuple[str, ...] = ()
    """Parameters that are initialised at random, because the class of the saved model lacks them."""


def table_of(config: BaseModelConfig, family: Family[Any] | None) -> list[Weight]:
    """The tensors of each parameter; a parameter that the family lacks is one tensor."""
    found = [] if family is None else family.weight_table(config)
    covered = {weight.parameter for weight in found}
    return found + [
        Weight(name, (f"{OURS}.{name.replace('/', '.')}",)) for name in shapes_of(config) if name not in covered
    ]


def plan_of(
    config: BaseModelConfig, family: Family[Any] | None, architectures: Any, tensors: Tensors, path: Path
) -> Plan:
    """The plan for a model of this config from these tensors, by the rules of transformers for heads and tied tensors.

    A head that the file lacks is omitted from the config, with a warning in the log. A copy of a tied tensor is read if
    the tensor itself is absent. A copy that differs is an error, unless it can be an untied output projection.

    Args:
        config: the config of the file.
        family: the family of the model; None: the file has the names of this library.
        architectures: the classes of transformers in config.json; None: it names none.
        tensors: the tensors of the file.
        path: the file, for messages.

    Raises `ValueError` if two tied tensors differ.
    """
    layers = max(stack.num_layers for stack in config.stacks.values())
    if layers > len(tensors.shapes):
        raise ValueError(f"{path} has {len(tensors.shapes)} tensors, too few for {layers} layers")
    if family is None:
        return Plan(config, family, table_of(config, family), {name: name for name in tensors.shapes})
    names = _names(family, tensors.shapes, path)
    for copy, original in family.tied_tensors(config).items():
        if copy in names and original not in names:
            names[original] = names.pop(copy)
        elif copy in names:
            arrays = tensors.read([names[copy], names[original]])
            if np.array_equal(arrays[names[copy]], arrays[names[original]]):
                del names[copy]
            elif copy != LM_HEAD:
                raise ValueError(f"{path}: {names[copy]} must be equal to {names[original]}, which it is tied to")
    fitted = family.fitted(config, names)
    _warn_of_missing_heads(config, fitted, path)
    table, drawn = table_of(fitted, family), ()
    classes = [architectures] if isinstance(architectures, str) else architectures or []
    is_other = bool(classes) and not any(re.fullmatch(LANGUAGE_MODELS, name) for name in classes)
    if is_other and LM_HEAD not in names and any(LM_HEAD in weight.tensors for weight in table):
        table, drawn = [weight for weight in table if LM_HEAD not in weight.tensors], OUTPUT
        logger.warning("%s has no %s: it is initialised at random; hidden states do not depend on it", path, LM_HEAD)
    return Plan(fitted, family, table, names, drawn)


def params_from_tensors(plan: Plan, tensors: Tensors, path: Path) -> models.Params:
    """The tree of parameters, float32.

    Tensors of heads that the model does not have are ignored, with a warning in the log.

    Raises `ValueError`, which lists the tensors that are missing, unexpected or of a wrong shape.
    """
    bare = plan.family.bare if plan.family else str
    shapes, wrong, needed = shapes_of(plan.config), [], set()
    for weight in plan.table:
        for name, shape in _tensor_shapes(weight, shapes[weight.parameter]).items():
            original = plan.names.get(bare(name))
            needed.add(bare(name))
            if original is None:
                wrong.append(f"missing: {name} {list(shape)}")
            elif tensors.shapes[original] != shape:
                wrong.append(f"wrong shape: {original} is {list(tensors.shapes[original])}, must be {list(shape)}")
    ignored = []
    for name, original in plan.names.items():
        if name not in needed:
            if plan.family is None or re.match(rf"{plan.family.body}|{OURS}\.", name):
                wrong.append(f"unexpected: {original} {list(tensors.shapes[original])}")
            else:
                ignored.append(original)
    if wrong:
        raise ValueError(f"the weights in {path} do not fit their config:\n  " + "\n  ".join(wrong))
    if ignored:
        more = f" and {len(ignored) - SHOWN} more" if len(ignored) > SHOWN else ""
        logger.warning("%s: ignored, as the model has no such head: %s%s", path, ", ".join(ignored[:SHOWN]), more)
    arrays = tensors.read(plan.names[name] for name in sorted(needed))
    params = {}
    for weight in plan.table:
        parts = []
        for name, shape in _part_shapes(weight, shapes[weight.parameter]).items():
            part = np.zeros(shape) if name == ZERO else arrays.pop(plan.names[bare(name)]).reshape(shape)
            parts.append(part.T if weight.transposed else part)
        join = np.stack if weight.rows else functools.partial(np.concatenate, axis=-1)
        params[weight.parameter] = join(parts) if len(parts) > 1 else parts[0]
    for name in plan.drawn:
        if name in shapes:
            normal = jax.nn.initializers.normal(shapes[name][0] ** -0.5)
            params[name] = normal(jax.random.key(0), shapes[name], jnp.float32)
    return tree_of(params)


def tensors_from_params(table: list[Weight], params: models.Params) -> dict[str, np.ndarray]:
    """The tensors by their names in the table, float32: the inverse of `params_from_tensors`."""
    flat = {name: np.asarray(array, np.float32) for name, array in named_leaves(params).items()}
    return {name: part for weight in table for name, part in _parts(weight, flat[weight.parameter]).items()}


def lacks_key_bias(config: BaseModelConfig, table: list[Weight], params: models.Params) -> bool:
    """Whether the table has no place for a bias of keys that changes the outputs.

    A softmax over keys that all have the bias does not depend on it. With `fusion="attention"` the entries of the
    memory, which have none, are in the same softmax.
    """
    if not any(stack.fusion == "attention" for stack in config.stacks.values()):
        return False
    flat = named_leaves(params)
    for weight in table:
        if weight.widths and ZERO in weight.tensors:
            parts = np.split(np.asarray(flat[weight.parameter]), np.cumsum(weight.widths)[:-1], axis=-1)
            if any(part.any() for name, part in zip(weight.tensors, parts, strict=True) if name == ZERO):
                return True
    return False


@functools.lru_cache(maxsize=64)
def shapes_of(config: BaseModelConfig) -> Mapping[str, tuple[int, ...]]:
    """The shape of every parameter by its path."""
    leaves = named_leaves(models.to_params(abstract_model(config)))
    return MappingProxyType({name: leaf.shape for name, leaf in leaves.items()})


def tree_of(flat: Mapping[str, np.ndarray]) -> models.Params:
    """The inverse of `named_leaves`; float32."""
    tree = {}
    for name, array in flat.items():
        *folders, last = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = jnp.asarray(array, jnp.float32)
    return tree


def _names(family: Family[Any], names: Iterable[str], path: Path) -> dict[str, str]:
    """The name of each tensor in the file by its name without prefix; buffers are omitted."""
    found = {}
    for name in names:
        bare = family.bare(name)
        if re.fullmatch(family.ignored, bare):
            continue
        if bare in found:
            raise ValueError(f"{path}: {found[bare]} and {name} are names of one tensor")
        found[bare] = name
    return found


def _warn_of_missing_heads(config: BaseModelConfig, fitted: BaseModelConfig, path: Path) -> None:
    """Log a warning with the heads that the config has and the file lacks."""
    heads = [head for head in config.heads if head not in fitted.heads]
    if getattr(config, "output_bias", False) and not getattr(fitted, "output_bias", False):
        heads.append("output_bias")
    if heads:
        logger.warning("%s has no tensors for these parts of the model, which are omitted: %s", path, ", ".join(heads))


def _tensor_shapes(weight: Weight, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a parameter in the file."""
    if weight.rows:
        return {name: own for name, own in zip(weight.tensors, weight.rows, strict=True) if name != ZERO}
    parts = _part_shapes(weight, shape)
    return {name: weight.shape or part for name, part in parts.items() if name != ZERO}


def _part_shapes(weight: Weight, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a parameter, its axes joined as in the parameter (see `Weight.shape`)."""
    if weight.rows:
        return dict.fromkeys(weight.tensors, shape[1:])
    widths = weight.widths or shape[-1:]
    shapes = ((*shape[:-1], width) for width in widths)
    turned = (part[::-1] if weight.transposed else part for part in shapes)
    return dict(zip(weight.tensors, turned, strict=True))


def _parts(weight: Weight, array: np.ndarray) -> dict[str, np.ndarray]:
    """The tensors that one parameter becomes."""
    if weight.rows:
        named = dict(zip(weight.tensors, array, strict=True))
        unknown = named.pop(ZERO, None)
        check(
            unknown is None or not unknown.any(),
            f"{weight.parameter}: the family has no place for a row that is not 0; save the run itself instead",
        )
        return {name: row.reshape(_tensor_shapes(weight, array.shape)[name]) for name, row in named.items()}
    cuts = np.cumsum(weight.widths)[:-1]
    parts = np.split(array, cuts, axis=-1) if weight.widths else [array]
    turned = (part.T if weight.transposed else part for part in parts)
    named = zip(weight.tensors, turned, strict=True)
    return {name: part.reshape(weight.shape or part.shape) for name, part in named if name != ZERO}
