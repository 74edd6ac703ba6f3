"""Models against each other on the same coffee orders in the same run: size, speed, orders understood.

    EDGEVOICE_EVAL_DATA=DIR python bench/models.py [--models NAME,...] [--clips N] [--snr 6] [--out FILE.json]

Clip by clip, each model in turn, every time another one first, one thread. Times are ratios to the first
model over both conditions, with a bootstrap 95 % interval over clips. NAME is an installed model, or one with
a quantisation behind it (tiny.en-q8_0), which is made in the cache if it is not installed. Right means intent
and every labelled slot, before anything is rejected. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgevoice import grammar_file, models, native, recordings
from edgevoice.errors import ModelNotFoundError
from ownvenv import cache_folder, locked
from ratios import of_medians
from turns import ORDERS, Ours, Turn, by_engine, conditions, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable

_MODELS: Final = "tiny.en,tiny.en-q8_0,tiny.en-q5_1,tiny.en-q4_0,base"

_STAGES: Final[dict[str, Callable[[Turn], float]]] = {
    "encode": lambda turn: turn.answer.encode_ms,
    "search": lambda turn: turn.answer.search_ms,
    "total": lambda turn: turn.answer.ms,
}


def main() -> int:
    """Let the models take turns and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=_MODELS, help=f"the first is the measure (default: {_MODELS})")
    parser.add_argument("--clips", type=int, help="only the first N orders")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--snr", type=float, default=6.0, help="of the noisy half, in dB (default: 6)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the pieces of noise (default: 0)")
    parser.add_argument("--out", type=Path, help="write every turn and the table here")
    options = parser.parse_args()
    if not (root := os.environ.get("EDGEVOICE_EVAL_DATA")):
        print("set EDGEVOICE_EVAL_DATA to the folder of recordings", file=sys.stderr)
        return 2
    data = Path(root)
    file = grammar_file.load(data / ORDERS / "grammar.yaml")
    orders = recordings.orders(data / ORDERS, options.clips)
    paths = find_all(options.models.split(","))
    if not paths:
        return 2
    clips = conditions(orders, data, options.snr, options.seed)
    print(
        f"{len(orders)} orders, threads {options.threads}, seed {options.seed}, "
        f"load at the start {os.getloadavg()[0]:.2f}\n",
        flush=True,
    )
    turns: list[Turn] = []
    with contextlib.ExitStack() as opened:
        engines = [
            opened.enter_context(Ours(file, str(path), options.threads, name)) for name, path in paths.items()
        ]
        for engine in engines:
            engine.recognise(clips["clean"][0])  # loads, allocates, fills caches
        for condition, samples in clips.items():
            turns += take_turns(engines, orders, samples, condition, options.threads)
    rows = [row(name, path, turns, next(iter(paths))) for name, path in paths.items()]
    print_table(rows, list(clips))
    if options.out:
        result = {"models": rows, "turns": [asdict(turn) for turn in turns]}
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def find_all(names: list[str]) -> dict[str, Path]:
    """Return the files of the models; those that are not there are named and left out."""
    found: dict[str, Path] = {}
    for name in names:
        source, _, kind = name.rpartition("-")
        installed = {state.name for state in models.list_models() if state.state != "absent"}
        try:
            make = kind in native.QUANTISATIONS and name not in installed
            found[name] = quantised(source, kind) if make else models.find(name)
        except ModelNotFoundError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def quantised(name: str, kind: str) -> Path:
    """Return a quantised form of an installed model, made in the cache the first time."""
    source = models.find(name)
    target = cache_folder() / f"ggml-{name}-{kind}.bin"
    with locked(target):
        if not target.is_file():
            part = target.with_suffix(".part")
            native.quantize(source, part, kind)
            part.replace(target)
    return target


def row(name: str, path: Path, turns: list[Turn], reference: str) -> dict[str, Any]:
    """Return what the table says of a model."""
    engines = by_engine(turns)
    own, measure = engines[name], engines[reference]
    right: dict[str, list[bool]] = {}
    for turn in own:
        right.setdefault(turn.condition, []).append(turn.right)
    return {
        "model": name,
        "bytes": path.stat().st_size,
        "median_ms": float(np.median([turn.answer.ms for turn in own])),
        "right": {condition: (sum(each), len(each)) for condition, each in right.items()},
        "ratios": {
            stage: of_medians([ms(turn) for turn in own], [ms(turn) for turn in measure])
            for stage, ms in _STAGES.items()
        },
    }


def print_table(rows: list[dict[str, Any]], condition_names: list[str]) -> None:
    """Print Markdown."""
    print("| model | MB | " + " | ".join((*_STAGES, "median ms", *condition_names)) + " |")
    print("|---" * (3 + len(_STAGES) + len(condition_names)) + "|")
    for each in rows:
        cells = [each["model"], f"{each['bytes'] / 1e6:.0f}"]
        cells += ["{:.2f} ({:.2f} to {:.2f})".format(*each["ratios"][stage]) for stage in _STAGES]
        cells.append(f"{each['median_ms']:.0f}")
        for condition in condition_names:
            count, of = each["right"][condition]
            cells.append(f"{count}/{of}, {100 * count / of:.1f} %")
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    sys.exit(main())
