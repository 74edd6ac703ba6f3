"""The command `edgevoice transcribe FILE ...`: recordings to texts, several at a time.

    names -> pool of threads, each with a session of one model -> writers -> files, or stdout in their order

A file is written when its recording is done, as a whole or not at all, and then noted in
`.edgevoice-transcribe` of its folder, a JSON object a line: what was made of which recording, with which
options. With `resume` what is noted there, and has not changed, is not done again.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import queue
import select
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from edgevoice import audio, grammar_writer, models, signals
from edgevoice.capture import RawSource
from edgevoice.errors import (
    AudioError,
    AudioFormatError,
    CancelledError,
    EdgevoiceError,
    GrammarError,
    InferenceError,
    UsageError,
)
from edgevoice.whisper import CancelToken, Model, Session, writers
from edgevoice.whisper.pieces import transcribe_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from edgevoice.events import Samples
    from edgevoice.whisper import Options, SpeechOptions, Transcription

NOTES: Final = ".edgevoice-transcribe"

_OF_ONE: Final = (AudioError, GrammarError, InferenceError)
"""What is wrong with one recording, and need not be with the next."""

_SOUND_FILES: Final = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"FORM", b".snd", b"ID3")
"""How they begin. MP3 files without ID3 do not differ from raw audio."""

_POLL_S: Final = 0.2
_READ_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do with each recording."""

    model: str
    """Name or path."""

    options: Options
    speech: SpeechOptions | None
    formats: tuple[str, ...]
    """Of writers.FORMATS."""

    layout: writers.Layout
    output_dir: Path | None
    """None: stdout."""

    resume: bool
    jobs: int
    rate_hz: int
    """Of raw audio on stdin."""

    def how(self, model: Path) -> str:
        """Return a hash of all that the texts depend on, beside the recording."""
        status = model.stat()
        options: dict[str, Any] = {
            field.name: getattr(self.options, field.name)
            for field in dataclasses.fields(self.options)
            if field.name != "threads"
        }
        if self.options.grammar is not None:
            options["grammar"] = self.options.grammar.text
        seen = (model.name, status.st_size, status.st_mtime_ns, options, self.speech, self.layout)
        return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


def expand(names: Sequence[str]) -> list[str]:
    """Return each recording once; patterns such as `talks/*.flac` are looked up unless a file is named so."""
    found: list[str] = []
    for name in names:
        matching = [] if name == "-" or Path(name).exists() else glob.glob(name, recursive=True)  # noqa: PTH207 - also of absolute ones
        found += sorted(matching) or [name]
    return list(dict.fromkeys(found))


def run(names: Sequence[str], plan: Plan, stdin: BinaryIO | None) -> int:
    """Transcribe recordings, name those that cannot be on stderr, and return the highest exit code.

    Raises:
        UsageError: outputs would be mixed up, or the options do not suit the model.
        ModelError, NativeError: as opening a model or a session.
        OSError: an output cannot be written.
        KeyboardInterrupt: after saying what is left.
    """
    names = expand(names)
    _check_outputs(names, plan)
    path = models.find(plan.model)
    notes = _Notes(plan, plan.how(path))
    left = [name for name in names if not (plan.resume and notes.done(name))]
    if len(left) < len(names):
        print(f"{len(names) - len(left)} of {len(names)} recordings are done", file=sys.stderr)
    if not left:
        return 0
    with Model(path, alignment="auto" if plan.options.word_times else None) as model:
        _check_model(model, plan.options)
        return _Batch(model, plan, notes, left, stdin).run()


def _check_outputs(names: Sequence[str], plan: Plan) -> None:
    if plan.output_dir is None:
        if len(plan.formats) > 1:
            raise UsageError(f"{len(plan.formats)} formats do not go to stdout together; give --output-dir")
        if len(names) > 1 and plan.formats[0] not in ("text", "json"):
            raise UsageError(
                f"{plan.formats[0]} of {len(names)} recordings does not go to stdout; give --output-dir"
            )
        return
    plan.output_dir.mkdir(parents=True, exist_ok=True)
    stems: dict[str, str] = {}
    for name in names:
        other = stems.setdefault(_stem(name), name)
        if other != name:
            raise UsageError(
                f"{other} and {name} would both be written to {plan.output_dir / _stem(name)}.*; "
                "transcribe them into different folders"
            )


def _check_model(model: Model, options: Options) -> None:
    """Refuse before the first recording what a session would refuse with each."""
    if options.language not in (None, "auto", *model.languages):
        raise UsageError(
            f"the model {model.type.size} does not know the language {options.language!r}; it knows "
            f"{', '.join(model.languages)}"
        )
    if options.translate and not model.type.multilingual:
        raise UsageError(f"--translate needs a multilingual model, this is {model.type.size}")


