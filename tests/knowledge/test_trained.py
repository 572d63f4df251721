"""A model that was trained on recall uses knowledge that it has never been trained on: slow, as it trains the model.

`python -m pytest tests/knowledge/test_trained.py -m slow -s` prints the figures of `docs/knowledge.md`.
"""

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.config.fields import with_fields
from memgpt_jax.studies.command_line import load_config

FACTS, EDITED = 64, 16


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The model of the config `recall`, with room for knowledge, and the numbers of its ids."""
    config, folder = load_config("recall"), tmp_path_factory.mktemp("recall") / "run"
    with jax.numpy_dtype_promotion("standard"):
        mg.train(config, folder, print_progress=False)
    run = mg.load_run(folder)
    return (with_fields(config.model, {"memory.knowledge_size": 4 * FACTS}), run.params), config.data


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_facts_are_recalled_cited_and_edited(trained, seed):
    model, data = trained
    key, value = data.num_fillers, data.num_fillers + data.num_keys
    rng = np.random.default_rng(seed)
    values = rng.permutation(data.num_values)
    fillers = rng.integers(data.num_fillers, size=FACTS)

    def fact(number, its_value):
        return [int(fillers[number]), key + number, value + int(its_value)]

    facts = mg.knowledge.encode(model, [fact(*pair) for pair in enumerate(values)])
    asked, right = np.arange(FACTS), value + values
    apply = jax.jit(lambda params, tokens, state: mg.functional(model[0]).apply(params, tokens, state)[0])

    def log_probabilities(knowledge):
        """Of the id after each key, [FACTS, V]."""
        state = mg.knowledge.write(model, mg.functional(model[0]).init_state(FACTS), knowledge)
        return np.asarray(jax.nn.log_softmax(apply(model[1], (key + asked)[:, None], state)[:, 0]))

    known, nothing = log_probabilities(facts), log_probabilities(facts.only([]))
    recalled = np.mean(known.argmax(axis=1) == right)
    state = mg.knowledge.write(model, mg.functional(model[0]).init_state(1), facts)
    rows = [np.array([key + number], np.int32) for number in asked]
    cited = mg.knowledge.source_weights(model, state, facts, rows).argmax(axis=1)
    drops, others, followed, kept = [], [], [], []
    for number in range(EDITED):
        own, other = cited[number] + 1, rng.choice(np.delete(asked, cited[number])) + 1
        for found, removed in ((drops, own), (others, other)):
            without = log_probabilities(facts.without([removed]))
            found.append(known[number, right[number]] - without[number, right[number]])
        new = (values[number] + 1) % data.num_values
        edited = facts.without([number + 1]) + mg.knowledge.encode(model, [fact(number, new)], sources=[FACTS + 1])
        answers = log_probabilities(edited).argmax(axis=1)
        followed.append(answers[number] == value + new)
        kept.append(np.mean(np.delete(answers == right, number)))
    print(
        f"\nseed {seed}: recalled {recalled:.3f}, without knowledge {np.mean(nothing.argmax(axis=1) == right):.3f}, "
        f"cited {np.mean(cited == asked):.3f}; nats lost without the cited fact {np.mean(drops):.2f}, without another "
        f"{np.mean(np.abs(others)):.1e}; edits followed {np.mean(followed):.3f}, others kept {np.mean(kept):.3f}"
    )
    assert recalled > 0.95 and np.mean(nothing.argmax(axis=1) == right) < 0.1
    assert np.mean(cited == asked) > 0.95 and np.mean(drops) > 10 * np.mean(np.abs(others))
    assert np.mean(followed) > 0.95 and np.mean(kept) > 0.95
