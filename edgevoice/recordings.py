"""What is measured on: recordings with labels, recordings to refuse, noises and rooms.

A folder has a manifest.jsonl, one JSON object a line, whose `audio` is relative to it; folders without
labels may do without one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from edgevoice.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANIFEST: Final = "manifest.jsonl"
_AUDIO: Final = {".wav", ".flac", ".ogg", ".aiff", ".aif", ".mp3"}
_DAY_S: Final = 86_400
_ROOMS: Final = {"rir", "rirs"}  # labels of impulse responses in a folder that holds other things, too


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording and what is said in it."""

    path: Path
    name: str
    """As its manifest names it, so that choices do not depend on where the folder is."""

    folder: str
    """The folder or manifest it was named by."""

    intent: str | None = None
    """None: nothing that should be accepted."""

    slots: dict[str, object] = field(default_factory=dict)
    label: str | None = None
    speech_start_s: float | None = None
    """Where somebody begins to speak in it, if its manifest says so."""

    speech_end_s: float | None = None
    segments: tuple[tuple[float, float], ...] = ()
    """From where to where somebody speaks in a long one, in seconds and in order; they may overlap."""


def orders(source: Path, limit: int | None = None) -> list[Recording]:
    """Read recordings of commands.

    Args:
        source: a manifest, or the folder that holds it.
        limit: only the first ones.

    Raises:
        UsageError: with the line of the manifest that cannot be used.
    """
    found = []
    path = source / MANIFEST if source.is_dir() else source
    for line, entry in _entries(path, limit):
        if not isinstance(entry.get("intent"), str):
            raise UsageError(
                f"{path}:{line}: {entry['audio']} has no intent; recordings to refuse go with --negatives"
            )
        found.append(_recording(source, path, line, entry))
    return found


def others(source: Path, limit: int | None = None) -> list[Recording]:
    """Read recordings that are no commands, whatever their manifest says of them.

    Args:
        source: a manifest, or a folder with one or just with recordings, in folders of their own or not.
        limit: only the first ones.

    Raises:
        UsageError: nothing there, or a line of the manifest that cannot be used.
    """
    if source.is_dir() and not (source / MANIFEST).exists():
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in _AUDIO)
        if not files:
            raise UsageError(
                f"{source} holds neither {MANIFEST} nor sound files; give a folder of recordings"
            )
        return [Recording(path, str(path.relative_to(source)), str(source)) for path in files[:limit]]
    path = source / MANIFEST if source.is_dir() else source
    return [_recording(source, path, line, entry) for line, entry in _entries(path, limit)]


def noises(source: Path) -> dict[str, tuple[Path, ...]]:
    """Return the noises of a folder by label, each with its recordings; of a file or without labels, one."""
    if source.is_file() and source.suffix.lower() in _AUDIO:
        return {source.stem: (source,)}
    found: dict[str, list[Path]] = {}
    for clip in others(source):
        found.setdefault(clip.label or source.resolve().stem, []).append(clip.path)
    return {label: tuple(paths) for label, paths in found.items()}


def rooms(source: Path) -> tuple[Path, ...]:
    """Return the impulse responses of a folder: those labelled as such if any is, else all; or of a file."""
    found = noises(source)
    labelled = [path for label, paths in found.items() if label.casefold() in _ROOMS for path in paths]
    return tuple(labelled or (path for paths in found.values() for path in paths))


def _entries(path: Path, limit: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of each line."""
    try:
        lines = path.read_text("utf-8").split("\n")  # not splitlines: JSON may hold U+2028
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}); give a manifest, or its folder"
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text; give a {MANIFEST} with a JSON object a line") from None
    count = 0
    for number, line in enumerate(lines, start=1):
        if count == limit:
            break
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            raise UsageError(f"{path}:{number}: not JSON: {line[:60]!r}; write one object a line") from None
        if not isinstance(entry, dict) or not isinstance(entry.get("audio"), str) or not entry["audio"]:
            raise UsageError(f"{path}:{number}: no 'audio' with the name of a sound file: {line[:60]!r}")
        count += 1
        yield number, entry
    if not count:
        raise UsageError(f"{path} names no recording; write one JSON object a line")


def _recording(source: Path, path: Path, line: int, entry: dict[str, Any]) -> Recording:
    slots = entry.get("slots") or {}
    if not isinstance(slots, dict) or not all(isinstance(said, str | int | float) for said in slots.values()):
        raise UsageError(f"{path}:{line}: 'slots' must be an object of texts and numbers, not {slots!r}")
    label = entry.get("label")
    return Recording(
        path=path.parent / entry["audio"],
        name=entry["audio"],
        folder=str(source),
        intent=entry.get("intent"),
        slots={name: said.strip() if isinstance(said, str) else said for name, said in slots.items()},
        label=label.strip() if isinstance(label, str) else None,
        speech_start_s=_seconds(path, line, entry, "speech_start"),
        speech_end_s=_seconds(path, line, entry, "speech_end"),
        segments=_segments(path, line, entry),
    )


def _segments(path: Path, line: int, entry: dict[str, Any]) -> tuple[tuple[float, float], ...]:
    found = []
    segments = entry.get("segments") or []
    for segment in segments if isinstance(segments, list) else [segments]:
        if not isinstance(segment, dict):
            raise UsageError(f"{path}:{line}: 'segments' must be a list of objects, not {segment!r}")
        start_s, end_s = (_seconds(path, line, segment, key) for key in ("start", "end"))
        if start_s is None or end_s is None or end_s <= start_s:
            raise UsageError(f"{path}:{line}: a segment needs a 'start' before its 'end', not {segment!r}")
        found.append((start_s, end_s))
    return tuple(sorted(found))


def _seconds(path: Path, line: int, entry: dict[str, Any], key: str) -> float | None:
    seconds = entry.get(key)
    if seconds is None:
        return None
    if not isinstance(seconds, int | float) or not 0 <= seconds < _DAY_S:
        raise UsageError(f"{path}:{line}: {key!r} must be a number of seconds, not {seconds!r}")
    return float(seconds)
