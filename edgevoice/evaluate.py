"""Measuring: every recording under every condition through the pipeline a user runs, in processes of its own.

The way of one recording:

1. plan() makes a Task of each recording and condition, in a fixed order.
2. measure() hands the tasks of one model to worker processes, a few ahead, so that stopping is quick.
3. A worker keeps the pipeline of the last grammar, mixes what the condition asks for, chosen by a generator
   that depends only on seed, condition and recording, and returns an Outcome.
4. Outcomes come back in the order of the tasks, whatever the number of workers. scores.py counts them.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml

from edgevoice import mixing
from edgevoice.audio import frames, read_audio
from edgevoice.capture import FileSource
from edgevoice.errors import AudioFormatError, EdgevoiceError, InferenceError, NativeError, UsageError
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame, Samples
from edgevoice.pipeline import Pipeline
from edgevoice.publish import result_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from edgevoice.config import Config
    from edgevoice.recordings import Recording

Kind = Literal["order", "negative", "near_miss"]

_AHEAD: Final = 2  # tasks given to each worker: one to do and one to begin without waiting


@dataclass(frozen=True, slots=True)
class Condition:
    """What is done to a recording before it is heard."""

    name: str = "clean"
    noise: str | None = None
    """Label of the noise."""

    snr_db: float | None = None
    clips: tuple[Path, ...] = ()
    """The recordings of the noise, or the rooms when there is no noise."""


CLEAN: Final = Condition()


@dataclass(frozen=True, slots=True)
class Task:
    """One recording to hear."""

    kind: Kind
    recording: Recording
    condition: Condition
    grammar: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out of a task."""

    results: tuple[dict[str, Any], ...]
    """As `edgevoice recognize --json` prints them."""

    duration_s: float
    """Of the recording."""

    spent_s: float
    """Wall time of the pipeline, without mixing."""

    peak_memory_bytes: int
    """The most the worker has held so far."""

    error: str | None = None
    """Why there are no results."""

    exit_code: int = 0


def conditions(
    noises: dict[str, tuple[Path, ...]], snrs_db: Sequence[float], rooms: tuple[Path, ...]
) -> list[Condition]:
    """Clean first, then far field, then every noise at every ratio.

    Raises:
        EdgevoiceError: a noise or room cannot be read or is silent.
    """
    for clip in [*rooms, *(clip for clips in noises.values() for clip in clips)]:
        if not read_audio(clip).any():
            raise AudioFormatError(f"{clip} is silent; it is no noise and no room")
    far = [Condition("far field", clips=rooms)] if rooms else []
    noisy = [
        Condition(f"{noise} {snr_db:g} dB", noise, snr_db, clips)
        for noise, clips in noises.items()
        for snr_db in snrs_db
    ]
    return [CLEAN, *far, *noisy]


def plan(
    orders: Iterable[Recording],
    negatives: Iterable[Recording],
    chosen: Iterable[Condition],
    grammar: Path,
) -> list[Task]:
    """Every recording of commands under every condition, and the others as they are."""
    orders = list(orders)
    return [
        *(Task("order", order, condition, grammar) for condition in chosen for order in orders),
        *(Task("negative", other, CLEAN, grammar) for other in negatives),
    ]


def near_misses(orders: Iterable[Recording], slot: str, grammar: Path, folder: Path) -> list[Task]:
    """Take each value of a list in turn out of the grammar, for the orders in which it is said.

    Args:
        orders: recordings of commands.
        slot: name of the list, and of the slot it fills.
        grammar: the grammar to take values from.
        folder: where to write the grammars that lack a value.

    Raises:
        UsageError: the list has no plain values, or a value that is said is not one of them.
    """
    by_value: dict[str, list[Recording]] = {}
    for order in orders:
        if slot in order.slots:
            by_value.setdefault(str(order.slots[slot]), []).append(order)
    if not by_value:
        raise UsageError(f"no recording has a slot {slot!r}; give --near-misses a list whose values are said")
    tasks = []
    for number, (value, fitting) in enumerate(by_value.items()):
        lacking = folder / f"{number}.yaml"
        lacking.write_text(_without(grammar, slot, value), encoding="utf-8")
        tasks += [Task("near_miss", order, CLEAN, lacking) for order in fitting]
    return tasks


def _without(grammar: Path, name: str, value: str) -> str:
    """Return the text of a grammar without a value of a list, every other word as it was written."""
    root = yaml.compose(grammar.read_text("utf-8"), Loader=yaml.SafeLoader)
    values = _child(_child(_child(root, "lists"), name), "values")
    if not isinstance(values, yaml.SequenceNode):
        raise UsageError(f"{grammar} has no list {name!r} with values; --near-misses needs one")
    kept = [item for item in values.value if _plain(item) != value]
    if len(kept) == len(values.value):
        raise UsageError(f"{grammar}: {value!r} is no plain value of the list {name!r}; write it out there")
    if not kept:
        raise UsageError(f"{grammar}: {value!r} is the only value of the list {name!r}; none would be left")
    values.value[:] = kept
    return str(yaml.serialize(root, allow_unicode=True))


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for name, value in pairs if name.value == key), None)


