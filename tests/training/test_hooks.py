"""`train` with batches and a loss of one's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.checkpoint import load_run
from memgpt_jax.training import RunError, Totals, cross_entropy, read_metrics, train, train_step
from memgpt_jax.training.metrics import CLOCKED
from memgpt_jax.training.state import state_of
from tests.examples.distillation import distillation_loss
from tests.examples.own_batches import Countdown
from tests.laws.models import random_params
from tests.laws.runs import untrained_run


def timeless(workdir):
    return [record | dict.fromkeys(CLOCKED) for record in read_metrics(workdir)]


class Interrupted(Exception):
    pass


class Cut(Countdown):
    """Ends at a batch."""

    def __next__(self):
        if self.number == 7:
            raise Interrupted
        return super().__next__()


@pytest.mark.slow
def test_own_batches_train_and_resume_bitwise(tmp_path, make_config):
    config = make_config(data=mg.TextConfig(tokenizer="byte"))  # not read
    whole = train(config, tmp_path / "whole", batches=Countdown(4, 32, 20), print_progress=False)
    assert whole["evaluation"] is None and whole["bits_per_byte"] is None
    assert not (tmp_path / "whole/tokenizer").exists() and load_run(tmp_path / "whole").tokenizer is None
    with pytest.raises(Interrupted):
        train(config, tmp_path / "cut", batches=Cut(4, 32, 20), print_progress=False)
    assert load_run(tmp_path / "cut").step == 5
    train(config, tmp_path / "cut", batches=Countdown(4, 32, 20), print_progress=False)
    assert timeless(tmp_path / "cut") == timeless(tmp_path / "whole")
    params = [load_run(tmp_path / name).params for name in ("cut", "whole")]
    jax.tree.map(np.testing.assert_array_equal, *params)


class Unsaved(Countdown):
    def set_state(self, state):
        self.number = 100


class NotJson(Countdown):
    def get_state(self):
        return {"number": np.int64(self.number)}


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (iter([]), "batches must have __next__, get_state and set_state, got list_iterator"),
        (Countdown(3, 32, 20), r"batch\.inputs\['tokens'\] must have training\.batch_size=4 rows, got shape \(3, 32\)"),
        (Unsaved(4, 32, 20), "must lead to the batch that followed"),
        (NotJson(4, 32, 20), "must return a JSON value"),
    ],
    ids=["no iterator", "rows", "unsaved", "no JSON"],
)
def test_batches_that_do_not_keep_the_protocol_are_refused(tmp_path, make_config, batches, message):
    with pytest.raises(RunError, match=message):
        train(make_config(), tmp_path / "run", batches=batches, print_progress=False)
    assert not (tmp_path / "run/checkpoints").exists()


def test_another_stream_is_refused_when_the_run_is_resumed(tmp_path, make_config):
    config = make_config()
    untrained_run(config, tmp_path, position=Countdown(4, 32, 20).get_state())
    with pytest.raises(RunError, match="belongs to seed 0, but this is seed 1"):
        train(config, tmp_path, batches=Countdown(4, 32, 20, seed=1), print_progress=False)


def batches_of(number):
    source = Countdown(4, 32, 20)
    return jax.tree.map(lambda *arrays: np.stack(arrays), *[next(source) for _ in range(number)])


@pytest.mark.slow
def test_the_default_loss_given_by_hand_is_the_same_bitwise(make_config):
    config = make_config(optimizer={"accumulate_steps": 2})
    state, batches = state_of(config, random_params(config.model)), batches_of(2)
    default = jax.jit(functools.partial(train_step, config))(state, batches)
    by_hand = jax.jit(functools.partial(train_step, config, loss_fn=cross_entropy))(state, batches)
    jax.tree.map(np.testing.assert_array_equal, default[0].params, by_hand[0].params)
    jax.tree.map(np.testing.assert_array_equal, default[1].totals, by_hand[1].totals)


@pytest.mark.slow
def test_accumulation_is_exact_for_batches_of_unequal_weight(make_config):
    """Gradients of Σ losses / Σ weights over all batches, not of a mean of means."""

    def loss(model, batch, state, key):
        _, after = cross_entropy(model, batch, state, key)
        weight = 1.0 + (batch.inputs["tokens"][0, 0] % 5).astype(jnp.float32)
        value = sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(mg.to_params(model)))
        return Totals(weight * value, weight), after

    config = make_config(optimizer={"accumulate_steps": 3})
    state, batches = state_of(config, random_params(config.model)), batches_of(3)
    _, metrics = jax.jit(functools.partial(train_step, config, loss_fn=loss))(state, batches)
    value = sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(state.params))
    assert float(metrics.totals.loss / metrics.totals.weight) == pytest.approx(value, rel=1e-5)
    assert float(metrics.gradient_norm) == pytest.approx(2 * value**0.5, rel=1e-4)


@pytest.mark.slow
def test_a_student_learns_from_its_teacher_alone(tmp_path, make_config):
    """The loss falls to the entropy of the teacher; the teacher is an argument of the step, and does not change."""
    config = make_config(steps=20, log_every=10, checkpoint_every=20)
    teacher = random_params(config.model, 9)
    before = jax.tree.map(np.array, teacher)
    loss = distillation_loss(config.model, teacher)
    train(config, tmp_path, batches=Countdown(4, 32, 20), loss_fn=loss, print_progress=False)
    first, last = read_metrics(tmp_path)
    assert last["loss"] < first["loss"] and 0 <= last["accuracy"] <= 1 and last["bits_per_byte"] is None
    jax.tree.map(np.testing.assert_array_equal, before, teacher)