def _stem(name: str) -> str:
    return "stdin" if name == "-" else Path(name).stem


def _told(name: str) -> str:
    return "stdin" if name == "-" else name


class _Notes:
    """What was written to a folder: one line for each recording, the last one counts."""

    def __init__(self, plan: Plan, how: str) -> None:
        self._plan, self._how = plan, how
        self._lock = threading.Lock()
        self._lines: dict[str, dict[str, Any]] = {}
        if plan.output_dir is not None and plan.resume:
            try:
                lines = (plan.output_dir / NOTES).read_text("utf-8", "replace").splitlines()
            except FileNotFoundError:
                lines = []
            for line in lines:
                try:
                    note = json.loads(line)
                    self._lines[note["stem"]] = note
                except (ValueError, TypeError, KeyError, RecursionError):
                    continue  # cut off by a power cut, or not ours: its recording is done again

    def done(self, name: str) -> bool:
        """Whether all that is wanted of a recording is there, and neither it nor the options have changed."""
        folder, note = self._plan.output_dir, self._lines.get(_stem(name))
        if folder is None or note is None or name == "-":
            return False
        try:
            return note == {**self.note(name), "formats": note.get("formats")} and all(
                form in note["formats"] and _output(folder, name, form).is_file()
                for form in self._plan.formats
            )
        except (OSError, TypeError):
            return False

    def note(self, name: str) -> dict[str, Any]:
        """Return what is noted of a recording as it is now."""
        note: dict[str, Any] = {"stem": _stem(name), "how": self._how, "formats": list(self._plan.formats)}
        if name != "-":
            status = Path(name).stat()
            note |= {
                "file": str(Path(name).resolve()),
                "size": status.st_size,
                "mtime_ns": status.st_mtime_ns,
            }
        return note

    def add(self, note: dict[str, Any]) -> None:
        """Note what is done."""
        if self._plan.output_dir is None:
            return
        line = json.dumps(note) + "\n"
        with self._lock, (self._plan.output_dir / NOTES).open("a", encoding="utf-8") as file:
            file.write(line)


def _output(folder: Path, name: str, form: str) -> Path:
    return folder / f"{_stem(name)}{writers.FORMATS[form][0]}"


class _Batch:
    def __init__(
        self, model: Model, plan: Plan, notes: _Notes, names: Sequence[str], stdin: BinaryIO | None
    ) -> None:
        self._plan, self._notes, self._names, self._stdin = plan, notes, names, stdin
        self._cancel = CancelToken()
        self._sessions: queue.SimpleQueue[Session] = queue.SimpleQueue()
        for _ in range(min(plan.jobs, len(names))):
            self._sessions.put(model.session())
        self._bar = _Bar(names)

    def run(self) -> int:
        exit_code = 0
        with self._bar, ThreadPoolExecutor(self._sessions.qsize(), "edgevoice-transcribe") as pool:
            futures = [pool.submit(self._one, name) for name in self._names]
            try:
                with signals.heard():
                    for name, future in zip(self._names, futures, strict=True):
                        try:
                            print(future.result(), end="", flush=True)
                        except _OF_ONE as error:
                            which = "" if _told(name) in str(error) else f"{_told(name)}: "
                            print(f"edgevoice: {which}{error}", file=sys.stderr)
                            exit_code = max(exit_code, error.exit_code)
            except BaseException as error:
                self._cancel.cancel()
                pool.shutdown(cancel_futures=True)
                if isinstance(error, KeyboardInterrupt):
                    self._tell_left(futures)
                raise
        return exit_code

    def _tell_left(self, futures: Sequence[Future[str]]) -> None:
        left = [
            _told(name)
            for name, future in zip(self._names, futures, strict=True)
            if future.cancelled() or isinstance(future.exception(), CancelledError)
        ]
        if left:
            again = "; --resume does these" if self._plan.output_dir is not None else ""
            print(f"edgevoice: interrupted; not done: {', '.join(left)}{again}", file=sys.stderr)

    def _one(self, name: str) -> str:
        """Transcribe a recording, and write it; return what is for stdout."""
        plan, note = self._plan, None if name == "-" else self._note(name)
        session = self._sessions.get()
        try:
            with _Input(name, self._stdin, plan.rate_hz, self._cancel) as blocks:
                found = transcribe_blocks(
                    session,
                    blocks,
                    plan.options,
                    speech=plan.speech,
                    cancel=self._cancel,
                    on_progress=lambda done_s, _segments: self._bar.at(name, done_s),
                )
        finally:
            self._sessions.put(session)
            self._bar.done(name)
        if found.aborted:
            raise CancelledError(f"{_told(name)}: cancelled")
        if plan.output_dir is None:
            return self._printed(name, found)
        for form in plan.formats:
            write = writers.FORMATS[form][1]
            grammar_writer.write(write(found, plan.layout), _output(plan.output_dir, name, form), force=True)
        self._notes.add(note or self._notes.note(name))
        return ""

    def _note(self, name: str) -> dict[str, Any] | None:
        try:
            return self._notes.note(name)  # as it is before it is read
        except OSError:
            return None  # which opening it tells better

    def _printed(self, name: str, found: Transcription) -> str:
        form = self._plan.formats[0]
        if len(self._names) == 1:
            return writers.FORMATS[form][1](found, self._plan.layout)
        if form == "json":
            return json.dumps({"file": name, **writers.as_json(found)}, ensure_ascii=False) + "\n"
        lines = writers.cues(found.segments, self._plan.layout)
        return "".join(f"{_told(name)}: {cue.text}\n" for cue in lines)


