"""A training step, as `experiments/train.py` takes it, on random tokens."""

from functools import partial

import jax
import numpy as np

from memgpt_jax import data, models, parallel
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.memory import layer_memory_bytes
from memgpt_jax.models.parameters import count_parameters
from memgpt_jax.studies.benchmark.turns import Candidate, timed
from memgpt_jax.training.compilation import jitted_step
from memgpt_jax.training.liveness import cost
from memgpt_jax.training.state import create, shardings


def random_batch(config: ExperimentConfig) -> dict[str, np.ndarray]:
    """Batches [N A, B, ...] as the training loop feeds them; no document ends."""
    number = config.training.steps_per_call * config.optimizer.accumulate_steps
    shapes = data.batch_shapes(config.data, config.training)
    batch = {name: np.zeros((number, *array.shape), array.dtype) for name, array in shapes.items()}
    rng = np.random.default_rng(config.seed)
    for name in [name for name in ("tokens", "source") if name in batch]:
        batch[name] = rng.integers(config.model.vocab_size, size=batch[name].shape, dtype=np.int32)
    ones = {name: np.ones_like(batch[name]) for name in ("weights", "target_bytes")}
    return batch | ones | {"targets": np.roll(batch["tokens"], -1, axis=2)}


def forward_flops(config: ModelConfig, rows: int, length: int, **further) -> int:
    """Operations in the matmuls of a forward pass, with the scores of all tokens, as the portable form takes them.

    further: the arrays, or shapes, that the model's `score` takes beside tokens.

    Masked parts are included; loops of unknown length, as of a search by blocks, count once.
    """
    config = config.with_implementation("portable")
    params = models.shapes(config)
    state = jax.eval_shape(lambda: models.init_state(config, rows))
    tokens = jax.ShapeDtypeStruct((rows, length), "int32")
    forward = partial(models.score_tokens, config, alignment=config.alignment_of(length))
    return cost(jax.make_jaxpr(forward)(params, tokens, tokens, state, **further)).flops


def training_candidate(config: ExperimentConfig) -> Candidate:
    """A step on the devices that `config.parallel` names, and what the compiler says of its memory."""
    mesh, batch = parallel.make_mesh(config.parallel), random_batch(config)
    with jax.set_mesh(mesh):
        state = jax.eval_shape(partial(create, config))
        compiled = jitted_step(config, mesh).lower(state, batch).compile()
        carried = [jax.jit(partial(create, config), out_shardings=shardings(config, mesh))()]

    def step(state):
        return compiled(state, parallel.split_rows(batch, mesh, batch_axis=1))

    def run() -> float:
        with jax.set_mesh(mesh):
            (carried[0], _), host = timed(step, carried[0])
        return host / config.training.steps_per_call

    rows, length = batch["tokens"].shape[1:]
    used = compiled.memory_analysis()
    facts = {
        "parameters": count_parameters(config.model),
        "state bytes": layer_memory_bytes(config.model),
        "temporary bytes": used.temp_size_in_bytes,
    }
    further = {name: array[0] for name, array in data.further_inputs(batch).items()}
    forward = forward_flops(config.model, rows, length, **further) * batch["tokens"].shape[0]
    return Candidate(run=run, tokens=batch["tokens"].size, flops=3 * forward, facts=facts)
