"""Parts of a recording, window by window: what upstream's own loop over the windows of 30 seconds has not.

    parts -> windows, each from where the last one's text ends -> Session -> its language, if each has its own
        -> texts that are made up, in silence, left out, if there is speech after it: the next window there
        -> one Transcription, with times of the whole

Windows follow one another as upstream's do; each has a spectrogram of its own, and knows the text before it.
The rules for texts that are made up are those of openai/whisper (`hallucination_silence_threshold` in
whisper/transcribe.py).
"""

from __future__ import annotations

import time
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from edgevoice.errors import UsageError
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.whisper.options import Options, check_range
from edgevoice.whisper.results import Timings, Transcription, retimed
from edgevoice.whisper.session import MIN_SAMPLES, Window, check_audio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from edgevoice.events import Samples
    from edgevoice.whisper.results import Segment, Word
    from edgevoice.whisper.session import CancelToken, OnSegments, Session

WINDOW_S: Final = 30.0
_MOST_SAID: Final = 224
"""Tokens: half of the decoder's window, as upstream has it."""

_LEAST_S: Final = 0.02
"""A timestamp; a window that takes less would be the same again."""

_MIN_S: Final = MIN_SAMPLES / SAMPLE_RATE_HZ
_SILENCE_S: Final = (0.1, WINDOW_S)


def transcribe_parts(
    session: Session,
    samples: npt.NDArray[Any],
    parts: Sequence[tuple[float, float | None]] = ((0.0, None),),
    options: Options | None = None,
    *,
    each_language: bool = False,
    hallucination_silence_s: float | None = None,
    timeout_s: float | None = None,
    cancel: CancelToken | None = None,
    on_segments: OnSegments | None = None,
) -> Transcription:
    """Transcribe parts of audio; times are those of the whole.

    Args:
        session: is used until this returns.
        samples: as of Session.transcribe().
        parts: from, to, in seconds, one after the other; None: to the end. By default all.
        options: as of Session.transcribe(), without start_s and duration_s.
        each_language: detect the language of each window of 30 seconds, see Segment.language; the encoder
            runs twice. By default that of the first is the language of all.
        hallucination_silence_s: leave out texts that are likely made up, with so much silence around them,
            0.1-30, and go on where they would begin. Needs Options.word_times, best with an alignment.
        timeout_s: as of Session.transcribe(), for all of it.
        cancel: likewise.
        on_segments: likewise.

    Raises:
        UsageError: parts that are none, or options that have no effect.
        EdgevoiceError: as Session.transcribe().
    """
    options = options or Options()
    samples = check_audio(samples)
    bounds = _bounds(parts, len(samples) / SAMPLE_RATE_HZ)
    _check(session, options, each_language, hallucination_silence_s)
    windows = _Windows(
        session,
        samples,
        options,
        each_language=each_language,
        silence_s=hallucination_silence_s,
        timeout_s=timeout_s,
        cancel=cancel,
    )
    length_s, done_s = sum(end_s - start_s for start_s, end_s in bounds), 0.0
    with session._use() as pointer:  # noqa: SLF001
        for start_s, end_s in bounds:
            for at_s, found in windows.of(pointer, start_s, end_s):
                if on_segments is not None:
                    on_segments((done_s + min(at_s, end_s) - start_s) / length_s, found)
            done_s += end_s - start_s
            if windows.aborted:
                break
    return windows.result()


def _bounds(parts: Sequence[tuple[float, float | None]], length_s: float) -> list[tuple[float, float]]:
    try:
        pairs = [(float(start), length_s if end is None else float(end)) for start, end in parts]
    except (TypeError, ValueError):
        raise UsageError(f"parts are pairs of seconds, such as (0, 12.5), got {parts!r}") from None
    last_s = 0.0
    for start_s, end_s in pairs:
        if not (last_s <= start_s and start_s + _MIN_S <= end_s <= length_s + _LEAST_S):
            raise UsageError(
                f"parts are 0.1 s at least, one after the other, within the {length_s:g} s of audio; got "
                f"{start_s:g} to {end_s:g}"
            )
        last_s = end_s
    if not pairs:
        raise UsageError("there are no parts; leave them out to transcribe all")
    return [(start_s, min(end_s, length_s)) for start_s, end_s in pairs]


def _check(session: Session, options: Options, each_language: bool, silence_s: float | None) -> None:
    if options.start_s or options.duration_s is not None:
        raise UsageError("start_s and duration_s do not go with parts; give them as a part")
    if each_language and (options.language not in (None, "auto") or not session.model.info.multilingual):
        raise UsageError(
            "each_language has no effect: the language is given, or the model knows only English"
        )
    if silence_s is not None:
        check_range("hallucination_silence_s", silence_s, *_SILENCE_S)
        if not options.word_times:
            raise UsageError("hallucination_silence_s needs times of words; set word_times")