def _plain(item: yaml.Node) -> str | None:
    """What the slot holds for a value of a list, if it is written there."""
    if isinstance(item, yaml.MappingNode):
        return _plain(_child(item, "out") or _child(item, "in") or item.value[0][1])
    return str(item.value).strip() if isinstance(item, yaml.ScalarNode) else None


def measure(
    tasks: Sequence[Task], config: Config, seed: int, jobs: int, on_done: Callable[[Task, Outcome], None]
) -> list[Outcome]:
    """Run tasks in `jobs` worker processes and return their outcomes in the order of the tasks.

    Args:
        tasks: those of one grammar stand together.
        config: names the model, and how to listen and decide.
        seed: of what is chosen at random.
        jobs: processes.
        on_done: called as each outcome arrives, in any order.

    Raises:
        EdgevoiceError: model or grammar cannot be used, or a worker was lost.
    """
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=_start, initargs=(config, seed)
    )
    outcomes: dict[int, Outcome] = {}
    waiting: dict[Future[Outcome], int] = {}
    rest = iter(enumerate(tasks))
    try:
        while True:
            while len(waiting) < jobs * _AHEAD and (following := next(rest, None)):
                with _interrupts_held():
                    waiting[pool.submit(_run, following[1])] = following[0]
            if not waiting:
                break
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                index = waiting.pop(future)
                outcomes[index] = future.result()
                on_done(tasks[index], outcomes[index])
    except BrokenProcessPool:
        names = ", ".join(sorted(str(tasks[index].recording.path) for index in waiting.values()))
        raise NativeError(
            f"a worker process died at one of: {names}; try these alone with --jobs 1"
        ) from None
    except BaseException:
        for worker in set(multiprocessing.active_children()) - before:
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return [outcomes[index] for index in range(len(tasks))]


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back, so that workers started meanwhile never get it: measure() ends them."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


# ---- in a worker ----


class _Worker:
    """What a worker process keeps: the pipeline of the grammar used last."""

    def __init__(self, config: Config, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._grammar: Path | None = None
        self._pipeline: Pipeline | None = None

    def run(self, task: Task) -> Outcome:
        pipeline = self._open(task.grammar)
        results: list[dict[str, Any]] = []
        length = error = None
        spent_s = 0.0
        try:
            source = _Counted(self._source(task))
            started = time.perf_counter()
            results += [result_fields(result) for result in pipeline.results(source)]
            spent_s = time.perf_counter() - started
            length = source.length_samples
        except (AudioFormatError, InferenceError) as problem:  # of this recording; the others go on
            error = problem
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return Outcome(
            results=() if error else tuple(results),
            duration_s=(length or 0) / SAMPLE_RATE_HZ,
            spent_s=spent_s,
            peak_memory_bytes=peak_kib * 1024,
            error=str(error) if error else None,
            exit_code=error.exit_code if error else 0,
        )

    def _open(self, grammar: Path) -> Pipeline:
        if self._pipeline is None or self._grammar != grammar:
            if self._pipeline is not None:
                self._pipeline.close()
                self._pipeline = None
            self._pipeline = Pipeline(self._config, grammar)
            self._grammar = grammar
        return self._pipeline

    def _source(self, task: Task) -> Iterable[Frame]:
        condition, recording = task.condition, task.recording
        if not condition.clips:
            return FileSource(recording.path)
        speech = read_audio(recording.path)
        choice = mixing.generator(self._seed, condition.name, recording.name)
        clip = _clip(condition.clips[int(choice.integers(len(condition.clips)))])
        if condition.snr_db is None:
            return frames([mixing.far_field(speech, clip)])
        return frames([mixing.mix(speech, mixing.noise_piece(clip, len(speech), choice), condition.snr_db)])


class _Counted:
    """Frames of a recording, counted as they pass."""

    def __init__(self, source: Iterable[Frame]) -> None:
        self._source = source
        self.length_samples = 0

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._source:
            self.length_samples = frame.start_samples + FRAME_SAMPLES
            yield frame


@lru_cache(maxsize=4)  # a long noise serves many recordings; of many short ones reading is cheap
def _clip(path: Path) -> Samples:
    return read_audio(path)


_worker: _Worker | None = None


def _start(config: Config, seed: int) -> None:
    global _worker  # noqa: PLW0603 - the only way from a pool's initializer to its tasks
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = _Worker(config, seed)


def _end_with_parent() -> None:
    """Leave no worker behind a parent that was killed."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _run(task: Task) -> Outcome:
    if _worker is None:  # pragma: no cover - a pool always runs its initializer
        raise EdgevoiceError("the worker was not started")
    return _worker.run(task)
