"""Whisper model files: checks ggml files, and makes them from CTranslate2 ones without loss.

The way of one conversion:

1. `_read_variables` walks the CTranslate2 `model.bin` and notes where each variable lies.
2. The shapes give the header; `tensors` lists every tensor that a model with this header has.
3. The mel filter bank comes from a weightless ggml file of upstream, the words from the vocabulary that
   CTranslate2 keeps beside `model.bin`. (The words in the weightless files are no use: there, each token that
   is not UTF-8 on its own has become U+FFFD.)
4. `convert` writes header, filters, words and tensors in the order of OpenAI's checkpoints, so that the
   result is byte for byte the file that upstream publishes.
"""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from edgevoice.errors import ModelCorruptError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    _Place = tuple[int, int, int]  # number of the linear layer, part, parts

UPSTREAM_DIR: Final = Path(__file__).parent / "upstream"
"""Files of the whisper.cpp tree that the build copies into the package."""

GGML_MAGIC: Final = 0x67676D6C
"""First four bytes of every ggml file, "ggml" as a little-endian number."""

_MEL_TEMPLATE: Final = "for-tests-ggml-base.bin"
_N_FFT: Final = 201  # bins of a 400-sample Fourier transform, Whisper's 25 ms window at 16 kHz
_N_WORDS: Final = 50_257  # GPT-2's vocabulary; whisper.cpp names the tokens after it by itself
_MAX_WORD_BYTES: Final = 128  # GPT-2's longest; upstream's quantiser keeps a word in 129 bytes
_MAX_NAME_BYTES: Final = 64  # the longest tensor name has 43
_HEAD_DIM: Final = 64  # in every Whisper model
_COPY_BYTES: Final = 1 << 20  # enough for full disk speed, little beside the model

_AUDIO_CTX: Final = 1500  # encoder positions, 30 s
_TEXT_CTX: Final = 448  # decoder positions
_LAYERS: Final[Mapping[int, int]] = {384: 4, 512: 6, 768: 12, 1024: 24, 1280: 32}
"""State -> layers of the published sizes: tiny, base, small, medium, large."""

_DISTILLED_LAYERS: Final = (2, 4)  # of the decoder: distilled models and turbo

_F32: Final = 0
_F16: Final = 1
_BLOCK_VALUES: Final = 32  # values per block of the quantised types below

# ggml_ftype of the header -> ggml_type of the matrices, bytes and values per block (ggml.h, ggml-common.h)
_MATRIX_TYPES: Final[Mapping[int, tuple[int, int, int]]] = {
    _F16: (_F16, 2, 1),
    2: (2, 18, _BLOCK_VALUES),  # q4_0
    3: (3, 20, _BLOCK_VALUES),  # q4_1
    7: (8, 34, _BLOCK_VALUES),  # q8_0
    8: (6, 22, _BLOCK_VALUES),  # q5_0
    9: (7, 24, _BLOCK_VALUES),  # q5_1
}
_QUANTISATION_VERSION: Final = 2  # the only block layout that whisper.cpp still reads
_QUANTISATION_VERSION_FACTOR: Final = 1000  # ggml adds this times the version of the block layout to ftype

