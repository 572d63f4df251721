"""Sound as arrays: files to samples, samples to log-mel frames, and random changes.

Libraries are imported on first use.
`log_mel` computes with the library of its argument: NumPy for data, JAX inside compiled programs.
"""

import contextlib
import io
from functools import lru_cache
from typing import Any

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.extras import library

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.01
DECIBELS = 40
"""Decibels of 1 in a log-mel frame, (log10(power) + 4) / 4."""


def read_sound(content: bytes, sample_rate: int, *, where: str = "the sound") -> np.ndarray:
    """The samples of a file, float32 [n] from -1 to 1: the mean of its channels, resampled to `sample_rate` by soxr.

    Args:
        content: the bytes of the file.
        sample_rate: samples a second of the result.
        where: name of the file, for messages.

    Raises:
        ValueError: it is not sound, is damaged or empty (MP3 that ends early is not found out), has a sample that is
            not finite, is shorter than a sample at `sample_rate`, or soundfile or soxr, which it needs, is not
            installed.
    """
    soundfile = library("soundfile", "sounds", "senses")
    _check_whole(content, where)
    try:
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except (RuntimeError, OSError) as error:  # soundfile.LibsndfileError is a RuntimeError
        raise ValueError(f"{where}: it is not sound, or it is damaged: {error}") from None
    samples = samples.mean(axis=1)
    check(samples.size > 0, f"{where}: the sound is empty")
    check(bool(np.isfinite(samples).all()), f"{where}: a sample is NaN or infinite")
    return resampled(samples, rate, sample_rate, where=where)


STREAMED = 0x7FFF0000
"""Programs that write WAV to a pipe give at least this size, as they do not know it."""


def _check_whole(content: bytes, where: str) -> None:
    """Raise `ValueError` if a WAV file ends before its samples; libsndfile would return those that are there."""
    place = 12 if content[:4] == b"RIFF" else len(content)
    while place + 8 <= len(content):
        size, there = int.from_bytes(content[place + 4 : place + 8], "little"), len(content) - place - 8
        if content[place : place + 4] == b"data":
            check(
                size <= there or size >= STREAMED,
                f"{where}: the sound is damaged: it has {there} of {size} bytes of samples",
            )
            return
        place += 8 + size + size % 2


def resampled(samples: np.ndarray, rate: int, sample_rate: int, *, where: str = "the sound") -> np.ndarray:
    """Samples of `rate` a second as float32 of `sample_rate` a second.

    Raises `ValueError` if none are left, or soxr is not installed.
    """
    if rate != sample_rate:
        samples = library("soxr", f"sounds of another rate ({rate} Hz)", "senses").resample(samples, rate, sample_rate)
    check(samples.size > 0, f"{where}: the sound is shorter than a sample at {sample_rate} Hz")
    return np.asarray(samples, np.float32)


FULL_SCALE = {"int16": 2**15, "int32": 2**31}
"""What is 1 in samples of whole numbers, as readers of WAV files return them."""


def as_samples(samples: Any) -> Any:
    """Samples as float32 [n] from -1 to 1: int16 and int32 are divided by their full scale.

    Args:
        samples: an array [n] of NumPy or JAX.

    Raises:
        ValueError: they have another shape or type, there are none, or one, with values on the host, is not finite.
    """
    fits = getattr(samples, "ndim", 0) == 1 and samples.shape[0] > 0
    check(fits, f"samples must be floats [n] with n >= 1, got {list(np.shape(samples))}")
    kind = np.dtype(samples.dtype).name
    scale = FULL_SCALE.get(kind, 1)
    check("float" in kind or scale > 1, f"samples must be floats from -1 to 1, int16 or int32, got {kind}")
    with contextlib.suppress(TypeError):  # traced
        check(bool(np.isfinite(np.asarray(samples, np.float32)).all()), "a sample is NaN or infinite")
    xp = samples.__array_namespace__()
    return xp.asarray(samples, dtype=xp.float32) / np.float32(scale)


def hertz_to_mel(frequency: Any) -> np.ndarray:
    """The mel scale of Slaney (1998): f / (200/3) below 1,000 Hz, then 27 bands an octave of 6.4."""
    frequency = np.asarray(frequency, np.float64)
    high = 15 + 27 * np.log(np.maximum(frequency, 1000) / 1000) / np.log(6.4)
    return np.where(frequency < 1000, frequency * 3 / 200, high)


