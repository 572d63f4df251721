"""The compiled functions of a run, cached so that resuming a run in the same process does not compile again."""

import functools
from typing import Any

import jax

from memgpt_jax import data, models, parallel
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.training.state import LossFunction, abstract_state, shardings
from memgpt_jax.training.step import train_steps
from memgpt_jax.training.teachers import student_state


def compiled_step(
    config: ExperimentConfig, mesh: jax.sharding.Mesh, batches: data.Batch, loss_fn: LossFunction | None = None
) -> jax.stages.Compiled:
    """Compile `train_steps` for the devices of a mesh: a function of (state, batches, loss_fn).

    It donates the arrays of the state. The last program is kept: a run that is resumed in the same process with the
    same shapes is not compiled again.

    Args:
        config: the experiment.
        mesh: the devices.
        batches: arrays [N A, B, ...], or their shapes.
        loss_fn: as in `train_step`.
    """
    arguments = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (batches, loss_fn))
    leaves, structure = jax.tree.flatten(arguments)
    return _compiled_step(config, mesh, tuple(leaves), structure)


@functools.lru_cache(maxsize=1)
def _compiled_step(config: ExperimentConfig, mesh: jax.sharding.Mesh, leaves: tuple, structure: Any):
    split, everywhere = shardings(config, mesh), parallel.replicated(mesh)
    batches, loss_fn = jax.tree.unflatten(structure, leaves)
    arguments = parallel.parameter_shardings(loss_fn, mesh) if config.distill.active else everywhere  # teachers
    step = jax.jit(
        functools.partial(train_steps, config),
        donate_argnums=0,
        in_shardings=(split, parallel.rows_sharding(mesh, batch_axis=1), arguments),
        out_shardings=(split, everywhere),
        compiler_options=compiler_options(config),
    )
    return step.lower(abstract_state(config), batches, loss_fn).compile()


@functools.lru_cache(maxsize=1)
def jitted_diagnostics(config: ExperimentConfig, mesh: jax.sharding.Mesh) -> jax.stages.Wrapped:
    """`diagnostics` of the model with parameters, batches [N, B, ...] and a memory: means over the batches.

    Each batch is read with the memory after the batch before it, or, as in training, with a fresh one.
    """
    model, training = config.model, config.training

    def read(params: Any, memory: Any, batch: Any):
        options = batch.inputs | {"state": memory, "alignment": model.alignment_of_inputs(batch.inputs)}
        return models.functional(model).diagnostics(params, **options), options

    def diagnostics(params: Any, batches: Any, memory: Any):
        memory = student_state(memory)
        if len(batches.inputs["tokens"]) == 1:
            return read(params, memory, jax.tree.map(lambda array: array[0], batches))[0]

        def step(memory: Any, batch: Any):
            found, options = read(params, memory, batch)
            if training.carry_state:  # the compiler merges this with what `read` computes
                _, memory = models.functional(model).apply(params, **options)
            return memory, found

        _, found = jax.lax.scan(step, memory, batches)
        return jax.tree.map(lambda array: array.mean(axis=0), found)

    return jax.jit(diagnostics, out_shardings=parallel.replicated(mesh))


def compiler_options(config: ExperimentConfig) -> dict[str, str]:
    """Options for `jax.jit`: none for accelerators.

    On CPU, XLA by default schedules as many operations as possible concurrently, which needs a quarter more memory and
    was not faster. In jax 0.10 (not in 0.12) it also removes the barriers that delay the recomputation of
    `ModelConfig.remat`, so that remat saves nothing; with the barriers, the default schedule needs less memory.
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
