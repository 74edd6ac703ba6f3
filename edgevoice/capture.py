"""Where frames come from: recordings, raw samples on a stream, and the microphone.

The way of one sound through MicrophoneSource:

1. PortAudio's own thread calls _on_audio() with 32 ms of bytes, or a few times as much; it only puts them
   into a bounded queue, or counts them as lost when the queue is full. Nothing there may wait: the sound card
   does not.
2. Whoever iterates takes the bytes out, picks or mixes channels, resamples and cuts frames. Where audio is
   missing, the position of the next frame is that much later: whoever joins frames begins anew there.
3. No bytes for some seconds, or a stream that stopped, raises AudioError in the iterating thread.
   microphone.Microphone opens it again.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

import numpy as np

from edgevoice.audio import Converter, frames, read_blocks
from edgevoice.errors import AudioError, AudioFormatError
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame, Samples
from edgevoice.portaudio import PA_CONTINUE, PA_INPUT_OVERFLOW, InputStream, PortAudio

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

_log = logging.getLogger(__name__)
_told: set[str] = set()  # devices that were listened to, in the log; a machine has a few

STALL_S: Final = 3.0
"""A live device delivers every 32 ms; a sleeping USB microphone wakes within 2 s."""

_FRAMES_PER_S: Final = SAMPLE_RATE_HZ / FRAME_SAMPLES
_POLL_S: Final = 0.25  # how soon a stopped stream is noticed
_QUEUE_S: Final = 10.0  # longer than a busy or swapping machine keeps the listener waiting
_BURST_S: Final = 1.0  # losses closer together than this are one burst, with one line in the log
_LATE_S: Final = 0.07  # after it was due; on two busy cores the longest was 10 ms
_GAP_S: Final = 1.0  # longer than a sound system can save up: the machine slept, or audio is missing
_CONTAINERS: Final = {b"RIFF": "WAV", b"fLaC": "FLAC", b"OggS": "OGG", b"FORM": "AIFF"}


def clock_s() -> float:
    """Seconds of a clock that never goes back and goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class FrameSource(Protocol):
    """What the pipeline listens to."""

    live: bool
    """Whether frames come as they are spoken, and would be lost if nobody took them."""

    def __iter__(self) -> Iterator[Frame]:
        """Frames in order until the source ends or is closed."""

    def close(self) -> None:
        """Stop and free everything; may be called twice, and from another thread to end the iteration."""


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
        self._real_time = self.live = real_time
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
        self.live = False  # who writes waits until it is read
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


@dataclass(frozen=True, slots=True)
class CaptureCounters:
    """What went wrong with a microphone so far."""

    overflows: int = 0
    """Blocks for which our queue had no room: nobody took them for seconds."""

    card_overflows: int = 0
    """Blocks before which PortAudio lost some: the machine was too busy. How much is not known and usually
    little, so an utterance goes on over it."""

    late: int = 0
    """Blocks that came more than 0.07 s after they were due."""

    gaps: int = 0
    """Where more is missing, and positions jump: a full queue, or more than 1 s without a block."""

    losses: int = 0
    """How often the microphone was lost."""

    def __add__(self, other: CaptureCounters) -> CaptureCounters:
        return CaptureCounters(*map(sum, zip(astuple(self), astuple(other), strict=True)))


