"""Voice activity: frames in, frames with their probability of speech out (Silero v6 through whisper.cpp).

A gate stands before the detector: what is no louder than the room has been is not speech and costs next to
nothing. When something louder comes, the detector first hears the last frames, so that its memory is warm.

The threshold need not follow the noise: in 90 to 110 s each of rain, sea, helicopter, chainsaw, fire and
clock of ESC-10, and in two minutes of a kitchen, no frame reached 0.5, and hardly one 0.35. What is taken for
speech are voices, and those of dogs.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame, ScoredFrame
from edgevoice.levels import QUIETEST, sound_power
from edgevoice.native import VoiceDetector

_LOUDER: Final = 10**0.6
"""6 dB, in power: how far above the quietest moments of the room a frame opens the gate. Frames of steady
noise are within 3 dB of them; speech that never is louder than this is not understood anyway."""

_RISE: Final = 10 ** (0.1 * FRAME_SAMPLES / SAMPLE_RATE_HZ)
"""1 dB a second, in power: how fast the room may become louder. After a fan of 20 dB is switched on, the gate
stays open for 14 s; a long sentence lifts the room by less than speech moves."""

_OPEN_FRAMES: Final = 32
"""How long the gate stays open after the last loud frame: a second, longer than the pauses in a sentence."""

_WARM_FRAMES: Final = 10
"""What the detector hears again when the gate opens: 0.3 s, as long as the pre-roll."""

_POSSIBLE: Final = 0.1
"""A probability from which on the gate stays open as for a loud frame: the detector may hear more."""


class Vad:
    """Scores frames one by one; the detector's memory runs along the stream."""

    def __init__(self) -> None:
        self._detector = VoiceDetector()
        self._begin()

    def _begin(self) -> None:
        self._room = np.inf  # power of its quietest moments
        self._open_frames = _OPEN_FRAMES  # what the room is like is not known yet
        self._missed: deque[Frame] = deque(maxlen=_WARM_FRAMES)

    def score(self, frame: Frame) -> ScoredFrame:
        """Return the frame with its probability of speech, 0 while the gate is closed."""
        power = sound_power(frame.samples)
        self._room = max(QUIETEST, min(self._room * _RISE, power))
        if power > self._room * _LOUDER:
            self._open_frames = _OPEN_FRAMES
        if self._open_frames == 0:
            self._missed.append(frame)
            return ScoredFrame(frame, 0.0)
        while self._missed:
            self._detector.process(self._missed.popleft().samples)
        probability = self._detector.process(frame.samples)
        self._open_frames = _OPEN_FRAMES if probability > _POSSIBLE else self._open_frames - 1
        return ScoredFrame(frame, probability)

    def reset(self) -> None:
        """Forget the stream so far: the next frame begins another."""
        self._detector.reset()
        self._begin()

    def close(self) -> None:
        """Release the detector."""
        self._detector.close()
