"""Keep thousands of utterances while the disk is full, or read-only, or whoever writes is killed.

    .venv/bin/python scripts/records.py [--utterances 10000] [full] [read-only] [killed]

Real recordings go through the pipeline once (the samples, and some of EDGEVOICE_EVAL_DATA); what was decided
of them is then given to the recorder again and again, as fast as its records are written. The disks are file
systems in memory, of a mount namespace of our own, which ends with us. After it all, every record must be
whole, nothing else may lie there, and no limit may be exceeded. `make soak` runs it, too.
"""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from edgevoice import audio, records  # noqa: E402
from edgevoice.config import Config, RecordsConfig  # noqa: E402
from edgevoice.pipeline import Pipeline, Watcher  # noqa: E402
from edgevoice.recorder import Recorder  # noqa: E402
from edgevoice.records import Folder, Keeper, Record  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgevoice.events import Result, Utterance
    from edgevoice.recognise import Answer

KEEP: Final = 200
KILLED_KEEP: Final = 50  # of these all are read after each of a hundred kills
DISK_MB: Final = 5  # has room for fewer
PEOPLE: Final = ("coffee_commands", "read_librispeech_test_other", "nonwake_speech_precise")
OF_EACH: Final = 15
MANY: Final = 20  # kills, of which about every second one leaves something

WRITER: Final = """
import pickle, sys, time
from pathlib import Path
from dataclasses import replace
from edgevoice import records
from edgevoice.config import RecordsConfig
folder = records.Folder(Path(sys.argv[2]), RecordsConfig(keep=int(sys.argv[3])))
known = pickle.loads(Path(sys.argv[1]).read_bytes())
at = int(sys.argv[4])
while True:
    record = known[at % len(known)]
    name = records.record_id(time.time_ns() // 1_000_000, f"{at:08x}"[::-1])
    folder.write(replace(record, record_id=name, fields=record.fields | {"id": name}))
    at += 1
    print(at, flush=True)
"""


class BrokenError(Exception):
    """Something is not as it should be."""


class Said(Watcher):
    """Collects what was decided."""

    def __init__(self) -> None:
        self.all: list[tuple[Utterance, Answer, Result]] = []

    def decided(self, utterance: Utterance, answer: Answer, result: Result) -> None:
        """Take it."""
        self.all.append((utterance, answer, result))


