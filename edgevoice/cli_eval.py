"""The command `edgevoice eval`: what it is given, what it prints and writes."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.util
import json
import os
import platform
import re
import shlex
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgevoice import __version__
from edgevoice.errors import CheckFailedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console
    from rich.progress import Progress

    from edgevoice.config import Config
    from edgevoice.evaluate import Condition, Outcome, Task
    from edgevoice.recordings import Recording
    from edgevoice.scores import Record

FORMAT: Final = 1
"""Version of results.json."""

SNRS_DB: Final = (6.0, 9.0, 12.0, 15.0, 18.0, 21.0, 24.0)
"""Those of the published benchmark."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add = parser.add_argument
    add("manifests", nargs="+", type=Path, metavar="MANIFEST", help="a manifest.jsonl, or its folder")
    add("--grammar", type=Path, metavar="FILE", help="grammar in place of the configured one")
    add(
        "--model",
        action="append",
        dest="models",
        metavar="NAME",
        help="model in place of the configured one; may be repeated, to compare",
    )
    add(
        "--noise",
        action="append",
        type=Path,
        default=[],
        metavar="PATH",
        help="noise, or a folder of it: one for each label of its manifest; may be repeated",
    )
    add("--snr", type=_ratios, metavar="LIST", help="dB above the noises (default 6,9,...,24)")
    add("--rir", type=Path, metavar="PATH", help="impulse response of a room, or a folder of them: far field")
    add("--seed", type=int, metavar="N", help="of what is chosen at random (default 0)")
    add(
        "--negatives",
        action="append",
        type=Path,
        default=[],
        metavar="PATH",
        help="recordings of which none may be accepted; may be repeated",
    )
    add("--near-misses", metavar="LIST", help="take each value said out of this list of the grammar, in turn")
    add("--limit", type=_positive, metavar="N", help="only the first N recordings of each folder")
    add("--jobs", type=_positive, default=1, metavar="N", help="processes (default 1); the same numbers")
    add("--out", type=Path, metavar="FOLDER", help="write results.json there")
    add("--json", action="store_true", help="the summary as JSON in place of a table")


def run(options: argparse.Namespace, config: Config) -> int:
    """Measure, print, write."""
    _check_usage(options)
    from edgevoice import evaluate, models, recordings, scores  # noqa: PLC0415 - quick to say what is wrong
    from edgevoice.recognise import shipped_grammar  # noqa: PLC0415

    seed = options.seed or 0
    grammar = options.grammar or config.grammar.file or shipped_grammar()
    orders = [order for path in options.manifests for order in recordings.orders(path, options.limit)]
    negatives = [other for path in options.negatives for other in recordings.others(path, options.limit)]
    chosen = evaluate.conditions(
        _noises(options.noise),
        options.snr or SNRS_DB,
        recordings.rooms(options.rir) if options.rir else (),
    )
    names = list(dict.fromkeys(options.models or [config.model.name]))
    for name in names:
        models.find(name)  # before the first hour of measuring, not after it
    about = _about(options, config, grammar, seed=seed, orders=orders, chosen=chosen)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    records: list[list[Record]] = []
    with tempfile.TemporaryDirectory() as folder:
        tasks = evaluate.plan(orders, negatives, chosen, grammar)
        if options.near_misses:
            tasks += evaluate.near_misses(orders, options.near_misses, grammar, Path(folder))
        with _progress() as progress:
            for name in names:
                model = dataclasses.replace(config, model=dataclasses.replace(config.model, name=name))
                bar = progress.add_task(f"{name}: ", total=len(tasks))
                outcomes = evaluate.measure(tasks, model, seed, options.jobs, _advance(progress, bar))
                records.append([scores.judge(*pair) for pair in zip(tasks, outcomes, strict=True)])
                path = models.find(name)
                found.append(
                    {
                        "name": name,
                        "sha256": _sha256(path),
                        "size_bytes": path.stat().st_size,
                        **scores.summary(records[-1]),
                    }
                )
    summary = {**about, "models": found}
    if options.out:
        _write(options.out, summary, records)
    if options.json:
        print(json.dumps(summary, ensure_ascii=False))
    else:
        _print(summary)
    return _report_errors(records)