class MicrophoneSource:
    """Frames of a microphone, from the moment of construction on until it is lost.

    Opens at 16 kHz with the channels needed if the device can; otherwise at its native rate or with all its
    channels, and converts.

    Args:
        device: see portaudio.find_device().
        channel: the channel to take, counted from 0; None takes the mean of those opened.
        block_frames: that PortAudio hands over at once.
        stall_s: silence of the device, not of the room, after which it counts as lost.
        port_audio: an open one, which stays the caller's; None opens PyAudio.
        clock: tells when blocks come.

    Raises:
        AudioError: no such device, or it cannot be opened; while iterating: it stopped or stalled, or it
            delivers what is no audio.
    """

    def __init__(
        self,
        device: int | str | None = None,
        *,
        channel: int | None = None,
        block_frames: int = 1,
        stall_s: float = STALL_S,
        port_audio: PortAudio | None = None,
        clock: Callable[[], float] = clock_s,
    ) -> None:
        self.live = True
        self._stall_s = stall_s
        self._clock = clock
        self._closed = False
        self._queue: queue.SimpleQueue[bytes | float] = queue.SimpleQueue()  # audio, or seconds that miss
        self._block_s = block_frames / _FRAMES_PER_S
        self._queue_blocks = round(_QUEUE_S / self._block_s)
        self._last_s: float | None = None  # when a block came last
        self._unsaid_s = 0.0  # what misses and is not in the queue yet
        self._missing_s = 0.0  # what misses before the next frame
        self._overflows = self._card_overflows = self._late = self._gaps = 0
        self._reported, self._burst_ends_s = 0, 0.0  # blocks told to be lost, and until when no more are told
        self._stream = InputStream(device, channel, self._on_audio, self._block_s, port_audio)
        self.device = self._stream.device
        try:
            self._converter = Converter(
                self._stream.rate_hz, self._stream.channels, channel, source=f"microphone {self.device.name}"
            )
        except AudioError:
            self.close()
            raise
        what = f"{self.device.name} at {self._stream.rate_hz} Hz, {self._stream.channels} channels"
        # A loose plug opens it again and again; that it was lost and works again is told by microphone.py.
        _log.log(logging.DEBUG if what in _told else logging.INFO, "listening to %s", what)
        _told.add(what)

    @property
    def counters(self) -> CaptureCounters:
        """What went wrong so far."""
        return CaptureCounters(self._overflows, self._card_overflows, self._late, self._gaps)

    def __iter__(self) -> Iterator[Frame]:
        start_samples = 0
        while not self._closed:
            end_samples = start_samples
            for frame in frames(self._blocks()):
                end_samples = start_samples + frame.start_samples + FRAME_SAMPLES
                yield Frame(frame.samples, end_samples - FRAME_SAMPLES)
            start_samples = end_samples + max(FRAME_SAMPLES, round(self._missing_s * SAMPLE_RATE_HZ))

    def discard(self) -> None:
        """Forget what was recorded and not yet taken; the next frame follows a gap."""
        missing_s = 0.0
        try:
            while True:
                block = self._queue.get_nowait()
                missing_s += block if isinstance(block, float) else self._block_s
        except queue.Empty:
            self._queue.put(missing_s)

    def close(self) -> None:
        """Stop the device and end the iteration."""
        self._closed = True
        self._queue.put(b"")  # wakes the iterating thread
        self._stream.close()

    def _on_audio(
        self, data: bytes | None, _frames: int, _times: Mapping[str, float], status: int
    ) -> tuple[None, int]:
        """Take one block from PortAudio; runs in its thread, never waits."""
        now_s = self._clock()
        waited_s = 0.0 if self._last_s is None else now_s - self._last_s
        self._last_s = now_s
        if waited_s > self._block_s + _LATE_S:
            self._late += 1
        if waited_s > _GAP_S:
            self._unsaid_s += waited_s
        if status & PA_INPUT_OVERFLOW:
            self._card_overflows += 1
        if data:
            if self._queue.qsize() >= self._queue_blocks:
                self._overflows += 1
                self._unsaid_s += self._block_s
            else:
                if self._unsaid_s:
                    self._gaps += 1
                    self._queue.put(self._unsaid_s)
                    self._unsaid_s = 0.0
                self._queue.put(data)
        return None, PA_CONTINUE

    def _blocks(self) -> Iterator[Samples]:
        """Audio until some is missing or the source is closed."""
        while isinstance(block := self._next(), bytes) and block:
            self._report_lost()
            try:
                # PortAudio's order of bytes is the machine's
                converted = self._converter.convert(np.frombuffer(block, np.int16))
            except ValueError as error:
                raise AudioError(
                    f"microphone {self.device.name} delivers what is no audio: {len(block)} bytes ({error}); "
                    "plug it in again or choose another device"
                ) from error
            yield converted
        self._missing_s = block if isinstance(block, float) else 0.0

    def _report_lost(self) -> None:
        lost = self._overflows + self._card_overflows
        if lost == self._reported:
            return
        now_s = time.monotonic()
        if now_s > self._burst_ends_s:
            _log.warning("%s: audio was lost; this machine is too busy; %s", self.device.name, self.counters)
        self._reported, self._burst_ends_s = lost, now_s + _BURST_S

    def _next(self) -> bytes | float:
        """Wait for the next block; empty once the source is closed."""
        deadline_s = time.monotonic() + self._stall_s
        while not self._closed:
            try:
                return self._queue.get(timeout=min(_POLL_S, self._stall_s))
            except queue.Empty:
                pass
            if not self._stream.is_active():
                raise AudioError(f"microphone {self.device.name} stopped; check that it is still plugged in")
            if time.monotonic() >= deadline_s:
                raise AudioError(
                    f"microphone {self.device.name} gave no data for {self._stall_s:g} s; "
                    "plug it in again or choose another device"
                )
        return b""
