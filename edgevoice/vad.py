"""Voice activity: frames in, frames with their probability of speech out (Silero v6 through whisper.cpp)."""

from __future__ import annotations

from edgevoice.events import Frame, ScoredFrame
from edgevoice.native import VoiceDetector


class Vad:
    """Scores frames one by one; the detector's memory runs along the stream."""

    def __init__(self) -> None:
        self._detector = VoiceDetector()

    def score(self, frame: Frame) -> ScoredFrame:
        """Return the frame with its probability of speech."""
        return ScoredFrame(frame, self._detector.process(frame.samples))

    def reset(self) -> None:
        """Forget the stream so far: the next frame begins another."""
        self._detector.reset()

    def close(self) -> None:
        """Release the detector."""
        self._detector.close()
