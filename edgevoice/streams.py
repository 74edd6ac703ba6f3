"""Long streams made of recordings of commands, whose every start and end is known, and what became of them.

recordings with labelled speech -> compose() -> Stream -> Pipeline -> Heard -> judge() -> scores

Long recordings that have labels themselves are judged without a grammar, by where speech begins and ends:

recording with segments -> Vad -> Endpointer -> judge_segments() -> scores
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgevoice.audio import read_audio
from edgevoice.errors import UsageError
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ
from edgevoice.mixing import max_frame, noise_piece
from edgevoice.scores import agrees

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgevoice.endpoint import EndpointOptions
    from edgevoice.events import Result, Samples, ScoredFrame, Utterance
    from edgevoice.recordings import Recording

PAUSES_S: Final = (0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 4.5, 6.0)
"""Between two commands; each is as likely."""

APART_S: Final = 1.5
"""From this pause on, two commands must be two utterances."""

_MARGIN_S: Final = 0.25  # of each recording's own silence; labels by energy miss soft sounds
_FADE_S: Final = 0.02
_PEAK: Final = 0.5  # of speech and noise together
_ROOM: Final = 10 ** (-75 / 20)  # a quiet room, RMS: digital silence is found nowhere
_TOLERANCE_S: Final = 0.1  # no word is shorter


@dataclass(frozen=True, slots=True)
class Said:
    """A command in a stream."""

    recording: Recording
    start_s: float
    end_s: float
    pause_s: float
    """The shorter one of the pauses around it."""


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Audio and what is said in it, in order."""

    samples: Samples
    said: tuple[Said, ...]


def compose(
    orders: Sequence[Recording], noise: Samples | None, snr_db: float, choice: np.random.Generator
) -> Stream:
    """Join commands with pauses between them.

    Args:
        orders: with labels where their speech begins and ends.
        noise: goes on through the whole stream, a piece of it after the other; None: a quiet room.
        snr_db: how far the loudest moment of every command is above that of the noise; see mixing.mix().
        choice: of pauses and pieces.

    Raises:
        UsageError: a recording has no labels.
    """
    pauses_s = choice.choice(PAUSES_S, len(orders) + 1).tolist()
    pieces, spans = [], []
    at_s = 0.0
    for order, pause_s in zip(orders, pauses_s[:-1], strict=True):
        piece, speech_s = _cut(order)
        pieces.append(piece)
        spans.append((at_s + pause_s, at_s + pause_s + speech_s))
        at_s = spans[-1][1]
    samples = _ROOM * choice.standard_normal(round((at_s + pauses_s[-1]) * SAMPLE_RATE_HZ))
    if noise is not None:
        noisy = noise_piece(noise, len(samples), choice).astype(np.float64)
        samples += noisy * np.sqrt(10 ** (-snr_db / 10) / max_frame(noisy.astype(np.float32)))
    for piece, (start_s, _) in zip(pieces, spans, strict=True):
        first = round((start_s - _MARGIN_S) * SAMPLE_RATE_HZ)
        samples[first : first + len(piece)] += piece[: len(samples) - first]
    said = tuple(
        Said(order, *span, min(pauses_s[i : i + 2]))
        for i, (order, span) in enumerate(zip(orders, spans, strict=True))
    )
    return Stream((samples * _PEAK / np.abs(samples).max()).astype(np.float32), said)


def _cut(order: Recording) -> tuple[Samples, float]:
    """The speech of a recording and margins, its loudest moment at 1, and how long the speech is."""
    if order.speech_start_s is None or order.speech_end_s is None:
        raise UsageError(f"{order.path} has no speech_start and speech_end; streams need these labels")
    whole = read_audio(order.path)
    fade = round(_FADE_S * SAMPLE_RATE_HZ)
    margin = round(_MARGIN_S * SAMPLE_RATE_HZ)
    first = round(order.speech_start_s * SAMPLE_RATE_HZ)
    last = round(order.speech_end_s * SAMPLE_RATE_HZ)
    piece = np.zeros(last - first + 2 * margin, np.float32)
    source = whole[max(0, first - margin) : last + margin]
    offset = max(0, margin - first)
    piece[offset : offset + len(source)] = source
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    piece[:fade] *= ramp
    piece[-fade:] *= ramp[::-1]
    return piece / np.float32(np.sqrt(max_frame(piece))), order.speech_end_s - order.speech_start_s


@dataclass(frozen=True, slots=True)
class Heard:
    """An utterance of a stream, and when its result came."""

    result: Result
    start_s: float
    """Of its audio, pre-roll included."""

    end_s: float
    """Of its audio."""

    answered_s: float
    """Place in the stream at which the result came."""

    ready_ms: float | None = None
    """From the last speech to when its answer was known, whether it had ended or not; None: not live."""


