"""What the processors of the boards have to do, counted in instructions, emulated. No time is measured.

    .venv/bin/python bench/boards.py [--models NAME,...] [--stages] [--functions]

Prints tables in Markdown: our loops with and without vectors; what has to be read from memory; encoder and
search of a sample for each model and processor; with --stages what comes before, most of it in Python
(for which a Debian for ARM is unpacked); with --functions where encoder and search spend their instructions.
One thread: several wait for each other in loops. NAME as for bench/models.py. Wants the Debian packages
qemu-user and g++-aarch64-linux-gnu, and for --stages debootstrap and a network. docs/boards.md has the
tables, and what follows.
"""

from __future__ import annotations

import argparse
import shutil
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


import build_native  # noqa: E402
from edgevoice import ggml_file  # noqa: E402
from edgevoice import models as installed  # noqa: E402
from edgevoice.capture import FileSource  # noqa: E402
from edgevoice.config import Config  # noqa: E402
from edgevoice.events import SAMPLE_RATE_HZ  # noqa: E402
from edgevoice.mel import LogMel  # noqa: E402
from edgevoice.native import Model, SessionOptions, ffi, lib  # noqa: E402
from edgevoice.pipeline import LastAnswer, Pipeline  # noqa: E402
from models import find_all  # noqa: E402
from scripts.arm import make_root  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable

CODE: Final = ROOT / "bench" / "count"
SAMPLE: Final = ROOT / "samples" / "turn-on-desk-lamp.flac"
TARGET: Final = "aarch64-linux-gnu"
CPUS: Final = ("cortex-a53", "cortex-a76")
"""Of Zero 2 W and 3, and of the 5. The 4's A72 has the instructions of the A53."""

MODELS: Final = "tiny.en,tiny.en-q8_0,tiny.en-q5_1,tiny.en-q4_0"
OPTIMISED: Final = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math")  # as csrc/CMakeLists.txt
SCALAR: Final = ("-DEV_SCALAR", "-fno-tree-vectorize", "-fno-tree-slp-vectorize")

VALUES: Final = 2560
"""Of a step: the frequent tokens, and those that the grammar allows."""

POSITIONS: Final = 128
"""Of the encoder, that the service takes for the sample."""

HEIGHT, WIDTH, COLUMNS = 384, 384, 8
"""A matrix of tiny against the hypotheses of a step."""


def main() -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=MODELS, help=f"default: {MODELS}")
    parser.add_argument("--stages", action="store_true", help="also the stages before the encoder")
    parser.add_argument("--functions", action="store_true", help="where encoder and search spend them")
    options = parser.parse_args()
    paths = find_all(options.models.split(","))
    for tool in ("qemu-aarch64", f"{TARGET}-g++"):
        if shutil.which(tool) is None:
            print(f"{tool} is not installed; see the top of this file", file=sys.stderr)
            return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counter = Counter(folder)
        count_loops(counter)
        write_utterance(folder / "utterance")
        print_bytes(paths)
        programs = {cpu: build(folder, cpu) for cpu in CPUS}
        count_models(counter, programs, paths, folder / "utterance", functions=options.functions)
        if options.stages:
            count_stages(counter, folder)
    return 0


# ---- counting ----


@dataclass(frozen=True)
class Counts:
    """Instructions by kind, see count.c."""

    kinds: dict[str, int]

    @classmethod
    def parse(cls, text: str) -> Counts:
        """Read what count.c writes of them."""
        return cls({kind: int(number) for kind, number in (field.split("=") for field in text.split())})

    def __sub__(self, other: Counts) -> Counts:
        return Counts({kind: number - other.kinds[kind] for kind, number in self.kinds.items()})

    @property
    def all(self) -> int:
        """Of all kinds."""
        return sum(self.kinds.values())


@dataclass(frozen=True)
class Run:
    """What a program did."""

    printed: str
    marks: dict[int, Counts]
    """Since its start."""
    functions: dict[str, Counts]
    """Since the first mark."""

    def between(self, first: int, last: int) -> Counts:
        """Return what was done between two marks."""
        return self.marks[last] - self.marks[first]


