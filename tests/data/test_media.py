"""Files of pictures and sounds: splits by hand, what is read and what is refused; log-mel frames against loops."""

import dataclasses
import io
import json
import struct
import tarfile
import zipfile
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.config.experiment import TrainingConfig
from memgpt_jax.data import batch_shapes, make_task, pictures, sound
from memgpt_jax.data.tasks import PicturesConfig, SoundsConfig
from tests.laws.real_data import DATA

Image = pytest.importorskip("PIL.Image", reason="the extra `senses` is not installed")
soundfile = pytest.importorskip("soundfile", reason="the extra `senses` is not installed")
pytest.importorskip("soxr", reason="the extra `senses` is not installed")
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


def png(image, name="PNG", **options):
    with io.BytesIO() as file:
        image.save(file, name, **options)
        return file.getvalue()


def wav(samples, rate=16000, **options):
    with io.BytesIO() as file:
        soundfile.write(file, samples, rate, format="WAV", **options)
        return file.getvalue()


def written(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def files():
    """Six pictures of each colour, by one of two painters."""
    return {
        f"{name}/{number}_{'ab'[number % 2]}.png": png(Image.new("RGB", (8, 8), (*colour[:2], colour[2] - number % 3)))
        for name, colour in (("blue", (0, 0, 255)), ("red", (255, 9, 9)))
        for number in range(6)
    }


def names_of(config):
    splits = {split: make_task(config, split).examples for split in ("train", "valid", "test")}
    return {split: [(example.text, example.label) for example in found] for split, found in splits.items()}


def test_splits_by_hand(tmp_path, files):
    sizes = {"height": 8, "width": 8}
    config = PicturesConfig(path=str(written(tmp_path / "folder", files)), test_last=2, valid_every=4, **sizes)
    found = names_of(config)
    assert found["test"] == [("4_a.png", 0), ("5_b.png", 0), ("4_a.png", 1), ("5_b.png", 1)]
    assert found["valid"] == [("3_b.png", 0), ("3_b.png", 1)]
    assert found["train"] == [(f"{name}.png", label) for label in (0, 1) for name in ("0_a", "1_b", "2_a")]

    archive = tmp_path / "files.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "folder", "top")
    assert names_of(PicturesConfig(path=str(archive), test_last=2, valid_every=4, **sizes)) == found
    with zipfile.ZipFile(tmp_path / "files.zip", "w") as target:
        for name, content in files.items():
            target.writestr(name, content)
    assert names_of(PicturesConfig(path=str(tmp_path / "files.zip"), test_last=2, valid_every=4, **sizes)) == found

    pattern = r"(?P<label>[a-z]+)/\d_(?P<group>.)"
    groups = {"test_groups": ("b",), "valid_every": 3}
    by_group = names_of(PicturesConfig(path=str(archive), pattern=pattern, **groups, **sizes))
    assert [name for name, _ in by_group["test"]] == ["1_b.png", "3_b.png", "5_b.png"] * 2
    assert by_group["valid"] == [("4_a.png", 0), ("4_a.png", 1)]
    table = tmp_path / "folder" / "table.jsonl"
    rows = [{"path": name, "label": name.split("/")[0], "group": name[-5]} for name in sorted(files)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = PicturesConfig(path=str(table), group_column="group", **groups, **sizes)
    assert [len(found) for found in names_of(named).values()] == [len(found) for found in by_group.values()]


def test_a_file_is_in_one_split_and_read_once(tmp_path, files):
    """Of members of an archive with the same name, the last counts; rows of a table follow the first of their file."""
    archive = tmp_path / "files.tar"
    with tarfile.open(archive, "w") as tar:
        for name, content in [*files.items(), ("red/0_a.png", files["blue/0_a.png"])]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    sizes = {"height": 8, "width": 8}
    task = make_task(PicturesConfig(path=str(archive), **sizes), "train")
    assert len(task.examples) == 11 and (task.decoded[6][0, 0] == [0, 0, 255]).all()  # the 10th of 12 is in `valid`

    written(tmp_path, files)
    names = [*files] + [f"red/../{name}" for name in files]
    table = tmp_path / "table.csv"

    def named(rows, **options):
        table.write_text("path,label,group\n" + "".join(f"{','.join(row)}\n" for row in rows))
        return PicturesConfig(path=str(table), **options, **sizes)

    rows = [(name, name.split("/")[-2], "x") for name in names]
    splits = names_of(named(rows, valid_every=3, test_last=2))
    seen = [{*found} for found in splits.values()]
    assert [len(found) for found in splits.values()] == [12, 4, 8] and sum(map(len, seen)) == len(
        set.union(*seen)
    ) == 12
    for column, noun in ((1, "labels"), (2, "groups")):
        other = [*rows[-1]]
        other[column] = "blue" if column == 1 else "y"
        with pytest.raises(ValueError, match=rf"table.csv, line 25 .*: the file has other {noun} than in .*, line 13"):
            make_task(named([*rows[:-1], other], group_column="group"), "train")


def test_batches_of_pictures(tmp_path, files):
    config = PicturesConfig(path=str(written(tmp_path, files)), height=8, width=8, class_token=True, valid_every=3)
    task, length = make_task(config, "train"), config.row_length
    batch = task.batch(0, 3, length)
    assert length == 5 and batch.inputs["tokens"].tolist() == [[1, 0, 0, 0, 0]] * 3
    assert batch.weights["labels"].tolist() == [[0, 0, 0, 0, 1]] * 3
    red = batch.targets["labels"][:, -1] == 1
    assert (
        not batch.inputs["features"][:, 0].any()
        and (batch.inputs["features"][:, 1:, 0] > 0).all(axis=1).tolist() == red.tolist()
    )
    shapes = [
        {name: (array.shape, array.dtype) for part in found for name, array in part.items()}
        for found in (batch, batch_shapes(config, TrainingConfig(batch_size=3)))
    ]
    assert shapes[0] == shapes[1]


def test_random_changes_are_seeded_and_of_training_alone(tmp_path, files):
    x = np.random.default_rng(0).integers(256, size=(8, 8, 3)).astype(np.uint8)
    content = {**files, "red/6_a.png": png(Image.fromarray(x))}
    path = str(written(tmp_path, content))
    config = PicturesConfig(path=path, height=8, width=8, patch_size=8, flip=True, shift=2, valid_every=2)
    task, valid = make_task(config, "train"), make_task(config, "valid")
    same, again, other = (next(iter(task.batches(seed, 4, 1))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(same.inputs["features"], again.inputs["features"])
    assert (same.inputs["features"] != other.inputs["features"]).any() and not valid.augments
    seen = {pictures.changed(x, np.random.default_rng(seed), flip=True, shift=1).tobytes() for seed in range(200)}
    shifted = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    views = [shifted[y : y + 8, z : z + 8] for y in range(3) for z in range(3)]
    mirrored = np.pad(x[:, ::-1], ((1, 1), (1, 1), (0, 0)), mode="reflect")
    views += [mirrored[y : y + 8, z : z + 8] for y in range(3) for z in range(3)]
    assert seen == {view.tobytes() for view in views}


def test_an_erased_square_and_another_light():
    x = np.random.default_rng(0).integers(20, 200, size=(8, 6, 3)).astype(np.uint8)
    mean, places = x.mean(axis=(0, 1)).round(), set()
    for seed in range(100):
        changed = pictures.changed(x, np.random.default_rng(seed), erase=3)
        erased = (changed != x).any(axis=2)
        np.testing.assert_array_equal(changed[erased], np.broadcast_to(mean, (erased.sum(), 3)))
        rows, columns = np.flatnonzero(erased.any(axis=1)), np.flatnonzero(erased.any(axis=0))
        assert len(rows) in (2, 3) and len(columns) in (2, 3)  # a centre at the border leaves two
        places.add((rows[0], columns[0]))
    assert len(places) > 30
    for seed in range(20):
        contrast, brightness = np.random.default_rng(seed).uniform(0.7, 1.3, size=2)
        expected = np.clip(contrast * (x - x.mean()) + brightness * x.mean(), 0, 255).round()
        np.testing.assert_array_equal(pictures.changed(x, np.random.default_rng(seed), light=0.3), expected)


def deep_png(kind, numbers):
    """A grey picture of 2 x 2 pixels of the colour type, with 16 bits a number."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = 2 * (b"\0" + np.full(2 * numbers, 0x12F0, ">u2").tobytes())
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_pictures_of_every_kind():
    def read(image, *size, **options):
        return pictures.read_picture(png(image), *(size or (2, 2)), **options)

    assert read(Image.new("RGB", (1, 1), (1, 2, 3))).tolist() == [[[1, 2, 3]] * 2] * 2  # 1 x 1 is resized
    assert read(Image.new("L", (2, 2), 7)).tolist() == [[[7, 7, 7]] * 2] * 2
    assert read(Image.new("RGB", (2, 2), (7, 7, 7)), channels=1).tolist() == [[[7], [7]]] * 2
    assert read(Image.new("RGBA", (2, 2), (0, 0, 0, 0))).min() == 255  # transparent: white
    assert read(Image.new("RGBA", (2, 2), (10, 20, 30, 255)))[0, 0].tolist() == [10, 20, 30]
    palette = Image.new("RGB", (2, 2), (255, 0, 0)).quantize(2)
    assert read(palette)[0, 0].tolist() == [255, 0, 0]
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    half = Image.fromarray(np.array([[[0] * 3], [[255] * 3]], np.uint8))
    assert pictures.read_picture(png(half, exif=turned), 2, 1)[:, 0, 0].tolist() == [255, 0]
    with pytest.raises(ValueError, match=r"x\.png: pixels of mode 'I;16'"):
        pictures.read_picture(png(Image.fromarray(np.zeros((2, 2), np.uint16))), 2, 2, where="x.png")
    for kind, numbers in ((2, 3), (4, 2), (6, 4)):  # Pillow reads them as 8 bits: RGB, RGBA, RGBA
        with pytest.raises(ValueError, match=r"x\.png: it has 16 bits a channel, at most 8 are read"):
            pictures.read_picture(deep_png(kind, numbers), 2, 2, where="x.png")
    for content in (b"", b"text", png(Image.new("RGB", (64, 64)))[:60]):
        with pytest.raises(ValueError, match=r"x\.png: it is not a picture, or it is damaged"):
            pictures.read_picture(content, 2, 2, where="x.png")
    with pytest.raises(ValueError, match="0 x 4 pixels has no whole patches"):
        pictures.patches(np.zeros((0, 4, 3)), 4)


def test_sounds_of_every_kind():
    time = np.arange(8000) / 8000
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    found = sound.read_sound(wav(np.stack([tone, 0 * tone], axis=1), 8000), 8000)  # two channels
    np.testing.assert_allclose(found, tone / 2, atol=1e-4)
    resampled = sound.read_sound(wav(tone, 8000), 16000)
    assert resampled.shape == (16000,) and resampled.dtype == np.float32
    np.testing.assert_allclose(resampled[4000:12000:2], tone[2000:6000], atol=1e-3)
    for content, message in (
        (wav(np.zeros(0)), "the sound is empty"),
        (wav(np.array([0.0, np.nan]), subtype="FLOAT"), "a sample is NaN or infinite"),
        (b"RIFF", "it is not sound, or it is damaged"),
        (wav(tone, 8000)[:9000], "the sound is damaged: it has 8956 of 16000 bytes of samples"),
    ):
        with pytest.raises(ValueError, match=f"x.wav: {message}"):
            sound.read_sound(content, 16000, where="x.wav")
    with pytest.raises(ValueError, match=r"x\.wav: the sound is shorter than a sample at 1000 Hz"):
        sound.read_sound(wav(np.ones(1), 48000), 1000, where="x.wav")
    for samples in (np.zeros(0, np.float32), np.zeros((2, 3), np.float32)):
        with pytest.raises(ValueError, match=r"samples must be floats \[n\]"):
            sound.log_mel(samples)


def test_centred_and_scaled_frames_do_not_know_how_loud_a_voice_is():
    rng = np.random.default_rng(0)
    voice = (rng.normal(size=4000) * np.sin(np.arange(4000) / 400)).astype(np.float32) / 8
    config = SoundsConfig(path="sounds", sample_rate=8000, num_mels=10, center=True, scale=True)
    found = config.log_mel(voice)
    plain = sound.log_mel(voice, 8000, 10)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(
        found, (plain - plain.mean(axis=0)) / (2 * plain.std(axis=0) + 0.1), rtol=1e-4, atol=1e-5
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(config.log_mel(voice / 4), found, atol=1e-3)
    with pytest.raises(ValueError, match=r"data\.scale=True needs data\.center=True"):
        dataclasses.replace(config, center=False)


def test_samples_of_whole_numbers_have_their_full_scale():
    """As readers of WAV files return them, in any order of bytes."""
    tone = (0.5 * np.sin(np.arange(800))).astype(np.float32)
    expected = sound.log_mel(tone)
    for kind, scale in (("int16", 2**15), (">i2", 2**15), ("int32", 2**31)):
        whole = np.round(tone.astype(np.float64) * scale).astype(kind)
        np.testing.assert_allclose(sound.log_mel(whole), expected, atol=1e-2)
    np.testing.assert_allclose(sound.log_mel(jnp.asarray(whole)), expected, atol=1e-2)
    np.testing.assert_allclose(jax.jit(sound.log_mel)(tone), expected, atol=1e-3)
    for kind in (np.int64, np.uint8, bool, np.complex64):
        with pytest.raises(
            ValueError, match=f"samples must be floats from -1 to 1, int16 or int32, got {kind.__name__}"
        ):
            sound.log_mel(tone.astype(kind))
    for samples in (np.array([0.0, np.nan]), jnp.array([jnp.inf])):
        with pytest.raises(ValueError, match="a sample is NaN or infinite"):
            sound.log_mel(samples)


def log_mel_by_loops(samples, rate, bands):
    """Whisper's frames, one window and one band at a time, from the formulas of its paper and of librosa."""
    window, hop = rate // 40, rate // 100
    samples = np.concatenate([samples, np.zeros(-len(samples) % (2 * hop))])
    padded = np.pad(samples, window // 2, mode="reflect")
    low, high = 0.0, 15 + 27 * np.log(rate / 2 / 1000) / np.log(6.4)  # mel
    mels = np.linspace(low, high, bands + 2)
    hertz = [m * 200 / 3 if m < 15 else 1000 * np.exp(np.log(6.4) / 27 * (m - 15)) for m in mels]
    rows = []
    for start in range(0, len(samples), hop):
        cut = padded[start : start + window] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window))
        turns = np.exp(-2j * np.pi * np.outer(np.arange(window // 2 + 1), np.arange(window)) / window)
        power = np.abs(turns @ cut) ** 2
        row = []
        for left, middle, right in zip(hertz, hertz[1:], hertz[2:], strict=False):
            total = 0.0
            for k, p in enumerate(power):
                f = k * rate / window
                height = min((f - left) / (middle - left), (right - f) / (right - middle))
                total += max(0.0, height) * 2 / (right - left) * p
            row.append(np.log10(max(total, 1e-10)))
        rows.append(row)
    rows = np.array(rows)
    return (np.maximum(rows, rows.max() - 8) + 4) / 4


@pytest.mark.parametrize(("rate", "number"), [(8000, 700), (16000, 1), (16000, 320)])
def test_log_mel_equals_loops_in_both_libraries(rate, number):
    samples = np.random.default_rng(number).normal(size=number).astype(np.float32) / 4
    expected = log_mel_by_loops(samples.astype(np.float64), rate, 16)
    found = sound.log_mel(samples, rate, 16)
    assert found.dtype == np.float32 and len(found) % 2 == 0
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(sound.log_mel(jnp.asarray(samples), rate, 16), expected, atol=2e-5)


def test_the_mel_scale():
    assert sound.hertz_to_mel([0, 500, 1000, 6400]).tolist() == pytest.approx([0, 7.5, 15, 42])
    hertz = np.linspace(0, 8000, 50)
    np.testing.assert_allclose(sound.mel_to_hertz(sound.hertz_to_mel(hertz)), hertz, atol=1e-9)
    # transformers.audio_utils.mel_filter_bank(201, 80, 0, 8000, 16000, norm="slaney", mel_scale="slaney"), some values
    bank = sound.mel_filters(16000, 80, 400)
    found, expected = bank[[1, 10, 100, 150, 199], [0, 10, 61, 72, 79]], (0.024862594, 0.019908219, 0.000335886)
    np.testing.assert_allclose(found, (*expected, 0.002193423, 0.000448759), rtol=1e-5)


def test_changed_frames_have_another_speed_and_pitch():
    frames = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    still = sound.changed(frames, np.random.default_rng(0), stretch=0, warp=0)
    np.testing.assert_allclose(still, frames, atol=1e-6)
    found = [sound.changed(frames, np.random.default_rng(seed), stretch=0.5, warp=0.2) for seed in range(40)]
    lengths = {len(x) for x in found}
    assert min(lengths) < 32 and max(lengths) > 50 and all(26 <= n <= 60 and n % 2 == 0 for n in lengths)
    gaps = [sound.changed(frames, np.random.default_rng(seed), mask=0.5) == frames.mean() for seed in range(60)]
    for axis, most in ((0, 8), (1, 20)):
        sizes = {int(gap.all(axis=axis).sum()) for gap in gaps}
        assert 0 in sizes and max(sizes) <= most and len(sizes) > most // 2
    louder = [sound.changed(frames, np.random.default_rng(seed), gain=20) - frames for seed in range(40)]
    assert all(np.ptp(change) < 1e-5 for change in louder)  # equal in all frames
    steps = [change.mean() for change in louder]
    assert -0.5 < min(steps) < -0.3 and 0.3 < max(steps) < 0.5  # 20 dB are 2 in log10(power)
    np.testing.assert_array_equal(found[3], sound.changed(frames, np.random.default_rng(3), stretch=0.5, warp=0.2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "data.path must name a folder"),
        ({"path": "nowhere"}, "data.path: there is no file or folder 'nowhere'"),
        ({"path": "FOLDER", "pattern": "x/y"}, r"needs a group '\(\?P<label>"),
        ({"path": "FOLDER", "pattern": "("}, "is not a regular expression"),
        ({"path": "FOLDER", "pattern": r"(?P<label>\d\d\d)"}, "does not fit the path 'blue/0_a.png'"),
        ({"path": "FOLDER", "test_groups": ("z",)}, "there is no group 'z'"),
        ({"path": "FOLDER", "labels": ("blue",)}, "the label 'red' is not one of the 1 labels"),
        ({"path": "FOLDER", "labels": ("blue", "blue")}, "data.labels must be distinct"),
        ({"path": "FOLDER", "height": 30}, "height=30 must be a multiple of patch_size=4"),
        ({"path": "FOLDER", "shift": 32}, "data.shift=32 must be below"),
        ({"path": "FOLDER", "light": 1.0}, r"data.light must be in \[0, 1\), got 1.0"),
        ({"path": "FOLDER", "erase": -1}, "erase must be at least 0"),
        ({"path": "FOLDER", "channels": 2}, "data.channels must be 1 or 3"),
    ],
)
def test_bad_settings_are_refused(tmp_path, files, options, message):
    if options.get("path") == "FOLDER":
        options["path"] = str(written(tmp_path, files))
    with pytest.raises(ValueError, match=message):
        make_task(PicturesConfig(**options), "train").batch(0, 2, 64)


def test_an_archive_of_the_current_folder_is_read(tmp_path, files):
    """As `tar czf all.tar.gz -C FOLDER .` names its members."""
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        archive.add(written(tmp_path / "files", files), ".")
    folder, packed = (make_task(PicturesConfig(path=str(tmp_path / name)), "train") for name in ("files", "all.tar.gz"))
    assert folder.content == packed.content and packed.examples


def test_sounds_that_are_cut_and_labels_that_are_absent_are_warned_of(tmp_path, caplog):
    files = {
        f"{name}/{number}.wav": wav(np.ones(size)) for number in range(4) for name, size in (("a", 640), ("b", 999))
    }
    config = SoundsConfig(path=str(written(tmp_path, files)), num_mels=4, valid_every=2)
    task = make_task(config, "train")
    task.batch(0, 2, 4)
    assert "4 of 4 sounds" not in caplog.text and "sounds have more than" not in caplog.text
    task.batch(0, 2, 3)
    assert "2 of 4 sounds have more than the 3 tokens of a row, at most 4, and are cut in training" in caplog.text
    for _ in range(2):
        make_task(SoundsConfig(path=config.path, num_mels=4, valid_every=8, labels=("a", "b")), "valid")
    assert caplog.text.count("split valid has no example of 1 labels: a") == 1


def test_a_damaged_file_is_named(tmp_path, files):
    path = str(written(tmp_path, {**files, "red/7_a.png": b"no picture"}))
    with pytest.raises(ValueError, match=r"red/7_a\.png: it is not a picture"):
        make_task(PicturesConfig(path=path), "train")


REAL = DATA / "audio" / "fsdd_4speakers.tar.gz"


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not there: MEMGPT_DATA names the folder of real data")
def test_real_digits_of_a_speaker():
    pattern = r"(?P<label>\d)_(?P<group>[a-z]+)_\d+\.wav$"
    config = SoundsConfig(path=str(REAL), pattern=pattern, test_groups=("theo",), sample_rate=8000, num_mels=8)
    test = make_task(config, "test")
    assert len(test.examples) == 500 and {example.label for example in test.examples} == {*range(10)}
    assert {example.text.split("_")[1] for example in test.examples} == {"theo"}
