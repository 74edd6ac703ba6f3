"""Whether a microphone is set right: scored frames in, levels and advice out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from edgevoice.events import FRAME_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgevoice.events import Samples, ScoredFrame

SILENCE_DBFS: Final = -100.0
"""The lowest level; the smallest sound of 16 bits has -90."""

QUIETEST: Final = 10**-8.0
"""-80 dB, in power: a room is never taken to be quieter, or the noise of 16 bits would be loud in it."""

LOUD_DBFS: Final = -1.0  # above, peaks are cut off
_QUIET_DBFS: Final = -45.0  # speech in the sample recordings has -25; 16 bits leave little below this
_CLEAR_DB: Final = (
    15.0  # of speech above the room; with the loudest moments 12 dB apart, 1 in 100 orders was lost
)
DIGITAL_DBFS: Final = -90.0
_FALL_DB: Final = 1.5  # a frame: the eye sees a peak for half a second
_SPEECH: Final = 0.5
_QUIETER: Final = 10  # percent of the frames; the silence that ends an utterance is more than that
_LOUDER: Final = 90


@dataclass(frozen=True, slots=True)
class Levels:
    """How loud it was, in dB relative to full scale: 0 is the loudest there can be."""

    room_dbfs: float
    """RMS of the quieter frames without speech."""

    speech_dbfs: float | None
    """RMS of the frames with speech; None: nobody spoke."""

    peak_dbfs: float

    @classmethod
    def of(cls, scored: Iterable[ScoredFrame]) -> Levels:
        """Measure some seconds in which somebody spoke, and was silent.

        Raises:
            ValueError: there are no frames.
        """
        frames = list(scored)
        if not frames:
            raise ValueError("no frames")
        power = np.array([float(np.mean(np.square(each.frame.samples, dtype=np.float64))) for each in frames])
        speech = np.array([each.speech_probability >= _SPEECH for each in frames])
        quiet = power[~speech] if (~speech).any() else power
        return cls(
            room_dbfs=dbfs(math.sqrt(float(np.median(quiet)))),
            speech_dbfs=dbfs(math.sqrt(float(power[speech].mean()))) if speech.any() else None,
            peak_dbfs=dbfs(max(float(np.abs(each.frame.samples).max()) for each in frames)),
        )

    def advice(self) -> str:
        """Say what to do, one sentence."""
        if self.peak_dbfs <= DIGITAL_DBFS:
            return "there is no sound at all: is the microphone muted, or is this another device?"
        if self.speech_dbfs is None:
            return "no speech was heard: speak while it listens, and check that this is the right device"
        if self.peak_dbfs >= LOUD_DBFS:
            return "too loud: the peaks are cut off; turn the microphone down"
        if self.speech_dbfs < _QUIET_DBFS:
            return "too quiet: turn the microphone up, or speak closer to it"
        if self.speech_dbfs - self.room_dbfs < _CLEAR_DB:
            return "the room is nearly as loud as the voice: speak closer, or put the microphone elsewhere"
        return "good"


class Meter:
    """What a meter shows, by frame; written to by one thread, and read by others."""

    def __init__(self) -> None:
        self.rms_dbfs = self.peak_dbfs = SILENCE_DBFS

    def push(self, samples: Samples) -> None:
        """Take a frame."""
        self.rms_dbfs = rms_dbfs(samples)
        self.peak_dbfs = max(dbfs(float(np.abs(samples).max())), self.peak_dbfs - _FALL_DB)


def clarity_db(samples: Samples) -> float:
    """Return how far the louder moments of an utterance are above its quieter ones, which are the room's.

    Speech is a few syllables and the pauses around them. 0 for what is shorter than a frame.
    """
    whole = len(samples) // FRAME_SAMPLES * FRAME_SAMPLES
    if whole == 0:
        return 0.0
    power = np.mean(np.square(samples[:whole].reshape(-1, FRAME_SAMPLES), dtype=np.float64), axis=1)
    quiet, loud = (dbfs(math.sqrt(float(each))) for each in np.percentile(power, [_QUIETER, _LOUDER]))
    return loud - quiet


def sound_power(samples: Samples) -> float:
    """Mean square of at least one sample, without what is constant: that is no sound."""
    wide = samples.astype(np.float64)  # whose squares are numbers, whatever the samples are
    return float(np.dot(wide, wide)) / len(wide) - float(wide.mean()) ** 2


def rms_dbfs(samples: Samples) -> float:
    """Level of some audio, at least one sample."""
    # A fifth of the time of np.mean(samples**2), for a frame; it is asked of each.
    return dbfs(math.sqrt(float(np.dot(samples, samples)) / len(samples)))


def dbfs(amplitude: float) -> float:
    """Level of an amplitude; 1 is full scale."""
    return max(SILENCE_DBFS, 20 * math.log10(amplitude)) if amplitude > 0 else SILENCE_DBFS
