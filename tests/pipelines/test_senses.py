"""A model learns to label and to describe pictures and sounds, from files to results; what does not fit is refused."""

import dataclasses
import io
import json

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.evaluation import evaluate
from memgpt_jax.pipelines import AudioClassification, SpeechRecognition, TextToSpeech
from memgpt_jax.pipelines.base import Loaded
from memgpt_jax.pipelines.media import picture_features
from memgpt_jax.pipelines.speech_streams import CTCSpeechRecognition
from memgpt_jax.studies import entry
from tests.data.test_media import png, wav, written
from tests.laws.models import random_params

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
        evaluation=EvaluationConfig(batch_size=4, chunk_length=64),
        **changes,
    )


def noise(rng, label):
    """A picture of noise, which is redder (0) or bluer (1) by a third of its range."""
    return np.uint8(rng.integers(160, size=(8, 8, 3)) + np.array([80, 40, 0] if label == 0 else [0, 40, 80]))


def test_pictures_are_learned(tmp_path):
    rng = np.random.default_rng(0)
    files = {f"{label}/{n:02}.png": png(Image.fromarray(noise(rng, label))) for label in (0, 1) for n in range(40)}
    data = mg.PicturesConfig(path=str(written(tmp_path / "data", files)), height=8, width=8, test_last=24, flip=True)
    config = experiment(data, PATCHES)
    result = mg.train(config, tmp_path / "run", print_progress=False)["evaluation"]
    assert result["examples"] == 3
    run = mg.load_run(tmp_path / "run")
    assert run.config.model.head.output_names == ("0", "1")
    on_test = dataclasses.replace(config.evaluation, split="test")
    found = evaluate(dataclasses.replace(run.config, evaluation=on_test), run.params)
    assert found["examples"] == 48 and found["accuracy"] > 0.85 and all("/" in m["where"] for m in found["mistakes"])
    see, test = mg.pipeline(tmp_path / "run"), [str(tmp_path / f"data/{label}/23.png") for label in (0, 1)]
    first, second = see(test)
    assert [row["label"] for row in first] == ["0", "1"] and [row["label"] for row in second] == ["1", "0"]
    assert {*first[0]} == {"score", "label"} and abs(sum(row["score"] for row in first) - 1) < 1e-5
    assert see(Image.open(test[1]), top_k=1) == see(test[1])[:1] and see.record(test[0], top=1)["labels"] == first[:1]
    with pytest.raises(ValueError, match="the task of the run must be a SoundsConfig"):
        mg.pipeline("audio-classification", model=tmp_path / "run")


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
    assert found["examples"] == 48 and found["accuracy"] > 0.85


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


BOTH = {"vocab_size": 257, "d_model": 32, "num_layers": 1, "num_heads": 2, "memory": mg.NoMemoryConfig()}


def writer(features, source_length):
    """An encoder-decoder that reads features and writes bytes."""
    return mg.Seq2SeqConfig(
        encoder=mg.EncoderConfig(**BOTH, position="learned", num_positions=8, features=features, heads=()),
        decoder=mg.ModelConfig(**BOTH, segment_length=8, window_size=8, source_length=source_length),
    )


def written_experiment(data, model):
    return ExperimentConfig(
        model=model,
        data=data,
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=5),
        training=TrainingConfig(steps=80, batch_size=16, sequence_length=8, carry_state=False, checkpoint_every=80),
        evaluation=EvaluationConfig(batch_size=8, chunk_length=8, max_documents=None),
    )


@pytest.mark.slow
def test_captions_are_learned_and_written(tmp_path, capsys):
    """Of the colours of both halves of a picture, in all orders."""
    rng, colours, files = np.random.default_rng(0), {"red": (200, 30, 30), "sky": (30, 90, 220)}, {}
    for left in colours:
        for right in colours:
            for number in range(8):
                halves = np.repeat([[colours[left]] * 4 + [colours[right]] * 4], 8, axis=0)
                pixels = halves + rng.integers(30, size=(8, 8, 3))
                files[f"{left} {right}/{number}.png"] = png(Image.fromarray(np.uint8(pixels)))
    path, patches = written(tmp_path / "data", files), dataclasses.replace(PATCHES, stem=())
    sizes = {"height": 8, "width": 8, "patch_size": 4, "max_new_tokens": 10}
    data = mg.CaptionsConfig(path=str(path), test_last=2, **sizes, metrics=("exact", "word_f1"), phrase="red|sky")
    experiment = written_experiment(data, writer(patches, 4))
    result = mg.train(experiment, tmp_path / "run", print_progress=False)["evaluation"]
    assert result["exact_match"] == result["word_f1"] == result["phrase"] == 1 and result["examples"] == 2

    caption, test = mg.pipeline(tmp_path / "run"), [path / f"{name}/7.png" for name in ("red sky", "sky red")]
    assert caption(test) == [[{"generated_text": "red sky"}], [{"generated_text": "sky red"}]]
    picture = Image.open(test[0])
    assert caption(picture) == caption(np.asarray(picture)) == caption(str(test[0])) == [{"generated_text": "red sky"}]
    assert caption([]) == []
    with pytest.raises(ValueError, match=r"the file '.*none.png' cannot be read"):
        caption("none.png")
    entry.main(["predict", str(tmp_path / "run"), "--text", str(test[1])])
    assert json.loads(capsys.readouterr().out) == {"line": 1, "text": str(test[1]), "written": "sky red"}


