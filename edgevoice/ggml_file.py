"""ggml files: what a Whisper model file of whisper.cpp has in which order; checks such files and writes them.

    magic, 11 numbers      Header, which gives names, shapes and types of all tensors
    mel filters            bands x 201 float32
    words                  their number, then length and bytes of each
    tensors                rank, length of the name, type, shape innermost first, name, values

`write` puts the tensors in the order of OpenAI's checkpoints, and rounds all values to float16 before the
small ones become float32, as upstream's converters do: so the same model gives the same bytes, from whatever
format it comes, and they are those of the file that upstream publishes.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from edgevoice.errors import ModelCorruptError, unusable_model
from edgevoice.mel import BINS
from edgevoice.mel_filters import mel_filters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from edgevoice.weights import Weights

MAGIC: Final = 0x67676D6C
"""First four bytes of every ggml file, "ggml" as a little-endian number."""

ENGLISH_VOCABULARY: Final = 51_864
"""n_vocab of English models."""

N_WORDS: Final = 50_257
"""Words that are written: GPT-2's vocabulary; whisper.cpp names the tokens after it by itself."""

MAX_WORD_BYTES: Final = 128
"""GPT-2's longest word."""

_MAX_NAME_BYTES: Final = 64  # the longest tensor name has 43
_HEAD_DIM: Final = 64  # in every Whisper model

_AUDIO_CTX: Final = 1500  # encoder positions, 30 s
_TEXT_CTX: Final = 448  # decoder positions
_LAYERS: Final[Mapping[int, int]] = {384: 4, 512: 6, 768: 12, 1024: 24, 1280: 32}
"""State -> layers of the published sizes: tiny, base, small, medium, large."""

_DISTILLED_LAYERS: Final = (2, 4)  # of the decoder: distilled models and turbo

_F32: Final = 0
_F16: Final = 1

# ggml_ftype of the header -> ggml_type of the matrices, bytes and values per block (ggml.h, ggml-common.h)
_MATRIX_TYPES: Final[Mapping[int, tuple[int, int, int]]] = {
    _F16: (_F16, 2, 1),
    2: (2, 18, 32),  # q4_0
    3: (3, 20, 32),  # q4_1
    7: (8, 34, 32),  # q8_0
    8: (6, 22, 32),  # q5_0
    9: (7, 24, 32),  # q5_1
    10: (10, 84, 256),  # q2_k
    11: (11, 110, 256),  # q3_k
    12: (12, 144, 256),  # q4_k
    13: (13, 176, 256),  # q5_k
    14: (14, 210, 256),  # q6_k
}
_QUANTISATION_VERSION: Final = 2  # the only block layout that whisper.cpp still reads
_QUANTISATION_VERSION_FACTOR: Final = 1000  # ggml adds this times the version of the block layout to ftype


