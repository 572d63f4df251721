"""A model learns to tell pictures and sounds apart, from files to results; and what does not fit is refused."""

import dataclasses

import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.evaluation import evaluate
from tests.data.test_media import png, wav, written

Image = pytest.importorskip("PIL.Image", reason="the extra `senses` is not installed")
pytest.importorskip("soundfile", reason="the extra `senses` is not installed")
pytest.importorskip("sklearn", reason="the extra `tasks` is not installed")
SIZES = {"vocab_size": 2, "d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 16, "heads": ()}
PATCHES = mg.PatchesConfig(height=8, width=8, patch_size=4, stem=(8, 8))


def experiment(data, features, **changes):
    backbone = mg.EncoderConfig(**SIZES, memory=mg.NoMemoryConfig(), features=features)
    return ExperimentConfig(
        model=mg.HeadedConfig(backbone=backbone, head=mg.LabelHeadConfig(pool="mean")),
        data=data,
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=1),
        training=TrainingConfig(steps=40, batch_size=8, sequence_length=64, carry_state=False, checkpoint_every=40),
        evaluation=EvaluationConfig(batch_size=4, chunk_length=64, max_documents=None),
        **changes,
    )


def noise(rng, label):
    """A picture of noise, which is redder (0) or bluer (1) by a third of its range."""
    return np.uint8(rng.integers(160, size=(8, 8, 3)) + np.array([80, 40, 0] if label == 0 else [0, 40, 80]))


def test_pictures_are_learned(tmp_path):
    rng = np.random.default_rng(0)
    files = {f"{label}/{n:02}.png": png(Image.fromarray(noise(rng, label))) for label in (0, 1) for n in range(24)}
    data = mg.PicturesConfig(path=str(written(tmp_path / "data", files)), height=8, width=8, test_last=8, flip=True)
    config = experiment(data, PATCHES)
    result = mg.train(config, tmp_path / "run", print_progress=False)["evaluation"]
    assert result["examples"] == 3
    run = mg.load_run(tmp_path / "run")
    assert run.config.model.head.output_names == ("0", "1")
    on_test = dataclasses.replace(config.evaluation, split="test")
    found = evaluate(dataclasses.replace(run.config, evaluation=on_test), run.params)
    assert found["examples"] == 16 and found["accuracy"] > 0.85 and all("/" in m["where"] for m in found["mistakes"])


@pytest.mark.slow
def test_sounds_are_learned(tmp_path):
    rng, time = np.random.default_rng(0), np.arange(16000) / 16000
    files = {}
    for label, bend in (("up", 1), ("down", -1)):
        for number in range(24):
            length = rng.integers(2000, 8000)
            tone = np.sin(2 * np.pi * time[:length] * (rng.uniform(1200, 1800) + bend * 1200 * time[:length]))
            files[f"{label}/{number:02}.wav"] = wav(0.5 * tone)
    path = str(written(tmp_path / "data", files))
    data = mg.SoundsConfig(path=path, num_mels=20, test_last=8, stretch=0.2, warp=0.1)
    config = experiment(data, mg.FramesConfig(num_mels=20))
    mg.train(config, tmp_path / "run", print_progress=False)
    run = mg.load_run(tmp_path / "run")
    on_test = dataclasses.replace(config.evaluation, split="test", chunk_length=128)
    found = evaluate(dataclasses.replace(run.config, evaluation=on_test), run.params)
    assert found["examples"] == 16 and found["accuracy"] > 0.85


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (None, "needs a model with the input 'features'"),
        (dataclasses.replace(PATCHES, height=16), r"the data have features \(8, 8, 4, 3\)"),
        (mg.FramesConfig(), r"reads \(80,\)"),
        (dataclasses.replace(PATCHES, token=1), "features.token must be 0"),
    ],
)
def test_a_model_with_other_features_is_refused(features, message):
    with pytest.raises(ValueError, match=message):
        experiment(mg.PicturesConfig(path="pictures", height=8, width=8), features)
