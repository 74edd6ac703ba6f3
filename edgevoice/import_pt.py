"""Reads OpenAI's Whisper checkpoints, `.pt` files as `torch.save` writes them, without torch.

Such a file is a zip whose `data.pkl` is a pickle: a program that could call anything. It is not unpickled.
The instructions that torch writes for dictionaries, numbers, texts and tensors are read one by one, and build
only these; every other instruction, and every name but the few that a checkpoint needs, is refused. So
nothing of it is ever run, and no tensor is made: what comes out is where in the zip the values lie.
"""

from __future__ import annotations

import errno
import io
import math
import pickletools
import re
import reprlib
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgevoice.errors import ModelCorruptError, unusable_model
from edgevoice.weights import BYTES, Stored, Weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgevoice.weights import Format

START: Final = b"PK\3\4"
"""First bytes of the file, those of any zip."""

_MAX_READ_BYTES: Final = 1 << 20  # directory, pickle; large has 1,260 tensors, of 100 and 250 bytes each
_MAX_TENSORS: Final = 4096
_MAX_RANK: Final = 8  # convolutions have 3
_LOCAL_HEADER: Final = struct.Struct("<4s22x2H")  # of a member, then its name and extra bytes
_ENCRYPTED: Final = 1  # bit of a member's flags

_DICTIONARY: Final = "collections OrderedDict"
_TENSOR: Final = "torch._utils _rebuild_tensor_v2"
_STORAGES: Final[Mapping[str, Format]] = {
    "torch HalfStorage": "float16",
    "torch FloatStorage": "float32",
    "torch BFloat16Storage": "bfloat16",
}
_MODEL: Final = "model_state_dict"
_DIMS: Final = "dims"


@dataclass(frozen=True, slots=True)
class _Name:
    """A name of the pickle that is allowed, and stands for nothing that could be called."""

    text: str


@dataclass(frozen=True, slots=True)
class _Storage:
    format: Format
    key: str
    """Name of the zip's member, in the folder `data/`."""

    values: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Mark:
    """Where a tuple or the pairs of a dictionary begin on the stack."""


_NEW: Final[Mapping[str, Callable[[], object]]] = {
    "MARK": _Mark,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_LITERALS: Final = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
)
_IGNORED: Final = frozenset({"PROTO", "FRAME"})


class _File(io.FileIO):
    """A file of which no more can be read at once than directory or pickle may have."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as FileIO, or refuse."""
        most = _MAX_READ_BYTES + 1
        data = super().read(most if size is None or size < 0 else min(size, most)) or b""
        if len(data) == most:
            raise zipfile.BadZipFile(f"its directory has more than {_MAX_READ_BYTES} bytes")
        return data


def read(path: Path) -> Weights:
    """Find the tensors of an OpenAI checkpoint.

    Raises:
        ModelCorruptError: the file is truncated, malformed, holds anything but a checkpoint, or is of the
            format that torch wrote before 1.6.
    """
    try:
        with _File(path) as file, zipfile.ZipFile(file) as archive:
            return _read(path, archive)
    except (
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        EOFError,
        NotImplementedError,  # zipfile's, of a compression or an encryption that it does not know
        OverflowError,
    ) as error:
        raise _fail(path, f"its zip is broken ({error})") from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # zipfile goes where a directory says, if need be before the beginning of the file
        raise _fail(path, "its zip is broken (a place in it is before its beginning)") from None


