"""Weights: where a model file of another format keeps its tensors, and their values as float16.

Each `import_*.py` finds out where the tensors lie, under the names that ggml has for them, and
`ggml_file.write` fetches them one after the other, a piece at a time, so that a model is never in memory.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from edgevoice.errors import ModelCorruptError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    Format = Literal["float16", "float32", "bfloat16"]

BYTES: Final[Mapping[Format, int]] = {"float16": 2, "float32": 4, "bfloat16": 2}
"""Of a value in each format."""

_PIECE_BYTES: Final = 1 << 20  # enough for full disk speed, little beside the model; a multiple of a value


@dataclass(frozen=True, slots=True)
class Stored:
    """Values of one tensor in a file, little-endian and row by row."""

    path: Path
    start: int
    """Byte position."""

    shape: tuple[int, ...]
    format: Format
    crc: int | None = None
    """CRC-32 of all of it, where the file has one."""

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * BYTES[self.format]

    def bytes(self) -> Iterator[bytes]:
        """Yield what is in the file, piece by piece.

        Raises:
            ModelCorruptError: the file ends before, or the CRC is another one.
        """
        left, crc = self.size, 0
        with self.path.open("rb") as file:
            file.seek(self.start)
            while left:
                piece = file.read(min(left, _PIECE_BYTES))
                if not piece or len(piece) % BYTES[self.format]:
                    raise ModelCorruptError(f"{self.path.name} became shorter while it was read; try again")
                left -= len(piece)
                crc = zlib.crc32(piece, crc) if self.crc is not None else 0
                yield piece
        if self.crc is not None and crc != self.crc:
            raise ModelCorruptError(
                f"{self.path.name} is damaged: CRC-32 {crc:#010x} instead of {self.crc:#010x}; fetch it again"
            )

    def halves(self, name: str) -> Iterator[npt.NDArray[np.float16]]:
        """Yield the values rounded to the nearest float16, piece by piece.

        Raises:
            ModelCorruptError: as `bytes`, or a value is not finite as float16; `name` tells which tensor's.
        """
        for piece in self.bytes():
            if self.format == "bfloat16":  # the upper half of a float32
                values = (np.frombuffer(piece, "<u2").astype("<u4") << 16).view("<f4")
            else:
                values = np.frombuffer(piece, "<f2" if self.format == "float16" else "<f4")
            with np.errstate(over="ignore"):  # looked at in the next line
                halves = values.astype("<f2", copy=False)
            wrong = ~np.isfinite(halves)
            if wrong.any():
                raise ModelCorruptError(
                    f"{self.path.name}: {name} holds {values[wrong][0]}, but float16 takes only finite "
                    "values up to 65504; the model cannot be imported"
                )
            yield halves


@dataclass(frozen=True, slots=True)
class Weights:
    """What was found in a model file of another format."""

    path: Path
    """The file, or one of the files."""

    tensors: Mapping[str, Stored]
    """Under ggml's names, which are those of OpenAI's checkpoints."""

    told: Mapping[str, int]
    """What the file itself says of numbers in the ggml header, by the names of `ggml_file.Header`."""

    vocabulary: Path | None
    """The words that belong to it; None when the format has none."""
