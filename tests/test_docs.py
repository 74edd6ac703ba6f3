"""docs/whisper.md does what it says, has all of upstream's header, and its reference is up to date."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import build_native
from edgevoice import models
from edgevoice.errors import ModelNotFoundError
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

WHISPER = (ROOT / "docs" / "whisper.md").read_text(encoding="utf-8")
PEERS = (ROOT / "docs" / "whisper-peers.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("model_path")
def test_examples_print_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", WHISPER, re.DOTALL)
    assert len(blocks) > 10
    names: dict[str, Any] = {}
    for block in blocks:
        if 'find("base")' in block:
            try:
                models.find("base")
            except ModelNotFoundError:
                continue
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(block, "docs/whisper.md", "exec"), names)  # noqa: S102 - our own document
        expected = [line[4:] for line in block.splitlines() if line.startswith("# > ")]
        assert said.getvalue().splitlines() == expected, block


@pytest.fixture(scope="module")
def header() -> str:
    path: Path = build_native.whisper_source(None) / "include" / "whisper.h"
    text = path.read_text(encoding="utf-8")
    return re.sub(r"//[^\n]*", "", text)


def test_every_option_of_the_header_has_its_row(header: str) -> None:
    body = re.search(r"struct whisper_full_params \{(.*?)\n    \};", header, re.DOTALL)
    assert body is not None
    text = body[1]
    fields = set()
    for inner, name in re.findall(r"struct \{(.*?)\} (\w+);", text, re.DOTALL):
        fields |= {f"{name}.{each}" for each in re.findall(r"(\w+);", inner)}
    fields |= set(re.findall(r"(\w+);", re.sub(r"struct \{.*?\} \w+;", "", text, flags=re.DOTALL)))
    assert len(fields) > 50
    section = WHISPER.split("## What became of each option")[1].split("\n## ")[0]
    assert set(re.findall(r"`([\w.]+)`", _first_cells(section))) == fields


def test_every_function_of_the_header_has_its_row(header: str) -> None:
    functions = {
        re.sub(r"_(with|from|no)_state$", "", name)
        for name in re.findall(r"\b(whisper_\w+)\s*\(", header)
        if not name.endswith("_callback")
    }
    assert len(functions) > 90
    section = WHISPER.split("## What became of each function")[1]
    assert set(re.findall(r"`(whisper_\w+)`", _first_cells(section))) == functions


def _first_cells(section: str) -> str:
    return "\n".join(line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `"))


def test_the_reference_is_what_its_script_writes() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "api_reference.py"), "--check"]
    done = subprocess.run(script, check=False)
    assert done.returncode == 0, "run python scripts/api_reference.py"


def test_tests_that_the_comparison_names_are_there() -> None:
    named = set(re.findall(r"`(test_\w+)\.py::(test_\w+)`", PEERS))
    assert len(named) > 15
    for file, test in sorted(named):
        text = (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8")
        assert re.search(rf"^ *def {test}\(", text, re.MULTILINE), f"{file}.py has no {test}"