def _read(path: Path, archive: zipfile.ZipFile) -> Weights:
    members = {member.filename: member for member in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise _fail(path, "a member of its zip comes twice")
    (pickle, *more) = [name for name in members if name.endswith("/data.pkl")] or [""]
    if not pickle or more:
        raise _fail(path, "its zip has not exactly one data.pkl", "take a .pt file of OpenAI's Whisper")
    folder = pickle.removesuffix("data.pkl")
    order = members.get(f"{folder}byteorder")
    if order and archive.open(_plain(path, order, 16)).read() != b"little":
        raise _fail(path, "its numbers are not little-endian", "save it again on another machine")
    checkpoint = _Program(path).run(archive.read(_plain(path, members[pickle], _MAX_READ_BYTES)))
    if not isinstance(checkpoint, dict) or not isinstance(found := checkpoint.get(_MODEL), dict):
        raise _fail(path, f"it has no {_MODEL}", "take a .pt file of OpenAI's Whisper")
    told = checkpoint.get(_DIMS)
    if not isinstance(told, dict) or not all(type(value) is int for value in told.values()):
        raise _fail(path, f"its {_DIMS} are no numbers", "take a .pt file of OpenAI's Whisper")
    if len(found) > _MAX_TENSORS:
        raise _fail(path, f"it has {len(found)} tensors")
    tensors = {}
    for name, tensor in found.items():
        if not isinstance(tensor, _Tensor):
            raise _fail(path, f"{_short(name)} is no tensor")
        tensors[name] = _stored(path, name, tensor, members.get(f"{folder}data/{tensor.storage.key}"))
    return Weights(path, tensors, told, None)


def _plain(path: Path, member: zipfile.ZipInfo, most: int) -> zipfile.ZipInfo:
    """Return a member that is stored as it is, as torch does: a few bytes cannot become many."""
    if (
        member.compress_type != zipfile.ZIP_STORED
        or member.compress_size != member.file_size
        or member.flag_bits & _ENCRYPTED
    ):
        raise _fail(path, f"{member.filename} in it is compressed or encrypted, which torch never does")
    if member.file_size > most:
        raise _fail(path, f"{member.filename} in it has {member.file_size} bytes, more than {most}")
    return member


def _stored(path: Path, name: str, tensor: _Tensor, member: zipfile.ZipInfo | None) -> Stored:
    """Return where the values of a tensor lie in the file."""
    storage, size = tensor.storage, path.stat().st_size
    width = BYTES[storage.format]
    if member is None:
        raise _fail(path, f"the values of {name} (data/{storage.key}) are missing")
    if _plain(path, member, size).file_size != storage.values * width:
        raise _fail(path, f"data/{storage.key} has {member.file_size} bytes for {storage.values} values")
    strides, step = [], 1
    for n in reversed(tensor.shape):
        strides.append(step)
        step *= n
    if any(a != b for a, b, n in zip(tensor.stride, reversed(strides), tensor.shape, strict=True) if n > 1):
        raise _fail(
            path,
            f"{name} of shape {tensor.shape} has strides {tensor.stride}: it is not stored row by row",
            "save it again after .contiguous() on each tensor",
        )
    if tensor.offset + step > storage.values:
        raise _fail(path, f"{name} ends at value {tensor.offset + step} of {storage.values}")
    with path.open("rb") as file:
        file.seek(member.header_offset)
        local = file.read(_LOCAL_HEADER.size)
    if len(local) != _LOCAL_HEADER.size or not local.startswith(START):
        raise _fail(path, f"data/{storage.key} is not at byte {member.header_offset}")
    _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(local)
    start = member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    if start + member.file_size > size:
        raise _fail(path, f"data/{storage.key} would end at byte {start + member.file_size} of {size}")
    crc = member.CRC if step == storage.values else None
    return Stored(path, start + tensor.offset * width, tensor.shape, storage.format, crc)


class _Program:
    """Reads the instructions of one pickle."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        push = self._stack.append
        self._steps: dict[str, Callable[[Any], None]] = {
            "TUPLE1": lambda _: self._join(1),
            "TUPLE2": lambda _: self._join(2),
            "TUPLE3": lambda _: self._join(3),
            "TUPLE": lambda _: push(tuple(self._marked())),
            "BINPUT": self._memorise,
            "LONG_BINPUT": self._memorise,
            "MEMOIZE": lambda _: self._memorise(len(self._memo)),
            "BINGET": lambda number: push(self._memo[number]),
            "LONG_BINGET": lambda number: push(self._memo[number]),
            "GLOBAL": lambda text: push(self._name(text)),
            "BINPERSID": lambda _: push(self._storage(self._stack.pop())),
            "REDUCE": self._reduce,
            "SETITEM": self._set_item,
            "SETITEMS": self._set_items,
            "BUILD": self._build,
        }

    def run(self, data: bytes) -> object:
        """Return what the pickle describes.

        Raises:
            ModelCorruptError: it is malformed, or would do more than describe a checkpoint.
        """
        try:
            for code, argument, _ in pickletools.genops(data):
                if code.name == "STOP":
                    return self._stack.pop()
                self._step(code.name, argument)
        except (IndexError, KeyError, TypeError, ValueError, struct.error, RecursionError) as error:
            raise _fail(self._path, f"its pickle is broken ({error!r:.120})") from None
        raise _fail(self._path, "its pickle does not end")

    def _step(self, code: str, argument: Any) -> None:
        if code in _NEW:
            self._stack.append(_NEW[code]())
        elif code in _LITERALS:
            self._stack.append(argument)
        elif code in self._steps:
            self._steps[code](argument)
        elif code not in _IGNORED:
            raise _fail(self._path, f"its pickle has the instruction {code}, which no checkpoint needs", "")

    def _memorise(self, number: int) -> None:
        self._memo[number] = self._stack[-1]

    def _reduce(self, _: None) -> None:
        arguments, name = self._stack.pop(), self._stack.pop()
        self._stack.append(self._rebuild(name, arguments))

    def _set_item(self, _: None) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._put(self._stack[-1], [key, value])

    def _set_items(self, _: None) -> None:
        pairs = self._marked()
        self._put(self._stack[-1], pairs)

    def _build(self, _: None) -> None:
        """Leave out what is attached: torch attaches the versions of the layers to the dictionary."""
        if not isinstance(self._stack.pop(), dict) or not isinstance(self._stack[-1], dict):
            raise TypeError("BUILD of what is no dictionary")

    def _join(self, count: int) -> None:
        items = self._stack[-count:]
        if len(items) != count or any(isinstance(item, _Mark) for item in items):
            raise ValueError("a tuple of too few")
        self._stack[-count:] = [tuple(items)]

    def _marked(self) -> list[Any]:
        """Take what follows the last mark from the stack."""
        for at in range(len(self._stack) - 1, -1, -1):
            if isinstance(self._stack[at], _Mark):
                items = self._stack[at + 1 :]
                del self._stack[at:]
                return items
        raise ValueError("no mark")

    def _put(self, target: object, pairs: list[Any]) -> None:
        if not isinstance(target, dict) or len(pairs) % 2:
            raise ValueError("items for what is no dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str):
                raise ValueError(f"a key {_short(key)} that is no text")  # noqa: TRY004 (caught as one)
            target[key] = value

    def _name(self, text: str) -> _Name:
        if text not in (_DICTIONARY, _TENSOR, *_STORAGES):
            raise _fail(
                self._path,
                f"its pickle asks for {text.replace(' ', '.')!r:.120}, which no Whisper checkpoint in "
                "float16, bfloat16 or float32 needs",
                "nothing of it was run; take the file from OpenAI, or the safetensors of the model",
            )
        return _Name(text)

    def _storage(self, described: object) -> _Storage:
        match described:
            case ("storage", _Name(kind), str(key), str(), int(values)) if (
                kind in _STORAGES and re.fullmatch(r"[0-9A-Za-z_]{1,32}", key) and _is_count(values)
            ):
                return _Storage(_STORAGES[kind], key, values)
        raise ValueError(f"a storage {_short(described)}")

    def _rebuild(self, name: object, arguments: object) -> object:
        match name, arguments:
            case _Name(text), () if text == _DICTIONARY:
                return {}
            case _Name(text), (_Storage() as storage, int(offset), tuple(shape), tuple(stride), *_) if (
                text == _TENSOR
                and len(shape) == len(stride) <= _MAX_RANK
                and all(_is_count(n) for n in (offset, *shape, *stride))
                and math.prod(shape) > 0
            ):
                return _Tensor(storage, offset, shape, stride)
        raise ValueError(f"a call of {_short(name)} with {_short(arguments)}")


_short = reprlib.repr  # of what may contain itself a thousand times over


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 62  # as many values as torch can count


def _fail(path: Path, what: str, remedy: str = "fetch it again") -> ModelCorruptError:
    return unusable_model(path.name, what, remedy)
