"""Weights of the tokens of a document in the reads of questions: exact cases, laws, and a reference in NumPy."""

import functools

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.data.examples.question_tokens import QuestionTokens
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.generation.citations import USUAL, check_citable, question_weights, sources, token_weights
from memgpt_jax.generation.prefill import prefill
from memgpt_jax.generation.questions import read_documents
from memgpt_jax.models.attention import call_inputs
from tests.laws.models import build, tiny

SEGMENT, LENGTH, SIZE = 4, 22, 12  # 5 segments are written, 12 of their 20 tokens are entries
DOCUMENT = np.random.default_rng(0).permutation(32)[:LENGTH].astype(np.int32)
ROWS = [DOCUMENT[[7, 3]], DOCUMENT[[15, 9, 0, 1, 5, 8, 17, 20]], DOCUMENT[[2]]]
EITHER = (pytest.param("gated", marks=pytest.mark.slow), "attention")  # the reads alone differ, not how they are added


@functools.cache
def made(fusion, num_layers=None, **changes):
    """Two layers with `gated`, for the mean over layers; one otherwise, which compiles in half the time."""
    num_layers = num_layers or (2 if fusion == "gated" else 1)
    memory = mg.KVMemoryConfig(memory_size=SIZE, num_heads=2, head_dim=4, temperature=3.0, **changes)
    config = tiny(memory, num_layers=num_layers, fusion=fusion, d_model=16, num_heads=2)
    return config, build(config).params


@functools.cache
def read(fusion, number=LENGTH):
    return read_documents(*made(fusion), [DOCUMENT[:number]])


@functools.cache
def weights(fusion):
    return token_weights(made(fusion), read(fusion), ROWS)


@pytest.mark.parametrize("fusion", EITHER)
def test_a_query_that_equals_one_key_cites_its_token(fusion):
    """Without attention, and with the query's kernel for keys, the query of a token equals the key of its id."""
    memory = mg.KVMemoryConfig(memory_size=SIZE, num_heads=2, head_dim=8, temperature=800.0, writer_conv=1, gate="none")
    config = tiny(memory, fusion=fusion, d_model=16, fusion_bias=0.0)
    params = jax.jit(mg.functional(config).init)(jax.random.key(0))
    output = params["blocks"]["0"]["attention"]["output"]
    output["kernel"] = np.zeros(output["kernel"].shape, np.float32)
    places, state = [8, 13, 19, 2], read_documents(config, params, [DOCUMENT])
    found = token_weights((config, params), state, [DOCUMENT[[place]] for place in places])
    np.testing.assert_allclose(found[:3], np.eye(LENGTH)[places[:3]], atol=1e-3)
    np.testing.assert_allclose(found[3, : 20 - SIZE], 0, atol=1e-12)  # the entry of token 2 has been overwritten


@pytest.mark.parametrize("fusion", [pytest.param("gated", marks=pytest.mark.slow), "attention"])
def test_weights_are_a_share_of_the_reads_of_entries(fusion):
    """Those of overwritten tokens are 0. Tokens of the open segment are read once the question has filled it."""
    found = weights(fusion)
    assert found.shape == (3, LENGTH) and np.all(found >= 0) and np.all(found.sum(axis=1) < 1)
    assert np.all(found[[0, 2]][:, 8:20] > 1e-6) and np.all(found[1, 8:] > 1e-6)
    np.testing.assert_allclose(found[:, :8], 0, atol=1e-12)
    np.testing.assert_allclose(found[[0, 2], 20:], 0, atol=1e-12)


@pytest.mark.slow
def test_without_a_null_entry_the_reads_are_of_entries_alone():
    model = made("gated", num_layers=1, null_entry=False)
    found = token_weights(model, read_documents(*model, [DOCUMENT]), ROWS[:1])
    np.testing.assert_allclose(found.sum(), 1, atol=1e-5)


@pytest.mark.parametrize("fusion", EITHER)
def test_other_rows_padding_and_groups_change_nothing(fusion):
    for row, expected in zip(ROWS, weights(fusion), strict=True):
        np.testing.assert_allclose(token_weights(made(fusion), read(fusion), [row])[0], expected, atol=1e-6)
    np.testing.assert_allclose(token_weights(made(fusion), read(fusion), ROWS, number=1), weights(fusion), atol=1e-6)


@pytest.mark.parametrize("fusion", EITHER)
def test_the_cut_of_the_document_changes_nothing(fusion):
    """The document is read in other calls, and its last tokens with the question."""
    config, params = made(fusion)
    state = read(fusion, 5)
    for first, last in ((5, 6), (6, 15), (15, LENGTH)):
        _, state = prefill(config, params, [DOCUMENT[first:last]], state)
    np.testing.assert_allclose(token_weights((config, params), state, ROWS), weights(fusion), atol=1e-5)
    rows = [np.concatenate([DOCUMENT[-3:], row]) for row in ROWS]
    found = token_weights((config, params), read(fusion, LENGTH - 3), rows, skip=3)
    np.testing.assert_allclose(found, weights(fusion), atol=1e-5)


