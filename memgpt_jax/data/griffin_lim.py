"""The way back from log-mel frames to samples: Griffin-Lim."""

from typing import Any

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.data.sound import HOP_SECONDS, WINDOW_SECONDS, mel_filters

ITERATIONS, MOMENTUM, BAND_ITERATIONS = 60, 0.99, 50
LOUDEST = 10
"""The greatest number of a frame, 320 dB above a full-scale tone: samples of louder frames are not finite."""


def waveform(frames: Any, sample_rate: int = 16000) -> np.ndarray:
    """Samples with given log-mel frames, float32 [T hop], from -1 to 1 unless the frames are too loud.

    The power of each frequency is estimated from that of the bands (`spectrum`), and phases are found by the fast
    Griffin-Lim algorithm (Perraudin et al., "A Fast Griffin-Lim Algorithm", 2013): P projects transforms onto those of
    signals, and c onto those with the given magnitudes:

        t_n = P(c_{n-1});   c_n = c(t_n + 0.99 (t_n - t_{n-1}))

    Args:
        frames: [T, M] in the unit of `log_mel`.
        sample_rate: samples a second.

    Raises:
        ValueError: frames have another shape, or a number that is not finite or above 10.
    """
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    frames = np.asarray(frames, np.float64)
    check(frames.ndim == 2 and frames.size > 0, f"frames must be [T, M] with T, M >= 1, got {list(frames.shape)}")
    check(bool(np.isfinite(frames).all()), "a frame has a number that is NaN or infinite")
    check(frames.max() <= LOUDEST, f"a frame has {frames.max()}, which is too loud: at most {LOUDEST} is possible")
    if len(frames) == 1:  # shorter than the window: silence, 80 dB softer, is added and cut off
        silence = np.full_like(frames, frames.max() - 2)
        return waveform(np.concatenate([frames, silence]), sample_rate)[: round(sample_rate * HOP_SECONDS)]
    window, hop = round(sample_rate * WINDOW_SECONDS), round(sample_rate * HOP_SECONDS)
    magnitude = np.sqrt(spectrum(10.0 ** (4 * frames - 4), mel_filters(sample_rate, frames.shape[1], window))).T
    transform, number = ShortTimeFFT(hann(window, sym=False), hop, sample_rate), hop * len(frames)
    known = slice(-transform.p_min, len(frames) - transform.p_min)  # the slices before and after have no magnitude

    def with_magnitude(c: np.ndarray) -> np.ndarray:
        c = c.copy()
        c[:, known] = magnitude * np.exp(1j * np.angle(c[:, known]))
        return c

    shape = (len(magnitude), transform.p_num(number))
    c, before = np.zeros(shape, complex), np.zeros(shape)
    c[:, known] = magnitude * np.exp(2j * np.pi * np.random.default_rng(0).random(magnitude.shape))
    for _ in range(ITERATIONS):
        t = transform.stft(transform.istft(c, k1=number))
        c, before = with_magnitude(t + MOMENTUM * (t - before)), t
    return transform.istft(c, k1=number).astype(np.float32)


def spectrum(bands: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """A smooth power spectrum p >= 0 [T, K] whose bands p F are near the given ones [T, M].

    Richardson-Lucy iterations from p = s F^T / sum(F): p <- p ((s / (p F)) F^T) / sum(F), which bring p F to s and
    keep p positive. Frequencies in no band have power 0.

    Args:
        bands: s, positive.
        filters: F [K, M].
    """
    total = filters.sum(axis=1)
    weights = filters.T / np.where(total > 0, total, 1.0)[None]
    p = bands @ weights
    for _ in range(BAND_ITERATIONS):
        p *= (bands / np.maximum(p @ filters, 1e-30)) @ weights
    return p
