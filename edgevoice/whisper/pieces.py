"""A recording of any length, read as it is needed and transcribed in pieces of ten minutes.

    blocks of audio -> pieces, cut where it is quietest -> Session.transcribe() or transcribe_speech()
        -> one Transcription, with times of the whole

transcribe_parallel() does several pieces at the same time instead.

What is no longer than a piece is transcribed as Session.transcribe() does it. In longer recordings each piece
knows the text before it, and has the language that was detected in the first.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgevoice.audio import check_samples
from edgevoice.errors import AudioFormatError, UsageError
from edgevoice.events import SAMPLE_RATE_HZ, Samples
from edgevoice.whisper.options import THREADS, Options, check_range
from edgevoice.whisper.results import Timings, Transcription, retimed
from edgevoice.whisper.session import MIN_SAMPLES, CancelToken, check_audio
from edgevoice.whisper.speech import transcribe_speech

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy.typing as npt

    from edgevoice.whisper.model import Model
    from edgevoice.whisper.results import Segment
    from edgevoice.whisper.session import Session
    from edgevoice.whisper.speech import SpeechOptions

PIECE_S: Final = 600
"""38 MB of audio and half as much of spectrogram; of its twenty windows of 30 s one has less to look at."""

SPEECH_PIECE_S: Final = 120
"""Where speech is looked for: the detector takes 0.4 % of the time of its audio, and cannot be cancelled."""

_LOOK_S: Final = 30
"""At the end of a piece, where its cut is looked for: nobody speaks longer without a breath."""

_PAUSE: Final = SAMPLE_RATE_HZ // 5
"""0.2 s: a pause between sentences; the silence within a "t" is a third of it."""

_STEP: Final = SAMPLE_RATE_HZ // 50


def transcribe_blocks(
    session: Session,
    blocks: Iterable[Samples],
    options: Options | None = None,
    *,
    speech: SpeechOptions | None = None,
    cancel: CancelToken | None = None,
    on_progress: Callable[[float, Sequence[Segment]], None] | None = None,
) -> Transcription:
    """Transcribe audio as audio.read_blocks() gives it, with memory for ten minutes of it.

    Args:
        session: is used until this returns.
        blocks: 1-D, 16 kHz mono, of any length; in all 0.1 s at least.
        options: as of Session.transcribe(); `start_s` and `duration_s` would be those of each piece.
        speech: transcribe only where speech is, as transcribe_speech(); None: all.
        cancel: ends it, with what is there so far, `aborted`.
        on_progress: called with the seconds of audio that are done, and the segments found since.

    Raises:
        EdgevoiceError: as Session.transcribe().
    """
    options = options or Options()
    whole = Transcription((), options.language or "en", 0.0, Timings())
    for piece in _pieces(blocks, PIECE_S if speech is None else SPEECH_PIECE_S):
        offset_s = whole.duration_s
        if len(piece) < MIN_SAMPLES and offset_s:
            whole = replace(whole, duration_s=offset_s + len(piece) / SAMPLE_RATE_HZ)
            break

        def shown(
            done: float, segments: Sequence[Segment], offset_s: float = offset_s, length: int = len(piece)
        ) -> None:
            if on_progress is not None:
                done_s = offset_s + done * length / SAMPLE_RATE_HZ
                on_progress(done_s, [retimed(each, lambda s: s + offset_s) for each in segments])

        if speech is None:
            found = session.transcribe(piece, options, cancel=cancel, on_segments=shown)
        else:
            found = transcribe_speech(
                session, piece, options, speech=speech, cancel=cancel, on_segments=shown
            )
        whole = _joined(whole, found)
        if found.aborted:
            break
        options = _following(options, found)
    if not whole.duration_s:
        raise AudioFormatError("there is no audio; give 0.1 s at least")
    return whole


def transcribe_parallel(
    model: Model,
    samples: npt.NDArray[Any],
    options: Options | None = None,
    *,
    jobs: int = 2,
    timeout_s: float | None = None,
    cancel: CancelToken | None = None,
) -> Transcription:
    """Transcribe audio in so many pieces at the same time, each in a session and a thread of its own.

    A core that is left gains more so than by Options.threads: see docs/whisper.md. A piece does not know the
    text before it; it is cut where it is quietest near its end, and a word that is cut is lost. There are
    fewer pieces if they were less than a minute long.

    Args:
        model: has room for the sessions: Model.type.session_bytes each.
        samples: as of Session.transcribe().
        options: likewise, for each piece, without start_s, duration_s and context.
        jobs: 1-64; each runs Options.threads.
        timeout_s: as of Session.transcribe(), for each piece; what is found before the first that ends early
            is returned.
        cancel: likewise; is cancelled when something fails.

    Raises:
        UsageError: options that have no effect.
        EdgevoiceError: as Session.transcribe().
    """
    options, samples = options or Options(), check_audio(samples)
    check_range("jobs", jobs, *THREADS)
    if options.start_s or options.duration_s is not None or options.context:
        raise UsageError("start_s, duration_s and context do not go with pieces; give the part of the array")
    cancel = cancel or CancelToken()
    pieces = _shares(samples, jobs)
    if len(pieces) > 1 and options.language in (None, "auto") and model.info.multilingual:
        with model.session() as session:
            found = session.detect_language(samples, threads=options.threads, cancel=cancel)
        options = replace(options, language=next(iter(found)))
    else:
        found = {}

    def transcribed(piece: Samples) -> Transcription:
        with model.session() as session:
            return session.transcribe(piece, options, timeout_s=timeout_s, cancel=cancel)

    whole = Transcription((), options.language or "en", 0.0, Timings())
    with ThreadPoolExecutor(len(pieces), "edgevoice-whisper") as pool:
        try:
            for each in pool.map(transcribed, pieces):
                if whole.aborted is None:
                    whole = _joined(whole, each)
        except BaseException:
            cancel.cancel()
            raise
    return replace(
        whole,
        duration_s=len(samples) / SAMPLE_RATE_HZ,
        language_probabilities=found or whole.language_probabilities,
    )


def _shares(samples: Samples, n: int) -> list[Samples]:
    """Cut audio in `n` pieces about as long, or fewer if they were less than a minute."""
    n = max(1, min(n, len(samples) // (2 * _LOOK_S * SAMPLE_RATE_HZ)))
    half = _LOOK_S * SAMPLE_RATE_HZ // 2
    cuts = [_quietest(samples[: len(samples) * i // n + half]) for i in range(1, n)]
    return [samples[start:end] for start, end in itertools.pairwise([0, *cuts, len(samples)])]


def _following(options: Options, found: Transcription) -> Options:
    """Return the options for the next piece."""
    if found.language_probabilities:
        options = replace(options, language=found.language)
    if options.max_context == 0:
        return options
    if not options.carry_prompt:
        options = replace(options, prompt="", prompt_tokens=())
    return replace(options, context=True)


def _joined(before: Transcription, after: Transcription) -> Transcription:
    offset_s = before.duration_s
    detected = after.language_probabilities and not before.language_probabilities
    times = zip(astuple(before.timings), astuple(after.timings), strict=True)
    return Transcription(
        segments=before.segments + tuple(retimed(each, lambda s: s + offset_s) for each in after.segments),
        language=before.language if offset_s and not detected else after.language,
        duration_s=offset_s + after.duration_s,
        timings=Timings(*map(sum, times)),
        language_probabilities=before.language_probabilities or after.language_probabilities,
        aborted=after.aborted,
    )


def _pieces(blocks: Iterable[Samples], most_s: int) -> Iterator[Samples]:
    """Yield arrays that are good until the next is asked for."""
    room = np.empty(most_s * SAMPLE_RATE_HZ, np.float32)
    filled = 0
    for block in blocks:
        rest = check_samples(block)
        while len(rest):
            if filled == len(room):
                cut = _quietest(room)
                yield room[:cut]
                filled -= cut
                room[:filled] = room[cut:]
            taken = min(len(rest), len(room) - filled)
            room[filled : filled + taken] = rest[:taken]
            filled += taken
            rest = rest[taken:]
    if filled:
        yield room[:filled]


def _quietest(samples: Samples) -> int:
    """Return the middle of the quietest 0.2 s near the end; of several that are as quiet the last."""
    first = len(samples) - _LOOK_S * SAMPLE_RATE_HZ
    with np.errstate(over="ignore"):  # samples far beyond full scale are loud
        power = np.square(samples[first:]).reshape(-1, _STEP).mean(axis=1, dtype=np.float64)
    windows = np.convolve(power, np.ones(_PAUSE // _STEP), "valid")[::-1]
    last = len(windows) - 1 - int(np.argmin(windows))
    return first + last * _STEP + _PAUSE // 2
