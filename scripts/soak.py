"""Run the engine for long: memory, the service, reloads, random tests, fuzzers, threads, records, wheels, ...

    make soak                                       everything, half an hour and more on an idle machine
    .venv/bin/python scripts/soak.py --short        everything, a twentieth of it
    .venv/bin/python scripts/soak.py memory threads     some parts

Each part prints one line with its figures, and `FAILED` before it where a bound is broken; then the exit code
is 1. The fuzzers need `make check-native` once before; wheels, backends, emulated ARM and Debian packages
want other Debian packages and a network (docs/development.md), the last also root.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from edgevoice import grammar, grammar_file, kernels, models, whisper
from edgevoice.audio import read_audio
from edgevoice.errors import EngineBusyError
from edgevoice.native import Grammar, Model, Session, SessionOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgevoice.events import Samples

ROOT: Final = Path(__file__).parents[1]
UTTERANCES: Final = 1000
HOURS: Final = 2.0  # of sound
RELOADS: Final = 200
EXAMPLES: Final = 20  # times those of `make test`
FUZZ_S: Final = 600.0
GRAMMARS_S: Final = 300
THREADS_S: Final = 60.0
TRANSCRIPTIONS: Final = 10_000
LOADS: Final = 1_000
RECORDS: Final = 10_000  # on each kind of disk
_RARELY: Final = 0.1

MAX_GROWTH_MB: Final = 32.0
"""After the warm-up: the states of the grammar that are kept grow for a while, a leak does not end."""

ARM_MAIN: Final = """
namespace test {
int failures = 0;
void test_kernels();
}
int main() {
    test::test_kernels();
    return test::failures != 0;
}
"""

PROPERTY_TESTS: Final = (
    "tests/test_reference.py",
    "tests/test_match.py",
    "tests/test_free_text.py",
    "tests/test_mel.py",
)


INSTRUCTIONS: Final = {
    # of each variant some that it must have, and those that it must not: patterns in what objdump prints.
    # Of ARM's atomics those of ARMv8.1 are in all of them, in functions of gcc that ask the kernel first.
    "neon": ("", r"\t[su]dot\t|\tf(add|sub|mul|ml[as]|max|min)\w*\tv\d+\.[48]h|mmla\t|\tz\d+\."),
    "dotprod": (r"\tsdot\t", r"mmla\t|\tz\d+\."),
    "i8mm": (r"\tsmmla\t", r"\tbfmmla\t|\tz\d+\."),
    "x86-64-v2": ("", r"\tv\w+ |%[yz]mm"),
    "x86-64-v3": (r"\tvfmadd\w+ .*%ymm", r"%zmm|%k[0-7]|%[xy]mm(1[6-9]|2\d|3[01])"),
    "x86-64-v4": (r"\tvfmadd\w+ .*%zmm", r"\tt(ile|dp)\w+ |%tmm|\tvpdp"),
}


class BrokenBoundError(Exception):
    """A figure is not what it should be."""


def main() -> int:
    """Run the parts that are asked for."""
    parts: dict[str, Callable[[float], str]] = {
        "memory": memory,
        "service": service,
        "reload": reload,
        "properties": properties,
        "fuzz": fuzz,
        "grammars": grammars,
        "threads": threads,
        "binding": binding,
        "races": races,
        "records": records,
        "wheels": wheels,
        "backends": backends,
        "arm": arm,
        "deb": deb,
        "formats": formats,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: all")
    parser.add_argument("--short", action="store_true", help="a twentieth of everything")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    share, failed = 0.05 if options.short else 1.0, 0
    for name in options.parts or parts:
        started = time.monotonic()
        try:
            figures = parts[name](share)
        except BrokenBoundError as error:
            failed += 1
            figures = f"FAILED {error}"
        print(f"{name:12}{figures} ({time.monotonic() - started:.0f} s)", flush=True)
    return 1 if failed else 0


def memory(share: float) -> str:
    """Recognise the samples over and over, each time with another level and noise."""
    recordings = _recordings()
    chance = np.random.default_rng(1)
    n, warm_up = round(UTTERANCES * share), round(UTTERANCES * share / 5)
    with _engine() as session:
        before = 0.0
        for i in range(n):
            if i == warm_up:
                before = _memory_mb()
            samples = recordings[i % len(recordings)]
            noise = chance.standard_normal(len(samples)) * 10 ** chance.uniform(-4, -2)
            session.recognise((samples * chance.uniform(0.2, 1.5) + noise).astype(np.float32))
            session.transcribe()
        growth = _memory_mb() - before
    return _bounded(growth, f"{n} utterances, memory {before:.0f} MB after {warm_up}, then {growth:+.1f} MB")


def service(share: float) -> str:
    """Have the service hear hours of sound: memory, descriptors, threads, watchdog, and the same answers."""
    return _run([sys.executable, "scripts/soak_service.py", "--hours", str(HOURS * share)], {}).strip()


def reload(share: float) -> str:
    """Compile and open the grammars of the tree, again and again, and recognise with each."""
    speech = _recordings()[0]
    files = [grammar_file.load(ROOT / "grammars" / name) for name in ("home.yaml", "coffee.yaml")]
    n, before = round(RELOADS * share), 0.0
    with Model(models.find("tiny.en")) as model:
        for i in range(n):
            if i == n // 5:
                before = _memory_mb()
            with (
                Grammar(grammar.compile_grammar(files[i % 2])) as opened,
                Session(model, opened, SessionOptions()) as session,
            ):
                session.recognise(speech)
        growth = _memory_mb() - before
    return _bounded(growth, f"{n} reloads, memory {before:.0f} MB after {n // 5}, then {growth:+.1f} MB")


def properties(share: float) -> str:
    """Run the property tests with more examples."""
    times = max(1, round(EXAMPLES * share))
    done = _run(
        [sys.executable, "-m", "pytest", "-q", *PROPERTY_TESTS], {"EDGEVOICE_TEST_EXAMPLES": str(times)}
    )
    return f"{times} times the examples: {done.splitlines()[-1]}"


def fuzz(share: float) -> str:
    """Run the C++ fuzzers under the sanitizers."""
    tests = ROOT / "build" / f"{platform.machine()}-sanitize" / "native_tests"
    if not tests.is_file():
        raise BrokenBoundError(f"{tests} is missing; run: make check-native")
    sys.path.insert(0, str(ROOT))
    from build_native import whisper_source  # noqa: PLC0415 - it is no package

    variables = {"EDGEVOICE_TESTS": "fuzz transcriber", "EDGEVOICE_FUZZ_SECONDS": str(FUZZ_S * share)}
    return _run([str(tests), str(whisper_source(None))], variables).strip()


def grammars(share: float) -> str:
    """Break the shipped grammars."""
    script = [sys.executable, "scripts/fuzz_grammars.py", "--seconds", str(GRAMMARS_S * share), "--seed", "1"]
    return _run(script, {}).strip()


def threads(share: float) -> str:
    """Ask one session from two threads: each gets the right answer or EngineBusyError."""
    speech = _recordings()[0]
    counts = {"answers": 0, "busy": 0, "wrong": 0}
    lock, end = threading.Lock(), time.monotonic() + THREADS_S * share
    with _engine() as session:
        wanted = session.recognise(speech).hypotheses[0].text

        def ask() -> None:
            while time.monotonic() < end:
                try:
                    best = session.recognise(speech).hypotheses[:1]
                    what = "answers" if [found.text for found in best] == [wanted] else "wrong"
                except EngineBusyError:
                    what = "busy"
                    time.sleep(0.005)  # else it would do little but ask
                with lock:
                    counts[what] += 1

        both = [threading.Thread(target=ask) for _ in range(2)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
    figures = ", ".join(f"{n} {what}" for what, n in counts.items())
    if counts["wrong"] or not counts["busy"] or not counts["answers"]:
        raise BrokenBoundError(figures)
    return figures


def binding(share: float) -> str:
    """Transcribe and load models over and over, cancelled at random: memory, descriptors and threads stay."""
    speech, path = _recordings()[0], models.find("tiny.en")
    chance = random.Random(1)  # noqa: S311
    ended: Counter[str | None] = Counter()
    n, loads = round(TRANSCRIPTIONS * share), round(LOADS * share)

    def transcribe(session: whisper.Session) -> None:
        options = whisper.Options(
            audio_ctx=chance.randrange(32, 129),
            beam=chance.choice((1, 1, 1, 3)),
            max_tokens=chance.randrange(1, 9),
            temperature=chance.choice((0.0, 0.8)),
            temperature_step=0,
            word_times=chance.random() < _RARELY,
            prompt=chance.choice(("", "Lights, please.")),
        )
        token = whisper.CancelToken()
        timer = threading.Timer(chance.uniform(0, 0.1), token.cancel)
        if chance.random() < 1 / 2:
            timer.start()
        ended[session.transcribe(speech[:24_000], options, cancel=token).aborted] += 1
        timer.cancel()
        if timer.ident:
            timer.join()

    def load() -> None:
        alignment = chance.choice((None, "auto"))
        with whisper.Model(path, alignment=alignment) as model, model.session() as session:
            transcribe(session)

    with whisper.Model(path, alignment="auto") as model, model.session() as session:
        for _ in range(max(20, n // 10)):
            transcribe(session)
        for _ in range(max(5, loads // 10)):
            load()
        before, files = _memory_mb(), len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(n):
            transcribe(session)
        for _ in range(loads):
            load()
        growth, more = _memory_mb() - before, len(list(Path("/proc/self/fd").iterdir())) - files
    figures = (
        f"{n} transcriptions and {loads} loads, {ended['cancelled']} cancelled: memory {before:.0f} MB, "
        f"then {growth:+.1f} MB, {more:+d} descriptors, {threading.active_count()} thread"
    )
    if more or threading.active_count() != 1 or not ended[None] or not ended["cancelled"]:
        raise BrokenBoundError(figures)
    return _bounded(growth, figures)


def races(_: float) -> str:
    """Run the C++ tests with threads under ThreadSanitizer: eight on four transcribers of one model, ..."""
    return _run([sys.executable, "build_native.py", "--sanitize", "thread"], {}).strip().replace("\n", "; ")


def records(share: float) -> str:
    """Keep utterances on a full disk, on a read-only one, and while whoever writes is killed."""
    script = [sys.executable, "scripts/records.py", "--utterances", str(round(RECORDS * share))]
    return _run(script, {}).strip().replace("\n", "; ")


def wheels(_: float) -> str:
    """Build both wheels, look into their modules, and compare those that run here with the tree's build."""
    figures = []
    with tempfile.TemporaryDirectory() as name:
        slow = Path(name) / "slow.yaml"
        slow.write_text("recognition:\n  timeout_s: 300\n")  # without F16C it takes nine times as long
        tree = _answers(ROOT, slow, {})
        for architecture, machine in (("amd64", "x86_64"), ("arm64", "aarch64")):
            # The second time is quick, as all is compiled: the wheel must be the same.
            built = []
            for _again in range(2):
                _run([sys.executable, "build_native.py", "--wheel", architecture], {})
                wheel = max((ROOT / "dist").glob(f"*_{machine}.whl"), key=lambda path: path.stat().st_mtime)
                built.append(wheel.read_bytes())
            if built[0] != built[1]:
                raise BrokenBoundError(f"{wheel.name} is another each time it is built")
            folder = Path(name) / architecture
            shutil.unpack_archive(wheel, folder, "zip")
            names = kernels.built(folder / "edgevoice" / "variants", machine)
            for variant in names:
                _look_into(folder / "edgevoice" / "variants" / variant / kernels.FILE, variant, wheel.name)
            figures.append(f"{wheel.name} {len(built[0]) / 1e6:.1f} MB: {' '.join(names)}")
        able = kernels.abilities()
        here = [
            each.name
            for each in (Path(name) / "amd64" / "edgevoice" / "variants").iterdir()
            if platform.machine() == "x86_64" and kernels.VARIANTS[each.name].needs <= able
        ]
        for variant in here:
            if (found := _answers(Path(name) / "amd64", slow, {kernels.VARIABLE: variant})) != tree:
                raise BrokenBoundError(f"{variant} understands {found}, the build of the tree {tree}")
    return f"{'; '.join(figures)}; the same answers as the tree's build: {' '.join(sorted(here))}"


