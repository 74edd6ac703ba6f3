"""One small Whisper model in every format, each written by hand from the same values."""

from __future__ import annotations

import io
import json
import pickletools
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevoice import ggml_file, vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest

HEADER = ggml_file.Header(51_864, 1500, 64, 1, 1, 448, 64, 1, 1, 80, 1)
"""One layer, one head: smaller than any published Whisper, so `allow_tiny_size` must let it through."""

HF_NAMES = {  # ours -> Hugging Face's, written down from its models rather than computed
    "attn.query": "self_attn.q_proj",
    "attn.key": "self_attn.k_proj",
    "attn.value": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "attn_ln": "self_attn_layer_norm",
    "cross_attn.query": "encoder_attn.q_proj",
    "cross_attn.key": "encoder_attn.k_proj",
    "cross_attn.value": "encoder_attn.v_proj",
    "cross_attn.out": "encoder_attn.out_proj",
    "cross_attn_ln": "encoder_attn_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
    "mlp_ln": "final_layer_norm",
}
HF_OUTER = {
    "encoder.positional_embedding": "encoder.embed_positions.weight",
    "decoder.positional_embedding": "decoder.embed_positions.weight",
    "decoder.token_embedding.weight": "decoder.embed_tokens.weight",
    "encoder.ln_post.weight": "encoder.layer_norm.weight",
    "encoder.ln_post.bias": "encoder.layer_norm.bias",
    "decoder.ln.weight": "decoder.layer_norm.weight",
    "decoder.ln.bias": "decoder.layer_norm.bias",
}
CONFIG = {
    "model_type": "whisper",
    "activation_function": "gelu",
    "d_model": 64,
    "encoder_attention_heads": 1,
    "decoder_attention_heads": 1,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "num_mel_bins": 80,
    "vocab_size": 51_864,
    "max_source_positions": 1500,
    "max_target_positions": 448,
}
DIMS = {
    "n_mels": 80,
    "n_audio_ctx": 1500,
    "n_audio_state": 64,
    "n_audio_head": 1,
    "n_audio_layer": 1,
    "n_vocab": 51_864,
    "n_text_ctx": 448,
    "n_text_state": 64,
    "n_text_head": 1,
    "n_text_layer": 1,
}

Values = dict[str, np.ndarray]


def allow_tiny_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the size of HEADER to the published ones, as real ones would take seconds for each test."""
    monkeypatch.setattr(ggml_file, "_LAYERS", {**ggml_file._LAYERS, 64: 1})


def values(header: ggml_file.Header = HEADER) -> Values:
    """Return random float16 values for each tensor, under ggml's names, the same each time."""
    random = np.random.default_rng(7)
    return {
        tensor.name: random.standard_normal(tensor.plain_shape).astype("<f2")
        for tensor in ggml_file.tensors(header)
    }


def vocabulary_list() -> list[str]:
    """Return 51,864 words as GPT-2 spells them: the single bytes, numbers, and Whisper's special tokens."""
    words = [*vocabulary.gpt2_bytes()]
    words += [f"w{index}" for index in range(len(words), 50_256)]
    return [*words, "<|endoftext|>", *(f"<|{index}|>" for index in range(50_257, 51_864))]


def words_as_bytes() -> list[bytes]:
    """Return the words that belong into the ggml file."""
    byte_of = vocabulary.gpt2_bytes()
    spelled = [bytes(byte_of[letter] for letter in word) for word in vocabulary_list()[:50_256]]
    return [*spelled, b"<|endoftext|>"]


def ggml(found: Values, header: ggml_file.Header = HEADER) -> bytes:
    """Return the ggml file of values, by upstream's rules, independently of the code under test."""
    out = io.BytesIO()
    out.write(struct.pack("<I11i", 0x67676D6C, *(getattr(header, name) for name in header.__slots__)))
    out.write(struct.pack("<2i", 80, 201) + real_filters())
    words = words_as_bytes()
    out.write(struct.pack("<i", len(words)))
    for word in words:
        out.write(struct.pack("<i", len(word)) + word)
    for name in (tensor.name for tensor in ggml_file.tensors(header)):
        value = found[name].astype("<f2")
        if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
            value = value[:, None]
        small = value.ndim < 2 or "conv1.bias" in name or "conv2.bias" in name or "positional" in name
        data = value.astype("<f4") if small else value
        out.write(struct.pack("<3i", value.ndim, len(name), 0 if small else 1))
        out.write(struct.pack(f"<{value.ndim}i", *value.shape[::-1]) + name.encode() + data.tobytes())
    return out.getvalue()


