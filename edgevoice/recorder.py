"""What happens on the way of an utterance, put together to its record.

    the pipeline's threads -> Recorder -> Record -> records.py

The level and the probability of speech of each frame, each recognition and how it ended, the answer and what
it was weighed by, the result. What the record says of grammar and model tells whether a replay had the same.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from edgevoice import __version__, levels, models, native
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ, Utterance
from edgevoice.pipeline import Watcher
from edgevoice.publish import result_fields
from edgevoice.records import FORMAT, Record, record_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgevoice.config import Config
    from edgevoice.events import Result, ScoredFrame
    from edgevoice.recognise import Answer, Recogniser

_FRAME_S: Final = FRAME_SAMPLES / SAMPLE_RATE_HZ
_MAX_TRACK: Final = 1_000  # frames, 32 s: the longest utterance and the silence that ends it
_MAX_RECOGNITIONS: Final = 100  # of one utterance; each needs a pause of its own

Source = Literal["microphone", "wyoming"]
"""Of the house, or of a browser or a file in its place; or of a satellite."""


class Recorder(Watcher):
    """Makes a record of each utterance.

    Args:
        config: names the site, and says whether the sound is kept.
        recogniser: has grammar and model.
        keep: takes the records, in the caller's thread of the pipeline, and returns at once.
        source: where the sound comes from.
    """

    def __init__(
        self,
        config: Config,
        recogniser: Recogniser,
        keep: Callable[[Record], None],
        source: Source = "microphone",
    ) -> None:
        self._config = config
        self._recogniser = recogniser
        self._keep = keep
        self._source = source
        self._lock = threading.Lock()  # guards the track, which the listener's thread writes
        self._track: deque[tuple[int, float, float]] = deque(maxlen=_MAX_TRACK)
        self._recognitions: deque[dict[str, Any]] = deque(maxlen=_MAX_RECOGNITIONS)
        self._began_s = 0.0
        _model_sha256(config.model.name)  # now, while nobody waits: a file without a stamp is read for it

    def scored(self, scored: ScoredFrame) -> None:
        """Take a frame, in the listener's thread."""
        frame = scored.frame
        entry = (frame.start_samples, levels.rms_dbfs(frame.samples), scored.speech_probability)
        with self._lock:
            if self._track and frame.start_samples <= self._track[-1][0]:  # another stream
                self._track.clear()
            self._track.append(entry)

    def recognising(self, utterance: Utterance) -> None:
        """Take what begins."""
        self._began_s = time.perf_counter()
        self._recognitions.append(
            {
                "utterance": utterance.start_samples,  # not kept, see decided()
                "until_s": _seconds(utterance.end_samples),
                "at": utterance.end_reason,
                "outcome": "cancelled",
            }
        )

    def answered(self, answer: Answer) -> None:
        """Take how it ended; of what is answered already there is nothing new."""
        if self._recognitions and "spent_ms" not in (last := self._recognitions[-1]):
            last |= {
                "outcome": answer.decision.reason or "accepted",
                "spent_ms": self._spent_ms(),
                "text": answer.decision.meaning.text if answer.decision.meaning else None,
                "confidence": answer.decision.confidence,
                "outlook": answer.outlook,
            }

    def cancelled(self) -> None:
        """Take that speech has gone on."""
        if self._recognitions:
            self._recognitions[-1]["spent_ms"] = self._spent_ms()

    def decided(self, utterance: Utterance, answer: Answer, result: Result) -> None:
        """Take the end, and make the record."""
        with self._lock:
            track = [entry for entry in self._track if entry[0] >= utterance.start_samples]
        recognitions = [
            {name: value for name, value in each.items() if name != "utterance"}
            for each in self._recognitions
            if each["utterance"] == utterance.start_samples
        ]
        self._recognitions.clear()
        name = record_id(time.time_ns() // 1_000_000, result.utterance_id)
        samples = utterance.samples if self._config.records.audio else None
        fields = {
            "format": FORMAT,
            "id": name,
            "source": self._source,
            "result": result_fields(result, self._config.site),
            "utterance": _utterance(utterance),
            "track": {
                "start_s": _seconds(track[0][0] if track else utterance.start_samples),
                "frame_s": _FRAME_S,
                "level_dbfs": [round(entry[1], 1) for entry in track],
                "speech": [round(entry[2], 3) for entry in track],
            },
            "recognitions": recognitions,
            "decision": _decision(answer),
            **setting(self._config, self._recogniser),
        }
        given = self._recogniser.compiled.file.given
        self._keep(Record(name, fields, samples, dict(given) if samples is not None else {}))

    def _spent_ms(self) -> float:
        return (time.perf_counter() - self._began_s) * 1000


def setting(config: Config, recogniser: Recogniser) -> dict[str, Any]:
    """Return what a decision depends on, beside the sound."""
    compiled = recogniser.grammar.compiled
    return {
        "grammar": {
            "file": str(compiled.file.path),
            "digest": recogniser.grammar.digest,
            "intents": sorted(compiled.intents()),
            "lists": sorted(compiled.file.given),
        },
        "model": {"name": config.model.name, "sha256": _model_sha256(config.model.name)},
        "options": {
            "mode": config.recognition.mode,
            "min_confidence": recogniser.min_confidence,
            "beam": config.model.beam,
            "threads": config.model.thread_count,
            "language": recogniser.language,
        },
        "versions": {
            "edgevoice": __version__,
            "whisper_cpp": native.whisper_version(),
            "kernels": native.kernels(),
        },
    }


_model_sha256 = cache(models.sha256)
"""A model that is replaced while it runs is the old one to us."""


def _utterance(utterance: Utterance) -> dict[str, Any]:
    """All but the sound, positions in samples: from_record() makes the same of it."""
    fields = {
        field.name: getattr(utterance, field.name)
        for field in dataclasses.fields(utterance)
        if field.name not in ("samples", "speech_end_clock_s")
    }
    # What is louder than full scale has no place in a FLAC file.
    return fields | {"exact": bool(np.abs(utterance.samples).max(initial=0.0) < 1.0)}


def utterance_of(record: Record) -> Utterance | None:
    """Return what was recognised; None: the record has no sound.

    Raises:
        TypeError: it is no record of ours.
    """
    if record.samples is None:
        return None
    fields = {name: value for name, value in record.fields["utterance"].items() if name != "exact"}
    return Utterance(samples=record.samples, **fields)


def _decision(answer: Answer) -> dict[str, Any]:
    decision = answer.decision
    meanings = ([decision.meaning] if decision.meaning else []) + list(decision.alternatives)
    return {
        "meanings": [
            {"text": each.text, "intent": each.intent, "slots": each.slots, "score": each.score}
            for each in meanings
        ],
        "evidence": dataclasses.asdict(decision.evidence) if decision.evidence else None,
        "confidence": decision.confidence,
        "reason": decision.reason,
        "outlook": answer.outlook,
    }


def _seconds(samples: int) -> float:
    return samples / SAMPLE_RATE_HZ
