"""Advice on a microphone is what somebody would say who looks at its levels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgevoice.audio import frames
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame, Samples, ScoredFrame
from edgevoice.levels import SILENCE_DBFS, Levels, dbfs
from edgevoice.vad import Vad

GOOD = Levels(room_dbfs=-60, speech_dbfs=-25, peak_dbfs=-9)


def scored(samples: Samples) -> list[ScoredFrame]:
    vad = Vad()
    try:
        return [vad.score(frame) for frame in frames([samples])]
    finally:
        vad.close()


def test_levels_of_a_recording(speech: Samples) -> None:
    """Speech far above the room; half as loud is 6 dB less, everywhere."""
    quiet_room = np.random.default_rng(1).standard_normal(SAMPLE_RATE_HZ).astype(np.float32) * 1e-4
    whole = np.concatenate([quiet_room, speech])
    measured, halved = Levels.of(scored(whole)), Levels.of(scored(whole * np.float32(0.5)))
    assert measured.speech_dbfs is not None
    assert halved.speech_dbfs is not None
    assert measured.room_dbfs == pytest.approx(-80, abs=2)
    assert -40 < measured.speech_dbfs < measured.peak_dbfs < 0
    assert halved.speech_dbfs - measured.speech_dbfs == pytest.approx(-6.02, abs=0.2)
    assert halved.peak_dbfs - measured.peak_dbfs == pytest.approx(-6.02, abs=0.01)
    assert measured.advice() == "good"


def test_levels_of_silence() -> None:
    """Nothing is infinite."""
    zeros = [ScoredFrame(Frame(np.zeros(FRAME_SAMPLES, np.float32), 0), 0.0)]
    assert Levels.of(zeros) == Levels(SILENCE_DBFS, None, SILENCE_DBFS)
    assert dbfs(1.0) == 0
    with pytest.raises(ValueError, match="no frames"):
        Levels.of([])


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        (GOOD, "good"),
        (replace(GOOD, peak_dbfs=-95), "no sound at all"),
        (replace(GOOD, speech_dbfs=None), "no speech"),
        (replace(GOOD, peak_dbfs=-0.5), "too loud"),
        (replace(GOOD, speech_dbfs=-50, peak_dbfs=-30), "too quiet"),
        (replace(GOOD, room_dbfs=-35), "nearly as loud"),
    ],
)
def test_advice(levels: Levels, words: str) -> None:
    """One thing at a time, the worst first."""
    assert words in levels.advice()
