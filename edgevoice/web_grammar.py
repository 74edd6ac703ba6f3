"""The grammar's file on the page: read, checked while somebody writes, saved.

    text ──> web_check.py, a process of its own ──> what is wrong in it, what it means, sentences
    text ──> checked ──> the file is still what was read? ──> written, the old one as .bak ──> reload.py

Which file that is decides the configuration, and whoever chooses among grammar.choices; the page has no say.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from edgevoice import grammar_writer
from edgevoice.config import read_regular_file
from edgevoice.errors import ConfigError, UsageError
from edgevoice.recognise import shipped_grammars

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from edgevoice.commands import Commands
    from edgevoice.config import Config
    from edgevoice.reload import Reloader

MAX_GRAMMAR_BYTES: Final = 262_144
"""Of a grammar that is written in the page: a home with 2,000 names has some 100,000, and where there is more
nobody writes it by hand."""

CHECK_S: Final = 10.0
"""For a check; the grammars that come with edgevoice take 0.8 s of x86-64, half of it to start, and with
2,000 more names 2.3 s."""

_MAX_ANSWER_BYTES: Final = 1_000_000  # of a check; its parts are bounded, and together have some 200,000
_WAIT_S: Final = 5.0  # for the check before to end
_MAX_WAITING: Final = 4  # checks; a page sends the next when it has the answer to the last
_RELOAD_S: Final = 60.0  # for a grammar to be in use: the largest takes 10 s on a small board


class BusyError(UsageError):
    """What is asked for needs what is in use."""


class ChangedError(UsageError):
    """What is to be replaced is not what it was."""


class ReadOnlyError(UsageError):
    """The page may not write this."""


class RefusedError(UsageError):
    """A grammar that cannot be used is not saved.

    Args:
        text: of the error.
        answer: of the check.
    """

    def __init__(self, text: str, answer: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.answer = dict(answer or {})


class Editor:
    """Reads, checks and writes the file of the grammar in use.

    Args:
        config: says whether it may be written, and what is known before anything is said.
        commands: have the grammar.
    """

    def __init__(self, config: Config, commands: Commands) -> None:
        self._config = config
        self._commands = commands
        self._checking = asyncio.Lock()
        self._waiting = 0

    def read(self) -> dict[str, Any]:
        """Return the file, and whether it can be written here, as JSON values.

        Raises:
            UsageError: nothing is listening yet.
        """
        reloader = self._reloader()
        path = reloader.path
        told: dict[str, Any] = {"path": str(path), "state": reloader.state(), "text": None, "digest": None}
        try:
            data = read_regular_file(path, MAX_GRAMMAR_BYTES + 1)
            if len(data) > MAX_GRAMMAR_BYTES:
                return told | {"read_only": f"it is larger than {MAX_GRAMMAR_BYTES} bytes; use an editor"}
            told |= {"text": data.decode("utf-8"), "digest": _digest(data)}
        except OSError as error:
            return told | {"read_only": f"it cannot be read ({error.strerror})"}
        except UnicodeDecodeError:
            return told | {"read_only": "it is no UTF-8 text; save it as such"}
        return told | {"read_only": self._why_read_only(path)}

    def _why_read_only(self, path: Path) -> str | None:
        if not self._config.web.edit:
            return "the page may not write it; to allow that, set `web.edit: true`"
        if path in shipped_grammars().values():
            return (
                "it comes with edgevoice, and the next version replaces it; copy it, and name the copy in "
                "`grammar.file`"
            )
        folder = path.resolve().parent
        if not os.access(folder, os.W_OK):
            return f"the user of the service cannot write in {folder}; put the grammar where it can"
        return None

    async def check(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is known of a grammar that is being written; see web_check.answers().

        Raises:
            BusyError: others have theirs checked.
        """
        busy = BusyError("others have their grammars checked; try again in some seconds")
        if self._waiting >= _MAX_WAITING:
            raise busy
        self._waiting += 1
        try:
            async with asyncio.timeout(_WAIT_S):
                await self._checking.acquire()
        except TimeoutError:
            raise busy from None
        finally:
            self._waiting -= 1
        try:
            context = dict(self._config.grammar.context)
            answer = await _ask({"name": "grammar", "context": context, **question})
        finally:
            self._checking.release()
        recogniser = self._commands.recogniser
        if answer["compiled"] and recogniser is not None:
            try:
                recogniser.language_for(answer["language"])
            except (ConfigError, UsageError) as error:
                answer |= {"compiled": False, "findings": [_error(str(error)), *answer["findings"]]}
        return answer

    async def save(self, text: str, digest: str, in_thread: Callable[..., Awaitable[Any]]) -> dict[str, Any]:
        """Write the file, and return what read() does once it is used, with what the check found.

        Args:
            text: what is to be in it.
            digest: of what was in it when it was read.
            in_thread: runs what may wait for the disk.

        Raises:
            ReadOnlyError: it may not be written.
            RefusedError: it cannot be used.
            ChangedError: it is another file, or somebody else has changed it.
            BusyError: others have theirs checked.
            CheckFailedError: the disk does not take it.
        """
        path = self._reloader().path
        self._see_that_it_may(path)
        answer = await self.check({"text": text})
        if not answer["compiled"]:
            raise RefusedError("with these errors it cannot be used, and is not saved", answer)
        await in_thread(self._write, path, text, digest)
        loaded = asyncio.Event()
        loop = asyncio.get_running_loop()

        def done() -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(loaded.set)

        self._reloader().reload(done)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(loaded.wait(), _RELOAD_S)
        told: dict[str, Any] = await in_thread(self.read)
        return {**answer, **told}

    def _write(self, path: Path, text: str, digest: str) -> None:
        self._see_that_it_may(path)
        try:
            now = _digest(read_regular_file(path, MAX_GRAMMAR_BYTES + 1))
        except OSError as error:
            raise ChangedError(f"{path.name} cannot be read any more ({error.strerror})") from None
        if path != self._reloader().path or now != digest:
            raise ChangedError(
                f"{path.name} is not what it was when you began: somebody else has changed it, or another "
                "grammar is in use; keep a copy of your text, and load the page again"
            )
        grammar_writer.rewrite(text, path)

    def _see_that_it_may(self, path: Path) -> None:
        if why := self._why_read_only(path):
            raise ReadOnlyError(f"{path.name} is not written: {why}")

    def _reloader(self) -> Reloader:
        if self._commands.reloader is None:
            raise UsageError("nothing is listening yet; try again")
        return self._commands.reloader