class Log(logging.Handler):
    """Counts what is said of records."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        self.lines.append(record.getMessage())


def main() -> int:
    """Try what is asked for."""
    ways: dict[str, Callable[[Pipeline, Said, int], str]] = {
        "full": full,
        "read-only": read_only,
        "killed": killed,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ways", nargs="*", metavar="WAY", help="default: all")
    parser.add_argument("--utterances", type=int, default=10_000, help="in each way (default: 10000)")
    options = parser.parse_args()
    _into_own_namespace()
    said = Said()
    with closing(Pipeline(Config())) as pipeline:
        for path in recordings():
            list(pipeline.results(audio.frames([audio.read_audio(path)]), watch=said))
        for name in options.ways or ways:
            started = time.monotonic()
            try:
                figures = ways[name](pipeline, said, options.utterances)
            except BrokenError as error:
                print(f"{name}: FAILED {error}")
                return 1
            print(f"{name}: {figures} ({time.monotonic() - started:.0f} s)", flush=True)
    return 0


def recordings() -> Iterator[Path]:
    """What is said."""
    yield from sorted((ROOT / "samples").glob("*.flac"))
    if data := os.environ.get("EDGEVOICE_EVAL_DATA"):
        for name in PEOPLE:
            yield from sorted((Path(data) / name).glob("*.flac"))[:OF_EACH]


def full(pipeline: Pipeline, said: Said, count: int) -> str:
    """The disk has no room for all that may be kept; in the first and last third others take what is left."""
    with tempfile.TemporaryDirectory() as name:
        disk = Path(name)
        config = RecordsConfig(keep=KEEP, folder=disk / "records")
        mounted = _mount(disk, DISK_MB)
        log = _log()
        keeper = Keeper(config)
        third = count // 3
        kept = []
        for number in range(3):
            filler = disk / "filler"
            if number != 1:
                _fill(filler)
            before = keeper.kept
            _feed(pipeline, said, count - 2 * third if number == 2 else third, config, keeper)
            kept.append(keeper.kept - before)
            filler.unlink(missing_ok=True)
        keeper.close()
        whole = _check(disk / "records", config)
        used = sum(path.stat().st_size for path in disk.rglob("*") if path.is_file())
        told = [
            sum(line.startswith(words) for line in log.lines) for words in ("records cannot", "records are")
        ]
        if mounted:
            _run("umount", str(disk))
    figures = (
        f"{count} utterances, disk of {DISK_MB} MB{'' if mounted else ' (NOT MOUNTED: no right to)'}: "
        f"{' + '.join(map(str, kept))} kept, {keeper.lost} lost, "
        f"then {whole} whole in {used / 1e6:.1f} MB; said {told[0]} times that it is full, {told[1]} that it "
        "is not any more"
    )
    if mounted and (kept[0] or keeper.lost != third or told != [1, 1]):
        raise BrokenError(figures)
    return figures


def read_only(pipeline: Pipeline, said: Said, count: int) -> str:
    """After a tenth the disk becomes read-only, as a card that fails does."""
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as memory:
        os.environ["RUNTIME_DIRECTORY"] = memory
        disk = Path(name)
        mounted = _mount(disk, 100)
        config = RecordsConfig(keep=100_000, folder=disk / "records")
        log = _log()
        keeper = Keeper(config)
        first = min(count // 10, 1000)
        _feed(pipeline, said, first, config, keeper)
        if mounted:
            _run("mount", "-o", "remount,ro", str(disk))
        _feed(pipeline, said, count - first, config, keeper)
        keeper.close()
        before = _check(disk / "records", config)
        in_memory = _check(records.ram_folder(), records.in_ram(config)) if mounted else 0
        if mounted:
            _run("umount", str(disk))
        told = sum("kept in memory" in line for line in log.lines)
    figures = (
        f"{count} utterances, read-only after {first}{'' if mounted else ' (NOT MOUNTED: no right to)'}: "
        f"{keeper.kept} kept, {keeper.lost} lost, {before} whole on it and {in_memory} in memory; "
        f"said {told} times"
    )
    if mounted and (keeper.lost or before != first or not in_memory or told != 1):
        raise BrokenError(figures)
    return figures


def killed(pipeline: Pipeline, said: Said, count: int) -> str:
    """Whoever writes gets SIGKILL, at any moment, about a hundred times."""
    chance = random.Random(1)  # noqa: S311
    made: list[Record] = []
    recorder = Recorder(Config(), pipeline.recogniser, made.append)
    for utterance, answer, result in said.all:
        recorder.decided(utterance, answer, result)
    with tempfile.TemporaryDirectory() as name:
        known, folder = Path(name) / "known", Path(name) / "records"
        known.write_bytes(pickle.dumps(made))
        config = RecordsConfig(keep=KILLED_KEEP, folder=folder)
        kills = alone = written = 0
        parts: set[str] = set()
        while written < count:
            command = [sys.executable, "-c", WRITER, str(known), str(folder), str(KILLED_KEEP), str(written)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as writer:
                for _ in range(max(1, count // 100)):
                    written = int(writer.stdout.readline()) if writer.stdout else 0
                time.sleep(chance.uniform(0, 0.02))
                writer.send_signal(signal.SIGKILL)
            kills += 1
            parts |= {path.name for path in folder.glob(".*.part")}
            names = {path.stem for path in folder.glob("*.json")}
            alone += sum(path.stem not in names for path in folder.glob("*.flac"))
            _read_all(folder)
        for part in folder.glob(".*.part"):
            os.utime(part, (0, time.time() - 100))
        made.clear()
        recorder.decided(*said.all[0])
        Folder(folder, config).write(made[0])
        whole = _check(folder, config)
    figures = (
        f"{written} utterances, killed {kills} times, of which {len(parts)} left a half-written file and "
        f"{alone} a sound without a record: {whole} whole at the end, and nothing else"
    )
    if not len(parts) + alone and kills >= MANY:  # nobody was killed in the middle, so nothing is shown
        raise BrokenError(figures)
    return figures


def _feed(pipeline: Pipeline, said: Said, count: int, config: RecordsConfig, keeper: Keeper) -> None:
    """Record what was said, over and over; each as soon as the one before has been written or lost."""
    done = keeper.kept + keeper.lost

    def keep(record: Record) -> None:
        nonlocal done
        keeper.keep(record)
        done += 1
        while keeper.kept + keeper.lost < done - 3:
            time.sleep(0.0002)

    recorder = Recorder(replace(Config(), records=config), pipeline.recogniser, keep)
    for number in range(count):
        utterance, answer, result = said.all[number % len(said.all)]
        recorder.decided(utterance, answer, replace(result, utterance_id=str(uuid.uuid4())))
    while keeper.kept + keeper.lost < done:
        time.sleep(0.001)


def _check(folder: Path, config: RecordsConfig) -> int:
    """Return how many records there are, all of them whole, within their limits, and nothing beside them."""
    whole = _read_all(folder)
    names = [path.name for path in folder.iterdir()]
    size_bytes = sum(path.stat().st_size for path in folder.iterdir())
    if len(names) != 2 * whole or whole > config.keep or size_bytes > config.max_mb * 1e6:
        raise BrokenError(
            f"{whole} records, {len(names)} files, {size_bytes / 1e6:.1f} MB of {config.max_mb}"
        )
    return whole


def _read_all(folder: Path) -> int:
    """Return how many records are listed, each with its sound."""
    opened = Folder(folder, RecordsConfig())
    for name in opened.ids():
        record = opened.read(name)
        if record.samples is None or record.fields["id"] != name:
            raise BrokenError(f"{name} has no sound, or is another")
    return len(opened.ids())


def _log() -> Log:
    log = Log()
    logger = logging.getLogger("edgevoice.records")
    logger.handlers, logger.propagate = [log], False
    logger.setLevel(logging.INFO)
    return log


def _into_own_namespace() -> None:
    """Start again where disks can be mounted that nobody else sees, and that are gone with us."""
    if os.environ.get("EDGEVOICE_OWN_MOUNTS"):
        return
    own = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*own, "true"], capture_output=True, check=False).returncode == 0:
        environment = {**os.environ, "EDGEVOICE_OWN_MOUNTS": "1"}
        os.execvpe(own[0], [*own, sys.executable, *sys.argv], environment)  # noqa: S606
    print("no disk can be mounted here (unshare --map-root-user --mount): nothing is full or read-only")


def _mount(place: Path, size_mb: int) -> bool:
    if not os.environ.get("EDGEVOICE_OWN_MOUNTS"):
        return False
    _run("mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "none", str(place))
    return True


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(65_536)):
                pass
        except OSError:
            return


if __name__ == "__main__":
    sys.exit(main())
