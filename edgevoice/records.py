"""The folder of records: what became of each utterance, kept for a while, on this machine only.

    Recorder -> Record -> Keeper (a thread) -> FOLDER/ID.flac, ID.lists, ID.json -> records, replay

An ID is the time of the utterance, so that names sort by it. ID.lists is gzipped JSON, and only there if
lists of the grammar had values from elsewhere. ID.json is written last, each file under another name first:
what has a JSON is whole. What is older than it may be, or too much, is removed after each write and once an
hour, and so is what an interrupted one left behind; when the disk is full, the oldest make room for the
newest. What somebody has labelled lies in FOLDER/labelled, with a manifest for `edgevoice eval`, and stays
until it is purged.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import logging
import math
import os
import queue
import re
import tempfile
import threading
import time
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import platformdirs

from edgevoice.errors import UsageError
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.recordings import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgevoice.config import RecordsConfig
    from edgevoice.events import Samples

_log = logging.getLogger(__name__)

FORMAT: Final = 1
"""Raised when a field of a record changes its meaning."""

LABELLED: Final = "labelled"
NEGATIVES: Final = "negatives.jsonl"
"""Beside the manifest of commands: what must be refused."""

RAM_MB: Final = 10
"""At most, in memory in place of a folder that cannot be written; the smallest board has 512."""

ID: Final = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9]{3}-[0-9a-f]{4}")
"""What a record is called; nothing else is looked for in the file system."""

_PART: Final = ".part"
_SUFFIXES: Final = (".json", ".flac", ".lists")
_WAITING: Final = 8  # records; one is written in some ms, or the disk does not take them
_DAY_S: Final = 86_400.0
_CLOSE_S: Final = 2.0
_TIDY_S: Final = 3600.0  # the shortest max_age_days are a quarter of an hour, the usual ones days
_INTERRUPTED_S: Final = 60.0  # what has been written for so long is written by nobody any more
_BESIDE_BYTES: Final = 20_000  # of room for folders and rounding to blocks
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_OWN_FILE, _OWN_FOLDER = 0o600, 0o700
_MAX_JSON_BYTES: Final = 1_000_000  # a record of 15 s has some 20,000
_MAX_LISTS_BYTES: Final = 64_000_000  # of 64 lists, each as long as one may be that comes over MQTT


_CLOCK_SET_S: Final = 3600.0  # summer time does not change it, and what is set right after the start does


def _clock_s() -> float:
    """Return what changes only when somebody sets the clock, also while the machine sleeps."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Record:
    """One utterance: what is known of it, as JSON values, and how it sounded."""

    record_id: str
    fields: dict[str, Any]
    samples: Samples | None
    lists: dict[str, Any] = field(default_factory=dict)
    """Values that lists of the grammar had from elsewhere; without sound they are of no use."""