def _check_usage(options: argparse.Namespace) -> None:
    """Refuse what cannot be done or would have no effect."""
    if options.snr and not options.noise:
        raise UsageError("--snr has no effect without --noise; say which noise")
    if options.seed is not None and not options.noise and not options.rir:
        raise UsageError("--seed has no effect without --noise or --rir, as nothing is chosen at random")
    for module in ("scipy", "matplotlib") if options.out else ("scipy",):
        if importlib.util.find_spec(module) is None:
            raise CheckFailedError(
                f"measuring needs {module}, which is not installed; pip install 'edgevoice[eval]'"
            )


def _noises(sources: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    from edgevoice import recordings  # noqa: PLC0415

    found: dict[str, tuple[Path, ...]] = {}
    for source in sources:
        for label, clips in recordings.noises(source).items():
            if label in found:
                raise UsageError(f"two noises are called {label!r}, the second in {source}; rename one")
            found[label] = clips
    return found


def _about(
    options: argparse.Namespace,
    config: Config,
    grammar: Path,
    *,
    seed: int,
    orders: Sequence[Recording],
    chosen: Sequence[Condition],
) -> dict[str, Any]:
    """Everything that someone needs to measure the same again."""
    from edgevoice import native  # noqa: PLC0415

    return {
        "format": FORMAT,
        "command": shlex.join(["edgevoice", *sys.argv[1:]]),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "edgevoice": __version__,
        "whisper_cpp": native.whisper_version(),
        "python": platform.python_version(),
        "machine": _machine(),
        "kernels": native.kernels(),
        "threads": config.model.thread_count,
        "jobs": options.jobs,
        "grammar": {"file": str(grammar), "sha256": _sha256(grammar)},
        "min_confidence": config.recognition.min_confidence,
        "seed": seed,
        "near_misses": options.near_misses,
        "recordings": len(orders),
        "condition_names": [condition.name for condition in chosen],
    }


def _machine() -> dict[str, Any]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    named = re.search(r"^(?:Model|model name)\s*: (.+)$", text, re.MULTILINE)  # "Model" on a Raspberry Pi
    return {
        "processor": named[1] if named else platform.machine(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
    }


def _sha256(path: Path) -> str:
    from edgevoice.errors import GrammarError  # noqa: PLC0415

    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise GrammarError(f"{path}: cannot be read ({error.strerror}); check the path") from None


# ---- what is shown ----


def _progress() -> Progress:
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _advance(progress: Progress, bar: Any) -> Callable[[Task, Outcome], None]:
    return lambda _task, _outcome: progress.advance(bar)


def _write(folder: Path, summary: dict[str, Any], records: Sequence[Sequence[Record]]) -> None:
    results = {
        **summary,
        "records": [
            {"model": model["name"], **record.json()}
            for model, mine in zip(summary["models"], records, strict=True)
            for record in mine
        ],
    }
    (folder / "results.json").write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", "utf-8")


def _report_errors(records: Sequence[Sequence[Record]]) -> int:
    """Name each recording that could not be heard, once, and return the exit code of the first."""
    failed = {
        str(record.task.recording.path): record.outcome
        for mine in records
        for record in mine
        if record.outcome.error
    }
    for path, outcome in failed.items():
        which = "" if path in str(outcome.error) else f"{path}: "
        print(f"edgevoice: {which}{outcome.error}", file=sys.stderr)
    return next((outcome.exit_code for outcome in failed.values()), 0)


def _print(summary: dict[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415

    width = None if sys.stdout.isatty() else 110
    console = Console(highlight=False, width=width)
    for model in summary["models"]:
        _print_model(console, model)


def _print_model(console: Console, model: dict[str, Any]) -> None:
    from rich.table import Table  # noqa: PLC0415

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
    return "-" if value is None else f"{value:.2f}"


# ---- arguments ----


def _positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 999999, got {text[:60]!r}")
    return int(text)


def _ratios(text: str) -> tuple[float, ...]:
    """Numbers with commas; a, b, ... , z counts on from a and b."""
    parts = [part.strip() for part in text.split(",")]
    try:
        if "..." in parts:
            first, second, dots, last = parts
            start, step, stop = float(first), float(second) - float(first), float(last)
            count = round((stop - start) / step) + 1
            values = [start + step * index for index in range(count)] if dots == "..." and count < 100 else []
        else:
            values = [float(part) for part in parts]
    except (ValueError, ZeroDivisionError, OverflowError):
        values = []
    if not values or not all(-60 <= value <= 100 for value in values):
        raise argparse.ArgumentTypeError(
            f"must be numbers of dB from -60 to 100 such as 6,12,18 or 6,9,...,24, got {text[:60]!r}"
        )
    return tuple(dict.fromkeys(values))
