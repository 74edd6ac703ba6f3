"""Who is understood how well: commands and words by who speaks, as far as recordings tell who that is.

    EDGEVOICE_EVAL_DATA=DIR python bench/groups.py [--model tiny.en] [--clips N] [--out FILE.json]

Commands go the whole way of `edgevoice run`, with a grammar of all the words of the folder; half a second of
silence stands before and after each, as the recordings are cut to the word. Right means accepted, with the
word that was said. Texts are transcribed by edgevoice.whisper at its defaults; a word error is a changed,
missing or added word, in lower case, without punctuation, "7" as "seven".

What is known of speakers comes from those who recorded them: accents of digits_fsdd from its metadata.py.
Names of AN4's speakers begin with f or m, which its README does not explain and is taken for women and men.
Nothing is known of the others: for them, how far the best and the worst speaker are apart. Who spoke which
coffee order is not known at all. German people (read_german_emodb) are left out: those recordings end after
2 seconds, before the sentence does.

Intervals are 95 %: exact for shares; for word errors by drawing speakers anew. CPU seconds are of this
process, all threads; one thread is used.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgevoice import audio, models, recordings, scores, whisper
from edgevoice.config import Config
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.pipeline import Pipeline
from edgevoice.publish import result_fields
from edgevoice.recordings import Recording
from transcribers import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from edgevoice.events import Samples

_SILENCE: Final = np.zeros(SAMPLE_RATE_HZ // 2, np.float32)
_RESAMPLES: Final = 5_000
_SEED: Final = 1

ACCENTS: Final = {
    "jackson": "English (US)", "theo": "English (US)",
    "nicolas": "others", "yweweler": "others", "george": "others",
}  # fmt: skip
"""French (Belgium), German, Greek. Its metadata.py has nothing of the sixth speaker, lucas."""

_DIGITS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True, slots=True)
class Clip:
    """What became of one recording."""

    speaker: str
    group: str
    wrong: int
    of: int
    refused: int
    cpu_s: float


def main() -> int:
    """Measure and print a table for each folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--clips", type=int, metavar="N", help="only the first N of each folder")
    parser.add_argument("--out", type=Path, help="write every clip here")
    options = parser.parse_args()
    if not (root := os.environ.get("EDGEVOICE_EVAL_DATA")):
        print("set EDGEVOICE_EVAL_DATA to the folder of recordings", file=sys.stderr)
        return 2
    data = Path(root)
    parts: dict[str, Iterator[Clip]] = {
        "coffee orders, commands": orders(data / "coffee_commands", options),
        "digits, commands": commands(
            data / "digits_fsdd", options, lambda name: ACCENTS.get(name, "unknown")
        ),
        "single words, commands": commands(data / "commands_gsc_mini", options, lambda _: "all"),
        "spelled, words": spelled(data / "spelled_an4", options),
        "read English, words": texts(data / "read_librispeech_test_other", options),
    }
    found = {}
    for title, clips in parts.items():
        found[title] = list(clips)
        report(title, found[title])
    if options.out:
        everything = {title: [asdict(clip) for clip in clips] for title, clips in found.items()}
        options.out.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    return 0


def _rows(folder: Path, limit: int | None) -> list[dict[str, Any]]:
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()[:limit]
    return [row for row in map(json.loads, lines) if "text" in row]  # what was said of some is not known


def orders(folder: Path, options: Any) -> Iterator[Clip]:
    """Understand the orders, of speakers that nobody named."""
    with contextlib.closing(Pipeline(_config(options), folder / "grammar.yaml")) as pipeline:
        for order in recordings.orders(folder, options.clips):
            yield _understood(pipeline, audio.read_audio(order.path), order, "?", "all")


def commands(folder: Path, options: Any, group: Callable[[str], str]) -> Iterator[Clip]:
    """Understand single words as commands."""
    rows = _rows(folder, options.clips)
    words = sorted({row["text"] for row in rows})
    with tempfile.TemporaryDirectory() as temporary:
        grammar = Path(temporary) / "words.yaml"
        grammar.write_text(
            "language: en\nintents:\n  Say:\n    data:\n      - sentences: ['{word}']\n"
            f"lists:\n  word:\n    values: {json.dumps(words)}\n",
            encoding="utf-8",
        )
        with contextlib.closing(Pipeline(_config(options), grammar)) as pipeline:
            for row in rows:
                path = folder / row["audio"]
                samples = np.concatenate([_SILENCE, audio.read_audio(path), _SILENCE])
                said = Recording(path, row["audio"], str(folder), "Say", {"word": row["text"]})
                yield _understood(pipeline, samples, said, row["speaker"], group(row["speaker"]))


