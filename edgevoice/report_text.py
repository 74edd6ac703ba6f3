"""What `edgevoice eval` prints, and how figures are written there and on the page."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table


def show(summary: dict[str, Any]) -> None:
    """Print what was measured."""
    width = None if sys.stdout.isatty() else 110
    console = Console(highlight=False, width=width)
    for model in summary["models"]:
        _show_model(console, model)


def _show_model(console: Console, model: dict[str, Any]) -> None:
    table = Table(title=model["name"], title_justify="left", title_style="bold")
    table.add_column("condition", no_wrap=True)
    for title in ("right", "95 %", "best guess", "wrong"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("refused")
    for group in groups(model):
        right = group["right"]
        table.add_row(
            group["name"],
            f"{right['count']}/{right['of']} {percent(right['rate'])}",
            f"{percent(right['low'])} - {percent(right['high'])}",
            percent(group["right_before_threshold"]["rate"]),
            str(group["wrong_accepted"]["count"]),
            ", ".join(f"{reason} {count}" for reason, count in group["refusals"].items()) or "0",
        )
    console.print(table)
    if found := model["false_accepts"]:
        clips, hours = found["clips"], found["utterances"]
        console.print(
            f"false accepts: {clips['count']} of {clips['of']} recordings "
            f"({percent(clips['rate'])}; 95 %: {percent(clips['low'])} - {percent(clips['high'])}), "
            f"{hours['count']} in {hours['hours']:.2f} h: {number(hours['per_hour'])} an hour "
            f"(95 %: {number(hours['low'])} - {number(hours['high'])})",
            soft_wrap=True,
        )
        for line in found["accepted"]:
            console.print(
                f'  {line["confidence"]:.2f} {line["file"]}: "{line["text"]}"', markup=False, soft_wrap=True
            )
    if near := model["near_misses"]:
        accepted = near["accepted"]
        console.print(
            f"near misses accepted: {accepted['count']} of {accepted['of']} ({percent(accepted['rate'])}; "
            f"95 %: {percent(accepted['low'])} - {percent(accepted['high'])})",
            soft_wrap=True,
        )
    if total := model["latency_ms"].get("total"):
        console.print(
            "computing time of a command, ms: "
            + ", ".join(f"{name} {value:.0f}" for name, value in total.items())
            + f"; real-time factor {number(model['real_time_factor'])}, "
            f"peak memory {model['peak_memory_bytes'] / 1e6:.0f} MB",
            soft_wrap=True,
        )


def groups(model: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the conditions, then what several of them make together, each group once."""
    noisy = [condition for condition in model["conditions"] if condition["noise"]]
    together = [{**noise, "name": f"{noise['name']}, all"} for noise in model["noises"]]
    return [
        *model["conditions"],
        *(together if len(noisy) > len(together) > 1 else ()),
        *([model["all_noises"]] if len(noisy) > 1 else ()),
    ]


def percent(rate: float | None) -> str:
    """A proportion for people."""
    return "-" if rate is None else f"{100 * rate:.1f} %"


def number(value: float | None) -> str:
    """A rate for people."""
    if value is None:
        return "-"
    return f"{value:.2f}" if 0 < value < 10 else f"{value:.0f}"
