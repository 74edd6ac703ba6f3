"""What keeping records costs who waits for an answer: the same orders with records and without, in one run.

    EDGEVOICE_EVAL_DATA=DIR python bench/records.py [--clips N] [--rounds N] [--folder DIR]

Clip by clip, with and without in turn, every time the other one first. The time is all that is computed from
the first frame to the result. Each record is written to the disk, and waited for before the next turn, as the
next command of a house is seconds away. Ratios have a bootstrap 95 % interval over turns.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgevoice import audio, recordings
from edgevoice.config import Config, GrammarConfig, RecordsConfig
from edgevoice.pipeline import Pipeline
from edgevoice.recorder import Recorder
from edgevoice.records import Keeper
from ratios import of_medians
from turns import ORDERS

if TYPE_CHECKING:
    from edgevoice.events import Samples
    from edgevoice.pipeline import Watcher
    from edgevoice.records import Record


def main() -> int:
    """Take turns and print the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=60, help="only the first N orders (default: 60)")
    parser.add_argument("--rounds", type=int, default=4, help="over all clips (default: 4)")
    parser.add_argument("--folder", type=Path, help="of the records, on the disk to measure; default: /tmp")
    options = parser.parse_args()
    if not (root := os.environ.get("EDGEVOICE_EVAL_DATA")):
        print("set EDGEVOICE_EVAL_DATA to the folder of recordings", file=sys.stderr)
        return 2
    data = Path(root) / ORDERS
    clips = [audio.read_audio(each.path) for each in recordings.orders(data, options.clips)]
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        config = Config(
            grammar=GrammarConfig(file=data / "grammar.yaml"),
            records=RecordsConfig(keep=200, folder=Path(name)),
        )
        print(f"{len(clips)} orders, load at the start {os.getloadavg()[0]:.2f}", flush=True)
        with closing(Pipeline(config)) as pipeline, closing(Keeper(config.records)) as keeper:
            given: list[str] = []

            def keep(record: Record) -> None:
                given.append(record.record_id)
                keeper.keep(record)

            recorder = Recorder(config, pipeline.recogniser, keep)
            for samples in clips[:5]:  # loads, allocates, fills caches
                answer_ms(pipeline, samples, recorder)
            kept: list[float] = []
            without: list[float] = []
            for number in range(options.rounds * len(clips)):
                samples = clips[number % len(clips)]
                # Of each clip each is first as often as the other.
                first = (number + number // len(clips)) % 2
                for turn in range(2):
                    records = turn == first
                    ms = answer_ms(pipeline, samples, recorder if records else None)
                    (kept if records else without).append(ms)
                    while keeper.kept + keeper.lost < len(given):
                        time.sleep(0.001)
            lost = keeper.lost
    ratio, low, high = of_medians(kept, without)
    pairs = np.median(np.asarray(kept) / np.asarray(without))
    print(
        f"{len(kept)} turns: medians {np.median(without):.1f} ms without, {np.median(kept):.1f} with them; "
        f"ratio {ratio:.4f} (95 % {low:.4f} to {high:.4f}), median of the pairs {pairs:.4f}; {lost} lost; "
        f"load at the end {os.getloadavg()[0]:.2f}"
    )
    return 0


def answer_ms(pipeline: Pipeline, samples: Samples, watch: Watcher | None) -> float:
    """Return the time from the first frame to the result, which is the last of a recording."""
    started = time.perf_counter()
    for _ in pipeline.results(audio.frames([samples]), watch=watch):
        ended = time.perf_counter()
    return (ended - started) * 1000


if __name__ == "__main__":
    sys.exit(main())
