"""A complete user-defined memory mechanism: a configuration, a module, one registration. This file is also a config.

    python experiments/train.py tests/examples/mean_memory.py --workdir runs/mean --model.memory.memory_size 32

To load its runs, put its folder on `PYTHONPATH`, or import it first. To run the contract tests over it:

    PYTHONPATH=tests/examples python -m pytest -p mean_memory tests/memory/test_contract.py -k mean
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx

import memgpt_jax as mg
from memgpt_jax.shapes import Array, Float32
from memgpt_jax.studies.command_line import load_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanMemoryConfig(mg.SizedMemoryConfig):
    """The mean of all tokens so far, in `memory_size` channels."""

    decay: float = 1.0
    """What is left of the sum when a segment is written; 1: all."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay must be between 0 and 1, got {self.decay}")


class MeanState(NamedTuple):
    """Bytes per row: 4 M + 4."""

    total: Float32[Array, "B M"]
    count: Float32[Array, "B 1"]


class MeanMemory(mg.Memory):
    """r = W_o (total / max(count, 1));   total' = decay total + Σ_t W_i x_t,   count' = decay count + T."""

    def __init__(self, config: MeanMemoryConfig, *, d_model: int, segment_length: int, dtype, rngs: nnx.Rngs):
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs)
        self.input = nnx.Linear(d_model, config.memory_size, use_bias=False, dtype=self.dtype, rngs=rngs)
        self.output = nnx.Linear(config.memory_size, d_model, use_bias=False, dtype=self.dtype, rngs=rngs)

    def init_state(self, batch_size):
        size = self.config.memory_size
        return MeanState(jnp.zeros((batch_size, size), jnp.float32), jnp.zeros((batch_size, 1), jnp.float32))

    def read(self, x, state, own_segment, update_mask):
        mean = state.total / jnp.maximum(state.count, 1)
        return jnp.broadcast_to(mean.astype(self.dtype)[:, None], (*x.shape[:2], mean.shape[1])), state

    def write(self, x, state, write_mask):
        decay, written = self.config.decay, write_mask[..., None].astype(jnp.float32)
        total = decay * state.total + jnp.sum(written * self.input(x).astype(jnp.float32), axis=1)
        return MeanState(total, decay * state.count + jnp.sum(written, axis=1))


mg.register_memory("mean", MeanMemoryConfig, MeanMemory)


def config() -> mg.ExperimentConfig:
    base = load_config("recall")
    return dataclasses.replace(base, model=dataclasses.replace(base.model, memory=MeanMemoryConfig(memory_size=16)))
