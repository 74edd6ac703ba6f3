"""A gate before the detector saves its work in silence, and takes nothing away from speech."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgevoice.audio import frames, read_audio
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.native import VoiceDetector
from edgevoice.vad import Vad

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgevoice.events import Samples
    from tests.conftest import Sample

RATE = SAMPLE_RATE_HZ
SPEECH = 0.5


@pytest.fixture
def vad() -> Iterator[Vad]:
    opened = Vad()
    yield opened
    opened.close()


def room(seconds: float, dbfs: float = -60.0, seed: int = 0) -> Samples:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (noise * 10 ** (dbfs / 20)).astype(np.float32)


def scores(vad: Vad, samples: Samples) -> list[float]:
    return [vad.score(frame).speech_probability for frame in frames([samples])]


def ungated(samples: Samples) -> list[float]:
    with VoiceDetector() as detector:
        return [detector.process(frame.samples) for frame in frames([samples])]


def closed(found: list[float]) -> float:
    """Share of frames that the detector was not asked about: it never says exactly 0."""
    return sum(each == 0.0 for each in found) / len(found)


@pytest.mark.parametrize("offset", [0.0, 0.1])
@pytest.mark.parametrize("dbfs", [-90.0, -60.0, -30.0])
def test_silence_is_not_scored(vad: Vad, dbfs: float, offset: float) -> None:
    """However loud the hiss of the room is, and whatever the zero of its microphone."""
    found = scores(vad, room(20, dbfs) + np.float32(offset))
    assert all(each > 0 for each in found[:30])  # it does not know the room yet
    assert closed(found) > 0.9
    assert max(found) < SPEECH


def test_digital_silence_is_not_scored(vad: Vad) -> None:
    """Nor is a microphone that is switched off."""
    assert closed(scores(vad, np.zeros(10 * RATE, np.float32))) > 0.8


def test_speech_after_silence(vad: Vad, samples: tuple[Sample, ...]) -> None:
    """What is said after long silence is found where the detector alone finds it."""
    for sample in [sample for sample in samples if sample.accepted][:6]:
        stream = np.concatenate([room(10), read_audio(sample.path), room(10, seed=1)])
        stream = stream + room(len(stream) / RATE, seed=2)[: len(stream)]
        vad.reset()
        gated = np.flatnonzero(np.array(scores(vad, stream)) >= SPEECH)
        alone = np.flatnonzero(np.array(ungated(stream)) >= SPEECH)
        assert len(alone)
        assert abs(int(gated[0]) - int(alone[0])) <= 2, sample.path
        assert abs(int(gated[-1]) - int(alone[-1])) <= 2, sample.path
        assert len(set(gated) ^ set(alone)) <= 6, sample.path


def test_new_noise_is_learned(vad: Vad) -> None:
    """A fan that is switched on opens the gate, and it is closed again when the room is known."""
    before, after = room(10, -60), room(40, -40)
    found = scores(vad, np.concatenate([before, after]))
    per_s = 1 / 0.032
    on = len(before) // 512
    assert closed(found[on - 100 : on]) == 1
    assert closed(found[on + 1 : on + int(10 * per_s)]) == 0
    assert closed(found[on + int(25 * per_s) :]) == 1


def test_reset_forgets_the_room(vad: Vad) -> None:
    """A new stream begins with an open gate, and gets the same scores again."""
    stream = room(5)
    first = scores(vad, stream)
    vad.reset()
    assert scores(vad, stream) == first
