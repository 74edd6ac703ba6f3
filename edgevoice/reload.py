"""A new grammar while the service runs: read and compiled beside it, taken between two commands.

the file has changed, SIGHUP, set/reload, set/grammar, set/lists/<name> -> compiled in a thread of its own
    -> the recogniser takes it with the next command, or
    -> it is wrong: the one before goes on, and the log and the topic `grammar` say where
retained set/lists/<name>, set/intents that do not fit the grammar -> kept, tried again with each grammar
"""

from __future__ import annotations

import json
import logging
import threading
import time
from datetime import datetime
from typing import TYPE_CHECKING, Final

from edgevoice import grammar_file, native
from edgevoice.commands import INTENTS, LIST
from edgevoice.errors import EdgevoiceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgevoice.recognise import Decoding, Recogniser

_log = logging.getLogger(__name__)

WATCH_S: Final = 2.0
"""Between two looks at the file: soon enough for who edits it, and seldom enough to cost nothing."""

MAX_NAME_BYTES: Final = 1_000
"""Of a name that comes over MQTT: a few words, and no more of it is looked at."""

MAX_LIST_BYTES: Final = 1_000_000
"""Of a list that comes over MQTT: 2,000 devices with their contexts need 200,000."""

MAX_KEPT: Final = 64
"""Retained messages that may fit another grammar; a house has some ten lists. All together they may be as
long as one list."""

_CLOSE_S: Final = 0.3  # who ends waits no longer for a grammar that is being compiled, which nobody gets then


