"""RULER's noise: needles and chains of variables, decoded to text and checked by brute force."""

import itertools
import re

import numpy as np
import pytest

from memgpt_jax.data import make_task
from memgpt_jax.data.tasks.noise import NoiseConfig, NoiseNeedleConfig
from memgpt_jax.data.tasks.tracking import TrackingConfig

NEEDLE = re.compile(r"One of the special magic numbers for (w\d+) is : ((?:\d )+)\.")
QUESTION = re.compile(
    r"What is the special magic number for (w\d+) mentioned in the provided text \? "
    r"The special magic number for (w\d+) mentioned in the provided text is((?: \d)+)"
)
ASSIGNMENT = re.compile(r"VAR (x\d+) = ([xv]\d+) \.")


def words_of(config: NoiseConfig) -> list[str]:
    """The word of each id: a word of noise or template, a digit, w (a needle's word), x (a name), v (a value)."""
    if isinstance(config, NoiseNeedleConfig):
        own = [*"0123456789", *(f"w{number}" for number in range(config.num_words))]
    else:
        own = [f"x{i}" for i in range(config.num_names)] + [f"v{i}" for i in range(config.num_values)]
    words = [*config.words, *own]
    assert len(words) == config.num_ids
    return words


def rows(config: NoiseConfig, number: int = 16):
    """The words of each row, the positions of its scored targets, and the groups of the rows."""
    batch = make_task(config, "train").batch(0, number, config.row_length)
    words = words_of(config)
    assert (batch.targets["tokens"][:, :-1] == batch.inputs["tokens"][:, 1:]).all()
    for tokens, targets, weights in zip(
        batch.inputs["tokens"], batch.targets["tokens"], batch.weights["tokens"], strict=True
    ):
        yield [words[token] for token in (*tokens, targets[-1])], set(1 + np.flatnonzero(weights))


def check_noise(config: NoiseConfig, context: list[str], hidden: re.Pattern, number: int):
    """Without the hidden sentences, the context is the end of the periodic noise; each is after a sentence of noise."""
    text = " ".join(context)
    found = list(hidden.finditer(text))
    assert len(found) == number
    assert all(text[: match.start()].endswith(". ") for match in found)
    assert all(before.end() + 1 < after.start() for before, after in itertools.pairwise(found))
    left = hidden.sub("", text).split()
    endless = config.noise.split() * 50
    assert left == endless[len(endless) - len(left) :]


@pytest.mark.parametrize(
    "config",
    [
        NoiseNeedleConfig(),
        NoiseNeedleConfig(num_needles=8, num_questions=5, num_words=9, num_digits=2, context_length=300),
        NoiseNeedleConfig(num_needles=1, num_words=1, num_digits=1, context_length=19),
    ],
)
def test_needles_by_brute_force(config):
    for words, scored in rows(config):
        assert len(words) == config.row_length + 1
        context, rest = words[: config.context_length], words[config.context_length : -1]
        check_noise(config, context, NEEDLE, config.num_needles)
        facts = {match[1]: match[2].split() for match in NEEDLE.finditer(" ".join(context))}
        assert len(facts) == config.num_needles and all(len(v) == config.num_digits for v in facts.values())
        questions = list(QUESTION.finditer(" ".join(rest)))
        assert " ".join(match[0] for match in questions) == " ".join(rest)
        assert len({match[1] for match in questions}) == config.num_questions
        for match in questions:
            assert match[1] == match[2] and match[3].split() == facts[match[1]]
        assert scored == {place for place in range(config.context_length, len(words)) if words[place].isdigit()}


