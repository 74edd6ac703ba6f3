#!/usr/bin/env python3
"""Build edgevoice's native module: pinned whisper.cpp and csrc/ behind one cffi API-mode module.

    python build_native.py                          fetch, verify, build; does nothing when up to date
    python build_native.py --whisper-source DIR     use an unpacked whisper.cpp tree instead of fetching
    python build_native.py --backend NAME ...       with openblas, vulkan, kleidiai=DIR, or GGML_SWITCH=VALUE
    python build_native.py --sanitize               also the C++ tests, under ASan and UBSan, and run them
    python build_native.py --sanitize thread        those that use threads, under ThreadSanitizer
    python build_native.py --armv7                  also the C++ tests, for 32-bit ARM with NEON, emulated
    python build_native.py --wheel [arm64]          dist/*.whl for any processor of an architecture
    python build_native.py --clean                  forget what was built in this tree

Environment (an option wins over its variable):

    EDGEVOICE_WHISPER_SOURCE   as --whisper-source
    EDGEVOICE_BACKENDS         as --backend: names with spaces between them
    EDGEVOICE_CACHE            where fetched source and compiled ggml are kept
                               (default: XDG_CACHE_HOME or ~/.cache, then edgevoice/)
    EDGEVOICE_PORTABLE=1       to pip: for any processor of the wheel's architecture, not only this machine's
    EDGEVOICE_JOBS             parallel compiler jobs (default: all cores)

What it does, in order:

1. Source. whisper.cpp comes inside the pywhispercpp source package, fetched by pip and pinned by
   SHA-256; only the whisper.cpp tree of it is used.
2. ggml is compiled once for each (source, flags, compiler, processor) and kept in the cache.
3. cffi writes the C of the module from csrc/edgevoice.h; CMake compiles it with csrc/ and links.
4. The module and upstream's Silero weights, model headers and licence go to edgevoice/.

`pip install .` runs the same steps through the `BuildExt` command below. A wheel has the whole module
several times, for more and less able processors; edgevoice/kernels.py has the list, and chooses.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from setuptools.command.build_ext import build_ext

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # pip builds from here, but does not look for modules here
from edgevoice import kernels  # noqa: E402

# The source package that carries upstream's whole whisper.cpp tree, and what it must hash to.
PACKAGE: Final = "pywhispercpp"
PACKAGE_VERSION: Final = "1.5.1"
PACKAGE_SHA256: Final = "5df897e5dd9d9f16804fc937bd85b9f5880a0b29a55f8843585e0e03d76195e5"
PIP_WRONG_HASH: Final = "DO NOT MATCH THE HASHES"  # what pip says of a package with another hash
WHISPER_VERSION: Final = "1.8.5"

# Upstream files that the package needs when it runs.
# fmt: off
UPSTREAM_FILES: Final = {
    "models/for-tests-silero-v6.2.0-ggml.bin":
        "2aa269b785eeb53a82983a20501ddf7c1d9c48e33ab63a41391ac6c9f7fb6987",
    "models/for-tests-ggml-tiny.en.bin": "dd6b7796204a1cdf7164666423034e6e1a7a3e9f5c22327b4b7974c4584bd82d",
    "models/for-tests-ggml-base.bin": "ddf6ff3e5f9e0da794fee41652559af1efaa6118f3cc699f250991c515b6af2a",
    "LICENSE": None,
}
# fmt: on

# What C calls of Python: ev_on_segments and ev_on_logits of csrc/edgevoice.h.
PYTHON_FUNCTIONS: Final = (
    'extern "Python" int32_t ev_python_segments(void *, int32_t, const ev_text_segment *, int32_t);',
    'extern "Python" int32_t ev_python_logits(void *, const int32_t *, int32_t, float *, int32_t);',
)

GGML_FLAGS: Final = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DCMAKE_POSITION_INDEPENDENT_CODE=ON",
    "-DGGML_OPENMP=OFF",  # no second thread pool that spins while idle
    "-DGGML_CCACHE=OFF",
    # 2.4x in the encoder, f16 on x86-64 (bench/), and kernels for NEON too; off by default upstream.
    "-DGGML_LLAMAFILE=ON",
)

# Nobody asks which operations overflowed. While gcc 12 takes it that somebody may, on ARM it computes the
# address of each number anew in the matrix products: a fifth of the encoder's instructions (docs/boards.md).
GGML_ARM_FLAGS: Final = ("-DEDGEVOICE_OPTIONS=-fno-trapping-math",)

# ggml's own choice of x86-64 instructions, which without GGML_NATIVE is AVX2: the compiler's options decide.
GGML_X86_OFF: Final = tuple(f"-DGGML_{name}=OFF" for name in ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C"))


@dataclass(frozen=True)
class Backend:
    """What ggml can compute with beside its own loops for the processor."""

    flags: tuple[str, ...]  # of CMake, for ggml and for what links it
    packages: str  # Debian's that it is compiled with


BACKENDS: Final = {
    "openblas": Backend(
        ("-DGGML_BLAS=ON", "-DGGML_BLAS_VENDOR=OpenBLAS", "-DBLA_VENDOR=OpenBLAS"),
        "libopenblas-dev pkg-config",
    ),
    "vulkan": Backend(("-DGGML_VULKAN=ON",), "libvulkan-dev glslc spirv-headers"),
}

# Loops of Arm's own for quantised matrices, from a tree of its source; ggml would download it.
KLEIDIAI: Final = "-DGGML_CPU_KLEIDIAI=ON"
KLEIDIAI_TREE: Final = "-DFETCHCONTENT_SOURCE_DIR_KLEIDIAI_DOWNLOAD="


@dataclass(frozen=True)
class Architecture:
    """What may be built for on another machine."""

    machine: str  # as `uname -m` says
    prefix: str  # of the compiler's name, when this machine is another


ARCHITECTURES: Final = {  # by Debian's names
    "amd64": Architecture("x86_64", "x86_64-linux-gnu"),
    "arm64": Architecture("aarch64", "aarch64-linux-gnu"),
}


@dataclass(frozen=True)
class Target:
    """A kind of processor to compile for, other than the one at hand."""

    name: str  # of its folder below build/
    architecture: Architecture
    options: tuple[str, ...]  # of the compiler

    @property
    def prefix(self) -> str | None:
        """Of the compiler's name; None: this machine's own."""
        return None if self.architecture.machine == platform.machine() else self.architecture.prefix

    @property
    def compiler(self) -> str:
        """The C compiler's name."""
        return f"{self.prefix}-gcc" if self.prefix else "cc"

    def flags(self, paths: dict[Path, str]) -> list[str]:
        """Return what CMake needs to be told; ggml and csrc/ both take the processor from here.

        Args:
            paths: folders of this machine, and what stands in their place in texts of errors: the same is
                built everywhere.
        """
        maps = [f"-ffile-prefix-map={path}={to}" for path, to in paths.items()]
        options = shlex.join([*self.options, *maps])
        flags = [f"-DCMAKE_C_FLAGS={options}", f"-DCMAKE_CXX_FLAGS={options}"]
        if self.prefix:
            flags += [
                "-DCMAKE_SYSTEM_NAME=Linux",
                f"-DCMAKE_SYSTEM_PROCESSOR={self.architecture.machine}",
                f"-DCMAKE_C_COMPILER={self.prefix}-gcc",
                f"-DCMAKE_CXX_COMPILER={self.prefix}-g++",
            ]
        return flags


