"""Which of the builds of the native module is loaded, and that the build and the loader agree on them."""

from __future__ import annotations

import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import build_native
from edgevoice import kernels
from edgevoice.errors import NativeError

ARM: Final = ["neon", "dotprod", "i8mm"]
X86: Final = ["x86-64-v2", "x86-64-v3", "x86-64-v4"]

# What Linux says on these.
A53: Final = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
A76: Final = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
)
CORE2: Final = "fpu cx8 cmov mmx fxsr sse sse2 ht syscall nx lm pni ssse3 cx16 sse4_1 lahf_lm"
GOLDMONT: Final = f"{CORE2} sse4_2 movbe popcnt aes xsave rdrand"
HASWELL: Final = f"{GOLDMONT} avx f16c fma abm bmi1 avx2 bmi2"
SKYLAKE_X: Final = f"{HASWELL} avx512f avx512dq avx512cd avx512bw avx512vl"

MACROS: Final = {
    # of gcc for what an option allows -> Linux' words
    "aarch64": {
        "__ARM_FEATURE_CRC32": "crc32",
        "__ARM_FEATURE_ATOMICS": "atomics",
        "__ARM_FEATURE_QRDMX": "asimdrdm",
        "__ARM_FEATURE_FP16_SCALAR_ARITHMETIC": "fphp",
        "__ARM_FEATURE_FP16_VECTOR_ARITHMETIC": "asimdhp",
        "__ARM_FEATURE_DOTPROD": "asimddp",
        "__ARM_FEATURE_MATMUL_INT8": "i8mm",
    },
    "x86_64": {
        "__SSE3__": "pni",
        "__SSSE3__": "ssse3",
        "__SSE4_1__": "sse4_1",
        "__SSE4_2__": "sse4_2",
        "__CRC32__": "sse4_2",
        "__POPCNT__": "popcnt",
        "__LAHF_SAHF__": "lahf_lm",
        "__GCC_HAVE_SYNC_COMPARE_AND_SWAP_16": "cx16",
        "__AVX__": "avx",
        "__AVX2__": "avx2",
        "__BMI__": "bmi1",
        "__BMI2__": "bmi2",
        "__F16C__": "f16c",
        "__FMA__": "fma",
        "__LZCNT__": "abm",
        "__MOVBE__": "movbe",
        "__XSAVE__": "xsave",
        "__AVX512F__": "avx512f",
        "__AVX512BW__": "avx512bw",
        "__AVX512CD__": "avx512cd",
        "__AVX512DQ__": "avx512dq",
        "__AVX512VL__": "avx512vl",
    },
}


class TestChoice:
    """The best that the processor can run."""

    @pytest.mark.parametrize(
        ("names", "cpu", "best"),
        [
            (ARM, A53, "neon"),
            (ARM, A76, "dotprod"),
            (ARM, A76.replace(" asimddp", ""), "neon"),
            (ARM, f"{A76} sve i8mm bf16", "i8mm"),
            (ARM[:2], f"{A76} sve i8mm bf16", "dotprod"),
            (X86, GOLDMONT, "x86-64-v2"),
            (X86, HASWELL, "x86-64-v3"),
            (X86, HASWELL.replace(" fma", ""), "x86-64-v2"),
            (X86, SKYLAKE_X, "x86-64-v4"),
            (X86, SKYLAKE_X.replace(" avx512vl", ""), "x86-64-v3"),
        ],
    )
    def test_best(self, names: list[str], cpu: str, best: str) -> None:
        """Each processor gets the last that it has everything for."""
        assert kernels.choose(names, set(cpu.split())) == best

    @pytest.mark.parametrize(
        ("names", "cpu", "text"),
        [
            (X86, CORE2, r"has cx16 lahf_lm pni sse4_1 ssse3; there are x86-64-v2 \(cx16 .*sse4_2"),
            (X86, "", "has nothing of what is needed, or /proc/cpuinfo cannot be read; there are x86-64-v2"),
            (
                ["dotprod"],
                A53,
                r"has asimd crc32 fp; there are dotprod \(asimd asimddp .*\); build edgevoice",
            ),
        ],
    )
    def test_none_fits(self, names: list[str], cpu: str, text: str) -> None:
        """What the processor has and what is needed is said, and what to do."""
        with pytest.raises(NativeError, match=text):
            kernels.choose(names, set(cpu.split()))

    def test_forced(self) -> None:
        """One can be asked for that is not the best."""
        assert kernels.choose(ARM, set(A76.split()), "neon") == "neon"

    @pytest.mark.parametrize(
        ("names", "wanted", "text"),
        [
            (ARM, "dotprod", "processor has no asimddp asimdhp asimdrdm atomics fphp; unset it"),
            (ARM, "x86-64-v2", "and of kernels there are: neon, dotprod, i8mm; unset it"),
            (ARM[1:], "neon", "there are: dotprod, i8mm; unset it"),
            ([], "neon", "there are: none, but one build for the machine it was made on"),
        ],
    )
    def test_forced_in_vain(self, names: list[str], wanted: str, text: str) -> None:
        """What is not there or cannot run is not loaded, and nothing else in its place."""
        with pytest.raises(NativeError, match=f"EDGEVOICE_KERNELS is '{wanted}'.*{text}"):
            kernels.choose(names, set(A53.split()), wanted)

    @pytest.mark.parametrize("names", [ARM, X86])
    def test_order(self, names: list[str]) -> None:
        """Each variant can do all that the one before it can, so that the last that fits is the best."""
        machines = {kernels.VARIANTS[name].machine for name in names}
        assert [name for name, its in kernels.VARIANTS.items() if its.machine in machines] == names
        for less, more in itertools.pairwise(names):
            assert kernels.VARIANTS[less].needs < kernels.VARIANTS[more].needs


