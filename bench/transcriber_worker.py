"""One engine that transcribes, in a process of its own; bench/transcribers.py starts it and asks it.

    python transcriber_worker.py ENGINE MODEL THREADS BEAM      ENGINE: one of ENGINES, below

All of them greedy or with the same number of beams, one language, no second try at a higher temperature, as
each library offers it. A question is a line with the number of samples and then so many float32 (16 kHz
mono); an answer is a line of JSON with the text, the milliseconds it took, those of all its threads on a
processor, and the most memory this process ever took, in MB.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial
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
        started, cpu_started = time.perf_counter(), time.process_time()
        text = transcribe(samples)
        times = {
            "ms": (time.perf_counter() - started) * 1000,
            "cpu_ms": (time.process_time() - cpu_started) * 1000,
        }
        answers.write(json.dumps({"text": text, **times, "peak_mb": peak_mb()}) + "\n")
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


def edgevoice_pieces(model: str, threads: int, beam: int) -> Callable[[Any], str]:
    """Build ours, for long recordings: as many pieces at the same time as there are threads."""
    from edgevoice import models, whisper  # noqa: PLC0415

    opened = whisper.Model(models.find(model))
    options = whisper.Options(beam=beam, language="en", temperature_step=0)
    return lambda samples: whisper.transcribe_parallel(opened, samples, options, jobs=threads).text


def pywhispercpp(model: str, threads: int, beam: int) -> Callable[[Any], str]:
    """Build upstream's ggml models in another binding."""
    from pywhispercpp.model import Model  # noqa: PLC0415

    settings: dict[str, Any] = {"n_threads": threads, "temperature_inc": 0.0, "language": "en"}
    if beam > 1:
        settings |= {"params_sampling_strategy": 1, "beam_search": {"beam_size": beam, "patience": -1.0}}
    opened = Model(model, print_progress=False, print_realtime=False, **settings)
    return lambda samples: " ".join(segment.text for segment in opened.transcribe(samples))


def faster_whisper(model: str, threads: int, beam: int, *, batch: int = 0) -> Callable[[Any], str]:
    """Build CTranslate2's, in int8; with `batch`, its own for long recordings: so many windows at once."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from faster_whisper import BatchedInferencePipeline, WhisperModel  # noqa: PLC0415

    opened = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=threads)
    asked = BatchedInferencePipeline(opened) if batch else opened
    # with timestamps, as without the pipeline, and as ours; by default it leaves them out
    more = {"batch_size": batch, "without_timestamps": False} if batch else {}

    def transcribe(samples: Any) -> str:
        segments, _ = asked.transcribe(samples, language="en", beam_size=beam, temperature=0.0, **more)
        return " ".join(segment.text for segment in segments)

    return transcribe


def openai_whisper(model: str, threads: int, beam: int) -> Callable[[Any], str]:
    """Build PyTorch's, in float32 as it runs on a CPU, of the weights of a ggml file in f16."""
    import torch  # noqa: PLC0415
    from whisper.model import ModelDimensions, Whisper  # noqa: PLC0415

    torch.set_num_threads(threads)
    sizes, weights = read_ggml(Path(model))
    opened = Whisper(ModelDimensions(**sizes))
    values = {name: torch.from_numpy(value) for name, value in weights.items()}
    opened.load_state_dict(values, assign=True)  # the values themselves, no copy
    settings = {"beam_size": beam} if beam > 1 else {}
    return lambda samples: str(
        opened.transcribe(samples, language="en", temperature=0.0, fp16=False, **settings)["text"]
    )


def read_ggml(path: Path) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """Return the numbers of the header and all tensors in float32, as OpenAI's checkpoint names them."""
    sizes = (
        "n_vocab", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer", "n_text_ctx",
        "n_text_state", "n_text_head", "n_text_layer", "n_mels",
    )  # fmt: skip
    tensors = {}
    with path.open("rb") as file:

        def numbers(n: int) -> list[int]:
            return [int(value) for value in np.frombuffer(file.read(4 * n), dtype="<i4")]

        _magic, *header, ftype = numbers(12)
        if ftype != 1:
            raise SystemExit(f"{path} must be a ggml file in f16")
        bands, bins = numbers(2)
        file.seek(4 * bands * bins, os.SEEK_CUR)
        for _ in range(numbers(1)[0]):
            file.seek(numbers(1)[0], os.SEEK_CUR)
        while start := numbers(3):
            rank, name_bytes, kind = start
            shape = numbers(rank)[::-1]
            name = file.read(name_bytes).decode()
            values = np.fromfile(file, dtype="<f2" if kind else "<f4", count=int(np.prod(shape)))
            plain = shape[:1] if shape[-1] == 1 else shape  # biases of convolutions are columns in ggml
            tensors[name] = values.astype(np.float32).reshape(plain)
    return dict(zip(sizes, header, strict=True)), tensors


ENGINES: dict[str, Callable[[str, int, int], Callable[[Any], str]]] = {
    "edgevoice": edgevoice,
    "edgevoice-fit": edgevoice_fit,
    "edgevoice-pieces": edgevoice_pieces,
    "pywhispercpp": pywhispercpp,
    "faster-whisper": faster_whisper,
    "faster-whisper-batch-1": partial(faster_whisper, batch=1),
    "faster-whisper-batch-8": partial(faster_whisper, batch=8),
    "openai-whisper": openai_whisper,
}

if __name__ == "__main__":
    sys.exit(main())
