"""The native module: one of several builds of it, the best that this processor can run.

    variants/NAME/_native.abi3.so  ──>  VARIANTS, what the processor can do  ──>  edgevoice._native

A wheel carries the whole module once for each generation of processors, in `variants/`; a build in a source
tree carries it once, for the machine it was made on, as `_native.abi3.so`. `build_native.py` reads VARIANTS
too, so nothing can be built under other conditions than it is loaded. EDGEVOICE_KERNELS=NAME takes a certain
one, for tests and to find faults; what the processor cannot run is never loaded.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgevoice.errors import NativeError

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from types import ModuleType

MODULE: Final = "edgevoice._native"
FILE: Final = "_native.abi3.so"
FOLDER: Final = Path(__file__).with_name("variants")
VARIABLE: Final = "EDGEVOICE_KERNELS"


@dataclass(frozen=True, slots=True)
class Variant:
    """A build of the native module."""

    machine: str
    """As `uname -m` says."""

    options: tuple[str, ...]
    """Of the compiler, for ggml, whisper.cpp and csrc/ alike."""

    needs: frozenset[str]
    """What the processor must be able to do for all that these options allow, in Linux' words."""


_NEON: Final = frozenset({"fp", "asimd"})
_ARMV8_2: Final = _NEON | {"atomics", "crc32", "asimdrdm", "fphp", "asimdhp", "asimddp"}
_V2: Final = frozenset({"cx16", "lahf_lm", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2"})
_V3: Final = _V2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
_V4: Final = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}

VARIANTS: Final = {
    # Raspberry Pi 3, 4, Zero 2 W
    "neon": Variant("aarch64", ("-march=armv8-a", "-mtune=cortex-a72.cortex-a53"), _NEON),
    # Raspberry Pi 5
    "dotprod": Variant("aarch64", ("-march=armv8.2-a+dotprod+fp16", "-mtune=cortex-a76"), _ARMV8_2),
    # newer boards; ggml multiplies quantised matrices with it
    "i8mm": Variant(
        "aarch64", ("-march=armv8.2-a+dotprod+fp16+i8mm", "-mtune=cortex-a76"), _ARMV8_2 | {"i8mm"}
    ),
    # The levels of the x86-64 ABI. The last has AVX-512, but no AMX, for whose registers a program needs a
    # permission that virtual machines and sandboxes deny (SIGSEGV).
    "x86-64-v2": Variant("x86_64", ("-march=x86-64-v2", "-mtune=generic"), _V2),
    "x86-64-v3": Variant("x86_64", ("-march=x86-64-v3", "-mtune=generic"), _V3),
    "x86-64-v4": Variant("x86_64", ("-march=x86-64-v4", "-mtune=generic"), _V4),
}
"""By name; of those for one machine the later is the better."""

_AT_HWCAP, _AT_HWCAP2 = 16, 26  # getauxval(3)
_HWCAPS: Final = {
    # Linux' arch/arm64/include/uapi/asm/hwcap.h: which vector, and which bit of it
    (_AT_HWCAP, 0): "fp",
    (_AT_HWCAP, 1): "asimd",
    (_AT_HWCAP, 7): "crc32",
    (_AT_HWCAP, 8): "atomics",
    (_AT_HWCAP, 9): "fphp",
    (_AT_HWCAP, 10): "asimdhp",
    (_AT_HWCAP, 12): "asimdrdm",
    (_AT_HWCAP, 20): "asimddp",
    (_AT_HWCAP2, 13): "i8mm",
}


def abilities(root: Path = Path("/")) -> frozenset[str]:
    """Return what the processor can do, in Linux' words, on ARM as far as VARIANTS ask for it.

    There from the vector that the kernel gives to each process: an emulator answers in it for the processor
    it emulates, but not in /proc/cpuinfo.

    Args:
        root: of the file system, for /proc/cpuinfo.
    """
    if platform.machine() == "aarch64":
        getauxval = ctypes.CDLL(None).getauxval
        getauxval.argtypes, getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
        return frozenset(name for (vector, bit), name in _HWCAPS.items() if getauxval(vector) >> bit & 1)
    try:
        lines = (root / "proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return frozenset()  # so nothing fits, and the error says so
    cores = [frozenset(line.partition(":")[2].split()) for line in lines if line.startswith("flags\t")]
    return frozenset.intersection(*cores) if cores else frozenset()


def built(folder: Path = FOLDER, machine: str | None = None) -> list[str]:
    """Return the names of the variants that are there for a machine (this one), the best last."""
    machine = machine or platform.machine()
    return [
        name
        for name, variant in VARIANTS.items()
        if variant.machine == machine and (folder / name / FILE).is_file()
    ]


def choose(names: list[str], able: AbstractSet[str], wanted: str = "") -> str:
    """Return the variant to load.

    Args:
        names: of those that are there, the best last.
        able: what the processor can do.
        wanted: the only one to take; "": the best.

    Raises:
        NativeError: that one is not there or cannot run here, or none can.
    """
    if wanted:
        if wanted not in names:
            there = ", ".join(names) or "none, but one build for the machine it was made on"
            raise NativeError(f"{VARIABLE} is {wanted!r}, and of kernels there are: {there}; unset it")
        if missing := VARIANTS[wanted].needs - able:
            raise NativeError(
                f"{VARIABLE} is {wanted!r}, but this processor has no {' '.join(sorted(missing))}; "
                "unset it to have the best chosen that it can run"
            )
        return wanted
    fitting = [name for name in names if VARIANTS[name].needs <= able]
    if not fitting:
        needs = ", ".join(f"{name} ({' '.join(sorted(VARIANTS[name].needs))})" for name in names)
        raise NativeError(
            f"none of the kernels can run here: this processor ({platform.machine()}) has "
            f"{' '.join(relevant(able)) or 'nothing of what is needed, or /proc/cpuinfo cannot be read'}; "
            f"there are {needs}; build edgevoice on this machine, from its source: pip install ."
        )
    return fitting[-1]


def relevant(able: AbstractSet[str]) -> list[str]:
    """Return what any variant asks for of what a processor can do, sorted."""
    return sorted(able & frozenset[str]().union(*(variant.needs for variant in VARIANTS.values())))


def chosen() -> str | None:
    """Return the variant that this process loads, or None for a build made for one machine.

    Raises:
        NativeError: as choose().
    """
    names, wanted = built(), os.environ.get(VARIABLE, "")
    return choose(names, abilities(), wanted) if names or wanted else None


def load() -> ModuleType:
    """Return the native module, loaded once.

    Raises:
        NativeError: as choose(), or it is not there or broken.
    """
    try:
        if MODULE in sys.modules:
            return importlib.import_module(MODULE)
        name = chosen()
        return importlib.import_module(MODULE) if name is None else load_file(FOLDER / name / FILE)
    except ImportError as error:
        raise NativeError(
            f"the native module cannot be loaded ({error}); run: python build_native.py"
        ) from None


def load_file(path: Path) -> ModuleType:
    """Load a module from a file as edgevoice._native, whatever the processor can do.

    Raises:
        ImportError: it is broken.
    """
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[MODULE] = module
    return module
