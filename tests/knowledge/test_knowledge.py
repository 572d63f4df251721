"""Knowledge: what is encoded, written, edited, cited and saved."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.data import ByteTokenizer
from memgpt_jax.knowledge.entries import Knowledge
from tests.laws.models import build, tiny

SEGMENT, PLACES = 4, 40
TOKENIZER = ByteTokenizer()


def made(fusion="gated", **memory):
    """A tiny model whose reads are sharp, and its parameters."""
    memory = {"memory_size": 24, "num_heads": 2, "head_dim": 8, "temperature": 30.0, "knowledge_size": PLACES} | memory
    config = tiny(mg.KVMemoryConfig(**memory), fusion=fusion, vocab_size=300, segment_length=SEGMENT)
    return build(config)


def pair(model):
    return model.config, model.params


@pytest.fixture(scope="module", params=["gated", pytest.param("attention", marks=pytest.mark.slow)])
def model(request):
    return made(request.param)


@pytest.fixture(scope="module")
def facts(model):
    """Three texts of 6, 1 and 9 tokens."""
    return mg.knowledge.encode(pair(model), ["sea is", "a", "blue hats"], TOKENIZER, batch_size=2)


def same(a: Knowledge, b: Knowledge) -> bool:
    equal = [np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a.layers), jax.tree.leaves(b.layers), strict=True)]
    return all(equal) and dict(a.texts) == dict(b.texts)


def read(model, ids, state, cuts=()):
    """The logits of one row, in calls that end at the cuts; a reset in front of the fourth token."""
    reset, found = np.zeros((1, len(ids)), bool), []
    reset[0, 3] = True
    for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        logits, state = model(np.array([ids[start:end]], np.int32), state, reset[:, start:end])
        found.append(np.asarray(logits[0]))
    return np.concatenate(found)


def test_each_token_is_an_entry_of_its_text(model, facts):
    assert facts.texts == {1: "sea is", 2: "a", 3: "blue hats"} and len(facts) == 16
    for layer in facts.layers:
        assert layer.source.tolist() == [1] * 6 + [2] + [3] * 9 and layer.keys.shape[0] == 16


def test_entries_are_those_that_the_stream_writes(model, facts):
    """Of whole segments; the last segment of a text is a beginning of that of a longer text."""
    ids = np.array([[TOKENIZER.start_id, *TOKENIZER.encode("blue hats")][:8]], np.int32)
    _, state = model(ids)
    longer = mg.knowledge.encode(pair(model), ["blue hats, green ties"], TOKENIZER, batch_size=2)
    for layer, stream, other in zip(facts.layers, streams(state), longer.layers, strict=True):
        entries = stream.memory.entries
        written = np.asarray(entries.keys[0])[np.asarray(entries.valid[0])]
        np.testing.assert_allclose(layer.keys[7:14], written[1:], atol=1e-6)
        for name in ("keys", "values", "log_gate"):
            np.testing.assert_allclose(getattr(layer, name)[7:], getattr(other, name)[:9], atol=1e-6)


def streams(state):
    return [layer.stream for layer in state.layers if layer.stream]


def test_a_text_does_not_depend_on_the_others(model, facts):
    alone = mg.knowledge.encode(pair(model), ["blue hats"], TOKENIZER, sources=[3], batch_size=2)
    for whole, part in zip(facts.only([3]).layers, alone.layers, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole, part)


def test_knowledge_is_read_after_any_cut_and_reset(model, facts):
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 250, 11).tolist()
    start = mg.knowledge.write(pair(model), model.fresh(1), facts)
    whole = read(model, ids, start)
    np.testing.assert_allclose(read(model, ids, start, cuts=(1, 2, 6, 7)), whole, atol=2e-5)
    change = np.abs(whole - read(model, ids, model.fresh(1))).max(axis=1)
    assert np.all(change > 1e-4)  # the tokens after the reset, too
    gone = mg.knowledge.write(pair(model), start, facts.without([1, 2, 3]))
    assert np.array_equal(read(model, ids, gone), read(model, ids, model.fresh(1)))


@pytest.mark.parametrize(
    ("top_k", "recall"),
    [(3, None), (PLACES, None), pytest.param(3, 0.9, marks=pytest.mark.slow), (PLACES, 0.9)],
)
def test_the_nearest_entries_are_read_in_one_softmax_with_the_others(model, facts, top_k, recall):
    """All of them: as without a search. Three: for each token and head, those with the highest weights.

    There are fewer entries than bins, so that an approximate search finds all.
    """
    memory = dataclasses.replace(model.config.memory, knowledge_top_k=top_k, knowledge_recall=recall)
    config = dataclasses.replace(model.config, memory=memory)
    searching, ids = build(config), list(b"the blue sea")
    assert jax.tree.all(jax.tree.map(np.array_equal, searching.params, model.params))
    start = mg.knowledge.write(pair(model), model.fresh(1), facts)
    found = read(searching, ids, start)
    if top_k == PLACES:
        np.testing.assert_allclose(found, read(model, ids, start), atol=2e-5)
        return
    np.testing.assert_allclose(read(searching, ids, start, cuts=(3, 6, 9)), found, atol=2e-5)
    cited, every = (mg.knowledge.cite(pair(m), start, facts, ids[:4], top=10**6) for m in (searching, model))
    for head, (some, of_all) in itertools.product(range(2), zip(cited, every, strict=True)):
        weights, best = ([c.weight for c in part if c.head == head] for part in (some, of_all))  # in descending order
        assert not np.any(weights[top_k:])
        weights, best = np.array(weights[:top_k]), np.array(best[:top_k])
        np.testing.assert_allclose(weights / weights.sum(), best / best.sum(), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("top_k", [3, PLACES])
def test_an_index_that_searches_all_cells_is_exact(model, facts, top_k):
    """In any cut of a text, after edits, and in citations; with one cell of four it finds others."""
    ids = list(b"the blue sea")

    def searched(**index):
        memory = dataclasses.replace(model.config.memory, knowledge_top_k=top_k, **index)
        found = build(dataclasses.replace(model.config, memory=memory))
        return found, mg.knowledge.write(pair(found), found.fresh(1), facts)

    exact, start = searched()
    indexed, with_cells = searched(knowledge_cells=4, knowledge_probes=4)
    expected = read(exact, ids, start)
    np.testing.assert_allclose(read(indexed, ids, with_cells), expected, atol=2e-5)
    np.testing.assert_allclose(read(indexed, ids, with_cells, cuts=(3, 6, 9)), expected, atol=2e-5)
    one, start_of_one = searched(knowledge_cells=4, knowledge_probes=1)
    assert np.abs(read(one, ids, start_of_one) - expected).max() > 1e-4
    edited = [mg.knowledge.write(pair(m), s, facts.without([1])) for m, s in ((exact, start), (indexed, with_cells))]
    np.testing.assert_allclose(read(indexed, ids, edited[1]), read(exact, ids, edited[0]), atol=2e-5)
    cites = [mg.knowledge.cite(pair(m), s, facts, ids[:4]) for m, s in ((exact, start), (indexed, with_cells))]
    assert [[c.text for c in part] for part in cites[0]] == [[c.text for c in part] for part in cites[1]]


def test_an_edited_knowledge_is_one_that_never_had_the_text(model, facts):
    ids = list(b"the sea was blue")
    other = mg.knowledge.encode(pair(model), ["red"], TOKENIZER, sources=[7], batch_size=2)
    replaced = facts.without([1]) + other
    never = facts.only([2, 3]) + other
    assert [*replaced.texts] == [2, 3, 7] and same(replaced, never)
    states = [mg.knowledge.write(pair(model), model.fresh(1), each) for each in (replaced, never)]
    # The first has held other knowledge before.
    states[0] = mg.knowledge.write(pair(model), mg.knowledge.write(pair(model), states[0], facts), replaced)
    one, two = (read(model, ids, state) for state in states)
    assert np.array_equal(one, two)


def test_a_thousand_random_edits(model, facts):
    """Any sequence of additions and deletions gives the texts that are left, in the order in which they were added."""
    rng, parts = np.random.default_rng(0), {source: facts.only([source]) for source in facts.texts}
    held, order = facts.only([]), []
    for _ in range(1000):
        source = int(rng.integers(1, 4))
        if source in order:
            held, order = held.without([source]), [number for number in order if number != source]
        else:
            held, order = held + parts[source], [*order, source]
        assert [*held.texts] == order
        for layer, *of_parts in zip(held.layers, *(parts[number].layers for number in order), strict=True):
            for array, *expected in zip(layer, *of_parts, strict=True):
                assert np.array_equal(array, np.concatenate(expected)) if expected else len(array) == 0


@pytest.fixture(scope="module")
def sharp():
    """Each token reads the entries of its own id: without attention, queries and keys of an id are equal."""
    memory = {"num_heads": 2, "head_dim": 8, "temperature": 800.0, "writer_conv": 1, "gate": "none"}
    config = tiny(mg.KVMemoryConfig(memory_size=8, knowledge_size=PLACES, **memory), d_model=16)
    params = jax.jit(mg.functional(config).init)(jax.random.key(0))
    output = params["blocks"]["0"]["attention"]["output"]
    output["kernel"] = jnp.zeros_like(output["kernel"])
    return config, params


@pytest.mark.slow
def test_a_token_cites_the_text_that_holds_it(sharp):
    facts = mg.knowledge.encode(sharp, [[11, 12], [21, 22, 23], [31]])
    state = mg.knowledge.write(sharp, mg.functional(sharp[0]).init_state(1), facts)
    found = mg.knowledge.cite(sharp, state, facts, [22, 31, 11, 23, 12], top=2)
    first = [of_token[0] for of_token in found]
    assert [citation.source for citation in first] == [2, 3, 1, 2, 1]
    assert all(citation.weight > 0.99 and citation.text == facts.texts[citation.source] for citation in first)
    weights = mg.knowledge.source_weights(sharp, state, facts, [np.array([21, 22, 23]), np.array([31])], number=2)
    assert weights.shape == (2, 3) and np.all(weights >= 0) and np.all(weights.sum(axis=1) < 1 + 1e-5)
    assert weights.argmax(axis=1).tolist() == [1, 2]


def test_the_weights_of_tokens_add_up_to_those_of_texts(model, facts):
    state = mg.knowledge.write(pair(model), model.fresh(1), facts)
    ids = np.array(list(b"is a sea"), np.int32)
    every = mg.knowledge.cite(pair(model), state, facts, ids, top=10**6)
    heads, layers = model.config.memory.num_heads, len(facts.layers)
    assert all(len(of_token) == heads * layers * len(facts) for of_token in every)
    summed = [sum(c.weight for of_token in every for c in of_token if c.source == source) for source in facts.texts]
    weights = mg.knowledge.source_weights(pair(model), state, facts, [ids])[0]
    np.testing.assert_allclose(weights, np.array(summed) / (heads * layers * len(ids)), rtol=1e-4)


def test_saved_knowledge_is_read_back(model, facts, tmp_path):
    mg.knowledge.save(facts, tmp_path / "facts")
    found = mg.knowledge.load(tmp_path / "facts", pair(model))
    assert same(found, facts) and isinstance(found.layers[0].keys, np.memmap)
    mg.knowledge.save(facts.without([2]), tmp_path / "facts")  # replaces it
    assert [*mg.knowledge.load(tmp_path / "facts", pair(model)).texts] == [1, 3]
    with pytest.raises(ValueError, match="other parameters encoded the knowledge"):
        mg.knowledge.load(tmp_path / "facts", (model.config, jax.tree.map(lambda x: 2 * x, model.params)))
    with pytest.raises(ValueError, match="holds no knowledge"):
        mg.knowledge.save(facts, tmp_path)
    with pytest.raises(ValueError, match="there is no knowledge in"):
        mg.knowledge.load(tmp_path / "other", pair(model))


def test_knowledge_encoded_into_a_folder_is_that_of_one_call(model, facts, tmp_path):
    texts, options = ["sea is", "a", "blue hats"], {"batch_size": 2, "path": tmp_path / "facts"}
    found = mg.knowledge.encode(pair(model), iter(texts), TOKENIZER, **options)
    assert same(found, facts) and isinstance(found.layers[0].keys, np.memmap)
    for wrong, message in ((["new", "text", " "], "text 2 is empty"), ([], "there are no texts")):
        with pytest.raises(ValueError, match=message):  # the folder is unchanged
            mg.knowledge.encode(pair(model), iter(wrong), TOKENIZER, **options)
    assert same(mg.knowledge.load(tmp_path / "facts", pair(model)), facts)
    with pytest.raises(ValueError, match="holds no knowledge"):
        mg.knowledge.encode(pair(model), texts, TOKENIZER, path=tmp_path)


def cited(model, facts, ids, written=None):
    """The citations of ids that continue a state with facts, or with other knowledge."""
    state = mg.knowledge.write(pair(model), model.fresh(1), facts if written is None else written)
    return mg.knowledge.cite(pair(model), state, facts, ids)


def others(model):
    """Three other texts of as many tokens."""
    return mg.knowledge.encode(pair(model), ["sky is", "b", "green hat"], TOKENIZER)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, f: mg.knowledge.encode(pair(m), [], TOKENIZER), "there are no texts"),
        (lambda m, f: mg.knowledge.encode(pair(m), ["a", " "], TOKENIZER), "text 1 is empty"),
        (lambda m, f: mg.knowledge.encode(pair(m), ["a"]), "texts need tokenizer="),
        (lambda m, f: mg.knowledge.encode(pair(m), [[300]]), "the ids of text 0 must be from 0 to 299, got 300 to 300"),
        (
            lambda m, f: mg.knowledge.encode(pair(m), "sea", TOKENIZER),
            "texts must be a list of texts, got one text, 'sea'",
        ),
        (lambda m, f: mg.knowledge.encode(pair(m), [[1.7, 2]]), "the ids of text 0 must be a list of whole numbers"),
        (
            lambda m, f: mg.knowledge.encode(pair(m), [[True, False]]),
            "text 0 must be a list of whole numbers, got bool",
        ),
        (lambda m, f: mg.knowledge.encode(pair(m), [1, 2]), "text 0 must be a list of whole numbers, got int64"),
        (lambda m, f: mg.knowledge.encode(pair(m), [[1], [2]], sources=[1]), "2 texts have 1 sources"),
        (
            lambda m, f: mg.knowledge.encode(pair(m), [[1], [2]], sources=iter([1])),
            "there are more texts than 1 sources",
        ),
        (lambda m, f: mg.knowledge.encode(pair(m), iter([[1]]), sources=[1, 2]), "there are more sources than 1 texts"),
        (lambda m, f: mg.knowledge.encode(pair(m), [[1], [2]], sources=[4, 4]), "two texts have the same number"),
        (
            lambda m, f: mg.knowledge.encode(pair(m), [[1]], sources=[0]),
            "sources must be a whole number from 1 to .*, got 0",
        ),
        (lambda m, f: f.without([9]), "there are no texts 9; there are 3 texts"),
        (lambda m, f: f.without(9), "there are no texts 9; there are 3 texts"),
        (lambda m, f: f + f, "both have the texts 1, 2, 3"),
        (lambda m, f: mg.knowledge.cite(pair(m), m.fresh(1), f, [1]), "the state holds other knowledge"),
        (lambda m, f: mg.knowledge.cite(pair(m), m.fresh(2), f, [1]), "the state has 2 rows, must have 1"),
        (lambda m, f: cited(m, f, [1], written=others(m)), "the state holds other knowledge"),
        (lambda m, f: cited(m, f, [1], written=f.only(2)), "the state holds other knowledge"),
        (lambda m, f: cited(m, f, [1], written=changed(f, "keys")), "the state holds other knowledge"),
        (lambda m, f: cited(m, f, [1], written=changed(f, "values")), "the state holds other knowledge"),
        (lambda m, f: cited(m, f, [99_999]), "ids must be from 0 to"),
        (lambda m, f: cited(m, f, [1.5]), r"ids must be a list of whole numbers, got float64\[1\]"),
        (lambda m, f: cited(m, f, []), "there are no ids"),
        (lambda m, f: mg.knowledge.source_weights(pair(m), m.fresh(1), f, [[1], []]), "there are no ids"),
        (lambda m, f: mg.knowledge.write(pair(m), m.fresh(1), f + many(f)), "48 entries, .*knowledge_size=40 is less"),
        (lambda m, f: mg.knowledge.source_weights(pair(m), m.fresh(1), f, [[1]], number=0), "number must be a whole"),
        (
            lambda m, f: mg.knowledge.write(pair(m), made(knowledge_size=8).fresh(1), f),
            "the state is of knowledge_size=8, the model of model.memory.knowledge_size=40",
        ),
        (
            lambda m, f: mg.KVMemoryConfig(knowledge_top_k=0),
            "knowledge_top_k must be at least 1, .*, got 0",
        ),
        (
            lambda m, f: mg.KVMemoryConfig(knowledge_top_k=4, knowledge_recall=1.0),
            "knowledge_recall must be above 0 and below 1, and needs knowledge_top_k, got 1.0 and 4",
        ),
        (lambda m, f: mg.KVMemoryConfig(knowledge_recall=0.9), "needs knowledge_top_k, got 0.9 and None"),
        (
            lambda m, f: mg.KVMemoryConfig(knowledge_size=8, knowledge_top_k=2, knowledge_cells=3),
            "knowledge_cells must be a power of 2 of at most knowledge_size, .*, got 3, 8, 2 and None",
        ),
        (
            lambda m, f: mg.KVMemoryConfig(knowledge_size=8, knowledge_top_k=2, knowledge_cells=16),
            "knowledge_cells must be a power of 2 of at most knowledge_size, .*, got 16, 8, 2 and None",
        ),
        (lambda m, f: mg.KVMemoryConfig(knowledge_size=8, knowledge_cells=4), "with knowledge_top_k and without"),
        (lambda m, f: mg.KVMemoryConfig(knowledge_probes=0), "knowledge_probes must be at least 1, got 0"),
        (lambda m, f: mg.KVMemoryConfig(knowledge_size=-1), "knowledge_size must be at least 0, got -1"),
    ],
)
def test_what_is_refused(model, facts, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, facts)


def changed(facts, name):
    """The same texts, with one number of one entry of 16 changed."""
    first, *others = facts.layers
    array = getattr(first, name).copy()
    array[5, 0, 0] += 1
    return dataclasses.replace(facts, layers=(first._replace(**{name: array}), *others))


def test_no_knowledge_is_written_into_a_memory_without_places(facts):
    plain = made(knowledge_size=0)
    state = plain.fresh(1)
    assert mg.knowledge.write(pair(plain), state, facts.without([1, 2, 3])) is state
    with pytest.raises(ValueError, match="the state is of knowledge_size=40"):
        mg.knowledge.write(pair(plain), made().fresh(1), facts.only([]))


@pytest.mark.parametrize("select", ["all", pytest.param("pool", marks=pytest.mark.slow)])
def test_no_entry_of_a_text_is_lost_by_eviction(select):
    """`lowest_gate` could drop an entry as soon as it is written: texts of which it could drop one are refused."""
    size = {"memory_size": 8, "select": select, "select_size": 2}
    new = SEGMENT if select == "all" else 2  # entries of a segment
    longest = 8 // new * SEGMENT + SEGMENT - 1
    model = made(evict="lowest_gate", **size)
    ids = np.random.default_rng(0).integers(1, 250, longest + 1).tolist()
    found = mg.knowledge.encode(pair(model), [ids[:-1], [1]])
    wanted = mg.knowledge.encode(pair(made(evict="oldest", **size)), [ids[:-1], [1]])
    assert same(found, dataclasses.replace(wanted, texts=found.texts))
    number = longest if select == "all" else new * (longest + 1) // SEGMENT
    assert np.count_nonzero(found.layers[0].source == 1) == number
    with pytest.raises(ValueError, match=rf"text 1 has {longest + 1} tokens, at most {longest} are possible with"):
        mg.knowledge.encode(pair(model), [[1], ids])


def many(facts):
    """The same texts twice, with other numbers."""
    renamed = []
    for shift in (10, 20):
        layers = [layer._replace(source=layer.source + shift) for layer in facts.layers]
        renamed.append(Knowledge(tuple(layers), {n + shift: text for n, text in facts.texts.items()}, facts.model))
    return renamed[0] + renamed[1]
