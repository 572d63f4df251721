"""Decoding token by token equals one forward pass, for every option of the memory."""

import numpy as np
import pytest

from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.generation import generate
from tests.laws.coverings import name_of
from tests.laws.models import build, tiny

OPTIONS = {
    "gate": ["log_bias", "scale", "scale_value", "none"],
    "select": ["all", "highest_gate", "pool"],
    "evict": ["oldest", "lowest_gate", "least_read"],
    "visibility": ["segment", "token"],
    "initial_entries": [0, 2],
    "null_entry": [True, False],
    "writer_conv": [3, 1],
    "recency_bias": [False, True],
    "qk_norm": [True, False],
    "num_kv_heads": [None, 1],
}
# Every value of every option occurs; `tests/models/test_reference.py` covers the pairs, with streaming token by token.
ROWS = [{name: values[number % len(values)] for name, values in OPTIONS.items()} for number in range(4)]
LENGTH = 30


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[pytest.mark.slow] * (number > 0), id=name_of(row)) for number, row in enumerate(ROWS)],
)
def test_token_by_token_equals_one_forward_pass(row):
    memory = KVMemoryConfig(**row, select_size=2, memory_size=5, num_heads=2, head_dim=4, temperature=3.0)
    model = build(tiny(memory))
    rng = np.random.default_rng(len(str(row)))
    tokens = rng.integers(model.config.vocab_size, size=(2, LENGTH)).astype(np.int32)
    reset = rng.random((2, LENGTH)) < 0.1
    whole, _ = model(tokens, reset=reset)
    logits, state = [], model.fresh(2)
    for i in range(LENGTH):
        step, state = model(tokens[:, i : i + 1], state, reset[:, i : i + 1])
        logits.append(step)
    assert np.abs(np.concatenate(logits, axis=1) - whole).max() < 1e-4

    prompt = int(rng.integers(2, LENGTH // 2))
    answer = generate((model.config, model.params), tokens[:1, :prompt], max_new_tokens=LENGTH - prompt).ids
    read, _ = model(np.repeat(answer, 2, axis=0))
    assert answer[0, prompt:].tolist() == np.asarray(read)[0].argmax(-1)[prompt - 1 : -1].tolist()
