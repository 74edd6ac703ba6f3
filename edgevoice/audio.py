"""Audio from files and arrays, brought to the one form the engine works on: 16 kHz mono float32.

    file -> libsndfile -> blocks (n, channels) at the file's rate -> Converter (one channel or the mean; soxr)
         -> blocks at 16 kHz -> frames() -> Frame

Everything streams: memory is bounded by one block, whatever the length of the recording.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import soxr

from edgevoice.errors import AudioError, AudioFormatError
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame, Samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_log = logging.getLogger(__name__)

MIN_RATE_HZ: Final = 4_000
"""Below this nothing intelligible is left of speech."""

MAX_RATE_HZ: Final = 192_000
"""The highest rate sound cards and recorders offer."""

_BLOCK_VALUES: Final = 65_536  # read at a time, all channels together: 256 KiB, 4 s of mono at 16 kHz

_STEPS: Final = np.float32(1 << 23)
_INT16_SCALE: Final = np.float32(1 / 32_768)  # a power of two, so the conversion is exact
_SAMPLE_TYPES: Final = (np.dtype(np.float32), np.dtype(np.int16))

_UNKNOWN_LENGTH: Final = 0x7FFF_0000  # recorders writing to a pipe announce a length from here upwards

# libsndfile plays a shortened file without an error; only its log tells. The names are those of the audio
# chunk in WAV, AIFF and AU; W64 logs the size of the whole file only.
_SHORT_CHUNK: Final = re.compile(
    r"^\s*(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE
)


class Converter:
    """Turns the blocks of one stream, at any rate and with any channels, into 16 kHz mono float32.

    Args:
        rate_hz: sampling rate of the stream, MIN_RATE_HZ to MAX_RATE_HZ.
        channels: how many channels its blocks have.
        channel: the one to take, counted from 0; None takes the mean of all.
        source: how error messages name the stream.

    Raises:
        AudioFormatError: a rate out of range or a channel that does not exist.
    """

    def __init__(self, rate_hz: int, channels: int, channel: int | None = None, *, source: str) -> None:
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise AudioFormatError(
                f"{source} has a sampling rate of {rate_hz} Hz; use {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz"
            )
        if channels < 1:
            raise AudioFormatError(f"{source} has {channels} channels; at least one is needed")
        if channel is not None and not 0 <= channel < channels:
            raise AudioFormatError(
                f"{source} has no channel {channel}; choose 0 to {channels - 1}, or none for their mean"
            )
        self._rate_hz = rate_hz
        self._channels = channels
        self._channel = channel
        self._source = source
        self._taken_samples = 0
        self._resampler: Any = (
            None
            if rate_hz == SAMPLE_RATE_HZ
            else soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
        )

    def convert(self, block: npt.NDArray[np.float32] | npt.NDArray[np.int16]) -> Samples:
        """Convert the next block of the stream.

        Args:
            block: shape (n, channels) or, for one channel, (n,); int16 is scaled by 1/32768.

        Returns:
            What is ready at 16 kHz, possibly nothing: the resampler holds back a few milliseconds.

        Raises:
            AudioFormatError: a sample is NaN or infinite; the text says where.
        """
        rows = block.reshape(-1, self._channels)
        values = rows.astype(np.float32) * _INT16_SCALE if rows.dtype == np.int16 else rows
        if self._channel is not None:
            mono = np.ascontiguousarray(values[:, self._channel], dtype=np.float32)
        elif self._channels == 1:
            mono = np.ascontiguousarray(values[:, 0], dtype=np.float32)
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # reported just below, with the place
                mono = values.mean(axis=1, dtype=np.float32)
        if rows.dtype != np.int16 and not np.isfinite(mono).all():
            first = int(np.argmin(np.isfinite(mono)))
            at_samples = self._taken_samples + first
            raise AudioFormatError(
                f"{self._source} holds a value that is no number ({mono[first]}) at sample {at_samples} "
                f"({at_samples / self._rate_hz:.3f} s); write it again from a sound source"
            )
        self._taken_samples += len(mono)
        return mono if self._resampler is None else self._resample(mono, last=False)

    def finish(self) -> Samples:
        """End the stream and return what the resampler still held; call it once."""
        rest = np.empty(0, np.float32)
        return rest if self._resampler is None else self._resample(rest, last=True)

    def _resample(self, mono: Samples, *, last: bool) -> Samples:
        resampled: Samples = self._resampler.resample_chunk(mono, last=last)
        return resampled


def read_blocks(path: str | os.PathLike[str], *, channel: int | None = None) -> Iterator[Samples]:
    """Stream a recording as 16 kHz mono float32, in blocks of any size, with bounded memory.

    Args:
        path: WAV, FLAC, OGG, AIFF, MP3 or whatever else libsndfile reads; 4 to 192 kHz, any channels,
            integer or float samples.
        channel: the channel to take, counted from 0; None takes the mean of all.

    Returns:
        Blocks that are never empty. The file is opened at once and closed at its end.

    Raises:
        AudioFormatError: no such file, no audio, empty, truncated, or a sample that is NaN or infinite;
            what only reading can show is raised while iterating.
        AudioError: libsndfile is not installed.
    """
    file = _open(Path(path))
    try:
        converter = Converter(int(file.samplerate), int(file.channels), channel, source=str(path))
    except AudioFormatError:
        file.close()
        raise
    return _blocks(file, converter, Path(path))


def duration_s(path: str | os.PathLike[str]) -> float:
    """Return how long a recording says it is, in seconds, without reading it; errors as of read_blocks."""
    with _open(Path(path)) as file:
        return int(file.frames) / int(file.samplerate)


def read_audio(path: str | os.PathLike[str], *, channel: int | None = None) -> Samples:
    """Read a whole recording into memory (64 KB per second); arguments and errors as of read_blocks."""
    blocks = list(read_blocks(path, channel=channel))
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)


def frames(blocks: Iterable[npt.NDArray[Any]]) -> Iterator[Frame]:
    """Cut a stream of blocks of any size into frames.

    Args:
        blocks: arrays as check_samples() accepts them, 16 kHz mono.

    Yields:
        Frames of FRAME_SAMPLES in their own memory; the last one is padded with zeros.

    Raises:
        AudioFormatError: a block is none that check_samples() accepts.
    """
    framer = Framer()
    for block in blocks:
        yield from framer.push(check_samples(block))
    yield from framer.finish()


class Framer:
    """Cuts a stream into frames in their own memory, for whoever is given it piece by piece."""

    def __init__(self) -> None:
        self.length_samples = 0
        """Of the frames so far."""
        self._pending = np.zeros(FRAME_SAMPLES, np.float32)
        self._filled = 0

    def push(self, samples: Samples) -> Iterator[Frame]:
        """Yield the frames that a piece of any size completes."""
        taken = 0
        while taken < len(samples):
            count = min(FRAME_SAMPLES - self._filled, len(samples) - taken)
            self._pending[self._filled : self._filled + count] = samples[taken : taken + count]
            self._filled += count
            taken += count
            if self._filled == FRAME_SAMPLES:
                yield self._frame()

    def finish(self) -> Iterator[Frame]:
        """Yield the last frame, padded with zeros, if there is a rest."""
        if self._filled:
            yield self._frame()

    def _frame(self) -> Frame:
        # In steps of 24 bits, which is what sound cards have at the most, a frame can be kept as it is.
        # Numbers from 1 on have no finer steps.
        rounded = np.rint(np.clip(self._pending, -1, 1) * _STEPS) / _STEPS
        np.copyto(self._pending, rounded, where=np.abs(self._pending) < 1)
        frame = Frame(self._pending, self.length_samples)
        self.length_samples += FRAME_SAMPLES
        self._pending = np.zeros(FRAME_SAMPLES, np.float32)
        self._filled = 0
        return frame


def check_samples(array: npt.NDArray[Any]) -> Samples:
    """Accept an array from a user, or say what is wrong with it; the only place where that is decided.

    Args:
        array: 16 kHz mono, 1-D and C-contiguous: int16, which is scaled by 1/32768, or finite float32.

    Returns:
        The same array if it is float32, else a new one.

    Raises:
        AudioFormatError: anything else; the text names type, shape and strides seen.
    """
    if not isinstance(array, np.ndarray):
        raise AudioFormatError(f"audio must be a numpy array of int16 or float32, not {type(array).__name__}")
    if array.dtype not in _SAMPLE_TYPES:
        raise AudioFormatError(
            f"audio must be float32 in [-1, 1] or int16, {_seen(array)}; convert it with astype()"
        )
    if array.ndim != 1:
        raise AudioFormatError(
            f"audio must be one channel in one dimension, {_seen(array)}; choose or mix channels"
        )
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise AudioFormatError(
            f"audio must lie contiguous in memory, {_seen(array)}; use numpy.ascontiguousarray()"
        )
    if array.dtype == np.int16:
        return array.astype(np.float32) * _INT16_SCALE
    finite = np.isfinite(array)
    if not finite.all():
        first = int(np.argmin(finite))
        raise AudioFormatError(
            f"audio must be finite, got {array[first]} at sample {first} of {len(array)}; look at its source"
        )
    return array


def _seen(array: npt.NDArray[Any]) -> str:
    return f"got dtype {array.dtype}, shape {array.shape}, strides {array.strides}"


def _open(path: Path) -> Any:
    """Open a sound file, or raise an error that says what the path is instead."""
    try:
        import soundfile  # noqa: PLC0415 - it loads a C library, which arrays and microphones do without
    except (ImportError, OSError) as error:
        raise AudioError(
            f"sound files need libsndfile, which cannot be loaded ({error}); install the package libsndfile1"
        ) from error
    try:
        if not path.is_file():
            seen = "a directory" if path.is_dir() else "no regular file" if path.exists() else "not there"
            raise AudioFormatError(f"{path} is {seen}; give the path of a WAV or FLAC file")
        with path.open("rb"):  # libsndfile does not say why it cannot open
            size_bytes = path.stat().st_size
    except OSError as error:
        raise AudioFormatError(f"{path} cannot be read ({error}); check path and permissions") from error
    if path.suffix.lower() == ".raw":
        raise AudioFormatError(
            f"{path} has no header that tells its rate; convert it to WAV or feed it as raw samples"
        )
    try:
        file = soundfile.SoundFile(os.fsencode(path))  # soundfile encodes names strictly
    except soundfile.LibsndfileError as error:
        raise AudioFormatError(
            f"{path} ({size_bytes} bytes) is no readable sound file: {error.error_string.rstrip('.')}; "
            "give a complete WAV, FLAC, OGG, AIFF or MP3 file"
        ) from error
    try:
        _check_length(file, path)
    except AudioFormatError:
        file.close()
        raise
    return file


def _check_length(file: Any, path: Path) -> None:
    """Refuse a file without samples, or with fewer than its header promises."""
    for promised, present in _SHORT_CHUNK.findall(file.extra_info):
        if int(present) < int(promised) < _UNKNOWN_LENGTH:
            raise AudioFormatError(
                f"{path} is truncated: its header promises {promised} bytes, {present} are there; "
                "copy or record it again"
            )
    if file.frames == 0:
        raise AudioFormatError(f"{path} holds no audio (0 samples); record it again")


def _blocks(file: Any, converter: Converter, path: Path) -> Iterator[Samples]:
    """Read, convert and finally compare the length with the one announced."""
    import soundfile  # noqa: PLC0415 - loaded by _open()

    rate_hz = int(file.samplerate)
    block_frames = max(1, _BLOCK_VALUES // int(file.channels))
    read_frames = 0
    with file:
        while True:
            try:
                block = file.read(block_frames, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise AudioFormatError(
                    f"{path} is damaged or truncated after {read_frames / rate_hz:.3f} s "
                    f"({error.error_string.rstrip('.')}); copy or record it again"
                ) from error
            if len(block) == 0:
                break
            read_frames += len(block)
            converted = converter.convert(block)
            if len(converted):
                yield converted
        if read_frames < file.frames:
            missing = (
                f"ends after {read_frames / rate_hz:.3f} s of the {file.frames / rate_hz:.3f} s announced"
            )
            if file.format != "MP3":  # an MP3 file without a length in its header has an estimated one
                raise AudioFormatError(f"{path} is truncated: it {missing}; copy or record it again")
            _log.warning("%s %s", path, missing)
    converted = converter.finish()
    if len(converted):
        yield converted