@dataclass(frozen=True, slots=True)
class Header:
    """The eleven numbers after the magic of a ggml Whisper file, in file order."""

    n_vocab: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int
    n_mels: int
    ftype: int

    def problem(self, *, may_be_f32: bool = False) -> str | None:
        """What makes whisper.cpp misbehave, or None: it trusts these numbers and sizes memory by them.

        As strict as csrc/model_file.cpp, which checks again before each use.
        """
        layers = _LAYERS.get(self.n_audio_state, 0)
        allowed: dict[str, tuple[int, ...]] = {
            "n_vocab": (ENGLISH_VOCABULARY, 51_865, 51_866),  # English, multilingual, large-v3
            "n_audio_ctx": (_AUDIO_CTX,),
            "n_audio_state": tuple(_LAYERS),
            "n_audio_head": (self.n_audio_state // _HEAD_DIM,),
            "n_audio_layer": (layers,),
            "n_text_ctx": (_TEXT_CTX,),
            "n_text_state": (self.n_audio_state,),
            "n_text_head": (self.n_audio_state // _HEAD_DIM,),
            "n_text_layer": (layers, *_DISTILLED_LAYERS),
            "n_mels": (80, 128),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                return f"{name} is {getattr(self, name)}, allowed is {' or '.join(map(str, values))}"
        if self.ftype == _F32 and may_be_f32:
            return None
        if self.ftype == _F32:
            return "its weights are all f32 (ftype 0), on which whisper.cpp aborts"
        version = self.ftype // _QUANTISATION_VERSION_FACTOR
        if self.matrix_ftype not in _MATRIX_TYPES or (
            version != _QUANTISATION_VERSION and self.ftype != _F16
        ):
            return f"ftype is {self.ftype}, allowed is 1 (f16) or a quantisation such as 2007 (q8_0)"
        if self.n_audio_state % (block := _MATRIX_TYPES[self.matrix_ftype][2]):
            return (
                f"ftype {self.ftype} stores blocks of {block} values, into which rows of "
                f"{self.n_audio_state} do not divide"
            )
        return None

    @property
    def matrix_ftype(self) -> int:
        """Number format of the matrices: ftype without the quantisation version."""
        return self.ftype % _QUANTISATION_VERSION_FACTOR


_HEADER: Final = struct.Struct("<I11i")
_OTHER_MODEL: Final = "take a Whisper of a published size, in f16 or quantised from it"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a ggml file."""

    name: str
    shape: tuple[int, ...]
    """Outermost dimension first; the file has them innermost first."""

    @property
    def is_float32(self) -> bool:
        """Vectors, convolution biases and positions stay float32 in every ggml file."""
        return len(self.shape) == 1 or self.shape[-1] == 1 or self.name.endswith("positional_embedding")

    @property
    def plain_shape(self) -> tuple[int, ...]:
        """Shape in all other formats: only ggml's convolution biases are [n, 1]."""
        return self.shape[:1] if self.shape[-1] == 1 else self.shape

    def layout(self, header: Header) -> tuple[int, int]:
        """Return its ggml_type and its bytes in a file with this header."""
        values = math.prod(self.shape)
        if self.is_float32 or header.ftype == _F32:
            return _F32, 4 * values
        ftype = _F16 if len(self.shape) == 3 else header.matrix_ftype  # convolutions are never quantised
        kind, block_bytes, block_values = _MATRIX_TYPES[ftype]
        return kind, values // block_values * block_bytes


def quantised(header: Header, ftype: int) -> Header:
    """Return the header of a model with its matrices in another file type of ggml, such as 7 (q8_0)."""
    return replace(header, ftype=_QUANTISATION_VERSION * _QUANTISATION_VERSION_FACTOR + ftype)


def tensor_bytes(header: Header) -> int:
    """Return how many bytes of a file are values; the rest does not depend on the file type."""
    return sum(tensor.layout(header)[1] for tensor in tensors(header))


def tensors(header: Header) -> Iterator[Tensor]:
    """Yield every tensor of a model, in the order of OpenAI's checkpoints."""
    state = header.n_audio_state
    for side, length in (("decoder", header.n_text_ctx), ("encoder", header.n_audio_ctx)):
        yield Tensor(f"{side}.positional_embedding", (length, state))
    yield Tensor("decoder.token_embedding.weight", (header.n_vocab, state))
    for index in range(header.n_text_layer):
        yield from _block("decoder", index, state)
    yield from _norm("decoder.ln", state)
    for name, inputs in (("conv1", header.n_mels), ("conv2", state)):
        yield Tensor(f"encoder.{name}.weight", (state, inputs, 3))
        yield Tensor(f"encoder.{name}.bias", (state, 1))
    for index in range(header.n_audio_layer):
        yield from _block("encoder", index, state)
    yield from _norm("encoder.ln_post", state)


def _block(side: str, index: int, state: int) -> Iterator[Tensor]:
    name = f"{side}.blocks.{index}"
    yield from _norm(f"{name}.mlp_ln", state)
    for mlp, outputs, inputs in (("0", 4 * state, state), ("2", state, 4 * state)):
        yield Tensor(f"{name}.mlp.{mlp}.weight", (outputs, inputs))
        yield Tensor(f"{name}.mlp.{mlp}.bias", (outputs,))
    yield from _attention(f"{name}.attn", state)
    if side == "decoder":
        yield from _attention(f"{name}.cross_attn", state)


def _attention(name: str, state: int) -> Iterator[Tensor]:
    yield from _norm(f"{name}_ln", state)
    for role in ("query", "key", "value", "out"):
        yield Tensor(f"{name}.{role}.weight", (state, state))
        if role != "key":  # Whisper's keys have no bias
            yield Tensor(f"{name}.{role}.bias", (state,))


def _norm(name: str, state: int) -> Iterator[Tensor]:
    yield Tensor(f"{name}.weight", (state,))
    yield Tensor(f"{name}.bias", (state,))


class Reader:
    """Reads a file front to back and never past its end."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file = file
        self.name = name
        self.size = file.seek(0, 2)
        self.position = file.seek(0)

    def fail(self, what: str, remedy: str = "fetch it again") -> ModelCorruptError:
        """Return the error that says what is wrong and where."""
        place = f"byte {self.position} of {self.size}"
        return unusable_model(self.name, f"{what[:300]} ({place})", remedy)

    def skip(self, count: int) -> int:
        """Pass over bytes that must be there and return where they begin."""
        start = self.position
        if count > self.size - start:
            raise self.fail(f"it ends where {count} more bytes should be")
        self.position = start + count
        return start

    def take(self, count: int) -> bytes:
        """Read bytes that must be there."""
        self.file.seek(self.skip(count))
        data = self.file.read(count)
        if len(data) != count:
            raise self.fail("it shrank while it was read")
        return data

    def text(self) -> str:
        """Read a CTranslate2 string, whose length counts a terminating zero."""
        return self.take(self.number("<H")).rstrip(b"\0").decode("utf-8", "backslashreplace")

    def numbers(self, layout: str) -> tuple[int, ...]:
        """Read numbers in a layout of `struct`."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def number(self, layout: str) -> int:
        """Read one number in a layout of `struct`."""
        return self.numbers(layout)[0]


def _read_header(reader: Reader, *, may_be_f32: bool = False) -> Header:
    if reader.size < _HEADER.size:
        raise reader.fail(f"it is shorter than its {_HEADER.size} bytes of header")
    magic, *fields = reader.numbers(_HEADER.format)
    if magic != MAGIC:
        raise reader.fail(f"it begins with {magic:#010x} instead of {MAGIC:#010x}")
    header = Header(*fields)
    if problem := header.problem(may_be_f32=may_be_f32):
        raise reader.fail(problem, _OTHER_MODEL)
    return header


def _read_filters(reader: Reader, header: Header) -> bytes:
    n_mels, n_fft = reader.numbers("<2i")
    if (n_mels, n_fft) != (header.n_mels, BINS):
        raise reader.fail(f"its mel filters are {n_mels} x {n_fft} instead of {header.n_mels} x {BINS}")
    filters = reader.take(n_mels * n_fft * 4)
    if not np.isfinite(np.frombuffer(filters, "<f4")).all():
        raise reader.fail("its mel filters are not all finite numbers")
    return filters


def check(path: Path, *, may_be_f32: bool = False) -> Header:
    """Walk a whole ggml Whisper file without loading it (some 0.1 s).

    Header, filters, words and each tensor must be there with the shape and type that the header implies, and
    the file must end with the last one. Values are not looked at: that is what hashes are for. A file all in
    f32 is let through only if asked for: it can be quantised, but not run.

    Returns:
        The header.

    Raises:
        ModelCorruptError: Naming what is wrong and where.
    """
    with path.open("rb") as file:
        reader = Reader(file, path.name)
        header = _read_header(reader, may_be_f32=may_be_f32)
        _read_filters(reader, header)
        if b" " not in _read_words(reader, header):  # whisper.cpp looks it up and would throw
            raise reader.fail("no word is a single space")
        missing = {tensor.name: tensor for tensor in tensors(header)}
        if reader.position == reader.size:
            raise reader.fail("it holds no weights")
        while reader.position < reader.size:
            _skip_tensor(reader, header, missing)
        if missing:
            raise reader.fail(f"{len(missing)} tensors are missing, among them {next(iter(missing))}")
    return header


def read_words(path: Path) -> tuple[Header, list[bytes]]:
    """Return the header and the words of a ggml file.

    Raises:
        ModelCorruptError: Naming what is wrong and where.
    """
    with path.open("rb") as file:
        reader = Reader(file, path.name)
        header = _read_header(reader)
        _read_filters(reader, header)
        return header, _read_words(reader, header)


def _read_words(reader: Reader, header: Header) -> list[bytes]:
    n_words = reader.number("<i")
    if not N_WORDS - 1 <= n_words <= header.n_vocab:  # some converters leave out end-of-text
        raise reader.fail(f"it has {n_words} words")
    words = []
    for _ in range(n_words):
        length = reader.number("<i")
        if not 0 <= length <= MAX_WORD_BYTES:
            raise reader.fail(f"a word has {length} bytes")
        words.append(reader.take(length))
    return words


def _skip_tensor(reader: Reader, header: Header, missing: dict[str, Tensor]) -> None:
    """Pass over one tensor and strike it off the list."""
    rank, name_bytes, kind = reader.numbers("<3i")
    if not 1 <= rank <= 3 or not 1 <= name_bytes <= _MAX_NAME_BYTES:
        raise reader.fail(f"a tensor has {rank} dimensions and a name of {name_bytes} bytes")
    shape = reader.numbers(f"<{rank}i")[::-1]
    name = reader.take(name_bytes).decode("utf-8", "backslashreplace")
    tensor = missing.pop(name, None)
    if tensor is None:
        raise reader.fail(f"tensor {name!r} is unknown or comes twice")
    expected_kind, size = tensor.layout(header)
    if (shape, kind) != (tensor.shape, expected_kind):
        raise reader.fail(f"{name} is {shape} of type {kind}, not {tensor.shape} of type {expected_kind}")
    reader.skip(size)


def header_of(weights: Weights) -> Header:
    """Return the header of the f16 file for these weights, which the shapes give.

    Raises:
        ModelCorruptError: They are not those of a Whisper of a published size, with each tensor once, or the
            file says otherwise.
    """

    def shape(name: str, rank: int) -> tuple[int, ...]:
        stored = weights.tensors.get(name)
        if stored is None or len(stored.shape) != rank:
            raise _refuse(weights, f"{name} is missing or has not {rank} dimensions")
        return stored.shape

    def layers(side: str) -> int:
        numbers = (re.fullmatch(rf"{side}\.blocks\.(\d{{1,3}})\..*", name) for name in weights.tensors)
        return len({number[1] for number in numbers if number})

    n_vocab, state = shape("decoder.token_embedding.weight", 2)
    header = Header(
        n_vocab=n_vocab,
        n_audio_ctx=shape("encoder.positional_embedding", 2)[0],
        n_audio_state=state,
        n_audio_head=state // _HEAD_DIM,
        n_audio_layer=layers("encoder"),
        n_text_ctx=shape("decoder.positional_embedding", 2)[0],
        n_text_state=state,
        n_text_head=state // _HEAD_DIM,
        n_text_layer=layers("decoder"),
        n_mels=shape("encoder.conv1.weight", 3)[1],
        ftype=_F16,
    )
    if problem := header.problem():
        raise _refuse(weights, problem, _OTHER_MODEL)
    for name, value in weights.told.items():
        if value != (seen := getattr(header, name, value)):
            raise _refuse(weights, f"it says that {name} is {value}, but it is {seen}")
    wanted = {tensor.name: tensor for tensor in tensors(header)}
    if unknown := weights.tensors.keys() - wanted.keys():
        raise _refuse(weights, f"Whisper has no {min(unknown)!r:.120}, which would be lost")
    for name, tensor in wanted.items():
        if (seen := shape(name, len(tensor.plain_shape))) != tensor.plain_shape:
            raise _refuse(weights, f"{name} is {seen}, not {tensor.plain_shape}")
    return header


def write(
    weights: Weights, words: Sequence[bytes], out: BinaryIO, advance: Callable[[int], None] | None = None
) -> Header:
    """Write an f16 model; the same weights and words give the same bytes.

    Args:
        weights: Where all of them are.
        words: N_WORDS of them.
        out: Where to write; what is there after an error is of no use.
        advance: Told the number of bytes after each piece written.

    Returns:
        The header written.

    Raises:
        ModelCorruptError: As `header_of`, or the values cannot be read or are not finite.
    """
    header, tell = header_of(weights), advance or (lambda _count: None)
    filters = mel_filters(header.n_mels).astype("<f4").tobytes()
    front = bytearray(_HEADER.pack(MAGIC, *astuple(header)))
    front += struct.pack("<2i", header.n_mels, BINS) + filters + struct.pack("<i", len(words))
    for word in words:
        front += struct.pack("<i", len(word)) + word
    tell(out.write(front))
    for tensor in tensors(header):
        (kind, _), rank, name = tensor.layout(header), len(tensor.shape), tensor.name.encode()
        tell(out.write(struct.pack(f"<3i{rank}i", rank, len(name), kind, *tensor.shape[::-1]) + name))
        for halves in weights.tensors[tensor.name].halves(tensor.name):
            tell(out.write((halves.astype("<f4") if kind == _F32 else halves).tobytes()))
    return header


def _refuse(weights: Weights, what: str, remedy: str = "fetch it again") -> ModelCorruptError:
    return unusable_model(weights.path.name, what, remedy)
