"""Records are whole or not there, stay within their limits, and nobody waits for them or else reads them."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgevoice import audio, records
from edgevoice.config import RecordsConfig
from edgevoice.errors import UsageError
from edgevoice.records import Folder, Keeper, Record
from tests.conftest import wait_until

CONFIG = RecordsConfig(keep=3)
DAY_S = 86_400


def record(number: int, *, seconds: float = 0.1, **fields: object) -> Record:
    """A record of a sound of its own."""
    noise = np.random.default_rng(number).normal(0, 0.1, int(16_000 * seconds))
    samples = next(iter(audio.frames([noise.astype(np.float32)]))).samples
    name = records.record_id(1_800_000_000_000 + number, f"{number:04x}")
    return Record(name, {"format": records.FORMAT, "id": name, **fields}, samples)


def test_what_is_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    folder, kept = Folder(tmp_path / "records", CONFIG), record(1, text="ä \U0001f600")
    folder.write(kept)
    found = folder.read(kept.record_id)
    assert found.fields == kept.fields
    assert found.samples is not None
    assert kept.samples is not None
    assert np.array_equal(found.samples, kept.samples)


def test_nobody_else_can_read_them(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "records", CONFIG)
    before = os.umask(0)
    try:
        folder.write(record(1))
        folder.label(record(1).record_id, "Order", {})
    finally:
        os.umask(before)
    for path in (folder.path, *folder.path.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_oldest_make_room_for_the_newest(tmp_path: Path) -> None:
    folder = Folder(tmp_path, CONFIG)
    for number in range(10):
        folder.write(record(number))
    assert folder.ids() == [record(number).record_id for number in (7, 8, 9)]
    assert len(list(tmp_path.iterdir())) == 6, "sound and text of each, and nothing else"


def test_all_together_need_no_more_than_they_may(tmp_path: Path) -> None:
    folder = Folder(tmp_path, replace(CONFIG, keep=1_000, max_mb=1))
    for number in range(30):
        folder.write(replace(record(number), samples=np.resize(record(number).samples, 20_000)))  # type: ignore[arg-type]
    size_bytes = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert 900_000 < size_bytes <= 1_000_000
    assert folder.ids()[-1] == record(29).record_id


def test_what_is_older_than_it_may_be_is_removed_with_the_next(tmp_path: Path) -> None:
    folder = Folder(tmp_path, replace(CONFIG, max_age_days=2))
    for number in (1, 2):
        folder.write(record(number))
    for path in tmp_path.glob(f"{record(1).record_id}.*"):
        os.utime(path, (0, time.time() - 3 * DAY_S))
    folder.write(record(3))
    assert folder.ids() == [record(2).record_id, record(3).record_id]


@pytest.mark.parametrize("days", [-30, 30])
def test_a_clock_that_is_set_makes_no_record_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    folder = Folder(tmp_path, replace(CONFIG, max_age_days=2))
    folder.write(record(1))
    clock = time.time
    monkeypatch.setattr("edgevoice.records.time.time", lambda: clock() + days * DAY_S)
    folder.write(record(2))
    assert folder.ids() == [record(1).record_id, record(2).record_id]


def test_what_an_interrupted_write_left_behind_is_removed(tmp_path: Path) -> None:
    folder = Folder(tmp_path, CONFIG)
    alone = tmp_path / f"{record(1).record_id}.flac"
    alone.write_bytes(b"no record has come of it")
    part = tmp_path / f".{record(2).record_id}.json.part"
    part.write_bytes(b"{")
    os.utime(part, (0, time.time() - 100))
    folder.write(record(4))
    labelled = folder.label(record(4).record_id, "Order", {}) / f".{record(4).record_id}.flac.part"
    labelled.touch()
    os.utime(labelled, (0, time.time() - 100))
    folder.purge([record(4).record_id])
    other = tmp_path / "notes.txt"
    other.write_text("not ours")
    folder.write(record(3))
    assert sorted(path.suffix for path in tmp_path.rglob("*") if path.is_file()) == [".flac", ".json", ".txt"]


WRITER = """
import sys
from pathlib import Path
from edgevoice.config import RecordsConfig
from edgevoice.records import Folder
from tests.test_records import record
folder = Folder(Path(sys.argv[1]), RecordsConfig(keep=50))
for number in range(100_000):
    folder.write(record(number))
    print(number, flush=True)