# 32-bit ARM with NEON: Raspberry Pi 2 and anything newer.
ARMV7: Final = Target(
    "armv7", Architecture("armv7l", "arm-linux-gnueabihf"), ("-mcpu=cortex-a7", "-mfpu=neon-vfpv4")
)


class BuildError(Exception):
    """The build cannot go on; the text says what happened and what to do."""


def main() -> int:
    """Parse the command line and build into the source tree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--whisper-source", type=Path, metavar="DIR", help="an unpacked whisper.cpp tree")
    parser.add_argument(
        "--sanitize", nargs="?", const="memory", choices=[*SANITIZERS],
        help="build and run the C++ tests under sanitizers (default: memory)",
    )  # fmt: skip
    parser.add_argument(
        "--backend", nargs="+", metavar="NAME",
        help=f"compute with these, too: {', '.join(BACKENDS)}, kleidiai=DIR, GGML_SWITCH=VALUE",
    )  # fmt: skip
    parser.add_argument("--armv7", action="store_true", help="build and run the C++ tests for 32-bit ARM")
    parser.add_argument("--clean", action="store_true", help="remove what was built in this tree")
    parser.add_argument(
        "--wheel", nargs="?", const="", choices=["", *ARCHITECTURES], metavar="ARCHITECTURE",
        help=f"make dist/*.whl: {', '.join(ARCHITECTURES)}; default: as this machine",
    )  # fmt: skip
    options = parser.parse_args()
    if options.backend and (options.clean or options.wheel is not None or options.sanitize or options.armv7):
        parser.error("--backend is for a build for this machine and goes with no other of these")
    try:
        if options.clean:
            clean()
        elif options.wheel is not None:
            build_wheel(architecture(options.wheel), whisper_source(options.whisper_source))
        elif options.sanitize:
            run_sanitized_tests(whisper_source(options.whisper_source), SANITIZERS[options.sanitize])
        elif options.armv7:
            run_armv7_tests(whisper_source(options.whisper_source))
        else:
            build(
                ROOT / "edgevoice", whisper_source(options.whisper_source), options.backend or backend_names()
            )
    except BuildError as error:
        print(f"build_native: {error}", file=sys.stderr)
        return 3
    return 0


class BuildExt(build_ext):
    """Setuptools' build_ext, doing the above: for `pip install .` and wheels."""

    def run(self) -> None:
        """Build the module into the build directory, or into the tree for an editable install."""
        in_tree = self.editable_mode or self.inplace
        package = (ROOT if in_tree else Path(self.build_lib).resolve()) / "edgevoice"
        try:
            if in_tree or os.environ.get("EDGEVOICE_PORTABLE", "") in ("", "0"):
                build(package, whisper_source(None), backend_names())
            else:
                tag = self.get_finalized_command("bdist_wheel").plat_name  # type: ignore[attr-defined]
                names = [name for name, each in ARCHITECTURES.items() if tag.endswith(each.machine)]
                build_variants(package, whisper_source(None), architecture(names[0] if names else tag))
        except BuildError as error:
            raise SystemExit(f"build_native: {error}") from None

    def get_outputs(self) -> list[str]:
        """The files that `run` writes, for the wheel's record."""
        return [str(path) for path in (Path(self.build_lib) / "edgevoice").rglob("*") if path.is_file()]

    def get_output_mapping(self) -> dict[str, str]:
        """Nothing is linked from a build directory in editable installs."""
        return {}