def real_filters() -> bytes:
    """Return the mel filters of upstream's weightless model."""
    from pathlib import Path  # noqa: PLC0415

    path = Path(ggml_file.__file__).parent / "upstream" / "for-tests-ggml-tiny.en.bin"
    return path.read_bytes()[56 : 56 + 80 * 201 * 4]


# --- CTranslate2 ---


def ct2_text(value: str) -> bytes:
    data = value.encode() + b"\0"
    return struct.pack("<H", len(data)) + data


def ct2_variables(found: Values, kind: str = "<f2") -> dict[str, bytes]:
    """Return encoded variables (shape, type, size, values), stacked as CTranslate2 stacks them."""
    named: Values = {}

    def linear(target: str, *sources: str) -> None:
        named[f"{target}/weight"] = np.concatenate([found[f"{source}.weight"] for source in sources])
        zeros = np.zeros(HEADER.n_audio_state, "<f2")  # Whisper's keys have no bias, CTranslate2's have
        named[f"{target}/bias"] = np.concatenate([found.get(f"{source}.bias", zeros) for source in sources])

    def norm(target: str, source: str) -> None:
        named[f"{target}/gamma"], named[f"{target}/beta"] = found[f"{source}.weight"], found[f"{source}.bias"]

    for side in ("encoder", "decoder"):
        name, layer = f"{side}.blocks.0", f"{side}/layer_0"
        named[f"{side}/position_encodings/encodings"] = found[f"{side}.positional_embedding"]
        norm(f"{side}/layer_norm", f"{side}.ln_post" if side == "encoder" else "decoder.ln")
        norm(f"{layer}/ffn/layer_norm", f"{name}.mlp_ln")
        linear(f"{layer}/ffn/linear_0", f"{name}.mlp.0")
        linear(f"{layer}/ffn/linear_1", f"{name}.mlp.2")
        norm(f"{layer}/self_attention/layer_norm", f"{name}.attn_ln")
        linear(
            f"{layer}/self_attention/linear_0", *(f"{name}.attn.{part}" for part in ("query", "key", "value"))
        )
        linear(f"{layer}/self_attention/linear_1", f"{name}.attn.out")
    norm("decoder/layer_0/attention/layer_norm", "decoder.blocks.0.cross_attn_ln")
    for number, parts in enumerate((("query",), ("key", "value"), ("out",))):
        linear(
            f"decoder/layer_0/attention/linear_{number}",
            *(f"decoder.blocks.0.cross_attn.{part}" for part in parts),
        )
    named["decoder/embeddings/weight"] = found["decoder.token_embedding.weight"]
    linear("encoder/conv1", "encoder.conv1")
    linear("encoder/conv2", "encoder.conv2")
    encoded = {}
    number = {"<f2": 4, "<f4": 0}[kind]
    for key, value in named.items():
        data = value.astype(kind).tobytes()
        dims = struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        encoded[key] = dims + struct.pack("<BI", number, len(data)) + data
    for side in ("encoder", "decoder"):
        encoded[f"{side}/num_heads"] = struct.pack("<BBIh", 0, 2, 2, HEADER.n_audio_head)
    return encoded


def ct2_model(variables: Mapping[str, bytes]) -> bytes:
    front = struct.pack("<I", 6) + ct2_text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    body = b"".join(ct2_text(name) + data for name, data in variables.items())
    alias = ct2_text("decoder/projection/weight") + ct2_text("decoder/embeddings/weight")
    return front + body + struct.pack("<I", 1) + alias


