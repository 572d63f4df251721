"""The number of floating-point operations in the matmuls of a traced program."""

import math
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr


def matmul_flops(jaxpr: ClosedJaxpr | Jaxpr) -> int:
    """Floating-point operations in the matmuls of a program: 2 for each multiply-add.

    Unlike in XLA's own count, the body of a `scan` counts once for each iteration. The body of a `while` loop counts
    once, and of a `cond` only the most expensive branch counts.
    """
    total = 0
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            left: Any = eqn.invars[0].aval
            product: Any = eqn.outvars[0].aval
            total += 2 * math.prod(product.shape) * math.prod(left.shape[axis] for axis in contracted)
        elif eqn.primitive.name == "cond":
            total += max(matmul_flops(branch) for branch in eqn.params["branches"])
        else:
            inner = sum(matmul_flops(part) for value in eqn.params.values() for part in _programs(value))
            total += inner * (eqn.params["length"] if eqn.primitive.name == "scan" else 1)
    return total


def _programs(value: Any) -> list[ClosedJaxpr | Jaxpr]:
    """The programs in one parameter of an operation."""
    return [part for part in (value if isinstance(value, tuple | list) else [value]) if hasattr(part, "eqns")]
