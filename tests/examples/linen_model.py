"""Memory in a Flax Linen model of your own, through Flax's bridge, and three steps of training."""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

import memgpt_jax as mg

B, L, T, D = 2, 48, 16, 32
memory = mg.KVMemoryConfig(memory_size=64, head_dim=16)


class Model(nn.Module):
    """A dense layer, a memory over its output, and a block of somebody else's with a memory behind it."""

    def setup(self):
        self.dense = nn.Dense(D)
        self.memory = mg.interop.to_linen(mg.MemoryLayer, memory, d_model=D, segment_length=T)
        self.block = mg.wrap(nn.Dense(D), memory=memory, d_model=D, segment_length=T)

    @staticmethod
    def init_state(batch_size: int):
        layer = mg.interop.to_linen(mg.MemoryLayer, memory, d_model=D, segment_length=T)
        return (layer.init_state(batch_size),) * 2

    def __call__(self, x, state, reset=None):
        x, first = self.memory(self.dense(x), state[0], reset)  # reset [B, L]: a document begins here
        x, second = self.block(x, state[1], reset=reset)
        return x, (first, second)


model = Model()
x = jax.random.normal(jax.random.key(0), (B, L, D))
targets = jnp.roll(x, 2 * T, axis=1)  # what was there two segments ago
params = jax.jit(model.init)(jax.random.key(1), x, model.init_state(B))["params"]
optimizer = optax.adam(1e-3)


def loss(params):
    y, _ = model.apply({"params": params}, x, model.init_state(B))  # state: an argument and a result
    return jnp.mean((y - targets) ** 2)


@jax.jit
def step(params, opt_state):
    value, gradients = jax.value_and_grad(loss)(params)
    updates, opt_state = optimizer.update(gradients, opt_state)
    return optax.apply_updates(params, updates), opt_state, value


opt_state = jax.jit(optimizer.init)(params)
losses = []
for _ in range(3):  # the loss before each step
    params, opt_state, value = step(params, opt_state)
    losses.append(float(value))
