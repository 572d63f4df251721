"""A trace says what a memory did: gates, reads and losses are those of the model, whatever the mechanism."""

import dataclasses

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax import models
from memgpt_jax.inspector import forget, list_entries, trace, without_memory
from memgpt_jax.inspector.page import page
from memgpt_jax.memory import MEMORIES
from tests.laws.models import random_params
from tests.laws.rereading import Tiny, ids

TEXT = "Das Gedächtnis ist ein Garten 🌱, das Gedächtnis."


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return Tiny()


@pytest.fixture(scope="module")
def traced(tiny):
    return trace(tiny.model, TEXT, tokenizer=tiny.tokenizer, top=3)


def test_losses_are_those_of_the_model(tiny, traced):
    found, state = traced
    tokens = np.array([[256, *tiny.tokenizer.encode(TEXT)]])
    assert found.tokens.tolist() == tokens[0].tolist() and "".join(found.texts) == TEXT
    logprobs = np.asarray(jax.nn.log_softmax(tiny.logits(tokens)[0]))
    want = -logprobs[np.arange(len(found.tokens) - 1), found.tokens[1:]] / np.log(2)
    assert np.isnan(found.bits[0])
    np.testing.assert_allclose(found.bits[1:], want, atol=1e-3)
    model_fn = models.functional(tiny.config)
    _, whole = jax.jit(model_fn.apply)(tiny.params, tokens, model_fn.init_state(1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), state, whole)


def test_losses_without_memory_are_those_of_a_window(tiny, traced):
    """A model whose memory has no entries."""
    found, _ = traced
    config = dataclasses.replace(tiny.config, memory=dataclasses.replace(tiny.config.memory, memory_size=0))
    empty, _ = trace((config, tiny.params), TEXT, tokenizer=tiny.tokenizer, compare=False)
    np.testing.assert_allclose(found.bits_without[1:], empty.bits[1:], atol=1e-3)
    assert np.abs(found.bits[1:] - empty.bits[1:]).max() > 0.1 and empty.bits_without is None


def test_a_text_beyond_the_learned_positions_is_refused(tiny):
    """Also what continues a text."""
    config = dataclasses.replace(tiny.config, position="learned", num_positions=12)
    model = config, jax.jit(models.functional(config).init)(jax.random.key(0))
    with pytest.raises(ValueError, match="learned positions for num_positions=12"):
        trace(model, "x" * 12, tokenizer=tiny.tokenizer)
    _, state = trace(model, "x" * 11, tokenizer=tiny.tokenizer)
    with pytest.raises(ValueError, match="learned positions for num_positions=12"):
        trace(model, [1], tokenizer=tiny.tokenizer, state=state)


def test_entries_are_named_by_their_tokens(tiny, traced):
    """By hand: after 7 segments of 4 tokens a memory of 10 entries holds the tokens 18 to 27."""
    found, _ = traced
    [layer] = found.layers
    assert layer.has_places and found.calls[:8].tolist() == [0, 4, 8, 12, 16, 20, 24, 28]
    reads = layer.top_entry[28:32]
    assert (
        set(reads.ravel().tolist()) - {-1} <= set(range(18, 28))
        and reads.max() > 20
        and (layer.top_length[28:32] == 1).all()
    )
    assert (layer.top_entry[:4] == -1).all()
    assert (np.diff(layer.top_weight, axis=1) <= 0).all()
    assert (layer.top_weight.sum(axis=1) <= layer.read_mass.mean(axis=1) + 1e-5).all()
    # tokens 0 and 1 leave when 12 tokens have been written to 10 entries
    assert layer.evicted[:6].tolist() == [3, 3, 4, 4, 4, 4]
    last = found.calls[-2]  # the last call finds the ten entries before it
    assert (layer.evicted[last - 10 : last] == -1).all() and (layer.evicted[last:] == -2).all()
    np.testing.assert_allclose(layer.stats["occupancy"][:4], [0.4, 0.8, 1.0, 1.0])


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"evict": "lowest_gate"}, {"select": "highest_gate", "select_size": 2}])
def test_an_entry_that_is_known_by_its_segment_alone_is_nowhere_evicted(tiny, changes):
    """A segment that left whole between two calls has lost the entry of each token; one that lost some: not known."""
    config = dataclasses.replace(tiny.config, memory=dataclasses.replace(tiny.config.memory, memory_size=6, **changes))
    params, tokens = random_params(config), ids(16)
    [layer] = trace((config, params), tokens, tokenizer=tiny.tokenizer, top=6)[0].layers
    state, want = models.functional(config).init_state(1), np.full(17, -2)
    for call in range(5):
        listed = list_entries((config, params), state, 0)
        for token in range(4 * call):
            at = (listed.token <= token) & (token < listed.token + listed.length)
            if (listed.length[at] == 1).any():
                want[token] = -1
            elif want[token] == -1:
                want[token] = -2 if at.any() else call
        part = [256, *tokens][4 * call : 4 * call + 4]
        _, state = trace((config, params), part, tokenizer=tiny.tokenizer, state=state)
    assert layer.evicted.tolist() == want.tolist()
    assert (layer.top_length[8:] == 4).any() and (want == -2).sum() > 4