class Reloader:
    """Keeps the grammar of a recogniser as it should be.

    Args:
        recogniser: whose file is watched.
        tell: given the fields of the topic `grammar`, now and at each change, in any thread.
        others: with the same grammar.
        choices: other files that can take its place, by name.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        tell: Callable[[dict[str, object]], None] = lambda _: None,
        *others: Recogniser,
        choices: Mapping[str, Path] | None = None,
    ) -> None:
        self._recognisers = (recogniser, *others)
        self._tell = tell
        self._path = self._used = recogniser.grammar_path  # what is wanted, and what could be used
        self._choices = dict(choices or {})
        if self._path not in self._choices.values():
            name = next(
                each
                for each in (self._path.stem, self._path.name, str(self._path))
                if each not in self._choices
            )
            self._choices = {name: self._path, **self._choices}
        self._loaded = _now()
        self._changed = threading.Condition()  # guards what follows
        self._lists: dict[str, object] = {}  # values in place of the file's
        self._only: list[str] | None = None
        self._kept: dict[str, bytes] = {}  # retained messages that the grammar in use has no place for
        self._waiting: list[Callable[[], None]] = []  # told when a reading that is to begin has ended
        self._error: str | None = None
        self._due = self._closed = False
        self._file = recogniser.grammar.compiled.file
        self._seen = self._signature()
        self._report()
        self._thread = threading.Thread(target=self._run, name="edgevoice-reload", daemon=True)
        self._thread.start()

    def reload(self, done: Callable[[], None] = lambda: None) -> None:
        """Read the file again, soon; also in a signal's handler, as the lock may be taken twice.

        Args:
            done: told, in any thread, when a reading that began after this has ended, in whatever way.
        """
        with self._changed:
            self._due = True
            self._waiting.append(done)
            self._changed.notify_all()

    def set_list(self, name: str, payload: bytes, *, retained: bool = False) -> None:
        """Put values in place of a list's own; an empty payload gives these back.

        Args:
            name: of the list.
            payload: JSON.
            retained: whoever sent it does not wait for an answer; what fits another grammar is kept for that.

        Raises:
            UsageError: it is no JSON list of values, or the grammar has no such list.
        """
        with self._changed:
            known = self._file.lists
            if name not in known:
                later = self._keep(f"{LIST}{name}", payload, retained=retained)
                raise UsageError(
                    f"the grammar has no list {name[:60]!r}; "
                    f"its lists are {', '.join(known) or 'none'}{later}"
                )
            self._kept.pop(f"{LIST}{name}", None)
        values = _list(name, payload) if payload.strip() else None
        with self._changed:
            if values is not None:
                self._lists[name] = values
            elif self._lists.pop(name, None) is None:
                return
            self._due = True
            self._changed.notify_all()

    def choose(self, payload: bytes) -> None:
        """Use the grammar of another file, of which the name is given, as soon as it is compiled.

        Nothing is the name of the one of the beginning.

        Raises:
            UsageError: there is no such name.
        """
        name = payload[:MAX_NAME_BYTES].decode("utf-8", "replace")
        if name and name not in self._choices:
            raise UsageError(
                f"grammar: {name[:60]!r} seen; allowed are {', '.join(self._choices)}; "
                "add others to grammar.choices"
            )
        path = self._choices[name] if name else self._recognisers[0].grammar_path
        with self._changed:
            if self._path == path:  # as when a retained message comes again
                return
            self._path = path
            self._due = True
            self._changed.notify_all()

    def set_intents(self, payload: bytes, *, retained: bool = False) -> None:
        """Let only some intents be said, from the next command on; an empty payload lets all again.

        Args:
            payload: JSON.
            retained: as for set_list().

        Raises:
            UsageError: it is no JSON list of names, or the grammar has no such intent.
        """
        names = _json("intents", payload) if payload.strip() else None
        if names is not None and (
            not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names)
        ):
            raise UsageError('intents: send a list of names, such as ["HassTurnOn"], or nothing for all')
        with self._changed:
            known = self._file.intents
            if unknown := [name for name in names or () if name not in known]:
                later = self._keep(INTENTS, payload, retained=retained)
                raise UsageError(
                    f"the grammar has no intent {unknown[0][:60]!r}; it has {', '.join(known)}{later}"
                )
            self._kept.pop(INTENTS, None)
        for recogniser in self._recognisers:
            recogniser.active.choose(names)
        with self._changed:
            self._only = names
        self._report()

    def _keep(self, what: str, payload: bytes, *, retained: bool) -> str:
        """Keep a retained message for another grammar, and return words for it; call with the lock held."""
        self._kept.pop(what, None)  # it is over, whatever this one is
        if not retained or not payload.strip() or len(payload) > MAX_LIST_BYTES:
            return ""
        self._kept[what] = payload
        while len(self._kept) > MAX_KEPT or sum(map(len, self._kept.values())) > MAX_LIST_BYTES:
            self._kept.pop(next(iter(self._kept)))
        return "; kept for a grammar that has it"

    @property
    def path(self) -> Path:
        """The file that is wanted; what is in it may be wrong."""
        return self._path

    def state(self) -> dict[str, object]:
        """Return the fields of the topic `grammar`."""
        file = self._file
        return {
            "name": next(name for name in self._choices if self._choices[name] == self._used),
            "names": list(self._choices),
            "file": self._used.name,
            "language": file.language,
            "intents": list(file.intents),
            "only": self._only,
            "lists": sorted(self._lists),
            "loaded": self._loaded,
            "error": self._error,
        }

    def close(self) -> None:
        """Stop watching. A grammar that is still being compiled then changes nothing, and nobody is told."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(_CLOSE_S)

    # ---- in the thread ----

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._due or self._closed, WATCH_S)
                if self._closed:
                    return
                seen = self._signature()
                due = self._due or seen != self._seen
                self._due, self._seen = False, seen
                waiting, self._waiting = self._waiting, []
                path, lists = self._path, dict(self._lists)
            if due:
                self._renew(path, lists)
                native.give_back_memory()  # what compiling it took
            for done in waiting:
                done()

    def _renew(self, path: Path, lists: dict[str, object]) -> None:
        started_s = time.monotonic()
        prepared: list[Decoding] = []
        try:
            file = self._recognisers[0].load(path)
            for name in lists.keys() - file.lists.keys():
                _log.warning("the grammar has no list %r any more; what was set for it is not used", name)
            listed = grammar_file.with_lists(file, lists)
            for recogniser in self._recognisers:  # a list made in one go would lose those before a failure
                prepared.append(recogniser.prepare(listed))  # noqa: PERF401
        except (EdgevoiceError, MemoryError) as problem:
            for decoding in prepared:
                decoding.close()
            self._error = str(problem) or "not enough memory; make the grammar smaller"
            if not self._closed:
                _log.error("the grammar stays as it was: %s", self._error)
                self._report()
            return
        with self._changed:
            if not self._closed:
                for recogniser, decoding in zip(self._recognisers, prepared, strict=True):
                    recogniser.use(decoding)
                prepared = []
                self._file, self._used = file, path
                self._loaded, self._error = _now(), None
        for decoding in prepared:  # nobody wants them any more
            decoding.close()
        if not self._closed:
            _log.info("%s is in use, after %.2f s", path, time.monotonic() - started_s)
            self._report()
            self._try_kept()

    def _try_kept(self) -> None:
        """Take what was retained and has a place now; the rest waits on."""
        with self._changed:
            kept = dict(self._kept)
            lists, intents = self._file.lists, self._file.intents
        for what, payload in kept.items():
            try:
                if what == INTENTS:
                    if set(json.loads(payload)) <= set(intents):
                        self.set_intents(payload, retained=True)
                elif what.removeprefix(LIST) in lists:
                    self.set_list(what.removeprefix(LIST), payload, retained=True)
            except UsageError as error:
                _log.warning("a command was not carried out: %s", error)

    def _signature(self) -> tuple[int, int, int] | None:
        """Return what tells one state of the file from another; None without the file."""
        try:
            state = self._path.stat()
        except OSError:
            return None
        return state.st_mtime_ns, state.st_size, state.st_ino

    def _report(self) -> None:
        self._tell(self.state())


def _list(name: str, payload: bytes) -> object:
    """Return the values of a list; they can be used."""
    values = _json(f"list {name!r}", payload)
    try:
        grammar_file.read_list(name, values)
    except EdgevoiceError as error:
        raise UsageError(str(error)) from None
    return values


def _json(what: str, payload: bytes) -> object:
    if len(payload) > MAX_LIST_BYTES:
        raise UsageError(f"{what}: {len(payload)} bytes seen; allowed are {MAX_LIST_BYTES}")
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f'{what}: no JSON ({str(error)[:80]}); send a list, such as ["kitchen", "hall"]'
        ) from None


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