def write_ctranslate2(folder: Path, model: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocabulary.txt").write_text("\n".join(vocabulary_list()) + "\n", "utf-8")
    path = folder / "model.bin"
    path.write_bytes(model)
    return path


# --- Hugging Face ---


def hf_name(name: str) -> str:
    if name in HF_OUTER:
        return f"model.{HF_OUTER[name]}"
    side, _, rest = name.partition(".")
    if not rest.startswith("blocks."):
        return f"model.{name}"
    _, index, rest = rest.split(".", 2)
    part, _, end = rest.rpartition(".")
    return f"model.{side}.layers.{index}.{HF_NAMES[part]}.{end}"


def bfloat16(value: np.ndarray) -> bytes:
    """Return values as bfloat16, which must hold them exactly."""
    bits = value.astype("<f4").view("<u4")
    assert not (bits & 0xFFFF).any()
    return (bits >> 16).astype("<u2").tobytes()


def safetensors(found: Values, dtype: str = "F16") -> bytes:
    """Return a file of tensors under the names given."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, value in found.items():
        data = (
            bfloat16(value)
            if dtype == "BF16"
            else value.astype({"F16": "<f2", "F32": "<f4"}[dtype]).tobytes()
        )
        header[name] = {
            "dtype": dtype,
            "shape": list(value.shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    return pack_safetensors(header, body)


def pack_safetensors(header: object, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def hf_values(found: Values) -> Values:
    return {hf_name(name): value for name, value in found.items()}


def write_hf(folder: Path, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    words = vocabulary_list()
    spelled = {word: number for number, word in enumerate(words[:50_257])}
    (folder / "vocab.json").write_text(json.dumps(spelled), "utf-8")
    (folder / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    path = folder / "model.safetensors"
    path.write_bytes(data)
    return path


# --- OpenAI ---


class Pickle:
    """Writes the instructions of a pickle, as torch's pickler does."""

    def __init__(self) -> None:
        self.data = bytearray(b"\x80\x02")
        self.puts = 0

    def put(self) -> None:
        """Remember what is on top."""
        self.data += b"q" + bytes([self.puts]) if self.puts < 256 else b"r" + struct.pack("<I", self.puts)
        self.puts += 1

    def name(self, module: str, name: str) -> None:
        """Ask for something by name."""
        self.data += f"c{module}\n{name}\n".encode()
        self.put()

    def text(self, value: str) -> None:
        """Write a text."""
        self.data += b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        self.put()

    def number(self, value: int) -> None:
        """Write a number."""
        if value < 1 << 31:
            self.data += b"J" + struct.pack("<i", value)
        else:
            self.data += b"\x8a\x08" + struct.pack("<q", value)

    def numbers(self, given: tuple[int, ...]) -> None:
        """Write a tuple of numbers."""
        self.data += b"("
        for value in given:
            self.number(value)
        self.data += b"t"
        self.put()

    def tensor(
        self,
        key: str,
        shape: tuple[int, ...],
        *,
        kind: str = "HalfStorage",
        offset: int = 0,
        count: int | None = None,
        strides: tuple[int, ...] | None = None,
    ) -> None:
        """Write what torch writes of a tensor."""
        self.name("torch._utils", "_rebuild_tensor_v2")
        self.data += b"(("
        self.text("storage")
        self.name("torch", kind)
        self.text(key)
        self.text("cpu")
        self.number(int(np.prod(shape)) if count is None else count)
        self.data += b"tQ"
        self.number(offset)
        self.numbers(shape)
        self.numbers(strides if strides is not None else row_strides(shape))
        self.data += b"\x89"  # requires_grad
        self.name("collections", "OrderedDict")
        self.data += b")Rt"
        self.put()
        self.data += b"R"
        self.put()

    def finish(self) -> bytes:
        """Return all of it."""
        data = bytes(self.data) + b"."
        pickletools.dis(data, io.StringIO())  # it is one
        return data


def row_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[place + 1 :])) for place in range(len(shape)))


def checkpoint(found: Values, dims: Mapping[str, int] | None = None, **changes: Any) -> bytes:
    """Return the data.pkl of a checkpoint; `changes` are for the first tensor."""
    pickle = Pickle()
    pickle.data += b"}("
    pickle.text("dims")
    pickle.data += b"}("
    for name, dimension in (DIMS if dims is None else dims).items():
        pickle.text(name)
        pickle.number(dimension)
    pickle.data += b"u"
    pickle.text("model_state_dict")
    pickle.name("collections", "OrderedDict")
    pickle.data += b")R("
    for number, (name, value) in enumerate(found.items()):
        pickle.text(name)
        kind = "FloatStorage" if value.dtype == np.float32 else "HalfStorage"
        pickle.tensor(str(number), value.shape, **({"kind": kind} | (changes if number == 0 else {})))
    pickle.data += b"u"
    pickle.data += b"}b"  # what torch attaches: here, nothing
    pickle.data += b"u"
    return pickle.finish()


def pt(found: Values, pickle: bytes | None = None, **how: Any) -> bytes:
    """Return the zip that torch.save writes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **how) as archive:
        archive.writestr("tiny/data.pkl", checkpoint(found) if pickle is None else pickle)
        archive.writestr("tiny/byteorder", b"little")
        for number, value in enumerate(found.values()):
            archive.writestr(f"tiny/data/{number}", value.tobytes())
        archive.writestr("tiny/version", b"3\n")
    return out.getvalue()
