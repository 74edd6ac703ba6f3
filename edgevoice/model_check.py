"""Model check: what a model hears in a sample and how long it takes, for one model beside another."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgevoice import grammar
from edgevoice.native import Grammar, Model, Session, SessionOptions

if TYPE_CHECKING:
    from edgevoice.events import Samples

SAMPLE: Final = Path(__file__).with_name("sample.flac")
"""Synthetic English speech: "turn on the desk lamp"."""

_RUNS: Final = 2  # the first one also fetches the weights from the disk
_TIMEOUT_S: Final = 600.0  # large on a Raspberry Pi Zero


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a sample."""

    text: str
    seconds: float
    """The shorter of two runs."""


def hear(path: Path, samples: Samples, language: str = "en") -> Heard:
    """Load a model and let it write what it hears, bound to nothing.

    Raises:
        ModelCorruptError, NativeError: it cannot be loaded or run.
    """
    options = SessionOptions(language=language, beam=1, n_best=1, timeout_s=_TIMEOUT_S)
    with (
        Model(path) as model,
        Grammar(grammar.compile_free_text(language)) as free,
        Session(model, free, options) as session,
    ):
        text, seconds = "", []
        for _ in range(_RUNS):
            started = time.perf_counter()
            session.recognise(samples)
            text = session.transcribe().text
            seconds.append(time.perf_counter() - started)
    return Heard(text.strip(), min(seconds))
