"""A training step, compiled as in `train`, on random tokens."""

from functools import partial

import jax
import numpy as np

from memgpt_jax import data, models, parallel
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.model import BaseModelConfig
from memgpt_jax.memory import layer_memory_bytes
from memgpt_jax.models.parameters import count_parameters
from memgpt_jax.studies.benchmark.flops import matmul_flops
from memgpt_jax.studies.benchmark.interleaving import Case, timed
from memgpt_jax.training.compilation import compiled_step
from memgpt_jax.training.state import TrainState, create, shardings


def random_batch(config: ExperimentConfig) -> data.Batch:
    """Random batches [N A, B, ...] of the shapes that the training loop has; no document ends.

    The targets of token heads are the next tokens; labels are 0.
    """
    number = config.training.steps_per_call * config.optimizer.accumulate_steps
    shapes = data.batch_shapes(config.data, config.training)
    batch = jax.tree.map(lambda array: np.zeros((number, *array.shape), array.dtype), shapes)
    rng, inputs = np.random.default_rng(config.seed), batch.inputs
    for name in [name for name in ("tokens", "source") if name in inputs]:
        inputs[name] = rng.integers(config.model.vocab_size, size=inputs[name].shape, dtype=np.int32)
    following = np.roll(inputs["tokens"], -1, axis=2)
    targets = {head: following if zeros.ndim == 3 else zeros for head, zeros in batch.targets.items()}
    weights, info = jax.tree.map(np.ones_like, (batch.weights, batch.info))
    return data.Batch(inputs, targets, weights, info)


def forward_flops(config: BaseModelConfig, batch: data.Batch) -> int:
    """Floating-point operations in the matmuls of a forward pass over a batch, or its shapes, with portable kernels.

    Masked parts are included. The body of a loop of unknown length, such as a search by blocks, counts once.
    """
    config = config.with_kernels("portable")
    rows, length = batch.inputs["tokens"].shape
    state = jax.eval_shape(lambda: models.functional(config).init_state(rows))
    forward = partial(models.functional(config).score, alignment=config.alignment_of(length))
    arguments = batch.inputs | {"targets": batch.targets, "state": state}
    return matmul_flops(jax.make_jaxpr(forward)(models.functional(config).param_shapes(), **arguments))


def training_case(config: ExperimentConfig) -> Case:
    """A training step on the devices of `config.parallel`, with the compiler's report of its temporary memory."""
    mesh, batch = parallel.make_mesh(config.parallel), random_batch(config)
    with jax.set_mesh(mesh):
        compiled = compiled_step(config, mesh, batch)
        carried = [jax.jit(partial(create, config), out_shardings=shardings(config, mesh))()]

    def step(state: TrainState):
        return compiled(state, parallel.split_rows(batch, mesh, batch_axis=1), None)

    def run() -> float:
        with jax.set_mesh(mesh):
            (carried[0], _), host = timed(step, carried[0])
        return host / config.training.steps_per_call

    used = compiled.memory_analysis()
    facts = {
        "parameters": count_parameters(config.model),
        "state bytes": layer_memory_bytes(config.model),
    }
    if used is not None:
        facts["temporary bytes"] = used.temp_size_in_bytes
    tokens = batch.inputs["tokens"]
    forward = forward_flops(config.model, jax.tree.map(lambda array: array[0], batch)) * len(tokens)
    return Case(run=run, tokens=tokens.size, flops=3 * forward, facts=facts)
