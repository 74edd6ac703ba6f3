"""Frames come from files, raw streams and a microphone that does not exist."""

from __future__ import annotations

import io
import itertools
import logging
import os
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from edgevoice.capture import CaptureCounters, FileSource, FrameSource, MicrophoneSource, RawSource
from edgevoice.errors import AudioError, AudioFormatError
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ
from edgevoice.portaudio import PA_INPUT_OVERFLOW
from edgevoice.testing import FakeDevice, FakePortAudio, FakeStream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def ramp(count: int) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.arange(count, dtype=np.int16)


def joined(source: FrameSource, frames: int | None = None) -> list[float]:
    """Samples of some frames, or of all, in 16-bit units."""
    return [float(x) * 32768 for frame in itertools.islice(source, frames) for x in frame.samples]


def opened(card: FakePortAudio) -> FakeStream:
    assert card.stream is not None
    return card.stream


class Trickle(io.RawIOBase):
    """A pipe that delivers as many bytes at a time as it is told, then does what it is told."""

    def __init__(self, chunks: list[bytes], end: Callable[[], bytes | None] = lambda: b"") -> None:
        self._chunks = chunks
        self._end = end

    def read(self, _size: int = -1) -> bytes | None:
        """Deliver the next piece, whatever size was asked for."""
        return self._chunks.pop(0) if self._chunks else self._end()


class TestFileSource:
    """A recording as frames."""

    def test_as_fast_as_possible(self, tmp_path: Path) -> None:
        """Ten seconds of sound take a fraction of one, and come complete."""
        soundfile.write(tmp_path / "a.wav", ramp(10 * SAMPLE_RATE_HZ), SAMPLE_RATE_HZ)
        start_s = time.monotonic()
        samples = joined(FileSource(tmp_path / "a.wav"))
        assert samples[: 10 * SAMPLE_RATE_HZ] == ramp(10 * SAMPLE_RATE_HZ).tolist()
        assert time.monotonic() - start_s < 5

    def test_real_time(self, tmp_path: Path) -> None:
        """In real time a frame never comes before a microphone could have delivered it."""
        soundfile.write(tmp_path / "a.wav", ramp(10 * FRAME_SAMPLES), SAMPLE_RATE_HZ)
        start_s = time.monotonic()
        for count, _frame in enumerate(FileSource(tmp_path / "a.wav", real_time=True), start=1):
            assert time.monotonic() - start_s >= count * 0.032 - 0.001
        assert time.monotonic() - start_s < 2

    def test_close_ends_it(self, tmp_path: Path) -> None:
        """close() from another thread ends a source that waits for its time."""
        soundfile.write(tmp_path / "a.wav", ramp(60 * SAMPLE_RATE_HZ), SAMPLE_RATE_HZ)
        source = FileSource(tmp_path / "a.wav", real_time=True)
        threading.Timer(0.1, source.close).start()
        assert len(list(source)) < 100

    def test_bad_file(self, tmp_path: Path) -> None:
        """A file that is no audio is refused before anything listens to it."""
        with pytest.raises(AudioFormatError, match="not there"):
            FileSource(tmp_path / "missing.wav")


