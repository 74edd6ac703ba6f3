"""All that is promised of listening, measured and put beside it, in one table.

    EDGEVOICE_EVAL_DATA=DIR .venv/bin/python bench/ears.py [--limit N] [--seconds S] [PART ...]

    cut       `edgevoice bench stream` with all coffee orders, in four noises, as fast as it goes
    in-time   the same with the first N of them, in real time (default 60): answers ready, and in vain
    home      short commands for the home, which no word can follow, in real time
    idle      `idle.py`, S seconds (default 120) of digital silence and of a quiet room
    replug    a microphone of a real sound server, taken away and plugged in again, five times

On a machine that does nothing else; all of it takes an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

import idle  # also makes tests/ importable
from edgevoice.audio import read_audio
from edgevoice.capture import MicrophoneSource
from edgevoice.cli_bench import FIXED_MS
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.grammar import compile_grammar
from edgevoice.grammar_file import load
from edgevoice.microphone import Microphone
from edgevoice.native import Grammar
from edgevoice.recognise import shipped_grammar
from tests.sound_server import SoundServer

ROOT: Final = Path(__file__).parent.parent
PARTS: Final = ("cut", "in-time", "home", "idle", "replug")
LONGEST_S: Final = 2.5  # of a short command
QUIET: Final = 0.01  # of a synthetic voice's loudest sample: silence, 40 dB below
REPLUGS: Final = 5


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=60, metavar="N")
    parser.add_argument("--seconds", type=float, default=idle.SECONDS, metavar="S")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    if not (root := os.environ.get("EDGEVOICE_EVAL_DATA")):
        print("set EDGEVOICE_EVAL_DATA to the folder of recordings", file=sys.stderr)
        return 2
    orders = Path(root) / "coffee_commands"
    coffee = [orders, "--grammar", orders / "grammar.yaml", "--noise", Path(root) / "noise_picovoice"]
    # In this order whatever was asked for: the last leaves another home behind, where no models are.
    for part in [part for part in PARTS if part in (arguments.parts or PARTS)]:
        if part == "cut":
            cut(bench_stream(*coffee))
        elif part == "in-time":
            in_time(bench_stream(*coffee, "--real-time", "--limit", arguments.limit))
        elif part == "home":
            with tempfile.TemporaryDirectory() as folder:
                answered(bench_stream(home_commands(Path(folder)), "--real-time"))
        elif part == "idle":
            for name, used in idle.measure(arguments.seconds, 1):
                share = 100 * sum(thread.share for thread in used)
                line(f"idle, {name}", f"{share:.2f} % of a core", share <= 2, "at most 2")
        else:
            back_s = replugged()
            line(
                "found again after replug", f"{max(back_s):.1f} s at most of {REPLUGS}", max(back_s) <= 3, "3"
            )
    return 0


def bench_stream(*arguments: object) -> list[dict[str, Any]]:
    """Return the rows of `edgevoice bench stream`."""
    command = [sys.executable, "-m", "edgevoice", "bench", "stream", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT)  # noqa: S603
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def cut(rows: list[dict[str, Any]]) -> None:
    """Tell what is whole, apart and led in."""
    for row, least in zip(rows, (99.5, 99.0, 98.0, 95.0), strict=True):
        name, said = row["condition"], row["said"]
        words, labels = 100 * row["all_words"] / said, 100 * row["whole"] / said
        line(f"all words, {name}", f"{words:.1f} %, by labels {labels:.1f}", words >= least, f"{least}")
        split = 100 * row["split_or_merged"] / row["apart"]
        line(f"split or merged, {name}", f"{split:.1f} % of {row['apart']}", split <= 1, "at most 1")
        led = 100 * row["led_in"] / said
        line(f"first sound kept, {name}", f"{led:.1f} %, by labels", led >= 100, "100")


def in_time(rows: list[dict[str, Any]]) -> None:
    """Tell what was ready, and what was in vain."""
    for row in rows:
        name = row["condition"]
        ready_ms = [each for each in row["ready_ms"] if each is not None]
        ready = 100 * sum(each <= FIXED_MS for each in ready_ms) / len(ready_ms)
        line(f"ready at 0.5 s, {name}", f"{ready:.1f} % of {len(ready_ms)}", ready >= 95, "95")
        wasted = 100 * row["wasted_ms"] / row["used_ms"]
        line(f"in vain, {name}", f"{wasted:.0f} % of the useful", wasted <= 40, "at most 40")


def answered(rows: list[dict[str, Any]]) -> None:
    """Tell how long after the last word an answer came."""
    (row,) = rows
    p50, p95 = np.percentile(row["delays_ms"], [50, 95])
    told = f"{p50:.0f} ms, 95 % within {p95:.0f}, of {len(row['delays_ms'])}"
    line("home commands answered", told, p50 <= 300 and p95 <= 600, "300 and 600")


def home_commands(folder: Path) -> Path:
    """Write a manifest of the short samples that no word of the grammar can follow."""
    grammar = Grammar(compile_grammar(load(shipped_grammar())))
    samples = ROOT / "samples"
    with (folder / "manifest.jsonl").open("w", encoding="utf-8") as out:
        for text in (samples / "manifest.jsonl").read_text("utf-8").splitlines():
            entry = json.loads(text)
            if not entry["accepted"] or grammar.can_go_on(entry["text"]):
                continue
            audio = read_audio(samples / entry["audio"])
            (heard,) = np.nonzero(np.abs(audio) > QUIET * np.abs(audio).max())
            start_s, end_s = heard[0] / SAMPLE_RATE_HZ, (heard[-1] + 1) / SAMPLE_RATE_HZ
            if end_s - start_s <= LONGEST_S:
                entry |= {"speech_start": start_s, "speech_end": end_s}
                out.write(json.dumps({**entry, "audio": str(samples / entry["audio"])}) + "\n")
    grammar.close()
    return folder


def replugged() -> list[float]:
    """Return the seconds from each plugging in to listening again."""
    back_s = []
    with SoundServer() as server:
        os.environ.update(server.environment)
        changed, states = threading.Condition(), list[str]()

        def told(state: str) -> None:
            with changed:
                states.append(state)
                changed.notify_all()

        def wait_for(state: str) -> None:
            with changed:
                if not changed.wait_for(lambda: states[-1:] == [state], 20):
                    sys.exit(f"the microphone did not become {state}: {states}")

        microphone = Microphone(lambda: MicrophoneSource(None, channel=0), told)

        def listen() -> None:
            for _ in microphone:
                if states[-1:] != ["listening"]:
                    told("listening")

        reader = threading.Thread(target=listen, daemon=True)  # what fails ends
        reader.start()
        wait_for("listening")
        for _ in range(REPLUGS):
            server.unplug()
            wait_for("lost")
            time.sleep(3)  # until attempts are as far apart as they get
            start_s = time.monotonic()
            server.plug_in()
            wait_for("listening")
            back_s.append(time.monotonic() - start_s)
        microphone.close()
        reader.join()
    return back_s


def line(what: str, measured: str, reached: bool, promised: str) -> None:
    """Print a line of the table."""
    print(f"{what:32} {measured:38} {'ok' if reached else 'MISSED':8} {promised}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