def test_weights_are_those_of_a_reference():
    """One token at a time; the memory's input is that of the open segment in the state after it."""
    (config, params), state = made("gated"), read("gated")
    expected = np.zeros(LENGTH)
    row = ROWS[0][:1]
    _, after = prefill(config, params, [row], state)
    for number, (before, layer) in enumerate(zip(state.layers, after.layers, strict=True)):
        memory, entries = params["blocks"][str(number)]["memory_layer"]["memory"], before.stream.memory.entries
        x = np.asarray(layer.stream.pending)[0, int(before.stream.offset[0])]
        query = (x @ np.asarray(memory["query"]["kernel"])).reshape(2, 4)
        query = query / np.sqrt((query**2).sum(axis=1, keepdims=True) + 1e-6)
        query = query * np.exp(np.asarray(memory["log_temperature"]))[:, None]
        logits = np.einsum("hk,mhk->hm", query, np.asarray(entries.keys)[0]) + np.asarray(entries.log_gate)[0]
        null = np.exp(np.einsum("hk,hk->h", query, np.asarray(memory["null_key"])))
        share = np.exp(logits) / (null + np.exp(logits).sum(axis=1))[:, None]
        expected[20 - SIZE : 20] += share.mean(axis=0) / 2
    found = token_weights((config, params), state, [row, *ROWS[1:]])  # three rows, as in other tests: one program
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_the_explained_part_of_the_shared_softmax_is_the_read():
    """Where attention to the window gives 0, the merged heads are the weighted values of the entries."""
    (config, params), state = made("attention"), read("attention")
    (block,) = mg.from_params(config, params).blocks
    x = np.random.default_rng(1).normal(size=(1, 2, 16)).astype(np.float32)
    lse = np.random.default_rng(2).normal(size=(1, 2, 2)).astype(np.float32)
    inputs = jax.jit(call_inputs)(np.zeros((1, 2), bool), np.ones((1, 2), bool))
    stream, layer = state.layers[0].stream, block.memory_layer
    merged, _, _ = jax.jit(layer)(np.zeros((1, 2, 2, 8), np.float32), lse, x, stream, inputs)
    found = jax.jit(layer.explain)(lse, x, stream, inputs).read()
    np.testing.assert_allclose(found.reshape(merged.shape), merged, atol=1e-5)
    assert np.abs(merged).max() > 0.01


def test_entries_of_unknown_tokens_share_their_weight_over_the_segment():
    model = made("gated", num_layers=1, select="pool", select_size=1)
    (found,) = token_weights(model, read_documents(*model, [DOCUMENT]), ROWS[:1])
    segments = found[:20].reshape(5, SEGMENT)
    np.testing.assert_allclose(segments, np.repeat(segments[:, :1], SEGMENT, axis=1), atol=1e-9)
    assert np.all(segments > 0) and np.all(found[20:] < 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"norm_position": "post"}, {"norm_position": "parallel"}, {"memory_layers": (1,)}])
def test_other_blocks(options):
    config = tiny(made("gated")[0].memory, num_layers=2, **options)
    params = build(config).params
    found = token_weights((config, params), read_documents(config, params, [DOCUMENT]), ROWS)
    assert np.all(found[:, 8:20] > 1e-6) and np.all(found.sum(axis=1) < 1)


def test_memories_that_cannot_be_cited_are_refused():
    message = "sources need a memory whose entries come from tokens: kv, compressive; the model has "
    for memory in (mg.NoMemoryConfig(), mg.NTMMemoryConfig()):
        with pytest.raises(ValueError, match=message + mg.MEMORIES.name_of(memory)):
            check_citable(tiny(memory))


def test_usual_weights_are_the_mean_of_questions_about_any_document():
    """Also where the last tokens of the document are read with the question."""
    tokens = QuestionTokens(ByteTokenizer(), "{document}|{question} ")
    config = tiny(mg.KVMemoryConfig(memory_size=32, head_dim=4), vocab_size=257, window_size=8, segment_length=8)
    params, document = build(config).params, tokens.document("Ada is in Rome. Tom left.")
    found = question_weights((config, params), read_documents(config, params, [document]), tokens, [("Who?", "Tom")])
    state = read_documents(config, params, [document[:-2]])
    rows = [np.concatenate([document[-2:], tokens.after_document(text, "")["tokens"]]) for text in USUAL]
    expected = token_weights((config, params), state, rows, skip=2).mean(axis=0)
    np.testing.assert_allclose(found.usual, expected, atol=1e-6)
    unread = question_weights((config, params), state, tokens, [("Who?", "Tom")], unread=document[-2:])
    np.testing.assert_allclose(unread.asked, found.asked, atol=1e-6)
    assert np.abs(found.asked[0] - found.usual).max() > 1e-4


def test_sources_are_the_sentences_that_are_read_more_than_usual():
    pytest.importorskip("sentencex")
    text = "Ada left. Tom\N{GRINNING FACE} stayed.\n\nEva?"
    ends, usual = np.array([0, 3, 9, 13, 14, 22, 24, 28, 28]), np.zeros(9)
    weights = np.array([9, 1, 1, 1, 1, 2, 3, 0, 0]) / 10
    first, second = sources(text, ends, weights, usual, 2)
    assert (first["text"], second["text"]) == ("Tom\N{GRINNING FACE} stayed.", "Eva?")
    assert all(text[found["start"] : found["end"]] == found["text"] for found in (first, second))
    assert first["weight"] == pytest.approx(0.4) and second["weight"] == pytest.approx(0.3)
    assert len(sources(text, ends, usual, usual, 5)) == 3
    usual[3:6] = 0.1  # differences: 0.2 of the first sentence, 0.1 of the second, 0.3 of the third
    found = sources(text, ends, weights, usual, 3)
    assert [source["text"][:3] for source in found] == ["Eva", "Ada", "Tom"]
    assert found[2]["weight"] == pytest.approx(0.4) and found[2]["usual"] == pytest.approx(0.3)