class Counter:
    """QEMU with the plugin."""

    def __init__(self, folder: Path) -> None:
        self._plugin = folder / "libcount.so"
        self._out = folder / "counts"
        run(["cc", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-o", self._plugin, CODE / "count.c"])

    def run(self, cpu: str, command: Iterable[object], *more: str, **variables: str) -> Run:
        """Run a program as a processor would; `more` are options of QEMU."""
        plugin = f"file={self._plugin},out={self._out}"
        set_variables = [option for pair in variables.items() for option in ("-E", "=".join(pair))]
        printed = run(["qemu-aarch64", "-cpu", cpu, "-plugin", plugin, *more, *set_variables, *command])
        marks: dict[int, Counts] = {}
        functions: dict[str, Counts] = {}
        for line in self._out.read_text().splitlines():
            what, name, counts = line.split(" ", 2)
            if what == "mark":
                marks[int(name)] = Counts.parse(counts)
            elif what == "function":
                functions[name] = Counts.parse(counts)
        return Run(printed, marks, functions)


def run(command: Iterable[object]) -> str:
    """Return what a program prints; one that fails ends this one."""
    words = [str(word) for word in command]
    done = subprocess.run(  # noqa: S603
        words, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


# ---- our own loops ----


def count_loops(counter: Counter) -> None:
    """See whether the counter counts, and print what the loops take with vectors and without."""
    print(f"| {'loop':40} | processor | with vectors | without | ratio |")
    print("|---|---|---|---|---|")
    for cpu in CPUS:
        vectors, scalar = (loops(counter, cpu, flags) for flags in ((), SCALAR))
        for name, last, size in (
            (f"log_sum_exp of {VALUES}, per value", 3, VALUES),
            (f"multiply_half, {HEIGHT} x {WIDTH} x {COLUMNS}, per product", 4, HEIGHT * WIDTH * COLUMNS),
        ):
            ours, theirs = (each.between(last - 1, last).all / size for each in (vectors, scalar))
            print(f"| {name:40} | {cpu} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} |")


def loops(counter: Counter, cpu: str, flags: tuple[str, ...]) -> Run:
    """Build the loops, run them, and check the count of one whose length is known."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "loops"
        compiler = [f"{TARGET}-g++", *OPTIMISED, f"-mcpu={cpu}", *flags, "-static"]
        run([*compiler, f"-I{ROOT / 'csrc'}", f"-I{CODE}", "-o", program, CODE / "loops.cpp"])
        done = counter.run(cpu, [program, VALUES, HEIGHT, WIDTH, COLUMNS])
    # Four instructions a million times, and three million times; what is around them is the same.
    more = done.between(1, 2) - done.between(0, 1)
    seen = {kind: number for kind, number in more.kinds.items() if number}
    expected = dict.fromkeys(("load_vector", "fma_vector", "branch", "other"), 2_000_000)
    if seen != expected:
        sys.exit(f"the counter does not count: {expected} expected, {seen} seen")
    return done


# ---- encoder and search ----


def write_utterance(path: Path) -> None:
    """Write what recognise.cpp reads: the grammar for the home and the utterance of the sample."""
    seen = LastAnswer()
    pipeline = Pipeline(Config())
    try:
        for _ in pipeline.results(FileSource(SAMPLE), watch=seen):
            pass
        if seen.answer is None:
            sys.exit(f"{SAMPLE} has no utterance")
        samples = seen.answer.utterance.samples
        compiled = pipeline.recogniser.grammar.compiled
    finally:
        pipeline.close()
    with Model(installed.find(Config().model.name)) as model:
        columns = ffi.new("size_t *")
        lib.ev_mel_columns(len(samples), columns)
        mel = LogMel(model.mel_filters)(samples, columns[0])
    options = SessionOptions()
    most = 8 + len(samples) * 10 // SAMPLE_RATE_HZ  # tokens, as in csrc/api.cpp, and the reward of 1 for each
    search = (options.beam, options.n_best, most, 1.0, options.token_reward, options.lm_weight)
    parts = (
        np.ascontiguousarray(compiled.arcs, np.uint32).ravel(),
        np.ascontiguousarray(compiled.first_arc, np.uint32),
        mel.ravel(),
        np.array(search, np.float32),
    )
    path.write_bytes(b"".join(struct.pack("<Q", len(part)) + part.tobytes() for part in parts))
    if columns[0] != 2 * POSITIONS:
        sys.exit(f"the encoder takes {columns[0] // 2} positions for {SAMPLE}; POSITIONS says {POSITIONS}")
    print(f"\n{SAMPLE.name}, {len(samples) / SAMPLE_RATE_HZ:.2f} s of it\n")


def build(folder: Path, cpu: str) -> Path:
    """Build recognise.cpp for a processor, as a board would, and the package beside it."""
    source = build_native.whisper_source(None)
    target = build_native.Target(f"arm64-{cpu}", build_native.ARCHITECTURES["arm64"], (f"-mcpu={cpu}",))
    module = build_native.build_module(source, target)
    ggml = build_native.build_ggml(source, build_native.GGML_FLAGS, target)
    package = folder / cpu / "edgevoice"
    shutil.copytree(ROOT / "edgevoice", package, ignore=shutil.ignore_patterns("*.so"))
    shutil.copy(module, package)
    program = folder / cpu / "recognise"
    libraries = [module.with_name("libedgevoice_core.a")]
    libraries += [ggml / "lib" / f"lib{name}.a" for name in ("ggml", "ggml-cpu", "ggml-base")]
    compiler = [f"{TARGET}-g++", *OPTIMISED, f"-mcpu={cpu}", "-static", f"-I{ROOT / 'csrc'}", f"-I{CODE}"]
    run([*compiler, "-o", program, CODE / "recognise.cpp", *libraries, "-lpthread", "-lm"])
    return program


def count_models(
    counter: Counter, programs: dict[str, Path], paths: dict[str, Path], utterance: Path, *, functions: bool
) -> None:
    """Print what encoder and search take."""
    print("| model | processor | encoder | search | steps | a step | search of a new grammar | understood |")
    print("|---|---|---|---|---|---|---|---|")
    runs: dict[str, Run] = {}
    for name, path in paths.items():
        for cpu, program in programs.items():
            done = counter.run(cpu, [program, path, utterance])
            _, n_steps, text = done.printed.strip().split(" ", 2)
            encoder, new, search = (done.between(i, i + 1).all / 1e6 for i in range(3))
            step = search / int(n_steps)
            numbers = f"{encoder:,.0f} | {search:,.0f} | {n_steps} | {step:.0f} | {new:,.0f}"
            print(f"| {name} | {cpu} | {numbers} | {text} |", flush=True)
            runs[f"{name}, {cpu}"] = done
    print("\nMillions of instructions, one thread.")
    if functions:
        for title, done in runs.items():
            print_functions(title, done)


def print_functions(title: str, done: Run) -> None:
    """Print where the instructions of all but loading are spent, and of which kind they are."""
    total = sum(counts.all for counts in done.functions.values())
    print(f"\n{title}, encoder and two searches:\n")
    names = run(["c++filt", *done.functions]).splitlines()
    pairs = zip(done.functions.values(), names, strict=True)
    for counts, name in sorted(pairs, key=lambda pair: -pair[0].all)[:12]:
        kinds = ", ".join(
            f"{kind} {number / counts.all:.0%}"
            for kind, number in sorted(counts.kinds.items(), key=lambda item: -item[1])
            if number > counts.all / 50
        )
        print(f"{counts.all / total:6.1%} {name[:70]}: {kinds}")


# ---- memory ----


def print_bytes(paths: dict[str, Path]) -> None:
    """Print what has to be read from memory at least, weights and what attention looks at, each once."""
    print("| model | encoder | a step of the search |")
    print("|---|---|---|")
    for name, path in paths.items():
        header = ggml_file.check(path)
        size = {tensor.name: tensor.layout(header)[1] for tensor in ggml_file.tensors(header)}
        cross = [size[key] for key in size if ".cross_attn.key." in key or ".cross_attn.value." in key]
        encoder = sum(size[key] for key in size if key.startswith("encoder.")) + sum(cross)
        decoder = sum(size[key] for key in size if key.startswith("decoder.blocks.")) - sum(cross)
        rows = size["decoder.token_embedding.weight"] * VALUES // header.n_vocab
        # Keys and values of the encoder's positions, half precision.
        heard = 2 * 2 * POSITIONS * header.n_audio_state * header.n_text_layer
        print(f"| {name} | {encoder / 1e6:.1f} | {(decoder + rows + heard) / 1e6:.1f} |")
    print("\nMB.\n")


# ---- before the encoder ----


def count_stages(counter: Counter, folder: Path) -> None:
    """Print what each stage before the encoder takes, on the smallest processor."""
    cpu = CPUS[0]
    make_root(folder)
    package = folder / cpu
    python = folder / "root/usr/bin/python3.11"
    done = counter.run(
        cpu,
        [python, CODE / "stages.py", SAMPLE],
        "-L",
        str(folder / "root"),
        PYTHONPATH=f"{package}:{folder / 'site'}",
        OPENBLAS_NUM_THREADS="1",
    )
    print(f"\n| stage | of | {cpu} |")
    print("|---|---|---|")
    marks = done.between(0, 1).all
    for number, line in enumerate(done.printed.splitlines()):
        of, times, name = line.split("\t")
        spent = (done.between(2 * number, 2 * number + 1).all - marks) / int(times)
        if number:
            print(f"| {name} | {of} | {spent / 1e6:,.3f} |")
    print("\nMillions of instructions, one thread.")


if __name__ == "__main__":
    sys.exit(main())
