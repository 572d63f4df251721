"""Memory in a Flax NNX model of your own: a layer, a block with a memory, a mechanism by itself."""

import jax
import jax.numpy as jnp
from flax import nnx

import memgpt_jax as mg
from memgpt_jax.memory.base import whole_segment
from memgpt_jax.memory.kv import KVMemory

B, L, T, D = 2, 48, 16, 32
memory = mg.KVMemoryConfig(memory_size=64, head_dim=16)


class Model(nnx.Module):
    """A convolution, a memory over its output, and a block of somebody else's with a memory behind it."""

    def __init__(self, rngs: nnx.Rngs):
        self.convolution = nnx.Conv(D, D, kernel_size=(3,), padding="CAUSAL", rngs=rngs)
        self.memory = mg.MemoryLayer(memory, d_model=D, segment_length=T, rngs=rngs)
        block = nnx.Sequential(nnx.Linear(D, 4 * D, rngs=rngs), nnx.gelu, nnx.Linear(4 * D, D, rngs=rngs))
        self.block = mg.wrap(block, memory=memory, d_model=D, segment_length=T, rngs=rngs)

    def init_state(self, batch_size: int):
        return self.memory.init_state(batch_size), self.block.init_state(batch_size)

    def __call__(self, x, state, reset=None):
        x, first = self.memory(self.convolution(x), state[0], reset)  # reset [B, L]: a document begins here
        x, second = self.block(x, state[1], reset=reset)
        return x, (first, second)


@nnx.jit
def call(model, x, state, reset=None):
    return model(x, state, reset)


@nnx.jit
def read_and_write(alone, x, state):
    found, state = alone.segment(whole_segment(x), state)  # T tokens read, then are written
    return alone.project_out(found), state  # [B, T, D]


model = nnx.jit(lambda: Model(nnx.Rngs(0)))()
x = jax.random.normal(jax.random.key(0), (B, L, D))
y, state = call(model, x, model.init_state(B))  # what is to be remembered comes out, and goes into the next call
y, state = call(model, x[:, :1], state)  # any number of tokens
y, state = call(model, x, state, reset=jnp.zeros((B, L), bool).at[:, 20].set(True))

alone = nnx.jit(lambda: KVMemory(memory, d_model=D, segment_length=T, dtype="float32", rngs=nnx.Rngs(0)))()
read, stored = read_and_write(alone, x[:, :T], alone.init_state(B))
