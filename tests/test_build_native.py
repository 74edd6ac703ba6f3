"""What the build refuses before it compiles anything."""

from __future__ import annotations

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