def mel_to_hertz(mel: Any) -> np.ndarray:
    """The inverse of `hertz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((np.maximum(mel, 15) - 15) / 27))


@lru_cache(maxsize=8)
def mel_filters(sample_rate: int, num_mels: int, window: int) -> np.ndarray:
    """Triangles of equal area over the frequencies of a transform of `window` samples: float32 [window // 2 + 1, M].

    Their corners are `num_mels` + 2 frequencies at equal distances in mel, from 0 to half of the sample rate.
    """
    corners = mel_to_hertz(np.linspace(0, hertz_to_mel(sample_rate / 2), num_mels + 2))
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    frequency = np.fft.rfftfreq(window, 1 / sample_rate)[:, None]
    up, down = (frequency - low) / (middle - low), (high - frequency) / (high - middle)
    return (np.maximum(0, np.minimum(up, down)) * 2 / (high - low)).astype(np.float32)


def log_mel(samples: Any, sample_rate: int = 16000, num_mels: int = 80) -> Any:
    """The log-mel frames of Whisper: float32 [T, num_mels], T = 2 ceil(n / (2 hop)).

        p_t = |rfft(hann * x[t hop - window/2 : t hop + window/2])|^2,   window 25 ms, hop 10 ms
        s = log10(max(filters p, 1e-10));   frame = (max(s, max(s) - 8) + 4) / 4

    The end is filled with silence to a whole number of tokens of two frames; both ends are mirrored for the windows.

    Args:
        samples: floats [n], n >= 1, of NumPy or JAX; int16 and int32 are divided by their full scale.
        sample_rate: samples a second.
        num_mels: bands M.

    Raises:
        ValueError: samples have another shape or type, there are none, or one, with values on the host, is not finite.
    """
    samples = as_samples(samples)
    xp = samples.__array_namespace__()
    window, hop = round(sample_rate * WINDOW_SECONDS), round(sample_rate * HOP_SECONDS)
    x = xp.pad(samples, (0, -samples.shape[0] % (2 * hop)))
    places = np.arange(0, x.shape[0], hop)[:, None] + np.arange(window)[None]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    spectrum = xp.fft.rfft(xp.pad(x, (window // 2, window // 2), mode="reflect")[places] * hann[None])
    power = xp.square(spectrum.real) + xp.square(spectrum.imag)
    s = xp.log10(xp.maximum(power.astype(xp.float32) @ mel_filters(sample_rate, num_mels, window), 1e-10))
    return ((xp.maximum(s, s.max() - 8) + 4) / 4).astype(xp.float32)


def changed(
    frames: np.ndarray,
    rng: np.random.Generator,
    *,
    stretch: float = 0,
    warp: float = 0,
    mask: float = 0,
    gain: float = 0,
) -> np.ndarray:
    """Frames [T, M] with another speed and another pitch, by linear interpolation, with gaps, and louder or softer.

    Args:
        frames: log-mel frames.
        rng: of the draws, all uniform.
        stretch: the duration is multiplied by a number from 1 / (1 + stretch) to 1 + stretch (in its logarithm); the
            result is a whole number of tokens of two frames.
        warp: band m becomes band m (1 + w), w from -warp to warp.
        mask: up to this share of consecutive frames, and of consecutive bands, are replaced by the mean of all (Park et
            al., "SpecAugment", 2019).
        gain: the sound is louder by g decibels, g from -gain to gain.
    """
    factor, bend = np.exp(rng.uniform(-1, 1) * np.log1p(stretch)), 1 + rng.uniform(-warp, warp)
    number = 2 * max(1, round(len(frames) * factor / 2))
    frames = stretched(frames, number)
    frames = np.ascontiguousarray(_at(frames.T, np.arange(frames.shape[1]) * bend).T, np.float32)
    mean = frames.mean()
    for lines in (frames, frames.T) if mask else ():
        size = rng.integers(int(mask * len(lines)) + 1)
        first = rng.integers(len(lines) - size + 1)
        lines[first : first + size] = mean
    return frames + np.float32(rng.uniform(-gain, gain) / DECIBELS) if gain else frames


def stretched(frames: np.ndarray, number: int) -> np.ndarray:
    """The frames [T, M] at `number` equal distances from the first to the last, by linear interpolation."""
    return _at(frames, np.linspace(0, len(frames) - 1, number))


def _at(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The rows at fractional places, which are clipped to the first and the last."""
    places = np.clip(places, 0, len(rows) - 1)
    low = np.floor(places).astype(int)
    part = (places - low)[:, None].astype(rows.dtype)
    return rows[low] * (1 - part) + rows[np.minimum(low + 1, len(rows) - 1)] * part