"""


def test_a_process_that_is_killed_leaves_only_whole_records(tmp_path: Path) -> None:
    for attempt in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        for _ in range(20 + attempt):
            writer.stdout.readline()
        time.sleep(0.003 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        folder = Folder(tmp_path, RecordsConfig(keep=50))
        assert len(folder.ids()) >= 20
        for name in folder.ids():
            assert folder.read(name).samples is not None


FULL = """
import resource, sys
from pathlib import Path
from edgevoice.config import RecordsConfig
from edgevoice.records import Keeper
from tests.test_records import record
keeper = Keeper(RecordsConfig(keep=50, folder=Path(sys.argv[1])))
keeper.keep(record(1))
while not keeper.kept: pass
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
for number in (2, 3): keeper.keep(record(number))
while keeper.lost < 2: pass
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
keeper.keep(record(4))
keeper.close()
print(keeper.figures())
"""


def test_a_disk_that_takes_nothing_loses_records_and_nothing_else(tmp_path: Path) -> None:
    """The limit on the size of files stands for a full disk: a write fails half way."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "{'kept': 2, 'lost': 2}"
    assert done.stderr.count("records cannot be kept") == 1, "said once, not with each utterance"
    assert Folder(tmp_path, CONFIG).ids() == [record(1).record_id, record(4).record_id]
    assert len(list(tmp_path.iterdir())) == 4, "nothing is left of what failed"


OWN_DISKS = ["unshare", "--map-root-user", "--mount"]
"""Disks that a child mounts after this nobody else sees, and they are gone with it."""

needs_disks = pytest.mark.skipif(
    subprocess.run([*OWN_DISKS, "true"], capture_output=True, check=False).returncode != 0,
    reason="nothing can be mounted here",
)

DISK = """
import os, subprocess, sys, time
from pathlib import Path
from edgevoice import records
from edgevoice.config import RecordsConfig
from edgevoice.records import Folder, Keeper
from tests.test_records import record
disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], check=True)
config = RecordsConfig(keep=1000, folder=disk / "records")
keeper = Keeper(config)
def keep(*numbers):
    for number in numbers:
        done = keeper.kept + keeper.lost
        keeper.keep(record(number, seconds=2))
        while keeper.kept + keeper.lost == done: time.sleep(0.001)
def whole(folder):
    return [folder.read(name).samples is not None for name in folder.ids()]
"""

FULL_DISK = f"""{DISK}
filler = os.open(disk / "filler", os.O_CREAT | os.O_WRONLY)
try:
    while os.write(filler, bytes(4096)): pass
except OSError: pass
keep(1, 2)
os.truncate(disk / "filler", 4096)
keep(*range(3, 40))
folder = Folder(disk / "records", config)
files, ids = list(folder.path.iterdir()), folder.ids()
print(keeper.kept, keeper.lost, all(whole(folder)), ids[-1], len(files) - 2 * len(ids))
"""

READ_ONLY_DISK = f"""{DISK}
keep(1, 2)
subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
keep(3, 4, 5)
before, memory = Folder(disk / "records", config), Folder(records.ram_folder(), config)
print(keeper.kept, keeper.lost, whole(before), whole(memory))
"""