def _config(options: Any) -> Config:
    return replace(Config(), model=replace(Config().model, name=options.model, threads=1))


def _understood(pipeline: Pipeline, samples: Samples, said: Recording, speaker: str, group: str) -> Clip:
    started = time.process_time()
    results: list[dict[str, Any]] = [
        result_fields(each) for each in pipeline.results(audio.frames([samples]))
    ]
    cpu_s = time.process_time() - started
    accepted = [each for each in results if each["accepted"]]
    right = bool(accepted) and all(scores.agrees(said, each) for each in accepted)
    return Clip(speaker, group, int(not right), 1, int(not accepted), cpu_s)


def texts(folder: Path, options: Any) -> Iterator[Clip]:
    """Transcribe what is read."""
    rows = _rows(folder, options.clips)
    with whisper.Model(models.find(options.model)) as opened, opened.session() as session:
        for row in rows:
            samples = audio.read_audio(folder / row["audio"])
            yield _transcribed(session, samples, row, whisper.Options(language="en"), lambda _: "all")


def spelled(folder: Path, options: Any) -> Iterator[Clip]:
    """Transcribe letters and numbers, bound to the words of the folder: else "x i" is "XI"."""
    rows = _rows(folder, options.clips)
    words = sorted({word for row in rows for word in row["text"].split()})
    grammar = whisper.Gbnf('root ::= (" " word)+\nword ::= ' + " | ".join(map(json.dumps, words)))
    bound = whisper.Options(language="en", timestamps=False, grammar=grammar)

    def group(speaker: str) -> str:
        return {"f": "women", "m": "men"}[speaker[0]]

    with whisper.Model(models.find(options.model)) as opened, opened.session() as session:
        for row in rows:
            samples = audio.read_audio(folder / row["audio"])
            yield _transcribed(session, samples, row, bound, group)


def _transcribed(
    session: whisper.Session,
    samples: Samples,
    row: dict[str, Any],
    options: whisper.Options,
    group: Callable[[str], str],
) -> Clip:
    started = time.process_time()
    written = session.transcribe(samples, options).text
    cpu_s = time.process_time() - started
    wrong, of = errors(_plain(row["text"]), _plain(written))
    return Clip(row["speaker"], group(row["speaker"]), wrong, of, 0, cpu_s)


def _plain(text: str) -> str:
    return re.sub(r"\b\d\b", lambda digit: _DIGITS[int(digit[0])], text.lower())


def report(title: str, clips: list[Clip]) -> None:
    """Print shares of errors by group and, within it, of the best and worst speaker."""
    print(
        f"\n{title:32}{'speakers':>9}{'clips':>7}{'errors':>13}{'%':>7}   95 %            best-worst %  CPU s"
    )
    for group, own in sorted(_split(clips, lambda clip: clip.group).items()):
        wrong, of = sum(clip.wrong for clip in own), sum(clip.of for clip in own)
        speakers = _split(own, lambda clip: clip.speaker)
        rates = sorted(_rate(each) for each in speakers.values())
        if all(clip.of == 1 for clip in own):
            exact = scores.share(wrong, of)
            low, high = 100 * exact.low, 100 * exact.high
        else:
            low, high = _drawn(list(speakers.values()))
        cpu = np.median([clip.cpu_s for clip in own])
        print(
            f"  {group:30}{len(speakers):9}{len(own):7}{f'{wrong} of {of}':>13}{100 * wrong / of:7.1f}"
            f"   {f'{low:.1f} - {high:.1f}':15} {rates[0]:.0f} - {rates[-1]:.0f}{cpu:14.2f}"
        )
        if refused := sum(clip.refused for clip in own):
            print(f"  {'':30} of these errors {refused} refused, the others another word")


def _rate(clips: Iterable[Clip]) -> float:
    clips = list(clips)
    return 100 * sum(clip.wrong for clip in clips) / sum(clip.of for clip in clips)


def _drawn(speakers: list[list[Clip]]) -> tuple[float, float]:
    chance = np.random.default_rng(_SEED)
    wrong = np.array([sum(clip.wrong for clip in each) for each in speakers])
    of = np.array([sum(clip.of for clip in each) for each in speakers])
    drawn = chance.integers(len(speakers), size=(_RESAMPLES, len(speakers)))
    low, high = np.percentile(100 * wrong[drawn].sum(1) / of[drawn].sum(1), [2.5, 97.5])
    return float(low), float(high)


def _split(clips: Iterable[Clip], key: Callable[[Clip], str]) -> dict[str, list[Clip]]:
    split: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        split[key(clip)].append(clip)
    return split


if __name__ == "__main__":
    sys.exit(main())