def build(package: Path, source: Path, backends: list[str]) -> None:
    """Compile the module for this machine into `package`, a folder; `source` is the whisper.cpp tree."""
    say(f"whisper.cpp {WHISPER_VERSION} from {source}{', with '.join(['', *backends])}")
    replace(build_module(source, backends=backends), package / kernels.FILE)
    add_upstream(package, source)
    say(f"native module ready: {package / kernels.FILE}")


def build_variants(package: Path, source: Path, name: str) -> None:
    """Compile the module for each kind of processor of an architecture, a name of ARCHITECTURES."""
    if names := backend_names():
        raise BuildError(
            f"EDGEVOICE_BACKENDS is {' '.join(names)!r}, but a wheel is for machines that may not have "
            "their libraries; unset it"
        )
    machine = ARCHITECTURES[name].machine
    for variant, its in kernels.VARIANTS.items():
        if its.machine == machine:
            say(f"whisper.cpp {WHISPER_VERSION} for {name}, {variant}")
            built = build_module(source, Target(f"{name}-{variant}", ARCHITECTURES[name], its.options))
            replace(built, package / kernels.FOLDER.name / variant / kernels.FILE)
    add_upstream(package, source)


def build_module(source: Path, target: Target | None = None, backends: list[str] | None = None) -> Path:
    """Compile the module below build/, for this machine or another, and return its file."""
    require_tools(target)
    extra = backend_flags(backends or [], source)
    packages = " ".join(BACKENDS[name].packages for name in backends or [] if name in BACKENDS)
    ggml = build_ggml(source, (*GGML_FLAGS, *extra), target, packages)
    work = ROOT / "build" / (target.name if target else platform.machine())
    flags = [*core_flags(source, ggml, write_cffi_source(work), target), *extra]
    # What is given to others needs no names of functions for a debugger: they are a quarter of it.
    strip = ["-DCMAKE_MODULE_LINKER_FLAGS=-s"] if target else []
    configure_and_build(ROOT / "csrc", work, [*flags, *strip, "-DCMAKE_BUILD_TYPE=Release"], target="_native")
    return work / kernels.FILE


