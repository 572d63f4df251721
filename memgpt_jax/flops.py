"""Counting the multiply-adds of a function's matmuls, from its trace alone: nothing is compiled or run."""

import math
from collections.abc import Callable

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from memgpt_jax import models
from memgpt_jax.config import ModelConfig


def matmul_flops(function: Callable, *arguments) -> int:
    """Floating-point operations of all matmuls of a call: 2 for each multiply-add, as compiled, masked parts included.

    A loop counts as often as it runs, a `while` loop once, of the branches of a condition the largest.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def model_flops(config: ModelConfig, batch_size: int, length: int) -> int:
    """`matmul_flops` of a forward pass over `length` tokens of each row, with their scores."""
    params = jax.eval_shape(lambda: models.init(config, jax.random.key(0)))
    state = jax.eval_shape(lambda: models.init_state(config, batch_size))
    tokens = jax.ShapeDtypeStruct((batch_size, length), "int32")
    aligned = length % config.segment_length == 0
    forward = lambda *arguments: models.score_tokens(config, *arguments, aligned=aligned)  # noqa: E731
    return matmul_flops(forward, params, tokens, tokens, state)


def _count(jaxpr: Jaxpr) -> int:
    return sum(_count_one(equation) for equation in jaxpr.eqns)


def _count_one(equation) -> int:
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
    inner = [_count(sub) for value in equation.params.values() for sub in _jaxprs(value)]
    if equation.primitive.name == "cond":
        return max(inner, default=0)
    return sum(inner) * equation.params.get("length", 1) if equation.primitive.name == "scan" else sum(inner)


def _jaxprs(value) -> list[Jaxpr]:
    """The jaxprs in a parameter of an equation."""
    if isinstance(value, ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, Jaxpr):
        return [value]
    return [sub for item in value for sub in _jaxprs(item)] if isinstance(value, tuple | list) else []