class Folder:
    """Records in a folder of the file system, which is made when the first is written.

    Args:
        path: of the folder.
        config: how many to keep, how large and for how long.
    """

    def __init__(self, path: Path, config: RecordsConfig) -> None:
        self.path = path
        self._config = config
        self._clock_s = _clock_s()

    # ---- writing ----

    def write(self, record: Record) -> None:
        """Keep a record, and remove what is too old or too much, or in the way of it on a full disk.

        Raises:
            OSError: it cannot be written; nothing of it is left, and the others are whole.
        """
        self.path.mkdir(mode=_OWN_FOLDER, parents=True, exist_ok=True)
        files = _files_of(record)
        try:
            self._write(record.record_id, files)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._make_room(sum(map(len, files.values())))
            self._write(record.record_id, files)
        self.tidy()

    def _write(self, record_id: str, files: dict[str, bytes]) -> None:
        try:
            for suffix, data in files.items():
                _write(self.path / f"{record_id}{suffix}", data)
        except BaseException:
            self._remove(record_id)
            raise

    def _make_room(self, size_bytes: int) -> None:
        """Remove the oldest for as much as is needed, and no more: others may have filled the disk."""
        missing_bytes = size_bytes + _BESIDE_BYTES
        for record_id, files in sorted(self._files().items()):
            if missing_bytes <= 0:
                return
            self._remove(record_id)
            missing_bytes -= sum(status.st_size for _, status in files)

    def tidy(self) -> None:
        """Remove what is too old or too much, and what an interrupted write left behind."""
        config = self._config
        oldest_s = time.time() - config.max_age_days * _DAY_S
        if abs(_clock_s() - self._clock_s) > _CLOCK_SET_S:
            oldest_s = -math.inf  # by which of the two clocks a record is old, nobody knows
        size_bytes = 0
        for count, (record_id, files) in enumerate(sorted(self._files().items(), reverse=True), start=1):
            whole = any(path.suffix == ".json" for path, _ in files)
            size_bytes += sum(status.st_size for _, status in files)
            if not (
                whole
                and count <= config.keep
                and size_bytes <= config.max_mb * 1_000_000
                and max(status.st_mtime for _, status in files) >= oldest_s
            ):
                self._remove(record_id)
        for place in (self.path, self.path / LABELLED):
            for part in place.glob(f".*{_PART}"):
                with contextlib.suppress(OSError):
                    if part.stat().st_mtime < time.time() - _INTERRUPTED_S:
                        part.unlink()

    def purge(self, ids: Iterable[str] | None = None) -> int:
        """Remove records, by default all, also what is labelled; return how many."""
        wanted = list(self.ids(labelled=True) if ids is None else ids)
        for record_id in wanted:
            self._remove(record_id)
            _remove(self.path / LABELLED, record_id)
        if wanted and (self.path / LABELLED).is_dir():
            self._write_manifests()
        return len(wanted)

    def _files(self) -> dict[str, list[tuple[Path, os.stat_result]]]:
        found: dict[str, list[tuple[Path, os.stat_result]]] = {}
        with contextlib.suppress(FileNotFoundError):
            for path in self.path.iterdir():
                if path.suffix in _SUFFIXES and ID.fullmatch(path.stem):
                    with contextlib.suppress(FileNotFoundError):
                        found.setdefault(path.stem, []).append((path, path.stat()))
        return found

    def _remove(self, record_id: str) -> None:
        _remove(self.path, record_id)

    # ---- reading ----

    def ids(self, *, labelled: bool = False) -> list[str]:
        """Return the records that are whole, oldest first, with or without those that are only labelled."""
        found = _ids(self.path)
        if labelled:
            found |= _ids(self.path / LABELLED)
        return sorted(found)

    def find(self, wanted: str) -> str:
        """Return the record of an id, of its beginning or end if only one has it, or "last".

        Raises:
            UsageError: none, or several.
        """
        ids = self.ids(labelled=True)
        if wanted == "last" and ids:
            return ids[-1]
        found = [each for each in ids if wanted and (each.startswith(wanted) or each.endswith(wanted))]
        if len(found) == 1:
            return found[0]
        which = f"{len(found)} are" if found else "none is"
        raise UsageError(
            f"{which} called {wanted!r} of the {len(ids)} records in {self.path}; "
            "see `edgevoice records list` for their names"
        )

    def json_of(self, record_id: str) -> Path:
        """Return the file of a record, labelled or not; it need not be there any longer."""
        labelled = self.path / LABELLED / f"{record_id}.json"
        return labelled if labelled.exists() else self.path / f"{record_id}.json"

    def read(self, record_id: str) -> Record:
        """Read a record, labelled or not.

        Raises:
            UsageError: it is not there (any longer), or no record.
        """
        return read(self.json_of(record_id))

    # ---- labels ----

    def label(self, record_id: str, intent: str | None, slots: dict[str, object]) -> Path:
        """Say what was meant; the record stays, and counts when `edgevoice eval` measures.

        Args:
            record_id: of the record.
            intent: that was meant; None: it was no command, and must be refused.
            slots: values that must come out.

        Returns:
            The folder with the manifests.

        Raises:
            UsageError: there is no such record, or it has no sound.
        """
        record = self.read(record_id)
        if record.samples is None:
            raise UsageError(f"record {record_id} has no sound; with records.audio: true later ones have")
        fields = record.fields | {"label": {"intent": intent, "slots": slots}}
        labelled = self.path / LABELLED
        labelled.mkdir(mode=_OWN_FOLDER, exist_ok=True)
        for suffix, data in _files_of(replace(record, fields=fields)).items():
            _write(labelled / f"{record_id}{suffix}", data)
        self._write_manifests()
        return labelled

    def _write_manifests(self) -> None:
        labelled = self.path / LABELLED
        commands: list[str] = []
        others: list[str] = []
        for record_id in sorted(_ids(labelled)):
            label = read_fields(labelled / f"{record_id}.json")["label"]
            entry = {"audio": f"{record_id}.flac", **label}
            (commands if label["intent"] else others).append(json.dumps(entry, ensure_ascii=False) + "\n")
        for name, lines in ((MANIFEST, commands), (NEGATIVES, others)):
            if lines:
                _write(labelled / name, "".join(lines).encode())
            else:
                (labelled / name).unlink(missing_ok=True)