class _Input:
    """The audio of a recording, or of stdin, as blocks; ends when it is cancelled."""

    def __init__(self, name: str, stdin: BinaryIO | None, rate_hz: int, cancel: CancelToken) -> None:
        self._name, self._stdin, self._rate_hz, self._cancel = name, stdin, rate_hz, cancel
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Iterator[Samples]:
        return self._until_cancelled(
            audio.read_blocks(self._name) if self._name != "-" else self._from_stdin()
        )

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def _until_cancelled(self, blocks: Iterator[Samples]) -> Iterator[Samples]:
        for block in blocks:
            if self._cancel.cancelled:
                raise CancelledError(f"{_told(self._name)}: cancelled")
            yield block

    def _from_stdin(self) -> Iterator[Samples]:
        if self._stdin is None:
            raise AudioError("stdin is closed; feed it a sound file or raw audio")
        stream = _Stream(self._stdin, self._cancel)
        if not stream.peek(4).startswith(_SOUND_FILES):
            for frame in RawSource(stream, self._rate_hz):  # type: ignore[arg-type] # it only reads
                yield frame.samples
            return
        self._folder = tempfile.TemporaryDirectory(prefix="edgevoice-")
        path = Path(self._folder.name) / "stdin"
        with path.open("wb") as file:
            while data := stream.read(_READ_BYTES):
                file.write(data)
        try:
            yield from audio.read_blocks(path)
        except AudioFormatError as error:
            raise AudioFormatError(str(error).replace(str(path), "stdin")) from None


class _Stream:
    """Reads what there is, also in the middle of a wait no longer than until it is cancelled."""

    def __init__(self, stream: BinaryIO, cancel: CancelToken) -> None:
        self._stream, self._cancel, self._peeked = stream, cancel, b""

    def peek(self, size: int) -> bytes:
        """Return the next bytes, fewer only at the end, and leave them."""
        while len(self._peeked) < size and (data := self._wait(_READ_BYTES)):
            self._peeked += data
        return self._peeked[:size]

    def read(self, size: int) -> bytes:
        """Return some bytes, none only at the end."""
        data, self._peeked = self._peeked[:size], self._peeked[size:]
        return data or self._wait(size)

    def _wait(self, size: int) -> bytes:
        while not select.select([self._stream], [], [], _POLL_S)[0]:
            if self._cancel.cancelled:
                raise CancelledError("stdin: cancelled")
        try:
            data = self._stream.read(size)
        except OSError as error:
            raise AudioError(f"reading stdin failed ({error}); check the program that feeds it") from None
        if data is None:
            raise AudioError("stdin is in non-blocking mode; open it in blocking mode")
        return data


class _Bar:
    """How much of the audio is done and how long the rest takes, on stderr if that is a terminal."""

    def __init__(self, names: Sequence[str]) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
            speed_estimate_period=3600,  # one window of a large model can take minutes
        )
        self._lock = threading.Lock()
        self._of = len(names)
        self._ended: set[str] = set()
        self._lengths_s = dict.fromkeys(names, 0.0)
        self._done_s = dict.fromkeys(names, 0.0)
        total_s: float | None = None
        if console.is_terminal:
            self._lengths_s = {name: _length_s(name) for name in names}
            total_s = sum(self._lengths_s.values()) if "-" not in names else None
        self._task = self._progress.add_task(self._words(), total=total_s)

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _words(self) -> str:
        return f"{len(self._ended)} of {self._of}"

    def at(self, name: str, done_s: float) -> None:
        """Take how much of a recording is done."""
        with self._lock:
            self._done_s[name] = done_s
            self._progress.update(self._task, completed=sum(self._done_s.values()), description=self._words())

    def done(self, name: str) -> None:
        """A recording is done, or cannot be."""
        self._ended.add(name)
        self.at(name, self._lengths_s[name])


def _length_s(name: str) -> float:
    try:
        return 0.0 if name == "-" else audio.duration_s(name)
    except EdgevoiceError:
        return 0.0  # told when it is to be read
