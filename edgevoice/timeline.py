"""What the pipeline did while a stream went by, and a picture of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from edgevoice import extras, levels
from edgevoice.errors import UsageError
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ
from edgevoice.pipeline import Watcher
from edgevoice.streams import Heard

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from edgevoice.events import Result, ScoredFrame, Utterance
    from edgevoice.recognise import Answer
    from edgevoice.streams import Stream

_ROW_S: Final = 20.0  # a row of the picture; the words of a command stand beside each other
_WIDTH_IN: Final = 16.0
_ROW_IN: Final = 2.1
_EDGE_IN: Final = 0.5  # above for the legend, below for the axis
_QUIET_DBFS: Final = -80.0
_COMMAND, _LEVEL, _SPEECH = "#d9d9d9", "#7f7f7f", "#1f77b4"
_USED, _CANCELLED, _ENDED = "#2ca02c", "#ff7f0e", "#9467bd"
_ACCEPTED, _REFUSED = "#2ca02c", "#d62728"


@dataclass(frozen=True, slots=True)
class Recognition:
    """One recognition, on the clock of the stream."""

    begin_s: float
    end_s: float
    utterance: Utterance
    answer: Answer | None
    """None: speech went on."""


class Timeline(Watcher):
    """Takes notes.

    Args:
        live: the stream passes in real time, and times are the clock's; otherwise they are places in it.
    """

    def __init__(self, *, live: bool) -> None:
        self.levels_dbfs: list[float] = []
        self.probabilities: list[float] = []
        self.recognitions: list[Recognition] = []
        self.heard: list[Heard] = []
        """Results of utterances."""

        self._live = live
        self._started_s = time.monotonic()
        self._length_s = 0.0
        self._under_way: tuple[float, Utterance] | None = None
        self._answer: tuple[Answer, float | None] | None = None  # and when it was ready after the last speech

    def scored(self, scored: ScoredFrame) -> None:
        """Take level and probability."""
        frame = scored.frame
        self._length_s = (frame.start_samples + FRAME_SAMPLES) / SAMPLE_RATE_HZ
        self.levels_dbfs.append(levels.rms_dbfs(frame.samples))
        self.probabilities.append(scored.speech_probability)

    def recognising(self, utterance: Utterance) -> None:
        """Note when it began."""
        self._under_way = (self._now_s(), utterance)

    def answered(self, answer: Answer) -> None:
        """Note what came of it, and how soon after the last speech."""
        ended_s = answer.utterance.speech_end_clock_s
        if self._ends(answer):  # else it is told again
            ready_ms = None if ended_s is None else (time.monotonic() - ended_s) * 1000
            if answer.utterance.end_reason in ("too_long", "overload"):  # no silence ended it
                ready_ms = None
            self._answer = (answer, ready_ms)

    def cancelled(self) -> None:
        """Note that nothing came of it."""
        self._ends(None)

    def resulted(self, result: Result) -> None:
        """Take a result; of a stream in which nothing was said, there is nothing to note."""
        if self._answer is None:
            return
        answer, ready_ms = self._answer
        utterance = answer.utterance
        self.heard.append(
            Heard(
                result,
                start_s=utterance.start_samples / SAMPLE_RATE_HZ,
                end_s=utterance.end_samples / SAMPLE_RATE_HZ,
                answered_s=self._now_s(),
                ready_ms=ready_ms,
            )
        )

    def _ends(self, answer: Answer | None) -> bool:
        """Note the end of the recognition under way, and return whether there is one."""
        if self._under_way is None:
            return False
        begin_s, utterance = self._under_way
        self._under_way = None
        self.recognitions.append(Recognition(begin_s, self._now_s(), utterance, answer))
        return True

    def _now_s(self) -> float:
        return time.monotonic() - self._started_s if self._live else self._length_s


def check(path: Path | None) -> None:
    """Say before hours of work if draw() cannot work.

    Raises:
        UsageError: no such kind of picture, or matplotlib is not installed.
    """
    if path is None:
        return
    if path.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"--plot {path}: draws only .png and .svg; name it so")
    try:
        import matplotlib as mpl  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise UsageError(
            f"--plot needs matplotlib, which is not installed; run: {extras.remedy('eval')}"
        ) from None


def draw(stream: Stream, timeline: Timeline, threshold: float, path: Path) -> None:
    """Draw a stream: what was said, level, probability of speech, recognitions, ends and answers."""
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.lines import Line2D  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    length_s = len(stream.samples) / SAMPLE_RATE_HZ
    rows = int(-(-length_s // _ROW_S))
    height_in = 2 * _EDGE_IN + _ROW_IN * rows
    figure = Figure(figsize=(_WIDTH_IN, height_in))
    figure.subplots_adjust(
        left=0.03, right=0.99, bottom=_EDGE_IN / height_in, top=1 - _EDGE_IN / height_in, hspace=0.25
    )
    all_axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
    for row, axes in enumerate(all_axes):
        _draw_row(axes, stream, timeline, threshold)
        axes.set_xlim(row * _ROW_S, (row + 1) * _ROW_S)
        axes.set_xticks(np.arange(row * _ROW_S, (row + 1) * _ROW_S + 1))
    all_axes[-1].set_xlabel("seconds")
    figure.legend(
        handles=[
            Patch(color=_COMMAND, label="command, as labelled"),
            Line2D([], [], color=_LEVEL, label=f"level ({-_QUIET_DBFS:.0f} dB)"),
            Line2D([], [], color=_SPEECH, label="probability of speech"),
            Patch(color=_CANCELLED, label="recognised in vain"),
            Patch(color=_USED, label="recognised"),
            Line2D([], [], color=_ENDED, marker="|", ls="", ms=12, mew=2, label="last speech"),
            Line2D([], [], color=_ACCEPTED, marker="^", ls="", label="accepted"),
            Line2D([], [], color=_REFUSED, marker="x", ls="", label="refused"),
        ],
        loc="upper center",
        ncols=8,
        frameon=False,
    )
    figure.savefig(path)


def _draw_row(axes: Axes, stream: Stream, timeline: Timeline, threshold: float) -> None:
    """Draw everything; the limits of the axes choose what is seen."""
    at_s = (np.arange(len(timeline.probabilities)) + 0.5) * FRAME_SAMPLES / SAMPLE_RATE_HZ
    for said in stream.said:
        axes.axvspan(said.start_s, said.end_s, color=_COMMAND, lw=0)
    axes.plot(at_s, 1 - np.maximum(timeline.levels_dbfs, _QUIET_DBFS) / _QUIET_DBFS, color=_LEVEL, lw=0.8)
    axes.plot(at_s, timeline.probabilities, color=_SPEECH, lw=1.2)
    axes.axhline(threshold, color=_SPEECH, lw=0.6, ls=":")
    for each in timeline.recognitions:
        colour = _USED if _was_used(each, timeline) else _CANCELLED
        axes.barh(-0.2, max(each.end_s - each.begin_s, 0.03), 0.2, each.begin_s, color=colour)
    for heard in timeline.heard:
        result = heard.result
        axes.plot([result.end_s], [-0.2], "|", color=_ENDED, ms=14, mew=2)
        style = (_ACCEPTED, "^") if result.accepted else (_REFUSED, "x")
        axes.plot([heard.answered_s], [-0.45], style[1], color=style[0], ms=7)
        words = result.text if result.accepted else result.reason
        place = (heard.answered_s - 0.12, -0.47)
        axes.text(*place, f"{words}", fontsize=7, ha="right", va="center", clip_on=True)
    axes.set_ylim(-0.6, 1.05)
    axes.set_yticks([0, 0.5, 1])
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _was_used(recognition: Recognition, timeline: Timeline) -> bool:
    """Whether a result came of it: the last answer to the utterance that ended there."""
    end_s = recognition.utterance.speech_end_samples / SAMPLE_RATE_HZ
    return recognition.answer is not None and any(heard.result.end_s == end_s for heard in timeline.heard)
