"""A wake word in the sound that a Wyoming client sends, for satellites without a detector of their own.

detect, audio-start, audio-chunk ... ──> detection, each time it was said
audio-stop ──> not-detected, if it never was
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Final

from wyoming.wake import Detection, NotDetected

from edgevoice.attention import Gate
from edgevoice.audio import Framer
from edgevoice.endpoint import Endpointer, EndpointOptions
from edgevoice.errors import ProtocolError
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.vad import Vad
from edgevoice.wake import WakeWord
from edgevoice.wyoming_events import AudioFormat, Decoder

if TYPE_CHECKING:
    from wyoming.event import Event


def check_wanted(event: Event, model: str) -> None:
    """Check that a `detect` asks for the wake word that can be listened for.

    Raises:
        ProtocolError: it does not.
    """
    names = event.data.get("names")
    if not isinstance(names, list | None) or (names and model not in names):
        raise ProtocolError(f"detect: names is {str(names)[:60]!r}; only {model} is listened for")


class Watch:
    """Listens to one stream, however long it is; in one thread at a time.

    Silence costs next to nothing: the model hears only what the voice detector takes for speech, as in
    attention.py.

    Args:
        audio: how it is sent.
        model: of the wake word.
        options: when speech begins and ends.
        context: what the client wants back with each answer.

    Raises:
        ConfigError: the model cannot be used.
        ProtocolError: a rate out of range.
    """

    cut: Final = False
    """Unlike a command, it is never answered before its end."""

    def __init__(
        self, audio: AudioFormat, model: str, options: EndpointOptions, context: dict[str, Any] | None
    ) -> None:
        self.audio = audio
        self.begin_s = time.monotonic()
        self.heard_s = 0.0
        """How much of it has come; counted by who pushes."""
        self._model = model
        self._context = context
        self.decoder = Decoder(audio)
        self._framer = Framer()
        self._endpointer = Endpointer(options)
        self._said = self._ever = False
        with ExitStack() as stack:
            self._vad = stack.enter_context(closing(Vad()))
            word = stack.enter_context(closing(WakeWord(model)))
            self._gate = Gate(detector=word, selective=True, everything=False)
            self._open = stack.pop_all()

    def push(self, payload: bytes) -> list[Event]:
        """Take what comes next, and return what the client is told."""
        found: list[Event] = []
        for frame in self._framer.push(self.decoder.decode(payload)):
            self._endpointer.push(self._vad.score(frame))
            said = self._gate.addressed(self._endpointer)
            if said and not self._said:
                timestamp_ms = 1000 * frame.start_samples // SAMPLE_RATE_HZ
                found.append(Detection(self._model, timestamp_ms, context=self._context).event())
                self._ever = True
            self._said = said
        return found

    def finish(self) -> list[Event]:
        """Return what the client is told at the end."""
        return [] if self._ever else [NotDetected(self._context).event()]

    def close(self) -> None:
        """Release the models; may be called twice."""
        self._open.close()
