"""A microphone that may come and go: unplugged, busy, asleep, or its sound server started again.

    opening ── a frame ──> delivering ── AudioError ──> lost ── after 0.25 to 1.5 s ──> opening, ...

While it is lost, there are no frames. Afterwards they go on at a later position, by the clock, so whoever
joins frames sees that something is missing.
"""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING, Final, Protocol

from edgevoice.capture import CaptureCounters, FrameSource, clock_s
from edgevoice.errors import AudioError
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgevoice.publish import State

_log = logging.getLogger(__name__)

_RETRY_MIN_S: Final = 0.25
_RETRY_MAX_S: Final = 1.5  # with 0.3 s to open, it works 2 s after it is back; an attempt costs 50 ms of CPU
_SETTLED_S: Final = 10.0  # what worked for so long is tried again soon when it is lost


class LiveSource(FrameSource, Protocol):
    """What a Microphone opens: its frames begin at 0, and AudioError while iterating is its loss."""

    @property
    def counters(self) -> CaptureCounters:
        """What went wrong so far."""

    def discard(self) -> None:
        """Forget what was recorded and not yet taken."""


class Microphone:
    """Frames of a microphone until close(), whatever becomes of it.

    Args:
        open_source: opens it, and is called again after each loss; AudioError if it is not there.
        on_state: told "lost" and "muted", in the iterating thread, when frames cease. That they are back is
            told by the first frame.
        clock: seconds.
        wait: waits so many seconds; by default until close() at the longest.
    """

    def __init__(
        self,
        open_source: Callable[[], LiveSource],
        on_state: Callable[[State], None] = lambda _: None,
        *,
        clock: Callable[[], float] = clock_s,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self.live = True
        self.beats = 0
        """Counts frames, also while muted, and attempts to open it: signs of life of the iterating thread."""
        self._open_source = open_source
        self._on_state = on_state
        self._clock = clock
        self._closed = False
        self._ended = threading.Event()  # it is closed, or rests
        self._wait = wait or self._ended.wait
        self._source: LiveSource | None = None
        self._past = CaptureCounters()  # of sources that are no more
        self._muted = False
        self._begin_s = clock()
        self._end_samples = 0
        self._failure: str | None = None
        self._told: set[str] = set()  # failures in the log; forgotten when it has worked for a while
        self._news = False  # whether a reason was told since it was told to work
        self._told_lost = False  # whether the last line of the log says so
        self._found_s: float | None = None  # when it was found, until it has worked for a while

    @property
    def counters(self) -> CaptureCounters:
        """What went wrong so far."""
        source, past = self._source, self._past
        return past if source is None else past + source.counters

    @property
    def failure(self) -> str | None:
        """Why it is lost; None while it is not."""
        return self._failure

    @property
    def muted(self) -> bool:
        """Whether what is heard is dropped, also what still waits to be taken; may be set from any thread."""
        return self._muted

    @muted.setter
    def muted(self, muted: bool) -> None:
        source = self._source
        if self._muted and not muted and source is not None:
            source.discard()
        self._muted = muted

    def __iter__(self) -> Iterator[Frame]:
        retry_s = _RETRY_MIN_S
        if self._failure is not None:  # since before it rested
            self._on_state("lost")
        while not self._ended.is_set():
            self.beats += 1
            start_s = self._clock()
            try:
                yield from self._frames()
            except AudioError as error:
                self._lose(str(error))
            else:
                return  # closed, or at rest
            finally:
                self._release()
            if self._clock() - start_s > _SETTLED_S:
                retry_s = _RETRY_MIN_S
            self._wait(retry_s * random.uniform(0.75, 1.0))  # noqa: S311 - lest two that want one device keep step
            retry_s = min(2 * retry_s, _RETRY_MAX_S)

    def close(self) -> None:
        """End the iteration and free the device; may be called from another thread."""
        self._closed = True
        self.rest()

    def rest(self) -> None:
        """End the iteration and free the device until resume(); may be called from another thread."""
        self._ended.set()
        source = self._source
        if source is not None:
            source.close()

    def resume(self) -> None:
        """Let it be iterated again, as another stream; after close() nothing."""
        if not self._closed:
            self._ended.clear()

    def _frames(self) -> Iterator[Frame]:
        """Frames from one opening to the next loss, at their place in the whole stream."""
        first_samples = None  # where this opening begins
        told_muted = False
        self._source = self._open_source()
        if self._ended.is_set():  # meanwhile; rest() had nothing to close
            return
        for frame in self._source:
            self.beats += 1
            if first_samples is None:
                first_samples = self._find()
            if self._found_s is not None and self._clock() - self._found_s > _SETTLED_S:
                self._settle()
            start_samples = first_samples + frame.start_samples
            self._end_samples = start_samples + FRAME_SAMPLES
            if self._muted:
                if not told_muted:
                    self._on_state("muted")
                told_muted = True
            else:
                told_muted = False
                yield Frame(frame.samples, start_samples)

    def _find(self) -> int:
        """Note that it delivers, and return the position of its first frame."""
        if self._failure is None:
            return 0
        if self._news:
            self._tell_works()
        self._failure = None
        self._found_s = self._clock()
        elapsed_samples = round((self._clock() - self._begin_s) * SAMPLE_RATE_HZ)
        return max(elapsed_samples, self._end_samples + FRAME_SAMPLES)

    def _settle(self) -> None:
        """Note that it has worked for a while: what comes now is another outage."""
        self._found_s = None
        self._told.clear()
        if self._told_lost:
            self._tell_works()

    def _tell_works(self) -> None:
        self._news = self._told_lost = False
        _log.info("the microphone works again")

    def _lose(self, failure: str) -> None:
        """Note why it is lost, and log each reason once an outage; a loose plug makes one of it."""
        news = failure not in self._told
        # What was told to work again and does not is told, too: the last line says how it is.
        wrong = self._failure is None and not self._told_lost
        _log.log(
            logging.WARNING if news or wrong else logging.DEBUG, "%s; trying again until it works", failure
        )
        self._told.add(failure)
        self._told_lost = self._told_lost or news or wrong
        self._news = self._news or news
        self._found_s = None
        lost = self._failure is None
        self._failure = failure
        if lost:
            self._past += CaptureCounters(losses=1)
            self._on_state("lost")

    def _release(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()
            self._past += source.counters
