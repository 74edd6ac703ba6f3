"""Files and arrays become 16 kHz mono float32, or an error that says what they are instead."""

from __future__ import annotations

import resource
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevoice.audio import Converter, check_samples, frames, read_audio, read_blocks
from edgevoice.errors import AudioFormatError
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from pathlib import Path


def tone(rate_hz: int, duration_s: float = 0.5, pitch_hz: float = 440.0) -> npt.NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * pitch_hz * np.arange(round(rate_hz * duration_s)) / rate_hz)).astype(
        "f4"
    )


def pitch_hz(samples: npt.NDArray[np.float32]) -> float:
    """The strongest frequency."""
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * SAMPLE_RATE_HZ / len(samples))


def read_error(path: Path, **options: Any) -> str:
    with pytest.raises(AudioFormatError) as caught:
        read_audio(path, **options)
    return str(caught.value)


class TestFormats:
    """What libsndfile can read arrives as the same sound."""

    @pytest.mark.parametrize(
        ("name", "subtype"),
        [
            ("a.wav", "PCM_U8"),
            ("a.wav", "PCM_16"),
            ("a.wav", "PCM_24"),
            ("a.wav", "PCM_32"),
            ("a.wav", "FLOAT"),
            ("a.wav", "DOUBLE"),
            ("a.wav", "ULAW"),
            ("a.flac", "PCM_16"),
            ("a.flac", "PCM_24"),
            ("a.aiff", "PCM_16"),
            ("a.ogg", "VORBIS"),
            ("a.mp3", "MPEG_LAYER_III"),
        ],
    )
    def test_container_and_sample_type(self, tmp_path: Path, name: str, subtype: str) -> None:
        """A tone keeps its pitch, level and length in each format."""
        soundfile.write(tmp_path / name, tone(SAMPLE_RATE_HZ), SAMPLE_RATE_HZ, subtype=subtype)
        samples = read_audio(tmp_path / name)
        assert samples.dtype == np.float32
        assert samples.flags.c_contiguous
        assert len(samples) == SAMPLE_RATE_HZ // 2
        assert pitch_hz(samples) == pytest.approx(440, abs=2)
        assert np.abs(samples).max() == pytest.approx(0.5, abs=0.05)

    def test_int16_is_exact(self, tmp_path: Path) -> None:
        """A 16-bit file at 16 kHz comes through bit by bit, full scale being 32768."""
        values = np.array([-32768, -1, 0, 1, 32767], np.int16)
        soundfile.write(tmp_path / "a.wav", values, SAMPLE_RATE_HZ)
        np.testing.assert_array_equal(read_audio(tmp_path / "a.wav"), values / np.float32(32768))

    @pytest.mark.parametrize("rate_hz", [4000, 8000, 11025, 22050, 44100, 48000, 96000, 192000])
    def test_rates(self, tmp_path: Path, rate_hz: int) -> None:
        """Each rate is resampled to 16 kHz: same duration, pitch and level."""
        soundfile.write(tmp_path / "a.wav", tone(rate_hz), rate_hz, subtype="FLOAT")
        samples = read_audio(tmp_path / "a.wav")
        assert abs(len(samples) - SAMPLE_RATE_HZ // 2) <= 1
        assert pitch_hz(samples) == pytest.approx(440, abs=2)
        assert np.abs(samples[1000:-1000]).max() == pytest.approx(0.5, abs=0.01)

    @pytest.mark.parametrize("rate_hz", [1000, 384000])
    def test_rates_out_of_range(self, tmp_path: Path, rate_hz: int) -> None:
        """A rate that holds no speech or that nobody has is refused, with its value."""
        soundfile.write(tmp_path / "a.wav", np.zeros(100, "f4"), rate_hz)
        assert f"{rate_hz} Hz" in read_error(tmp_path / "a.wav")

    def test_channels(self, tmp_path: Path) -> None:
        """Channels are averaged, or one is taken."""
        values = np.stack([np.full(1000, 0.5), np.full(1000, -0.25), np.zeros(1000)], axis=1)
        soundfile.write(tmp_path / "a.wav", values, SAMPLE_RATE_HZ, subtype="FLOAT")
        np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), 0.25 / 3, rtol=1e-6)
        np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", channel=1), -0.25)
        assert "no channel 3; choose 0 to 2" in read_error(tmp_path / "a.wav", channel=3)
        assert "no channel -1" in read_error(tmp_path / "a.wav", channel=-1)

    def test_blocks_do_not_change_the_result(self, tmp_path: Path) -> None:
        """Many channels make small blocks; resampling in blocks gives what one block gives."""
        sound = np.repeat(tone(44_100, 1.0)[:, None], 60, axis=1)
        soundfile.write(tmp_path / "many.wav", sound, 44_100, subtype="FLOAT")
        soundfile.write(tmp_path / "one.wav", sound[:, 0], 44_100, subtype="FLOAT")
        many = list(read_blocks(tmp_path / "many.wav", channel=59))
        assert len(many) > 10
        assert all(len(block) for block in many)
        np.testing.assert_allclose(np.concatenate(many), read_audio(tmp_path / "one.wav"), atol=1e-6)

    def test_long_file_needs_little_memory(self, tmp_path: Path) -> None:
        """Ten minutes at 48 kHz stereo (110 MB) stream through while the process grows by less than 30 MB."""
        with soundfile.SoundFile(tmp_path / "long.wav", "w", 48_000, 2, "PCM_16") as file:
            for _ in range(600):
                file.write(np.zeros((48_000, 2), np.int16))
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        total = sum(len(block) for block in read_blocks(tmp_path / "long.wav"))
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
        assert total == 600 * SAMPLE_RATE_HZ
        assert grown_kb < 30_000

    def test_unfinished_header_of_a_pipe(self, tmp_path: Path) -> None:
        """A recorder that wrote to a pipe could not know the length; the file is read as far as it goes."""
        soundfile.write(tmp_path / "a.wav", tone(SAMPLE_RATE_HZ), SAMPLE_RATE_HZ)
        data = bytearray((tmp_path / "a.wav").read_bytes())
        data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
        (tmp_path / "a.wav").write_bytes(data)
        assert len(read_audio(tmp_path / "a.wav")) == SAMPLE_RATE_HZ // 2