def add_upstream(package: Path, source: Path) -> None:
    """Copy what the package needs of whisper.cpp beside the module."""
    for name, sha256 in UPSTREAM_FILES.items():
        target = package / "upstream" / (Path(name).name if sha256 else "LICENSE.whisper.cpp")
        replace(source / name, target)


def build_wheel(name: str, source: Path) -> None:
    """Make dist/*.whl for an architecture, a name of ARCHITECTURES; the same files give the same wheel."""
    target = Target(name, ARCHITECTURES[name], ())
    require_tools(target)
    tag = f"manylinux_{'_'.join(map(str, glibc(target)))}_{target.architecture.machine}"
    variables = {
        "EDGEVOICE_PORTABLE": "1",
        "EDGEVOICE_WHISPER_SOURCE": str(source),
        "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH") or last_change(),
    }
    with tempfile.TemporaryDirectory() as folder:  # what an earlier build left would be packed too
        command = [
            sys.executable, "-W", "ignore", "-c", "import setuptools; setuptools.setup()", "--quiet",
            "egg_info", "--egg-base", folder, "build", "--build-base", folder,
            "bdist_wheel", "--plat-name", tag, "--dist-dir", str(ROOT / "dist"),
        ]  # fmt: skip
        run(command, "setuptools could not make the wheel", quiet=False, **variables)


@dataclass(frozen=True)
class Sanitizers:
    """What the C++ tests are run under."""

    name: str  # of their folder below build/
    compiler: str  # what -fsanitize= gets
    ggml: tuple[str, ...]
    tests: str  # by default; empty: all


SANITIZERS: Final = {
    "memory": Sanitizers(
        "sanitize",
        "address,undefined",
        ("-DGGML_SANITIZE_ADDRESS=ON", "-DGGML_SANITIZE_UNDEFINED=ON"),
        "",
    ),
    "thread": Sanitizers("sanitize-thread", "thread", ("-DGGML_SANITIZE_THREAD=ON",), "session transcriber"),
}


def run_sanitized_tests(source: Path, sanitizers: Sanitizers) -> None:
    """Compile csrc/ and its C++ tests with sanitizers, and run them."""
    require_tools()
    ggml = build_ggml(source, (*GGML_FLAGS, *sanitizers.ggml))
    work = ROOT / "build" / f"{platform.machine()}-{sanitizers.name}"
    flags = [*core_flags(source, ggml, write_cffi_source(work))]
    configure_and_build(
        ROOT / "csrc",
        work,
        [*flags, "-DCMAKE_BUILD_TYPE=None", f"-DEDGEVOICE_SANITIZE={sanitizers.compiler}"],
        target="native_tests",
    )
    tests = os.environ.get("EDGEVOICE_TESTS") or sanitizers.tests
    command = [str(work / "native_tests"), str(source)]
    run(command, "the C++ tests failed under the sanitizers", quiet=False, EDGEVOICE_TESTS=tests)


