"""Run the wheel for 64-bit ARM as boards with such processors would, emulated, against this machine.

    .venv/bin/python scripts/arm.py

Each processor must choose its kernels; text, intent and slots must be the same, the confidence nearly. What a
processor cannot run must be refused, and must end the program if it is loaded all the same: else the others
would prove nothing. `make soak` runs it too. It says nothing about speed. Wants the Debian packages
debootstrap, g++-aarch64-linux-gnu and qemu-user-static, and a network.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
COMMAND: Final = "samples/turn-on-desk-lamp.flac"
SAMPLES: Final = (
    COMMAND,
    "samples/set-temperature-twenty-one.flac",
    "samples/refused-washing-machine.flac",
)

RUNS: Final = (
    ("cortex-a53", "neon", SAMPLES),
    ("cortex-a72", "neon", (COMMAND,)),
    ("cortex-a76", "dotprod", (COMMAND,)),
    ("max,pauth-impdef=on", "i8mm", (COMMAND,)),  # the other way to authenticate pointers is slow to emulate
)
"""Processor that is emulated, kernels that it must choose, recordings: each takes most of a minute."""

LOADED: Final = """
import sys
from edgevoice import kernels, native
print(kernels.chosen(), sys.modules[kernels.MODULE].__file__)
"""

UNCHECKED: Final = """
import sys
from edgevoice import cli, kernels
kernels.load_file(kernels.FOLDER / "dotprod" / kernels.FILE)
print("loaded", flush=True)
sys.exit(cli.main(sys.argv[1:]))
"""

MAX_DIFFERENCE: Final = 0.02
"""Of confidence: the order of sums differs between NEON and AVX2; 0.0009 was seen."""

CONFIGURATION: Final = "recognition:\n  timeout_s: 300\n"
"""As long as there is; emulated, one sample takes most of a minute, more beside other work."""

BINARY: Final = ("cffi", "numpy", "PyYAML", "soundfile", "soxr")  # wheels for ARM; the others are copied
PURE: Final = (
    "hassil", "markdown_it", "mdurl", "paho", "platformdirs", "pycparser", "pygments", "rich",
    "typing_extensions.py", "unicode_rbnf", "unicode_rbnf-*.dist-info", "wyoming",
)  # fmt: skip


def main() -> int:
    """Build, run and compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "slow.yaml").write_text(CONFIGURATION)
        make_root(folder)
        run([sys.executable, "build_native.py", "--wheel", "arm64"], ROOT)
        wheel = max((ROOT / "dist").glob("*_aarch64.whl"), key=lambda path: path.stat().st_mtime)
        shutil.unpack_archive(wheel, folder / "site", "zip")
        shutil.copytree(ROOT / "samples", folder / "samples")
        recognise = ["-m", "edgevoice", "recognize", "--config", str(folder / "slow.yaml"), "--json"]
        wanted = dict(zip(SAMPLES, answers(run([sys.executable, *recognise, *SAMPLES], ROOT)), strict=True))
        for processor, kernels, samples in RUNS:
            python = emulated(folder, processor)
            loaded = run([*python, "-c", LOADED], folder, PYTHONPATH=str(folder / "site")).split()
            if loaded[0] != kernels or f"/variants/{kernels}/" not in loaded[1]:
                sys.exit(f"{processor}: loaded {loaded}, expected {kernels}")
            found = answers(run([*python, *recognise, *samples], folder, PYTHONPATH=str(folder / "site")))
            for sample, theirs in zip(samples, found, strict=True):
                compare(wanted[sample], theirs, f"{processor}, {kernels}")
        refuse(folder, recognise[2:])
    return 0


def emulated(folder: Path, processor: str) -> list[str]:
    """Return how to start Python."""
    python = str(folder / "root/usr/bin/python3.11")
    return ["qemu-aarch64-static", "-L", str(folder / "root"), "-cpu", processor, python]


def refuse(folder: Path, recognise: list[str]) -> None:
    """Have a processor load what it cannot run: asked for it is refused, unchecked it ends the program."""
    python = emulated(folder, "cortex-a53")
    variables = {**os.environ, "PYTHONPATH": str(folder / "site"), "EDGEVOICE_KERNELS": "dotprod"}
    for start, code, text in (
        (["-m", "edgevoice"], 3, "this processor has no asimddp"),
        (["-c", UNCHECKED], -signal.SIGILL, "loaded"),
    ):
        done = subprocess.run(
            [*python, *start, *recognise, COMMAND],
            cwd=folder, env=variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != code or text not in done.stdout + done.stderr:
            sys.exit(
                f"cortex-a53 with dotprod: exit code {done.returncode}, expected {code} and {text!r}\n"
                f"{done.stdout}{done.stderr}"
            )
    print("cortex-a53, dotprod: refused; loaded all the same, SIGILL", flush=True)


def make_root(folder: Path) -> None:
    """Unpack Debian 12 for ARM with Python, and the Python packages; nothing of it is run here."""
    root, site, wheels = folder / "root", folder / "site", folder / "wheels"
    kind = ["--foreign", "--arch=arm64", "--variant=minbase", "--include=python3"]
    run(["debootstrap", *kind, "bookworm", str(root)], ROOT)
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        run(["dpkg", "-x", str(package), str(root)], ROOT)
    tags = [f"--platform=manylinux{tag}_aarch64" for tag in ("2014", "_2_17", "_2_28")]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--python-version=3.11",
    ]
    run([*pip, *tags, "--dest", str(wheels), *BINARY], ROOT)
    for wheel in wheels.iterdir():
        shutil.unpack_archive(wheel, site, "zip")
    here = next(Path(entry) for entry in sys.path if entry.endswith("site-packages"))
    for pattern in PURE:
        for path in here.glob(pattern):
            (shutil.copytree if path.is_dir() else shutil.copy)(path, site / path.name)


def answers(lines: str) -> list[dict[str, Any]]:
    """Return what `edgevoice recognize` says of each sample."""
    return [json.loads(line) for line in lines.splitlines()]


def compare(ours: dict[str, Any], theirs: dict[str, Any], where: str) -> None:
    """Print one line, or end with what differs."""
    difference = abs(ours["confidence"] - theirs["confidence"])
    what = f"{theirs['text']!r} {theirs['intent'] or theirs['reason']}"
    figures = f"{where}: {what} confidence {theirs['confidence']:.4f}"
    same = all(ours[key] == theirs[key] for key in ("text", "intent", "slots", "accepted", "reason"))
    if not same or difference > MAX_DIFFERENCE:
        sys.exit(f"{figures}, but here {ours['text']!r} {ours['intent']} confidence {ours['confidence']:.4f}")
    print(f"{figures}, differs by {difference:.4f}", flush=True)


def run(command: list[str], folder: Path, **variables: str) -> str:
    """Return what a program prints; one that fails ends this one."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    if done.returncode:  # -4 is an instruction that the processor does not have
        sys.exit(f"{' '.join(command[:6])} ...: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
