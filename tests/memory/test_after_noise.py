"""Every mechanism learns after a long stream of noise as a fresh memory does, or its docstring gives the reason."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from memgpt_jax.memory import titans
from tests.laws.after_noise import CASES, case, learning_after, ratio

BAR = 0.5
OTHERS = ("titans of three layers", "linear rule with forget", "ntm", "tokens")
CALLS = {"tokens": 4, "tokens with a fixed gate": 4}  # a segment replaces 5 % of a state: 63 repetitions, not 15
REASONS = {
    "linear rule": "nothing is forgotten: all sums of noise stay, and a pattern becomes a smaller share of each read",
    "normalised linear rule": "nothing is forgotten: the normaliser grows with every token",
    "kv without the lowest gates": "new entries enter only with a gate above those of the best M of the whole stream",
}


@pytest.mark.parametrize(
    "name",
    [
        "titans",
        *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS),
    ],
)
def test_a_memory_that_decays_learns_after_noise(name):
    assert ratio(learning_after(case(name), 8_000, CALLS.get(name, 1))) > BAR


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in REASONS])
def test_every_memory_learns_after_100_000_tokens_of_noise(name):
    assert ratio(learning_after(case(name), 100_000, CALLS.get(name, 1))) > BAR


@pytest.mark.slow
@pytest.mark.parametrize("name", REASONS)
def test_the_exceptions_are_exceptions(name):
    """A mechanism that learns after noise needs no reason in the table and in its docstring."""
    assert ratio(learning_after(case(name), 100_000)) < BAR


@pytest.mark.slow
@pytest.mark.parametrize("num_layers", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_weights_that_decay_to_zero_are_seen_to_stop_learning(num_layers, monkeypatch):
    """The planted fault: the paper's decay, M' = (1 - alpha) M + S'."""
    learn = titans.inner_update

    def decaying_to_zero(initial, learned, momentum, pairs):
        zero, weights = jax.tree.map(jnp.zeros_like, initial), jax.tree.map(jnp.add, initial, learned)
        weights, momentum = learn(zero, weights, momentum, pairs)
        return jax.tree.map(jnp.subtract, weights, initial), momentum

    monkeypatch.setattr(titans, "inner_update", decaying_to_zero)
    config = dataclasses.replace(case("titans"), num_layers=num_layers)
    assert ratio(learning_after(config, 8_000)) < 0.01