class _Windows:
    def __init__(
        self,
        session: Session,
        samples: Samples,
        options: Options,
        *,
        each_language: bool,
        silence_s: float | None,
        timeout_s: float | None,
        cancel: CancelToken | None,
    ) -> None:
        self._session, self._samples, self._options = session, samples, options
        self._each_language, self._silence_s, self._cancel = each_language, silence_s, cancel
        self._deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._found: list[Transcription] = []
        self._segments: list[Segment] = []
        self._said: tuple[int, ...] = ()
        self._spoke_until_s = 0.0

    @property
    def aborted(self) -> bool:
        return bool(self._found) and self._found[-1].aborted is not None

    def of(self, pointer: Any, start_s: float, end_s: float) -> Iterator[tuple[float, Sequence[Segment]]]:
        """Transcribe a part, and yield after each window where the next begins, and its segments."""
        seek_s = start_s
        while end_s - seek_s > _MIN_S - 1e-6 and not self.aborted:
            until_s = min(end_s, seek_s + WINDOW_S)
            segments, next_s = self._window(pointer, seek_s, until_s)
            if self._silence_s is not None:
                span = Span(seek_s, until_s, next_s, end_s)
                segments, next_s = without_invented(segments, span, self._spoke_until_s, self._silence_s)
            if not seek_s + _LEAST_S <= next_s <= until_s - _LEAST_S:
                next_s = until_s
            self._spoke_until_s = max(
                (word.end_s for segment in segments for word in segment.words), default=self._spoke_until_s
            )
            self._segments += segments
            self._said += tuple(token.id for segment in segments for token in segment.tokens)
            self._said = self._said[-_MOST_SAID:]
            seek_s = next_s
            yield seek_s, segments

    def _window(self, pointer: Any, start_s: float, end_s: float) -> tuple[list[Segment], float]:
        options = self._options
        if self._found and not self._each_language:
            options = replace(options, language=self._found[0].language)
        first, end = round(start_s * SAMPLE_RATE_HZ), round(end_s * SAMPLE_RATE_HZ)
        left_s = None if self._deadline_s is None else max(0.001, self._deadline_s - time.monotonic())
        window = Window(self._said)
        found = self._session._transcribe(  # noqa: SLF001
            pointer,
            self._samples[first : max(end, first + MIN_SAMPLES)],
            options,
            timeout_s=left_s,
            cancel=self._cancel,
            on_segments=None,
            window=window,
        )
        self._found.append(found)
        # Whisper may write a time after the end of the audio.
        segments = [retimed(each, lambda s: min(s + start_s, end_s)) for each in found.segments]
        return segments, start_s + window.next_s

    def result(self) -> Transcription:
        """Return all that was found."""
        times = zip(*(astuple(each.timings) for each in self._found), strict=True)
        return Transcription(
            segments=tuple(self._segments),
            language=self._found[0].language,
            duration_s=len(self._samples) / SAMPLE_RATE_HZ,
            timings=Timings(*map(sum, times)),
            language_probabilities=self._found[0].language_probabilities,
            aborted=self._found[-1].aborted,
        )


# ---- what is made up: rules of openai/whisper, its numbers included ----

_PUNCTUATION: Final = "\"'“¿([{-.。,，!！?？:：”)]}、"  # noqa: RUF001 - Chinese and Japanese marks
_FIRST_WORDS: Final = 8
_EDGE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Span:
    """A window in its part."""

    start_s: float
    until_s: float
    next_s: float
    """Where the next one begins; `until_s` if nothing is said after its last text."""

    end_s: float
    """Of the part."""


def without_invented(
    segments: list[Segment], window: Span, spoke_until_s: float, silence_s: float
) -> tuple[list[Segment], float]:
    """Return the segments of a window that are likely said, and where the next window begins.

    Args:
        segments: of the window, with words.
        window: where it is.
        spoke_until_s: where the last word before it ends.
        silence_s: how much makes a text in it doubtful.
    """
    start_s, until_s, next_s = window.start_s, window.until_s, window.next_s
    last_word_s = max((word.end_s for segment in segments for word in segment.words), default=start_s)
    if next_s < until_s and last_word_s > start_s:
        next_s = last_word_s if last_word_s < until_s - silence_s else until_s
    spoken = [segment for segment in segments if segment.words]
    if spoken and _is_odd(spoken[0]) and spoken[0].start_s - start_s > silence_s:
        return [], spoken[0].start_s  # it may be heard better from there
    for i, segment in enumerate(spoken):
        following = spoken[i + 1] if i + 1 < len(spoken) else None
        after_s = following.words[0].start_s if following else until_s
        silent_before = (
            segment.start_s - spoke_until_s > silence_s
            or segment.start_s < silence_s
            or segment.start_s - start_s < _EDGE_S
        )
        silent_after = (
            after_s - segment.end_s > silence_s
            or (following is not None and _is_odd(following))
            or until_s - segment.end_s < _EDGE_S
        )
        if _is_odd(segment) and silent_before and silent_after:
            next_s = max(start_s + 1, segment.start_s)
            if window.end_s - segment.end_s < silence_s:
                next_s = until_s
            return segments[: segments.index(segment)], next_s
        spoke_until_s = segment.end_s
    return segments, next_s


def _is_odd(segment: Segment) -> bool:
    """Whether the first words are unlikely, or too short or too long for words."""
    words = [word for word in segment.words if word.text.strip() not in _PUNCTUATION][:_FIRST_WORDS]
    score = sum(_oddity(word) for word in words)
    return score >= 3 or score + 0.01 >= len(words)


def _oddity(word: Word) -> float:
    length_s = word.end_s - word.start_s
    return (word.probability < 0.15) + max(0.0, 0.133 - length_s) * 15 + max(0.0, length_s - 2.0)