def _answers(folder: Path, config: Path, variables: dict[str, str]) -> list[tuple[object, ...]]:
    """What an edgevoice in a folder makes of some recordings."""
    names = ("set-temperature-twenty-one", "turn-on-desk-lamp", "refused-washing-machine")
    samples = [str(ROOT / f"samples/{name}.flac") for name in names]
    command = [sys.executable, "-m", "edgevoice", "recognize", "--config", str(config), "--json", *samples]
    lines = _run(command, variables, folder).splitlines()
    return [
        tuple(json.loads(line)[key] for key in ("text", "intent", "slots", "accepted", "reason"))
        for line in lines
    ]


def _look_into(module: Path, variant: str, wheel: str) -> None:
    """See that a module has the instructions that it is made for and none beyond, and its glibc is named."""
    tool = "objdump" if "x86" in variant else "aarch64-linux-gnu-objdump"
    code = _run([tool, "-d", "--no-show-raw-insn", str(module)], {})
    has, has_not = INSTRUCTIONS[variant]
    if has and not re.search(has, code):
        raise BrokenBoundError(f"{variant} uses nothing of {has}")
    if found := re.search(f".*({has_not}).*", code):
        raise BrokenBoundError(f"{variant} has an instruction that its processors may not have: {found[0]}")
    symbols = _run([tool, "-T", str(module)], {})
    needed = max((int(major), int(minor)) for major, minor in re.findall(r"GLIBC_(\d+)\.(\d+)", symbols))
    named = re.search(r"manylinux_(\d+)_(\d+)", wheel)
    if named is None or needed > (int(named[1]), int(named[2])):
        raise BrokenBoundError(f"{variant} needs glibc {needed}, but the wheel is {wheel}")


