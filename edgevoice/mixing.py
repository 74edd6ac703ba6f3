"""Noise and rooms for measuring: pure functions of samples, and the generator that chooses among them.

The rule for noise is that of a published benchmark of coffee orders, so that figures compare: see mix().
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from edgevoice.events import Samples

_FRAME_SAMPLES: Final = 2048  # the benchmark's
_PEAK: Final = 0.5  # the benchmark's
_ATTEMPTS: Final = 100  # a recording of noise that is silent this often has too little of it


def generator(seed: int, condition: str, name: str) -> np.random.Generator:
    """Return the source of the choices made for one recording under one condition."""
    digest = hashlib.sha256(json.dumps([seed, condition, name]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def max_frame(samples: Samples) -> float:
    """Return the largest sum of squares over frames of 2048 samples, the last one padded with zeros."""
    squares = np.zeros(-(-len(samples) // _FRAME_SAMPLES) * _FRAME_SAMPLES)
    squares[: len(samples)] = np.square(samples, dtype=np.float64)
    return float(squares.reshape(-1, _FRAME_SAMPLES).sum(axis=1).max(initial=0.0))


def noise_piece(noise: Samples, length_samples: int, choice: np.random.Generator) -> Samples:
    """Cut a piece of noise at a random place; noise that is shorter starts anywhere and is repeated.

    A piece of digital silence, which no factor makes as loud as speech, is drawn again.

    Raises:
        ValueError: the noise is silent.
    """
    last = len(noise) - length_samples
    for _ in range(_ATTEMPTS):
        start = int(choice.integers(last + 1 if last >= 0 else max(len(noise), 1)))
        piece = np.take(noise, np.arange(start, start + length_samples), mode="wrap") if len(noise) else noise
        if max_frame(piece) > 0:
            return piece
    raise ValueError("the noise is silent")


def mix(speech: Samples, noise: Samples, snr_db: float) -> Samples:
    """Add noise to speech, which is as long, and bring the sum to a peak of 0.5.

    The noise is scaled by sqrt(max_frame(speech) / (max_frame(noise) * 10^(snr_db / 10))): the ratio holds
    between the loudest moments of both.
    """
    scale = np.sqrt(max_frame(speech) / (max_frame(noise) * 10 ** (snr_db / 10)))
    mixed = speech.astype(np.float64) + scale * noise
    peak = np.abs(mixed).max(initial=0.0)
    normal: Samples = (mixed * (_PEAK / peak) if peak > 0 else mixed).astype(np.float32)
    return normal


def far_field(speech: Samples, response: Samples) -> Samples:
    """Return speech as it sounds across a room, as long, as loud (RMS) and with the direct sound in place.

    Args:
        speech: recorded close to the mouth.
        response: the room's impulse response; its highest peak is taken for the direct sound.
    """
    from scipy.signal import fftconvolve  # noqa: PLC0415 - of the extra `eval`, which the rest does without

    direct = int(np.argmax(np.abs(response)))
    wet = fftconvolve(speech.astype(np.float64), response.astype(np.float64))[direct : direct + len(speech)]
    power = float(np.mean(np.square(wet)))
    if power > 0:
        wet *= np.sqrt(float(np.mean(np.square(speech, dtype=np.float64))) / power)
    peak = float(np.abs(wet).max(initial=0.0))
    heard: Samples = (wet / max(peak, 1.0)).astype(np.float32)  # a room may add up to more than 1
    return heard
