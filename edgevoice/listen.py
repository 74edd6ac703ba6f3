"""Listening: frames in, utterances out, in a thread of its own that does not wait for the engine.

It tells the states "listening", "speech" and "recognising"; "lost" and "muted" are told by the source, which
then has no frames.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Self

from edgevoice.attention import Gate
from edgevoice.endpoint import Endpointer
from edgevoice.events import FRAME_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgevoice.endpoint import EndpointOptions
    from edgevoice.events import Frame, ScoredFrame, Utterance
    from edgevoice.publish import State
    from edgevoice.vad import Vad

_log = logging.getLogger(__name__)

_MAX_WAITING: Final = 3
"""Utterances that have ended and wait for the engine. Who has said four more commands does not want the first
any longer."""

_NAP_S: Final = 0.16
"""While all is silent, frames are taken at once, and then, when none is left, none for so long: waking up
costs more than what there is to do. Speech is noticed that much later, and nothing else, since what it began
with is kept."""

_NONE_LEFT_S: Final = 0.002  # a frame that took longer to come was not there; one that is there takes 0.05 ms

_END_S: Final = 0.5  # a live source has a frame every 32 ms; one that has none is left to who closes it


class Listener:
    """The thread, and the desk at which it hands out what it hears.

    Args:
        frames: the stream. Where a frame does not begin at the end of the one before, something is missing:
            what was being said is dropped, and listening begins anew.
        vad: scores them; the listener's own until it is closed.
        options: when speech begins and ends.
        patience_ms: how long a silence waits at the longest for expect(), if pauses are handed out.
        on_resumed: called when what is being recognised is a pause after which speech goes on.
        on_state: told what changes, in the thread of the listener.
        on_scored: told each frame, there, too.
        live: frames come when they come, and an utterance too many is dropped. Otherwise the thread waits
            until all it handed out was recognised, so that the same frames always have the same utterances.
        gate: tells what is meant for us; by default everything.
    """

    def __init__(
        self,
        frames: Iterable[Frame],
        vad: Vad,
        options: EndpointOptions,
        *,
        patience_ms: int,
        on_resumed: Callable[[], None],
        on_state: Callable[[State], None],
        on_scored: Callable[[ScoredFrame], None],
        live: bool,
        gate: Gate | None = None,
    ) -> None:
        self.vad_ms = 0.0
        """Time the detector took for the whole stream."""
        self.length_samples = 0
        """How much was heard."""
        self.busy_since_s: float | None = None
        """When what is being recognised was handed out, by time.monotonic(); None while next() waits."""
        self._frames = frames
        self._vad = vad
        self._options = options
        self._patience_ms = patience_ms
        self._on_resumed = on_resumed
        self._on_state = on_state
        self._on_scored = on_scored
        self._live = live
        self._gate = gate or Gate()
        self._addressed = False  # what is being said
        self._endpointer = Endpointer(options)
        self._utterance_vad_ms = 0.0
        self._speech_end_clock_s = 0.0
        self._changed = threading.Condition()  # guards what follows
        self._ended: deque[Utterance] = deque()
        self._pause: Utterance | None = None  # the newest, while speech has not gone on
        self._taken: Utterance | None = None  # being recognised
        self._state: State | None = None
        self._over = self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="edgevoice-listener", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(_END_S)

    def next(self) -> Utterance | None:
        """Wait for what to recognise next: what has ended, or else a pause. None when the stream is over.

        Who asks has done with the one before.

        Raises:
            AudioError: of the stream, when all before is recognised.
        """
        self.busy_since_s = None
        with self._changed:
            self._taken = None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ended or self._pause or self._over)
            if self._ended:
                self._taken = self._ended.popleft()
            elif self._pause:
                self._taken, self._pause = self._pause, None
            elif self._error:
                raise self._error
            if self._taken is not None:
                self.busy_since_s = time.monotonic()
            return self._taken

    def expect(self, pause: Utterance, silence_ms: int) -> None:
        """Say how long a silence ends what was said up to a pause."""
        with self._changed:
            self._put(self._endpointer.expect(pause, silence_ms))

    # ---- in the thread ----

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._listen()
            with self._changed:
                if not self._closed and (last := self._endpointer.finish()) is not None:
                    self._put(last)
                    self._tell()
        except BaseException as problem:  # noqa: BLE001 - raised again in next()
            error = problem
        with self._changed:
            self._error, self._over = error, True
            self._changed.notify_all()

    def _listen(self) -> None:
        self._vad.reset()
        asked_s = time.monotonic()
        for frame in self._frames:
            none_left = time.monotonic() - asked_s > _NONE_LEFT_S
            with self._changed:
                if self._closed:
                    return
                if not self._gate.hears(frame):
                    self._turn_away()
                    continue
                if frame.start_samples != self.length_samples:
                    self._begin_anew()
            started_s = time.perf_counter()
            scored = self._vad.score(frame)
            spent_ms = (time.perf_counter() - started_s) * 1000
            self._on_scored(scored)
            with self._changed:
                self.length_samples = frame.start_samples + FRAME_SAMPLES
                self.vad_ms += spent_ms
                self._utterance_vad_ms += spent_ms
                utterance = self._endpointer.push(scored)
                if not self._endpointer.silent or utterance is None:  # else it has just ended
                    self._addressed = self._gate.addressed(self._endpointer)
                self._put(utterance)
                if self._endpointer.speech_end_samples == self.length_samples:
                    self._speech_end_clock_s = time.monotonic()
                    self._resume()
                if not self._endpointer.in_speech:
                    self._utterance_vad_ms = 0.0
                self._tell()
                if not self._live:
                    self._changed.wait_for(lambda: self._closed or self._idle)
                elif self._endpointer.silent and none_left:
                    self._changed.wait_for(lambda: self._closed, _NAP_S)
            asked_s = time.monotonic()

    def _turn_away(self) -> None:
        """Do not listen to a sound of our own; what was said before it is answered."""
        if self._endpointer.paused:
            self._put(self._endpointer.finish())
        if not self._endpointer.silent:
            if self._endpointer.in_speech:
                _log.info("a sound of ours begins in the middle of what is said, which is dropped")
            self._start_over()
        self._tell()

    def _begin_anew(self) -> None:
        if self._endpointer.in_speech:
            _log.warning("audio is missing in the middle of what is said, which is dropped")
        self._state = None  # the source may have told another meanwhile
        self._start_over()

    def _start_over(self) -> None:
        self._endpointer = Endpointer(self._options)
        self._vad.reset()
        self._utterance_vad_ms = 0.0
        self._resume()

    def _resume(self) -> None:
        """Take back a pause after which speech goes on, also from who recognises it."""
        self._pause = None
        taken_in_pause = self._taken is not None and self._taken.end_reason == "pause"
        if taken_in_pause and not any(map(self._is_taken_in_its_pause, self._ended)):
            self._on_resumed()

    def _is_taken_in_its_pause(self, ended: Utterance) -> bool:
        """Whether what has ended is being recognised already."""
        return self._taken is not None and self._taken.speech_end_samples == ended.speech_end_samples

    @property
    def _for_us(self) -> bool:
        """Whether anybody wants to know what is being said."""
        return self._addressed or not self._gate.selective

    @property
    def waiting(self) -> int:
        """Utterances that have ended and were not taken."""
        return len(self._ended)

    @property
    def _idle(self) -> bool:
        return not (self._ended or self._pause or self._taken)

    def _put(self, utterance: Utterance | None) -> None:
        """Hand out an utterance."""
        if utterance is None or not self._for_us:
            return
        utterance = replace(
            utterance,
            addressed=self._addressed,
            vad_ms=self._utterance_vad_ms,
            speech_end_clock_s=self._speech_end_clock_s if self._live else None,
        )
        if utterance.end_reason == "pause":
            self._pause = utterance
            self._put(self._endpointer.expect(utterance, self._patience_ms))
        else:
            self._pause = None
            self._ended.append(utterance)
            waiting = [
                i
                for i, each in enumerate(self._ended)
                if each.end_reason != "overload" and not self._is_taken_in_its_pause(each)
            ]
            if self._live and len(waiting) > _MAX_WAITING:
                self._ended[waiting[0]] = replace(self._ended[waiting[0]], end_reason="overload")
        self._changed.notify_all()

    def _tell(self) -> None:
        """Tell the state if it has changed."""
        busy = self._ended or (self._taken is not None and self._taken.end_reason != "pause")
        speech = self._endpointer.in_speech and self._for_us
        state: State = "speech" if speech else "recognising" if busy else "listening"
        if state != self._state:
            self._state = state
            self._on_state(state)