def test_transcripts_have_the_arguments_and_results_of_transformers(tmp_path):
    data = mg.TranscriptsConfig(sample_rate=8000, num_mels=4, source_length=8, max_new_tokens=2)
    model = writer(mg.FramesConfig(num_mels=4), 8)
    hear = SpeechRecognition(Loaded(model, random_params(model), ByteTokenizer(), 8, data))
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 1000).astype(np.float32)
    (tmp_path / "a.wav").write_bytes(wav(samples, 8000, subtype="FLOAT"))
    found = hear(str(tmp_path / "a.wav"))
    assert {*found} == {"text"} and type(found["text"]) is str
    assert hear([samples, {"raw": samples, "sampling_rate": 8000}]) == [found, found]
    assert {*hear({"raw": samples, "sampling_rate": 16000})} == {"text"}
    scaled = {"raw": np.round(samples * 2**15).astype(np.int16), "sampling_rate": 8000}
    np.testing.assert_allclose(hear.features(scaled), hear.features(samples), atol=1e-2)
    for bad, message in (
        (np.zeros((2, 9)), r"samples must be floats \[n\] with n >= 1, got \[2, 9\]"),
        (np.zeros(0), r"got \[0\]"),
        (samples + 1j, "samples must be floats from -1 to 1, int16 or int32, got complex64"),
        ({"raw": [0, 1], "sampling_rate": 8000}, "got int64"),
        ({"raw": samples, "sampling_rate": 0}, "sampling_rate must be a whole number from 1"),
        ({"raw": samples[:1], "sampling_rate": 10**6}, "the sound is shorter than a sample at 8000 Hz"),
        (np.full(9, np.nan), "a sample is NaN or infinite"),
        ({"raw": samples}, "a sound must be a path"),
        (np.zeros(8000), "an input of 50 tokens is longer than the 8 that the model reads"),
    ):
        with pytest.raises(ValueError, match=message):
            hear(bad)


