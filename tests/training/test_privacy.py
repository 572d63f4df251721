"""Differentially private training: gradients of single texts, noise, accounting, sampling."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.config import extras
from memgpt_jax.config.experiment import PrivateConfig
from memgpt_jax.data import make_task
from memgpt_jax.data.examples.rows import sampled_rows
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.training import RunError, privacy, train
from memgpt_jax.training.start import completed
from memgpt_jax.training.step import row_loss
from tests.laws.models import random_params

pytestmark = pytest.mark.filterwarnings("ignore:optax.global_norm:DeprecationWarning")  # in jax-privacy
ROWS, LENGTH, CLIP = 6, 16, 0.05
TEXTS = [{"text": f"{word} {number}", "label": word[0]} for number in range(40) for word in ("ant", "bee")]


@pytest.fixture
def config(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TEXTS))
    memory = mg.KVMemoryConfig(memory_size=8, head_dim=4)
    sizes = {"vocab_size": 257, "d_model": 8, "num_layers": 1, "num_heads": 2, "segment_length": 8}
    return mg.ExperimentConfig(
        model=mg.HeadedConfig(
            backbone=mg.ModelConfig(**sizes, window_size=8, memory=memory), head=mg.LabelHeadConfig()
        ),
        data=mg.LabelledTextConfig(train=str(tmp_path / "a.jsonl"), tokenizer="byte", sample_rows=4),
        optimizer=mg.OptimizerConfig(private=PrivateConfig(epsilon=None, noise_multiplier=1e-7, clip_norm=CLIP)),
        training=mg.TrainingConfig(
            steps=6, batch_size=ROWS, sequence_length=LENGTH, carry_state=False, checkpoint_every=3, log_every=3
        ),
        evaluation=mg.EvaluationConfig(chunk_length=LENGTH),
    )


def prepared(config):
    """The config with its labels, parameters, and a batch."""
    config = dataclasses.replace(config, data=config.data.completed())
    params = random_params(config.model)
    batch = make_task(config.data, "train", ByteTokenizer()).batch(0, ROWS, LENGTH)
    return config, params, batch


def gradients(config, params, batch, key=1):
    def loss(params, row, key):
        return row_loss(config, None, params, row, key)

    return jax.jit(lambda params, batch, key: privacy.private_gradients(config, params, batch, key, loss))(
        params, batch, jax.random.key(key)
    )


def norm(tree):
    return float(np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(tree))))


def scaled(config, **changes):
    return dataclasses.replace(
        config,
        optimizer=dataclasses.replace(
            config.optimizer, private=dataclasses.replace(config.optimizer.private, **changes)
        ),
    )


def test_the_gradient_is_the_sum_of_clipped_gradients_of_single_texts(config):
    pytest.importorskip("jax_privacy", reason="the extra `private` is not installed")
    config, params, batch = prepared(config)
    found, totals = gradients(config, params, batch)
    of_row = jax.jit(jax.grad(lambda p, row: row_loss(config, None, p, row, jax.random.key(0))[0]))
    total, norms = jax.tree.map(np.zeros_like, params), []
    for number in range(ROWS):
        gradient = of_row(params, jax.tree.map(lambda array, i=number: array[i : i + 1], batch))
        norms.append(norm(gradient))
        scale = min(1.0, CLIP / norms[-1]) if norms[-1] else 0.0
        total = jax.tree.map(lambda sum_, leaf, scale=scale: sum_ + scale * np.asarray(leaf), total, gradient)
    assert max(norms) > CLIP  # some are clipped
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b / config.data.sample_rows, atol=1e-6), found, total)
    assert float(totals.weight) == batch.weights["labels"].sum()


def test_one_text_changes_the_sum_by_the_clip_norm_at_most(config):
    pytest.importorskip("jax_privacy", reason="the extra `private` is not installed")
    config, params, batch = prepared(config)
    params["head"]["output"]["kernel"] = params["head"]["output"]["kernel"] * 1e4  # an outlier: a huge gradient
    with_, _ = gradients(config, params, batch)
    weights = batch.weights["labels"].copy()
    row = int(np.flatnonzero(weights.any(axis=1))[0])
    weights[row] = 0
    without, _ = gradients(config, params, batch._replace(weights={"labels": weights}))
    change = norm(jax.tree.map(jnp.subtract, with_, without)) * config.data.sample_rows
    assert 0.9 * CLIP < change < 1.01 * CLIP


def test_noise_has_the_standard_deviation_of_the_equation_and_spares_frozen_parameters(config):
    pytest.importorskip("jax_privacy", reason="the extra `private` is not installed")
    config, params, batch = prepared(scaled(config, noise_multiplier=3.0))
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, trainable=("embedding",)))
    nothing = batch._replace(weights={"labels": np.zeros_like(batch.weights["labels"])})
    found, _ = gradients(config, params, nothing)
    noise = np.asarray(found["backbone"].pop("embedding"))
    assert np.std(noise) == pytest.approx(3.0 * CLIP / config.data.sample_rows, rel=0.1)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(found))
    again = gradients(config, params, nothing, key=2)[0]["backbone"]["embedding"]
    assert abs(np.corrcoef(noise.ravel(), np.asarray(again).ravel())[0, 1]) < 0.1


def test_epsilon_is_that_of_the_accounting_library_and_the_noise_reaches_it(config):
    pytest.importorskip("jax_privacy", reason="the extra `private` is not installed")
    import dp_accounting

    target = completed(scaled(config, epsilon=4.0, noise_multiplier=None, delta=1e-3))
    noise, texts = target.optimizer.private.noise_multiplier, privacy.number_of_texts(target)
    epsilon = privacy.epsilon_of(target)
    assert 3.8 < epsilon(6) <= 4.0 and epsilon(3) < epsilon(6)
    accountant = dp_accounting.pld.PLDAccountant(value_discretization_interval=privacy.PRECISION)
    event = dp_accounting.TruncatedSubsampledGaussianDpEvent(
        dataset_size=texts, sampling_probability=4 / texts, truncated_batch_size=ROWS, noise_multiplier=noise
    )
    assert epsilon(6) == pytest.approx(accountant.compose(event, 6).get_epsilon(1e-3), rel=1e-6)


def test_a_private_run_logs_epsilon_and_resumes_bitwise(config, tmp_path):
    pytest.importorskip("jax_privacy", reason="the extra `private` is not installed")
    config = scaled(config, epsilon=4.0, noise_multiplier=None, delta=1e-3)
    train(config, tmp_path / "run", print_progress=False)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [3, 6]
    assert records[0]["epsilon"] < records[1]["epsilon"] <= 4.0
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "checkpoints" / "6")
    train(config, tmp_path / "copy", print_progress=False)
    jax.tree.map(
        np.testing.assert_array_equal,
        mg.load_run(tmp_path / "copy").params,
        mg.load_run(tmp_path / "run").params,
    )


def test_texts_are_drawn_independently():
    rows = [{"tokens": np.full(2, i, np.int32), "targets": np.zeros(2), "weights": np.ones(2)} for i in range(10)]
    batches = iter(sampled_rows(rows.__getitem__, 10, 0, 8, 4, mean=4))
    drawn = np.zeros((300, 10), int)
    for number in range(300):
        batch = next(batches)
        used = batch.inputs["valid"][:, 0]
        assert (batch.inputs["valid"].sum(axis=1) == 2 * used).all() and (np.diff(used.astype(int)) <= 0).all()
        assert (batch.weights["labels"].sum(axis=1) == 2 * used).all()
        np.add.at(drawn[number], batch.inputs["tokens"][used, 0], 1)
    assert drawn.max() == 1
    assert np.abs(drawn.mean(axis=0) - 0.4).max() < 0.1 and drawn.sum(axis=1).var() == pytest.approx(2.4, rel=0.3)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(10)).max() < 0.25


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"sample_rows": None}}, "optimizer.private needs data.sample_rows"),
        ({"data": {"sample_rows": 7}}, "data.sample_rows=7 must be at most training.batch_size=6"),
        ({"optimizer": {"accumulate_steps": 2}}, "optimizer.private needs optimizer.accumulate_steps=1, got 2"),
        ({"training": {"carry_state": True}}, "optimizer.private needs training.carry_state=False, got True"),
        ({"training": {"skip_backward": True}}, "optimizer.private needs training.skip_backward=False, got True"),
    ],
)
def test_experiments_that_are_refused(config, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(
            config, **{name: dataclasses.replace(getattr(config, name), **part) for name, part in changes.items()}
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epsilon": 1.0, "noise_multiplier": 1.0}, "needs either epsilon or noise_multiplier"),
        ({"epsilon": None}, "needs either epsilon or noise_multiplier"),
        ({"delta": 2.0}, "delta must be between 0 and 1"),
        ({"clip_norm": 0.0}, "clip_norm must be positive"),
    ],
)
def test_values_that_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PrivateConfig(**values)


def test_a_missing_library_is_named(config, tmp_path, monkeypatch):
    monkeypatch.setattr(extras.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(RunError, match=r"pip install 'memgpt-jax\[private\]'"):
        train(config, tmp_path / "run", print_progress=False)
