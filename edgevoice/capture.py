"""Where frames come from: recordings, raw samples on a stream, and the microphone.

The way of one sound through MicrophoneSource:

1. PortAudio's own thread calls _on_audio() with 32 ms of bytes; it only puts them into a bounded queue, or
   counts them as lost when the queue is full. Nothing there may wait: the sound card does not.
2. Whoever iterates takes the bytes out, picks or mixes channels, resamples and cuts frames.
3. No bytes for some seconds, or a stream that stopped, raises AudioError in the iterating thread.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol, cast

import numpy as np

from edgevoice.audio import Converter, frames, read_blocks
from edgevoice.errors import AudioError, AudioFormatError
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame, Samples

if TYPE_CHECKING:
    import os

_log = logging.getLogger(__name__)

# portaudio.h; here so that PyAudio need not be installed to use files
PA_INT16: Final = 0x8
PA_CONTINUE: Final = 0
PA_INPUT_OVERFLOW: Final = 0x2

_FRAMES_PER_S: Final = SAMPLE_RATE_HZ / FRAME_SAMPLES
_STALL_S: Final = 3.0  # a live device delivers every 32 ms; a sleeping USB microphone wakes within 2 s
_POLL_S: Final = 0.25  # how soon a stopped stream is noticed
_QUEUE_S: Final = 10.0  # longer than any recognition, so that none loses the speech that follows it
_BURST_S: Final = 1.0  # losses closer together than this are one burst, with one line in the log
_CONTAINERS: Final = {b"RIFF": "WAV", b"fLaC": "FLAC", b"OggS": "OGG", b"FORM": "AIFF"}

AudioCallback = Callable[[bytes | None, int, Mapping[str, float], int], tuple[None, int]]
"""(bytes, frames, times, status flags) -> (None, PA_CONTINUE), called by PortAudio's thread."""


class FrameSource(Protocol):
    """What the pipeline listens to."""

    def __iter__(self) -> Iterator[Frame]:
        """Frames in order until the source ends or is closed."""

    def close(self) -> None:
        """Stop and free everything; may be called twice, and from another thread to end the iteration."""


class PortAudioStream(Protocol):
    """The part of pyaudio.Stream that is used here."""

    def is_active(self) -> bool:
        """Whether the callback is still being called."""

    def close(self) -> None:
        """Stop and free the stream."""


class PortAudio(Protocol):
    """The part of pyaudio.PyAudio that is used here; edgevoice.testing.FakePortAudio is another one."""

    def get_device_count(self) -> int:
        """Number of devices, outputs included."""

    def get_device_info_by_index(self, device_index: int) -> Mapping[str, Any]:
        """PaDeviceInfo as a dictionary."""

    def get_default_input_device_info(self) -> Mapping[str, Any]:
        """PaDeviceInfo as a dictionary; OSError if there is none."""

    def get_host_api_info_by_index(self, host_api_index: int) -> Mapping[str, Any]:
        """PaHostApiInfo as a dictionary."""

    def is_format_supported(self, rate: float, **settings: Any) -> bool:
        """Return True, or raise ValueError if the device cannot do it."""

    def open(self, **settings: Any) -> PortAudioStream:
        """Open and start a stream; OSError if the device refuses."""

    def terminate(self) -> None:
        """Free PortAudio."""


@dataclass(frozen=True, slots=True)
class Device:
    """One microphone as PortAudio sees it."""

    index: int
    name: str
    host_api: str
    """ALSA, JACK, Core Audio, ..."""

    channels: int
    rate_hz: int
    """Its native sampling rate."""

    is_default: bool

    def __str__(self) -> str:
        return f"{self.index}: {self.name} ({self.channels} channels, {self.rate_hz} Hz)"


def list_devices(port_audio: PortAudio | None = None) -> tuple[Device, ...]:
    """All devices that can record.

    Args:
        port_audio: an open one; None opens PyAudio for the call.

    Raises:
        AudioError: PyAudio or PortAudio is not installed or does not start.
    """
    library = port_audio or _open_port_audio()
    try:
        try:
            default_index = int(library.get_default_input_device_info()["index"])
        except OSError:
            default_index = -1  # a machine without a microphone
        infos = [library.get_device_info_by_index(index) for index in range(library.get_device_count())]
        return tuple(
            Device(
                index=int(info["index"]),
                name=_text(info["name"]),
                host_api=_text(library.get_host_api_info_by_index(int(info["hostApi"]))["name"]),
                channels=int(info["maxInputChannels"]),
                rate_hz=round(info["defaultSampleRate"]),
                is_default=int(info["index"]) == default_index,
            )
            for info in infos
            if int(info["maxInputChannels"]) > 0
        )
    except OSError as error:
        raise AudioError(
            f"the sound devices cannot be listed ({error}); is another program resetting them?"
        ) from error
    finally:
        if port_audio is None:
            library.terminate()


