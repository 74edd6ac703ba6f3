"""Reads CTranslate2's Whisper models: a `model.bin`, with `vocabulary.txt` or `vocabulary.json` beside it.

The file says of each variable its name, shape, number format and size, and then has its values. float16,
bfloat16 and float32 are read. CTranslate2's 8 and 16 bit integers are refused: they have a scale for each
row, which no ggml type has, and would be rounded a second time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgevoice import ggml_file
from edgevoice.weights import Stored, Weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edgevoice.ggml_file import Reader
    from edgevoice.weights import Format

START: Final = b"\x06\0\0\0"
"""First bytes of the file: the version of its layout."""

_SPEC: Final = "WhisperSpec"
_MAX_VARIABLES: Final = 4096  # large has 1,300; bounds the walk of a malformed file
_MAX_RANK: Final = 8  # convolutions have 3
_FORMATS: Final[Mapping[int, Format]] = {0: "float32", 4: "float16", 5: "bfloat16"}
_INTEGERS: Final[Mapping[int, str]] = {1: "int8", 2: "int16"}  # as model weights; scalars are others
_LAYER: Final = re.compile(r"(encoder|decoder)/layer_(\d{1,3})/ffn/linear_0/weight")


@dataclass(frozen=True, slots=True)
class _Variable:
    shape: tuple[int, ...]
    dtype: int
    start: int
    size: int


def read(path: Path) -> Weights:
    """Find the tensors of a CTranslate2 Whisper model.

    Raises:
        ModelCorruptError: the file is truncated, malformed, of another version, or quantised.
    """
    with path.open("rb") as file:
        reader = ggml_file.Reader(file, path.name)
        variables = _read_variables(reader)
        told = {
            f"n_{name}_head": _scalar(reader, variables, f"{side}/num_heads")
            for side, name in (("encoder", "audio"), ("decoder", "text"))
        }
        tensors: dict[str, Stored] = {}
        for name, (source, part, parts) in _places(variables):
            stored = _stored(reader, path, source, variables)
            if not stored.shape or stored.shape[0] % parts:
                raise reader.fail(f"{source} has shape {stored.shape}, which cannot be parted in {parts}")
            rows = stored.shape[0] // parts
            shape = (rows, *stored.shape[1:])
            start = stored.start + part * (stored.size // parts)
            piece = Stored(path, start, shape, stored.format)
            if name.endswith("key.bias"):  # for which ggml has no tensor, as Whisper's keys have none
                if any(values.any() for values in piece.halves(source)):
                    raise reader.fail(f"{source} is not zero for the keys, as Whisper's are")
            else:
                tensors[name] = piece
    words = [path.with_name(f"vocabulary.{suffix}") for suffix in ("txt", "json")]
    vocabulary = next((each for each in words if each.is_file()), words[0])
    return Weights(path, tensors, told, vocabulary)


def _read_variables(reader: Reader) -> dict[str, _Variable]:
    version, spec = reader.number("<I"), reader.text()
    if (version, spec) != (int.from_bytes(START, "little"), _SPEC):
        raise reader.fail(f"it says version {version} of {spec[:40]!r}, not version {START[0]} of {_SPEC!r}")
    _revision, count = reader.numbers("<2I")
    if count > _MAX_VARIABLES:
        raise reader.fail(f"it says {count} variables")
    variables: dict[str, _Variable] = {}
    for _ in range(count):
        key = reader.text()
        rank = reader.number("<B")
        if rank > _MAX_RANK or key in variables:
            raise reader.fail(f"{key} has {rank} dimensions or comes twice")
        shape = reader.numbers(f"<{rank}I")
        dtype, size = reader.numbers("<BI")
        variables[key] = _Variable(shape, dtype, reader.skip(size), size)
    aliases = reader.number("<I")  # pairs of names: the output projection is the embedding
    if aliases > _MAX_VARIABLES:
        raise reader.fail(f"it says {aliases} aliases")
    for _ in range(2 * aliases):
        reader.text()
    if reader.position != reader.size:
        raise reader.fail("bytes follow its end")
    return variables


def _scalar(reader: Reader, variables: Mapping[str, _Variable], key: str) -> int:
    variable = variables.get(key)
    if variable is None or variable.shape:
        raise reader.fail(f"{key} is missing or no single number")
    reader.file.seek(variable.start)
    return int.from_bytes(reader.file.read(min(variable.size, 8)), "little")


def _stored(reader: Reader, path: Path, source: str, variables: Mapping[str, _Variable]) -> Stored:
    variable = variables.get(source)
    if variable is None:
        raise reader.fail(f"{source} is missing")
    if variable.dtype not in _FORMATS:
        kind = _INTEGERS.get(variable.dtype, f"number format {variable.dtype}")
        raise reader.fail(
            f"{source} is {kind}, which ggml cannot hold without rounding once more",
            "take the float16 or float32 model it was made from, and `edgevoice models quantize` the result",
        )
    stored = Stored(path, variable.start, variable.shape, _FORMATS[variable.dtype])
    if stored.size != variable.size:
        raise reader.fail(f"{source} has shape {variable.shape}, but {variable.size} bytes")
    return stored


def _places(variables: Mapping[str, _Variable]) -> Iterator[tuple[str, tuple[str, int, int]]]:
    """Yield each tensor of ggml with its variable, which part of it, of how many stacked parts."""
    for side, last in (("decoder", "ln"), ("encoder", "ln_post")):
        yield f"{side}.positional_embedding", (f"{side}/position_encodings/encodings", 0, 1)
        yield from _norm(f"{side}.{last}", f"{side}/layer_norm")
    yield "decoder.token_embedding.weight", ("decoder/embeddings/weight", 0, 1)
    for name in ("conv1", "conv2"):
        yield from _linear(f"encoder.{name}", f"encoder/{name}")
    for key in variables:
        if found := _LAYER.fullmatch(key):
            yield from _block(found[1], found[2])


def _block(side: str, index: str) -> Iterator[tuple[str, tuple[str, int, int]]]:
    name, source = f"{side}.blocks.{index}", f"{side}/layer_{index}"
    yield from _norm(f"{name}.mlp_ln", f"{source}/ffn/layer_norm")
    yield from _linear(f"{name}.mlp.0", f"{source}/ffn/linear_0")
    yield from _linear(f"{name}.mlp.2", f"{source}/ffn/linear_1")
    # CTranslate2 stacks query, key, value of self-attention, and key, value of cross-attention
    yield from _norm(f"{name}.attn_ln", f"{source}/self_attention/layer_norm")
    for part, role in enumerate(("query", "key", "value")):
        yield from _linear(f"{name}.attn.{role}", f"{source}/self_attention/linear_0", part, 3)
    yield from _linear(f"{name}.attn.out", f"{source}/self_attention/linear_1")
    if side == "decoder":
        yield from _norm(f"{name}.cross_attn_ln", f"{source}/attention/layer_norm")
        yield from _linear(f"{name}.cross_attn.query", f"{source}/attention/linear_0")
        for part, role in enumerate(("key", "value")):
            yield from _linear(f"{name}.cross_attn.{role}", f"{source}/attention/linear_1", part, 2)
        yield from _linear(f"{name}.cross_attn.out", f"{source}/attention/linear_2")


def _linear(
    name: str, source: str, part: int = 0, parts: int = 1
) -> Iterator[tuple[str, tuple[str, int, int]]]:
    for end in ("weight", "bias"):
        yield f"{name}.{end}", (f"{source}/{end}", part, parts)


def _norm(name: str, source: str) -> Iterator[tuple[str, tuple[str, int, int]]]:
    yield f"{name}.weight", (f"{source}/gamma", 0, 1)
    yield f"{name}.bias", (f"{source}/beta", 0, 1)
