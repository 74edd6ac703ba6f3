"""Reads Hugging Face's Whisper models: `model.safetensors`, or its parts and their index, and `config.json`.

A safetensors file is the length of a JSON header (8 bytes), the header with format, shape and place of each
tensor, and the values. That is read here, not by the package `safetensors`: the places are needed, not
arrays, and all of it has less lines than one more compiled package would need checks.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from edgevoice.errors import ModelCorruptError, ModelNotFoundError, unusable_model
from edgevoice.weights import Stored, Weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgevoice.weights import Format

FILE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
"""Names within a folder of Hugging Face."""

_MAX_JSON_BYTES: Final = 1 << 22  # large has 1,260 tensors, with some 150 bytes about each
_MAX_TENSORS: Final = 4096
_MAX_RANK: Final = 8  # convolutions have 3
_MAX_PARTS: Final = 64  # large in float32 has 2
_FORMATS: Final[Mapping[str, Format]] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

_NAMES: Final = (  # in this order; as in upstream's models/convert-h5-to-ggml.py
    (r"^model\.", ""),
    (r"\.layers\.", ".blocks."),
    (r"\.self_attn_layer_norm\.", ".attn_ln."),
    (r"\.encoder_attn_layer_norm\.", ".cross_attn_ln."),
    (r"\.final_layer_norm\.", ".mlp_ln."),
    (r"\.self_attn\.", ".attn."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.out_proj\.", ".out."),
    (r"\.fc1\.", ".mlp.0."),
    (r"\.fc2\.", ".mlp.2."),
    (r"^encoder\.layer_norm\.", "encoder.ln_post."),
    (r"^decoder\.layer_norm\.", "decoder.ln."),
    (r"\.embed_positions\.weight$", ".positional_embedding"),
    (r"\.embed_tokens\.", ".token_embedding."),
)
_PROJECTION: Final = "proj_out.weight"  # of the output; in every Whisper it is the embedding of the tokens
_EMBEDDING: Final = "decoder.token_embedding.weight"
_TOLD: Final = {
    "encoder_attention_heads": "n_audio_head",
    "decoder_attention_heads": "n_text_head",
    "encoder_layers": "n_audio_layer",
    "decoder_layers": "n_text_layer",
    "d_model": "n_audio_state",
    "num_mel_bins": "n_mels",
    "vocab_size": "n_vocab",
    "max_source_positions": "n_audio_ctx",
    "max_target_positions": "n_text_ctx",
}
_COMPUTED: Final = {"model_type": "whisper", "activation_function": "gelu", "scale_embedding": False}
"""What whisper.cpp computes, whatever the configuration says."""


def read(path: Path) -> Weights:
    """Find the tensors of a model in safetensors, or of all parts that an index names.

    Raises:
        ModelCorruptError: a file is truncated, malformed or no Whisper.
        ModelNotFoundError: a part or `config.json` is missing.
    """
    found = _parts(path) if path.suffix == ".json" else _header(path)
    tensors = {}
    for source, stored in found.items():
        name = source
        for pattern, ours in _NAMES:
            name = re.sub(pattern, ours, name)
        if name in tensors:
            raise _fail(path, f"two tensors are its {name}")
        tensors[name] = stored
    if projection := tensors.pop(_PROJECTION, None):
        _check_projection(path, projection, tensors.get(_EMBEDDING))
    words = [path.with_name(name) for name in ("vocab.json", "tokenizer.json")]
    vocabulary = next((each for each in words if each.is_file()), words[0])
    return Weights(path, tensors, _told(path.with_name("config.json")), vocabulary)


def _header(path: Path) -> dict[str, Stored]:
    """Return the tensors of one file; every byte of it must be in exactly one of them."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _MAX_JSON_BYTES):
            raise _fail(path, f"it says {length} bytes of header, {size} are in all")
        header = _json(path, file.read(length))
    if len(header) > _MAX_TENSORS:
        raise _fail(path, f"it says {len(header)} tensors")
    tensors, places = {}, []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        stored, end = _tensor(path, name, entry, 8 + length)
        tensors[name] = stored
        places.append((stored.start, end, name))
    position = 8 + length
    for start, end, name in sorted(places):
        if start != position or end > size:
            raise _fail(path, f"{name} lies at byte {start} to {end}, expected at {position}, of {size}")
        position = end
    if position != size:
        raise _fail(path, f"{size - position} bytes follow its last tensor")
    return tensors


