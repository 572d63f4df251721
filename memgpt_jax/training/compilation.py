"""How XLA is to compile a training step."""

import functools

import jax

from memgpt_jax.config import ExperimentConfig


def compiler_options(config: ExperimentConfig) -> dict[str, str]:
    """Options for `jax.jit`: none for accelerators, where XLA does as it should.

    On CPU, XLA by default orders operations so that as many as possible can run at once, which takes more memory and is
    not faster; and it drops the barriers that make `ModelConfig.remat` recompute late, so that nothing is saved.
    """
    if jax.default_backend() != "cpu":
        return {}
    options = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    if config.model.remat != "none":
        options["xla_disable_hlo_passes"] = "cse_barrier_expander"
    return options if _known(*options.items()) else {}


@functools.lru_cache
def _known(*options: tuple[str, str]) -> bool:
    """Whether this release of XLA takes the options."""
    try:
        jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
