"""The spectrogram is the one Whisper was trained on, and no column of it depends on when it was computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevoice.mel import BINS, LogMel, Spectrogram
from tests.examples import examples

if TYPE_CHECKING:
    from edgevoice.events import Samples
    from edgevoice.native import Model, Session

RATE_HZ = 16_000
MAX_SAMPLES = 3 * RATE_HZ
N_COLUMNS = 512
"""More than so many samples have."""

TOLERANCE = 1e-4
"""Of a scale on which what is heard spans 2. What whisper.cpp computes, in single precision, too, differs by
up to 3e-5 from what double precision gives, this by less than 1e-5."""


def noise(n_samples: int, level: float = 0.1) -> Samples:
    return (np.random.default_rng(3).standard_normal(n_samples) * level).astype(np.float32)


def whispers(samples: Samples, filters: Spectrogram, n_columns: int) -> Spectrogram:
    """OpenAI's log_mel_spectrogram() in double precision, with whisper.cpp's silence after the samples."""
    heard = np.concatenate([samples, np.zeros(30 * RATE_HZ)]).astype(np.float64)
    padded = np.pad(heard, 200, mode="reflect")
    window = np.hanning(401)[:-1]
    frames = np.stack([padded[160 * i : 160 * i + 400] * window for i in range(n_columns)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    columns = np.log10(np.maximum(power @ filters.T.astype(np.float64), 1e-10))
    normalised: Spectrogram = ((np.maximum(columns, columns.max() - 8) + 4) / 4).T.astype(np.float32)
    return normalised


def test_filters_are_those_of_the_model(model: Model) -> None:
    """Eighty bands; each hears something, no frequency is heard in more than two."""
    assert model.mel_filters.shape == (model.info.n_mels, BINS) == (80, 201)
    assert (model.mel_filters >= 0).all()
    assert (model.mel_filters > 0).any(axis=1).all()
    assert (model.mel_filters > 0).sum(axis=0).max() == 2


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(noise(MAX_SAMPLES), id="noise"),
        pytest.param(noise(RATE_HZ, 100), id="far beyond full scale"),
        pytest.param(np.zeros(RATE_HZ, np.float32), id="silence"),
        pytest.param(np.full(RATE_HZ, 1e-42, np.float32), id="denormal"),
        pytest.param(np.full(RATE_HZ, 0.5, np.float32), id="direct current"),
        pytest.param(np.sin(np.arange(RATE_HZ) * 0.3).astype(np.float32), id="tone"),
        *(pytest.param(noise(n), id=f"{n} samples") for n in (1, 2, 159, 200, 201, 400, 2560, 2600, 2601)),
    ],
)
def test_is_whispers(model: Model, samples: Samples) -> None:
    """Within what single precision can do it is the spectrogram of the definition."""
    seen = LogMel(model.mel_filters)(samples, N_COLUMNS)
    assert seen.dtype == np.float32
    assert seen.flags.c_contiguous
    assert np.abs(seen - whispers(samples, model.mel_filters, N_COLUMNS)).max() < TOLERANCE


def test_of_speech_is_whispers(model: Model, speech: Samples) -> None:
    """Likewise, where loud and quiet are close together."""
    seen = LogMel(model.mel_filters)(speech, N_COLUMNS)
    assert np.abs(seen - whispers(speech, model.mel_filters, N_COLUMNS)).max() < TOLERANCE


def test_overflow_is_not_finite_and_is_forgotten(model: Model) -> None:
    """A level at the limit of float32 leaves nothing behind, not even a warning."""
    log_mel = LogMel(model.mel_filters)
    assert not np.isfinite(log_mel(np.full(RATE_HZ, 3e38, np.float32), N_COLUMNS)).all()
    assert np.isfinite(log_mel(noise(RATE_HZ), N_COLUMNS)).all()


@settings(max_examples=examples(100), deadline=None, derandomize=True)
@given(
    cuts=st.lists(
        st.tuples(
            st.integers(1, MAX_SAMPLES) | st.integers(0, 17).map(lambda blocks: 2560 * blocks + 40),
            st.none() | st.integers(0, MAX_SAMPLES - 1),
        ),
        min_size=2,
        max_size=5,
    )
)
def test_reuse_changes_nothing(model: Model, cuts: list[tuple[int, int | None]]) -> None:
    """Longer, shorter, changed anywhere: bit for bit, it is as if nothing had been computed before."""
    log_mel = LogMel(model.mel_filters)
    samples = noise(MAX_SAMPLES)
    for length, changed in cuts:
        if changed is not None:
            samples[changed] += 0.5
        heard = samples[: max(1, length)].copy()
        seen = log_mel(heard, N_COLUMNS)
        assert seen.tobytes() == LogMel(model.mel_filters)(heard, N_COLUMNS).tobytes()


def test_what_was_computed_is_kept(model: Model) -> None:
    """When speech goes on, only the last block of columns and what is new are computed."""
    log_mel = LogMel(model.mel_filters)
    samples = noise(MAX_SAMPLES)
    log_mel(samples[: 2 * RATE_HZ], N_COLUMNS)
    log_mel._columns[:] += 1  # so that they are known again
    seen = log_mel._update(samples)
    fresh = LogMel(model.mel_filters)._update(samples)
    kept = (seen != fresh).all(axis=1)
    assert kept[:192].all()  # 12 blocks of 16; 2 s are 12.5
    assert not kept[192:].any()


def test_samples_that_change_later_do_not_matter(model: Model) -> None:
    """What is remembered is a copy: the array of the caller may be used again."""
    log_mel = LogMel(model.mel_filters)
    samples = noise(RATE_HZ)
    log_mel(samples, N_COLUMNS)
    samples[:] = noise(RATE_HZ, 1.0)
    assert log_mel(samples, N_COLUMNS).tobytes() == LogMel(model.mel_filters)(samples, N_COLUMNS).tobytes()


def test_recognition_does_not_depend_on_reuse(session: Session, speech: Samples) -> None:
    """The engine says the same of a command whether or not it has heard its beginning before."""
    alone = session.recognise(speech)
    session.recognise(noise(RATE_HZ))
    session.recognise(speech[: len(speech) // 2].copy())
    again = session.recognise(speech)
    assert [(found.text, found.score) for found in again.hypotheses] == [
        (found.text, found.score) for found in alone.hypotheses
    ]
