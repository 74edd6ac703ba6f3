"""Fit the weights of edgevoice/confidence.json on recordings of people.

    EDGEVOICE_EVAL_DATA=DIR python bench/fit_confidence.py --collect FILE [--model tiny.en] [--limit N]
    python bench/fit_confidence.py --fit FILE [--model tiny.en] [--write]

The first runs recordings through detector, endpointer and decoder and keeps the evidence of every utterance
(of what the weights in use are nearly sure of, the mean of two looks, see recognise.py):
commands in quiet and in noise, near misses (a word taken out of the grammar), and single words of which half
are in the grammar. The second fits the logistic function and prints what it would do to recordings it was not
fitted on (five-fold, by recording). The bias is then set so that a confidence of 0.5 lets NEAR_MISSES of the
near misses through. Other speech and sounds, which are far off, are left to `edgevoice eval`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import sys
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import yaml
from scipy.optimize import minimize

from edgevoice import mixing
from edgevoice.audio import frames, read_audio
from edgevoice.confidence import WEIGHTS_FILE
from edgevoice.config import Config, ModelConfig
from edgevoice.pipeline import LastAnswer, Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

    from edgevoice.events import Samples

    Floats = npt.NDArray[np.float64]

NEAR_MISSES: Final = 0.035
"""Of the near misses may be accepted at 0.5; they are the hardest negatives, other speech is far off."""

NAMES: Final = ("per_token", "worst_gap", "acoustic_gap")

TEXTS: Final = ("commands_gsc_mini", "digits_fsdd")
"""Folders whose manifest has what is said: half of the texts become a grammar."""

FOLDS: Final = 5


def main() -> int:
    """Collect evidence, or fit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--collect", type=Path, metavar="FILE")
    what.add_argument("--fit", type=Path, metavar="FILE")
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--limit", type=int, help="only the first N recordings of each folder")
    parser.add_argument("--write", action="store_true", help="into edgevoice/confidence.json")
    options = parser.parse_args()
    if options.fit:
        return fit(options.fit, options.model, write=options.write)
    if not (root := os.environ.get("EDGEVOICE_EVAL_DATA")):
        print("set EDGEVOICE_EVAL_DATA to the folder of recordings", file=sys.stderr)
        return 2
    with options.collect.open("w", encoding="utf-8") as out:
        for case in Collector(Path(root), options.model, options.limit).cases():
            out.write(json.dumps(case) + "\n")
            out.flush()
    return 0


# ---- collecting ----


