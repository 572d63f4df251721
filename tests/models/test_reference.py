"""The decoder equals a token-by-token NumPy model, streams however it is cut, and leaks nothing: every pair of options.

Two compiled calls serve all three checks: of one token, and of all, whose rows end where they need to.
"""

import jax
import numpy as np
import pytest

from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from tests.laws.coverings import covering, each_value, name_of
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
    "fusion": ["gated", "gated_heads", "gated_add", "concat", "add", "attention"],
    "position": ["rotary", "learned", "sinusoidal", "relative", "none"],
    "norm": ["rmsnorm", "layernorm"],
    "norm_position": ["pre", "parallel"],
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
CONTINUING = (
    {"evict": "oldest", "gate": "log_bias", "position": "rotary", "num_kv_heads": 1},
    {"evict": "least_read", "select": "highest_gate", "select_size": 2, "position": "rotary", "window_size": 4},
    {"evict": "lowest_gate", "gate": "scale", "qk_norm": False, "position": "learned", "norm_position": "parallel"},
)
"""Options of models whose memory continues the window."""
LENGTH = 23


def rows():
    """Every pair of model options, each row with one of the rows that cover every pair of memory options."""
    memories, models = covering(MEMORY_OPTIONS), covering(MODEL_OPTIONS)
    number = max(len(memories), len(models))
    return [models[i % len(models)] | memories[i % len(memories)] for i in range(number)]


def config_of(row):
    memory = {name: row[name] for name in MEMORY_OPTIONS} | {"select_size": min(2, row["segment_length"])}
    memory = KVMemoryConfig(memory_size=7, num_heads=2, head_dim=4, **memory)
    model = {name: row[name] for name in MODEL_OPTIONS}
    return tiny(memory, num_positions=LENGTH, relative_buckets=4, relative_max_distance=5, **model)


def continuing(options):
    fields = KVMemoryConfig.__dataclass_fields__
    memory = {name: value for name, value in options.items() if name in fields and name != "num_kv_heads"}
    model = {name: value for name, value in options.items() if name not in memory}
    memory = KVMemoryConfig(memory_size=7, continues_window=True, null_entry=False, **memory)
    return tiny(memory, fusion="attention", num_positions=LENGTH, **model)


def configs():
    """By default, rows in which each value of each option occurs; the other pairs are slow."""
    chosen = each_value(rows())
    for row in rows():
        marks = () if row in chosen else pytest.mark.slow
        yield pytest.param(config_of(row), marks=marks, id=name_of(row))
    yield pytest.param(tiny(num_layers=3, memory_layers=(0, 2)), marks=pytest.mark.slow, id="memory in layers 0 and 2")
    yield pytest.param(tiny(NoMemoryConfig(), num_layers=2), id="no memory")
    for options in CONTINUING:
        marks = () if options["evict"] == "least_read" else pytest.mark.slow
        yield pytest.param(continuing(options), marks=marks, id=f"continues_window, {name_of(options)}")


@pytest.mark.parametrize("config", list(configs()))
def test_model_equals_reference_streams_and_leaks_nothing(config):
    model = built(config)
    params = jax.device_get(model.params)
    for seed, breaks in ((0, 0.0), (1, 0.12)):
        tokens, reset = stream_inputs(seed, config, LENGTH, breaks=breaks)
        logits, _ = model(tokens, reset=reset)
        references = [ReferenceDecoder(config, params) for _ in range(BATCH)]
        expected = [[row.step(tokens[b, t], reset[b, t]) for t in range(LENGTH)] for b, row in enumerate(references)]
        np.testing.assert_allclose(logits, expected, atol=1e-4)

        assert max(streaming_violation(model, tokens, reset, [1] * LENGTH)) < 1e-4
        lengths = np.array([[5, 2], [0, 5], [5, 0], [1, 4], [4, 1], [5, 5], [3, 5], [0, 1]])
        assert max(ragged_violation(model, tokens, reset, lengths, LENGTH)) < 1e-4
        for row, place in ((0, 3), (1, 11)):
            assert perturbation_violation(model, tokens, reset, row, place) == 0