async def _ask(question: Mapping[str, Any]) -> dict[str, Any]:
    """Have a grammar looked at by a process of its own, and return what it said in time."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "edgevoice.web_check"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # others take room for threads that it needs not
        limit=_MAX_ANSWER_BYTES,
    )
    answer: dict[str, Any] = {"findings": [], "whole": False}
    try:
        async with asyncio.timeout(CHECK_S):
            await _speak(child, question, answer)
    except (TimeoutError, ValueError):  # ValueError: a line is too long, or ends in its middle
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
    if "compiled" not in answer:
        why = _error(f"it takes longer than {CHECK_S:g} s, or more memory than there is; make it smaller")
        answer |= {"compiled": False, "findings": answer["findings"] or [why]}
    return answer


async def _speak(
    child: asyncio.subprocess.Process, question: Mapping[str, Any], answer: dict[str, Any]
) -> None:
    if child.stdin is None or child.stdout is None:  # they are pipes
        raise ValueError
    with contextlib.suppress(ConnectionError):  # it has ended before it has read all
        child.stdin.write(json.dumps(question).encode())
        await child.stdin.drain()
    child.stdin.close()
    while line := await child.stdout.readline():
        answer |= json.loads(line)


def _error(text: str) -> dict[str, Any]:
    return {"level": "error", "line": 1, "column": 1, "text": text}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