class Keeper:
    """Writes records in a thread of its own; who has one does not wait.

    Args:
        config: where and how much.
    """

    def __init__(self, config: RecordsConfig) -> None:
        self.kept = self.lost = 0
        self._config = config
        self._folder = Folder(folder(config), config)
        self._failure: str | None = None
        self._records: queue.Queue[Record | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="edgevoice-records", daemon=True)
        self._thread.start()

    def keep(self, record: Record) -> None:
        """Take a record, from any thread; it is lost when too many wait."""
        try:
            self._records.put_nowait(record)
        except queue.Full:
            self._lose("the disk is too slow")

    def figures(self) -> dict[str, object]:
        """Return what is reported of it."""
        return {"kept": self.kept, "lost": self.lost}

    def close(self) -> None:
        """Write what waits, if that does not take long."""
        with contextlib.suppress(queue.Full):
            self._records.put(None, timeout=_CLOSE_S)
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while True:
            try:
                record = self._records.get(timeout=_TIDY_S)
            except queue.Empty:
                self._tidy()
                continue
            if record is None:
                return
            try:
                self._write(record)
            except Exception as error:  # noqa: BLE001 - a record is no reason to end
                self._lose(str(error))
                self._tidy()  # what is too old must go, whether or not there is something newer
            else:
                self.kept += 1
                if self._failure is not None:
                    _log.info("records are kept again, in %s", self._folder.path)
                self._failure = None

    def _write(self, record: Record) -> None:
        try:
            self._folder.write(record)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            ram = ram_folder()
            if self._folder.path == ram:
                raise
            _log.warning(
                "records: %s cannot be written (%s); they are kept in memory, in %s, and gone with it",
                self._folder.path, error.strerror, ram,
            )  # fmt: skip
            self._folder = Folder(ram, in_ram(self._config))
            self._folder.write(record)

    def _tidy(self) -> None:
        with contextlib.suppress(OSError):  # which is told of when there is something to be kept
            self._folder.tidy()

    def _lose(self, why: str) -> None:
        self.lost += 1
        if why != self._failure:  # once, not with each utterance
            _log.warning("records cannot be kept: %s", why)
        self._failure = why


def folder(config: RecordsConfig) -> Path:
    """Return where records are kept."""
    return config.folder or Path(platformdirs.user_state_dir("edgevoice")) / "records"


def ram_folder() -> Path:
    """Return where they are kept when that cannot be written: systemd's folders are in memory."""
    for variable in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        if base := os.environ.get(variable):
            return Path(base) / "edgevoice-records"
    base = "/dev/shm" if Path("/dev/shm").is_dir() else tempfile.gettempdir()  # noqa: S108 - with our own number
    return Path(base) / f"edgevoice-records-{os.getuid()}"


