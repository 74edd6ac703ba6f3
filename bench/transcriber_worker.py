"""One engine that transcribes, in a process of its own; bench/transcribers.py starts it and asks it.

    python transcriber_worker.py ENGINE MODEL THREADS BEAM      ENGINE: one of ENGINES, below

All of them greedy or with the same number of beams, one language, no second try at a higher temperature, as
each library offers it. A question is a line with the number of samples and then so many float32 (16 kHz
mono); an answer is a line of JSON with the text, the milliseconds it took, and the most memory this process
ever took, in MB.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> int:
    """Load the engine, then answer until stdin ends."""
    kind, model, threads, beam = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries may print; only answers belong on the real stdout
    transcribe = ENGINES[kind](model, int(threads), int(beam))
    while line := sys.stdin.buffer.readline():
        samples = np.frombuffer(sys.stdin.buffer.read(4 * int(line)), dtype=np.float32)
        started = time.perf_counter()
        text = transcribe(samples)
        took_ms = (time.perf_counter() - started) * 1000
        answers.write(json.dumps({"text": text, "ms": took_ms, "peak_mb": peak_mb()}) + "\n")
        answers.flush()
    return 0


def peak_mb() -> float:
    """Return the most resident memory of this process so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1000


def edgevoice(model: str, threads: int, beam: int, *, fit: bool = False) -> Callable[[Any], str]:
    """Build ours."""
    from edgevoice import models, whisper  # noqa: PLC0415

    session = whisper.Model(models.find(model)).session()
    options = whisper.Options(threads=threads, beam=beam, language="en", temperature_step=0, fit_window=fit)
    return lambda samples: session.transcribe(samples, options).text


def edgevoice_fit(model: str, threads: int, beam: int) -> Callable[[Any], str]:
    """Build ours, whose encoder looks at as much as is said, and at all if the text is doubtful."""
    return edgevoice(model, threads, beam, fit=True)


def pywhispercpp(model: str, threads: int, beam: int) -> Callable[[Any], str]:
    """Build upstream's ggml models in another binding."""
    from pywhispercpp.model import Model  # noqa: PLC0415

    settings: dict[str, Any] = {"n_threads": threads, "temperature_inc": 0.0, "language": "en"}
    if beam > 1:
        settings |= {"params_sampling_strategy": 1, "beam_search": {"beam_size": beam, "patience": -1.0}}
    opened = Model(model, print_progress=False, print_realtime=False, **settings)
    return lambda samples: " ".join(segment.text for segment in opened.transcribe(samples))


def faster_whisper(model: str, threads: int, beam: int) -> Callable[[Any], str]:
    """Build CTranslate2's, in int8."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from faster_whisper import WhisperModel  # noqa: PLC0415

    opened = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=threads)

    def transcribe(samples: Any) -> str:
        segments, _ = opened.transcribe(samples, language="en", beam_size=beam, temperature=0.0)
        return " ".join(segment.text for segment in segments)

    return transcribe


def openai_whisper(model: str, threads: int, beam: int) -> Callable[[Any], str]:
    """Build PyTorch's."""
    import torch  # noqa: PLC0415
    import whisper  # noqa: PLC0415

    torch.set_num_threads(threads)
    opened = whisper.load_model(model, device="cpu")
    settings = {"beam_size": beam} if beam > 1 else {}
    return lambda samples: str(
        opened.transcribe(samples, language="en", temperature=0.0, fp16=False, **settings)["text"]
    )


ENGINES = {
    "edgevoice": edgevoice,
    "edgevoice-fit": edgevoice_fit,
    "pywhispercpp": pywhispercpp,
    "faster-whisper": faster_whisper,
    "openai-whisper": openai_whisper,
}

if __name__ == "__main__":
    sys.exit(main())
