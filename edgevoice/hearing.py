"""Hearing: the audio of one request in, what to recognise out; the way of pipeline.py without its thread.

    Samples -> frames -> vad -> endpoint -> Utterance

Whoever sends has decided that this is meant for us, and when it is over.
"""

from __future__ import annotations

import numpy as np

from edgevoice.endpoint import Endpointer, EndpointOptions
from edgevoice.events import FRAME_SAMPLES, Frame, Samples, Utterance
from edgevoice.vad import Vad


class Hearing:
    """One request. Its methods may be called from several threads, one after the other."""

    def __init__(self, options: EndpointOptions) -> None:
        self._vad = Vad()
        self._endpointer = Endpointer(options)
        self._rest: Samples = np.empty(0, np.float32)
        self.length_samples = 0
        """How much was heard."""

    @property
    def paused(self) -> bool:
        """Whether what was handed out as a pause is still all that was said."""
        return self._endpointer.paused

    def push(self, samples: Samples) -> list[Utterance]:
        """Take what comes next, and return what has paused or ended with it, at most one pause: the last."""
        rest = np.concatenate([self._rest, samples])
        whole = len(rest) - len(rest) % FRAME_SAMPLES
        self._rest = rest[whole:]
        found: list[Utterance] = []
        for first in range(0, whole, FRAME_SAMPLES):
            frame = Frame(rest[first : first + FRAME_SAMPLES], self.length_samples)
            self.length_samples += FRAME_SAMPLES
            utterance = self._endpointer.push(self._vad.score(frame))
            if utterance is not None:
                found.append(utterance)
        pauses = [each for each in found if each.end_reason == "pause"]
        return [each for each in found if each.end_reason != "pause" or (self.paused and each is pauses[-1])]

    def finish(self, samples: Samples) -> list[Utterance]:
        """Take the last samples, and return what has ended."""
        padding = -(len(self._rest) + len(samples)) % FRAME_SAMPLES
        found = self.push(np.concatenate([samples, np.zeros(padding, np.float32)]))
        last = self._endpointer.finish()
        return [each for each in [*found, last] if each is not None and each.end_reason != "pause"]

    def close(self) -> None:
        """Release the detector; may be called twice."""
        self._vad.close()