class TestRawSource:
    """Samples without a header, as a pipe delivers them."""

    def test_samples(self) -> None:
        """Little-endian 16-bit samples come through; the last frame is padded."""
        samples = joined(RawSource(io.BytesIO(ramp(1000).astype("<i2").tobytes())))
        assert samples == ramp(1000).tolist() + [0.0] * (2 * FRAME_SAMPLES - 1000)

    def test_odd_reads(self, caplog: pytest.LogCaptureFixture) -> None:
        """A sample split between two reads is put together; a lone last byte is left out and reported."""
        data = ramp(1000).astype("<i2").tobytes() + b"\x01"
        chunks = [data[:1], data[1:4], data[4:999], data[999:1000], data[1000:]]
        assert joined(RawSource(Trickle(chunks)))[:1000] == ramp(1000).tolist()  # type: ignore[arg-type]
        assert "in the middle of a sample" in caplog.text

    def test_other_rate(self) -> None:
        """A rate other than 16 kHz is resampled: one second stays one second."""
        frames = list(RawSource(io.BytesIO(bytes(2 * 44_100)), 44_100))
        assert len(frames) == -(-SAMPLE_RATE_HZ // FRAME_SAMPLES)
        with pytest.raises(AudioFormatError, match="500 Hz"):
            RawSource(io.BytesIO(), 500)

    def test_nothing(self) -> None:
        """An empty stream has no frames."""
        assert list(RawSource(io.BytesIO())) == []

    def test_a_file_with_header(self) -> None:
        """Somebody who pipes a WAV file is told so, instead of hearing its header as a click."""
        file = io.BytesIO()
        soundfile.write(file, ramp(1000), SAMPLE_RATE_HZ, format="WAV")
        with pytest.raises(AudioFormatError, match="begins like a WAV file"):
            list(RawSource(io.BytesIO(file.getvalue())))

    def test_broken_reads(self) -> None:
        """An error of the stream, a closed stream and one that does not block are errors of ours."""

        def fail() -> bytes:
            raise OSError(5, "Input/output error")

        with pytest.raises(AudioError, match="Input/output error"):
            list(RawSource(Trickle([b"\0\0"], fail)))  # type: ignore[arg-type]
        with pytest.raises(AudioError, match="non-blocking"):
            list(RawSource(Trickle([], lambda: None)))  # type: ignore[arg-type]
        closed = io.BytesIO()
        closed.close()
        with pytest.raises(AudioError, match="closed file"):
            list(RawSource(closed))

    def test_pipe_is_prompt(self) -> None:
        """A frame is delivered as soon as its samples are there, and close() ends an endless stream."""
        read_end, write_end = os.pipe()
        with os.fdopen(read_end, "rb") as reader, os.fdopen(write_end, "wb", buffering=0) as writer:
            source = RawSource(reader)
            stream = iter(source)
            for count in range(3):
                writer.write(ramp(FRAME_SAMPLES).tobytes())
                assert next(stream).start_samples == count * FRAME_SAMPLES
            source.close()
            assert list(stream) == []


class TestMicrophone:
    """Sound through PortAudio's callback."""

    def test_samples(self) -> None:
        """A device that does 16 kHz mono is taken as it is."""
        card = FakePortAudio(devices=(FakeDevice("Mic"),))
        source = MicrophoneSource(port_audio=card)
        opened(card).feed(ramp(512).tobytes())
        opened(card).feed(ramp(512).tobytes())
        assert joined(source, 2) == ramp(512).tolist() * 2
        source.close()
        source.close()
        assert opened(card).closed
        assert not card.terminated  # it was not ours

    @pytest.mark.parametrize(
        ("device", "channel", "expected"),
        [
            (FakeDevice("m", 32, 44_100, ((16_000, 1), (44_100, 32))), None, (16_000, 1)),
            (FakeDevice("m", 6, 16_000), None, (16_000, 6)),
            (FakeDevice("m", 2, 48_000, ((48_000, 1), (48_000, 2))), None, (48_000, 1)),
            (FakeDevice("m", 2, 48_000, ((48_000, 1), (48_000, 2))), 1, (48_000, 2)),
            (FakeDevice("m", 2, 44_100), None, (44_100, 2)),
        ],
    )
    def test_format(self, device: FakeDevice, channel: int | None, expected: tuple[int, int]) -> None:
        """16 kHz and few channels are preferred; otherwise what the device has natively."""
        card = FakePortAudio(devices=(device,))
        MicrophoneSource(channel=channel, port_audio=card).close()
        assert (opened(card).rate_hz, opened(card).channels) == expected

    def test_channel(self) -> None:
        """One channel of an array is taken, or the mean of all."""
        card = FakePortAudio(devices=(FakeDevice("Array", channels=4),))
        block = np.tile(np.array([100, 200, 300, 400], np.int16), 512).tobytes()
        for channel, value in ((2, 300.0), (None, 250.0)):
            source = MicrophoneSource(channel=channel, port_audio=card)
            opened(card).feed(block)
            assert joined(source, 1) == [value] * 512
            source.close()
        with pytest.raises(AudioError, match="no channel 4; choose one from 0 to 3"):
            MicrophoneSource(channel=4, port_audio=card)

    def test_resampled(self) -> None:
        """A device at 48 kHz stereo gives the same tone at 16 kHz."""
        card = FakePortAudio(devices=(FakeDevice("Mic", 2, 48_000),))
        source = MicrophoneSource(port_audio=card)
        tone = (16_384 * np.sin(2 * np.pi * 1000 * np.arange(48_000) / 48_000)).astype(np.int16)
        for block in np.split(np.repeat(tone, 2).astype(np.int16), 50):
            opened(card).feed(block.tobytes())
        samples = np.concatenate([frame.samples for frame in itertools.islice(source, 25)])
        spectrum = np.abs(np.fft.rfft(samples))
        assert np.argmax(spectrum) * SAMPLE_RATE_HZ / len(samples) == pytest.approx(1000, abs=2)
        assert np.abs(samples[2000:]).max() == pytest.approx(0.5, abs=0.01)
        source.close()

    def test_overflow(self, caplog: pytest.LogCaptureFixture) -> None:
        """What the queue cannot hold is counted and logged once per burst; the callback goes on."""
        caplog.set_level(logging.WARNING)
        card = FakePortAudio(devices=(FakeDevice("Mic"),))
        source = MicrophoneSource(port_audio=card)
        for _ in range(400):  # 12.8 s into a queue of 10 s
            opened(card).feed(bytes(1024))
        lost = source.counters.overflows
        assert 80 < lost < 100
        stream = iter(source)
        next(stream)
        opened(card).feed(bytes(1024), PA_INPUT_OVERFLOW)  # the card's own loss counts as well
        assert source.counters == CaptureCounters(overflows=lost, card_overflows=1, gaps=1)
        positions = [next(stream).start_samples for _ in range(312)]
        jumps = {after - before for before, after in itertools.pairwise(positions)}
        assert jumps == {FRAME_SAMPLES, (1 + lost) * FRAME_SAMPLES}  # what is missing shows in the positions
        assert caplog.text.count("audio was lost") == 1
        source.close()

    def test_status(self) -> None:
        """Other flags of PortAudio, which speak of playing, change nothing."""
        card = FakePortAudio(devices=(FakeDevice("Mic"),))
        source = MicrophoneSource(port_audio=card)
        for flags in (1, 4, 8, 16, 31):
            opened(card).feed(bytes(1024), flags)
        assert len(joined(source, 5)) == 5 * FRAME_SAMPLES
        assert source.counters == CaptureCounters(card_overflows=1)  # 31 has all of them
        source.close()

    def test_late(self) -> None:
        """A block that comes late is counted; one after more than a second follows a gap as long."""
        card = FakePortAudio(devices=(FakeDevice("Mic"),))
        now_s = 1000.0
        source = MicrophoneSource(port_audio=card, clock=lambda: now_s)
        positions = []
        stream = iter(source)
        for waited_s in (0.032, 0.032, 0.3, 5.0, 0.032):
            now_s += waited_s
            opened(card).feed(bytes(1024))
            positions.append(next(stream).start_samples)
        assert positions == [0, 512, 1024, 1024 + 512 + 5 * SAMPLE_RATE_HZ, 2048 + 5 * SAMPLE_RATE_HZ]
        assert source.counters == CaptureCounters(late=2, gaps=1)
        source.close()

    def test_longer_blocks(self) -> None:
        """Several frames come at once; a block is late, or lost, by its own length."""
        card = FakePortAudio(devices=(FakeDevice("Mic", rate_hz=16_000),))
        now_s = 1000.0
        source = MicrophoneSource(port_audio=card, block_frames=3, clock=lambda: now_s)
        assert opened(card).block_samples == 3 * FRAME_SAMPLES
        for waited_s in (0.096, 0.15, 0.096, 0.2):
            now_s += waited_s
            opened(card).feed(bytes(2 * 3 * FRAME_SAMPLES))
        assert [frame.start_samples for frame in itertools.islice(source, 12)] == list(range(0, 6144, 512))
        assert source.counters == CaptureCounters(late=1)
        source.close()

    @pytest.mark.parametrize(
        ("device", "rate_hz"),
        [(FakeDevice("Phone", 1, 8_000), 8_000), (FakeDevice("Studio", 2, 96_000), 96_000)],
    )
    def test_unusual_devices(self, device: FakeDevice, rate_hz: int) -> None:
        """8 kHz mono and 96 kHz stereo arrive with the same pitch and duration."""
        card = FakePortAudio(devices=(device,))
        source = MicrophoneSource(port_audio=card)
        tone = (16_384 * np.sin(2 * np.pi * 1000 * np.arange(2 * rate_hz) / rate_hz)).astype(np.int16)
        for block in np.split(np.repeat(tone, device.channels).astype(np.int16), 50):
            opened(card).feed(block.tobytes())
        samples = np.concatenate([frame.samples for frame in itertools.islice(source, 61)])
        assert np.argmax(np.abs(np.fft.rfft(samples))) * SAMPLE_RATE_HZ / len(samples) == pytest.approx(
            1000, abs=1
        )
        source.close()

    @pytest.mark.parametrize("data", [b"\0", bytes(1023), bytes(1022)])
    def test_no_audio(self, data: bytes) -> None:
        """Bytes that are no whole samples of all channels are an error."""
        card = FakePortAudio(devices=(FakeDevice("Mic", channels=2, rate_hz=48_000),))
        source = MicrophoneSource(port_audio=card)
        opened(card).feed(data)
        with pytest.raises(AudioError, match=f"delivers what is no audio: {len(data)} bytes"):
            next(iter(source))
        source.close()

    def test_discard(self) -> None:
        """What waits is forgotten, and what comes then stands where it would have stood."""
        card = FakePortAudio(devices=(FakeDevice("Mic"),))
        source = MicrophoneSource(port_audio=card)
        stream = iter(source)
        for _ in range(5):
            opened(card).feed(bytes(1024))
        assert next(stream).start_samples == 0
        source.discard()
        opened(card).feed(ramp(512).tobytes())
        frame = next(stream)
        assert frame.start_samples == 5 * FRAME_SAMPLES
        assert frame.samples.any()
        source.discard()  # nothing waits: a gap all the same
        opened(card).feed(bytes(1024))
        assert next(stream).start_samples == 7 * FRAME_SAMPLES
        source.close()

    def test_stall(self) -> None:
        """A device that is silent altogether is an error, in the time given."""
        source = MicrophoneSource(stall_s=0.2, port_audio=FakePortAudio(devices=(FakeDevice("Mic"),)))
        start_s = time.monotonic()
        with pytest.raises(AudioError, match=r"Mic gave no data for 0\.2 s"):
            next(iter(source))
        assert 0.2 <= time.monotonic() - start_s < 2
        source.close()

    def test_unplugged(self) -> None:
        """A stream that stops is an error long before a stall would be, after what was recorded."""
        card = FakePortAudio(devices=(FakeDevice("Mic"),))
        source = MicrophoneSource(port_audio=card)
        opened(card).feed(ramp(512).tobytes())
        opened(card).active = False
        stream = iter(source)
        assert next(stream).start_samples == 0
        start_s = time.monotonic()
        with pytest.raises(AudioError, match="Mic stopped"):
            next(stream)
        assert time.monotonic() - start_s < 2
        source.close()

    def test_close_from_another_thread(self) -> None:
        """close() ends an iteration that waits for sound."""
        source = MicrophoneSource(port_audio=FakePortAudio(devices=(FakeDevice("Mic"),)))
        threading.Timer(0.1, source.close).start()
        assert list(source) == []

    def test_busy(self) -> None:
        """A device another program holds says so, whether it refuses the format or the opening."""
        with pytest.raises(AudioError, match=r"cannot be opened .*Device unavailable.*another program"):
            MicrophoneSource(
                port_audio=FakePortAudio(devices=(FakeDevice("Mic"),), open_error="Device unavailable")
            )
        nothing = FakeDevice("Mic", 1, 48_000, formats=((96_000, 1),))
        with pytest.raises(AudioError, match="refuses 16-bit audio at 16000 Hz with 1 channels, 48000 Hz"):
            MicrophoneSource(port_audio=FakePortAudio(devices=(nothing,)))