def backends(_: float) -> str:
    """Build with each backend, and compare what is heard with the tree's build; a software device will do."""
    sys.path.insert(0, str(ROOT))
    import build_native  # noqa: PLC0415 - it is no package

    told = []
    with tempfile.TemporaryDirectory() as name:
        slow = Path(name) / "slow.yaml"
        slow.write_text("recognition:\n  timeout_s: 300\n")
        commands, texts = _answers(ROOT, slow, {}), _texts(ROOT, {})
        for backend in build_native.BACKENDS:
            folder = Path(name) / backend
            shutil.copytree(ROOT / "edgevoice", folder / "edgevoice")
            try:
                module = build_native.build_module(build_native.whisper_source(None), backends=[backend])
            except build_native.BuildError as error:
                raise BrokenBoundError(str(error)) from None
            shutil.copy(module, folder / "edgevoice" / kernels.FILE)
            for devices in ("0", ""):  # without, a device that is the processor itself is not taken
                variables = {"GGML_VK_VISIBLE_DEVICES": devices}
                heard = _texts(folder, variables), _answers(folder, slow, variables)
                if heard != (texts, commands):
                    raise BrokenBoundError(
                        f"{backend} hears {heard}, the build of the tree {texts, commands}"
                    )
                report = "from edgevoice import native; print(native.kernels())"
                told.append(
                    _run([sys.executable, "-c", report], variables, folder).partition("DEVICES : ")[2]
                )
    return f"the same texts and commands as the tree's build: {' '.join(' '.join(told).split())}"