class Collector:
    """Runs recordings through the pipeline and keeps the evidence behind its answers."""

    def __init__(self, data: Path, model: str, limit: int | None) -> None:
        self.data, self.limit = data, limit
        self.config = Config(model=ModelConfig(name=model))

    def cases(self) -> Iterator[dict[str, Any]]:
        """Yield the evidence of every utterance, with the truth."""
        coffee = self.data / "coffee_commands" / "grammar.yaml"
        yield from self.orders("quiet", coffee)
        noise = read_audio(self.data / "noise_picovoice" / "kitchen.flac")
        yield from self.near_misses(coffee)
        yield from self.orders("6 dB", coffee, noise, 6)
        for folder in TEXTS:
            yield from self.texts(folder)

    def orders(
        self, tag: str, path: Path, noise: Samples | None = None, snr_db: float = 0.0
    ) -> Iterator[dict[str, Any]]:
        """Orders, right or wrong, and what was taken for one before and after them."""
        with self.pipeline(path) as pipeline:
            for entry in self.manifest("coffee_commands"):
                samples = read_audio(self.data / "coffee_commands" / entry["audio"])
                if noise is not None:  # with another seed than `edgevoice eval` has by default
                    choice = mixing.generator(1000, tag, entry["audio"])
                    samples = mixing.mix(samples, mixing.noise_piece(noise, len(samples), choice), snr_db)
                said = {name: value.strip() for name, value in entry["slots"].items()}
                for case in self.run(pipeline, entry["audio"], samples, said):
                    outside = case["end_s"] < entry["speech_start"] or case["start_s"] > entry["speech_end"]
                    yield {"tag": f"{'beside order' if outside else 'order'}, {tag}", **case}

    def near_misses(self, path: Path) -> Iterator[dict[str, Any]]:
        """Orders for a drink that the grammar does not have."""
        described = yaml.safe_load(path.read_text("utf-8"))
        drinks = described["lists"]["coffeeDrink"]["values"]
        entries = self.manifest("coffee_commands")
        for drink in drinks:
            described["lists"]["coffeeDrink"]["values"] = [other for other in drinks if other != drink]
            with self.pipeline_of(described) as pipeline:
                for entry in entries:
                    if entry["slots"]["coffeeDrink"].strip() == drink:
                        samples = read_audio(self.data / "coffee_commands" / entry["audio"])
                        for case in self.run(pipeline, entry["audio"], samples, None):
                            yield {"tag": "near miss", **case}

    def texts(self, folder: str) -> Iterator[dict[str, Any]]:
        """Words, half of them in the grammar."""
        entries = [entry for entry in self.manifest(folder) if entry.get("text")]
        known = sorted({entry["text"] for entry in entries})
        random.Random(folder).shuffle(known)  # noqa: S311 - a choice to repeat, no secret
        inside = known[: len(known) // 2]
        described = {
            "language": "en",
            "intents": {"Said": {"data": [{"sentences": ["{text}"]}]}},
            "lists": {"text": {"values": [{"in": text, "out": text} for text in inside]}},
        }
        with self.pipeline_of(described) as pipeline:
            for entry in entries:
                samples = read_audio(self.data / folder / entry["audio"])
                text = entry["text"]
                tag = f"text, {folder}, {'in' if text in inside else 'out'}"
                for case in self.run(pipeline, entry["audio"], samples, {"text": text}):
                    yield {"tag": tag, **case}

    def run(
        self, pipeline: Pipeline, name: str, samples: Samples, said: dict[str, object] | None
    ) -> Iterator[dict[str, Any]]:
        """Yield the evidence of each utterance; `said` are the slots of the command, None: there is none."""
        last = LastAnswer()
        for result in pipeline.results(frames([samples]), watch=last):
            evidence = last.answer.decision.evidence if last.answer else None
            if evidence is not None:
                yield {
                    "name": name,
                    "right": said is not None and said.items() <= result.slots.items(),
                    "text": result.text,
                    "start_s": result.start_s,
                    "end_s": result.end_s,
                    "evidence": dataclasses.asdict(evidence),
                }
            last.answer = None

    @contextmanager
    def pipeline(self, grammar: Path) -> Iterator[Pipeline]:
        """Open a pipeline for a grammar."""
        pipeline = Pipeline(self.config, grammar)
        try:
            yield pipeline
        finally:
            pipeline.close()

    @contextmanager
    def pipeline_of(self, described: dict[str, Any]) -> Iterator[Pipeline]:
        """Open one for a grammar given as what its file holds."""
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
            yaml.safe_dump(described, file, sort_keys=False, allow_unicode=True)
            file.flush()
            with self.pipeline(Path(file.name)) as pipeline:
                yield pipeline

    def manifest(self, folder: str) -> list[dict[str, Any]]:
        """Return the entries of a folder."""
        lines = (self.data / folder / "manifest.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines[: self.limit]]


# ---- fitting ----


def fit(path: Path, model: str, *, write: bool) -> int:
    """Fit both functions, print what they do to recordings left out, write them if asked."""
    cases = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    fitted = json.loads(WEIGHTS_FILE.read_text("utf-8")) if WEIGHTS_FILE.exists() else {}
    right = np.array([float(case["right"]) for case in cases])
    fold = np.array([zlib.crc32(case["name"].encode()) % FOLDS for case in cases])
    near = np.array([case["tag"] == "near miss" for case in cases])
    weight = balance(cases)
    x = np.array([[case["evidence"][name] for name in NAMES] for case in cases])
    left_out = np.zeros(len(cases))
    for k in range(FOLDS):
        bias, *slopes = logistic(x, right, weight * (fold != k))
        left_out[fold == k] = x[fold == k] @ slopes + bias
    shift = float(np.quantile(left_out[near], 1 - NEAR_MISSES))
    report(cases, left_out - shift)
    bias, *slopes = logistic(x, right, weight)
    values = {"bias": bias - shift, **dict(zip(NAMES, slopes, strict=True))}
    fitted[model] = {name: round(float(value), 3) for name, value in values.items()}
    print(json.dumps(fitted[model], indent=2))
    if write:
        WEIGHTS_FILE.write_text(json.dumps(fitted, indent=2) + "\n", encoding="utf-8")
    return 0


def balance(cases: Iterable[dict[str, Any]]) -> Floats:
    """Weigh each case so that every kind of recording counts alike, however many there are of it."""
    kinds = [(case["tag"], case["right"]) for case in cases]
    count = {kind: kinds.count(kind) for kind in set(kinds)}
    # A handful of wrong orders among hundreds of right ones must not count as much as these.
    return np.array([1.0 / max(count[kind], 100) for kind in kinds])


def logistic(x: Floats, y: Floats, weight: Floats) -> Floats:
    """Return bias and slopes of a weighted logistic regression with a little ridge."""
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-9
    z = (x - mean) / spread

    def loss(parameters: Floats) -> tuple[float, Floats]:
        logit = z @ parameters[1:] + parameters[0]
        error = weight * (1 / (1 + np.exp(-logit)) - y)
        value = np.sum(weight * (np.logaddexp(0, logit) - y * logit)) + 0.01 * np.sum(parameters[1:] ** 2)
        return float(value), np.concatenate([[error.sum()], z.T @ error + 0.02 * parameters[1:]])

    found: Floats = minimize(loss, np.zeros(x.shape[1] + 1), jac=True).x
    slopes = found[1:] / spread
    return np.concatenate([[found[0] - slopes @ mean], slopes])


def report(cases: list[dict[str, Any]], logit: Floats) -> None:
    """Print the share accepted at 0.5 of each kind."""
    for tag in dict.fromkeys(case["tag"] for case in cases):
        for right in (True, False):
            chosen = np.array([case["tag"] == tag and case["right"] is right for case in cases])
            if not chosen.any():
                continue
            accepted, n = int((logit[chosen] > 0).sum()), int(chosen.sum())
            print(
                f"{tag:40} {'right' if right else 'wrong'}: {accepted:4} of {n:4} accepted "
                f"({100 * accepted / n:.1f} %)"
            )


if __name__ == "__main__":
    sys.exit(main())