def on_a_disk(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    disk, memory = folder / "disk", folder / "memory"
    disk.mkdir()
    memory.mkdir()
    return subprocess.run(
        [*OWN_DISKS, sys.executable, "-c", script, str(disk)],
        env={**os.environ, "RUNTIME_DIRECTORY": str(memory)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


@needs_disks
def test_on_a_full_disk_the_oldest_make_room(tmp_path: Path) -> None:
    """Without any of its own nothing can be kept; with them the newest always is."""
    done = on_a_disk(FULL_DISK, tmp_path)
    assert done.stdout.split() == ["37", "2", "True", record(39).record_id, "0"]
    assert done.stderr.count("records cannot be kept") == 1


@needs_disks
def test_a_disk_that_becomes_read_only_is_left_as_it_is(tmp_path: Path) -> None:
    done = on_a_disk(READ_ONLY_DISK, tmp_path)
    assert done.stdout.strip() == "5 0 [True, True] [True, True, True]"
    assert done.stderr.count("kept in memory") == 1


def test_what_is_too_old_goes_though_nothing_new_can_be_kept(tmp_path: Path) -> None:
    """Nor has anything to be said for it to go."""
    folder = Folder(tmp_path, CONFIG)
    folder.write(record(1))
    for path in tmp_path.iterdir():
        os.utime(path, (0, time.time() - 8 * DAY_S))
    (tmp_path / f".{record(2).record_id}.flac.part").mkdir()  # nothing can be written there
    keeper = Keeper(replace(CONFIG, folder=tmp_path))
    keeper.keep(record(2))
    keeper.close()
    assert (keeper.kept, keeper.lost) == (0, 1)
    assert folder.ids() == []


def test_it_is_tidied_once_in_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_TIDY_S", 0.05)
    folder = Folder(tmp_path, CONFIG)
    folder.write(record(1))
    for path in tmp_path.iterdir():
        os.utime(path, (0, time.time() - 8 * DAY_S))
    keeper = Keeper(replace(CONFIG, folder=tmp_path))
    wait_until(lambda: not folder.ids())
    keeper.close()


def test_a_folder_that_cannot_be_written_is_one_in_memory_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    keeper = Keeper(replace(CONFIG, folder=Path("/sys/edgevoice")))  # not even root makes folders there
    for number in (1, 2):
        keeper.keep(record(number))
    keeper.close()
    assert keeper.figures() == {"kept": 2, "lost": 0}
    assert len(Folder(records.ram_folder(), CONFIG).ids()) == 2
    assert records.ram_folder().is_relative_to(tmp_path)
    assert caplog.text.count("kept in memory") == 1


def test_who_has_a_record_does_not_wait_for_the_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fifo = tmp_path / f".{record(0).record_id}.flac.part"
    os.mkfifo(fifo)  # opening it waits until somebody reads
    keeper = Keeper(replace(CONFIG, folder=tmp_path))
    started_s = time.monotonic()
    for number in range(20):
        keeper.keep(record(number))
    assert time.monotonic() - started_s < 1
    assert keeper.lost >= 10, "what does not fit is lost"
    assert caplog.text.count("too slow") == 1
    with fifo.open("rb") as reader:  # the disk is back
        reader.read()
        keeper.close()
    assert keeper.kept >= 3


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"format": 99}', b"\xff\xfe", b"[" * 100_000, b'"' + b"x" * 2_000_000],
    ids=["empty", "cut", "list", "format", "bytes", "deep", "large"],
)
def test_what_is_no_record_is_told_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"{record(1).record_id}.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=path.name):
        records.read(path)


def test_a_record_with_damaged_sound_says_so(tmp_path: Path) -> None:
    folder = Folder(tmp_path, CONFIG)
    folder.write(record(1))
    (tmp_path / f"{record(1).record_id}.flac").write_bytes(b"fLaC and no more")
    with pytest.raises(UsageError, match="sound of record"):
        folder.read(record(1).record_id)


def test_a_record_is_found_by_a_part_of_its_name(tmp_path: Path) -> None:
    folder = Folder(tmp_path, CONFIG)
    for number in (1, 2):
        folder.write(record(number))
    first, last = folder.ids()
    assert folder.find(first[-4:]) == first
    assert folder.find("last") == last
    assert folder.find(last) == last
    for wanted, why in ((first[:8], "2 are called"), ("none", "none is called"), ("", "none is called")):
        with pytest.raises(UsageError, match=why):
            folder.find(wanted)


def test_what_is_labelled_stays_and_becomes_a_manifest(tmp_path: Path) -> None:
    folder = Folder(tmp_path, CONFIG)
    for number in (1, 2):
        folder.write(record(number))
    first, second = folder.ids()
    folder.label(first, "Order", {"drink": "mocha", "cups": 2})
    labelled = folder.label(second, None, {})
    for number in range(10, 20):
        folder.write(record(number))
    assert first not in folder.ids()
    assert first in folder.ids(labelled=True)
    assert folder.read(first).fields["label"] == {"intent": "Order", "slots": {"drink": "mocha", "cups": 2}}
    manifest = [json.loads(line) for line in (labelled / "manifest.jsonl").read_text().splitlines()]
    assert manifest == [{"audio": f"{first}.flac", "intent": "Order", "slots": {"drink": "mocha", "cups": 2}}]
    assert f"{second}.flac" in (labelled / records.NEGATIVES).read_text()
    folder.label(second, "Order", {})  # on second thoughts
    assert not (labelled / records.NEGATIVES).exists()
    folder.purge([first])
    assert first not in folder.ids(labelled=True)
    assert first not in (labelled / "manifest.jsonl").read_text()
    assert folder.purge() == len({second, *(record(number).record_id for number in (17, 18, 19))})
    assert not folder.ids(labelled=True)


def test_without_its_sound_nothing_can_be_labelled(tmp_path: Path) -> None:
    folder = Folder(tmp_path, CONFIG)
    folder.write(replace(record(1), samples=None))
    with pytest.raises(UsageError, match=r"records\.audio"):
        folder.label(record(1).record_id, "Order", {})