_CT2_VERSION: Final = 6
_CT2_SPEC: Final = "WhisperSpec"
_CT2_F16: Final = 4  # its number for float16
_CT2_MAX_VARIABLES: Final = 4096  # large has 1,300; bounds the walk of a malformed file


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

    def problem(self) -> str | None:
        """What makes whisper.cpp misbehave, or None: it trusts these numbers and sizes memory by them.

        As strict as csrc/model_file.cpp, which checks again before each use.
        """
        layers = _LAYERS.get(self.n_audio_state, 0)
        allowed: dict[str, tuple[int, ...]] = {
            "n_vocab": (51_864, 51_865, 51_866),  # English, multilingual, large-v3
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
        if self.ftype == _F32:
            return "its weights are all f32 (ftype 0), on which whisper.cpp aborts"
        version = self.ftype // _QUANTISATION_VERSION_FACTOR
        if self.matrix_ftype not in _MATRIX_TYPES or (
            version != _QUANTISATION_VERSION and self.ftype != _F16
        ):
            return f"ftype is {self.ftype}, allowed is 1 (f16) or a quantisation such as 2007 (q8_0)"
        return None

    @property
    def matrix_ftype(self) -> int:
        """Number format of the matrices: ftype without the quantisation version."""
        return self.ftype % _QUANTISATION_VERSION_FACTOR


_HEADER: Final = struct.Struct("<I11i")
_OTHER_MODEL: Final = "take a Whisper of a published size, in f16 or quantised from it"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a ggml file and where CTranslate2 keeps its values."""

    name: str
    shape: tuple[int, ...]
    """Outermost dimension first; the file has them innermost first."""

    source: str
    """CTranslate2 variable."""

    part: int = 0
    parts: int = 1
    """It is the part-th of this many equal pieces stacked in the variable."""

    @property
    def is_float32(self) -> bool:
        """Vectors, convolution biases and positions stay float32 in every ggml file."""
        return len(self.shape) == 1 or self.shape[-1] == 1 or self.name.endswith("positional_embedding")

    def layout(self, header: Header) -> tuple[int, int]:
        """Return its ggml_type and its bytes in a file with this header."""
        values = math.prod(self.shape)
        if self.is_float32:
            return _F32, 4 * values
        ftype = _F16 if len(self.shape) == 3 else header.matrix_ftype  # convolutions are never quantised
        kind, block_bytes, block_values = _MATRIX_TYPES[ftype]
        return kind, values // block_values * block_bytes


def tensors(header: Header) -> Iterator[Tensor]:
    """Yield every tensor of a model, in the order of OpenAI's checkpoints."""
    state = header.n_audio_state
    for side, length in (("decoder", header.n_text_ctx), ("encoder", header.n_audio_ctx)):
        yield Tensor(f"{side}.positional_embedding", (length, state), f"{side}/position_encodings/encodings")
    yield Tensor("decoder.token_embedding.weight", (header.n_vocab, state), "decoder/embeddings/weight")
    for index in range(header.n_text_layer):
        yield from _block("decoder", index, state)
    yield from _norm("decoder.ln", "decoder/layer_norm", state)
    for name, inputs in (("conv1", header.n_mels), ("conv2", state)):
        yield Tensor(f"encoder.{name}.weight", (state, inputs, 3), f"encoder/{name}/weight")
        yield Tensor(f"encoder.{name}.bias", (state, 1), f"encoder/{name}/bias")
    for index in range(header.n_audio_layer):
        yield from _block("encoder", index, state)
    yield from _norm("encoder.ln_post", "encoder/layer_norm", state)


def _block(side: str, index: int, state: int) -> Iterator[Tensor]:
    name, source = f"{side}.blocks.{index}", f"{side}/layer_{index}"
    yield from _norm(f"{name}.mlp_ln", f"{source}/ffn/layer_norm", state)
    for mlp, linear, outputs, inputs in (("0", 0, 4 * state, state), ("2", 1, state, 4 * state)):
        yield Tensor(f"{name}.mlp.{mlp}.weight", (outputs, inputs), f"{source}/ffn/linear_{linear}/weight")
        yield Tensor(f"{name}.mlp.{mlp}.bias", (outputs,), f"{source}/ffn/linear_{linear}/bias")
    # CTranslate2 stacks query, key, value of self-attention, and key, value of cross-attention
    places = {"query": (0, 0, 3), "key": (0, 1, 3), "value": (0, 2, 3), "out": (1, 0, 1)}
    yield from _attention(f"{name}.attn", f"{source}/self_attention", state, places)
    if side == "decoder":
        places = {"query": (0, 0, 1), "key": (1, 0, 2), "value": (1, 1, 2), "out": (2, 0, 1)}
        yield from _attention(f"{name}.cross_attn", f"{source}/attention", state, places)


def _attention(name: str, source: str, state: int, places: Mapping[str, _Place]) -> Iterator[Tensor]:
    yield from _norm(f"{name}_ln", f"{source}/layer_norm", state)
    for role, (linear, part, parts) in places.items():
        yield Tensor(f"{name}.{role}.weight", (state, state), f"{source}/linear_{linear}/weight", part, parts)
        if role != "key":  # Whisper's keys have no bias
            yield Tensor(f"{name}.{role}.bias", (state,), f"{source}/linear_{linear}/bias", part, parts)


def _norm(name: str, source: str, state: int) -> Iterator[Tensor]:
    yield Tensor(f"{name}.weight", (state,), f"{source}/gamma")
    yield Tensor(f"{name}.bias", (state,), f"{source}/beta")


class _Reader:
    """Reads a file front to back and never past its end."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file = file
        self.name = name
        self.size = file.seek(0, 2)
        self.position = file.seek(0)

    def fail(self, what: str, remedy: str = "fetch it again") -> ModelCorruptError:
        place = f"byte {self.position} of {self.size}"
        return ModelCorruptError(f"{self.name} is no usable Whisper model: {what} ({place}); {remedy}")

    def skip(self, count: int) -> int:
        """Pass over bytes that must be there and return where they begin."""
        start = self.position
        if count > self.size - start:
            raise self.fail(f"it ends where {count} more bytes should be")
        self.position = start + count
        return start

    def take(self, count: int) -> bytes:
        self.file.seek(self.skip(count))
        data = self.file.read(count)
        if len(data) != count:
            raise self.fail("it shrank while it was read")
        return data

    def text(self) -> str:
        """Read a CTranslate2 string, whose length counts a terminating zero."""
        return self.take(self.number("<H")).rstrip(b"\0").decode("utf-8", "backslashreplace")

    def numbers(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def number(self, layout: str) -> int:
        return self.numbers(layout)[0]


def _read_header(reader: _Reader) -> Header:
    if reader.size < _HEADER.size:
        raise reader.fail(f"it is shorter than its {_HEADER.size} bytes of header")
    magic, *fields = reader.numbers(_HEADER.format)
    if magic != GGML_MAGIC:
        raise reader.fail(f"it begins with {magic:#010x} instead of {GGML_MAGIC:#010x}")
    header = Header(*fields)
    if problem := header.problem():
        raise reader.fail(problem, _OTHER_MODEL)
    return header


def _read_filters(reader: _Reader, header: Header) -> bytes:
    n_mels, n_fft = reader.numbers("<2i")
    if (n_mels, n_fft) != (header.n_mels, _N_FFT):
        raise reader.fail(f"its mel filters are {n_mels} x {n_fft} instead of {header.n_mels} x {_N_FFT}")
    filters = reader.take(n_mels * n_fft * 4)
    if not np.isfinite(np.frombuffer(filters, "<f4")).all():
        raise reader.fail("its mel filters are not all finite numbers")
    return filters


def check_ggml(path: Path) -> Header:
    """Walk a whole ggml Whisper file without loading it (some 0.1 s).

    Header, filters, words and each tensor must be there with the shape and type that the header implies, and
    the file must end with the last one. Values are not looked at: that is what hashes are for.

    Returns:
        The header.

    Raises:
        ModelCorruptError: Naming what is wrong and where.
    """
    with path.open("rb") as file:
        reader = _Reader(file, path.name)
        header = _read_header(reader)
        _read_filters(reader, header)
        n_words = reader.number("<i")
        if not _N_WORDS - 1 <= n_words <= header.n_vocab:  # some converters leave out end-of-text
            raise reader.fail(f"it has {n_words} words")
        has_space = False
        for _ in range(n_words):
            length = reader.number("<i")
            if not 0 <= length <= _MAX_WORD_BYTES:
                raise reader.fail(f"a word has {length} bytes")
            has_space |= reader.take(length) == b" "
        if not has_space:  # whisper.cpp looks it up and would throw
            raise reader.fail("no word is a single space")
        missing = {tensor.name: tensor for tensor in tensors(header)}
        if reader.position == reader.size:
            raise reader.fail("it holds no weights")
        while reader.position < reader.size:
            _skip_tensor(reader, header, missing)
        if missing:
            raise reader.fail(f"{len(missing)} tensors are missing, among them {next(iter(missing))}")
    return header


def _skip_tensor(reader: _Reader, header: Header, missing: dict[str, Tensor]) -> None:
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


@dataclass(frozen=True, slots=True)
class _Variable:
    """A variable of a CTranslate2 file and where its values are."""

    shape: tuple[int, ...]
    dtype: int
    start: int
    """Byte position of the values."""

    size: int
    """Bytes of the values."""


def convert(
    model: Path, vocabulary: Path, out: BinaryIO, advance: Callable[[int], None] | None = None
) -> Header:
    """Write a ggml model from a float16 CTranslate2 one; the same input gives the same bytes.

    Args:
        model: `model.bin`.
        vocabulary: The `vocabulary.txt` or `vocabulary.json` that belongs to it.
        out: Where to write; what is there after an error is of no use.
        advance: Told the number of bytes after each piece written.

    Returns:
        The header written.

    Raises:
        ModelCorruptError: An input is truncated, malformed or no float16 Whisper.
        ModelNotFoundError: The vocabulary or upstream's files are missing.
    """
    tell = advance or (lambda _count: None)
    with model.open("rb") as file:
        reader = _Reader(file, model.name)
        variables = _read_variables(reader)
        header = _derive_header(reader, variables)
        wanted = list(tensors(header))
        for tensor in wanted:
            _check_source(reader, tensor, variables)
        for tensor in wanted:
            if tensor.name.endswith("key.weight"):
                _check_key_bias(reader, tensor, variables)
        front = _HEADER.pack(GGML_MAGIC, *astuple(header)) + _filters(header) + _words(vocabulary, header)
        tell(out.write(front))
        for tensor in wanted:
            tell(_copy(file, tensor, variables[tensor.source], out))
    return header


def _read_variables(reader: _Reader) -> dict[str, _Variable]:
    """Find the variables of a CTranslate2 Whisper file."""
    version, spec = reader.number("<I"), reader.text()
    if (version, spec) != (_CT2_VERSION, _CT2_SPEC):
        raise reader.fail(
            f"it says version {version} of {spec!r}, not version {_CT2_VERSION} of {_CT2_SPEC!r}"
        )
    _revision, count = reader.numbers("<2I")
    if count > _CT2_MAX_VARIABLES:
        raise reader.fail(f"it says {count} variables")
    variables = {}
    for _ in range(count):
        key = reader.text()
        shape = reader.numbers(f"<{reader.number('<B')}I")
        dtype, size = reader.numbers("<BI")
        variables[key] = _Variable(shape, dtype, reader.skip(size), size)
    for _ in range(reader.number("<I")):  # pairs of names: the output projection is the embedding
        reader.text()
        reader.text()
    if reader.position != reader.size:
        raise reader.fail("bytes follow its end")
    return variables


def _derive_header(reader: _Reader, variables: Mapping[str, _Variable]) -> Header:
    def shape(key: str, rank: int) -> tuple[int, ...]:
        variable = variables.get(key)
        if variable is None or len(variable.shape) != rank:
            raise reader.fail(f"{key} is missing or has not {rank} dimensions")
        return variable.shape

    def scalar(key: str) -> int:
        shape(key, 0)
        reader.file.seek(variables[key].start)
        return int.from_bytes(reader.file.read(min(variables[key].size, 8)), "little")

    def layers(side: str) -> int:
        return sum(
            re.fullmatch(rf"{side}/layer_\d+/ffn/linear_0/weight", key) is not None for key in variables
        )

    n_vocab, state = shape("decoder/embeddings/weight", 2)
    header = Header(
        n_vocab=n_vocab,
        n_audio_ctx=shape("encoder/position_encodings/encodings", 2)[0],
        n_audio_state=state,
        n_audio_head=scalar("encoder/num_heads"),
        n_audio_layer=layers("encoder"),
        n_text_ctx=shape("decoder/position_encodings/encodings", 2)[0],
        n_text_state=state,
        n_text_head=scalar("decoder/num_heads"),
        n_text_layer=layers("decoder"),
        n_mels=shape("encoder/conv1/weight", 3)[1],
        ftype=_F16,
    )
    if problem := header.problem():
        raise reader.fail(problem, _OTHER_MODEL)
    return header


def _check_source(reader: _Reader, tensor: Tensor, variables: Mapping[str, _Variable]) -> None:
    variable = variables.get(tensor.source)
    if variable is None:
        raise reader.fail(f"{tensor.source} is missing")
    if variable.dtype != _CT2_F16:
        raise reader.fail(f"{tensor.source} has number format {variable.dtype}, not float16 ({_CT2_F16})")
    shape = (
        tensor.shape[:1] if tensor.shape[-1] == 1 else tensor.shape
    )  # ggml's convolution biases are [n, 1]
    expected = (shape[0] * tensor.parts, *shape[1:])
    if variable.shape != expected or variable.size != 2 * math.prod(expected):
        raise reader.fail(
            f"{tensor.source} has shape {variable.shape}, {variable.size} bytes, not {expected}"
        )


def _check_key_bias(reader: _Reader, key: Tensor, variables: Mapping[str, _Variable]) -> None:
    """Make sure that leaving out the bias of the keys, for which ggml has no tensor, loses nothing."""
    source = key.source.removesuffix("weight") + "bias"
    bias = variables[source]  # there, as query or value have a piece of it
    reader.file.seek(bias.start + key.part * bias.size // key.parts)
    if np.frombuffer(reader.file.read(bias.size // key.parts), "<f2").any():
        raise reader.fail(f"{source} is not zero for the keys, as Whisper's are")


def _copy(file: BinaryIO, tensor: Tensor, variable: _Variable, out: BinaryIO) -> int:
    """Write one tensor; return the bytes written."""
    shape, name = tensor.shape, tensor.name.encode()
    kind = _F32 if tensor.is_float32 else _F16
    written = out.write(struct.pack(f"<3i{len(shape)}i", len(shape), len(name), kind, *shape[::-1]) + name)
    left = variable.size // tensor.parts
    file.seek(variable.start + tensor.part * left)
    while left:
        piece = file.read(min(left, _COPY_BYTES))
        if not piece:
            raise ModelCorruptError(f"the file shrank while {tensor.source} was read; try again")
        left -= len(piece)
        written += out.write(np.frombuffer(piece, "<f2").astype("<f4").tobytes() if kind == _F32 else piece)
    return written


def _filters(header: Header) -> bytes:
    """Return the mel filter bank section, from upstream's weightless file."""
    path = UPSTREAM_DIR / _MEL_TEMPLATE
    if not path.is_file():
        raise ModelNotFoundError(f"{path} is missing: run `python build_native.py`, which installs it")
    with path.open("rb") as file:
        reader = _Reader(file, path.name)
        template = _read_header(reader)
        if template.n_mels != header.n_mels:
            raise reader.fail(
                f"the model to convert has {header.n_mels} mel bands, the filters {template.n_mels}"
            )
        return struct.pack("<2i", header.n_mels, _N_FFT) + _read_filters(reader, template)


def _words(path: Path, header: Header) -> bytes:
    """Return the vocabulary section, undoing GPT-2's spelling of bytes as printable characters."""
    try:
        text = path.read_text("utf-8")
        words = json.loads(text) if path.suffix == ".json" else text.removesuffix("\n").split("\n")
        n_known = len(words)
        end_of_text = words.index("<|endoftext|>")
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path} is missing: the model needs the vocabulary it came with") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise ModelCorruptError(
            f"{path.name} is no vocabulary of Whisper ({error}); fetch it again"
        ) from error
    multilingual = header.n_vocab > 51_864  # multilingual models have one more token, an empty one
    if n_known != header.n_vocab or end_of_text != _N_WORDS - 1 + multilingual:
        raise ModelCorruptError(
            f"{path.name} has {n_known} words, end-of-text at {end_of_text}, and cannot belong to a model of "
            f"{header.n_vocab} words; use the file that came with the model"
        )
    byte_of = _gpt2_bytes()
    section = [struct.pack("<i", _N_WORDS)]
    for word in words[:_N_WORDS]:
        try:
            data = word.encode() if word == "<|endoftext|>" else bytes(byte_of[letter] for letter in word)
        except (KeyError, TypeError) as error:
            raise ModelCorruptError(f"{path.name} has the word {word!r}, which GPT-2 cannot spell") from error
        if len(data) > _MAX_WORD_BYTES:
            raise ModelCorruptError(
                f"{path.name} has a word of {len(data)} bytes, more than {_MAX_WORD_BYTES}"
            )
        section.append(struct.pack("<i", len(data)) + data)
    return b"".join(section)


def _gpt2_bytes() -> dict[str, int]:
    """Return GPT-2's map from letters to bytes: printable Latin-1 is itself, the rest follows U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