def _texts(folder: Path, variables: dict[str, str]) -> str:
    """What an edgevoice in a folder writes of some recordings."""
    samples = [str(path) for path in sorted((ROOT / "samples").glob("*.flac"))[:6]]
    command = [sys.executable, "-m", "edgevoice", "transcribe", "--model", "tiny.en", *samples]
    return _run(command, variables, folder)


def arm(_: float) -> str:
    """Run the tests of the vector loops, then the whole package, as ARM processors would, emulated."""
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64-static")
    if compiler is None or emulator is None:
        raise BrokenBoundError(
            "install the Debian packages g++-aarch64-linux-gnu, qemu-user-static and debootstrap"
        )
    boards = {"A53 and A72": "armv8-a", "A76": "armv8.2-a+dotprod+fp16"}
    with tempfile.TemporaryDirectory() as folder:
        main, program = Path(folder) / "main.cpp", Path(folder) / "tests"
        main.write_text(ARM_MAIN)
        scalar = Path(folder) / "scalar.o"
        for processor in boards.values():
            flags = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", f"-march={processor}"]
            command = [compiler, *flags, "-Icsrc", "-Icsrc/tests"]
            without = ["-fno-tree-vectorize", "-fno-tree-slp-vectorize", "csrc/tests/scalar_kernels.cpp"]
            _run([*command, "-c", *without, "-o", str(scalar)], {})
            sources = ["csrc/tests/test_kernels.cpp", str(scalar), str(main)]
            _run([*command, *sources, "-static", "-o", str(program)], {})
            _run([emulator, str(program)], {})
    _run([sys.executable, "build_native.py", "--armv7"], {})
    whole = _run([sys.executable, "scripts/arm.py"], {}).strip().replace("\n", "; ")
    return f"vector loops right on {', '.join(boards)}; the C++ tests on ARMv7; {whole}"


def deb(_: float) -> str:
    """Build the Debian packages, and try them in clean roots."""
    return _run([sys.executable, "scripts/deb.py"], {}).strip().replace("\n", "; ")


def formats(_: float) -> str:
    """Import models of random weights from every format, made with torch and the like."""
    return _run([sys.executable, "scripts/formats.py"], {}).strip().replace("\n", "; ")


@contextmanager
def _engine() -> Iterator[Session]:
    """A session for the home, and what it stands on."""
    file = grammar_file.load(ROOT / "grammars" / "home.yaml")
    with (
        Model(models.find("tiny.en")) as model,
        Grammar(grammar.compile_grammar(file)) as opened,
        Session(model, opened, SessionOptions()) as session,
    ):
        yield session


def _recordings() -> list[Samples]:
    lines = (ROOT / "samples" / "manifest.jsonl").read_text("utf-8").splitlines()
    return [read_audio(ROOT / "samples" / json.loads(line)["audio"]) for line in lines]


def _memory_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _bounded(growth_mb: float, figures: str) -> str:
    if growth_mb > MAX_GROWTH_MB:
        raise BrokenBoundError(f"{figures}, at most {MAX_GROWTH_MB:.0f} MB expected")
    return figures


def _run(command: list[str], variables: dict[str, str], folder: Path = ROOT) -> str:
    """Return what a program prints."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BrokenBoundError(f"exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
