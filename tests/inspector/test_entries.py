"""A single entry that is deleted is as one that was never valid; one with another gate is as one written with it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax import inspector, models
from memgpt_jax.inspector import edit_entry, list_entries, trace
from tests.laws.models import random_params
from tests.laws.rereading import Tiny, ids


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    tiny = Tiny()
    tiny.params = jax.tree.map(lambda x: x / 3, tiny.params)  # reads of several entries
    tiny.model = (tiny.config, tiny.params)
    return tiny


@pytest.fixture(scope="module")
def state(tiny):
    """After 31 tokens: 28 are written, and the entries are those of 18 to 27."""
    return trace(tiny.model, ids(30), tokenizer=tiny.tokenizer)[1]


def with_entries(state, **fields):
    """The state with other values in the entries of layer 0."""
    [layer] = state.layers
    memory = layer.stream.memory
    memory = memory._replace(entries=memory.entries._replace(**fields))
    return state._replace(layers=(layer._replace(stream=layer.stream._replace(memory=memory)),))


def test_a_deleted_entry_is_as_one_that_was_never_valid(tiny, state):
    """Bitwise, in all that follows, until and after the place is used again; the state before is not modified."""
    listed, before = list_entries(tiny.model, state, 0), jax.device_get(state)
    assert listed.token.tolist() == [*range(18, 28)] and listed.place.tolist() == [*range(10)]
    assert (listed.length == 1).all() and listed.age.tolist() == [3, 3, 2, 2, 2, 2, 1, 1, 1, 1]
    np.testing.assert_allclose(listed.gate, np.exp(state.layers[0].stream.memory.entries.log_gate[0]), rtol=1e-6)
    deleted = edit_entry(tiny.model, state, 0, 5)
    masked = with_entries(state, valid=state.layers[0].stream.memory.entries.valid.at[0, 5].set(False))
    apply, tokens = jax.jit(models.functional(tiny.config).apply), np.array([ids(17, 1)])
    whole, cut, want = (apply(tiny.params, tokens, each) for each in (state, deleted, masked))
    np.testing.assert_array_equal(cut[0], want[0])
    difference = np.abs(cut[0] - whole[0])[0].max(axis=1)  # after 36 tokens, entries from 26 on are left
    assert difference[:5].min() > 1e-3 and difference[5:].max() == 0
    jax.tree.map(np.testing.assert_array_equal, cut[1], want[1])  # 48 tokens are written: the place has been used
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), before)


def test_a_module_and_its_parameters_are_the_same_model(tiny, state):
    module = models.from_params(tiny.config, tiny.params)
    for name, arguments in {
        "list_entries": (0,),
        "edit_entry": (0, 5),
        "forget": (20, 22),
        "without_memory": (),
    }.items():
        change = getattr(inspector, name)
        found = [change(model, state, *arguments) for model in (module, (tiny.config, tiny.params))]
        jax.tree.map(np.testing.assert_array_equal, *found)
    with pytest.raises(ValueError, match="model must be a MemGPT"):
        mg.forget(None, state, 20, 22)


def test_the_others_keep_their_names(tiny, state):
    deleted = edit_entry(tiny.model, state, 0, 3)
    assert list_entries(tiny.model, deleted, 0).token.tolist() == [18, 19, 20, *range(22, 28)]
    found, after = trace(tiny.model, ids(5, 1), tokenizer=tiny.tokenizer, state=deleted, top=10)
    names = set(found.layers[0].top_entry[0].tolist()) - {-1}
    assert names == {18, 19, 20, *range(22, 28)}
    assert list_entries(tiny.model, after, 0).token.tolist() == [*range(26, 36)]
    with pytest.raises(ValueError, match="there is no entry at place 3 of layer 0"):
        edit_entry(tiny.model, deleted, 0, 3)


@pytest.mark.parametrize("gate", ["log_bias", "scale", "scale_value"])
def test_another_gate_by_hand(tiny, gate):
    """An entry whose gate of 1/4 becomes 1/2."""
    config = dataclasses.replace(tiny.config, memory=dataclasses.replace(tiny.config.memory, gate=gate))
    state = models.functional(config).init_state(1)
    entries = state.layers[0].stream.memory.entries
    fields = {"keys": jnp.ones_like(entries.keys), "values": jnp.full_like(entries.values, 3.0)}
    fields |= {"log_gate": jnp.full((1, 10), np.log(0.25), jnp.float32), "valid": jnp.ones((1, 10), bool)}
    state = with_entries(state, **fields, age=jnp.ones((1, 10), jnp.int32))
    edited = edit_entry((config, tiny.params), state, 0, 9, gate=0.5).layers[0].stream.memory.entries
    key, value = {"log_bias": (1, 3), "scale": (2, 6), "scale_value": (1, 6)}[gate]
    np.testing.assert_allclose(edited.keys[0, :, 0, 0], [1] * 9 + [key], rtol=1e-6)
    np.testing.assert_allclose(edited.values[0, :, 0, 0], [3] * 9 + [value], rtol=1e-6)
    np.testing.assert_allclose(np.exp(edited.log_gate[0]), [0.25] * 9 + [0.5], rtol=1e-6)
    assert edited.valid.all() and (edited.age == 1).all()
    if gate != "log_bias":
        tiny_gate = with_entries(state, log_gate=jnp.full((1, 10), -30, jnp.float32))
        with pytest.raises(ValueError, match=r"multiplied by its gate of 9\.4e-14"):
            edit_entry((config, tiny.params), tiny_gate, 0, 9, gate=0.5)


def test_what_cannot_be_edited(tiny, state):
    def refused(message, model=tiny.model, state=state, layer=0, place=0, gate=0.0):
        with pytest.raises(ValueError, match=message):
            edit_entry(model, state, layer, place, gate=gate)

    refused(r"layer must be one with a memory \(0\), got 1", layer=1)
    refused("there is no entry at place 10 of layer 0", place=10)
    refused("place must be a whole number from 0 .*got -1", place=-1)
    refused(r"gate must be from 0 to 1, got 1\.5", gate=1.5)
    config = dataclasses.replace(tiny.config, memory=dataclasses.replace(tiny.config.memory, gate="none"))
    refused("gate='none' have no gates: gate must be 0", model=(config, tiny.params), gate=0.5)
    refused("the state must have one row, got 2", state=models.functional(tiny.config).init_state(2))
    config = dataclasses.replace(tiny.config, memory=mg.NTMMemoryConfig())
    other = (config, random_params(config))
    refused(
        "only `kv` memories have single entries to list and edit, got `ntm`",
        model=other,
        state=models.functional(config).init_state(1),
    )


@pytest.mark.parametrize("changes", [{"visibility": "token"}, {"initial_entries": 4}])
def test_entries_whose_tokens_are_not_known_are_listed_and_edited(tiny, changes):
    config = dataclasses.replace(tiny.config, memory=dataclasses.replace(tiny.config.memory, **changes))
    params = random_params(config)
    tokens = np.array([ids(12)])
    _, state = jax.jit(models.functional(config).apply)(params, tokens, models.functional(config).init_state(1))
    listed = list_entries((config, params), state, 0)
    assert len(listed.place) > 4 and set(listed.token.tolist()) == {-1} and set(listed.length.tolist()) == {0}
    deleted = edit_entry((config, params), state, 0, int(listed.place[2]))
    left = list_entries((config, params), deleted, 0)
    assert left.place.tolist() == np.delete(listed.place, 2).tolist()
    np.testing.assert_array_equal(left.gate, np.delete(listed.gate, 2))