@pytest.mark.parametrize("question", ["value", "variables"])
@pytest.mark.parametrize("sizes", [(2, 2, 1), (1, 4, 1), (4, 1, 3)])
def test_chains_by_brute_force(question, sizes):
    chains, hops, questions = sizes
    config = TrackingConfig(
        num_chains=chains, num_hops=hops, num_questions=questions, question=question, num_names=12, num_values=5
    )
    groups = make_task(config, "train").batch(0, 16, config.row_length).info.get("group", [None] * 16)
    for (words, scored), group in zip(rows(config), groups, strict=True):
        context, rest = words[: config.context_length], words[config.context_length : -1]
        check_noise(config, context, ASSIGNMENT, config.num_variables)
        values, depth, order = {}, {}, []
        for name, source in ASSIGNMENT.findall(" ".join(context)):
            assert name not in values
            assert source in values or source.startswith("v")  # nothing is used before it is assigned
            values[name], depth[name] = values.get(source, source), depth.get(source, -1) + 1
            order.append(name)
        assert sorted(depth.values()) == sorted([*range(hops + 1)] * chains) and len(set(values.values())) == chains
        assert len(rest) % questions == 0
        size, asked, expected = len(rest) // questions, [], set()
        for start in range(0, len(rest), size):
            *words_before, last = rest[start : start + size]
            if question == "value":
                assert " ".join(words_before) == f"What value does {words_before[3]} hold ?"
                assert last == values[words_before[3]] and depth[words_before[3]] == group
                asked.append(last)
                expected |= {config.context_length + start + size - 1}
            else:
                number = size - hops - 1
                value = words_before[number - 2]
                assert " ".join(words_before[:number]) == f"Find all variables that are assigned the value {value} :"
                assert [*words_before[number:], last] == [name for name in order if values[name] == value]
                asked.append(value)
                expected |= {config.context_length + start + place for place in range(number, size)}
        assert len(set(asked)) == questions and scored == expected


def test_groups_are_numbers_of_hops():
    config = TrackingConfig(num_hops=2)
    task = make_task(config, "train")
    assert task.groups == ("0 hops", "1 hops", "2 hops")
    group = task.batch(0, 3000, config.row_length).info["group"]
    assert group.dtype == np.int32 and group.shape == (3000,) and np.bincount(group, minlength=3).min() > 900
    assert make_task(TrackingConfig(question="variables"), "train").groups == ()


def test_places_and_chains_are_uniform():
    config = TrackingConfig(num_chains=2, num_hops=1, context_length=2 * 24 + 20)
    task, one, orders = make_task(config, "train"), [], []
    tokens = task.batch(0, 4000, config.row_length).inputs["tokens"]
    words = np.array(words_of(config))[tokens]
    first = (words == "VAR").argmax(axis=1)
    assert set(first) <= {5, 10, 15, 19, 24, 29, 34}  # four of the ten ends of a sentence, sorted
    assert np.mean(first == 5) == pytest.approx(4 / 10, abs=0.03)
    for row in words[:2000]:
        starts = np.flatnonzero(row == "VAR")
        one.append(row[starts[0] + 1])
        sources = row[starts + 3]
        orders.append("".join("v" if source.startswith("v") else "x" for source in sources))
    # c c d d is one of three ways to mix two chains of two, and shows as v x v x; the others as v v x x.
    assert orders.count("vxvx") / 2000 == pytest.approx(1 / 3, abs=0.04) and set(orders) == {"vxvx", "vvxx"}
    assert len(set(one)) == config.num_names


def test_bad_values():
    for cls, values, message in (
        (NoiseNeedleConfig, {"num_digits": 0}, "num_digits must be at least 1, got 0"),
        (NoiseNeedleConfig, {"num_questions": 5}, "num_questions=5 must be at most num_needles=4"),
        (NoiseNeedleConfig, {"num_needles": 65}, "num_needles=65, and that at most num_words=64"),
        (NoiseNeedleConfig, {"context_length": 80}, "context_length=80 cannot hold 4 sentences of 18 tokens"),
        (TrackingConfig, {"question": "who"}, "question must be one of 'value', 'variables', got 'who'"),
        (TrackingConfig, {"num_questions": 3}, "num_questions=3 must be at most num_chains=2"),
        (TrackingConfig, {"num_names": 5}, "need 6 names, more than num_names=5"),
        (TrackingConfig, {"num_values": 1}, "num_chains=2, and that at most num_values=1"),
        (TrackingConfig, {"context_length": 54}, "context_length=54 cannot hold 6 sentences of 5 tokens"),
    ):
        with pytest.raises(ValueError, match=message):
            cls(**values)


def test_the_shortest_context_works():
    for cls, sizes in ((TrackingConfig, {}), (NoiseNeedleConfig, {}), (TrackingConfig, {"num_chains": 1})):
        shortest = next(length for length in range(1, 200) if valid(cls, context_length=length, **sizes))
        config = cls(context_length=shortest, **sizes)
        make_task(config, "train").batch(0, 4, config.row_length)


def valid(cls, **values) -> bool:
    try:
        cls(**values)
    except ValueError:
        return False
    return True