class TestRefusedFiles:
    """What is no usable audio is refused with the path, what was seen and what to do."""

    def test_no_file(self, tmp_path: Path) -> None:
        """A missing file, a directory and a device say so."""
        assert "missing.wav is not there; give the path" in read_error(tmp_path / "missing.wav")
        assert f"{tmp_path} is a directory" in read_error(tmp_path)
        assert "no regular file" in read_error(type(tmp_path)("/dev/null"))

    def test_no_sound(self, tmp_path: Path) -> None:
        """Text, nothing, a bare header and a file without samples."""
        (tmp_path / "text.wav").write_text("turn on the light\n" * 20)
        assert "text.wav (360 bytes) is no readable sound file: Format not recognised" in read_error(
            tmp_path / "text.wav"
        )
        (tmp_path / "nothing.wav").write_bytes(b"")
        assert "(0 bytes) is no readable sound file" in read_error(tmp_path / "nothing.wav")
        soundfile.write(tmp_path / "empty.wav", np.zeros(0, "f4"), SAMPLE_RATE_HZ)
        assert "empty.wav holds no audio (0 samples)" in read_error(tmp_path / "empty.wav")
        (tmp_path / "x.raw").write_bytes(bytes(1000))
        assert "has no header" in read_error(tmp_path / "x.raw")

    @pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.ogg", "a.au", "a.caf", "a.w64"])
    def test_truncated(self, tmp_path: Path, name: str) -> None:
        """Half a file is refused, not recognised as half a command."""
        soundfile.write(tmp_path / name, tone(SAMPLE_RATE_HZ, 3.0), SAMPLE_RATE_HZ)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        message = read_error(tmp_path / name)
        assert name in message
        assert "truncated" in message or "malformed" in message

    def test_cut_in_the_header(self, tmp_path: Path) -> None:
        """Every length of a cut header is an error and never a crash."""
        soundfile.write(tmp_path / "a.wav", tone(SAMPLE_RATE_HZ), SAMPLE_RATE_HZ)
        data = (tmp_path / "a.wav").read_bytes()
        for length in range(45):
            (tmp_path / "a.wav").write_bytes(data[:length])
            read_error(tmp_path / "a.wav")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, tmp_path: Path, value: float) -> None:
        """A value that is no number is refused wherever it is, and its place is named."""
        sound = np.zeros((200_000, 2), "f4")
        sound[150_000, 1] = value
        soundfile.write(tmp_path / "a.wav", sound, 48_000, subtype="FLOAT")
        assert "at sample 150000 (3.125 s)" in read_error(tmp_path / "a.wav")
        assert len(read_audio(tmp_path / "a.wav", channel=0)) == pytest.approx(66_667, abs=1)

    def test_double_too_large_for_float(self, tmp_path: Path) -> None:
        """A double that becomes infinite as float32 is refused like an infinite one."""
        soundfile.write(tmp_path / "a.wav", np.array([0.0, 1e300]), SAMPLE_RATE_HZ, subtype="DOUBLE")
        assert "at sample 1 " in read_error(tmp_path / "a.wav")