class TestProcessor:
    """What it can do."""

    def test_this_one(self) -> None:
        """Something that is built for can run here."""
        able = kernels.abilities()
        assert any(
            variant.machine == platform.machine() and variant.needs <= able
            for variant in kernels.VARIANTS.values()
        )

    def test_cores_differ(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What one of the cores cannot do is not counted, and other lines are not read."""
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        folder = tmp_path / "proc"
        folder.mkdir()
        (folder / "cpuinfo").write_text(
            "model name\t: fma\nflags\t\t: avx avx2\nvmx flags\t: f16c\n\nflags\t\t: avx\n"
        )
        assert kernels.abilities(tmp_path) == {"avx"}
        assert kernels.abilities(tmp_path / "nowhere") == set()


class TestLoading:
    """A package with variants, as a wheel has them."""

    def test_wheel(self, tmp_path: Path, child_environment: dict[str, str]) -> None:
        """The best is loaded and works; a forced one that is not able is told, and its file not touched."""
        package = tmp_path / "edgevoice"
        here = Path(kernels.__file__).parent
        shutil.copytree(here, package, ignore=shutil.ignore_patterns("*.so", "upstream", "__pycache__"))
        names = [name for name, its in kernels.VARIANTS.items() if its.machine == platform.machine()]
        best = kernels.choose(names, kernels.abilities())
        other = "neon" if platform.machine() == "x86_64" else "x86-64-v2"
        for name in (*names, other):
            file = package / "variants" / name / kernels.FILE
            file.parent.mkdir(parents=True)
            file.write_bytes(b"no module")
        (package / "variants" / best / kernels.FILE).write_bytes((here / kernels.FILE).read_bytes())

        def run(**variables: str) -> str:
            program = "from edgevoice import kernels, native; print(kernels.chosen(), native.kernels())"
            done = subprocess.run(
                [sys.executable, "-c", program], cwd=tmp_path, env={**child_environment, **variables},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            return (done.stdout or done.stderr).splitlines()[-1]

        assert run().startswith(f"{best} WHISPER :")
        assert run(EDGEVOICE_KERNELS=best).startswith(f"{best} WHISPER :")
        assert "EDGEVOICE_KERNELS is 'fast', and of kernels there are: " in run(EDGEVOICE_KERNELS="fast")
        assert f"EDGEVOICE_KERNELS is '{other}'" in run(EDGEVOICE_KERNELS=other)
        if best != names[-1]:  # else this processor can run all of them
            assert "this processor has no " in run(EDGEVOICE_KERNELS=names[-1])

    def test_tree(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A build for one machine is the only one, and says so to who asks for another."""
        monkeypatch.delenv(kernels.VARIABLE, raising=False)
        assert kernels.chosen() is None
        monkeypatch.setenv(kernels.VARIABLE, "neon")
        with pytest.raises(NativeError, match="there are: none, but one build"):
            kernels.chosen()


class TestBuild:
    """What is built."""

    @pytest.mark.parametrize("name", build_native.ARCHITECTURES)
    def test_all_are_built(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The loader finds what the build makes, all of it, made with the options of the table."""
        made = []

        def build_module(_source: Path, target: build_native.Target) -> Path:
            made.append(target.options)
            (tmp_path / "module").write_text(target.name)
            return tmp_path / "module"

        monkeypatch.setattr(build_native, "build_module", build_module)
        monkeypatch.setattr(build_native, "UPSTREAM_FILES", {})
        build_native.build_variants(tmp_path / "edgevoice", tmp_path, name)
        machine = build_native.ARCHITECTURES[name].machine
        names = kernels.built(tmp_path / "edgevoice" / "variants", machine)
        assert [kernels.VARIANTS[each].options for each in names] == made
        assert names == {"aarch64": ARM, "x86_64": X86}[machine]

    @pytest.mark.parametrize("name", kernels.VARIANTS)
    def test_needs(self, name: str) -> None:
        """A variant needs of the processor exactly what its options allow the compiler to use."""
        variant = kernels.VARIANTS[name]
        machine = build_native.ARCHITECTURES["arm64" if variant.machine == "aarch64" else "amd64"]
        compiler = build_native.Target(name, machine, variant.options).compiler
        if shutil.which(compiler) is None:
            pytest.skip(f"{compiler} is not installed")

        def macros(*options: str) -> set[str]:
            command = [compiler, *options, "-dM", "-E", "-x", "c", os.devnull]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return set(re.findall(r"#define (\w+)", done.stdout))

        plain = {"aarch64": "armv8-a", "x86_64": "x86-64"}[variant.machine]
        more = {each for each in macros(*variant.options) - macros(f"-march={plain}") if "tune" not in each}
        names = MACROS[variant.machine]
        unknown = {each for each in more - set(names) if re.match(r"__(ARM_FEATURE|AVX|AMX|SSE|FMA)", each)}
        assert unknown == set()
        always = {"fp", "asimd"} if variant.machine == "aarch64" else set()
        assert {names[each] for each in more & set(names)} == variant.needs - always