def run_armv7_tests(source: Path) -> None:
    """Compile csrc/ and its C++ tests for 32-bit ARM, without sanitizers, and run them emulated.

    All but those that run a whole encoder again and again, which takes hours in an emulator.
    """
    require_tools(ARMV7)
    emulator = "qemu-arm-static"
    if shutil.which(emulator) is None:
        raise BuildError(f"{emulator} is not installed; on Debian: sudo apt-get install qemu-user-static")
    work = ROOT / "build" / ARMV7.name
    flags = core_flags(source, build_ggml(source, GGML_FLAGS, ARMV7), write_cffi_source(work), ARMV7)
    configure_and_build(ROOT / "csrc", work, [*flags, "-DCMAKE_BUILD_TYPE=Release"], target="native_tests")
    command = [emulator, "-L", f"/usr/{ARMV7.prefix}", "-cpu", "cortex-a7", str(work / "native_tests")]
    parts = (
        os.environ.get("EDGEVOICE_TESTS") or "kernels vocab_trie automaton nearest sentences model_file api"
    )
    variables = {"EDGEVOICE_TESTS": parts}
    run([*command, str(source)], "the C++ tests failed on 32-bit ARM", quiet=False, **variables)


# ---- backends ----


def backend_names() -> list[str]:
    """Return what EDGEVOICE_BACKENDS asks for."""
    return os.environ.get("EDGEVOICE_BACKENDS", "").split()


def backend_flags(names: list[str], source: Path) -> tuple[str, ...]:
    """Return what CMake needs to be told of some backends; `source` is the whisper.cpp tree."""
    flags: list[str] = []
    for name in names:
        kind, _, value = name.partition("=")
        if name in BACKENDS:
            flags += BACKENDS[name].flags
        elif kind == "kleidiai" and value:
            tree = Path(value).expanduser().resolve()
            check_kleidiai(tree, source)
            flags += [KLEIDIAI, f"{KLEIDIAI_TREE}{tree}"]
        elif re.fullmatch(r"GGML_[A-Z0-9_]+", kind) and value:
            flags.append(f"-D{name}")
        else:
            raise BuildError(
                f"there is no backend {name!r}; there are {', '.join(BACKENDS)}, kleidiai=DIR, and switches "
                "of ggml's CMakeLists.txt as GGML_SWITCH=VALUE"
            )
    return tuple(flags)


def check_kleidiai(tree: Path, source: Path) -> None:
    """Refuse, before anything is compiled, a tree that is not KleidiAI as ggml needs it."""
    if platform.machine() != "aarch64":
        raise BuildError(f"KleidiAI is for 64-bit ARM, this machine is {platform.machine()}")
    text = (source / "ggml/src/ggml-cpu/CMakeLists.txt").read_text(encoding="utf-8")
    tag = re.search(r'KLEIDIAI_COMMIT_TAG "(.+?)"', text)
    for name in re.findall(r"\$\{KLEIDIAI_SRC\}/(\S+\.[cS])\b", text):
        if not (tree / name).is_file():
            raise BuildError(
                f"{tree} is no KleidiAI tree as whisper.cpp {WHISPER_VERSION} needs it: {name} is missing; "
                f"unpack KleidiAI {tag[1] if tag else ''} and give its top folder"
            )


# ---- source ----


def whisper_source(given: Path | None) -> Path:
    """Return the whisper.cpp tree: given, from the environment, or fetched by pinned hash."""
    if given is None and (variable := os.environ.get("EDGEVOICE_WHISPER_SOURCE")):
        given = Path(variable)
    if given is not None:
        tree = given.expanduser().resolve()
        check_source(
            tree,
            f"unpack the whole release {WHISPER_VERSION} of whisper.cpp and give its top folder, or give "
            "neither --whisper-source nor EDGEVOICE_WHISPER_SOURCE to have it fetched",
        )
        return tree
    home = cache_folder() / f"whisper.cpp-{WHISPER_VERSION}-{PACKAGE_SHA256[:12]}"
    with locked(home):
        if not home.is_dir():
            fetch_source(home)
    check_source(home, f"remove {home} to have it fetched again")
    return home


