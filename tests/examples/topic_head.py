"""A head of your own: a class, one line, and an encoder that is trained with it. It labels a document of any length.

The head reads the mean of all hidden states of the document so far. The mean is its state, so a document may arrive in
calls of any length.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import memgpt_jax as mg
from memgpt_jax.config.heads import HeadConfig
from memgpt_jax.ops import logit_scores
from memgpt_jax.shapes import Array, Float32

NUM_TOPICS = 3


@dataclass(frozen=True, kw_only=True)
class TopicHeadConfig(HeadConfig):
    """It has no settings."""


class MeanState(NamedTuple):
    """Bytes a row: 4 D + 4."""

    total: Float32[Array, "B D"]
    count: Float32[Array, "B 1"]


class TopicHead(mg.Head):
    """Outputs W mean_t(h_t) + b, [B, 1, NUM_TOPICS]: one label for each row."""

    labels_rows = True
    num_classes = NUM_TOPICS

    def __init__(self, config: TopicHeadConfig, stack: mg.EncoderConfig, *, rngs: nnx.Rngs):
        super().__init__(config, stack, rngs=rngs)
        self.dense = nnx.Linear(stack.d_model, NUM_TOPICS, rngs=rngs)

    def init_state(self, batch_size):
        return MeanState(jnp.zeros((batch_size, self.stack.d_model)), jnp.zeros((batch_size, 1)))

    def __call__(self, h, state, reset=None, valid=None):
        document = jnp.cumsum(jnp.zeros(h.shape[:2], bool) if reset is None else reset, axis=1)
        last = document == document[:, -1:]  # tokens of the document that is open at the end of the call
        counted = last if valid is None else last & valid
        counted = counted[..., None].astype(jnp.float32)
        kept = (document[:, -1:] == 0).astype(jnp.float32)
        total = kept * state.total + jnp.sum(counted * h.astype(jnp.float32), axis=1)
        count = kept * state.count + jnp.sum(counted, axis=1)
        return self.dense(total / jnp.maximum(count, 1))[:, None], MeanState(total, count)

    def score(self, outputs, targets, embedding=None):
        return logit_scores(outputs[:, 0], targets)


mg.register_head("topic", TopicHeadConfig, TopicHead)

config = mg.EncoderConfig(vocab_size=32, d_model=32, num_layers=1, num_heads=2, segment_length=8, heads=("topic",))
model = mg.Encoder(config, rngs=nnx.Rngs(0))
graph, params = nnx.split(model)
topics = jnp.arange(12) % NUM_TOPICS
tokens = 10 * topics[:, None] + jax.random.randint(jax.random.key(0), (12, 16), 0, 10)  # each topic has its own words


def loss(params):
    model = nnx.merge(graph, params)
    scores, _ = model.score(tokens, {"topic": topics}, model.init_state(12))
    return jnp.mean(scores["topic"].losses), jnp.mean(scores["topic"].correct)


@jax.jit
def step(params, opt_state):
    (value, accuracy), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    updates, opt_state = optimizer.update(gradients, opt_state)
    return optax.apply_updates(params, updates), opt_state, accuracy


optimizer = optax.adam(3e-3)
opt_state = optimizer.init(params)
accuracies = []
for _ in range(20):
    params, opt_state, accuracy = step(params, opt_state)
    accuracies.append(float(accuracy))
model = nnx.merge(graph, params)
