"""A trial: what is said next is told to who tries it out, and is no command to the house.

    page ──> Trials.begin() ── what is said into the microphone of the house ──> its result ──> page
    a browser that speaks to try (floor.Talk with `trial`) ──> its results ──> that browser

What somebody had begun to say before is a command like any other, and so is what begins after its time.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgevoice.errors import UsageError
from edgevoice.floor import Talk

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgevoice.capture import FrameSource
    from edgevoice.events import Result

TRIAL_S: Final = 15.0
"""To begin to speak, after the button was pushed."""

_EARLIER_S: Final = 0.2  # the detector's look back, and what two clocks differ


@dataclass(frozen=True, slots=True)
class _Trial:
    began_s: float
    until_s: float
    tell: Callable[[Result], None]


class Trials:
    """Keeps what is tried out apart from what is meant; thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.source: FrameSource | None = None
        """What is listened to now."""
        self._clock = clock
        self._lock = threading.Lock()  # guards the next
        self._trial: _Trial | None = None

    def begin(self, tell: Callable[[Result], None], duration_s: float = TRIAL_S) -> object:
        """Have what is said next told to one only, in the pipeline's thread; return what end() takes.

        Raises:
            UsageError: somebody else tries something out.
        """
        with self._lock:
            now_s = self._clock()
            if self._trial is not None:
                raise UsageError("somebody else tries a sentence out; wait until they have done")
            self._trial = _Trial(now_s, now_s + duration_s, tell)
            return self._trial

    def end(self, trial: object) -> None:
        """Let what is said be meant again, if this trial is still on."""
        with self._lock:
            if self._trial is trial:
                self._trial = None

    def covers(self, latency_ms: float | None, start_s: float, end_s: float) -> bool:
        """Whether something that was said just now is tried out, in the pipeline's thread.

        Args:
            latency_ms: since its end; None: it is not heard as it happens, and counts as begun now.
            start_s: where it began in the stream,
            end_s: and ended.
        """
        if isinstance(self.source, Talk):
            return self.source.trial
        with self._lock:
            trial = self._trial
        if trial is None:
            return False
        began_s = self._clock()
        if latency_ms is not None:
            began_s -= latency_ms / 1000 + end_s - start_s
        return trial.began_s - _EARLIER_S <= began_s <= trial.until_s

    def take(self, result: Result) -> bool:
        """Return whether a result is of a trial, which is over with it; who tries was told."""
        if not self.covers(result.latency_ms, result.start_s, result.end_s):
            return False
        if not isinstance(self.source, Talk):
            with self._lock:
                trial, self._trial = self._trial, None
            if trial is not None:
                trial.tell(result)
        return True

    def mark(self, fields: dict[str, Any]) -> None:
        """Say in a record that what it is of was no command."""
        result = fields["result"]
        if self.covers(result["latency_ms"], result["start_s"], result["end_s"]):
            fields["trial"] = True
