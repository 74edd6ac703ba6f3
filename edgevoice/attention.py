"""Attention: whether what is heard now is meant for us.

    set/playing, set/listen ──> Attention ──> Gate, in the listener's thread ──> dropped, or addressed to us

Time here is the stream's own: seconds of audio heard. So a recording has the same results at any speed, and
whatever was announced ends by itself as long as anything is heard.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Literal, Protocol

from edgevoice.events import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgevoice.endpoint import Endpointer
    from edgevoice.events import Frame

DECAY_S: Final = 0.3
"""Of a room: in one where sound falls by 60 dB within 0.6 s, as in a bare living room, it has fallen by 30.
Longer, and the first word of who answers at once is lost."""

MAX_PLAYING_S: Final = 60.0
"""A sound of which no end is told ends here: a spoken reply is shorter, and after a lost message nobody wants
to speak in vain for longer. Music, which is longer, is a reason to mute."""

MAX_LISTEN_S: Final = 60.0
"""Who has asked to be heard and says nothing for so long has gone."""


Whose = Literal["house", "hermes", "feedback"]
"""Whose sound plays: the end of one is not that of another."""


class Attention:
    """What others tell: that a sound of ours is playing, and that somebody wants to be heard; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._now_s = 0.0
        self._playing_until_s: dict[Whose, float] = {}
        self._window: tuple[float, float] | None = None
        self._waits = False  # as was told
        self.only_asked = False
        """Whether nothing is meant for us unless listen() asked for it, whatever the gate lets in."""
        self.on_waits: Callable[[bool], None] = lambda _: None
        """Told that the window is open, and that it is not any more; must not wait, nor call this."""

    def begin(self) -> None:
        """Begin a stream, at its moment 0; what was announced goes on."""
        with self._lock:
            passed_s, self._now_s = self._now_s, 0.0
            for whose in self._playing_until_s:
                self._playing_until_s[whose] -= passed_s
            if self._window is not None:
                opened_s, closes_s = self._window
                self._window = (opened_s - passed_s, closes_s - passed_s)
            self._tell()

    def play(self, duration_s: float = MAX_PLAYING_S, whose: Whose = "house") -> None:
        """Say that a sound of ours plays from now on, for so long at the most."""
        with self._lock:
            self._playing_until_s[whose] = self._now_s + min(duration_s, MAX_PLAYING_S) + DECAY_S

    def stop(self, whose: Whose = "house") -> None:
        """Say that it does not play any more."""
        with self._lock:
            until_s = self._playing_until_s.get(whose, 0.0)
            self._playing_until_s[whose] = min(until_s, self._now_s + DECAY_S)

    def listen(self, duration_s: float, since_s: float | None = None) -> None:
        """Open the window for one utterance, from now on or since a moment of the stream; 0 closes it."""
        with self._lock:
            opened_s = self._now_s if since_s is None else since_s
            self._window = (opened_s, opened_s + min(duration_s, MAX_LISTEN_S)) if duration_s > 0 else None
            self._tell()

    def hears(self, start_s: float) -> bool:
        """Whether sound from this moment of the stream on is not our own; time goes on to it."""
        with self._lock:
            self._now_s = start_s
            self._tell()
            return start_s >= max(self._playing_until_s.values(), default=0.0)

    def take(self, speech_start_s: float, speech_end_s: float) -> bool:
        """Whether speech falls into the window, which it closes: it began there, or was under way."""
        with self._lock:
            if self._window is None:
                return False
            opened_s, closes_s = self._window
            taken = speech_start_s <= closes_s and speech_end_s > opened_s
            if taken or self._now_s > closes_s:
                self._window = None
            self._tell()
            return taken

    def _tell(self) -> None:
        """Tell whether somebody is waited for, if that has changed; call with the lock held."""
        # Past its end it is kept for what began in it, but nobody who begins now is heard.
        waits = self._window is not None and self._now_s <= self._window[1]
        if waits != self._waits:
            self._waits = waits
            self.on_waits(waits)


class Detector(Protocol):
    """Hears a wake word (wake.py)."""

    def reset(self) -> None:
        """Forget what was heard."""

    def hears(self, frame: Frame) -> bool:
        """Whether the wake word ends with the next frame."""


class Gate:
    """Decides for each utterance of a stream whether it is addressed to us.

    Args:
        attention: what others tell.
        detector: listens to what is speech, and its pre-roll; silence costs nothing.
        selective: what is not addressed to us is not even recognised.
        everything: all is addressed to us.
    """

    def __init__(
        self,
        attention: Attention | None = None,
        detector: Detector | None = None,
        *,
        selective: bool = False,
        everything: bool = True,
    ) -> None:
        self._selective = selective
        self._attention = attention or Attention()
        self._attention.begin()
        self._detector = detector
        self._everything = everything
        self._first: Frame | None = None  # of what is being said
        self._detected = 0  # so many frames of it
        self._addressed = False

    @property
    def selective(self) -> bool:
        """Whether what is not addressed to us is not even recognised."""
        return self._selective or self._attention.only_asked

    def hears(self, frame: Frame) -> bool:
        """Whether a frame is not a sound of our own."""
        return self._attention.hears(frame.start_samples / SAMPLE_RATE_HZ)

    def addressed(self, endpointer: Endpointer) -> bool:
        """Whether what is being said is addressed to us, as far as is known after each frame."""
        only_asked = self._attention.only_asked
        if self._everything and not only_asked:
            if endpointer.in_speech:
                self._take(endpointer)  # nobody is waited for any more
            return True
        kept = endpointer.kept
        if not kept:
            self._first = None
            return False
        if kept[0] is not self._first:
            self._first, self._detected, self._addressed = kept[0], 0, False
            if self._detector:
                self._detector.reset()
        if self._addressed:
            return True
        if self._detector and not only_asked:
            self._addressed = any(map(self._detector.hears, kept[self._detected :]))
            self._detected = len(kept)
        if not self._addressed and endpointer.in_speech:
            self._addressed = self._take(endpointer)
        return self._addressed

    def _take(self, endpointer: Endpointer) -> bool:
        return self._attention.take(
            endpointer.speech_start_samples / SAMPLE_RATE_HZ, endpointer.speech_end_samples / SAMPLE_RATE_HZ
        )
