#!/usr/bin/env python3
"""Build Debian packages into dist/: edgevoice_VERSION_ARCH.deb, edgevoice-model-tiny.en_VERSION_all.deb.

    make deb                for this machine
    make deb ARCH=arm64     for 64-bit ARM, on any Debian

1. The program is unpacked from its wheel, its Python packages from theirs (requirements.txt, fetched by pip).
2. The model is made of `tiny.en`, which is on this machine (edgevoice models pull tiny.en).
3. With unit and configuration of deploy/raspberrypi, all lies in build/deb-ARCH as debhelper wants it, which
   makes the packages: control says what they need, NAME.install what goes where.

One package serves Debian 12 and 13: our module and most wheels are for any Python from 3.11 on, soxr lies
there for both, and what is compiled for one Python only (numpy, cffi, PyAudio, YAML) is Debian's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Final

from edgevoice import models, native

ROOT: Final = Path(__file__).parents[2]
DEBIAN: Final = ROOT / "deploy" / "debian"
SHARED: Final = ROOT / "deploy" / "raspberrypi"

MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
TOOLS: Final = ("debhelper", "dpkg-dev")

PYTHONS: Final = ("3.11", "3.13")
"""Of Debian 12 and 13."""

GLIBC: Final = 36
"""Of Debian 12: 2.36, as control says."""

TAGS: Final = ("manylinux2014", "manylinux_2_17", "manylinux_2_28", "manylinux_2_34")
"""Wheels that run with it and are to be had."""

MODEL: Final = ("tiny.en", "q8_0")
"""For every board, and half the size to fetch; what deploy/raspberrypi/edgevoice.yaml names."""


def main() -> int:
    """Lay everything out, and have the packages made."""
    here = output("dpkg", "--print-architecture")
    arch = sys.argv[1] if len(sys.argv) > 1 else here
    if arch not in MACHINES:
        sys.exit(f"build.py: {arch} is no architecture for this; there are {', '.join(MACHINES)}")
    require_packages([*TOOLS, *(["g++-aarch64-linux-gnu"] if arch != here else [])])
    work = ROOT / "build" / f"deb-{arch}" / "edgevoice"  # dpkg-buildpackage leaves its results beside it
    shutil.rmtree(work.parent, ignore_errors=True)
    shutil.copytree(DEBIAN, work / "debian")
    changes = work / "debian" / "changelog"
    version = output("dpkg-parsechangelog", "--file", changes, "--show-field", "Version")
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    if version != ours:
        sys.exit(
            f"build.py: deploy/debian/changelog has version {version}, pyproject.toml {ours}; make them one"
        )

    lay_program(work / "lib", arch, version)
    lay_model(
        work / "model", int(output("dpkg-parsechangelog", "--file", changes, "--show-field", "Timestamp"))
    )
    shutil.copy(SHARED / "edgevoice.service", work / "debian")
    shutil.copy(SHARED / "edgevoice.yaml", work)
    (work / "bin").mkdir()
    shutil.copy(DEBIAN / "command.py", work / "bin" / "edgevoice")

    # Its own check of what must be installed would want Python of the other architecture.
    run(
        "dpkg-buildpackage",
        "--build=binary",
        f"--host-arch={arch}",
        "--no-sign",
        "--no-check-builddeps",
        cwd=work,
    )
    (ROOT / "dist").mkdir(exist_ok=True)
    for package in work.parent.glob("*.deb"):
        target = ROOT / "dist" / package.name
        package.replace(target)
        print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1e6:.1f} MB")
    return 0


def lay_program(folder: Path, arch: str, version: str) -> None:
    """Unpack the wheels of the program and of its Python packages."""
    run(sys.executable, ROOT / "build_native.py", "--wheel", arch)
    with tempfile.TemporaryDirectory() as name:
        wheels = Path(name)
        for wheel in (ROOT / "dist").glob(f"edgevoice-{version}-*_{MACHINES[arch]}.whl"):
            needed = int(wheel.stem.partition("manylinux_2_")[2].partition("_")[0])
            if needed > GLIBC:
                sys.exit(
                    f"build.py: {wheel.name} needs glibc 2.{needed}; build on Debian 12, which has 2.{GLIBC}"
                )
            shutil.copy(wheel, wheels)
        tags = [f"--platform={tag}_{MACHINES[arch]}" for tag in TAGS]
        for python in PYTHONS:
            run(
                sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                "--require-hashes", f"--python-version={python}", *tags, "--dest", wheels,
                "--requirement", DEBIAN / "requirements.txt",
            )  # fmt: skip
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
    for info in folder.glob("*.dist-info"):  # licences are in copyright, and dpkg has the list of files
        for path in info.iterdir():
            if path.name != "METADATA":
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def lay_model(folder: Path, time_s: int) -> None:
    """Make the model, and the record of its hash, which holds for a file of exactly this time."""
    of, kind = MODEL
    source = models.find(of)
    os.environ["EDGEVOICE_MODELS"] = str(folder)
    with tempfile.TemporaryDirectory() as name:
        made = Path(name) / f"{of}-{kind}.bin"
        native.quantize(source, made, kind)
        path = models.import_file(made, made.stem, progress=False)
    os.utime(path, (time_s, time_s))  # as dpkg-deb would set it
    models.verify(made.stem)


def require_packages(names: list[str]) -> None:
    """End with what is not installed."""
    form = "--showformat=${db:Status-Status}"
    missing = [
        name
        for name in names
        if subprocess.run(["dpkg-query", "--show", form, name], capture_output=True, check=False).stdout
        != b"installed"
    ]
    if missing:
        sys.exit(f"build.py: Debian packages are missing: sudo apt-get install {' '.join(missing)}")


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> None:
    """Run a program; what it prints is shown only when it fails, which ends this one."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(
            f"build.py: {' '.join(map(str, command[:4]))} ...: {done.returncode}\n{done.stdout}{done.stderr}"
        )


def output(*command: str | Path) -> str:
    """Return what a program prints."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
