"""Quantised models in folders: an entry of config.json, and the arrays of each matrix as tensors."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.model import BaseModelConfig
from memgpt_jax.interop.assembly import OURS, SHOWN
from memgpt_jax.interop.tensors import Tensors
from memgpt_jax.models.quantization import quantize_params
from memgpt_jax.ops.quantized import BITS, Bits
from memgpt_jax.ops.trees import named_leaves

QUANTIZATION = "quantization_config"
"""The key of config.json; transformers has the same, and refuses this method."""


def quantization_values(bits: Bits | None) -> dict[str, Any]:
    """The entries of config.json for matrices that are quantised so; None: they are floats."""
    return {} if bits is None else {QUANTIZATION: {"quant_method": OURS, "bits": bits}}


def bits_of(values: dict[str, Any], path: Path) -> Bits | None:
    """The inverse of `quantization_values`. Raises `ValueError` for a quantisation that is not of this library."""
    found = values.get(QUANTIZATION)
    if isinstance(found, dict) and found.get("quant_method") == OURS and found.get("bits") in BITS:
        return found["bits"]
    for name in (QUANTIZATION, "compression_config"):
        if values.get(name) is not None:
            raise ValueError(f"{path}: {name} is not supported: save the model without quantisation first")
    return None


def quantized_tensors(params: models.Params) -> dict[str, np.ndarray]:
    """The arrays of all parameters by their names in a file."""
    return {_tensor(name): np.asarray(leaf) for name, leaf in named_leaves(params).items()}


def quantized_params(config: BaseModelConfig, bits: Bits, tensors: Tensors, path: Path) -> models.Params:
    """The parameters from the tensors of a file: the inverse of `quantized_tensors`.

    Raises `ValueError`, which lists the tensors that are missing, unexpected or of a wrong shape.
    """
    shapes = models.functional(config).param_shapes()
    expected = jax.eval_shape(lambda params: quantize_params(config, params, bits), shapes)
    leaves = {_tensor(name): leaf for name, leaf in named_leaves(expected).items()}
    wrong = [f"unexpected: {name}" for name in tensors.shapes if name not in leaves]
    for name, leaf in leaves.items():
        if name not in tensors.shapes:
            wrong.append(f"missing: {name} {list(leaf.shape)}")
        elif tensors.shapes[name] != leaf.shape:
            wrong.append(f"wrong shape: {name} is {list(tensors.shapes[name])}, must be {list(leaf.shape)}")
    if wrong:
        raise ValueError(f"the weights in {path} do not fit their config:\n  " + "\n  ".join(wrong[:SHOWN]))
    arrays = tensors.read(leaves)
    found = [jax.numpy.asarray(arrays[name], leaf.dtype) for name, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(expected), found)


def _tensor(name: str) -> str:
    """The name of an array in a file, by its path in the parameters."""
    return f"{OURS}.{name.replace('/', '.')}"
