"""Command acceptance on real coffee orders, and false accepts on other speech and noise, at one threshold.

    EDGEVOICE_EVAL_DATA=DIR python bench/acceptance.py [--limit N] [--out FILE]

Runs `edgevoice recognize --json` over the recordings of DIR (folders with a manifest.jsonl each) with the
grammar that lies beside the orders. An order is right when one accepted utterance has the intent and every
labelled slot; a false accept is any accepted utterance of the other folders; a near miss is an order with its
drink taken out of the grammar.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import yaml

COMMANDS: Final = "coffee_commands"
OTHERS: Final = (
    "read_librispeech_test_other",
    "read_librispeech_train_notext",
    "nonwake_speech_precise",
    "noise_esc10",
)


def main() -> int:
    """Run both halves and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, help="only the first N recordings of each folder")
    parser.add_argument("--out", type=Path, help="keep the JSON lines here")
    options = parser.parse_args()
    if not (root := os.environ.get("EDGEVOICE_EVAL_DATA")):
        print("set EDGEVOICE_EVAL_DATA to the folder of recordings", file=sys.stderr)
        return 2
    data = Path(root)
    grammar = data / COMMANDS / "grammar.yaml"

    orders = manifest(data / COMMANDS, options.limit)
    started = time.perf_counter()
    lines = recognize([order["path"] for order in orders], grammar)
    took_s = time.perf_counter() - started
    by_file: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_file.setdefault(line["file"], []).append(line)
    right = sum(any(agrees(order, line) for line in by_file[order["path"]]) for order in orders)
    heard = [line["timings_ms"]["total"] for line in lines if line["text"]]
    print(f"{COMMANDS}: {right}/{len(orders)} orders right and accepted ({100 * right / len(orders):.1f} %)")
    print(f"  {took_s:.0f} s in all; median of an utterance {sorted(heard)[len(heard) // 2]:.0f} ms")

    near = near_misses(orders, grammar)
    print(f"near misses: {near}/{len(orders)} orders for a drink taken out of the grammar accepted")

    clips = false_clips = false_utterances = 0
    hours = 0.0
    for folder in OTHERS:
        entries = manifest(data / folder, options.limit)
        found = recognize([entry["path"] for entry in entries], grammar)
        lines += found
        accepted = [line for line in found if line["accepted"]]
        folder_clips = len({line["file"] for line in accepted})
        folder_hours = sum(entry.get("duration", 0.0) for entry in entries) / 3600
        print(f"{folder}: {folder_clips}/{len(entries)} clips falsely accepted, {folder_hours:.2f} h")
        for line in accepted:
            print(f"  {Path(line['file']).name}: {line['text']} ({line['confidence']:.2f})")
        clips += len(entries)
        false_clips += folder_clips
        false_utterances += len(accepted)
        hours += folder_hours
    # Upper end of the exact 95 % interval of a Poisson count; for no event that is -ln(0.05), one-sided.
    upper = (
        -math.log(0.05) if not false_utterances else false_utterances + 2 * math.sqrt(false_utterances) + 2
    )
    print(
        f"false accepts: {false_clips}/{clips} clips ({100 * false_clips / clips:.2f} %), "
        f"{false_utterances} in {hours:.2f} h, at most {upper / max(hours, 1e-9):.1f} per hour (95 %)"
    )
    if options.out:
        options.out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return 0


def near_misses(orders: list[dict[str, Any]], grammar: Path) -> int:
    """Take each drink in turn out of the grammar; count the orders for it that are accepted all the same."""
    described = yaml.safe_load(grammar.read_text("utf-8"))
    drinks = described["lists"]["coffeeDrink"]["values"]
    accepted = 0
    for drink in drinks:
        paths = [order["path"] for order in orders if order["slots"]["coffeeDrink"].strip() == drink]
        if not paths:
            continue
        described["lists"]["coffeeDrink"]["values"] = [other for other in drinks if other != drink]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
            yaml.safe_dump(described, file, sort_keys=False)
            file.flush()
            accepted += sum(line["accepted"] for line in recognize(paths, Path(file.name)))
    return accepted


def manifest(folder: Path, limit: int | None) -> list[dict[str, Any]]:
    """Return the entries of a folder, each with the path of its recording."""
    entries = [json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]
    return [{**entry, "path": str(folder / entry["audio"])} for entry in entries[:limit]]


def recognize(paths: list[str], grammar: Path) -> list[dict[str, Any]]:
    """Run the command over some recordings and return its lines."""
    command = [sys.executable, "-m", "edgevoice", "recognize", "--json", "--grammar", str(grammar), *paths]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return [json.loads(line) for line in done.stdout.splitlines()]


def agrees(order: dict[str, Any], line: dict[str, Any]) -> bool:
    """Whether an utterance was accepted with the intent and every labelled slot of the order."""
    return (
        line["accepted"]
        and line["intent"] == order["intent"]
        and all(line["slots"].get(name) == value.strip() for name, value in order["slots"].items())
    )


if __name__ == "__main__":
    sys.exit(main())
