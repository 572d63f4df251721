"""A tiny model whose answers are not all alike."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data import ByteTokenizer

CONFIG = ModelConfig(
    vocab_size=257,
    d_model=16,
    num_layers=1,
    num_heads=2,
    window_size=6,
    segment_length=4,
    memory=KVMemoryConfig(memory_size=10, head_dim=8),
)
TEXT_LENGTH = 40


class Tiny:
    """A model, and the slow way to continue with it: the whole text is read again for every token."""

    config = CONFIG
    tokenizer = ByteTokenizer()

    def __init__(self):
        # Larger than as initialised, so that the most probable tokens differ and greedy decoding does not repeat one.
        self.params = jax.tree.map(
            lambda x: x * jnp.float32(3.0), jax.jit(models.functional(CONFIG).init)(jax.random.key(0))
        )
        self.model = (self.config, self.params)

    @functools.partial(jax.jit, static_argnums=0)
    def logits(self, tokens):
        """Logits of whole texts [B, L], read in one call from a fresh state."""
        return models.functional(self.config).apply(
            self.params, tokens, models.functional(self.config).init_state(tokens.shape[0])
        )[0]

    def reread(self, prompt, number: int) -> list[int]:
        """Greedy continuation of one prompt without any state."""
        text = list(prompt)
        for _ in range(number):
            padded = np.zeros((1, TEXT_LENGTH), np.int32)  # what stands to the right is not seen
            padded[0, : len(text)] = text
            text.append(int(np.asarray(self.logits(padded))[0, len(text) - 1].argmax()))
        return text[len(prompt) :]


def ids(length: int, seed: int = 0) -> list[int]:
    """A prompt of random ids."""
    return np.random.default_rng([length, seed]).integers(CONFIG.vocab_size, size=length).tolist()
