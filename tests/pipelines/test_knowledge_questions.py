"""Answers from facts in the memory."""

import pytest

import memgpt_jax as mg
from memgpt_jax.data import ByteTokenizer
from tests.laws.models import random_params, tiny

FACTS = ["the sea is blue", "a hat", "seven ships"]


@pytest.fixture(scope="module")
def pair():
    memory = mg.KVMemoryConfig(memory_size=12, num_heads=2, head_dim=4, temperature=30.0)
    config = tiny(memory, vocab_size=300, fusion="attention")
    return config, random_params(config)


def made(pair, knowledge):
    model = {"model": pair, "tokenizer": ByteTokenizer(), "prompt": "Q {source} A ", "max_new_tokens": 6}
    return mg.pipeline("knowledge-question-answering", **model, knowledge=knowledge, rows=2)


def test_each_answer_has_the_facts_that_it_read_more_than_usual(pair):
    ask = made(pair, FACTS)
    answers = ask(["is it blue", "how many", "what hat", "why"], sources=2)
    assert ask(["how many", "is it blue"], sources=2) == answers[1::-1]
    for answer in answers:
        assert isinstance(answer["answer"], str) and len(answer["sources"]) == 2
        gains = [source["weight"] - source["usual"] for source in answer["sources"]]
        assert gains == sorted(gains, reverse=True)
        assert all(FACTS[source["source"] - 1] == source["text"] for source in answer["sources"])


def test_a_forgotten_fact_has_never_been(pair, tmp_path):
    ask, never = made(pair, FACTS), made(pair, FACTS)
    never.knowledge = never.encode([FACTS[0], FACTS[2]], sources=[1, 3])
    ask.forget([2])
    found = ask(["what hat", "why"])
    assert all(source["source"] != 2 for answer in found for source in answer["sources"])
    assert found == never(["what hat", "why"])
    mg.knowledge.save(ask.knowledge, tmp_path / "facts")
    assert made(pair, tmp_path / "facts")(["what hat", "why"]) == found
    with pytest.raises(ValueError, match="there are no texts 2"):
        ask.forget([2])


def test_what_is_refused(pair):
    with pytest.raises(ValueError, match="there are no texts"):
        made(pair, [])
    with pytest.raises(ValueError, match="a question is empty"):
        made(pair, FACTS)(" ")
    with pytest.raises(ValueError, match="sources must be at least 1"):
        made(pair, FACTS)("what", sources=0)
    config = tiny(mg.NoMemoryConfig(), vocab_size=300)
    with pytest.raises(ValueError, match=r"model.memory must be a KVMemoryConfig"):
        made((config, random_params(config)), FACTS)
