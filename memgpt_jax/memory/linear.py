"""The linear layer of all modules: every matmul with a parameter of its own is made here."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.ops.linear import flat_dot_general
from memgpt_jax.ops.quantized import StoredMatrix


def linear(
    d_in: int,
    d_out: int,
    *,
    use_bias: bool,
    dtype: Any,
    rngs: nnx.Rngs,
    bias_init: Callable[..., jax.Array] = jax.nn.initializers.zeros,
    adapter_rank: int | None = None,
) -> nnx.Linear:
    """A layer y = W x [+ b] [+ B A x] whose initial kernel W preserves the variance of its input.

    Args:
        d_in: width of the input.
        d_out: width of the output.
        use_bias: whether the layer has the bias b, [d_out].
        dtype: compute type; parameters are float32.
        rngs: random keys of the initial parameters.
        bias_init: initial bias; default: 0.
        adapter_rank: rank of a low-rank adapter B A (Hu et al., "LoRA", 2022), with B = 0 initially; None: no adapter.
    """
    options = {
        "use_bias": use_bias,
        "kernel_init": jax.nn.initializers.normal(d_in**-0.5),
        "bias_init": bias_init,
        "dtype": dtype,
        "dot_general": flat_dot_general,
        "promote_dtype": _promoted,
        "rngs": rngs,
    }
    if adapter_rank is None:
        return nnx.Linear(d_in, d_out, **options)
    return nnx.LoRALinear(d_in, d_out, lora_rank=adapter_rank, lora_dtype=dtype, **options)


def _promoted(arrays: tuple[Any, ...], *, dtype: Any) -> tuple[Any, ...]:
    """The arrays in the compute type; a stored kernel, and the None of no bias, are unchanged."""
    return tuple(x if x is None or isinstance(x, StoredMatrix) else jnp.asarray(x, dtype) for x in arrays)
