"""Text while it is spoken against the whole at once: words wrong, how soon one is stable, what is computed.

    .venv/bin/python bench/stream.py [--limit N] [--step S] [--full-window] [--joined] [--model NAME]

Each of the LibriSpeech clips in EDGEVOICE_EVAL_DATA is fed to a stream in pieces of 0.1 s, as fast as it
takes them, with its runs where a machine that needs no time would have them; or with --joined all of them as
one stream, one second of silence between two.

    words wrong   of the stream's and of Session.transcribe()'s text, against what was said, and the stream's
                  against transcribe()'s: Levenshtein, lower case, no punctuation
    lag           seconds of audio from the end of a word, by dynamic time warping in the whole, to where the
                  stream had made it stable; of the words that both wrote. The time of the runs comes on top
    computed      seconds in Whisper for a second of audio. The encoder looks at as much as it needs; with
                  --full-window at 30 s always
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgevoice import models, whisper
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.whisper.stream import Stream, StreamOptions
from transcribers import clips, errors

if TYPE_CHECKING:
    from edgevoice.events import Samples

PIECE = SAMPLE_RATE_HZ // 10


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--limit", type=int, help="only the first N clips")
    parser.add_argument("--step", type=float, default=1.0, help="seconds between two runs (default 1)")
    parser.add_argument("--full-window", action="store_true")
    parser.add_argument("--joined", action="store_true")
    parser.add_argument("--model", default="tiny.en")
    arguments = parser.parse_args()
    data = os.environ.get("EDGEVOICE_EVAL_DATA")
    if not data:
        print("set EDGEVOICE_EVAL_DATA to the folder of the recordings", file=sys.stderr)
        return 2
    chosen = [(samples, text) for _, samples, text in clips(Path(data), arguments.limit)]
    if arguments.joined:
        pause = np.zeros(SAMPLE_RATE_HZ, np.float32)
        chosen = [
            (
                np.concatenate([part for samples, _ in chosen for part in (samples, pause)]),
                " ".join(text for _, text in chosen),
            )
        ]
    language = "en"
    options = whisper.Options(language=language, word_times=True, temperature_step=0)
    streamed = StreamOptions(
        options=whisper.Options(language=language),
        step_s=arguments.step,
        full_window=arguments.full_window,
    )
    audio_s = computed_s = whole_s = 0.0
    wrong = np.zeros((3, 2), int)
    lags: list[float] = []
    runs = 0
    with whisper.Model(models.find(arguments.model), alignment="auto") as model, model.session() as session:
        for samples, text in chosen:
            started_s = time.perf_counter()
            whole = session.transcribe(samples, options)
            whole_s += time.perf_counter() - started_s
            stream = Stream(session, streamed, real_time=False)
            written, times = follow(stream, samples)
            audio_s += len(samples) / SAMPLE_RATE_HZ
            computed_s += stream.run_s
            runs += stream.runs
            pairs = ((text, written), (text, whole.text), (whole.text, written))
            wrong += np.array([errors(said, seen) for said, seen in pairs])
            lags += word_lags(whole, written, times)
            stream.close()
    low, middle, high = np.percentile(lags, [5, 50, 95])
    share = 100 * wrong[:, 0] / wrong[:, 1]
    print(f"{len(chosen)} streams, {audio_s:.0f} s, {runs} runs, {len(lags)} words timed")
    print(
        f"words wrong: stream {share[0]:.1f} %, whole {share[1]:.1f} %; stream against whole {share[2]:.1f} %"
    )
    print(f"lag of stable words: median {middle:.2f} s, 5 to 95 % {low:.2f} to {high:.2f} s")
    print(
        f"computed: {computed_s / audio_s:.2f} of the audio's time; the whole at once {whole_s / audio_s:.2f}"
    )
    return 0


def follow(stream: Stream, samples: Samples) -> tuple[str, list[float]]:
    """Return the final text, and when each of its characters was stable; what is shown must never change."""
    final, times, shown = "", list[float](), ""
    for start in range(0, len(samples) + PIECE, PIECE):
        last = start >= len(samples)
        for update in stream.finish() if last else stream.push(samples[start : start + PIECE]):
            if not update.stable.startswith(shown):
                raise AssertionError(f"{shown!r} became {update.stable!r}")
            shown = update.stable
            times += [min(start + PIECE, len(samples)) / SAMPLE_RATE_HZ] * (
                len(final) + len(shown) - len(times)
            )
            if update.final:
                final, shown = final + shown, ""
    return final, times


def word_lags(whole: whisper.Transcription, written: str, times: list[float]) -> list[float]:
    """Return how long after its end each word was stable."""
    said = [
        (re.sub(r"\W", "", word.text.lower()), word.end_s)
        for segment in whole.segments
        for word in segment.words
    ]
    seen = [
        (re.sub(r"\W", "", found.group().lower()), times[found.end() - 1])
        for found in re.finditer(r"\S+", written)
    ]
    matcher = difflib.SequenceMatcher(None, [w for w, _ in said], [w for w, _ in seen], autojunk=False)
    return [
        seen[block.b + i][1] - said[block.a + i][1]
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
    ]


if __name__ == "__main__":
    sys.exit(main())
