"""Samples from log-mel frames: analysed again, they have these frames; and what is refused."""

import numpy as np
import pytest

from memgpt_jax.data import griffin_lim, log_mel, waveform
from memgpt_jax.data.griffin_lim import spectrum
from memgpt_jax.data.sound import mel_filters

RATE = 8000


def glide():
    """A tone that rises from 300 to 1,500 Hz and its octave, louder and softer, with noise."""
    time = np.arange(RATE * 3 // 10) / RATE
    turns = 300 * time + 2000 * time**2
    sound = np.sin(2 * np.pi * turns) + 0.5 * np.sin(4 * np.pi * turns)
    noise = np.random.default_rng(0).normal(size=time.shape)
    return (np.hanning(len(time)) * (1.2 + np.sin(30 * time)) * (sound + 0.05 * noise)).astype(np.float32)


def test_the_samples_have_the_frames(monkeypatch):
    frames = log_mel(glide(), RATE, 40)
    samples = waveform(frames, RATE)
    assert samples.dtype == np.float32 and len(samples) == 80 * len(frames)
    again = log_mel(samples, RATE, 40)
    assert np.abs(again - frames).mean() < 0.03  # 0.3 nats
    monkeypatch.setattr(griffin_lim, "ITERATIONS", 0)  # random phases
    assert np.abs(log_mel(waveform(frames, RATE), RATE, 40) - frames).mean() > 0.06


def test_a_tone_comes_back_with_its_frequency():
    tone = 0.3 * np.sin(2 * np.pi * 800 * np.arange(1600) / RATE).astype(np.float32)
    found = np.abs(np.fft.rfft(waveform(log_mel(tone, RATE, 40), RATE)))
    assert abs(found.argmax() * RATE / 1600 - 800) < 50


def test_the_spectrum_is_positive_and_has_the_bands():
    filters = mel_filters(RATE, 40, 200)
    bands = np.exp(np.random.default_rng(0).normal(size=(3, 101))) @ filters
    found = spectrum(bands, filters)
    assert (found >= 0).all()
    np.testing.assert_allclose(found @ filters, bands, rtol=0.02)


@pytest.mark.parametrize("frames", [np.zeros((1, 40)), np.full((3, 40), 10.0), np.full((3, 40), -1e6)])
def test_samples_of_short_loud_and_silent_frames_are_finite(frames):
    samples = waveform(frames, RATE)
    assert samples.shape == (80 * len(frames),) and np.isfinite(samples).all()
    assert np.any(samples) == (frames[0, 0] >= 0)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros(4), r"frames must be \[T, M\] with T, M >= 1, got \[4\]"),
        (np.zeros((0, 4)), r"got \[0, 4\]"),
        (np.full((2, 4), np.nan), "NaN or infinite"),
        (np.full((2, 4), 100.0), r"a frame has 100\.0, which is too loud: at most 10"),
    ],
)
def test_bad_frames_are_refused(frames, message):
    with pytest.raises(ValueError, match=message):
        waveform(frames, RATE)
