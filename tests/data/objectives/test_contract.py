"""The contract of every objective in `OBJECTIVES`. A new entry of the registry is tested without an edit here."""

from dataclasses import dataclass

import jax
import numpy as np
import pytest

from memgpt_jax.config.data import ObjectiveConfig, TextConfig
from memgpt_jax.config.experiment import TrainingConfig
from memgpt_jax.data import OBJECTIVES, ByteTokenizer, batch_shapes, make_objective, register_objective, train_batches
from memgpt_jax.data.batches import added_ids
from memgpt_jax.data.objectives.masked import Masked

SHAPE = TrainingConfig(batch_size=3, sequence_length=24)
TEXTS = ["".join(chr(97 + document) + chr(65 + place) for place in range(26)) for document in range(5)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_contract(folder_config, name):
    config = folder_config({"train": TEXTS}, objective=name)
    objective, tokenizer = config.objective, ByteTokenizer()
    assert isinstance(make_objective(objective), OBJECTIVES[name].module) and OBJECTIVES.name_of(objective) == name
    batch = next(train_batches(config, SHAPE, 0, tokenizer))
    shapes = [
        jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), arrays)
        for arrays in (batch, batch_shapes(config, SHAPE))
    ]
    assert shapes[0] == shapes[1]
    assert set(batch.inputs) == {"tokens", "reset", *objective.inputs}
    assert set(batch.targets) == set(batch.weights) == set(objective.heads)
    ids = tokenizer.vocab_size + added_ids(config, tokenizer)
    tokens, reset = batch.inputs["tokens"], batch.inputs["reset"]
    assert tokens.dtype == np.int32 and reset.dtype == bool and tokens.shape == reset.shape
    assert 0 <= tokens.min() <= tokens.max() < ids
    for head, targets in batch.targets.items():
        weights = batch.weights[head]
        assert targets.dtype == np.int32 and weights.dtype == np.float32 and targets.shape == weights.shape
        assert targets.shape in (tokens.shape, tokens.shape[:1]) and 0 <= targets.min() <= targets.max() < ids
        assert (weights >= 0).all() and weights.any()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_batch_has_new_draws_and_resumes(folder_config, name):
    config = folder_config({"train": TEXTS}, objective=name)
    reference, states, batches = train_batches(config, SHAPE, 3), [], []
    for _ in range(12):
        states.append(reference.get_state())
        batches.append(next(reference))
    for step, state in enumerate(states):
        resumed = train_batches(config, SHAPE, 3)
        resumed.set_state(state)
        jax.tree.map(np.testing.assert_array_equal, next(resumed), batches[step])
    assert len({tuple(array.tobytes() for array in jax.tree.leaves(batch)) for batch in batches}) == 12
    other = next(train_batches(config, SHAPE, 4))
    assert (other.inputs["tokens"] != batches[0].inputs["tokens"]).any()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_another_objective_is_another_stream(folder_config, name):
    state = train_batches(folder_config({"train": TEXTS}, objective=name), SHAPE, 0).get_state()
    for other in OBJECTIVES:
        if other != name:
            with pytest.raises(ValueError, match="belongs to other data"):
                train_batches(folder_config(objective=other), SHAPE, 0).set_state(state)


def test_a_users_own_objective(folder_config):
    @dataclass(frozen=True, kw_only=True)
    class HalfConfig(ObjectiveConfig):
        heads = ("masked",)
        mask_rate: float = 0.5

    class Half(Masked):
        pass

    register_objective("half", HalfConfig, Half)
    try:
        text: TextConfig = folder_config({"train": TEXTS}, objective="half")
        batch = next(train_batches(text, TrainingConfig(batch_size=4, sequence_length=256), 0))
        assert 0.4 < batch.weights["masked"].mean() < 0.55
    finally:
        OBJECTIVES.unregister("half")
    with pytest.raises(ValueError, match="HalfConfig is the configuration of no objective; valid: CausalConfig"):
        make_objective(HalfConfig())
