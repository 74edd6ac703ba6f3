"""Broken grammars are read, or refused with a reason: `make soak` breaks more of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

SECONDS = 60


def test_mutants_of_the_shipped_grammars(capsys: pytest.CaptureFixture[str]) -> None:
    script = Path(__file__).parents[1] / "scripts" / "fuzz_grammars.py"
    done = subprocess.run(
        [sys.executable, str(script), "--seconds", str(SECONDS)],
        capture_output=True,
        text=True,
        timeout=3 * SECONDS,
        check=False,
    )
    with capsys.disabled():
        sys.stdout.write(f"\n{done.stdout}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    read, refused, share = map(int, re.findall(r"(\d+) read, (\d+) refused, .*\((\d+) %\)", done.stdout)[0])
    assert read > 100
    assert refused > 100
    assert share > 80
