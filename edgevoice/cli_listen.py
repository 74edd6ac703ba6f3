"""The command `edgevoice listen`: what is heard, as it is heard, in a terminal."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgevoice.levels import LOUD_DBFS, Meter
from edgevoice.pipeline import Watcher
from edgevoice.reasons import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from edgevoice.capture import FrameSource
    from edgevoice.events import Result, ScoredFrame
    from edgevoice.pipeline import Pipeline
    from edgevoice.publish import State
    from edgevoice.recognise import Answer

_REFRESH_PER_S: Final = 10  # also over a slow line
_BAR: Final = 40  # characters; with its labels it fits 80 columns
_QUIET_DBFS: Final = -72.0  # 1.8 dB a character; below is no sound card

_STATES: Final[dict[State, tuple[str, str]]] = {
    "listening": ("green", "listening"),
    "speech": ("bold cyan", "hearing speech"),
    "recognising": ("bold yellow", "recognising"),
    "muted": ("dim", "muted"),
    "lost": ("bold red", "no microphone: waiting for it"),
}


def show(pipeline: Pipeline, source: FrameSource, view: View, console: Console) -> None:
    """Show what a source has to say, until it ends; in anything but a terminal one line for each result."""
    live = Live(view, console=console, refresh_per_second=_REFRESH_PER_S, transient=True)
    with live if console.is_terminal else contextlib.nullcontext():
        for result in pipeline.results(source, view.tell, live=source.live, watch=view):
            console.print(line(result), soft_wrap=True)
            view.partial = None


def line(result: Result) -> Text:
    """One result for people."""
    text = Text()
    if result.accepted:
        text.append("✓ ", "bold green")
        text.append(f'"{result.text}"', "bold")
        text.append(f" → {result.intent}", "green")
        for name, value in result.slots.items():
            text.append(f" {name}=", "dim")
            text.append(str(value), "green")
    else:
        reason = result.reason or "out_of_grammar"
        text.append("✗ ", "bold yellow")
        text.append(f"{reason}: {REASONS[reason].short}", "yellow")
        if result.heard:
            text.append(f'; sounds like "{result.heard}"')
        if result.text:
            text.append(f'; nearest "{result.text}"', "dim")
    text.append(f"  confidence {result.confidence:.2f}", "dim")
    if result.latency_ms is not None:
        text.append(f", {result.latency_ms:.0f} ms after the last word", "dim")
    text.append(f", computed {result.timings.total:.0f} ms", "dim")
    return text


class View(Watcher):
    """What stands below the results: state, level, probability of speech, what it may be so far.

    Written to by the pipeline's threads and read by rich's: each attribute is replaced as a whole.
    """

    def __init__(self, threshold: float) -> None:
        self.partial: Answer | None = None
        self._threshold = threshold
        self._state: State = "listening"
        self._meter = Meter()
        self._probability = 0.0

    def tell(self, state: State) -> None:
        """Take the state."""
        self._state = state
        if state == "listening":
            self.partial = None

    def scored(self, scored: ScoredFrame) -> None:
        """Take a frame."""
        self._meter.push(scored.frame.samples)
        self._probability = scored.speech_probability

    def answered(self, answer: Answer) -> None:
        """Take what may have been said so far."""
        self.partial = answer

    def __rich__(self) -> Group:
        style, words = _STATES[self._state]
        away = self._state in ("lost", "muted")
        rms, peak = (_QUIET_DBFS, _QUIET_DBFS) if away else (self._meter.rms_dbfs, self._meter.peak_dbfs)
        table = Table.grid(padding=(0, 1))
        table.add_column(width=7, style="dim")
        table.add_column(width=_BAR)
        table.add_column(style="dim", no_wrap=True)
        table.add_row("level", _level_bar(rms, peak), _level_words(rms, peak, away=away))
        probability = 0.0 if away else self._probability
        table.add_row("speech", _speech_bar(probability, self._threshold), f"{probability:.2f}")
        return Group(Text(f"● {words}", style), table, self._partial_text())

    def _partial_text(self) -> Text:
        answer = self.partial
        meaning = answer.decision.meaning if answer else None
        if answer is None or meaning is None:
            return Text("  …" if self._state == "speech" else " ", "dim")
        sure = answer.decision.reason is None
        return Text(f'  "{meaning.text}" ? {answer.decision.confidence:.2f}', "cyan" if sure else "dim")


def _place(dbfs: float) -> int:
    return round(_BAR * max(0.0, 1 - dbfs / _QUIET_DBFS))


def _level_bar(rms_dbfs: float, peak_dbfs: float) -> Text:
    filled, peak = _place(rms_dbfs), _place(peak_dbfs)
    text = Text()
    for i, style in enumerate(_level_styles()):
        text.append(
            "█" if i < filled else "▏" if i == peak - 1 else "·", style if i < max(filled, peak) else "dim"
        )
    return text


def _level_styles() -> Iterator[str]:
    for i in range(_BAR):
        dbfs = _QUIET_DBFS * (1 - i / _BAR)
        yield "red" if dbfs > -6 else "yellow" if dbfs > -12 else "green"  # as on any mixing desk


def _level_words(rms_dbfs: float, peak_dbfs: float, *, away: bool) -> str:
    if away:
        return ""
    if peak_dbfs > LOUD_DBFS:
        return "too loud: turn the microphone down"
    return f"{rms_dbfs:4.0f} dB" if rms_dbfs > _QUIET_DBFS else "silent"


def _speech_bar(probability: float, threshold: float) -> Text:
    filled, mark = round(_BAR * probability), round(_BAR * threshold)
    text = Text()
    for i in range(_BAR):
        style = "cyan" if i < filled else "dim"
        text.append("|" if i == mark and i >= filled else "█" if i < filled else "·", style)
    return text
