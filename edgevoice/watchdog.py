"""Whether the service goes on, and telling systemd so: the thread between the pipeline and notify.py.

    microphone.beats ── the thread that reads sound goes on ──┐
    recogniser.busy_since_s ── no recognition hangs ──────────┼─> stuck() is None ──> WATCHDOG=1
    pipeline.busy_since_s ── nor what follows it ─────────────┤
    wyoming_server.busy_since_s ── nor the Wyoming server ────┘
    state, publisher ──> STATUS=..., and READY=1 with the first that says something of all parts

A microphone that is lost goes on trying, and a broker that is away is connected to again: neither is stuck,
and STATUS says which it is. What hangs is started again by systemd, when it has not heard from us for long
enough; the log says before what it was.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol, Self

from edgevoice.microphone import Microphone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgevoice.capture import FrameSource
    from edgevoice.config import Config
    from edgevoice.notify import Notifier
    from edgevoice.pipeline import Pipeline
    from edgevoice.publish import State
    from edgevoice.recognise import Recogniser

_log = logging.getLogger(__name__)

AUDIO_S: Final = 15.0
"""Between two signs of life of a microphone. The longest there can be are 11 s: 6 to open it on a sound
server that hangs, 3 without data, 0.5 to close it and 1.5 until the next attempt."""

GRACE_S: Final = 5.0
"""For a recognition beyond its own deadline, which it sees between two steps, and may begin with compiling
the part of the grammar that can be said now."""

BROKER_S: Final = 5.0
"""From the start until we are ready without a broker that has not answered yet, the default of
mqtt.connect_timeout_s. Twice its most, once for each MQTT, is more than TimeoutStartSec= of the unit."""

_LOOK_S: Final = 1.0  # between two looks at what does not tell us
_START_LOOK_S: Final = 0.05  # until all is ready, which a service that waits for us wants to know soon


WYOMING_S: Final = 15.0
"""Between two signs of life of the Wyoming server, every two seconds: its loop does nothing long, and
the thread that finds speech has half a second of sound of 16 clients before it at the most."""


class Works(Protocol):
    """Something that is busy at times."""

    @property
    def busy_since_s(self) -> float | None:
        """By time.monotonic(); None while it waits for something to do."""


class Connects(Protocol):
    """The part of a Publisher that is asked."""

    @property
    def connected(self) -> bool:
        """Whether a connection stands."""

    @property
    def failure(self) -> str | None:
        """Why there is no connection, once that is known."""


class Progress:
    """Knows what must go on.

    Args:
        works: what it is called, who is busy with it at times, and for how many seconds at most.
        clock: of their times.
    """

    def __init__(
        self, works: Sequence[tuple[str, Works, float]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._works = works
        self._clock = clock
        self.microphone: Microphone | None = None
        """Whose sound is read; None: recordings, or only what others send, which may not come for days."""
        self._heard: tuple[Microphone | None, int] | None = None
        self._heard_s = 0.0

    def stuck(self) -> str | None:
        """Return what does not go on; None while all does. For one thread."""
        now_s = self._clock()
        microphone = self.microphone
        heard = (microphone, microphone.beats if microphone else 0)
        if heard != self._heard:
            self._heard, self._heard_s = heard, now_s
        if microphone and now_s - self._heard_s > AUDIO_S:
            return f"no sound was read for {now_s - self._heard_s:.0f} s"
        for what, work, most_s in self._works:
            since_s = work.busy_since_s
            if since_s is not None and now_s - since_s > most_s:
                return f"{what} takes {now_s - since_s:.0f} s, and may take {most_s:.0f}"
        return None


def progress(
    config: Config, pipeline: Pipeline, others: Sequence[Recogniser] = (), wyoming: Works | None = None
) -> Progress:
    """Return the progress of a service, in which others may recognise beside its pipeline."""
    most_s = config.recognition.timeout_s + GRACE_S
    # A result needs two recognitions: what was said, and of what is refused what Whisper hears.
    what = "a recognition or its result"
    works: list[tuple[str, Works, float]] = [(what, pipeline, 2 * most_s)]
    works += [(what, each, most_s) for each in (pipeline.recogniser, *others)]
    if wyoming is not None:
        works.append(("a turn of the Wyoming server", wyoming, WYOMING_S))
    return Progress(works)


class Watchdog:
    """The thread that tells systemd how the service is, while a block runs; without systemd it does nothing.

    Args:
        notifier: to systemd.
        progress: of the service.
        publisher: to the broker; None: none is configured.
    """

    def __init__(self, notifier: Notifier, progress: Progress, publisher: Connects | None) -> None:
        self._notifier = notifier
        self._progress = progress
        self._publisher = publisher
        self._source: FrameSource | None = None
        self._state: str | None = None
        self._ready = self._closed = False
        self._reloading = 0  # how often it was asked for and has not ended
        self._reload_lock = threading.RLock()  # guards that; a signal may come in the handler of another
        self._news = threading.Event()
        self._status = ""  # told last
        self._stuck: str | None = None
        self._fed_s = 0.0
        self._begin_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="edgevoice-watchdog", daemon=True)

    def __enter__(self) -> Self:
        if self._notifier.enabled:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Say that the service ends; nothing is said after that."""
        self._closed = True
        self._news.set()
        if self._thread.is_alive():
            self._thread.join()
        self._notifier.stopping()

    def listens(self, source: FrameSource | None) -> None:
        """Take what is listened to from now on; None: only to what others send."""
        self._source = source
        self._progress.microphone = source if isinstance(source, Microphone) else None
        if self._progress.microphone is None:  # it is there; a microphone has to prove that
            self._state = "listening" if source else "serving"
        self._news.set()

    def tell(self, state: State) -> None:
        """Take the state of the engine, in any thread."""
        self._state = state
        self._news.set()

    def reloads(self) -> None:
        """Take that the grammar is about to be read again."""
        with self._reload_lock:
            self._reloading += 1
            if self._ready:
                self._notifier.reloading()

    def reloaded(self) -> None:
        """Take that one of these is done, in whatever way it ended; with the last, it is ready again."""
        with self._reload_lock:
            self._reloading -= 1
            if self._ready and not self._reloading and not self._closed:
                self._notifier.ready(self._describe())

    # ---- in the thread ----

    def _run(self) -> None:
        watchdog_s = self._notifier.watchdog_s
        while not self._closed:
            self._look(watchdog_s)
            look_s = _LOOK_S if self._ready else _START_LOOK_S
            # Half of the time is due at one of four looks, so three quarters pass at the most.
            self._news.wait(min(look_s, watchdog_s / 4) if watchdog_s else look_s)
            self._news.clear()

    def _look(self, watchdog_s: float | None) -> None:
        stuck = self._progress.stuck()
        if stuck and not self._stuck:
            _log.error("%s; systemd is not told any more that all is well", stuck)
        elif self._stuck and not stuck:
            _log.warning("it goes on again")
        self._stuck = stuck
        status = self._describe()
        # What was sent in vain is sent again: without READY=1 systemd ends us.
        if not self._ready and self._known and self._notifier.ready(status):
            self._ready, self._status = True, status
        if status != self._status and self._notifier.status(status):
            self._status = status
        now_s = time.monotonic()
        if watchdog_s and self._ready and not stuck and now_s - self._fed_s >= watchdog_s / 2:
            self._notifier.alive()
            self._fed_s = now_s

    @property
    def _known(self) -> bool:
        """Whether each part works, or is known not to."""
        broker = self._publisher
        return self._state is not None and (
            broker is None
            or broker.connected
            or broker.failure is not None
            or time.monotonic() - self._begin_s > BROKER_S
        )

    def _describe(self) -> str:
        state = self._state or "starting"
        if state == "lost" and isinstance(self._source, Microphone):
            state = f"no microphone: {self._source.failure}"
        parts = [f"stuck: {self._stuck}"] if self._stuck else [state]
        if self._publisher and not self._publisher.connected:
            parts.append(f"no broker: {self._publisher.failure or 'no answer yet'}")
        return "; ".join(parts)
