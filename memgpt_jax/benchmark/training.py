"""A training step, as `experiments/train.py` takes it, on random tokens."""

from functools import partial

import jax
import numpy as np

from memgpt_jax import models, parallel
from memgpt_jax.benchmark.turns import Candidate, timed
from memgpt_jax.config import ExperimentConfig, ModelConfig
from memgpt_jax.memory import state_bytes
from memgpt_jax.parameters import count_parameters
from memgpt_jax.training.compilation import jitted_step
from memgpt_jax.training.liveness import cost
from memgpt_jax.training.state import create, shardings


def random_batch(config: ExperimentConfig) -> dict[str, np.ndarray]:
    """Batches [N A, B, L] as the training loop feeds them; no document ends."""
    length = config.row_length or config.training.sequence_length
    number = config.training.steps_per_call * config.optimizer.accumulate_steps
    shape = (number, config.training.batch_size, length)
    tokens = np.random.default_rng(config.seed).integers(config.model.vocab_size, size=shape, dtype=np.int32)
    return {
        "tokens": tokens,
        "targets": np.roll(tokens, -1, axis=2),
        "reset": np.zeros(shape, bool),
        "weights": np.ones(shape, np.float32),
        "target_bytes": np.ones(shape, np.int32),
    }


def forward_flops(config: ModelConfig, rows: int, length: int) -> int:
    """Operations in the matmuls of a forward pass, with the scores of all tokens, as the portable form takes them.

    Masked parts are included; loops of unknown length, as of a search by blocks, count once.
    """
    config = config.with_implementation("portable")
    params = models.shapes(config)
    state = jax.eval_shape(lambda: models.init_state(config, rows))
    tokens = jax.ShapeDtypeStruct((rows, length), "int32")
    forward = partial(models.score_tokens, config, aligned=length % config.segment_length == 0)
    return cost(jax.make_jaxpr(forward)(params, tokens, tokens, state)).flops


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
        "state bytes": state_bytes(config.model),
        "temporary bytes": used.temp_size_in_bytes,
    }
    forward = forward_flops(config.model, rows, length) * batch["tokens"].shape[0]
    return Candidate(run=run, tokens=batch["tokens"].size, flops=3 * forward, facts=facts)