def check_source(tree: Path, remedy: str) -> None:
    """Refuse, before anything is compiled, a tree that is not whisper.cpp as this version needs it."""
    for name in ("CMakeLists.txt", "src/whisper.cpp", "ggml/CMakeLists.txt", *UPSTREAM_FILES):
        if not (tree / name).is_file():
            raise BuildError(f"{tree} is no whole whisper.cpp tree: {name} is missing; {remedy}")
    text = (tree / "CMakeLists.txt").read_text(encoding="utf-8", errors="replace")
    found = re.search(r'project\("whisper\.cpp" VERSION ([\d.]+)', text)
    version = found[1] if found else "unknown"
    if version != WHISPER_VERSION:  # csrc/ relies on internals, which change between releases
        raise BuildError(
            f"{tree} is whisper.cpp of version {version}, but {WHISPER_VERSION} is needed; {remedy}"
        )
    for name, sha256 in UPSTREAM_FILES.items():
        if sha256 and (seen := file_sha256(tree / name)) != sha256:
            raise BuildError(f"{tree / name} has SHA-256 {seen}, expected is {sha256}; {remedy}")


def fetch_source(home: Path) -> None:
    """Download the source package, check its hash, and unpack its whisper.cpp folder to `home`."""
    say(f"fetching the source of whisper.cpp {WHISPER_VERSION} ({PACKAGE} {PACKAGE_VERSION}, 10 MB)")
    with tempfile.TemporaryDirectory(dir=home.parent) as folder:
        # With the hash in a requirements file pip refuses a changed package before it looks inside.
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(f"{PACKAGE}=={PACKAGE_VERSION} --hash=sha256:{PACKAGE_SHA256}\n", encoding="utf-8")
        command = [
            sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", PACKAGE, "--require-hashes",
            "--disable-pip-version-check", "--dest", folder, "--requirement", str(wanted),
        ]  # fmt: skip
        try:
            run(
                command,
                f"pip could not download it. Without a network, unpack whisper.cpp {WHISPER_VERSION} "
                "yourself and pass --whisper-source DIR or set EDGEVOICE_WHISPER_SOURCE",
            )
        except BuildError as error:
            if PIP_WRONG_HASH not in str(error):
                raise
            raise BuildError(
                f"{PACKAGE} {PACKAGE_VERSION} as pip downloaded it has not SHA-256 {PACKAGE_SHA256}: it "
                "is damaged or was changed, so it is not used. Try again later, or pass --whisper-source DIR"
            ) from None
        archive = Path(folder) / f"{PACKAGE}-{PACKAGE_VERSION}.tar.gz"
        if not archive.is_file():
            names = sorted(file.name for file in Path(folder).iterdir())
            raise BuildError(f"pip downloaded {names} instead of {archive.name}")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        (Path(folder) / f"{PACKAGE}-{PACKAGE_VERSION}" / "whisper.cpp").rename(home)


# ---- compilation ----


def require_tools(target: Target | None = None) -> None:
    """Fail with the remedy when a tool is missing or its setting is wrong."""
    parallel_jobs()
    prefix = target.prefix if target else None
    cross_tools = [(f"{prefix}-{name}", f"g++-{prefix}") for name in ("gcc", "g++")] if prefix else []
    for tool, package in (
        ("cmake", "cmake"),
        ("make", "make"),
        ("cc", "build-essential"),
        ("c++", "build-essential"),
        *cross_tools,
    ):
        if shutil.which(tool) is None:
            raise BuildError(f"{tool} is not installed; on Debian: sudo apt-get install {package}")
    if not (python_include() / "Python.h").is_file():
        raise BuildError(
            f"the Python headers are missing ({python_include()}/Python.h); "
            "on Debian: sudo apt-get install python3-dev"
        )


