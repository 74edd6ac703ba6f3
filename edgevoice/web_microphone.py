"""A browser's microphone: the sound of a WebSocket in, what became of it out.

    binary messages: signed 16-bit little-endian mono; an empty one: that was all
    text messages: {"state": "listening"} when what comes is heard, {"result": {...}} for each thing said
    with ?trial=SENTENCE it is no command; beside the result is what was "wanted", and whether it is "right"

It ends with a code: 1000 when all is answered, otherwise one of those below, and the reason in words.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from starlette.websockets import WebSocketDisconnect

from edgevoice.errors import AudioFormatError, ProtocolError, UsageError
from edgevoice.floor import Talk
from edgevoice.publish import result_fields
from edgevoice.web_bench import compare
from edgevoice.web_live import words_of

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from edgevoice.events import Interpretation, Result
    from edgevoice.floor import Floor

# The last digits of those that are ours (4000 to 4999, RFC 6455) are as in HTTP.
DONE: Final = 1000
GOES: Final = 1001
"""The server ends."""

MALFORMED: Final = 4400
IDLE: Final = 4408
TAKEN: Final = 4409
"""Somebody else speaks, or nobody can."""

TOO_MUCH: Final = 4413

MAX_MESSAGE_BYTES: Final = 65_536
"""Of sound in one message: a third of a second at 96 kHz; our page sends 32 ms."""

STALL_S: Final = 3.0
"""Without sound, as of any microphone."""

_MAX_WHY_BYTES: Final = 120  # of the reason of a close, RFC 6455: 123
_MAX_NEWS: Final = 8  # that wait for a browser to read them; who speaks has one at a time
_MAX_DIGITS: Final = 7  # of a sampling rate
_ANSWER_S: Final = 30.0  # until what was said last is answered: two time-outs of a recognition


async def refuse(socket: WebSocket, why: str) -> None:
    """Tell a browser why it is not heard."""
    await socket.accept()
    with suppress(WebSocketDisconnect, RuntimeError):  # it has gone
        await socket.close(TAKEN, why.encode()[:_MAX_WHY_BYTES].decode("utf-8", "ignore"))


async def speak(
    socket: WebSocket,
    floor: Floor | None,
    site: str,
    stopping: asyncio.Event,
    wanted: Interpretation | None = None,
) -> None:
    """Let a browser be the microphone, until it has said all, or goes, or does not speak as agreed.

    Args:
        socket: of who may do that.
        floor: gives it the floor; None: nothing is listening yet.
        site: ours.
        stopping: set when the server ends.
        wanted: what is to be said, to try it out; None: what is said is meant.
    """
    await socket.accept()
    speaker = _Speaker(socket, site, wanted)
    with suppress(WebSocketDisconnect, RuntimeError):  # it has gone
        try:
            talk = speaker.begin(floor)
        except UsageError as error:
            await socket.close(TAKEN, str(error))
        except (ValueError, AudioFormatError):
            await socket.close(MALFORMED, "say ?rate=HZ, the sampling rate, 8000 to 192000")
        else:
            await socket.close(*await speaker.until_end(talk, stopping))


class _Speaker:
    def __init__(self, socket: WebSocket, site: str, wanted: Interpretation | None) -> None:
        self._socket = socket
        self._wanted = wanted
        self._site = site
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[dict[str, object] | None] = asyncio.Queue(_MAX_NEWS)  # None is the end

    def begin(self, floor: Floor | None) -> Talk:
        """Take the floor."""
        rate_hz = int(self._socket.query_params.get("rate", "")[:_MAX_DIGITS])
        talk = Talk(
            rate_hz,
            lambda: self._tell({"state": "listening"}),
            self._became,
            lambda: self._tell(None),
            trial=self._wanted is not None,
        )
        if floor is None:
            raise UsageError("nothing is listening yet; try again")
        floor.take(talk)
        return talk

    async def until_end(self, talk: Talk, stopping: asyncio.Event) -> tuple[int, str]:
        """Hear and tell, and return with which code it ends and why."""
        hearing = asyncio.create_task(self._hear(talk))
        telling = asyncio.create_task(self._tell_all())
        stops = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait({hearing, telling, stops}, return_when=asyncio.FIRST_COMPLETED)
            code, why = hearing.result() if hearing.done() else (DONE, "")
            talk.close()
            if code == DONE:  # what was said last is still to be answered
                await asyncio.wait({telling, stops}, timeout=_ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
            return (GOES, "edgevoice ends") if stops.done() else (code, why)
        finally:
            talk.close()
            for task in (hearing, telling, stops):
                task.cancel()
            await asyncio.gather(hearing, telling, stops, return_exceptions=True)

    async def _hear(self, talk: Talk) -> tuple[int, str]:
        """Take sound until its end."""
        while True:
            try:
                async with asyncio.timeout(STALL_S):
                    data = await self._socket.receive_bytes()
            except TimeoutError:
                return IDLE, f"no sound came for {STALL_S:g} s"
            if not data:
                return DONE, ""
            try:
                talk.push(data)
            except ProtocolError as error:
                return MALFORMED if len(data) % 2 else TOO_MUCH, str(error)

    async def _tell_all(self) -> None:
        """Tell what becomes of it, until nothing more does."""
        while (told := await self._news.get()) is not None:
            await self._socket.send_text(json.dumps(told, ensure_ascii=False))

    # ---- in the pipeline's thread ----

    def _became(self, result: Result) -> None:
        fields = result_fields(result, self._site)
        if self._wanted is None:
            self._tell({"result": fields | {"words": words_of(result.reason)}})
        else:
            self._tell({**compare(self._wanted, fields)})

    def _tell(self, told: dict[str, object] | None) -> None:
        with suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(self._put, told)

    def _put(self, told: dict[str, object] | None) -> None:
        if self._news.full():  # who does not read loses the oldest
            self._news.get_nowait()
        self._news.put_nowait(told)
