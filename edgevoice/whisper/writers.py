"""Transcriptions as text, subtitles (SRT, WebVTT), TSV and JSON, as openai/whisper's writers write them.

whisper.cpp's examples/cli writes the same text and SRT but for the space before each segment, and WebVTT
with hours always. In WebVTT `&` and `<` stand as they are, as in both. What would end a line within a text
becomes a space, and `-->` becomes `->`.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

from edgevoice.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from edgevoice.whisper.results import Segment, Transcription, Word

_LINE_ENDS: Final = re.compile(r"[\r\n]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How lines and subtitles are laid out; by default each is a segment, as long as Whisper made it."""

    max_line_length: int = 0
    """Most characters of a line; 0: any. Lines are cut between words (Options.word_times), and within a word
    that is longer, as all are in languages without spaces; its time is shared evenly among its characters."""

    max_lines: int = 1
    """Most lines of a subtitle, with max_line_length; all of one segment."""

    highlight_words: bool = False
    """A subtitle for each word (Options.word_times), which is underlined while it is said."""

    def __post_init__(self) -> None:
        """Check them.

        Raises:
            UsageError: one is outside its range, or has no effect.
        """
        for name, least in (("max_line_length", 0), ("max_lines", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UsageError(f"{name} must be a whole number from {least} on, got {value!r}")
        if self.max_lines > 1 and not self.max_line_length:
            raise UsageError("max_lines has no effect as it is; set max_line_length, or leave it out")


@dataclass(frozen=True, slots=True)
class Cue:
    """A line of a transcription, or a subtitle."""

    start_s: float
    end_s: float
    text: str
    """Never empty; lines without spaces around them."""


def cues(segments: Iterable[Segment], layout: Layout) -> Iterator[Cue]:
    """Yield the cues of each segment."""
    for segment in segments:
        if segment.words and (layout.max_line_length or layout.highlight_words):
            lines = list(_lines(segment.words, layout.max_line_length))
        else:
            lines = [[Cue(segment.start_s, segment.end_s, segment.text)]]
        for first in range(0, len(lines), layout.max_lines):
            subtitle = [line for line in lines[first : first + layout.max_lines] if _joined(line)]
            if subtitle:
                lit = layout.highlight_words and segment.words
                yield from _lit(subtitle) if lit else (_cue(subtitle),)


def _cue(lines: Sequence[Sequence[Cue]]) -> Cue:
    return Cue(lines[0][0].start_s, lines[-1][-1].end_s, "\n".join(map(_joined, lines)))


def _joined(line: Iterable[Cue]) -> str:
    return _LINE_ENDS.sub(" ", "".join(part.text for part in line)).strip()


def _lit(lines: Sequence[Sequence[Cue]]) -> Iterator[Cue]:
    """Yield a cue for each part of the lines, with that one underlined, and one for each pause."""
    whole = _cue(lines)
    at_s = whole.start_s
    places = [(n, i) for n, line in enumerate(lines) for i, part in enumerate(line) if part.text.strip()]
    for (n, i), following in itertools.zip_longest(places, places[1:]):
        line, part = lines[n], lines[n][i]
        if round(1000 * part.start_s) > round(1000 * at_s):
            yield Cue(at_s, part.start_s, whole.text)
        space = part.text[: len(part.text) - len(part.text.lstrip())]
        marked = replace(part, text=f"{space}<u>{part.text.lstrip()}</u>")
        shown = [*lines[:n], [*line[:i], marked, *line[i + 1 :]], *lines[n + 1 :]]
        # Without an alignment the next word may begin before this one ends.
        latest_s = lines[following[0]][following[1]].start_s if following else part.end_s
        at_s = max(part.start_s, min(part.end_s, latest_s))
        yield Cue(part.start_s, at_s, "\n".join(map(_joined, shown)))


def _lines(words: Iterable[Word], max_length: int) -> Iterator[list[Cue]]:
    """Yield words as lines of parts."""
    line: list[Cue] = []
    for word in words:
        for part in _parts(word, max_length or len(word.text)):
            if line and max_length and len("".join(each.text for each in (*line, part)).strip()) > max_length:
                yield line
                line = []
            line.append(part)
    if line:
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


def render(found: Transcription, form: str, layout: Layout | None = None) -> str:
    """Return a transcription as the text of a file.

    Args:
        found: what a session made of some audio.
        form: "text", "srt", "vtt", "tsv" or "json", as openai/whisper writes them; "json" in one line, with
            the fields of docs/transcribe.md.
        layout: how subtitles are laid out; "text" and "tsv" take its max_line_length, "json" nothing.

    Raises:
        UsageError: there is no such form, it does not take that layout, or there are no times of words.
    """
    layout = layout or Layout()
    if form not in FORMATS:
        raise UsageError(f"there is no form {form!r}; use one of {', '.join(FORMATS)}")
    taken = FORMATS[form][2]
    refused = [
        each.name
        for each in fields(layout)
        if each.name not in taken and getattr(layout, each.name) != each.default
    ]
    if refused:
        raise UsageError(f"{form} has no {refused[0]}; leave it out, or use srt or vtt")
    if layout != Layout() and any(each.text.strip() and not each.words for each in found.segments):
        raise UsageError(
            "there are no times of words to lay lines out by; transcribe with Options(word_times=True)"
        )
    return FORMATS[form][1](found, layout)


def _text(found: Transcription, layout: Layout) -> str:
    return "".join(f"{cue.text}\n" for cue in cues(found.segments, _in_lines(layout)))


def _in_lines(layout: Layout) -> Layout:
    return Layout(max_line_length=layout.max_line_length)


def _srt(found: Transcription, layout: Layout) -> str:
    return "".join(
        f"{i}\n{_clock(cue.start_s, ',', hours=True)} --> {_clock(cue.end_s, ',', hours=True)}\n"
        f"{cue.text.replace('-->', '->')}\n\n"
        for i, cue in enumerate(cues(found.segments, layout), start=1)
    )


def _vtt(found: Transcription, layout: Layout) -> str:
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}\n{cue.text.replace('-->', '->')}\n\n"
        for cue in cues(found.segments, layout)
    )


def _tsv(found: Transcription, layout: Layout) -> str:
    return "start\tend\ttext\n" + "".join(
        f"{round(1000 * cue.start_s)}\t{round(1000 * cue.end_s)}\t{cue.text.replace(chr(9), ' ')}\n"
        for cue in cues(found.segments, _in_lines(layout))
    )


def _json(found: Transcription, _layout: Layout) -> str:
    return json.dumps(as_json(found), ensure_ascii=False) + "\n"


def as_json(found: Transcription) -> dict[str, Any]:
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


FORMATS: Final[Mapping[str, tuple[str, Callable[[Transcription, Layout], str], frozenset[str]]]] = {
    "text": (".txt", _text, frozenset({"max_line_length"})),
    "srt": (".srt", _srt, frozenset(Layout.__slots__)),
    "vtt": (".vtt", _vtt, frozenset(Layout.__slots__)),
    "json": (".json", _json, frozenset()),
    "tsv": (".tsv", _tsv, frozenset({"max_line_length"})),
}
"""Name -> how its files end, what writes it, and what it takes of the layout; the rest it leaves."""
