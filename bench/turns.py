"""Coffee orders cut to their speech, and engines that take turns at them: what comparisons are made with."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import numpy as np

from edgevoice import models, recordings, scores
from edgevoice.audio import frames, read_audio
from edgevoice.confidence import confidence_model
from edgevoice.decide import decide
from edgevoice.endpoint import Endpointer, EndpointOptions
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.grammar import compile_grammar
from edgevoice.mixing import generator, mix, noise_piece
from edgevoice.native import Grammar, Model, Session, SessionOptions
from edgevoice.vad import Vad

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgevoice.events import Samples
    from edgevoice.grammar_file import GrammarFile
    from edgevoice.recordings import Recording

ORDERS: Final = "coffee_commands"
"""Folder of the recordings and of grammar.yaml, which accepts what they say."""

_NOISE: Final = "noise_picovoice"  # two minutes of a kitchen
_LONGEST_SAMPLES: Final = 28 * SAMPLE_RATE_HZ  # what a session takes
_SETTLE_S: Final = 0.25
"""Rest before each turn when several threads are used: OpenMP's keep spinning for up to 0.2 s after their
work and would take the next engine's core."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine made of some samples."""

    text: str
    intent: str | None
    slots: dict[str, Any]
    ms: float
    encode_ms: float = 0.0
    """edgevoice's only, as the next."""

    search_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One engine's answer to one clip."""

    engine: str
    threads: int
    condition: str
    clip: str
    right: bool
    """The intent and every labelled slot, before anything is rejected."""

    answer: Answer


class Engine(Protocol):
    """Something that turns speech into an intent."""

    name: str

    def recognise(self, samples: Samples) -> Answer:
        """Answer, with the time it took."""


class Ours:
    """edgevoice's recognition and decision, with one model."""

    def __init__(self, file: GrammarFile, model: str, threads: int, name: str = "edgevoice") -> None:
        self.name = name
        self._grammar = Grammar(compile_grammar(file))
        self._model = Model(models.find(model))
        self._session = Session(self._model, self._grammar, SessionOptions(threads=threads, timeout_s=0))
        self._confidence = confidence_model(model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()
        self._grammar.close()
        self._model.close()

    def recognise(self, samples: Samples) -> Answer:
        """Answer, with the time of recognition, matching and decision."""
        started = time.perf_counter()
        transcript = self._session.recognise(samples)
        decision = decide(
            transcript,
            self._grammar,
            sure_s=len(samples) / SAMPLE_RATE_HZ,  # all of it
            min_confidence=0.5,
            model=self._confidence,
        )
        ms = (time.perf_counter() - started) * 1000
        timings, meaning = transcript.timings, decision.meaning
        if meaning is None:
            return Answer("", None, {}, ms, timings.encode, timings.search)
        return Answer(meaning.text, meaning.intent, meaning.slots, ms, timings.encode, timings.search)

    def full_encode_ms(self) -> float:
        """Return the time of the encoder over the longest audio that a session takes."""
        noise = np.random.default_rng(0).normal(0, 0.01, _LONGEST_SAMPLES).astype(np.float32)
        return self._session.recognise(noise).timings.encode


def conditions(orders: Sequence[Recording], data: Path, snr_db: float, seed: int) -> dict[str, list[Samples]]:
    """Return the cut samples of all orders, clean and with noise over the whole recording.

    The pieces of noise are those that `edgevoice eval` takes for the same seed.
    """
    ((label, paths),) = recordings.noises(data / _NOISE).items()
    noises = [read_audio(path) for path in paths]
    noisy_name = f"{label} {snr_db:g} dB"
    clean, noisy = [], []
    for order in orders:
        samples = read_audio(order.path)
        choice = generator(seed, noisy_name, order.name)
        noise = noises[int(choice.integers(len(noises)))]
        clean.append(samples)
        noisy.append(mix(samples, noise_piece(noise, len(samples), choice), snr_db))
    return {"clean": cut(clean), noisy_name: cut(noisy)}


def cut(whole: Sequence[Samples]) -> list[Samples]:
    """Cut each to what the endpointer finds, from where the first utterance starts to the end of the last.

    A recording without speech stays whole, so that no engine is spared it.
    """
    vad, clips = Vad(), []
    for samples in whole:
        vad.reset()
        scored = (vad.score(frame) for frame in frames([samples]))
        utterances = list(Endpointer(EndpointOptions()).utterances(scored))
        start = utterances[0].start_samples if utterances else 0
        end = utterances[-1].end_samples if utterances else len(samples)
        clips.append(np.ascontiguousarray(samples[start : min(end, start + _LONGEST_SAMPLES)]))
    vad.close()
    return clips


def take_turns(
    engines: Sequence[Engine],
    orders: Sequence[Recording],
    clips: list[Samples],
    condition: str,
    threads: int,
) -> list[Turn]:
    """Let the engines recognise clip after clip, each time another one first."""
    turns: list[Turn] = []
    for number, (order, samples) in enumerate(zip(orders, clips, strict=True)):
        first = number % len(engines)
        for engine in (*engines[first:], *engines[:first]):
            if threads > 1:
                time.sleep(_SETTLE_S)
            answer = engine.recognise(samples)
            right = scores.agrees(order, {"intent": answer.intent, "slots": answer.slots})
            turns.append(Turn(engine.name, threads, condition, order.name, right, answer))
        if sys.stderr.isatty():
            print(f"\r{condition}, {number + 1} of {len(orders)} ", end="", file=sys.stderr, flush=True)
    return turns


def by_engine(turns: list[Turn]) -> dict[str, list[Turn]]:
    """Return each engine's turns, in the order of the clips."""
    sorted_turns: dict[str, list[Turn]] = {}
    for turn in turns:
        sorted_turns.setdefault(turn.engine, []).append(turn)
    return sorted_turns
