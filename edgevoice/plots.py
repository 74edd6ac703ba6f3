"""The plots of the report, as SVG that takes its colours and letters from the page around it."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

# Drawn in these, shown in the page's own: one drawing serves light and dark.
_INK, _MUTED, _GRID = "#000001", "#000002", "#000003"
_SERIES: Final = ("#000011", "#000012", "#000013", "#000014", "#000015")
_VARIABLES: Final = {
    _INK: "--ink", _MUTED: "--muted", _GRID: "--grid",
    **{colour: f"--series-{number}" for number, colour in enumerate(_SERIES, start=1)},
}  # fmt: skip

_STYLE: Final[Any] = {
    "svg.fonttype": "none",  # letters stay letters: the reader's font, found by searching
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
}
_WIDTH_IN: Final = 5.0  # 360 points: a phone's width, so that letters keep their size there
_MARKS: Final = (0.1, 0.3, 0.5, 0.7, 0.9)  # thresholds marked on the trade-off
_MOST_LINES: Final = 4  # more are told apart only with effort


def accuracy_by_snr(models: Sequence[dict[str, Any]]) -> str:
    """Commands right and accepted over the ratio of speech to noise, with 95 % intervals; clean last.

    One line for each noise; of more noises or models than one can tell apart, one for each model.
    """
    ratios = sorted({each["snr_db"] for model in models for each in model["conditions"] if each["noise"]})
    noises = [noise["name"] for noise in models[0]["noises"]]
    by_noise = len(models) == 1 and len(noises) <= _MOST_LINES
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(3.1)
        names = noises if by_noise else [model["name"] for model in models]
        for number, name in enumerate(names):
            model = models[0] if by_noise else models[number]
            shares = [_at(model, ratio, name if by_noise else None) for ratio in ratios]
            shares.append(_clean(model))
            shift = (number - (len(names) - 1) / 2) * 0.12  # side by side, not on top of each other
            places = [place + shift for place in range(len(shares))]
            _line(axes, places, shares, _SERIES[number % len(_SERIES)], name)
        axes.set_xticks(range(len(ratios) + 1), [*(f"{ratio:g}" for ratio in ratios), "clean"])
        axes.set_xlabel("dB of speech above noise")
        axes.set_ylabel("right and accepted, %")
        axes.set_ylim(top=100.5)
        axes.grid(visible=False, axis="x")
        if len(names) > 1:
            _legend(figure)
        return _svg(figure, "accuracy by noise")


def _at(model: dict[str, Any], snr_db: float, noise: str | None) -> dict[str, Any] | None:
    """The share at a ratio, of one noise or of all together."""
    groups = model["conditions"] if noise else model["ratios"]
    return next(
        (
            each["right"]
            for each in groups
            if each["snr_db"] == snr_db and (noise is None or each["noise"] == noise)
        ),
        None,
    )


def _clean(model: dict[str, Any]) -> dict[str, Any] | None:
    right: dict[str, Any] = model["conditions"][0]["right"]
    return right


def _line(
    axes: Axes, places: Sequence[float], shares: Sequence[dict[str, Any] | None], colour: str, name: str
) -> None:
    known = [
        (place, share)
        for place, share in zip(places, shares, strict=True)
        if share and share["rate"] is not None
    ]
    x = [place for place, _ in known]
    rates, lows, highs = ([100 * share[key] for _, share in known] for key in ("rate", "low", "high"))
    axes.vlines(x, lows, highs, color=colour, alpha=0.45, linewidth=5)
    axes.plot(x, rates, color=colour, marker="o", markersize=5, label=name)


def trade_off(model: dict[str, Any], threshold: float) -> str:
    """Commands accepted against false accepts an hour, as the threshold of confidence moves."""
    curve = model["curve"]
    hours = model["false_accepts"]["utterances"]["hours"]
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(3.1)
        x = [point["false_accepts_per_hour"] for point in curve]
        axes.set_xscale("symlog", linthresh=1 / hours, linscale=0.6)
        for colour, key, name in _lines_of(curve):
            y = [100 * point[key] for point in curve]
            axes.plot(x, y, color=colour, label=name)
            for mark in (*_MARKS, threshold):
                at = int(np.argmin([abs(point["threshold"] - mark) for point in curve]))
                chosen = mark == threshold
                axes.plot(x[at], y[at], "o", color=colour, markersize=8 if chosen else 4)
        marked = [point for point in curve if point["threshold"] <= max(_MARKS[-1], threshold)]
        lowest = min(100 * point[key] for point in marked for _, key, _ in _lines_of(curve))
        axes.set_ylim(min(lowest - 2, 90), 101)
        axes.set_xlim(left=-0.3 / hours)
        ticks = [each for each in (0, 1, 3, 10, 30, 100, 300, 1000) if not 0 < each < 1 / hours]
        axes.set_xticks([each for each in ticks if each <= max(*x, 1 / hours)])
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set_xlabel("false accepts an hour")
        axes.set_ylabel("right and accepted, %")
        _legend(figure)
        return _svg(figure, "trade-off")


def by_threshold(model: dict[str, Any], threshold: float) -> str:
    """Shares accepted over the threshold of confidence: what should be, and near misses."""
    curve = model["curve"]
    x = [point["threshold"] for point in curve]
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(3.1)
        for colour, key, name in _lines_of(curve):
            axes.plot(x, [100 * point[key] for point in curve], color=colour, label=name)
        if curve[0]["near_misses"] is not None:
            near = [100 * point["near_misses"] for point in curve]
            axes.plot(x, near, color=_SERIES[2], label="near misses (wrong)")
        axes.axvline(threshold, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)))
        axes.annotate(
            f"in use: {threshold:g}", (threshold, 50), (6, 0), textcoords="offset points", color=_MUTED
        )
        axes.set_ylim(-2, 102)
        axes.set_xlabel("threshold of confidence")
        axes.set_ylabel("accepted, %")
        _legend(figure)
        return _svg(figure, "by threshold")


def _lines_of(curve: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Colour, key and name of what the curve holds of commands."""
    lines = [(_SERIES[0], "right_clean", "clean"), (_SERIES[1], "right_noisy", "in noise")]
    return [line for line in lines if curve[0][line[1]] is not None]