def test_pictures_of_pillow_and_arrays_are_read_like_files():
    """Turned as their EXIF data say, in any colours; an array of other shapes or types is refused."""
    config = mg.PicturesConfig(height=8, width=8, patch_size=8)
    pixels = np.random.default_rng(0).integers(256, size=(8, 8, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = Image.open(io.BytesIO(png(Image.fromarray(pixels), exif=exif)))
    wanted = picture_features(config, np.rot90(pixels, 3).copy())
    np.testing.assert_array_equal(picture_features(config, turned), wanted)
    for mode in ("CMYK", "YCbCr"):
        image = Image.fromarray(pixels).convert(mode)
        found, expected = picture_features(config, image), picture_features(config, image.convert("RGB"))
        np.testing.assert_array_equal(found, expected)
    grey = pixels[..., :1]
    np.testing.assert_array_equal(picture_features(config, grey), picture_features(config, grey[..., 0]))
    for bad in (
        pixels / 255,
        pixels.astype(int),
        pixels.transpose(2, 0, 1),
        pixels[:0],
        pixels[0, 0],
        np.ones((4, 4)) > 0,
    ):
        with pytest.raises(ValueError, match=r"an array must be uint8 \[Y, X\] or \[Y, X, C\] with C from 1 to 4, got"):
            picture_features(config, bad)
    with pytest.raises(ValueError, match="pixels of mode 'F'"):
        picture_features(config, Image.new("F", (8, 8)))


def test_sounds_are_labelled_with_the_results_of_transformers():
    data = mg.SoundsConfig(sample_rate=8000, num_mels=4, labels=("x", "y", "z"))
    backbone = mg.EncoderConfig(**SIZES, memory=mg.NoMemoryConfig(), features=mg.FramesConfig(num_mels=4))
    head = mg.LabelHeadConfig(num_outputs=3, output_names=data.labels)
    model = mg.HeadedConfig(backbone=backbone, head=head)
    label = AudioClassification(Loaded(model, random_params(model), ByteTokenizer(), 8, data))
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 1000).astype(np.float32)
    found = label(samples)
    assert {row["label"] for row in found} == {"x", "y", "z"} and found[0]["score"] > found[2]["score"]
    both = label([samples, {"raw": samples, "sampling_rate": 8000}], top_k=2)
    assert both[0] == both[1] and [row["label"] for row in both[0]] == [row["label"] for row in found[:2]]
    # Two rows at once: some machines sum them in another order than one.
    assert [row["score"] for row in both[0]] == pytest.approx([row["score"] for row in found[:2]], abs=1e-6)
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        label(samples, top_k=0)


def test_texts_are_said_with_the_results_of_transformers():
    data = mg.SpeechSynthesisConfig(sample_rate=8000, num_mels=4, source_length=6, speakers=("ann", "bo"))
    decoder = mg.ModelConfig(**BOTH | {"vocab_size": 259}, segment_length=8, features=mg.FramesConfig(num_mels=4))
    model = mg.HeadedConfig(backbone=decoder, head=mg.FramesHeadConfig())
    say = TextToSpeech(Loaded(model, random_params(model), ByteTokenizer(), 8, data), rows=2)
    found = say("no", speaker="ann")
    assert {*found} == {"audio", "sampling_rate"} and found["sampling_rate"] == 8000
    assert found["audio"].dtype == np.float32 and found["audio"].size % 160 == 0 and np.isfinite(found["audio"]).all()
    first, second = say([" no ", "on"])
    assert second["audio"].size > 0
    np.testing.assert_array_equal(first["audio"], found["audio"])
    assert not np.array_equal(say("no", speaker="bo")["audio"], found["audio"])
    assert say.record("no", top=1) == {"text": "no", "audio": say("no")["audio"].tolist(), "sampling_rate": 8000}
    for call, message in (
        (lambda: say("no", speaker="cy"), "speaker must be one of ann, bo, got 'cy'"),
        (lambda: say(" "), "a text is empty"),
        (lambda: say("no", max_new_tokens=0), "max_new_tokens"),
        (lambda: say(3), "inputs must be a text or a list of texts"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (mg.ModelConfig(**BOTH, segment_length=8), "needs a model with the input 'source_features'"),
        (writer(None, 4), "needs a model with the input 'source_features'"),
        (writer(mg.FramesConfig(), 4), r"the data have features \(8, 8, 4, 3\)"),
        (writer(dataclasses.replace(PATCHES, token=1), 4), "features.token must be 0"),
        (writer(PATCHES, 3), "data.source_length=4 must be"),
    ],
)
def test_a_model_that_cannot_write_captions_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        written_experiment(mg.CaptionsConfig(path="pictures", height=8, width=8), model)


@pytest.mark.slow
def test_transcripts_are_learned_and_written_while_they_are_heard(tmp_path):
    """Strings of one to three tones, each of which is a letter."""
    rng, time, files = np.random.default_rng(0), np.arange(16000) / 16000, {}
    for letter, pitch in (("a", 500), ("b", 1500), ("c", 4000)):
        for number in range(16):
            length = rng.integers(1600, 3200)
            tone = np.sin(2 * np.pi * pitch * rng.uniform(0.9, 1.1) * time[:length]) * np.hanning(length)
            files[f"{letter}/{number:02}.wav"] = wav(0.5 * tone)
    path = str(written(tmp_path / "data", files))
    sizes = {"num_mels": 20, "source_length": 32, "test_last": 4, "max_clips": 3}
    data = mg.CTCTranscriptsConfig(path=path, **sizes, metrics=("wer", "exact"))
    backbone = mg.ModelConfig(**BOTH, segment_length=8, window_size=8, features=mg.FramesConfig(num_mels=20))
    config = written_experiment(data, mg.HeadedConfig(backbone=backbone, head=mg.CTCHeadConfig()))
    training = dataclasses.replace(config.training, steps=400, checkpoint_every=400)
    mg.train(dataclasses.replace(config, training=training), tmp_path / "run", print_progress=False)
    run = mg.load_run(tmp_path / "run")
    on_test = dataclasses.replace(config.evaluation, split="test")
    found = evaluate(dataclasses.replace(run.config, evaluation=on_test), run.params)
    assert found["examples"] == 12 and found["exact_match"] > 0.8 and found["wer"] < 0.2

    hear = mg.pipeline(tmp_path / "run")
    task = mg.data.make_task(dataclasses.replace(data, min_clips=6, max_clips=6, source_length=90), "test")
    frames = task.source(0).reshape(-1, 20)
    *_, whole = hear.stream([frames])
    parts = [part["text"] for part in hear.stream(np.array_split(frames, 23))]
    assert parts[-1] == whole["text"] and len(set(parts)) > 4
    samples = np.concatenate([task.decoded[index] for index in task.examples[0].files])
    assert hear(samples) == whole and len(whole["text"].split()) > 3
    with pytest.raises(ValueError, match=r"a chunk must be frames \[t, 20\]"):
        next(hear.stream([np.zeros((2, 3))]))


@pytest.mark.slow
def test_what_is_not_finite_gives_no_transcript():
    data = mg.CTCTranscriptsConfig(sample_rate=8000, num_mels=4, source_length=8)
    backbone = mg.ModelConfig(**BOTH, segment_length=8, window_size=8, features=mg.FramesConfig(num_mels=4))
    model = mg.HeadedConfig(backbone=backbone, head=mg.CTCHeadConfig())
    params = random_params(model)
    hear = CTCSpeechRecognition(Loaded(model, params, ByteTokenizer(), 8, data))
    frames = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    assert [{*part} for part in hear.stream([frames, frames])] == [{"text"}] * 2
    for bad in (np.where(frames == frames[3], np.float32(np.nan), frames), frames.astype(int)):
        with pytest.raises(ValueError, match="a chunk must be floats that are finite"):
            [*hear.stream([frames, bad])]
    broken = CTCSpeechRecognition(Loaded(model, jax.tree.map(lambda x: x * np.nan, params), ByteTokenizer(), 8, data))
    for call in (lambda: broken(frames[:, 0]), lambda: [*broken.stream([frames])]):
        with pytest.raises(ValueError, match="an output for a token is NaN or infinite"):
            call()


@pytest.mark.slow
def test_tones_are_said(tmp_path):
    """Two speakers, a low and a high one, say a falling or a rising tone; the pipeline says what was learned."""
    rng, files = np.random.default_rng(0), {}
    for name, pitch in (("ann", 1000), ("bo", 2000)):
        for word, bend in (("up", 1500), ("down", -1500)):
            for take in range(8):
                time = np.arange(rng.integers(2400, 3600)) / 8000
                tone = 0.3 * np.sin(2 * np.pi * time * (pitch + bend * time)) * np.hanning(len(time))
                files[f"{word}_{name}_{take}.wav"] = wav(tone, 8000)
    data = mg.SpeechSynthesisConfig(
        path=str(written(tmp_path / "data", files)), pattern=r"(?P<label>[a-z]+)_(?P<group>[a-z]+)_\d\.wav$",
        test_last=2, valid_every=6, sample_rate=8000, num_mels=20, source_length=32, align=True, noise=0.1,
    )  # fmt: skip
    decoder = mg.ModelConfig(
        **BOTH | {"vocab_size": 259, "num_layers": 2}, segment_length=8, window_size=32,
        features=mg.FramesConfig(num_mels=20),
    )  # fmt: skip
    config = written_experiment(data, mg.HeadedConfig(backbone=decoder, head=mg.FramesHeadConfig()))
    training = dataclasses.replace(config.training, steps=300, sequence_length=64, checkpoint_every=300)
    evaluation = dataclasses.replace(config.evaluation, split="test", chunk_length=32)
    config = dataclasses.replace(config, training=training, evaluation=evaluation)
    found = mg.train(config, tmp_path / "run", print_progress=False)["evaluation"]
    assert found["examples"] == 8 and found["finished"] == 1 and found["l1"] < 1.5

    say = mg.pipeline(tmp_path / "run")
    pitches = {}
    for name in ("ann", "bo"):
        for word in ("up", "down"):
            sound = say(word, speaker=name)
            halves = np.array_split(sound["audio"], 2)
            pitches[name, word] = [np.abs(np.fft.rfft(half, 8000)).argmax() for half in halves]
    for name in ("ann", "bo"):
        assert pitches[name, "up"][0] < pitches[name, "up"][1] and pitches[name, "down"][0] > pitches[name, "down"][1]
    assert all(pitches["ann", word][0] < pitches["bo", word][0] for word in ("up", "down"))
