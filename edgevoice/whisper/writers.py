"""Transcriptions as text, subtitles (SRT, WebVTT), TSV and JSON, as openai/whisper's writers write them.

whisper.cpp's examples/cli writes the same text and SRT but for the space before each segment, and WebVTT
with hours always. In WebVTT `&` and `<` stand as they are, as in both. What would end a line within a text
becomes a space, and `-->` becomes `->`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from edgevoice.whisper.results import Segment, Transcription, Word

_LINE_ENDS: Final = re.compile(r"[\r\n]+")


@dataclass(frozen=True, slots=True)
class Cue:
    """A line of a transcription."""

    start_s: float
    end_s: float
    text: str
    """Never empty, in one line, without spaces around it."""


def cues(segments: Iterable[Segment], max_length: int = 0) -> Iterator[Cue]:
    """Yield a cue for each segment, or several where one is longer than `max_length` characters (0: any).

    They are cut between words (Options.word_times), and within a word that is longer, as all are in languages
    that write no spaces; its time is shared evenly among its characters.
    """
    for segment in segments:
        for each in _lines(segment.words, max_length) if max_length and segment.words else (segment,):
            text = _LINE_ENDS.sub(" ", each.text).strip()
            if text:
                yield Cue(each.start_s, each.end_s, text)


def _lines(words: Iterable[Word], max_length: int) -> Iterator[Cue]:
    line: Cue | None = None
    for word in words:
        for part in _parts(word, max_length):
            if line is not None and len((line.text + part.text).strip()) <= max_length:
                line = Cue(line.start_s, part.end_s, line.text + part.text)
                continue
            if line is not None:
                yield line
            line = part
    if line is not None:
        yield line


def _parts(word: Word, max_length: int) -> Iterator[Cue]:
    space = len(word.text) - len(word.text.lstrip())
    length_s = (word.end_s - word.start_s) / max(1, len(word.text))
    start = 0
    while start < len(word.text):
        end = min(start + max_length + (space if start == 0 else 0), len(word.text))
        yield Cue(
            word.start_s + start * length_s,
            word.end_s if end == len(word.text) else word.start_s + end * length_s,
            word.text[start:end],
        )
        start = end


def _text(found: Transcription, max_length: int) -> str:
    return "".join(f"{cue.text}\n" for cue in cues(found.segments, max_length))


def _srt(found: Transcription, max_length: int) -> str:
    return "".join(
        f"{i}\n{_clock(cue.start_s, ',', hours=True)} --> {_clock(cue.end_s, ',', hours=True)}\n"
        f"{cue.text.replace('-->', '->')}\n\n"
        for i, cue in enumerate(cues(found.segments, max_length), start=1)
    )


def _vtt(found: Transcription, max_length: int) -> str:
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}\n{cue.text.replace('-->', '->')}\n\n"
        for cue in cues(found.segments, max_length)
    )


def _tsv(found: Transcription, max_length: int) -> str:
    return "start\tend\ttext\n" + "".join(
        f"{round(1000 * cue.start_s)}\t{round(1000 * cue.end_s)}\t{cue.text.replace(chr(9), ' ')}\n"
        for cue in cues(found.segments, max_length)
    )


def _json(found: Transcription, _max_length: int) -> str:
    return json.dumps(fields(found), ensure_ascii=False) + "\n"


def fields(found: Transcription) -> dict[str, Any]:
    """Return a transcription as JSON has it, with openai/whisper's names; docs/transcribe.md tells each."""
    return {
        "text": found.text,
        "language": found.language,
        "duration": found.duration_s,
        "segments": [_segment(i, segment) for i, segment in enumerate(found.segments)],
    }


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    likely = [token.log_probability for token in segment.tokens]
    written = {
        "id": number,
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "tokens": [token.id for token in segment.tokens],
        "avg_logprob": sum(likely) / len(likely) if likely else None,
        "no_speech_prob": segment.no_speech_probability,
    }
    if segment.words:
        written["words"] = [
            {
                "word": word.text,
                "start": round(word.start_s, 3),
                "end": round(word.end_s, 3),
                "probability": word.probability,
            }
            for word in segment.words
        ]
    return written


def _clock(seconds: float, mark: str, *, hours: bool = False) -> str:
    minutes, ms = divmod(round(seconds * 1000), 60_000)
    whole, minutes = divmod(minutes, 60)
    front = f"{whole:02d}:" if hours or whole else ""
    return f"{front}{minutes:02d}:{ms // 1000:02d}{mark}{ms % 1000:03d}"


FORMATS: Final[Mapping[str, tuple[str, Callable[[Transcription, int], str]]]] = {
    "text": (".txt", _text),
    "srt": (".srt", _srt),
    "vtt": (".vtt", _vtt),
    "json": (".json", _json),
    "tsv": (".tsv", _tsv),
}
"""Name -> how its files end, and what writes it; the number is the most characters of a line, 0: any."""
