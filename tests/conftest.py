"""JAX at its strictest, several fake devices, and reproducible hypothesis examples, for every test."""

import jax
from hypothesis import HealthCheck, settings

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Tests compile hundreds of tiny programs and run each for milliseconds: compile fast, not well (half the time).
jax.config.update("jax_disable_most_optimizations", True)

# `pytest --hypothesis-profile=explore` looks for new counterexamples.
quiet = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.differing_executors]}
settings.register_profile("reproducible", derandomize=True, max_examples=10, database=None, **quiet)
settings.register_profile("explore", max_examples=200, **quiet)
settings.load_profile("reproducible")
