"""The examples of the page "Extending" do what the page shows. `tests/interop` runs those of memory mechanisms."""

import dataclasses
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.data import ByteTokenizer
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.objectives import OBJECTIVES
from memgpt_jax.data.tasks import TASKS
from memgpt_jax.models.heads import HEAD_LAYERS, HEADS
from memgpt_jax.training import train

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(request):
    """The names of an example, whose registration is taken back afterwards."""
    file, registry, name = request.param
    with jax.numpy_dtype_promotion("standard"):  # as in a program of a user; optax needs it
        yield runpy.run_path(str(EXAMPLES / file))
    registry.unregister(name)


def small(config: mg.ExperimentConfig, data, length: int) -> mg.ExperimentConfig:
    """Two steps of a tiny model."""
    model = dataclasses.replace(config.model, vocab_size=300, d_model=16, num_layers=1, window_size=8, segment_length=8)
    training = dataclasses.replace(config.training, steps=2, batch_size=2, sequence_length=length, log_every=1)
    evaluation = dataclasses.replace(config.evaluation, num_batches=1, batch_size=2, chunk_length=8)
    return dataclasses.replace(config, model=model, data=data, training=training, evaluation=evaluation)


@pytest.mark.parametrize("example", [("delayed_objective.py", OBJECTIVES, "delayed")], indirect=True)
def test_objective(example, tmp_path):
    objective = example["Delayed"](example["DelayedConfig"](delay=3))
    reset = np.zeros((1, 8), bool)
    reset[0, 5] = True
    inputs = {"tokens": np.arange(10, 18, dtype=np.int32)[None], "reset": reset}
    batch = objective.change(np.random.default_rng(0), Batch(inputs, {}, {}, {}), ByteTokenizer())
    assert batch.weights["tokens"].tolist() == [[0, 0, 0, 1, 1, 0, 0, 0]]
    assert batch.targets["tokens"].tolist() == [[0, 0, 0, 10, 11, 0, 0, 0]]

    (tmp_path / "text").mkdir()
    for name in ("a.txt", "b.txt", "c.txt", "d.txt"):
        (tmp_path / "text" / name).write_text(f"a short text, in the file {name} " * 20)
    data = mg.TextConfig(
        corpus="folder",
        path=str(tmp_path / "text"),
        tokenizer="byte",
        cache_dir=str(tmp_path),
        objective=objective.config,
    )
    result = train(small(example["config"](), data, 16), tmp_path / "run", print_progress=False)
    assert 0 < result["evaluation"]["loss"] < 10


@pytest.mark.parametrize("example", [("first_symbol_task.py", TASKS, "first_symbol")], indirect=True)
def test_task(example, tmp_path):
    config = example["FirstSymbolConfig"](gap_length=6)
    batch = example["FirstSymbol"](config, "train").batch(0, 2, config.row_length)
    answers = batch.targets["tokens"][batch.weights["tokens"] > 0]
    assert answers.tolist() == batch.inputs["tokens"][:, 0].tolist()

    result = train(small(example["config"](), config, config.row_length), tmp_path / "run", print_progress=False)
    assert 0 < result["evaluation"]["loss"] < 10


@pytest.mark.parametrize("example", [("topic_head.py", HEADS, "topic")], indirect=True)
def test_head(example):
    assert example["accuracies"][-1] == 1 > example["accuracies"][0]

    head, state = example["model"].heads["topic"], example["model"].heads["topic"].init_state(1)
    h = jax.random.normal(jax.random.key(0), (1, 10, 32))
    reset = jnp.arange(10)[None] == 4  # tokens 0 to 3 belong to another document
    whole, _ = head(h, state, reset)
    _, state = head(h[:, :6], state, reset[:, :6])
    pieces, _ = head(h[:, 6:], state, reset[:, 6:])
    assert jnp.allclose(whole, pieces, atol=1e-6)
    alone, _ = head(h[:, 4:], head.init_state(1))
    assert jnp.allclose(whole, alone, atol=1e-6)


@pytest.mark.parametrize("example", [("decayed_mean_layer.py", HEAD_LAYERS, "decayed_mean")], indirect=True)
def test_head_layer(example):
    model, tokens = example["model"], jax.random.randint(jax.random.key(0), (2, 12), 0, 64)
    params, apply = model.init(jax.random.key(1)), jax.jit(model.apply)
    whole, _ = apply(params, tokens)
    _, state = apply(params, tokens[:, :5])
    pieces, _ = apply(params, tokens[:, 5:], state)
    assert whole.shape == (2, 12, 3) and jnp.allclose(whole[:, 5:], pieces, atol=1e-5)
