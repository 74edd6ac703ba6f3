"""`edgevoice listen`: in a terminal it shows what goes on, elsewhere it prints a line for each result."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rich.console import Console

from edgevoice.capture import FileSource
from edgevoice.cli_listen import View, line, show
from edgevoice.events import FRAME_SAMPLES, Frame, Result, ScoredFrame

if TYPE_CHECKING:
    from edgevoice.pipeline import Pipeline
    from edgevoice.publish import State
    from tests.conftest import Edgevoice, Sample

RESULT = Result(
    utterance_id="1",
    time="now",
    start_s=0,
    end_s=1,
    text="Turn on the lamp.",
    intent="HassTurnOn",
    slots={"name": "lamp"},
    slots_raw={"name": "lamp"},
    confidence=0.93,
    accepted=True,
    reason=None,
    latency_ms=281.4,
)


def drawn(view: View, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(view)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def frame(level: float, probability: float) -> ScoredFrame:
    return ScoredFrame(Frame(np.full(FRAME_SAMPLES, level, np.float32), 0), probability)


def test_line_of_a_command() -> None:
    """Sentence, intent, slots, confidence and how long it took."""
    assert line(RESULT).plain.startswith('✓ "Turn on the lamp." → HassTurnOn name=lamp  confidence 0.93')
    assert "281 ms after the last word" in line(RESULT).plain


def test_line_of_a_refusal() -> None:
    """Why, what it sounded like, and what came nearest."""
    refused = replace(
        RESULT,
        accepted=False,
        reason="low_confidence",
        confidence=0.2,
        heard="turn on the lab",
        latency_ms=None,
    )
    plain = line(refused).plain
    assert plain.startswith("✗ low_confidence: nearly, but not surely; ")
    assert 'sounds like "turn on the lab"; nearest "Turn on the lamp."' in plain
    assert "after the last word" not in plain


def test_markup_in_what_was_heard_is_text() -> None:
    """Whisper may write brackets; a terminal shows them as they are."""
    refused = replace(RESULT, accepted=False, reason="out_of_grammar", heard="[Music] [/red]")
    console = Console(file=io.StringIO(), width=200)
    console.print(line(refused))
    assert "[Music] [/red]" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("state", "words"),
    [("listening", "listening"), ("speech", "hearing speech"), ("lost", "no microphone"), ("muted", "muted")],
)
def test_state_is_shown(state: State, words: str) -> None:
    """In words, and without a level while there is no sound."""
    view = View(0.5)
    view.scored(frame(0.1, 0.9))
    view.tell(state)
    assert words in drawn(view)
    assert ("-20 dB" in drawn(view)) == (state in ("listening", "speech"))


def test_level_and_speech_grow_with_what_is_heard() -> None:
    """Bars and numbers; too loud is told; all within 80 columns."""
    view = View(0.5)
    quiet = drawn(view)
    assert "silent" in quiet
    assert "█" not in quiet
    view.scored(frame(0.1, 0.9))
    text = drawn(view)
    assert "-20 dB" in text
    assert "0.90" in text
    assert text.count("█") == round(40 * 52 / 72) + 36
    view.scored(frame(1.0, 0.9))
    assert "too loud" in drawn(view)
    assert max(map(len, drawn(view).splitlines())) <= 80


def test_partial_result(pipeline: Pipeline, samples: tuple[Sample, ...]) -> None:
    """What was said so far is shown before it has ended, and gone when it is listening again."""
    sample = next(sample for sample in samples if sample.accepted)

    class Spy(View):
        seen = ""

        def answered(self, answer):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
            super().answered(answer)
            self.seen = drawn(self)

    view = Spy(0.5)
    console = Console(file=io.StringIO(), width=120)
    show(pipeline, FileSource(sample.path), view, console)
    assert sample.text.lower() in view.seen.lower()
    view.tell("listening")
    assert sample.text.lower() not in drawn(view).lower()
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert printed.startswith("✓ ")
    assert "\x1b" not in printed  # plain lines where no terminal is


def test_command(edgevoice: Edgevoice, samples: tuple[Sample, ...]) -> None:
    """Recordings can be listened to, too."""
    chosen = [sample for sample in samples if sample.accepted][:2]
    done = edgevoice("listen", "--input", *(sample.path for sample in chosen))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 2
    assert all(sample.intent in text for sample, text in zip(chosen, lines, strict=True) if sample.intent)
