"""Where speech is, by Silero, and a transcription of that alone: upstream's --vad, with times put right.

What of whisper.h it stands for: whisper_vad_segments_from_samples, and `vad`, `vad_params` of
whisper_full_params, which whisper_full takes only with its own state.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgevoice.audio import check_samples
from edgevoice.errors import UsageError
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.native import VoiceDetector, check, ffi, lib
from edgevoice.whisper.options import Options, check_range
from edgevoice.whisper.results import Segment, Timings, Transcription, retimed
from edgevoice.whisper.session import MIN_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from edgevoice.whisper.session import CancelToken, Session

_GAP_SAMPLES: Final = SAMPLE_RATE_HZ // 10
"""Of silence between two pieces of speech, as upstream puts it."""

_CS: Final = SAMPLE_RATE_HZ // 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechOptions:
    """How speech is told from silence; the defaults are those of upstream's whisper_vad_default_params."""

    threshold: float = 0.5
    """Probability from which on it is speech."""

    min_speech_ms: int = 250
    min_silence_ms: int = 100
    """Less silence is part of the speech around it."""

    max_speech_s: float = 1e6
    """Longer speech is cut."""

    pad_ms: int = 30
    """Taken with it before and after."""

    overlap_s: float = 0.1
    """Taken with it after all but the last, 0-10."""

    def __post_init__(self) -> None:
        """Check what C does not see.

        Raises:
            UsageError: as find_speech() for the others.
        """
        check_range("overlap_s", self.overlap_s, 0, 10)


def find_speech(
    samples: npt.NDArray[Any], options: SpeechOptions | None = None, *, detector: VoiceDetector | None = None
) -> list[tuple[float, float]]:
    """Return where speech begins and ends, seconds.

    Args:
        samples: 1-D, 16 kHz mono, int16 or float32, up to 12 h.
        options: by default those of upstream.
        detector: one that is there already; by default a new one.

    Raises:
        AudioFormatError: other audio.
        UsageError: an option outside its range.
    """
    options = options or SpeechOptions()
    samples = check_samples(samples)
    if detector is None:
        with VoiceDetector() as own:
            return find_speech(samples, options, detector=own)
    n = ffi.new("size_t *")
    out = ffi.new("int64_t[]", 2 * (len(samples) // 512 + 2))  # each piece has a window at least
    try:
        with detector._use() as pointer:  # noqa: SLF001
            check(
                lib.ev_vad_speech(
                    pointer,
                    ffi.from_buffer("float[]", samples),
                    len(samples),
                    options.threshold,
                    options.min_speech_ms,
                    options.min_silence_ms,
                    options.max_speech_s,
                    options.pad_ms,
                    out,
                    len(out),
                    n,
                )
            )
    except (OverflowError, TypeError) as error:
        raise UsageError(f"an option is no number in its range ({error}): {options}") from None
    found = ffi.unpack(out, n[0]) if n[0] else []
    return [(start / 100, end / 100) for start, end in zip(found[::2], found[1::2], strict=True)]


def transcribe_speech(
    session: Session,
    samples: npt.NDArray[Any],
    options: Options | None = None,
    *,
    speech: SpeechOptions | None = None,
    timeout_s: float | None = None,
    cancel: CancelToken | None = None,
    on_segments: Callable[[float, Sequence[Segment]], None] | None = None,
) -> Transcription:
    """Transcribe only where somebody speaks; times are those of the whole audio.

    Takes and raises what find_speech() and Session.transcribe() do. Without speech there are no segments.
    """
    speech = speech or SpeechOptions()
    options = options or Options()
    if options.start_s or options.duration_s is not None:
        raise UsageError("start_s and duration_s do not go with speech alone; give the part of the array")
    samples = check_samples(samples)
    pieces = find_speech(samples, speech)
    audio, clock = _cut(samples, pieces, speech.overlap_s)
    if len(audio) < MIN_SAMPLES:
        language = options.language or session.model.languages[0]
        return Transcription((), language, len(samples) / SAMPLE_RATE_HZ, Timings())

    def shown(done: float, segments: Sequence[Segment]) -> None:
        if on_segments is not None:
            on_segments(done, [retimed(segment, clock.at) for segment in segments])

    found = session.transcribe(audio, options, timeout_s=timeout_s, cancel=cancel, on_segments=shown)
    return replace(
        found,
        segments=tuple(retimed(segment, clock.at) for segment in found.segments),
        duration_s=len(samples) / SAMPLE_RATE_HZ,
    )


class _Clock:
    """Times of cut audio -> times of the whole, between whose known points it goes evenly."""

    def __init__(self) -> None:
        self._cut: list[float] = []
        self._whole: list[float] = []

    def point(self, cut_s: float, whole_s: float) -> None:
        if not self._cut or cut_s > self._cut[-1]:
            self._cut.append(cut_s)
            self._whole.append(whole_s)

    def at(self, cut_s: float) -> float:
        after = bisect_right(self._cut, cut_s)
        if after == 0:
            return self._whole[0]
        if after == len(self._cut):
            return self._whole[-1]
        share = (cut_s - self._cut[after - 1]) / (self._cut[after] - self._cut[after - 1])
        return self._whole[after - 1] + share * (self._whole[after] - self._whole[after - 1])


def _cut(
    samples: npt.NDArray[np.float32], pieces: Sequence[tuple[float, float]], overlap_s: float
) -> tuple[npt.NDArray[np.float32], _Clock]:
    """Join the pieces with silence between them."""
    parts: list[npt.NDArray[np.float32]] = []
    clock, length = _Clock(), 0
    for i, (start_s, end_s) in enumerate(pieces):
        last = i == len(pieces) - 1
        start = round(start_s * 100) * _CS
        end = round(end_s * 100) * _CS
        piece = samples[start : end + (0 if last else round(overlap_s * SAMPLE_RATE_HZ))]
        clock.point(length / SAMPLE_RATE_HZ, start_s)
        clock.point((length + min(end, len(samples)) - start) / SAMPLE_RATE_HZ, end_s)
        parts.append(piece)
        length += len(piece)
        if not last:
            clock.point(length / SAMPLE_RATE_HZ, end_s)
            parts.append(np.zeros(_GAP_SAMPLES, np.float32))
            length += _GAP_SAMPLES
    return (np.concatenate(parts) if parts else np.zeros(0, np.float32)), clock