def in_ram(config: RecordsConfig) -> RecordsConfig:
    """Return what is kept there."""
    return replace(config, max_mb=min(config.max_mb, RAM_MB))


def record_id(utc_ms: int, utterance_id: str) -> str:
    """Return the name of a record: when it was decided, in UTC, and the beginning of the utterance's id."""
    seconds, ms = divmod(utc_ms, 1000)
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(seconds))}-{ms:03}-{utterance_id[:4]}"


def flac(samples: Samples) -> bytes:
    """Return sound as a FLAC file of 24 bits, of which nothing is lost: frames have no finer steps."""
    import soundfile  # noqa: PLC0415 - with numpy and libsndfile, only for who keeps records

    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_24")
    return file.getvalue()


def read(path: Path) -> Record:
    """Read a record by the path of its JSON; its sound lies beside it, if it has any.

    Raises:
        UsageError: it is not there or no record; or its sound is damaged.
    """
    from edgevoice.audio import read_audio  # noqa: PLC0415 - as above
    from edgevoice.errors import AudioError  # noqa: PLC0415

    fields = read_fields(path)
    lists = _read_lists(path.with_suffix(".lists"))
    sound = path.with_suffix(".flac")
    try:
        samples = read_audio(sound) if sound.exists() else None
    except AudioError as error:
        raise UsageError(f"the sound of record {path.stem} is damaged: {error}") from None
    return Record(path.stem, fields, samples, lists)


def _read_lists(path: Path) -> dict[str, Any]:
    try:
        with gzip.open(path) as file:
            lists = json.loads(file.read(_MAX_LISTS_BYTES))  # what is cut off there is no JSON
    except FileNotFoundError:
        return {}
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise UsageError(f"the lists of record {path.stem} are damaged ({error}); remove it") from None
    if not isinstance(lists, dict):
        raise UsageError(f"the lists of record {path.stem} are damaged; remove it")
    return lists


def read_fields(path: Path) -> dict[str, Any]:
    """Read all of a record but its sound.

    Raises:
        UsageError: it is not there or no record.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_JSON_BYTES + 1)
        fields = json.loads(data)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); check its name") from None
    except (ValueError, RecursionError):
        raise UsageError(
            f"{path} is no JSON; give a record, as `edgevoice records list` names them"
        ) from None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        seen = fields.get("format") if isinstance(fields, dict) else type(fields).__name__
        raise UsageError(f"{path} is no record of format {FORMAT} ({seen!r} seen); it is another version's")
    return fields


def _files_of(record: Record) -> dict[str, bytes]:
    """Return the files of a record by their suffixes, in the order in which they are written."""
    files: dict[str, bytes] = {}
    if record.samples is not None:
        files[".flac"] = flac(record.samples)
    if record.lists:
        files[".lists"] = gzip.compress(json.dumps(record.lists).encode("ascii"), mtime=0)
    return files | {".json": _json(record.fields)}


def _json(fields: dict[str, Any]) -> bytes:
    return (json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "replace")


def _write(path: Path, data: bytes) -> None:
    """Write a file for the owner only; a power cut leaves the whole of it, or nothing."""
    part = path.with_name(f".{path.name}{_PART}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, _OWN_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _ids(place: Path) -> set[str]:
    """The records in a folder that are whole; none without it."""
    try:
        return {path.stem for path in place.iterdir() if path.suffix == ".json" and ID.fullmatch(path.stem)}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _remove(place: Path, record_id: str) -> None:
    for suffix in _SUFFIXES:  # first what says that the record is whole
        with contextlib.suppress(OSError):
            (place / f"{record_id}{suffix}").unlink()


def places(config: RecordsConfig) -> Iterator[Folder]:
    """Yield the folders in which there may be records."""
    yield Folder(folder(config), config)
    yield Folder(ram_folder(), in_ram(config))