def latency(model: dict[str, Any]) -> str:
    """Computing time of each stage: half of the commands, 95 of 100, the longest."""
    stages = {name: each for name, each in model["latency_ms"].items() if name != "match" or each["p95"] >= 1}
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(0.75 + 0.38 * len(stages))
        for place, each in enumerate(reversed(stages.values())):
            axes.hlines(place, 0, each["p50"], color=_SERIES[0], linewidth=11, capstyle="butt")
            axes.hlines(place, each["p50"], each["p95"], color=_SERIES[0], linewidth=11, alpha=0.4)
            axes.hlines(place, each["p95"], each["max"], color=_SERIES[0], linewidth=1.5, alpha=0.7)
            axes.annotate(
                f"{each['p50']:.0f}", (each["max"], place), (6, 0), textcoords="offset points", va="center"
            )
        axes.set_yticks(range(len(stages)), list(reversed(stages)))
        axes.set_ylim(-0.6, len(stages) - 0.4)
        axes.set_xlim(0, 1.1 * max(each["max"] for each in stages.values()))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("ms")
        return _svg(figure, "computing time")


def not_right(groups: Sequence[dict[str, Any]]) -> str:
    """What became of the commands that were not understood: the reason of refusal, or a wrong intent."""
    reasons = list(dict.fromkeys(reason for group in groups for reason in group["refusals"]))
    colours = [*(_SERIES[0], _SERIES[3], _SERIES[2], _MUTED, _GRID)[: len(reasons)], _SERIES[1]]
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(1.0 + 0.27 * len(groups))
        places = range(len(groups) - 1, -1, -1)
        left = [0.0] * len(groups)
        for colour, reason in zip(colours, [*reasons, None], strict=False):
            widths = [
                100 * (group["refusals"].get(reason, 0) if reason else group["wrong_accepted"]["count"])
                / max(group["right"]["of"], 1)
                for group in groups
            ]  # fmt: skip
            name = reason.replace("_", " ") if reason else "wrong, accepted"
            axes.barh(places, widths, left=left, color=colour, height=0.62, label=name)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.set_yticks(places, [group["name"] for group in groups])
        axes.set_xlim(0, max(*left, 1) * 1.05)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("% of the commands")
        _legend(figure)
        return _svg(figure, "not right")


def _figure(height_in: float) -> tuple[Figure, Axes]:
    figure = Figure((_WIDTH_IN, height_in), layout="constrained")
    return figure, figure.add_subplot()


def _legend(figure: Figure) -> None:
    figure.legend(loc="outside upper left", ncols=3, fontsize=9, handlelength=1, columnspacing=1.2)


def _svg(figure: Figure, name: str) -> str:
    """Inline SVG: no prolog, no metadata, no addresses, the page's colours and font."""
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):  # the same drawing, the same text
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", text)
    text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)
