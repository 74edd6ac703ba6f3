"""What the tests share: a model, grammars, sample recordings, and the command as users start it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from edgevoice import grammar as grammar_compiler
from edgevoice import grammar_file, models
from edgevoice.audio import read_audio
from edgevoice.config import PASSWORD_VARIABLE, PATH_VARIABLE, Config
from edgevoice.native import Grammar, Model, Session, SessionOptions
from edgevoice.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgevoice.events import Samples

ROOT = Path(__file__).parents[1]
COMMAND_TIMEOUT_S = 60  # the slowest command takes 10 s on an idle machine


@dataclass(frozen=True, slots=True)
class Sample:
    """One recording of samples/manifest.jsonl."""

    path: Path
    text: str
    accepted: bool
    intent: str | None
    slots: dict[str, Any]
    reasons: tuple[str, ...]
    """Of which a refusal must give one."""

    def read(self) -> Samples:
        """The audio, 16 kHz mono."""
        return read_audio(self.path)


class Edgevoice(Protocol):
    """Runs the command `edgevoice` in a child process with the test's own configuration folder."""

    def __call__(
        self, *arguments: str | Path, stdin: bytes = b"", environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end."""
        ...


class MakeGrammar(Protocol):
    """Writes a grammar file, compiles it and opens it."""

    def __call__(self, text: str) -> Grammar:
        """Open the grammar written as `text`."""
        ...


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The smallest model's file; pulled when it is absent."""
    return models.pull("tiny.en", progress=False)


@pytest.fixture(scope="session")
def model(model_path: Path) -> Iterator[Model]:
    with Model(model_path) as opened:
        yield opened


def wait_until(true: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for something that another thread does, by default as long as a busy machine may take."""
    deadline_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@contextmanager
def running(
    environment: dict[str, str], *arguments: str | Path, start: Sequence[str] = ("-m", "edgevoice")
) -> Iterator[subprocess.Popen[bytes]]:
    """The command with pipes, ended when the block ends."""
    with subprocess.Popen(
        [sys.executable, *start, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def open_grammar(path: Path) -> Grammar:
    return Grammar(grammar_compiler.compile_grammar(grammar_file.load(path)))


@pytest.fixture(scope="session")
def home_grammar() -> Iterator[Grammar]:
    with open_grammar(ROOT / "grammars" / "home.yaml") as opened:
        yield opened


@pytest.fixture(scope="session")
def coffee_grammar() -> Iterator[Grammar]:
    with open_grammar(ROOT / "grammars" / "coffee.yaml") as opened:
        yield opened


@pytest.fixture(scope="session")
def session(model: Model, home_grammar: Grammar) -> Iterator[Session]:
    """A session for the home, for tests that leave it as they found it."""
    with Session(model, home_grammar, SessionOptions(threads=1)) as opened:
        yield opened


@pytest.fixture(scope="session")
def make_grammar(tmp_path_factory: pytest.TempPathFactory) -> MakeGrammar:
    folder = tmp_path_factory.mktemp("grammars")
    numbers = itertools.count()

    def make(text: str) -> Grammar:
        path = folder / f"{next(numbers)}.yaml"
        path.write_text(text, encoding="utf-8")
        return open_grammar(path)

    return make


@pytest.fixture(scope="session")
def samples() -> tuple[Sample, ...]:
    lines = (ROOT / "samples" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(
        Sample(
            path=ROOT / "samples" / row["audio"],
            text=row["text"],
            accepted=row["accepted"],
            intent=row["intent"],
            slots=row["slots"],
            reasons=tuple(row.get("reason", ())),
        )
        for row in map(json.loads, lines)
    )


@pytest.fixture(scope="session")
def speech(samples: tuple[Sample, ...]) -> Samples:
    """A command of the home: "turn on the desk lamp"."""
    return next(sample for sample in samples if sample.path.stem == "turn-on-desk-lamp").read()


@pytest.fixture(scope="session")
def pipeline(model_path: Path) -> Iterator[Pipeline]:
    """A pipeline with every default."""
    assert model_path.is_file()
    opened = Pipeline(Config())
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def child_environment(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> dict[str, str]:
    """Environment for child processes: our models, nobody's configuration."""
    hidden = {PATH_VARIABLE, PASSWORD_VARIABLE, "PYTHONWARNINGS"}
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    return {
        **inherited,
        "EDGEVOICE_MODELS": str(model_path.parent),
        "XDG_CONFIG_HOME": str(tmp_path_factory.mktemp("config")),
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture(scope="session")
def edgevoice(child_environment: dict[str, str]) -> Edgevoice:
    def run(
        *arguments: str | Path, stdin: bytes = b"", environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "edgevoice", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            env={**child_environment, **(environment or {})},
            check=False,
        )

    return run
