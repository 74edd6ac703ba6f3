"""Who has the floor: the microphone of the house, and in between whoever speaks into a browser.

    the house's microphone ──> rests while ──> Talk, the sound of one browser ──> the house's microphone, ...

Each is a source like any other, and the pipeline takes one after the other. So what is said into a browser is
heard, recognised, recorded and published as everything is.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Final

import numpy as np

from edgevoice.attention import MAX_LISTEN_S
from edgevoice.audio import Converter, frames
from edgevoice.errors import ProtocolError, UsageError
from edgevoice.microphone import Microphone

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from edgevoice.capture import FrameSource
    from edgevoice.events import Frame, Result, Samples

MAX_TALK_S: Final = MAX_LISTEN_S
"""Of sound in one go: who forgets to let go of the button is not listened to for ever."""

MAX_AHEAD_S: Final = 5.0
"""Of sound that waits to be taken: the house's microphone needs a second or two to come to rest."""


class Talk:
    """The sound that one browser sends, as frames; and what became of it, for who has spoken.

    Args:
        rate_hz: of its samples, signed 16-bit little-endian mono.
        on_begin: told in the pipeline's thread that from now on all that was sent is heard.
        on_result: told there what became of something that was said.
        on_end: told there that nothing more comes.
        trial: what is said is tried out, and no command to anybody.

    Raises:
        AudioFormatError: the rate is out of range.
    """

    def __init__(
        self,
        rate_hz: int,
        on_begin: Callable[[], None] = lambda: None,
        on_result: Callable[[Result], None] = lambda _: None,
        on_end: Callable[[], None] = lambda: None,
        *,
        trial: bool = False,
    ) -> None:
        self.live = True
        self.trial = trial
        self.on_result = on_result
        self.on_end = on_end
        self._on_begin = on_begin
        self._rate_hz = rate_hz
        self._converter = Converter(rate_hz, 1, source="the browser's microphone")
        self._queue: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # an empty one is the end
        self._lock = threading.Lock()  # guards the next
        self._waiting_bytes = 0
        self._taken_bytes = 0

    def push(self, data: bytes) -> None:
        """Take what comes next, in any thread.

        Raises:
            ProtocolError: it is no samples, too much, or more than can wait.
        """
        if not data or len(data) % 2:
            raise ProtocolError(f"{len(data)} bytes are no samples; send signed 16-bit little-endian mono")
        second = 2 * self._rate_hz
        if self._taken_bytes + len(data) > MAX_TALK_S * second:
            raise ProtocolError(f"{MAX_TALK_S:g} s were heard; push the button again for more")
        with self._lock:
            if self._waiting_bytes + len(data) > MAX_AHEAD_S * second:
                raise ProtocolError(f"more than {MAX_AHEAD_S:g} s of sound wait; send it as it is spoken")
            self._waiting_bytes += len(data)
        self._taken_bytes += len(data)
        self._queue.put(data)

    def __iter__(self) -> Iterator[Frame]:
        self._on_begin()
        return frames(self._blocks())

    def close(self) -> None:
        """End with what was sent so far; may be called from any thread, and twice."""
        self._queue.put(b"")

    def _blocks(self) -> Iterator[Samples]:
        while data := self._queue.get():
            with self._lock:
                self._waiting_bytes -= len(data)
            yield self._converter.convert(np.frombuffer(data, "<i2").astype(np.int16))
        yield self._converter.finish()


class Floor:
    """Gives the floor to one after the other; thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards what follows
        self._talk: Talk | None = None
        self._house: Microphone | None = None
        self._free = False

    def take(self, talk: Talk) -> None:
        """Have a browser heard as soon as what listens now has come to rest.

        Raises:
            UsageError: another one speaks, or recordings are played.
        """
        with self._changed:
            if self._talk is not None:
                raise UsageError("somebody else speaks here; wait until they have done")
            if not self._free:
                raise UsageError("nothing is listening yet, or recordings are played; try again")
            self._talk = talk
            if self._house is not None:
                self._house.rest()
            self._changed.notify_all()

    def turns(self, sources: Iterable[FrameSource] | None) -> Generator[FrameSource]:
        """Yield what is to be listened to, each until it ends; whoever takes the next has done with it.

        Args:
            sources: of the house; only a microphone makes room for others. None: there are none, and this
                never ends.
        """
        if sources is None:
            yield from self._between(None)
            return
        for source in sources:
            if isinstance(source, Microphone):
                yield from self._between(source)
            else:
                yield source

    def _between(self, house: Microphone | None) -> Generator[FrameSource]:
        try:
            while True:
                with self._changed:
                    self._free = True
                    if house is None:
                        self._changed.wait_for(lambda: self._talk is not None)
                    talk = self._talk
                    if talk is None and house is not None:
                        house.resume()
                        self._house = house
                if talk is not None:
                    yield talk
                elif house is not None:
                    yield house
                with self._changed:
                    self._house = None
                    if talk is None and self._talk is None:  # it has ended by itself
                        return
                    if talk is not None:
                        self._talk = None
                if talk is not None:
                    talk.on_end()
        finally:
            with self._changed:
                self._free, self._house = False, None
            if house is not None:
                house.close()