def _tensor(path: Path, name: str, entry: object, base: int) -> tuple[Stored, int]:
    """Return a tensor and where its place ends."""
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [first, last]} if len(
            shape
        ) <= _MAX_RANK and all(type(n) is int and n >= 0 for n in (*shape, first, last)):
            pass
        case _:
            raise _fail(path, f"its header says of {name!r:.80} only {entry!r:.120}")
    if dtype not in _FORMATS:
        raise _fail(
            path,
            f"{name} is {dtype}, not one of {', '.join(_FORMATS)}",
            "take a model that is not quantised, and `edgevoice models quantize` the result",
        )
    stored = Stored(path, base + first, tuple(shape), _FORMATS[dtype])
    if last - first != stored.size:
        raise _fail(path, f"{name} has shape {shape} of {dtype}, but {last - first} bytes")
    return stored, base + last


def _parts(index: Path) -> dict[str, Stored]:
    """Return the tensors of all parts, which must be those that the index lists."""
    wanted = _json_file(index).get("weight_map")
    if not isinstance(wanted, dict) or not all(isinstance(name, str) for name in wanted.values()):
        raise _fail(index, "it lists no files")
    names = sorted(set(wanted.values()))
    if len(names) > _MAX_PARTS or len(wanted) > _MAX_TENSORS:
        raise _fail(index, f"it lists {len(wanted)} tensors in {len(names)} files")
    tensors: dict[str, Stored] = {}
    for name in names:
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name) is None:  # never out of the folder
            raise _fail(index, f"it names a file {name!r:.80}, which may only be a plain name in its folder")
        part = index.with_name(name)
        if not part.is_file():
            raise ModelNotFoundError(f"{part} is missing: {index.name} lists it; fetch all parts")
        found = _header(part)
        if found.keys() != {tensor for tensor, file in wanted.items() if file == name}:
            raise _fail(index, f"it lists other tensors of {name} than are in there")
        tensors |= found
    return tensors


def _told(config: Path) -> dict[str, int]:
    """Return what the configuration says of the sizes."""
    if not config.is_file():
        raise ModelNotFoundError(f"{config} is missing: it belongs to the model; fetch it, too")
    values = _json_file(config)
    for key, computed in _COMPUTED.items():
        if (value := values.get(key, computed)) != computed:
            raise _fail(config, f"{key} is {value!r:.40}, not {computed!r}", "take a Whisper model")
    told = {ours: values[key] for key, ours in _TOLD.items() if key in values}
    for key, value in told.items():
        if type(value) is not int:
            raise _fail(config, f"{key} is {value!r:.40}, no number")
    if not {"n_audio_head", "n_text_head"} <= told.keys():
        raise _fail(config, "it does not say how many attention heads there are")
    return told


def _check_projection(path: Path, projection: Stored, embedding: Stored | None) -> None:
    """Make sure that leaving out the output's projection loses nothing: it must be the embedding."""
    if (
        embedding is None
        or (projection.shape, projection.format) != (embedding.shape, embedding.format)
        or any(a != b for a, b in zip(projection.bytes(), embedding.bytes(), strict=True))
    ):
        raise _fail(path, f"{_PROJECTION} is not the embedding of its tokens, as in Whisper", "take another")


def _json_file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(_MAX_JSON_BYTES + 1)
    if len(data) > _MAX_JSON_BYTES:
        raise _fail(path, f"it has more than {_MAX_JSON_BYTES} bytes")
    return _json(path, data)


def _json(path: Path, data: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name comes twice")
        return found

    try:
        value = json.loads(data.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise _fail(path, f"it is no JSON ({error})") from None
    if not isinstance(value, dict):
        raise _fail(path, "its JSON is no object")
    return value


def _fail(path: Path, what: str, remedy: str = "fetch it again") -> ModelCorruptError:
    return unusable_model(path.name, what, remedy)
