"""One engine for many: who waits goes first, guesses give way, and nobody is forgotten."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from edgevoice.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

LONG_S = 10.0  # for a busy machine


class Engine:
    """Does one thing at a time, for as long as it is told, and notes in which order."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self._cancelled = threading.Event()
        self.goes_on = threading.Event()
        self.goes_on.set()

    def cancel(self) -> None:
        """End what is being done."""
        self._cancelled.set()

    def work(self, name: str) -> Callable[[], str | None]:
        """Something that ends when `goes_on` is set, or is cancelled."""

        def do() -> str | None:
            self._cancelled.clear()
            self.begun.append(name)
            while not self.goes_on.wait(0.001):
                if self._cancelled.is_set():
                    return None
            self.ended.append(name)
            return name.upper()

        return do

    async def begins(self, count: int) -> None:
        """Wait until so many things were begun."""
        async with asyncio.timeout(LONG_S):
            while len(self.begun) < count:  # noqa: ASYNC110 - another thread adds to it
                await asyncio.sleep(0.001)


def run(test: Callable[[Engine, Turns], Coroutine[None, None, None]]) -> None:
    async def with_turns() -> None:
        engine = Engine()
        turns = Turns(engine.cancel)
        async with asyncio.timeout(LONG_S):
            await test(engine, turns)
            await turns.close()

    asyncio.run(with_turns())


def test_order_of_arrival() -> None:
    """Who came first is answered first."""

    async def test(engine: Engine, turns: Turns) -> None:
        jobs = [turns.answer(engine.work(name)) for name in "abc"]
        assert [await job.done for job in jobs] == ["A", "B", "C"]
        assert engine.begun == ["a", "b", "c"]

    run(test)


def test_guess_gives_way_and_has_its_turn_again() -> None:
    """An answer does not wait for a guess, which is made anew afterwards."""

    async def test(engine: Engine, turns: Turns) -> None:
        engine.goes_on.clear()
        guess = turns.guess(engine.work("guess"))
        await engine.begins(1)
        answer = turns.answer(engine.work("answer"))
        await engine.begins(2)
        engine.goes_on.set()
        assert await answer.done == "ANSWER"
        assert await guess.done == "GUESS"
        assert engine.begun == ["guess", "answer", "guess"]

    run(test)


def test_wanted_guess_goes_on() -> None:
    """A guess that turns out to be the answer is not begun again, and goes before other guesses."""

    async def test(engine: Engine, turns: Turns) -> None:
        engine.goes_on.clear()
        first = turns.guess(engine.work("first"))
        await engine.begins(1)
        turns.want(first)
        second, third = turns.guess(engine.work("second")), turns.guess(engine.work("third"))
        turns.want(third)
        engine.goes_on.set()
        assert [await job.done for job in (first, second, third)] == ["FIRST", "SECOND", "THIRD"]
        assert engine.begun == ["first", "third", "second"]

    run(test)


def test_dropped() -> None:
    """What nobody wants any more is not done, and ends if it had begun."""

    async def test(engine: Engine, turns: Turns) -> None:
        engine.goes_on.clear()
        running, waiting = turns.answer(engine.work("running")), turns.answer(engine.work("waiting"))
        await engine.begins(1)
        turns.drop(waiting)
        turns.drop(running)
        last = turns.answer(engine.work("last"))
        await engine.begins(2)
        engine.goes_on.set()
        assert await last.done == "LAST"
        assert engine.ended == ["last"]

    run(test)


def test_errors_reach_who_waits() -> None:
    """What fails is told to who asked, and the next has its turn."""

    async def test(engine: Engine, turns: Turns) -> None:
        def fail() -> str:
            raise RuntimeError("broken")

        failing, fine = turns.answer(fail), turns.answer(engine.work("fine"))
        with pytest.raises(RuntimeError, match="broken"):
            await failing.done
        assert await fine.done == "FINE"

    run(test)


def test_close_ends_what_runs() -> None:
    """Afterwards the engine is idle, and who waits is told."""

    async def test(engine: Engine, turns: Turns) -> None:
        engine.goes_on.clear()
        jobs = [turns.answer(engine.work(name)) for name in ("running", "waiting")]
        await engine.begins(1)
        await turns.close()
        assert all(job.done.cancelled() for job in jobs)
        assert engine.ended == []

    run(test)
