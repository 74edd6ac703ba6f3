"""Events of the Wyoming protocol from a connection that nobody vouches for.

    bytes -> read_event() -> Event -> check -> AudioFormat, samples, text

The library reads as many bytes as a header announces, and trusts the types in it. So events are read here,
with every length and type checked before memory is taken; they are written by the library.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from wyoming.event import Event

from edgevoice.audio import Converter
from edgevoice.errors import AudioFormatError, ProtocolError

if TYPE_CHECKING:
    from edgevoice.events import Samples

MAX_HEADER_BYTES: Final = 65_536
"""Of the line and of the data after it, each: the longest that clients send are a few hundred."""

MAX_PAYLOAD_BYTES: Final = 1_048_576
"""Half a minute at 16 kHz, should a client send a command as one chunk; usual are 2,048."""

MAX_CHANNELS: Final = 8
"""Of microphone arrays."""

_AUDIO: Final = "audio-chunk"
_SHOWN: Final = 60  # characters of what was seen, in messages


async def read_event(reader: asyncio.StreamReader) -> Event | None:
    """Wait for the next event; None at the end of the connection.

    Args:
        reader: whose limit is MAX_HEADER_BYTES.

    Raises:
        ProtocolError: what came is no event, or one too large.
        asyncio.IncompleteReadError: the connection ended within an event.
    """
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise
    except asyncio.LimitOverrunError:
        raise ProtocolError(
            f"a header of more than {MAX_HEADER_BYTES} bytes seen; send JSON in one line"
        ) from None
    header = _json_object(line, "header")
    kind = header.get("type")
    if not isinstance(kind, str) or not kind:
        raise ProtocolError(f"a header without type seen: {_shown(line)}; name the event")
    data = header.get("data")
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ProtocolError(f"{_shown(kind)}: data is {type(data).__name__}; it must be an object")
    if data_bytes := _length(header, "data_length", MAX_HEADER_BYTES):
        data |= _json_object(await reader.readexactly(data_bytes), "data")
    limit = MAX_PAYLOAD_BYTES if kind == _AUDIO else MAX_HEADER_BYTES
    payload_bytes = _length(header, "payload_length", limit)
    payload = await reader.readexactly(payload_bytes) if payload_bytes else None
    return Event(kind, data, payload)


def _json_object(text: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"no JSON as {what} ({str(error)[:_SHOWN]}): {_shown(text)}") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"no JSON object as {what}: {_shown(text)}")
    return value


def _length(header: dict[str, Any], name: str, limit: int) -> int:
    length = header.get(name)
    if length is None:
        return 0
    if type(length) is not int or not 0 <= length <= limit:
        raise ProtocolError(f"{name} is {_shown(length)}; allowed is 0 to {limit}")
    return length


def _shown(seen: object) -> str:
    text = ascii(seen[:_SHOWN].decode("utf-8", "replace") if isinstance(seen, bytes) else seen)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def text_of(event: Event, longest: int) -> str:
    """Return the text of an event.

    Raises:
        ProtocolError: it has none, or one of more characters than that.
    """
    text = event.data.get("text")
    if not isinstance(text, str):
        raise ProtocolError(f"{event.type}: text is {_shown(text)}; it must be text")
    if len(text) > longest:
        raise ProtocolError(f"{event.type}: {len(text)} characters seen; at most {longest} are understood")
    return text


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Of the samples in a payload: signed little-endian integers, channels interleaved."""

    rate_hz: int
    width_bytes: int
    channels: int

    @classmethod
    def of(cls, event: Event) -> AudioFormat:
        """Return what an event says.

        Raises:
            ProtocolError: it says nothing, or what no samples have.
        """
        rate, width, channels = (event.data.get(name) for name in ("rate", "width", "channels"))
        if type(rate) is not int or width not in (1, 2, 3, 4) or type(width) is not int:
            raise ProtocolError(
                f"{event.type}: rate {_shown(rate)}, width {_shown(width)} seen; send Hz and 1 to 4 bytes"
            )
        if type(channels) is not int or not 1 <= channels <= MAX_CHANNELS:
            raise ProtocolError(
                f"{event.type}: {_shown(channels)} channels seen; allowed are 1 to {MAX_CHANNELS}"
            )
        return cls(rate, width, channels)


class Decoder:
    """Turns the payloads of one stream into 16 kHz mono.

    Raises:
        ProtocolError: a rate out of range.
    """

    def __init__(self, audio: AudioFormat) -> None:
        try:
            self._converter = Converter(audio.rate_hz, audio.channels, source="the stream")
        except AudioFormatError as error:
            raise ProtocolError(str(error)) from None
        self._width = audio.width_bytes
        self._row_bytes = audio.width_bytes * audio.channels
        self._odd = b""
        self._audio = audio

    def rows_bytes(self, duration_s: float) -> int:
        """How many bytes hold so much time, in whole samples of all channels."""
        return max(1, round(duration_s * self._audio.rate_hz)) * self._row_bytes

    def decode(self, payload: bytes) -> Samples:
        """Return what is ready; a sample that a chunk splits comes with the next one."""
        data = self._odd + payload
        whole = len(data) - len(data) % self._row_bytes
        self._odd = data[whole:]
        return self._converter.convert(_integers(data[:whole], self._width))

    def finish(self) -> Samples:
        """Return what was held back."""
        return self._converter.finish()


def _integers(data: bytes, width: int) -> Any:
    """Samples of integers, as the converter takes them."""
    if width == 2:
        return np.frombuffer(data, "<i2").astype(np.int16)
    if width == 3:  # numpy has no such integer: the three bytes are the upper ones of four
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
    return np.frombuffer(data, f"<i{width}").astype(np.float32) / np.float32(2 ** (8 * width - 1))
