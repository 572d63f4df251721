"""The decoder equals a token-by-token NumPy model, streams however it is cut, and leaks nothing: every pair of options.

One compiled call of each shape serves all three checks.
"""

import jax
import numpy as np
import pytest

from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from tests.laws.coverings import covering, name_of
from tests.laws.models import (
    BATCH,
    built,
    perturbation_violation,
    ragged_violation,
    stream_inputs,
    streaming_violation,
    tiny,
)
from tests.references.model import ReferenceDecoder

MODEL_OPTIONS = {
    "fusion": ["gated", "gated_heads", "concat", "add", "attention"],
    "position": ["rotary", "learned", "sinusoidal", "relative", "none"],
    "norm": ["rmsnorm", "layernorm"],
    "activation": ["gelu", "swiglu"],
    "tie_embeddings": [True, False],
    "num_kv_heads": [None, 1],
    "qk_norm": [False, True],
    "window_size": [6, 3, 1],
    "segment_length": [4, 5, 1],
}
MEMORY_OPTIONS = {
    "gate": ["log_bias", "scale", "scale_value", "none"],
    "select": ["all", "highest_gate", "pool"],
    "evict": ["oldest", "lowest_gate", "least_read"],
    "visibility": ["segment", "token"],
}
LENGTH = 23


def configs():
    """Every pair of model options, each row with one of the rows that cover every pair of memory options."""
    memories = covering(MEMORY_OPTIONS)
    models = covering(MODEL_OPTIONS)
    for i in range(max(len(memories), len(models))):
        model, memory = models[i % len(models)], memories[i % len(memories)]
        select_size = min(2, model["segment_length"])
        memory = KVMemoryConfig(memory_size=7, num_heads=2, head_dim=4, select_size=select_size, **memory)
        yield tiny(memory, num_positions=LENGTH, relative_buckets=4, relative_max_distance=5, **model)
    yield tiny(num_layers=3, memory_layers=(0, 2))
    yield tiny(NoMemoryConfig(), num_layers=2)


def title(config):
    fields = [config.fusion, config.position, config.norm, config.activation, f"window{config.window_size}"]
    fields += [f"segment{config.segment_length}", type(config.memory).__name__]
    if isinstance(config.memory, KVMemoryConfig):
        fields += [config.memory.gate, config.memory.select, config.memory.evict, config.memory.visibility]
    return "-".join(fields)


@pytest.mark.parametrize("config", list(configs()), ids=title)
def test_model_equals_reference_streams_and_leaks_nothing(config):
    model = built(config)
    params = jax.device_get(model.params)
    for seed, breaks in ((0, 0.0), (1, 0.12)):
        tokens, reset = stream_inputs(seed, config, LENGTH, breaks=breaks)
        logits, _ = model(tokens, reset=reset)
        rows = [ReferenceDecoder(config, params) for _ in range(BATCH)]
        expected = [[row.step(tokens[b, t], reset[b, t]) for t in range(LENGTH)] for b, row in enumerate(rows)]
        np.testing.assert_allclose(logits, expected, atol=1e-4)

        assert max(streaming_violation(model, tokens, reset, [1] * 6 + [5] + [1] * 2 + [5, 5])) < 1e-4
        lengths = np.array([[5, 2], [0, 5], [5, 0], [1, 4], [4, 1], [5, 5], [3, 5], [0, 1]])
        assert max(ragged_violation(model, tokens, reset, lengths, 5)) < 1e-4
        for row, place in ((0, 3), (1, 11)):
            assert perturbation_violation(model, tokens, reset, row, place) == 0


def test_names_are_distinct():
    assert len({name_of({"title": title(config)}) for config in configs()}) == len(list(configs()))
