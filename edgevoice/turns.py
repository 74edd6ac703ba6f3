"""Turns: one engine for many, in the order in which they came.

    client ── guess() or answer() ──> Job ── its turn ──> a thread of the engine's own ──> client

An answer that somebody waits for goes before guesses at pauses, and cancels the one that runs: it has its
turn again afterwards. Each client has one guess at most, and asks for an answer only when it has the one
before. So what waits is bounded by their number, and nobody waits for more than one answer of each other.

All of this but the work itself happens on the event loop, and needs no lock.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Answer = TypeVar("_Answer")
_CANCEL_S: Final = 0.01  # the engine looks between two steps, of some milliseconds


class Job(Generic[_Answer]):
    """Something for the engine to do.

    Args:
        work: does it in the engine's thread; None if it was cancelled there.
        wanted: somebody waits for it.
    """

    def __init__(self, work: Callable[[], _Answer | None], *, wanted: bool) -> None:
        self.work = work
        self.wanted = wanted
        self.done: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        """Cancelled when nobody wants it any more."""


class Turns:
    """The queue before the engine. To be made on the event loop.

    Args:
        cancel: ends what the engine does, from any thread.
    """

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self._waiting: list[Job[object]] = []  # in order of arrival
        self._running: Job[object] | None = None
        self._thread = ThreadPoolExecutor(1, "edgevoice-wyoming-engine")
        self._news = asyncio.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._task = asyncio.create_task(self._run())

    def guess(self, work: Callable[[], _Answer | None]) -> Job[_Answer]:
        """Have something done that may be wanted later."""
        return self._add(Job(work, wanted=False))

    def answer(self, work: Callable[[], _Answer | None]) -> Job[_Answer]:
        """Have something done that somebody waits for."""
        job = self._add(Job(work, wanted=True))
        self._give_way()
        return job

    def want(self, job: Job[_Answer]) -> None:
        """Say that somebody waits for a guess now."""
        if not job.wanted and not job.done.done():
            job.wanted = True
            self._give_way(job)

    def drop(self, job: Job[_Answer]) -> None:
        """Say that nobody wants it any more."""
        if not job.done.done():
            job.done.cancel()
            if self._running is job:
                self._cancel()

    async def close(self) -> None:
        """End what runs, and refuse the rest."""
        self._task.cancel()
        for job in [*self._waiting, *filter(None, [self._running])]:
            job.done.cancel()
        self._cancel()
        # What begins just now would not have noticed.
        while not self._idle.is_set():
            self._cancel()
            await asyncio.sleep(_CANCEL_S)
        self._thread.shutdown()

    def _add(self, job: Job[_Answer]) -> Job[_Answer]:
        self._waiting.append(job)  # type: ignore[arg-type]  # what it answers is between it and who asked
        self._news.set()
        return job

    def _give_way(self, to: object = None) -> None:
        """Cancel a guess that runs while somebody waits."""
        if self._running is not None and self._running is not to and not self._running.wanted:
            self._cancel()

    def _work(self, job: Job[object]) -> object:
        try:
            return job.work()
        finally:
            self._idle.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._waiting = [job for job in self._waiting if not job.done.done()]
            if not self._waiting:
                self._news.clear()
                await self._news.wait()
                continue
            job = next((job for job in self._waiting if job.wanted), self._waiting[0])
            self._waiting.remove(job)
            self._running = job
            self._idle.clear()  # until the thread, which may not have begun yet, has done it
            try:
                answer = await loop.run_in_executor(self._thread, self._work, job)
            except Exception as error:  # noqa: BLE001 - whoever waits is told
                if not job.done.done():
                    job.done.set_exception(error)
            else:
                if answer is None and not job.done.done():
                    self._waiting.insert(0, job)  # it gave way to another
                elif not job.done.done():
                    job.done.set_result(answer)
            finally:
                self._running = None
