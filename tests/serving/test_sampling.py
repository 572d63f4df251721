"""The next tokens of several rows in one program."""

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax.serving.sampling import Options, choose

VOCAB_SIZE = 12
ROWS = [
    Options(temperature=0.0),
    Options(temperature=1.5, seed=1),
    Options(temperature=1.5, seed=2, top_k=3),
    Options(temperature=1.5, seed=3, top_p=0.6),
    Options(temperature=1.5, seed=4, top_k=5, top_p=0.7, min_p=0.1, repetition_penalty=1.3, alternatives=4),
]


def test_a_row_is_the_same_beside_rows_that_need_sorted_logits_and_beside_none():
    """Filters and alternatives are skipped if no active row wants them."""
    number = len(ROWS)
    options = jax.tree.map(lambda *rows: jnp.concatenate(rows), *(row.row(0, VOCAB_SIZE) for row in ROWS))
    logits = 2 * jax.random.normal(jax.random.key(0), (20, number, VOCAB_SIZE))
    logits = logits.at[:, :, 3].set(logits[:, :, 5])  # equal ones
    seen, written = jnp.zeros((number, VOCAB_SIZE), bool).at[:, 3].set(True), jnp.zeros((number, VOCAB_SIZE), jnp.int32)
    compiled = jax.jit(choose)
    for step, each in enumerate(logits):
        counts = jnp.full(number, step, jnp.int32)
        together = compiled(each, jnp.ones(number, bool), options, counts, seen, written)
        for row in range(number):
            alone = compiled(each, jnp.arange(number) == row, options, counts, seen, written)
            assert alone.token[row] == together.token[row] and alone.logprob[row] == together.logprob[row]
            if ROWS[row].alternatives:
                np.testing.assert_array_equal(alone.top_ids[row], together.top_ids[row])
                np.testing.assert_array_equal(alone.top_logprobs[row], together.top_logprobs[row])