class TestFrames:
    """A stream of any blocks becomes frames of one size."""

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(0, 3 * FRAME_SAMPLES), max_size=12))
    def test_every_sample_in_order(self, sizes: list[int]) -> None:
        """Whatever the block sizes, nothing is lost, doubled or moved; the end is padded with zeros."""
        stream = np.arange(1, sum(sizes) + 1, dtype="f4")
        made = list(frames(np.split(stream, np.cumsum(sizes)[:-1]) if sizes else []))
        assert len(made) == -(-len(stream) // FRAME_SAMPLES)
        assert all(frame.samples.shape == (FRAME_SAMPLES,) for frame in made)
        assert [frame.start_samples for frame in made] == [i * FRAME_SAMPLES for i in range(len(made))]
        joined = np.concatenate([frame.samples for frame in made]) if made else np.empty(0, "f4")
        np.testing.assert_array_equal(joined[: len(stream)], stream)
        assert not joined[len(stream) :].any()

    def test_frames_own_their_memory(self) -> None:
        """A caller may use one buffer again and again."""
        buffer = np.zeros(FRAME_SAMPLES, "f4")
        stream = frames(buffer for _ in range(2))
        first = next(stream)
        buffer[:] = 1
        assert not first.samples.any()
        assert next(stream).samples.all()


class TestCheckSamples:
    """Arrays from users are accepted in two forms only."""

    def test_accepted(self) -> None:
        """float32 comes back as it is, int16 is scaled."""
        good = np.array([-1, 0, 0.5], "f4")
        assert check_samples(good) is good
        scaled = check_samples(np.array([-32768, 16384], np.int16))
        assert scaled.dtype == np.float32
        np.testing.assert_array_equal(scaled, [-1, 0.5])

    @pytest.mark.parametrize(
        ("array", "seen"),
        [
            ([0.0, 1.0], "not list"),
            (np.zeros(4), "dtype float64, shape (4,), strides (8,)"),
            (np.zeros(4, np.int32), "dtype int32"),
            (np.zeros(4, ">i2"), "dtype >i2"),
            (np.zeros(4, ">f4"), "dtype >f4"),
            (np.zeros(4, object), "dtype object"),
            (np.zeros((4, 2), "f4"), "shape (4, 2)"),
            (np.zeros((), "f4"), "shape ()"),
            (np.zeros(8, "f4")[::2], "strides (8,)"),
            (np.zeros(8, "f4")[::-1], "strides (-4,)"),
            (np.frombuffer(bytes(9), "u1")[1:].view("f4"), "contiguous"),
            (np.array([0, np.nan], "f4"), "nan at sample 1 of 2"),
            (np.array([np.inf, 0], "f4"), "inf at sample 0 of 2"),
        ],
    )
    def test_refused(self, array: Any, seen: str) -> None:
        """Everything else names what was seen."""
        with pytest.raises(AudioFormatError, match="audio must") as caught:
            check_samples(array)
        assert seen in str(caught.value)


def test_converter_takes_interleaved_int16() -> None:
    """Bytes of a sound card, channels interleaved, become one channel."""
    data = struct.pack("<6h", 100, 200, 300, 400, 500, 600)
    converter = Converter(SAMPLE_RATE_HZ, 2, source="card")
    mono = converter.convert(np.frombuffer(data, np.int16))
    np.testing.assert_array_equal(mono * 32768, [150, 350, 550])
    assert len(converter.finish()) == 0
