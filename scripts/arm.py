"""Run the whole package as boards with a 64-bit ARM processor would, emulated, against this machine.

    .venv/bin/python scripts/arm.py

Text, intent and slots must be the same, the confidence nearly. `make soak` runs it too. It says nothing about
speed. Wants the Debian packages debootstrap, g++-aarch64-linux-gnu and qemu-user-static, and a network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
SAMPLES: Final = ("samples/turn-on-desk-lamp.flac",)

RUNS: Final = (("cortex-a53", "cortex-a53"), ("cortex-a76", "cortex-a76"))
"""Processor that is built for, processor that is emulated."""

MAX_DIFFERENCE: Final = 0.02
"""Of confidence: the order of sums differs between NEON and AVX2; 0.0009 was seen."""

CONFIGURATION: Final = "recognition:\n  timeout_s: 300\n"  # emulated, one sample takes most of a minute

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
        wanted = recognise([sys.executable], ROOT, folder)
        for built, emulated in RUNS:
            package = folder / built
            shutil.copytree(ROOT / "edgevoice", package / "edgevoice", ignore=shutil.ignore_patterns("*.so"))
            for place in ("grammars", "samples"):
                shutil.copytree(ROOT / place, package / place)
            out = ["--target", "aarch64-linux-gnu", "--cpu", built, "--out", str(package / "edgevoice")]
            run([sys.executable, "build_native.py", *out], ROOT)
            python = ["qemu-aarch64-static", "-L", str(folder / "root"), "-cpu", emulated]
            found = recognise([*python, str(folder / "root/usr/bin/python3.11")], package, folder)
            for ours, theirs in zip(wanted, found, strict=True):
                compare(ours, theirs, emulated)
    return 0


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


def recognise(python: list[str], package: Path, folder: Path) -> list[dict[str, Any]]:
    """Return what `edgevoice recognize` says of the samples."""
    arguments = ["-m", "edgevoice", "recognize", "--config", str(folder / "slow.yaml"), "--json", *SAMPLES]
    path = str(folder / "site") if package != ROOT else ""
    return [json.loads(line) for line in run([*python, *arguments], package, PYTHONPATH=path).splitlines()]


def compare(ours: dict[str, Any], theirs: dict[str, Any], emulated: str) -> None:
    """Print one line, or end with what differs."""
    difference = abs(ours["confidence"] - theirs["confidence"])
    figures = f"{emulated}: {theirs['text']!r} {theirs['intent']} confidence {theirs['confidence']:.4f}"
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