def build_ggml(
    source: Path, flags: tuple[str, ...], target: Target | None = None, packages: str = ""
) -> Path:
    """Compile ggml once for this source, flags, compiler and processor; return its install folder.

    `packages` are Debian's that the flags ask for, named when CMake does not find something.
    """
    trees = [flag.removeprefix(KLEIDIAI_TREE) for flag in flags if flag.startswith(KLEIDIAI_TREE)]
    if (target.architecture.machine if target else platform.machine()) == "aarch64":
        flags = (*flags, *GGML_ARM_FLAGS)
    if target:
        flags = (*flags, "-DGGML_NATIVE=OFF", *GGML_X86_OFF, *target.flags({source: "whisper.cpp"}))
    else:
        own: tuple[str, ...] = ("-DGGML_NATIVE=ON",)
        if platform.machine() == "x86_64":  # without AMX: kernels.VARIANTS says why
            no_amx = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
            own = (*own, f"-DCMAKE_C_FLAGS={no_amx}", f"-DCMAKE_CXX_FLAGS={no_amx}")
        flags = (*own, *flags)  # of two that contradict one another CMake takes the last: what was asked for
    key = digest(
        *map(tree_digest, (source / "ggml", ROOT / "csrc" / "ggml", *map(Path, trees))), *flags,
        output([target.compiler if target else "cc", "--version"]),
        platform.machine(), "" if target else processor_features(),
    )  # fmt: skip
    prefix = cache_folder() / f"ggml-{key}"
    with locked(prefix):
        if not prefix.is_dir():
            say("compiling ggml (once; two minutes on two cores, ten on a small board)")
            with tempfile.TemporaryDirectory(dir=prefix.parent) as folder:
                work, stage = Path(folder) / "build", Path(folder) / "stage"
                configure_and_build(
                    ROOT / "csrc" / "ggml",
                    work,
                    [f"-DGGML_SOURCE={source / 'ggml'}", f"-DCMAKE_INSTALL_PREFIX={stage}", *flags],
                    packages=packages,
                )
                run(["cmake", "--install", str(work)], "ggml could not be installed into the cache")
                stage.rename(prefix)
    return prefix


def core_flags(source: Path, ggml: Path, cffi_source: Path, target: Target | None = None) -> list[str]:
    """Return the CMake variables that csrc/CMakeLists.txt asks for.

    A cross build takes the Python headers of this machine: the module uses only the limited API, and the
    sizes of C's types, all that differs between builds of Python, are the same on both (LP64).
    """
    prefix = target.prefix if target else None
    headers = [python_include(), *([debian_headers(cffi_source.parent, prefix)] if prefix else [])]
    return [
        f"-DWHISPER_SOURCE={source}",
        f"-DWHISPER_VERSION={WHISPER_VERSION}",
        f"-DGGML_PREFIX={ggml}",
        f"-DPYTHON_INCLUDE={';'.join(map(str, headers))}",
        f"-DCFFI_SOURCE={cffi_source}",
        f"-DEDGEVOICE_NATIVE={'OFF' if target else 'ON'}",
        *(target.flags({source: "whisper.cpp", ROOT: "edgevoice"}) if target else ()),
    ]


def write_cffi_source(folder: Path) -> Path:
    """Let cffi write the module's C from csrc/edgevoice.h; untouched when it would be the same."""
    from cffi import FFI  # noqa: PLC0415 - installed by pip before the build, absent for --help

    header = (ROOT / "csrc" / "edgevoice.h").read_text(encoding="utf-8")
    declarations: list[str] = []
    skipping = False
    for line in header.splitlines():
        if line.startswith("#ifdef __cplusplus"):
            skipping = True
        elif line.startswith("#endif"):
            skipping = False
        elif not skipping and not line.startswith("#"):
            declarations.append(line)
    ffi = FFI()
    ffi.cdef("\n".join([*declarations, *PYTHON_FUNCTIONS]))
    ffi.set_source("edgevoice._native", '#include "edgevoice.h"\n', py_limited_api=True)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "_native.c"
    ffi.emit_c_code(str(target))  # keeps the file's time when nothing changed
    return target


def configure_and_build(
    source: Path, work: Path, flags: list[str], target: str | None = None, packages: str = ""
) -> None:
    """Run CMake's two steps; make itself decides what is out of date."""
    command = ["cmake", "--build", str(work), "--parallel", str(parallel_jobs())]
    remedy = f"; on Debian: sudo apt-get install {packages}" if packages else ""
    run(["cmake", "-S", str(source), "-B", str(work), *flags], f"CMake could not configure {source}{remedy}")
    run([*command, *(["--target", target] if target else [])], f"{source} did not compile")


# ---- small helpers ----


def run(command: list[str], failure: str, *, quiet: bool = True, **variables: str) -> None:
    """Run a command; its output is shown only when it fails."""
    done = subprocess.run(  # noqa: S603
        command, stdout=subprocess.PIPE if quiet else None, stderr=subprocess.STDOUT if quiet else None,
        text=True, check=False, cwd=ROOT, env={**os.environ, **variables},
    )  # fmt: skip
    if done.returncode != 0:
        detail = (done.stdout or "").strip().splitlines()[-40:]
        raise BuildError("\n".join([*detail, f"{' '.join(command[:4])} ...: {failure}"]))


