"""What the build refuses before it compiles anything."""

from __future__ import annotations

import platform
import subprocess
from typing import TYPE_CHECKING

import pytest

import build_native

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder that passes for the pinned whisper.cpp."""
    folder = tmp_path / "whisper.cpp"
    project = f'project("whisper.cpp" C CXX)\nproject("whisper.cpp" VERSION {build_native.WHISPER_VERSION})\n'
    for name, text in {
        "CMakeLists.txt": project,
        "src/whisper.cpp": "",
        "ggml/CMakeLists.txt": "",
        "models/weights.bin": "weights",
        "LICENSE": "",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    weights = build_native.file_sha256(folder / "models" / "weights.bin")
    monkeypatch.setattr(build_native, "UPSTREAM_FILES", {"models/weights.bin": weights, "LICENSE": None})
    return folder


class TestSource:
    """The whisper.cpp tree."""

    def test_given(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A whole tree is taken, from the option or from the environment."""
        assert build_native.whisper_source(tree) == tree
        monkeypatch.setenv("EDGEVOICE_WHISPER_SOURCE", str(tree))
        assert build_native.whisper_source(None) == tree

    @pytest.mark.parametrize(
        "name", ["src/whisper.cpp", "ggml/CMakeLists.txt", "models/weights.bin", "LICENSE"]
    )
    def test_incomplete(self, tree: Path, name: str) -> None:
        """A missing file is named at once, with what to do."""
        (tree / name).unlink()
        with pytest.raises(build_native.BuildError, match=rf"{name} is missing; unpack the whole release"):
            build_native.whisper_source(tree)

    def test_other_file(self, tree: Path) -> None:
        """Another file in the place of a pinned one is refused."""
        (tree / "models" / "weights.bin").write_text("others")
        with pytest.raises(build_native.BuildError, match=r"weights\.bin has SHA-256 .*; unpack the whole"):
            build_native.whisper_source(tree)

    @pytest.mark.parametrize(
        ("text", "seen"), [('project("whisper.cpp" VERSION 1.8.6)', r"1\.8\.6"), ("", "unknown")]
    )
    def test_other_version(self, tree: Path, text: str, seen: str) -> None:
        """Another release is refused, as csrc/ relies on internals of the pinned one."""
        (tree / "CMakeLists.txt").write_text(text)
        with pytest.raises(build_native.BuildError, match=rf"of version {seen}, but 1\.8\.5 is needed"):
            build_native.whisper_source(tree)


class TestFetch:
    """The download with pip."""

    @pytest.mark.parametrize(
        ("said", "explained"),
        [
            (
                "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
                "damaged or was changed",
            ),
            ("ERROR: No matching distribution found", "Without a network"),
        ],
    )
    def test_failure(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, explained: str
    ) -> None:
        """A package with another hash is not mistaken for a missing network, nor the other way round."""

        def pip(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
            return subprocess.CompletedProcess(command, 1, stdout=said)

        monkeypatch.setattr(subprocess, "run", pip)
        with pytest.raises(build_native.BuildError) as caught:
            build_native.fetch_source(tmp_path / "home")
        explanations = [
            text for text in ("damaged or was changed", "Without a network") if text in str(caught.value)
        ]
        assert explanations == [explained]
        assert not (tmp_path / "home").exists()


class TestBackends:
    """--backend and EDGEVOICE_BACKENDS."""

    def test_names(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each becomes ggml's switches; any other switch of ggml is passed on."""
        monkeypatch.setenv("EDGEVOICE_BACKENDS", "openblas  GGML_RPC=ON")
        flags = build_native.backend_flags(build_native.backend_names(), tree)
        assert "-DGGML_BLAS=ON" in flags
        assert flags[-1] == "-DGGML_RPC=ON"
        assert "-DGGML_VULKAN=ON" in build_native.backend_flags(["vulkan"], tree)
        monkeypatch.delenv("EDGEVOICE_BACKENDS")
        assert build_native.backend_flags(build_native.backend_names(), tree) == ()

    @pytest.mark.parametrize(
        "name", ["cuda", "vulkan=1", "kleidiai", "kleidiai=", "GGML_RPC", "-DGGML_RPC=ON"]
    )
    def test_unknown(self, tree: Path, name: str) -> None:
        """Another name is refused, with those that there are."""
        with pytest.raises(build_native.BuildError, match="there are openblas, vulkan, kleidiai=DIR"):
            build_native.backend_flags([name], tree)

    def test_kleidiai(self, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A tree is taken on 64-bit ARM if it has all that ggml compiles of it; nothing is downloaded."""
        listing = tree / "ggml/src/ggml-cpu/CMakeLists.txt"
        listing.parent.mkdir(parents=True)
        listing.write_text(
            'set(KLEIDIAI_COMMIT_TAG "v1.24.0")\n${KLEIDIAI_SRC}/kai/a.c\n${KLEIDIAI_SRC}/kai/b_asm.S)\n'
        )
        given = tmp_path / "kleidiai"
        (given / "kai").mkdir(parents=True)
        (given / "kai/a.c").touch()
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
        with pytest.raises(
            build_native.BuildError, match=r"kai/b_asm\.S is missing; unpack KleidiAI v1\.24\.0"
        ):
            build_native.backend_flags([f"kleidiai={given}"], tree)
        (given / "kai/b_asm.S").touch()
        assert build_native.backend_flags([f"kleidiai={given}"], tree) == (
            "-DGGML_CPU_KLEIDIAI=ON",
            f"-DFETCHCONTENT_SOURCE_DIR_KLEIDIAI_DOWNLOAD={given}",
        )
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        with pytest.raises(build_native.BuildError, match="for 64-bit ARM, this machine is x86_64"):
            build_native.backend_flags([f"kleidiai={given}"], tree)

    def test_library_is_not_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What CMake does not find is shown, and which packages have it."""

        def cmake(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
            return subprocess.CompletedProcess(command, 1, stdout="Could NOT find Vulkan")

        monkeypatch.setattr(subprocess, "run", cmake)
        packages = build_native.BACKENDS["vulkan"].packages
        with pytest.raises(
            build_native.BuildError, match=r"(?s)NOT find Vulkan.*apt-get install libvulkan-dev"
        ):
            build_native.configure_and_build(tmp_path, tmp_path, [], packages=packages)

    def test_wheel(self, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A wheel has none: the machine that it is for may not have their libraries."""
        monkeypatch.setenv("EDGEVOICE_BACKENDS", "vulkan")
        with pytest.raises(build_native.BuildError, match="EDGEVOICE_BACKENDS is 'vulkan', but a wheel"):
            build_native.build_variants(tmp_path, tree, "amd64")


class TestJobs:
    """EDGEVOICE_JOBS."""

    def test_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A number is taken; nothing means one for each core."""
        monkeypatch.setenv("EDGEVOICE_JOBS", "3")
        assert build_native.parallel_jobs() == 3
        monkeypatch.setenv("EDGEVOICE_JOBS", "")
        assert build_native.parallel_jobs() >= 1

    @pytest.mark.parametrize("value", ["abc", "0", "-1", "1.5", "1000"])
    def test_nonsense(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        """Anything else is named."""
        monkeypatch.setenv("EDGEVOICE_JOBS", value)
        with pytest.raises(build_native.BuildError, match=f"EDGEVOICE_JOBS is '{value}'"):
            build_native.parallel_jobs()
