"""What a training run compiles. A process that goes on with the run that it trained last finds it compiled."""

import functools

import jax

from memgpt_jax import models, parallel
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.training.state import shardings
from memgpt_jax.training.step import train_steps


@functools.lru_cache(maxsize=1)
def jitted_step(config: ExperimentConfig, mesh: jax.sharding.Mesh) -> jax.stages.Wrapped:
    """`train_steps` for the devices of a mesh; it takes over the arrays of the state that it is given."""
    split = shardings(config, mesh)
    return jax.jit(
        functools.partial(train_steps, config),
        donate_argnums=0,
        in_shardings=(split, parallel.rows_sharding(mesh, batch_axis=1)),
        out_shardings=(split, parallel.replicated(mesh)),
        compiler_options=compiler_options(config),
    )


@functools.lru_cache(maxsize=1)
def jitted_diagnostics(config: ExperimentConfig, mesh: jax.sharding.Mesh) -> jax.stages.Wrapped:
    """`diagnostics` of the model with parameters, batches [N, B, ...] and a memory: means over the batches.

    Each batch is read with the memory after the batch before it, or, as in training, with a fresh one.
    """
    model, training = config.model, config.training

    def read(params, memory, batch):
        alignment = model.alignment_of(batch.inputs["tokens"].shape[1])  # as in `batch_loss`
        options = batch.inputs | {"state": memory, "alignment": alignment}
        return models.functional(model).diagnostics(params, **options), options

    def diagnostics(params, batches, memory):
        if len(batches.inputs["tokens"]) == 1:
            return read(params, memory, jax.tree.map(lambda array: array[0], batches))[0]

        def step(memory, batch):
            found, options = read(params, memory, batch)
            if training.carry_state:  # the compiler merges this with what `read` computes
                _, memory = models.functional(model).score(params, targets=batch.targets, **options)
            return memory, found

        _, found = jax.lax.scan(step, memory, batches)
        return jax.tree.map(lambda array: array.mean(axis=0), found)

    return jax.jit(diagnostics, out_shardings=parallel.replicated(mesh))


def compiler_options(config: ExperimentConfig) -> dict[str, str]:
    """Options for `jax.jit`: none for accelerators, where XLA does as it should.

    On CPU, XLA by default orders operations so that as many as possible can run at once, which takes a quarter more
    memory and was not faster. And jax 0.10 (0.12 does not) drops the barriers that keep what `ModelConfig.remat`
    recomputes from being computed early, so that nothing was saved; with them, the default order takes less.
    """
    if jax.default_backend() != "cpu":
        return {}
    option = ("xla_cpu_scheduler_type", "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED")
    if any(stack.remat != "none" for stack in config.model.stacks.values()):
        option = ("xla_disable_hlo_passes", "cse_barrier_expander")
    return dict([option]) if _known(option) else {}


@functools.lru_cache
def _known(option: tuple[str, str]) -> bool:
    """Whether this release of XLA takes the option."""
    try:
        jax.jit(lambda: 0, compiler_options=dict([option])).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
