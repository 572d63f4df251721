"""Greedy decoding after a context of any length, with reads from and writes to the memory."""

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.generation import Sampling
from memgpt_jax.generation.decode import Prefilled, advance, begin
from memgpt_jax.generation.prefill import prefill
from memgpt_jax.memory import layer_memory_bytes
from memgpt_jax.models.parameters import count_parameters
from memgpt_jax.ops.trees import tree_bytes
from memgpt_jax.studies.benchmark.interleaving import Case, timed

NEW = 64  # tokens per run


def decoding_case(config: ModelConfig, context: int, rows: int, params: models.Params | None = None) -> Case:
    """Greedy decoding of NEW tokens in each of `rows` rows after a random context; each run continues the previous one.

    Args:
        config: the model.
        context: tokens read before decoding starts.
        rows: rows decoded together.
        params: parameters; default: initial ones.
    """
    params = models.functional(config).init(jax.random.key(0)) if params is None else params
    never = jnp.zeros(0, jnp.int32)
    text = np.random.default_rng(0).integers(config.vocab_size, size=context, dtype=np.int32)
    logits, state = prefill(config, params, [text], models.functional(config).init_state(1))
    endless = jnp.full(1, 2**30, jnp.int32)
    carried = [begin(Sampling(), rows, Prefilled(logits, state, endless, None, never), np.uint32(0))]
    compiled = advance.lower(config, Sampling(), params, carried[0], np.int32(NEW), never).compile()
    read = tree_bytes((params, carried[0].state))

    def run() -> float:
        (_, carried[0]), host = timed(compiled, Sampling(), params, carried[0], np.int32(NEW), never)
        return host

    facts = {"parameters": count_parameters(config), "state bytes": layer_memory_bytes(config)}
    return Case(run=run, tokens=NEW * rows, bytes_moved=NEW * read, facts=facts)
