"""A layer of heads of your own: a class, one line, and a decoder that is fine-tuned with it.

y_t = a y_{t-1} + (1 - a) W x_t, with a learned decay a for each channel. Its state is y, so a text of any length is
read in calls of any length.
"""

import jax
import jax.numpy as jnp
from flax import nnx

import memgpt_jax as mg


class DecayedMean(mg.HeadLayer):
    decayed = ("kernel",)  # the decay has no weight decay

    def __init__(self, config, d_in, width, *, causal, dtype, rngs):
        super().__init__(config, d_in, width, causal=causal, dtype=dtype, rngs=rngs)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (d_in, width)) * d_in**-0.5)
        self.decay = nnx.Param(jnp.zeros(width))

    def init_state(self, batch_size):
        return jnp.zeros((batch_size, self.width))

    def __call__(self, x, state, reset, valid):
        a = jax.nn.sigmoid(self.decay[...])[None]

        def step(y, token):
            new, begins, present = token
            after = a * jnp.where(begins[:, None], 0, y) + (1 - a) * new
            after = jnp.where(present[:, None], after, y)
            return after, after

        by_token = [jnp.swapaxes(array, 0, 1) for array in (x.astype(jnp.float32) @ self.kernel[...], reset, valid)]
        state, y = jax.lax.scan(step, state, tuple(by_token))
        return jnp.swapaxes(y, 0, 1).astype(self.dtype), state


mg.register_head_layer("decayed_mean", None, DecayedMean)

head = mg.LabelHeadConfig(layers="decayed_mean", pool="last", num_outputs=3)
backbone = mg.ModelConfig(vocab_size=64, d_model=16, num_layers=1, num_heads=2, window_size=8, segment_length=8)
model = mg.functional(mg.HeadedConfig(backbone=backbone, head=head))
