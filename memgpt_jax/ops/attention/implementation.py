"""Choice of an implementation of attention by device, dtype and head width."""

import jax
import jax.numpy as jnp
from jax.extend import backend as jax_backend
from jax.typing import DTypeLike

from memgpt_jax.config.kernels import Implementation
from memgpt_jax.ops.mesh import num_entry_parts


def choose(implementation: Implementation, kernels: tuple[str, ...], dtype: DTypeLike, width: int) -> str:
    """The implementation that runs for heads of `width` channels, given the `kernels` that the operation has.

    Raises:
        ValueError: `implementation` does not run here; the message names those that do.
    """
    if implementation in ("auto", "portable"):
        return "portable"
    usable = ["portable", *(name for name in kernels if _runs(name, jnp.dtype(dtype), width))]
    if "pallas" in kernels and num_entry_parts() == 1:
        usable.append("interpret")
    if implementation not in usable:
        parts = "" if num_entry_parts() == 1 else f", entries split over {num_entry_parts()} devices"
        place = f"{jax.default_backend()}{parts}, {jnp.dtype(dtype)}, heads of width {width}"
        valid = ", ".join(map(repr, ["auto", *usable]))
        raise ValueError(f"implementation={implementation!r} does not work here ({place}); valid: {valid}")
    return implementation


def _runs(kernel: str, dtype: jnp.dtype, width: int):
    backend = jax.default_backend()
    nvidia = backend == "gpu" and "cuda" in jax_backend.get_backend().platform_version
    if kernel == "cudnn":
        return nvidia and dtype in (jnp.bfloat16, jnp.float16) and width % 8 == 0 and width <= 128
    if num_entry_parts() > 1:
        return False
    ampere = nvidia and float(jax.local_devices()[0].compute_capability) >= 8
    return backend == "tpu" or (ampere and width <= (64 if dtype == jnp.float32 else 128))
