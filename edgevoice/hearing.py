"""Hearing: the audio of one request in, what to recognise out; the way of pipeline.py without its thread.

    Samples -> frames -> vad -> endpoint -> Utterance

Whoever sends has decided that this is meant for us, and when it is over.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from edgevoice.audio import Framer
from edgevoice.endpoint import Endpointer, EndpointOptions
from edgevoice.vad import Vad

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgevoice.events import Frame, Samples, ScoredFrame, Utterance


class Hearing:
    """One request. Its methods may be called from several threads, one after the other.

    Args:
        options: when speech begins and ends.
        on_scored: told each frame.
    """

    def __init__(
        self, options: EndpointOptions, on_scored: Callable[[ScoredFrame], None] = lambda _: None
    ) -> None:
        self._on_scored = on_scored
        self._vad = Vad()
        self._endpointer = Endpointer(options)
        self._framer = Framer()

    @property
    def length_samples(self) -> int:
        """How much was heard."""
        return self._framer.length_samples

    @property
    def paused(self) -> bool:
        """Whether what was handed out as a pause is still all that was said."""
        return self._endpointer.paused

    def push(self, samples: Samples) -> list[Utterance]:
        """Take what comes next, and return what has paused or ended with it, at most one pause: the last."""
        found = self._hear(self._framer.push(samples))
        pauses = [each for each in found if each.end_reason == "pause"]
        return [each for each in found if each.end_reason != "pause" or (self.paused and each is pauses[-1])]

    def finish(self, samples: Samples) -> list[Utterance]:
        """Take the last samples, and return what has ended."""
        found = self._hear(chain(self._framer.push(samples), self._framer.finish()))
        last = self._endpointer.finish()
        return [each for each in [*found, last] if each is not None and each.end_reason != "pause"]

    def _hear(self, frames: Iterable[Frame]) -> list[Utterance]:
        found: list[Utterance] = []
        for frame in frames:
            scored = self._vad.score(frame)
            self._on_scored(scored)
            if (utterance := self._endpointer.push(scored)) is not None:
                found.append(utterance)
        return found

    def close(self) -> None:
        """Release the detector; may be called twice."""
        self._vad.close()
