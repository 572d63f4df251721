"""The number and the bytes of the parameters of a model, and a baseline without memory of the same number."""

import dataclasses
import math
from typing import Any

import jax

from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import BaseModelConfig, ModelConfig
from memgpt_jax.models.model_functions import functional, to_params
from memgpt_jax.ops.trees import tree_bytes


def count_parameters(config: BaseModelConfig) -> int:
    """Number of trainable values of a model, from the shapes of its parameters: nothing is allocated."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(functional(config).param_shapes()))


def parameter_bytes(model: Any) -> int:
    """Bytes of the parameters that a model has: 4 for each value, fewer if it is quantised."""
    return tree_bytes(to_params(model))


def match_parameters(config: ModelConfig, tolerance: float = 0.02) -> ModelConfig:
    """The model without memory, with feed-forward layers so wide that the number of parameters is equal.

    The count grows linearly with d_ff, so two counts give the width. Raises `ValueError` if the count closest to the
    original's differs by more than `tolerance` (a share): the model is then too small for the comparison to be fair.
    """
    target = count_parameters(config)
    width = config.feed_forward_dim
    plain = dataclasses.replace(config, memory=NoMemoryConfig(), memory_layers=None, d_ff=width)
    count = count_parameters(plain)
    per_unit = count_parameters(dataclasses.replace(plain, d_ff=width + 1)) - count
    matched = dataclasses.replace(plain, d_ff=width + round((target - count) / per_unit))
    difference = count_parameters(matched) / target - 1
    if abs(difference) > tolerance:
        raise ValueError(
            f"no feed-forward width brings the model without memory within {tolerance:.0%} of {target} parameters: "
            f"d_ff={matched.d_ff} is off by {difference:+.1%}"
        )
    return matched