def find_device(devices: tuple[Device, ...], wanted: int | str | None) -> Device:
    """Choose a microphone.

    Args:
        devices: from list_devices().
        wanted: index (also as digits), name or part of a name in any case, or None for the system's default.

    Raises:
        AudioError: none or several fit; the text lists what exists.
    """
    exist = (
        "; ".join(map(str, devices)) or "none, so plug in a microphone and check that this user may record"
    )
    if wanted is None:
        found = [device for device in devices if device.is_default]
        what = "no default microphone"
    elif isinstance(wanted, int) or wanted.isdecimal():
        found = [device for device in devices if device.index == int(wanted)]
        what = f"no microphone with index {wanted}"
    else:
        name = wanted.casefold()
        found = [device for device in devices if device.name.casefold() == name]  # the whole name wins
        found = found or [device for device in devices if name in device.name.casefold()]
        what = f"no microphone whose name contains {wanted!r}"
    if not found:
        raise AudioError(f"there is {what}; devices: {exist}")
    if len(found) > 1:
        fitting = "; ".join(map(str, found))
        raise AudioError(f"several microphones fit {wanted!r}; give the index or more of the name: {fitting}")
    return found[0]


class FileSource:
    """Frames of a recording, as fast as they are taken or at the pace of real time.

    Args:
        path: any sound file that audio.read_blocks() reads.
        channel: the channel to take, counted from 0; None takes the mean of all.
        real_time: deliver each frame when a microphone would have.

    Raises:
        AudioFormatError: the file is no usable audio.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, channel: int | None = None, real_time: bool = False
    ) -> None:
        self._blocks = read_blocks(path, channel=channel)
        self._real_time = real_time
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        start_s = time.monotonic()
        for count, frame in enumerate(frames(self._blocks), start=1):
            due_s = start_s + count / _FRAMES_PER_S if self._real_time else start_s
            if self._closed.wait(max(0.0, due_s - time.monotonic())):
                return
            yield frame

    def close(self) -> None:
        """End the iteration at the next frame."""
        self._closed.set()


class RawSource:
    """Frames of raw samples: signed 16-bit little-endian mono, for example from standard input.

    Args:
        stream: a blocking binary stream; it stays the caller's to close.
        rate_hz: sampling rate of the samples.

    Raises:
        AudioFormatError: the rate is out of range.
    """

    def __init__(self, stream: BinaryIO, rate_hz: int = SAMPLE_RATE_HZ) -> None:
        self._stream = stream
        self._read_bytes = 2 * max(
            1, round(rate_hz / _FRAMES_PER_S)
        )  # one frame, so that none waits for another
        self._converter = Converter(rate_hz, 1, source="the raw stream")
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        return frames(self._blocks())

    def close(self) -> None:
        """End the iteration after the read that is under way."""
        self._closed.set()

    def _blocks(self) -> Iterator[Samples]:
        odd = b""
        first = True
        while not self._closed.is_set():
            data = self._read()
            if not data:
                break
            if first and data[:4] in _CONTAINERS:
                raise AudioFormatError(
                    f"the raw stream begins like a {_CONTAINERS[data[:4]]} file; send samples without header "
                    "(signed 16-bit little-endian mono), or give the file by its name"
                )
            first = False
            data = odd + data
            even = len(data) & ~1  # a pipe may split a sample; its second byte comes with the next read
            odd = data[even:]
            yield self._converter.convert(np.frombuffer(data[:even], "<i2").astype(np.int16))
        if odd:
            _log.warning("the raw stream ended in the middle of a sample; its last byte was left out")
        yield self._converter.finish()

    def _read(self) -> bytes:
        try:
            data = self._stream.read(self._read_bytes)
        except (OSError, ValueError) as error:  # ValueError: closed by someone else
            raise AudioError(
                f"reading the raw stream failed ({error}); check the program that feeds it"
            ) from error
        if data is None:
            raise AudioError("the raw stream is in non-blocking mode; open it in blocking mode")
        return data


class MicrophoneSource:
    """Frames of a microphone, from the moment of construction on.

    Opens at 16 kHz with the channels needed if the device can; otherwise at its native rate or with all its
    channels, and converts.

    Args:
        device: see find_device().
        channel: the channel to take, counted from 0; None takes the mean of those opened.
        stall_s: silence of the device, not of the room, after which it counts as lost.
        port_audio: an open one, which stays the caller's; None opens PyAudio.

    Raises:
        AudioError: no such device, or it cannot be opened; while iterating: it stopped or stalled.
    """

    def __init__(
        self,
        device: int | str | None = None,
        *,
        channel: int | None = None,
        stall_s: float = _STALL_S,
        port_audio: PortAudio | None = None,
    ) -> None:
        self._owned = _open_port_audio() if port_audio is None else None
        library = port_audio or cast("PortAudio", self._owned)
        self._stream: PortAudioStream | None = None
        self._lost_blocks = 0
        self._card_overflows = 0
        self._stall_s = stall_s
        self._closed = False
        self._queue: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        try:
            self.device = find_device(list_devices(library), device)
            rate_hz, channels = _choose_format(library, self.device, channel)
            self._converter = Converter(rate_hz, channels, channel, source=f"microphone {self.device.name}")
            self._queue_blocks = round(_QUEUE_S * _FRAMES_PER_S)
            self._stream = _open_stream(library, self.device, rate_hz, channels, self._on_audio)
        except AudioError:
            self.close()
            raise
        _log.info("listening to %s at %d Hz, %d channels", self.device.name, rate_hz, channels)

    @property
    def overflows(self) -> int:
        """Blocks lost so far: those the queue had no room for, and those the sound card reported."""
        return self._lost_blocks + self._card_overflows

    def __iter__(self) -> Iterator[Frame]:
        return frames(self._blocks())

    def close(self) -> None:
        """Stop the device and end the iteration."""
        self._closed = True
        self._queue.put(b"")  # wakes the iterating thread
        stream, self._stream = self._stream, None
        library, self._owned = self._owned, None
        try:
            if stream is not None:
                stream.close()
        except OSError as error:
            _log.debug("closing %s: %s", self.device.name, error)  # an unplugged device cannot be stopped
        finally:
            if library is not None:
                library.terminate()

    def _on_audio(
        self, data: bytes | None, _frames: int, _times: Mapping[str, float], status: int
    ) -> tuple[None, int]:
        """Take one block from PortAudio; runs in its thread, never waits."""
        if status & PA_INPUT_OVERFLOW:
            self._card_overflows += 1
        if data:
            if self._queue.qsize() < self._queue_blocks:
                self._queue.put(data)
            else:
                self._lost_blocks += 1
        return None, PA_CONTINUE

    def _blocks(self) -> Iterator[Samples]:
        seen_overflows = 0
        burst_ends_s = 0.0
        while data := self._next():
            now_s = time.monotonic()
            if self.overflows > seen_overflows:
                if now_s > burst_ends_s:
                    _log.warning(
                        "%s: audio was lost (%d blocks of 32 ms so far); this machine is too busy",
                        self.device.name,
                        self.overflows,
                    )
                seen_overflows = self.overflows
                burst_ends_s = now_s + _BURST_S
            yield self._converter.convert(np.frombuffer(data, np.int16))  # PortAudio's order is the machine's

    def _next(self) -> bytes:
        """Wait for the next block; empty once the source is closed."""
        deadline_s = time.monotonic() + self._stall_s
        while not self._closed:
            try:
                return self._queue.get(timeout=min(_POLL_S, self._stall_s))
            except queue.Empty:
                stream = self._stream
            if stream is not None and not _is_active(stream):
                raise AudioError(f"microphone {self.device.name} stopped; check that it is still plugged in")
            if time.monotonic() >= deadline_s:
                raise AudioError(
                    f"microphone {self.device.name} gave no data for {self._stall_s:g} s; "
                    "plug it in again or choose another device"
                )
        return b""


def _open_port_audio() -> PortAudio:
    try:
        import pyaudio  # noqa: PLC0415 - needs the system's PortAudio, which files do without
    except ImportError as error:
        raise AudioError(
            f"the microphone needs PyAudio and PortAudio, which cannot be loaded ({error}); "
            "install the package libportaudio2, then: pip install PyAudio"
        ) from error
    try:
        return cast("PortAudio", pyaudio.PyAudio())
    except OSError as error:
        raise AudioError(f"PortAudio does not start ({error}); is the sound system running?") from error


def _choose_format(library: PortAudio, device: Device, channel: int | None) -> tuple[int, int]:
    """Rate and channels to open: what costs least first."""
    needed = 1 if channel is None else channel + 1
    if not 1 <= needed <= device.channels:
        raise AudioError(
            f"microphone {device} has no channel {channel}; choose one from 0 to {device.channels - 1}"
        )
    wanted = [
        (rate, count) for rate in (SAMPLE_RATE_HZ, device.rate_hz) for count in (needed, device.channels)
    ]
    for rate_hz, channels in wanted:
        try:
            if library.is_format_supported(
                rate_hz, input_device=device.index, input_channels=channels, input_format=PA_INT16
            ):
                return rate_hz, channels
        except ValueError:  # PyAudio's way to say no
            continue
    tried = ", ".join(f"{rate} Hz with {count} channels" for rate, count in dict.fromkeys(wanted))
    raise AudioError(
        f"microphone {device} refuses 16-bit audio at {tried}; is another program using it? "
        "If not, choose another device"
    )


def _open_stream(
    library: PortAudio, device: Device, rate_hz: int, channels: int, callback: AudioCallback
) -> PortAudioStream:
    try:
        return library.open(
            rate=rate_hz,
            channels=channels,
            format=PA_INT16,
            input=True,
            input_device_index=device.index,
            frames_per_buffer=round(rate_hz / _FRAMES_PER_S),
            stream_callback=callback,
        )
    except OSError as error:
        raise AudioError(
            f"microphone {device} cannot be opened ({error}); is another program using it?"
        ) from error


def _is_active(stream: PortAudioStream) -> bool:
    try:
        return stream.is_active()
    except OSError:  # PortAudio's answer for a device that is gone
        return False


def _text(name: str | bytes) -> str:
    """PyAudio hands over names it cannot decode as bytes."""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name