@pytest.mark.parametrize("fusion", [pytest.param("gated", marks=pytest.mark.slow), "attention"])
def test_a_token_reads_the_last_tokens_of_its_window(tiny, fusion):
    """The window of 6 tokens; with fusion `attention`, entries have the rest of the one softmax."""
    config = dataclasses.replace(tiny.config, fusion=fusion)
    found, _ = trace((config, random_params(config)), ids(20), tokenizer=tiny.tokenizer, top=6)
    [layer] = found.layers
    for token, (tokens, weights) in enumerate(zip(layer.window_token, layer.window_weight, strict=True)):
        assert set(tokens.tolist()) - {-1} == set(range(max(0, token - 5), token + 1))
        rest = layer.read_mass[token].mean() if fusion == "attention" else 0
        assert weights.sum() == pytest.approx(1 - rest, abs=1e-5)


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_a_text_in_two_parts_is_one_text(tiny, traced, cut):
    whole, last = traced
    tokens = whole.tokens.tolist()
    first, state = trace(tiny.model, tokens[:cut], tokenizer=tiny.tokenizer, top=3)
    second, state = trace(tiny.model, tokens[cut:], tokenizer=tiny.tokenizer, state=state, top=3)
    assert second.first == cut
    for name in ("fusion_gate", "write_gate", "top_entry", "read_mass", "window_token", "window_weight"):
        both = np.concatenate([getattr(each.layers[0], name) for each in (first, second)])
        np.testing.assert_allclose(both, getattr(whole.layers[0], name), atol=1e-4, err_msg=name)
    np.testing.assert_allclose(second.bits[1:], whole.bits[cut + 1 :], atol=1e-3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), state, last)


FAST = ("none", "associative")  # no memory; no entries


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in MEMORIES if name != "kv"]
)
def test_every_mechanism_has_a_trace(tiny, name, tmp_path):
    memory = mg.NoMemoryConfig() if name == "none" else MEMORIES[name].config()
    config = dataclasses.replace(tiny.config, memory=memory)
    found, _ = trace((config, random_params(config)), ids(30), tokenizer=tiny.tokenizer, top=2)
    assert len(found.bits) == 31 and np.isfinite(found.bits[1:]).all() and found.mechanism == name
    found.save(tmp_path / "trace.json")
    again = mg.Trace.load(tmp_path / "trace.json")
    assert [layer.stats.keys() for layer in again.layers] == [layer.stats.keys() for layer in found.layers]
    assert len(found.layers) == (name != "none")
    if name in ("ntm", "dnc"):  # the heaviest read of each token is that of the slots
        [layer] = again.layers
        heaviest = np.take_along_axis(layer.slot_reads, layer.top_entry[:, :1], axis=1)
        np.testing.assert_allclose(heaviest / 255, layer.top_weight[:, :1], atol=0.5 / 255 + 1e-6)
        assert layer.slot_writes.shape == layer.slot_reads.shape == (31, config.memory.memory_size)
    else:
        assert all(layer.slot_reads is None is layer.slot_writes for layer in again.layers)


def test_a_trace_is_saved_and_loaded(traced, tmp_path):
    found, _ = traced
    found.save(tmp_path / "trace.json")
    again = mg.Trace.load(tmp_path / "trace.json")
    for name, value in vars(found).items():
        if name != "layers":
            np.testing.assert_array_equal(getattr(again, name), value)
    for one, other in zip(found.layers, again.layers, strict=True):
        jax.tree.map(np.testing.assert_array_equal, vars(one), vars(other))
    for content in ("", "[]", "[" * 200_000, "{}", '{"format": 2}', '{"format": 1}'):
        (tmp_path / "wrong.json").write_text(content)
        with pytest.raises(ValueError, match=r"trace|format"):
            mg.Trace.load(tmp_path / "wrong.json")


