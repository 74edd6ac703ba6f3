"""What is heard now, and what became of the last utterances, for who looks.

    the pipeline's threads -> Live <- web_app.py, ten times a second while somebody looks

The pipeline only puts things here; what is made of them is made in the server's thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

from edgevoice import records
from edgevoice.errors import UsageError
from edgevoice.levels import Meter
from edgevoice.pipeline import Watcher
from edgevoice.reasons import REASONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgevoice.config import Config
    from edgevoice.events import Reason, ScoredFrame, Utterance
    from edgevoice.publish import State
    from edgevoice.recognise import Answer
    from edgevoice.records import Record

REMEMBERED: Final = 20
"""Utterances of this run, without their sound, at some 30 kB each."""

PAGE: Final = 20
"""Utterances told at once."""

_STALE_S: Final = 1.0  # 30 frames: then nothing is heard


class Live(Watcher):
    """What is known now.

    Args:
        config: says whether there is a microphone.
    """

    def __init__(self, config: Config) -> None:
        self.count = 0
        """Utterances so far; another number: there is something new."""
        self._state: State | None = None
        self._serving = not config.audio.enabled
        self._meter = Meter()
        self._speech = 0.0
        self._heard_s = 0.0
        self._partial: Answer | None = None
        self.on_speech: Callable[[], None] = lambda: None
        """Told when somebody begins to speak, and before each recognition."""
        self._lock = threading.Lock()  # guards what follows
        self._records: deque[Record] = deque(maxlen=REMEMBERED)

    # ---- in the pipeline's threads ----

    def tell(self, state: State) -> None:
        """Take the state."""
        self._state = state
        if state == "listening":
            self._partial = None
        elif state == "speech":
            self.on_speech()

    def recognising(self, utterance: Utterance) -> None:  # noqa: ARG002 - as any watcher
        """Take what begins."""
        self.on_speech()

    def scored(self, scored: ScoredFrame) -> None:
        """Take a frame."""
        self._meter.push(scored.frame.samples)
        self._speech = scored.speech_probability
        self._heard_s = time.monotonic()

    def answered(self, answer: Answer) -> None:
        """Take what may have been said so far."""
        self._partial = answer

    def keep(self, record: Record) -> None:
        """Take what became of an utterance."""
        with self._lock:
            self._records.append(replace(record, samples=None))
        self.count += 1

    # ---- in the server's ----

    @property
    def busy(self) -> bool:
        """Whether somebody is speaking, or what was said is being recognised."""
        return self._state in ("speech", "recognising")

    def now(self) -> dict[str, Any]:
        """Return what is heard, as JSON values; levels in dB of full scale, None when nothing is."""
        heard = time.monotonic() - self._heard_s < _STALE_S and self._state not in ("muted", "lost")
        idle: State | Literal["serving", "starting"] = "serving" if self._serving else "starting"
        state = idle if self._serving and not heard else self._state or ("listening" if heard else idle)
        partial = self._partial
        meaning = partial.decision.meaning if partial else None
        return {
            "state": state,
            "level_dbfs": round(self._meter.rms_dbfs, 1) if heard else None,
            "peak_dbfs": round(self._meter.peak_dbfs, 1) if heard else None,
            "speech": round(self._speech, 3) if heard else None,
            "partial": meaning.text if meaning and state != "listening" else None,
        }

    def records(self) -> list[Record]:
        """Return the last utterances of this run, oldest first."""
        with self._lock:
            return list(self._records)


class Utterances:
    """The last utterances, those of this run and those that are kept; it reads files, so it takes its time.

    Args:
        config: where they are kept.
        live: has those of this run.
    """

    def __init__(self, config: Config, live: Live) -> None:
        self._folders = list(records.places(config.records)) if config.records.keep else []
        self._live = live

    def page(self, before: str | None) -> tuple[list[dict[str, Any]], bool]:
        """Return some utterances, newest first, in short, and whether there are older ones.

        Args:
            before: an id: only those that are older.
        """
        remembered = {each.record_id: each.fields for each in self._live.records()}
        ids = set(remembered).union(*(folder.ids(labelled=True) for folder in self._folders))
        wanted = sorted((each for each in ids if before is None or each < before), reverse=True)
        found = [self.find(each) for each in wanted[:PAGE]]
        return [short(each) for each in found if each is not None], len(wanted) > PAGE

    def find(self, record_id: str) -> dict[str, Any] | None:
        """Return all that is known of an utterance but its sound; None: nothing (any longer)."""
        for folder in self._folders:
            try:
                fields = records.read_fields(folder.json_of(record_id))
            except UsageError:  # it has made room, or is still to be written
                continue
            return _told(fields, sound=self.sound(record_id) is not None)
        for each in self._live.records():
            if each.record_id == record_id:
                return _told(each.fields, sound=False)
        return None

    def sound(self, record_id: str) -> Path | None:
        """Return the file of its sound (FLAC), if that is kept."""
        paths = (folder.json_of(record_id).with_suffix(".flac") for folder in self._folders)
        return next((path for path in paths if path.is_file()), None)


def short(fields: dict[str, Any]) -> dict[str, Any]:
    """Return what a list says of an utterance."""
    result = fields["result"]
    names = ("time", "text", "heard", "intent", "slots", "confidence", "accepted", "reason", "latency_ms")
    return {
        "id": fields["id"],
        **{name: result[name] for name in names},
        "label": fields.get("label"),
        "trial": fields.get("trial", False),
        "words": fields["words"],
    }


def _told(fields: dict[str, Any], *, sound: bool) -> dict[str, Any]:
    return fields | {"sound": sound, "words": words_of(fields["result"]["reason"])}


def words_of(reason: Reason | None) -> dict[str, str] | None:
    """Return the words for people of a reason, if there is one."""
    words = REASONS.get(reason) if reason else None
    return {"short": words.short, "meaning": words.meaning, "remedy": words.remedy} if words else None