def judge(stream: Stream, heard: Sequence[Heard], write: Callable[[Samples], str]) -> dict[str, Any]:
    """Count what became of the commands of a stream.

    A command is whole when one utterance has all of it and no other touches it, cut when utterances have only
    a part of it, missed when none has any. Cut in one utterance, it has all words all the same when that part
    of its recording has those of the whole: labels made by loudness may begin and end in noise.

    Args:
        stream: with the commands.
        heard: all its utterances, in order.
        write: what is said in some audio, not bound to a grammar.
    """
    counts = dict.fromkeys(
        (
            "said",
            "whole",
            "all_words",
            "missed",
            "cut_start",
            "cut_end",
            "apart",
            "split_or_merged",
            "led_in",
            "right",
        ),
        0,
    )
    delays_s = []
    touched: set[int] = set()
    for command in stream.said:
        own = [i for i, each in enumerate(heard) if _shared_s(each, command) > _TOLERANCE_S]
        touched.update(own)
        counts["said"] += 1
        counts["missed"] += not own
        if not own:
            continue
        first, last = heard[own[0]], heard[own[-1]]
        merged = any(
            _shared_s(heard[i], other) > _TOLERANCE_S
            for i in own
            for other in stream.said
            if other is not command
        )
        cut_start = first.start_s > command.start_s
        cut_end = last.end_s < command.end_s - _TOLERANCE_S
        counts["cut_start"] += cut_start
        counts["cut_end"] += cut_end
        counts["led_in"] += first.start_s <= command.start_s - _TOLERANCE_S
        if command.pause_s >= APART_S:
            counts["apart"] += 1
            counts["split_or_merged"] += merged or len(own) > 1
        whole = not cut_start and not cut_end and len(own) == 1
        counts["whole"] += whole
        counts["all_words"] += whole or (len(own) == 1 and _has_all_words(command, first, write))
        right = len(own) == 1 and not merged and _is_right(command.recording, first.result)
        counts["right"] += right
        if right:
            delays_s.append(first.answered_s - command.end_s)
    false = [each.result for i, each in enumerate(heard) if i not in touched]
    return {
        **counts,
        "false_triggers": len(false),
        "false_accepts": sum(result.accepted for result in false),
        "hours": len(stream.samples) / SAMPLE_RATE_HZ / 3600,
        "delays_ms": [round(1000 * delay_s, 1) for delay_s in delays_s],
    }


def _shared_s(heard: Heard, command: Said) -> float:
    """How much of a command an utterance has, by where speech was heard in it."""
    result = heard.result
    return min(result.end_s, command.end_s) - max(result.start_s, command.start_s)


def _has_all_words(command: Said, heard: Heard, write: Callable[[Samples], str]) -> bool:
    """Whether nothing is said in what an utterance leaves out of a command's recording, without noise."""
    piece, _ = _cut(command.recording)
    begin_s = command.start_s - _MARGIN_S
    part = piece[max(0, round((heard.start_s - begin_s) * SAMPLE_RATE_HZ)) :][
        : round((heard.end_s - max(begin_s, heard.start_s)) * SAMPLE_RATE_HZ)
    ]
    # Without spaces: the same words are "light rose" once, and "Lightrose" again.
    whole, rest = ("".join(re.findall(r"\w", write(each).casefold())) for each in (piece, part))
    return bool(whole) and whole == rest


def _is_right(recording: Recording, result: Result) -> bool:
    return result.accepted and agrees(recording, {"intent": result.intent, "slots": result.slots})


def judge_segments(
    recording: Recording,
    scored: Sequence[ScoredFrame],
    utterances: Sequence[Utterance],
    options: EndpointOptions,
) -> dict[str, Any]:
    """Count what became of the segments of a recording in which somebody speaks.

    A segment is whole, cut or missed as a command is for judge(). It is merged when an utterance has another
    one, too, from which it is so far away that the silence between them should have ended the utterance.

    Args:
        recording: with segments.
        scored: all its frames.
        utterances: that were cut from them, without pauses.
        options: how they were cut.
    """
    counts = dict.fromkeys(
        ("segments", "whole", "missed", "cut_start", "cut_end", "split", "merged", "led_in", "firsts"), 0
    )
    silence_s = options.silence_ms / 1000
    touched: set[int] = set()  # utterances
    for start_s, end_s in recording.segments:
        own = [i for i, each in enumerate(utterances) if _overlap_s(each, start_s, end_s) > _TOLERANCE_S]
        counts["segments"] += 1
        counts["missed"] += not own
        if not own:
            continue
        begin_s = utterances[own[0]].start_samples / SAMPLE_RATE_HZ
        cut_start = begin_s > start_s
        cut_end = utterances[own[-1]].end_samples / SAMPLE_RATE_HZ < end_s - _TOLERANCE_S
        counts["cut_start"] += cut_start
        counts["cut_end"] += cut_end
        counts["split"] += len(own) > 1
        counts["whole"] += not cut_start and not cut_end and len(own) == 1
        counts["merged"] += any(
            _overlap_s(utterances[i], *other) > _TOLERANCE_S
            for i in own
            for other in recording.segments
            if max(start_s, other[0]) - min(end_s, other[1]) >= silence_s
        )
        if own[0] not in touched:  # segments are in order: it is the first one of the utterance
            counts["firsts"] += 1
            counts["led_in"] += begin_s <= start_s - _TOLERANCE_S
        touched.update(own)
    at_s = (np.array([each.frame.start_samples for each in scored]) + FRAME_SAMPLES / 2) / SAMPLE_RATE_HZ
    spoken = np.zeros(len(scored), bool)
    for start_s, end_s in recording.segments:
        spoken |= (start_s <= at_s) & (at_s < end_s)
    detected = np.array([each.speech_probability for each in scored]) >= options.threshold
    return {
        **counts,
        "utterances": len(utterances),
        "false_triggers": len(utterances) - len(touched),
        "speech_frames": int(spoken.sum()),
        "hit_frames": int((spoken & detected).sum()),
        "silent_frames": int((~spoken).sum()),
        "alarm_frames": int((~spoken & detected).sum()),
    }


def _overlap_s(utterance: Utterance, start_s: float, end_s: float) -> float:
    """How much of a segment an utterance has, by where speech was heard in it."""
    return min(utterance.speech_end_samples / SAMPLE_RATE_HZ, end_s) - max(
        utterance.speech_start_samples / SAMPLE_RATE_HZ, start_s
    )
