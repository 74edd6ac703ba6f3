"""Bad input as a user meets it: one sentence, the right exit code, no traceback, no dead process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from tests.conftest import Edgevoice

RATE_HZ = 16_000
GRAMMAR = "language: en\nintents:\n  A:\n    data:\n      - sentences: ['{}']\n"


def said(stderr: bytes) -> str:
    """The one sentence on standard error."""
    lines = stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("edgevoice: ")
    assert "Traceback" not in lines[0]
    return lines[0]


@pytest.mark.parametrize(
    ("samples", "word"),
    [
        pytest.param(np.full(RATE_HZ, np.nan, np.float32), "no number", id="NaN"),
        pytest.param(np.zeros(0, np.float32), "0 samples", id="no samples"),
    ],
)
def test_audio_that_is_none(
    edgevoice: Edgevoice, tmp_path: Path, samples: npt.NDArray[np.float32], word: str
) -> None:
    """Refused with exit code 4, and the other files are still heard."""
    bad, good = tmp_path / "bad.wav", tmp_path / "good.wav"
    soundfile.write(bad, samples, RATE_HZ, subtype="FLOAT")
    soundfile.write(good, np.zeros(RATE_HZ, np.float32), RATE_HZ)
    done = edgevoice("recognize", "--json", bad, good)
    assert done.returncode == 4
    assert word in said(done.stderr)
    assert str(bad) in said(done.stderr)
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == [str(good)]


@pytest.mark.parametrize("content", [b"", b"this is no sound", b"RIFF\x10\0\0\0WAVE"], ids=repr)
def test_file_that_is_no_audio(edgevoice: Edgevoice, tmp_path: Path, content: bytes) -> None:
    """A text named .wav, an empty file and a header alone are refused with exit code 4."""
    path = tmp_path / "text.wav"
    path.write_bytes(content)
    done = edgevoice("recognize", path)
    assert (done.returncode, done.stdout) == (4, b"")
    assert str(path) in said(done.stderr)


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(np.full(160, 0.1, np.float32), id="10 ms"),
        pytest.param(np.zeros(3 * RATE_HZ, np.float32), id="silence"),
        pytest.param(np.sign(np.sin(np.arange(3 * RATE_HZ) / 7)).astype(np.float32), id="clipped"),
    ],
)
def test_audio_without_a_command(
    edgevoice: Edgevoice, tmp_path: Path, samples: npt.NDArray[np.float32]
) -> None:
    """Usable audio without a command is no error: one line says that nothing was accepted, and why."""
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, RATE_HZ)
    done = edgevoice("recognize", "--json", path)
    assert (done.returncode, done.stderr) == (0, b"")
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result["accepted"] is False
    assert result["reason"] in {"no_speech", "out_of_grammar", "low_confidence"}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[:8], id="8 bytes"),
        pytest.param(lambda data: data[:1000], id="1 kB"),
        pytest.param(lambda data: data[: len(data) // 2], id="half"),
        pytest.param(lambda data: b"GGUF" + data[4:], id="magic"),
        pytest.param(lambda data: data[:8] + b"\xff\xff\xff\xff" + data[12:], id="audio context -1"),
        pytest.param(lambda data: data[:4] + b"\x01\0\0\0" + data[8:], id="vocabulary of 1"),
    ],
)
def test_damaged_model(
    edgevoice: Edgevoice, tmp_path: Path, model_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """Refused before whisper.cpp sees it, with exit code 3 and the file's name."""
    path = tmp_path / "mine.bin"
    path.write_bytes(damage(model_path.read_bytes()))
    done = edgevoice("recognize", "--model", path, "a.wav")
    assert done.returncode == 3
    assert path.name in said(done.stderr)


def test_missing_model(edgevoice: Edgevoice) -> None:
    """A model that was never pulled is exit code 3, with the command that pulls it."""
    done = edgevoice("recognize", "--model", "small.en", "a.wav")
    assert done.returncode == 3
    assert "edgevoice models" in said(done.stderr)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        pytest.param(GRAMMAR.format("turn on {nothing}"), "nothing", id="undefined list"),
        pytest.param(
            GRAMMAR.format("<a>") + "expansion_rules: {a: 'b <a>'}\n", "may not use itself", id="recursion"
        ),
        pytest.param("language: en\nintents:\n\tA: {}\n", "tab", id="tab"),
        pytest.param("language: en\nintents: {}\n", "no sentences", id="no sentences"),
    ],
)
def test_bad_grammar(edgevoice: Edgevoice, tmp_path: Path, text: str, word: str) -> None:
    """Refused with exit code 2, file and line."""
    path = tmp_path / "grammar.yaml"
    path.write_text(text, encoding="utf-8")
    done = edgevoice("recognize", "--grammar", path, "a.wav")
    assert done.returncode == 2
    assert word in said(done.stderr)
    assert f"{path}:" in said(done.stderr)
