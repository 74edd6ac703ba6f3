"""Transcriptions as text, subtitles, TSV and JSON: what is written can be read back."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevoice.errors import UsageError
from edgevoice.whisper import Layout, Segment, Timings, Token, Transcription, Word, render
from edgevoice.whisper.writers import FORMATS, cues

if TYPE_CHECKING:
    from collections.abc import Callable

texts = st.text(
    st.one_of(st.sampled_from(" \n\r\t->&<\"'.0:,é字"), st.characters(exclude_categories=["Cs"])), max_size=40
)
times = st.integers(0, 13 * 360_000).map(lambda cs: cs / 100)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    """A segment with the words of its text."""
    start_s, length_s = draw(times), draw(st.integers(0, 3000)) / 100
    text = draw(texts)
    parts = re.findall(r" ?[^ ]*", text)
    marks = sorted(draw(st.lists(st.floats(0, 1), min_size=len(parts) + 1, max_size=len(parts) + 1)))
    words = tuple(
        Word(part, start_s + a * length_s, start_s + b * length_s, 0.5)
        for part, a, b in zip(parts, marks, marks[1:], strict=False)
        if part
    )
    return Segment(text, start_s, start_s + length_s, (), words, 0.1, speaker_turn=False)


def transcription(*found: Segment) -> Transcription:
    return Transcription(found, "en", 30.0, Timings())


transcriptions = st.lists(segments(), max_size=5).map(lambda found: transcription(*found))
layouts = st.one_of(
    st.just(Layout()),
    st.builds(Layout, max_line_length=st.integers(1, 60), max_lines=st.integers(1, 3)),
)
one_line = st.builds(Layout, max_line_length=st.integers(0, 60))


def plain(text: str) -> str:
    """A text as a subtitle has it."""
    return text.replace("-->", "->")


def seconds(text: str, mark: str) -> float:
    *hours, minutes, rest = text.split(":")
    whole, ms = rest.split(mark)
    assert (len(minutes), len(whole), len(ms)) == (2, 2, 3)
    assert int(minutes) < 60 > int(whole)
    return int(hours[0] if hours else 0) * 3600 + int(minutes) * 60 + int(whole) + int(ms) / 1000


def same(found: list[tuple[float, float, str]], wanted: list[tuple[float, float, str]]) -> None:
    assert [text for *_, text in found] == [text for *_, text in wanted]
    for (start, end, _), (wanted_start, wanted_end, _) in zip(found, wanted, strict=True):
        assert (start, end) == pytest.approx((wanted_start, wanted_end), abs=0.00051)


def blocks(text: str) -> list[list[str]]:
    assert text.endswith("\n\n") or not text
    return [block.split("\n") for block in text.split("\n\n")[:-1]]


def wanted(
    found: Transcription, layout: Layout, change: Callable[[str], str]
) -> list[tuple[float, float, str]]:
    return [(cue.start_s, cue.end_s, change(cue.text)) for cue in cues(found.segments, layout)]


@given(transcriptions, layouts)
def test_srt_parses_back(found: Transcription, layout: Layout) -> None:
    """Numbers from 1, times to the millisecond, as many lines of text as may be."""
    read = []
    for number, (index, clock, *lines) in enumerate(blocks(FORMATS["srt"][1](found, layout)), start=1):
        assert index == str(number)
        start, end = clock.split(" --> ")
        read.append((seconds(start, ","), seconds(end, ","), "\n".join(lines)))
    same(read, wanted(found, layout, plain))


@given(transcriptions, layouts)
def test_vtt_parses_back(found: Transcription, layout: Layout) -> None:
    """The same with its own head; hours only where there are any."""
    head, *rest = blocks(FORMATS["vtt"][1](found, layout))
    assert head == ["WEBVTT"]
    read = []
    for clock, *lines in rest:
        start, end = clock.split(" --> ")
        read.append((seconds(start, "."), seconds(end, "."), "\n".join(lines)))
    same(read, wanted(found, layout, plain))


@given(transcriptions, one_line)
def test_tsv_parses_back(found: Transcription, layout: Layout) -> None:
    """Three columns, milliseconds."""
    head, *rows = FORMATS["tsv"][1](found, layout).split("\n")[:-1]
    assert head == "start\tend\ttext"
    read = []
    for row in rows:
        start, end, text = row.split("\t")
        read.append((int(start) / 1000, int(end) / 1000, text))
    same(read, wanted(found, layout, lambda text: text.replace("\t", " ")))


@given(transcriptions)
def test_json_parses_back(found: Transcription) -> None:
    """One line with the text as it is."""
    text = render(found, "json")
    assert text.count("\n") == 1
    read = json.loads(text)
    assert read["text"] == found.text
    assert [each["text"] for each in read["segments"]] == [each.text for each in found.segments]
    for each, segment in zip(read["segments"], found.segments, strict=True):
        assert "".join(word["word"] for word in each.get("words", ())) == "".join(
            word.text for word in segment.words
        )


@given(segments(), st.integers(1, 60))
def test_lines_are_short_and_lose_nothing(segment: Segment, length: int) -> None:
    """No line is longer than asked for; words are only cut where one is longer than a line; time goes on."""
    lines = list(cues([segment], Layout(max_line_length=length)))
    assert all(0 < len(line.text) <= length for line in lines)
    assert "".join("".join(line.text.split()) for line in lines) == "".join(segment.text.split())
    if all(len(word.text.strip()) <= length for word in segment.words):
        assert [word for line in lines for word in line.text.split()] == segment.text.split()
    for before, after in itertools.pairwise(lines):
        assert before.start_s <= before.end_s <= after.start_s + 1e-9


@given(segments(), st.integers(1, 60), st.integers(1, 4))
def test_subtitles_are_as_many_lines_of_those(segment: Segment, length: int, n: int) -> None:
    """Of one segment, of which all but the last are full."""
    lines = list(cues([segment], Layout(max_line_length=length)))
    subtitles = list(cues([segment], Layout(max_line_length=length, max_lines=n)))
    assert "\n".join(each.text for each in subtitles) == "\n".join(line.text for line in lines)
    assert all(each.text.count("\n") < n for each in subtitles)
    if segment.words and all(word.text.strip() for word in segment.words):
        assert all(each.text.count("\n") == n - 1 for each in subtitles[:-1])


@given(segments(), layouts)
def test_each_word_is_lit_in_turn(segment: Segment, layout: Layout) -> None:
    """All else stays as it is without, and time goes on, even where words overlap."""
    plain_ones = list(cues([segment], layout))
    lit = list(cues([segment], replace(layout, highlight_words=True)))
    shown = [re.sub("</?u>", "", each.text) for each in lit]
    # of a mark within the text itself nothing is said here
    if "<u>" in segment.text or "</u>" in segment.text:
        return
    if layout.max_line_length:
        assert [text for text, _ in itertools.groupby(shown)] == [
            text for text, _ in itertools.groupby(each.text for each in plain_ones)
        ]
    marked = [word for each in lit for word in re.findall("<u>(.*?)</u>", each.text)]
    assert "".join("".join(marked).split()) == ("".join(segment.text.split()) if segment.words else "")
    for before, after in itertools.pairwise(lit):
        assert before.start_s <= before.end_s <= after.start_s + 1e-9


WORDS = (Word(" Now", 1.0, 1.25, 0.5), Word(" look", 1.5, 1.75, 0.5), Word(" here.", 1.75, 2.5, 0.5))
SPOKEN = Segment(" Now look here.", 0.5, 3.0, (), WORDS, 0.1, speaker_turn=False)


def test_words_are_lit_as_openai_whisper_lights_them() -> None:
    """Byte by byte; between words, in a pause, none is."""
    assert render(transcription(SPOKEN), "srt", Layout(highlight_words=True)) == (
        "1\n00:00:01,000 --> 00:00:01,250\n<u>Now</u> look here.\n\n"
        "2\n00:00:01,250 --> 00:00:01,500\nNow look here.\n\n"
        "3\n00:00:01,500 --> 00:00:01,750\nNow <u>look</u> here.\n\n"
        "4\n00:00:01,750 --> 00:00:02,500\nNow look <u>here.</u>\n\n"
    )
    layout = Layout(max_line_length=8, max_lines=2)
    assert render(transcription(SPOKEN), "vtt", layout) == (
        "WEBVTT\n\n00:01.000 --> 00:02.500\nNow look\nhere.\n\n"
    )


@pytest.mark.parametrize(
    ("form", "layout", "problem"),
    [
        ("doc", Layout(), "no form 'doc'"),
        ("json", Layout(max_line_length=10), "json has no max_line_length"),
        ("tsv", Layout(highlight_words=True), "tsv has no highlight_words"),
        ("text", Layout(max_line_length=10, max_lines=2), "text has no max_lines"),
        ("srt", Layout(highlight_words=True), "word_times"),
    ],
)
def test_layouts_that_cannot_take_effect_are_errors(form: str, layout: Layout, problem: str) -> None:
    """So are lines that no length is given for, and lengths that are none."""
    with pytest.raises(UsageError, match=problem):
        render(transcription(replace(SPOKEN, words=())), form, layout)
    for wrong in ({"max_lines": 2}, {"max_line_length": -1}, {"max_lines": 0}, {"max_line_length": "a"}):
        with pytest.raises(UsageError, match="max_line"):
            Layout(**wrong)


def test_as_openai_whisper_writes_it() -> None:
    """Byte by byte, with hours in WebVTT only from the first on."""
    token = Token(1, b" Hi", 0.5, -0.5, None, None, None)
    found = transcription(
        Segment(" Hi --> you", 0, 1.5, (token,), (), 0.25, speaker_turn=False),
        Segment(" a\tb", 3599.999, 3601.25, (token, token), (Word(" a\tb", 3600, 3601, 0.5),), 0.25, False),
        Segment(" ", 3602, 3603, (), (), 0.25, speaker_turn=False),
    )
    assert render(found, "text") == "Hi --> you\na\tb\n"
    assert render(found, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\nHi -> you\n\n2\n00:59:59,999 --> 01:00:01,250\na\tb\n\n"
    )
    assert render(found, "vtt") == (
        "WEBVTT\n\n00:00.000 --> 00:01.500\nHi -> you\n\n59:59.999 --> 01:00:01.250\na\tb\n\n"
    )
    assert render(found, "tsv") == "start\tend\ttext\n0\t1500\tHi --> you\n3599999\t3601250\ta b\n"
    assert json.loads(render(found, "json")) == {
        "text": "Hi --> you a\tb",
        "language": "en",
        "duration": 30.0,
        "segments": [
            {"id": 0, "start": 0, "end": 1.5, "text": " Hi --> you", "tokens": [1], "avg_logprob": -0.5,
             "no_speech_prob": 0.25},
            {"id": 1, "start": 3599.999, "end": 3601.25, "text": " a\tb", "tokens": [1, 1],
             "avg_logprob": -0.5, "no_speech_prob": 0.25,
             "words": [{"word": " a\tb", "start": 3600, "end": 3601, "probability": 0.5}]},
            {"id": 2, "start": 3602, "end": 3603, "text": " ", "tokens": [], "avg_logprob": None,
             "no_speech_prob": 0.25},
        ],
    }  # fmt: skip
