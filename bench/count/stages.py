"""The stages before the encoder one by one, between marks for count.c; boards.py runs this, emulated.

    stages.py SAMPLE      the sample has one utterance

Prints a line for each stage: what it is of, how often it was done between its two marks, its name.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgevoice import models
from edgevoice.audio import Converter, frames, read_audio
from edgevoice.config import Config
from edgevoice.endpoint import Endpointer
from edgevoice.events import FRAME_SAMPLES
from edgevoice.mel import LogMel
from edgevoice.native import Model, ffi, lib
from edgevoice.pipeline import endpoint_options
from edgevoice.vad import Vad

if TYPE_CHECKING:
    from collections.abc import Callable

MAGIC: Final = 0x45560000
"""As in count.c."""

LATER: Final = 96 * 16
"""Samples by which the same utterance is longer at the next pause."""


def mark(number: int) -> None:
    """Have count.c write down what it has counted."""
    with contextlib.suppress(ProcessLookupError):
        os.getpgid(MAGIC + number)


def main(sample: str) -> None:
    """Run each stage once, for what is done at a first time, and then between marks."""
    samples = read_audio(sample)
    samples = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES]
    n_frames = len(samples) // FRAME_SAMPLES
    raw = (samples * 32_767).astype(np.int16)
    blocks = raw.reshape(-1, FRAME_SAMPLES)
    wide = np.repeat(raw, 3).reshape(-1, 3 * FRAME_SAMPLES)  # as many samples as at 48 kHz
    config = Config()
    model = Model(models.find(config.model.name))
    plain, resampling = (Converter(rate, 1, source="bench") for rate in (16_000, 48_000))
    all_frames = list(frames([samples]))
    silence = list(frames([np.zeros(64 * FRAME_SAMPLES, np.float32)]))
    closed, opened = Vad(), Vad()
    scored = [opened.score(frame) for frame in all_frames]
    utterance = next(iter(Endpointer(endpoint_options(config)).utterances(scored)))
    columns = ffi.new("size_t *")
    lib.ev_mel_columns(len(utterance.samples), columns)
    heard = utterance.samples[:-LATER]
    log_mel = LogMel(model.mel_filters)

    for frame in silence:
        closed.score(frame)
    stages: list[tuple[str, str, int, Callable[[], Any]]] = [
        ("", "nothing: the marks", 1, lambda: None),
        ("frame", "int16 to float", n_frames, lambda: [plain.convert(block) for block in blocks]),
        ("frame", "48 to 16 kHz", n_frames, lambda: [resampling.convert(block) for block in wide]),
        ("frame", "cut into frames", n_frames, lambda: list(frames([samples]))),
        ("frame", "gate closed", len(silence), lambda: [closed.score(frame) for frame in silence]),
        ("frame", "gate open: detector", n_frames, lambda: [opened.score(frame) for frame in all_frames]),
        (
            "frame",
            "endpoint",
            n_frames,
            lambda: list(Endpointer(endpoint_options(config)).utterances(scored)),
        ),
        ("utterance", "mel", 1, lambda: LogMel(model.mel_filters)(utterance.samples, columns[0])),
    ]
    for number, (of, name, times, function) in enumerate(stages):
        function()
        mark(2 * number)
        function()
        mark(2 * number + 1)
        print(of, times, name, sep="\t", flush=True)
    log_mel(heard, columns[0])
    mark(2 * len(stages))
    log_mel(utterance.samples, columns[0])
    mark(2 * len(stages) + 1)
    print("utterance", 1, "mel once more, 96 ms later", sep="\t")


if __name__ == "__main__":
    main(sys.argv[1])
