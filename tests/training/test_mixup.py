"""Mixup of the pooled vectors of texts: its loss, its gradient, and that only training mixes."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import memgpt_jax as mg
from memgpt_jax.config.experiment import PrivateConfig
from memgpt_jax.data import make_task
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.models.heads import make_head
from memgpt_jax.training import train
from memgpt_jax.training.state import state_of
from memgpt_jax.training.step import train_step
from tests.laws.models import random_params
from tests.pipelines.resuming import check_resuming

SIZES = {"vocab_size": 257, "d_model": 8, "num_layers": 1, "num_heads": 2, "segment_length": 8}
BACKBONE = mg.EncoderConfig(**SIZES, memory=mg.NoMemoryConfig(), heads=())
TEXTS = [{"text": f"{word} {number}", "label": word[0]} for number in range(12) for word in ("ant", "bee")]
LOGITS = np.array([[[1.0, -1.0, 0.5], [0.2, 0.4, 0.6]], [[-2.0, 0.0, 1.0], [0.3, 0.1, 0.9]]], np.float32)
TARGETS = np.array([[2, 0], [1, 1]])
ASKED = np.array([[True, False], [True, False]])
WEIGHT = 0.7


def head_of(**settings):
    return make_head(mg.LabelHeadConfig(num_outputs=3, mixup=0.4, **settings), BACKBONE, rngs=nnx.Rngs(0))


@pytest.fixture
def drawn(monkeypatch):
    """Both asked tokens exchange their places, with a weight that the test chooses."""

    def draw(weight):
        monkeypatch.setattr(jax.random, "beta", lambda *args, **options: np.float32(weight))
        partner = np.array([[2, 1], [0, 3]], np.int32)
        monkeypatch.setattr("memgpt_jax.models.heads.labels.partners", lambda key, asked: partner)

    return draw


def mixed_loss(head, logits):
    return head.mixed_score(logits, TARGETS, ASKED, jax.random.key(0))


@pytest.mark.parametrize("smoothing, class_weights", [(0.0, ()), (0.2, (1.0, 2.0, 0.5))])
def test_loss_and_gradient_by_hand(drawn, smoothing, class_weights):
    drawn(WEIGHT)
    head = head_of(label_smoothing=smoothing, class_weights=class_weights)

    def loss(logits):
        return jnp.sum(jnp.where(ASKED, mixed_loss(head, logits).losses, 0.0))

    value, gradient = jax.device_get(jax.jit(jax.value_and_grad(loss))(LOGITS))

    z, y = LOGITS[:, 0].astype(np.float64), TARGETS[:, 0]
    mixed = WEIGHT * z + (1 - WEIGHT) * z[::-1]
    p = np.exp(mixed) / np.exp(mixed).sum(axis=-1, keepdims=True)
    q = (1 - smoothing) * np.eye(3)[y] + smoothing / 3
    weights = np.array(class_weights or (1, 1, 1))[y]
    own, other = -(q * np.log(p)).sum(axis=-1), -(q[::-1] * np.log(p)).sum(axis=-1)
    assert value == pytest.approx((WEIGHT * weights * own + (1 - WEIGHT) * weights[::-1] * other).sum(), rel=1e-5)
    slope = WEIGHT * weights[:, None] * (p - q) + (1 - WEIGHT) * weights[::-1, None] * (p - q[::-1])
    np.testing.assert_allclose(gradient[:, 0], WEIGHT * slope + (1 - WEIGHT) * slope[::-1], atol=1e-6)
    np.testing.assert_array_equal(gradient[:, 1], 0)


def test_mixed_outputs_are_outputs_of_mixed_pooled_vectors():
    head, rng = head_of(layers="mlp", pool="attention"), np.random.default_rng(0)
    h = rng.normal(size=(2, 2, 8)).astype(np.float32)

    @jax.jit
    def both(h):
        pooled, _ = head.features(h, head.init_state(2))
        outputs = head.project(pooled)
        mixed = head.project(WEIGHT * pooled + (1 - WEIGHT) * pooled[::-1])
        return mixed, WEIGHT * outputs + (1 - WEIGHT) * outputs[::-1]

    np.testing.assert_allclose(*both(h), atol=1e-6)


def test_weight_one_is_the_loss_without_mixup(drawn):
    drawn(1.0)
    head = head_of()
    found, plain = jax.jit(lambda logits: (mixed_loss(head, logits), head.score(logits, TARGETS)))(LOGITS)
    jax.tree.map(np.testing.assert_array_equal, found, plain)


def test_several_labels_by_hand(drawn):
    drawn(WEIGHT)
    targets = np.array([[[1, 0, 0], [0, 0, 0]], [[0, 1, 1], [0, 0, 0]]])
    head = head_of(loss="binary")
    scores = jax.jit(lambda logits: head.mixed_score(logits, targets, ASKED, jax.random.key(0)))(LOGITS)
    s = 1 / (1 + np.exp(-(WEIGHT * LOGITS[:, 0] + (1 - WEIGHT) * LOGITS[::-1, 0])))
    q = WEIGHT * targets[:, 0] + (1 - WEIGHT) * targets[::-1, 0]
    expected = -(q * np.log(s) + (1 - q) * np.log(1 - s)).mean(axis=-1)
    np.testing.assert_allclose(np.asarray(scores.losses)[:, 0], expected, rtol=1e-5)


@pytest.fixture
def config(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TEXTS))
    data = mg.LabelledTextConfig(train=str(tmp_path / "a.jsonl"), tokenizer="byte", labels=("a", "b"))
    return mg.ExperimentConfig(
        model=mg.HeadedConfig(backbone=BACKBONE, head=mg.LabelHeadConfig(mixup=0.4)),
        data=data,
        training=mg.TrainingConfig(
            steps=4, batch_size=3, sequence_length=16, carry_state=False, checkpoint_every=2, log_every=1
        ),
        evaluation=mg.EvaluationConfig(chunk_length=16),
    )


def test_training_mixes_anew_in_each_step_and_evaluation_does_not(config):
    batch = make_task(config.data, "train", ByteTokenizer()).batch(0, 3, 16)
    step = jax.jit(functools.partial(train_step, config))
    state = state_of(config, random_params(config.model))
    batches = jax.tree.map(lambda array: np.asarray(array)[None], batch)
    losses = [float(step(state._replace(step=np.int32(n)), batches)[1].totals.loss) for n in (3, 3, 4)]
    assert losses[0] == losses[1] != losses[2]

    model = mg.functional(config.model)
    plain = mg.functional(dataclasses.replace(config.model, head=mg.LabelHeadConfig()))
    options = {"targets": batch.targets, **batch.inputs}
    found, _ = jax.jit(model.score)(state.params, **options)
    without, _ = jax.jit(plain.score)(state.params, **options)
    jax.tree.map(np.testing.assert_array_equal, found, without)
    key = jax.random.key(0)
    with_key, _ = jax.jit(plain.score)(state.params, **options, dropout_key=key)
    jax.tree.map(np.testing.assert_array_equal, with_key, without)
    with pytest.raises(ValueError, match=r"head.mixup needs the argument `asked`"):
        model.score(state.params, **options, dropout_key=key)


@pytest.mark.slow  # the test before sees that a mixture follows from the step, test_finetune.py resumes a run
def test_a_resumed_run_is_the_same_bitwise(config, tmp_path):
    pytest.importorskip("sklearn", reason="the extra `tasks` is not installed")
    found = train(config, tmp_path / "run", print_progress=False)
    check_resuming(SimpleNamespace(workdir=tmp_path / "run", evaluation=found["evaluation"]), tmp_path)


def test_settings_that_are_refused(config):
    with pytest.raises(ValueError, match=r"head.mixup must be a number of at least 0, got -1"):
        mg.LabelHeadConfig(mixup=-1.0)
    with pytest.raises(ValueError, match="it needs another pool than 'none'"):
        mg.LabelHeadConfig(mixup=0.2, pool="none")
    data = dataclasses.replace(config.data, sample_rows=2)
    optimizer = mg.OptimizerConfig(private=PrivateConfig())
    with pytest.raises(ValueError, match=r"optimizer.private needs model.head.mixup=0"):
        dataclasses.replace(config, data=data, optimizer=optimizer)
