"""The spectrogram is the one Whisper was trained on, and keeping what is known of it changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.mel import BINS, LogMel, Spectrogram

if TYPE_CHECKING:
    from edgevoice.events import Samples
    from edgevoice.native import Model
    from tests.conftest import Sample

RATE = SAMPLE_RATE_HZ
FILTERS = np.random.default_rng(5).random((4, BINS), np.float32)


def columns(samples: Samples) -> int:
    """As many as the engine asks for: the audio and some silence after it."""
    return len(samples) // 160 + 128


def by_definition(samples: Samples, filters: npt.NDArray[np.float32], n_columns: int) -> Spectrogram:
    """What whisper/audio.py of OpenAI does: centred windows, reflected at the start; silence after the end.

    https://github.com/openai/whisper/blob/main/whisper/audio.py
    """
    audio = np.zeros(n_columns * 160 + 400)
    audio[: len(samples)] = samples
    audio = np.concatenate([audio[200:0:-1], audio])
    window = np.hanning(401)[:-1]
    frames = np.stack([audio[160 * i : 160 * i + 400] * window for i in range(n_columns)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    logarithm = np.log10(np.maximum(filters.astype(np.float64) @ power.T, 1e-10))
    found: Spectrogram = ((np.maximum(logarithm, logarithm.max() - 8) + 4) / 4).astype(np.float32)
    return found


def noise(n_samples: int, seed: int = 0) -> Samples:
    return (0.1 * np.random.default_rng(seed).standard_normal(n_samples)).astype(np.float32)


@pytest.mark.parametrize("n_samples", [1, 159, 160, 199, 200, 201, 400, 16_000, 28 * 16_000])
@pytest.mark.parametrize("kind", ["noise", "silence", "offset", "loud"])
def test_definition(model: Model, n_samples: int, kind: str) -> None:
    """Every column, for audio of any length and kind, with the filters of a real model."""
    samples = {
        "noise": noise(n_samples),
        "silence": np.zeros(n_samples, np.float32),
        "offset": np.full(n_samples, 0.1, np.float32),
        "loud": 1000 * noise(n_samples),
    }[kind]
    n_columns = columns(samples)
    found = LogMel(model.mel_filters)(samples, n_columns)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert found.shape == (80, n_columns)
    # The quietest are sums of what cancels out in float32.
    np.testing.assert_allclose(found, by_definition(samples, model.mel_filters, n_columns), atol=2e-3)


def test_speech(model: Model, samples: tuple[Sample, ...]) -> None:
    """Of real audio they are closer."""
    for sample in samples[:5]:
        audio = sample.read()
        found = LogMel(model.mel_filters)(audio, columns(audio))
        expected = by_definition(audio, model.mel_filters, columns(audio))
        np.testing.assert_allclose(found, expected, atol=1e-4)


lengths = st.integers(1, 3 * RATE)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(lengths=st.lists(lengths, min_size=1, max_size=5), changed=st.none() | lengths)
def test_what_is_kept_is_what_would_be_computed(lengths: list[int], changed: int | None) -> None:
    """Bit for bit: however audio grows, shrinks, or changes in one sample."""
    kept = LogMel(FILTERS)
    samples = noise(3 * RATE)
    for number, length in enumerate(lengths):
        if number == 1 and changed is not None:
            samples = samples.copy()
            samples[changed - 1] += 0.5
        piece = samples[:length]
        anew = LogMel(FILTERS)(piece, columns(piece))
        assert np.array_equal(kept(piece, columns(piece)), anew)


def test_silence_at_the_end_is_the_floor() -> None:
    """Columns after the audio are what whisper.cpp's padding of 30 s gives."""
    found = LogMel(FILTERS)(noise(RATE), 300)
    assert (found[:, 110:] == found.min()).all()
    assert found.max() - found.min() <= 2  # 8 powers of ten, of four each


def test_audio_too_loud_for_numbers() -> None:
    """It has no warning here; the engine refuses what is not finite."""
    loud = np.full(RATE, 3e38, np.float32)
    assert not np.isfinite(LogMel(FILTERS)(loud, 200)).all()