def test_the_text_of_a_stranger_is_no_part_of_the_page(tiny):
    hostile = "</script><script>alert(1)</script><!--"
    html = page(trace(tiny.model, hostile, tokenizer=tiny.tokenizer)[0].json())
    assert (
        html.count("</script>") == 2 and "alert(1)</script" not in html and "http" not in html.replace("http-equiv", "")
    )


def test_forgotten_segments_have_left_no_entry(tiny):
    """The entries are those of the others; what they have read is left."""
    model, tokens = tiny.model, ids(30)
    _, state = trace(model, tokens, tokenizer=tiny.tokenizer)
    cut = forget(model, state, 21, 22)
    entries, kept = (each.layers[0].stream.memory.entries for each in (state, cut))
    # 28 tokens are written; entries 18 to 27; the segment 20 to 23 goes
    assert kept.valid[0].tolist() == [True] * 2 + [False] * 4 + [True] * 4
    np.testing.assert_array_equal(kept.keys[0, [0, 1, 6, 7, 8, 9]], np.delete(entries.keys[0], [2, 3, 4, 5], axis=0))
    assert not kept.keys[0, 2:6].any() and not kept.log_gate[0, 2:6].any()
    again = forget(model, cut, 21, 22)
    jax.tree.map(np.testing.assert_array_equal, again, cut)
    found, _ = trace(model, ids(3), tokenizer=tiny.tokenizer, state=cut)
    assert not set(range(20, 24)) & set(found.layers[0].top_entry.ravel().tolist())
    assert list_entries(model, cut, 0).token.tolist() == [18, 19, *range(24, 28)]
    for start, end in ((5, 5), (-1, 3), (0, 99)):
        with pytest.raises(ValueError, match="start and end must be from 0 to 31"):
            forget(model, state, start, end)


def test_a_document_that_is_forgotten_whole_is_an_empty_memory(tiny):
    _, state = trace(tiny.model, ids(31), tokenizer=tiny.tokenizer)
    every, empty = forget(tiny.model, state, 0, 32), without_memory(tiny.model, state)
    one, other = (each.layers[0].stream.memory.entries for each in (every, empty))
    np.testing.assert_array_equal(one.valid, other.valid)
    np.testing.assert_array_equal(one.keys, other.keys)


@pytest.mark.slow
def test_an_empty_memory_keeps_its_knowledge(tiny):
    """As after a reset: what follows reads the knowledge, and nothing else."""
    memory = dataclasses.replace(tiny.config.memory, knowledge_size=8)
    config = dataclasses.replace(tiny.config, memory=memory)
    model, tokenizer = (config, tiny.params), tiny.tokenizer
    facts = mg.knowledge.encode(model, ["a garden"], tokenizer)
    start = mg.knowledge.write(model, models.functional(config).init_state(1), facts)
    found, state = trace(model, ids(12), tokenizer=tokenizer, state=start)
    for empty in (without_memory(model, start), without_memory(model, state)):
        memory = empty.layers[0].stream.memory
        assert not memory.entries.valid.any()
        jax.tree.map(np.testing.assert_array_equal, memory.knowledge, start.layers[0].stream.memory.knowledge)
    np.testing.assert_allclose(found.bits_without[1:5], found.bits[1:5], atol=1e-5)  # nothing is written yet


def test_what_cannot_be_traced(tiny):
    for text, message in (([], "the text is empty"), ([999], "must be from 0 to 256")):
        state = models.functional(tiny.config).init_state(1)
        with pytest.raises(ValueError, match=message):
            trace(tiny.model, text, tokenizer=tiny.tokenizer, state=state)
    config = dataclasses.replace(tiny.config, memory=MEMORIES["tokens"].config())
    params = random_params(config)
    _, state = trace((config, params), ids(9), tokenizer=tiny.tokenizer, compare=False)
    with pytest.raises(ValueError, match="only a `kv` memory can forget"):
        forget((config, params), state, 0, 3)
    config = dataclasses.replace(tiny.config, memory=mg.KVMemoryConfig(memory_size=10, initial_entries=2, head_dim=4))
    state = models.functional(config).init_state(1)._replace(position=np.array([9], np.int32))
    with pytest.raises(ValueError, match="forget needs memory"):
        forget((config, random_params(config)), state, 0, 3)