def output(command: list[str]) -> str:
    """Return what a command prints."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout  # noqa: S603


def parallel_jobs() -> int:
    """Return how many compilers may run at once: EDGEVOICE_JOBS, else one for each core."""
    value = os.environ.get("EDGEVOICE_JOBS") or str(os.cpu_count() or 1)
    if re.fullmatch(r"[1-9][0-9]{0,2}", value) is None:
        raise BuildError(f"EDGEVOICE_JOBS is {value!r}; use a whole number from 1 to 999, or unset it")
    return int(value)


def architecture(name: str) -> str:
    """Return a name of ARCHITECTURES as it is, and this machine's for ""."""
    here = [key for key, each in ARCHITECTURES.items() if each.machine == platform.machine()]
    if not name and here:
        return here[0]
    if name not in ARCHITECTURES:
        raise BuildError(
            f"{name or platform.machine()} is no architecture that a portable build can be made for; "
            f"there are {', '.join(ARCHITECTURES)}"
        )
    return name


def glibc(target: Target) -> tuple[int, int]:
    """Return the version of the C library that is linked, which is needed at least where it runs."""
    text = output([target.compiler, "-include", "features.h", "-dM", "-E", "-x", "c", "/dev/null"])
    numbers = dict(re.findall(r"#define (__GLIBC__|__GLIBC_MINOR__) (\d+)", text))
    return int(numbers["__GLIBC__"]), int(numbers["__GLIBC_MINOR__"])


def last_change() -> str:
    """Return when the tree last changed, in seconds since 1970; without git 1980, when zip files begin."""
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() or "315532800"


def processor_features() -> str:
    """Return what -march=native depends on: a cache shared between machines must not mix them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    keys = ("flags", "Features", "model name", "CPU implementer", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(keys)}))


def python_include() -> Path:
    """Return the folder of Python.h."""
    return Path(sysconfig.get_path("include"))


def debian_headers(work: Path, prefix: str) -> Path:
    """Return `work`, where the header is that Debian's pyconfig.h includes by the target's name.

    Debian would have it in a package of the other architecture; this machine's does (core_flags). Other
    builds of Python do not ask for it.
    """
    name = f"{python_include().name}/pyconfig.h"
    ours = python_include().parent / str(sysconfig.get_config_var("MULTIARCH")) / name
    if ours.is_file():
        theirs = work / prefix / name
        theirs.parent.mkdir(parents=True, exist_ok=True)
        theirs.write_text(f'#include "{ours}"\n', encoding="utf-8")
    return work


def cache_folder() -> Path:
    """Return the folder for fetched source and compiled ggml, made when missing."""
    base = os.environ.get("EDGEVOICE_CACHE")
    folder = (
        Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgevoice"
    )
    folder = folder.expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(
            f"the cache folder {folder} cannot be made ({error.strerror}); set EDGEVOICE_CACHE"
        ) from None
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock beside `path`, so that two builds at once do the work once."""
    import fcntl  # noqa: PLC0415 - absent on Windows, where this file should still import

    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def replace(source: Path, target: Path) -> None:
    """Copy over `target` in one step, so that a running program keeps the file it has open."""
    if target.is_file() and file_sha256(source) == file_sha256(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".new")
    shutil.copy(source, temporary)
    temporary.replace(target)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(folder: Path) -> str:
    """Return one digest of all files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest(*(f"{path.relative_to(folder)} {file_sha256(path)}" for path in files))


def digest(*parts: str) -> str:
    """Return a short digest of some texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def clean() -> None:
    """Remove what was built in this tree; the cache stays."""
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    shutil.rmtree(ROOT / "edgevoice" / "upstream", ignore_errors=True)
    (ROOT / "edgevoice" / kernels.FILE).unlink(missing_ok=True)


def say(text: str) -> None:
    """Report a step."""
    print(f"build_native: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
