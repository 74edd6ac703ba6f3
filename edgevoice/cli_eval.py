"""The command `edgevoice eval`: what it is given, what it prints and writes."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.util
import json
import math
import os
import platform
import re
import shlex
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgevoice import __version__, extras
from edgevoice.errors import CheckFailedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.progress import Progress

    from edgevoice.config import Config
    from edgevoice.evaluate import Condition, Outcome, Task
    from edgevoice.recordings import Recording
    from edgevoice.scores import Record

FORMAT: Final = 1
"""Version of results.json."""

SNRS_DB: Final = (6.0, 9.0, 12.0, 15.0, 18.0, 21.0, 24.0)
"""Those of the published benchmark."""

_MOST_RATIOS: Final = 100  # more than anyone waits for


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
    add_negatives(parser)
    add("--near-misses", metavar="LIST", help="take each value said out of this list of the grammar, in turn")
    add("--limit", type=_positive, metavar="N", help="only the first N recordings of each folder")
    add("--jobs", type=_positive, default=1, metavar="N", help="processes (default 1); the same numbers")
    add("--out", type=Path, metavar="FOLDER", help="write results.json and report.html there")
    add("--json", action="store_true", help="the summary as JSON in place of a table")


def add_negatives(parser: argparse.ArgumentParser) -> None:
    """Declare where the recordings are that must be refused."""
    parser.add_argument(
        "--negatives",
        action="append",
        type=Path,
        default=[],
        metavar="PATH",
        help="recordings of which none may be accepted; may be repeated",
    )


def run(options: argparse.Namespace, config: Config) -> int:
    """Measure, print, write."""
    _check_usage(options)
    from edgevoice import evaluate, models, recordings, report_text, scores  # noqa: PLC0415 - quick to say what is wrong
    from edgevoice.recognise import shipped_grammar  # noqa: PLC0415

    seed = options.seed or 0
    grammar = options.grammar or config.grammar.file or shipped_grammar(config.model.language)
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
        report_text.show(summary)
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
                f"measuring needs {module}, which is not installed; run: {extras.remedy('eval')}"
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
    from edgevoice import report  # noqa: PLC0415 - it needs matplotlib

    results = {
        **summary,
        "records": [
            {"model": model["name"], **record.json()}
            for model, mine in zip(summary["models"], records, strict=True)
            for record in mine
        ],
    }
    (folder / "results.json").write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", "utf-8")
    (folder / "report.html").write_text(report.page(summary), "utf-8")


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


# ---- arguments ----


def _positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 999999, got {text[:60]!r}")
    return int(text)


def _ratios(text: str) -> tuple[float, ...]:
    """Numbers with commas; "..." before the last counts on to it from the two before."""
    parts = [part.strip() for part in text.split(",")]
    try:
        if parts[-2:-1] == ["..."]:
            *values, last = (float(part) for part in parts if part != "...")
            start, step = values[-1], values[-1] - values[-2]
            count = min(max(round((last - start) / step), 0), _MOST_RATIOS)  # a tiny step is no endless list
            values += [start + step * (index + 1) for index in range(count)]
            values = values if math.isclose(values[-1], last) else []
        else:
            values = [float(part) for part in parts]
    except (ValueError, IndexError, ZeroDivisionError, OverflowError):
        values = []
    if not 0 < len(values) <= _MOST_RATIOS or not all(-60 <= value <= 100 for value in values):
        raise argparse.ArgumentTypeError(
            f"must be numbers of dB from -60 to 100 such as 6,12,18 or 6,9,...,24, got {text[:60]!r}"
        )
    return tuple(dict.fromkeys(values))
