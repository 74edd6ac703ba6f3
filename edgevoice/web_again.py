"""Records on the page: run again with the grammar in use, and labelled.

a record ──> a session of its own, while nobody speaks ──> what has changed
└── as soon as somebody does, it gives way
a sentence that was meant ──> its meaning ──> the record's label, as by `edgevoice records label`
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgevoice import native, records
from edgevoice.errors import EngineBusyError, UsageError
from edgevoice.recognise import Recogniser
from edgevoice.replay import replay
from edgevoice.web_check import meaning
from edgevoice.web_grammar import BusyError
from edgevoice.web_live import words_of

if TYPE_CHECKING:
    from edgevoice.commands import Commands
    from edgevoice.config import Config
    from edgevoice.events import Interpretation
    from edgevoice.records import Folder, Record
    from edgevoice.web_live import Live


class Shelf:
    """The records that are kept.

    Args:
        config: where they are, and how to recognise.
        live: tells when somebody speaks.
        commands: have the recogniser.
    """

    def __init__(self, config: Config, live: Live, commands: Commands) -> None:
        self._config = config
        self._live = live
        self._commands = commands
        self._lock = threading.Lock()  # guards what follows
        self._twin: Recogniser | None = None
        self._gives_way = self._closed = False
        live.on_speech = self._give_way

    def label(self, record_id: str, meant: Interpretation | None) -> dict[str, Any]:
        """Say what was meant by a record; None: no command. Return its label.

        Raises:
            UsageError: there is no such record with sound.
        """
        label: dict[str, Any] = meaning(meant) if meant else {"intent": None, "slots": {}}
        self._place(record_id).label(record_id, label["intent"], label["slots"])
        return label

    def again(self, record_id: str) -> dict[str, Any]:
        """Run a record again, in a thread that does nothing else, and return what has changed as JSON.

        Raises:
            BusyError: somebody speaks, or began to.
            UsageError: there is no such record with sound.
        """
        record = self._place(record_id).read(record_id)
        recogniser = self._commands.recogniser
        if recogniser is None:
            raise UsageError("nothing is listening yet; try again")
        with contextlib.suppress(OSError):  # go last: this thread, and those that it begins to compute with
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        with self._lock:
            self._gives_way = self._closed
        busy = BusyError("somebody is speaking; try again when it is quiet")
        if self._live.busy or recogniser.busy_since_s is not None:
            raise busy
        try:
            return self._run(record, recogniser)
        except EngineBusyError:
            raise BusyError("the model is in use elsewhere; try again") from None
        except UsageError:
            if self._gives_way:
                raise busy from None
            raise
        finally:
            native.give_back_memory()

    def _run(self, record: Record, recogniser: Recogniser) -> dict[str, Any]:
        twin = Recogniser(self._config, model=recogniser.model, file=recogniser.compiled.file)
        try:
            twin.min_confidence = recogniser.min_confidence
            with self._lock:
                if self._gives_way:
                    raise UsageError
                self._twin = twin
            found = replay(record, twin, self._config)
        finally:
            with self._lock:
                self._twin = None
            twin.close()
        return {
            **asdict(found),
            "same": found.same,
            "tells_the_same": found.tells_the_same,
            "right": found.right,
            "words": words_of(found.after["reason"]),
        }

    def _give_way(self) -> None:
        """End what runs, in any thread."""
        with self._lock:
            self._gives_way = True
            if self._twin is not None:
                self._twin.cancel()

    def close(self) -> None:
        """Begin nothing more, and end what runs."""
        self._closed = True
        self._give_way()

    def _place(self, record_id: str) -> Folder:
        if not self._config.records.keep:
            raise UsageError("no records are kept; set records.keep, such as to 200")
        for folder in records.places(self._config.records):
            if folder.json_of(record_id).exists():
                return folder
        raise UsageError("there is no such record (any longer), or it is still being written")
