"""Conversion of CTranslate2 models and the structural check of ggml files, on small made-up models."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import astuple, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgevoice import convert
from edgevoice.errors import ModelCorruptError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEADER = convert.Header(51_864, 1500, 64, 1, 1, 448, 64, 1, 1, 80, 1)
"""One layer, one head: smaller than any published Whisper, so `allow_tiny_size` must let it through."""


def allow_tiny_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the size of HEADER to the published ones, as real ones would take seconds for each test."""
    monkeypatch.setattr(convert, "_LAYERS", {**convert._LAYERS, 64: 1})


def ct2_text(value: str) -> bytes:
    data = value.encode() + b"\0"
    return struct.pack("<H", len(data)) + data


def ct2_variables(header: convert.Header = HEADER) -> dict[str, bytes]:
    """Return encoded CTranslate2 variables (shape, type, size, values), random but the same each time."""
    random = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {}
    for tensor in convert.tensors(header):
        shape = tensor.shape[:1] if tensor.shape[-1] == 1 else tensor.shape
        shapes[tensor.source] = (shape[0] * tensor.parts, *shape[1:])
    encoded = {}
    for name, shape in shapes.items():
        values = random.standard_normal(shape).astype("<f2")
        state = header.n_audio_state
        if name.endswith("self_attention/linear_0/bias"):
            values[state : 2 * state] = 0  # the keys
        elif name.endswith("/attention/linear_1/bias"):
            values[:state] = 0
        dims = struct.pack(f"<B{len(shape)}I", len(shape), *shape)
        encoded[name] = dims + struct.pack("<BI", 4, values.nbytes) + values.tobytes()
    for side in ("encoder", "decoder"):
        encoded[f"{side}/num_heads"] = struct.pack("<BBIh", 0, 2, 2, header.n_audio_head)
    return encoded


def ct2_model(variables: dict[str, bytes]) -> bytes:
    front = struct.pack("<I", 6) + ct2_text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    body = b"".join(ct2_text(name) + data for name, data in variables.items())
    alias = ct2_text("decoder/projection/weight") + ct2_text("decoder/embeddings/weight")
    return front + body + struct.pack("<I", 1) + alias


def vocabulary() -> list[str]:
    """Return 51,864 words as GPT-2 spells them: the single bytes, numbers, and Whisper's special tokens."""
    words = [*convert._gpt2_bytes()]
    words += [f"w{index}" for index in range(len(words), 50_256)]
    return [*words, "<|endoftext|>", *(f"<|{index}|>" for index in range(50_257, 51_864))]


def ggml_template() -> bytes:
    """Return the front of a weightless ggml file."""
    filters = np.linspace(0, 1, 80 * 201, dtype="<f4").tobytes()
    return struct.pack("<I11i", 0x67676D6C, 51_865, 1500, 512, 8, 6, 448, 512, 8, 6, 80, 1) + (
        struct.pack("<2i", 80, 201) + filters
    )


def write_ctranslate2(folder: Path, model: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocabulary.txt").write_text("\n".join(vocabulary()) + "\n", "utf-8")
    path = folder / "model.bin"
    path.write_bytes(model)
    return path


def converted(model: Path, words: str = "vocabulary.txt") -> bytes:
    out = io.BytesIO()
    convert.convert(model, model.with_name(words), out)
    return out.getvalue()


@pytest.fixture(autouse=True)
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for the files that the native build installs."""
    allow_tiny_size(monkeypatch)
    folder = tmp_path / "upstream"
    folder.mkdir()
    (folder / convert._MEL_TEMPLATE).write_bytes(ggml_template())
    monkeypatch.setattr(convert, "UPSTREAM_DIR", folder)
    return folder


@pytest.fixture(scope="module")
def variables() -> dict[str, bytes]:
    return ct2_variables()


@pytest.fixture
def model(tmp_path: Path, variables: dict[str, bytes]) -> Path:
    return write_ctranslate2(tmp_path / "ct2", ct2_model(variables))


@pytest.fixture
def ggml(model: Path) -> bytes:
    return converted(model)


def read_ggml(data: bytes) -> tuple[list[bytes], dict[str, np.ndarray]]:
    """Read words and tensors by upstream's rules, independently of the code under test."""
    at = 48 + 8 + 80 * 201 * 4
    (count,) = struct.unpack_from("<i", data, at)
    at += 4
    words = []
    for _ in range(count):
        (length,) = struct.unpack_from("<i", data, at)
        words.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    found = {}
    while at < len(data):
        rank, length, kind = struct.unpack_from("<3i", data, at)
        shape = struct.unpack_from(f"<{rank}i", data, at + 12)[::-1]
        at += 12 + 4 * rank
        name = data[at : at + length].decode()
        at += length
        dtype = np.dtype("<f4" if kind == 0 else "<f2")
        values = int(np.prod(shape))
        found[name] = np.frombuffer(data, dtype, values, at).reshape(shape)
        at += values * dtype.itemsize
    return words, found


def source_values(variables: dict[str, bytes], name: str) -> np.ndarray:
    data = variables[name]
    rank = data[0]
    shape = struct.unpack_from(f"<{rank}I", data, 1)
    return np.frombuffer(data, "<f2", offset=1 + 4 * rank + 5).reshape(shape)


class TestConvert:
    """From CTranslate2 to ggml."""

    def test_every_value_survives(self, ggml: bytes, variables: dict[str, bytes]) -> None:
        """Each ggml tensor holds exactly the values of its source; stacked matrices come apart in order."""
        _, found = read_ggml(ggml)
        qkv = source_values(variables, "encoder/layer_0/self_attention/linear_0/weight")
        kv = source_values(variables, "decoder/layer_0/attention/linear_1/weight")
        bias = source_values(variables, "encoder/layer_0/self_attention/linear_0/bias")
        expected = {
            "encoder.blocks.0.attn.query.weight": qkv[:64],
            "encoder.blocks.0.attn.key.weight": qkv[64:128],
            "encoder.blocks.0.attn.value.weight": qkv[128:],
            "encoder.blocks.0.attn.value.bias": bias[128:],
            "decoder.blocks.0.cross_attn.key.weight": kv[:64],
            "decoder.blocks.0.cross_attn.value.weight": kv[64:],
            "encoder.conv1.bias": source_values(variables, "encoder/conv1/bias")[:, None],
            "decoder.token_embedding.weight": source_values(variables, "decoder/embeddings/weight"),
            "decoder.blocks.0.mlp_ln.weight": source_values(
                variables, "decoder/layer_0/ffn/layer_norm/gamma"
            ),
        }
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)
        assert (
            len(found) == 7 + 4 + 15 + 24
        )  # outside the blocks: 4 + 3 decoder, 5 + 2 encoder tensors less 3

    def test_types_are_those_of_upstream(self, ggml: bytes) -> None:
        """Matrices stay float16; vectors, positions and convolution biases are float32."""
        _, found = read_ggml(ggml)
        for name, values in found.items():
            small = values.ndim == 1 or "positional" in name or "conv1.bias" in name or "conv2.bias" in name
            assert values.dtype == (np.float32 if small else np.float16), name

    def test_words_are_bytes(self, ggml: bytes) -> None:
        """Bytes that are no UTF-8 on their own come out as themselves, end-of-text as its name."""
        words, _ = read_ggml(ggml)
        assert sorted(words[:256]) == [bytes([value]) for value in range(256)]
        assert words[50_256:] == [b"<|endoftext|>"]

    def test_is_deterministic_and_passes_its_own_check(
        self, model: Path, ggml: bytes, tmp_path: Path
    ) -> None:
        """Two conversions give the same bytes, and the structural check takes them."""
        assert converted(model) == ggml
        path = tmp_path / "m.bin"
        path.write_bytes(ggml)
        assert convert.check_ggml(path) == HEADER

    def test_json_vocabulary(self, model: Path, ggml: bytes) -> None:
        """The newer vocabulary.json gives the same model."""
        model.with_name("vocabulary.json").write_text(json.dumps(vocabulary()), "utf-8")
        assert converted(model, "vocabulary.json") == ggml

    def test_reports_all_bytes(self, model: Path, ggml: bytes) -> None:
        """The progress callback hears of every byte."""
        heard: list[int] = []
        convert.convert(model, model.with_name("vocabulary.txt"), io.BytesIO(), heard.append)
        assert sum(heard) == len(ggml)

    @pytest.mark.parametrize("keep", [0, 3, 8, 30, 1000, 3_000_000, -1])
    def test_truncated_source(self, model: Path, keep: int) -> None:
        """A source cut anywhere is refused."""
        data = model.read_bytes()
        model.write_bytes(data[:keep])
        with pytest.raises(ModelCorruptError, match=r"model\.bin"):
            converted(model)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda v: v.pop("encoder/conv2/bias"), "encoder/conv2/bias is missing"),
            (lambda v: v.pop("encoder/num_heads"), "encoder/num_heads is missing"),
            (lambda v: v.update({"encoder/num_heads": b"\0\2\2\0\0\0\7\0"}), "n_audio_head is 7"),
            (
                lambda v: v.update({"encoder/conv1/bias": struct.pack("<BIBI", 1, 64, 1, 64) + bytes(64)}),
                "number format 1",
            ),
            (
                lambda v: v.update({"encoder/conv1/bias": struct.pack("<BIBI", 1, 65, 4, 130) + bytes(130)}),
                r"shape \(65,\)",
            ),
            (
                lambda v: v.update(
                    {
                        "decoder/layer_0/attention/linear_1/bias": struct.pack("<BIBI", 1, 128, 4, 256)
                        + bytes([0, 1] * 128)
                    }
                ),
                "not zero for the keys",
            ),
        ],
    )
    def test_malformed_source(
        self,
        tmp_path: Path,
        variables: dict[str, bytes],
        change: Callable[[dict[str, bytes]], None],
        message: str,
    ) -> None:
        """A missing, misshapen or quantised variable, or a bias that would be lost, is named."""
        changed = dict(variables)
        change(changed)
        with pytest.raises(ModelCorruptError, match=message):
            converted(write_ctranslate2(tmp_path / "bad", ct2_model(changed)))

    def test_other_format(self, model: Path) -> None:
        """Another version or kind of CTranslate2 model is refused by name; so are bytes after the end."""
        data = model.read_bytes()
        for bad, message in (
            (b"\5" + data[1:], "version 5"),
            (data.replace(b"WhisperSpec", b"Wav2VecSpec", 1), "Wav2VecSpec"),
            (data + b"!", "bytes follow its end"),
        ):
            model.write_bytes(bad)
            with pytest.raises(ModelCorruptError, match=message):
                converted(model)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "no vocabulary"),
            ("a\nb\n<|endoftext|>\n", "3 words"),
            ("\n".join([*vocabulary()[:-1], "<|endoftext|>"][1:]) + "\nx\n", "end-of-text at"),
            ("\n".join(["a b", *vocabulary()[1:]]) + "\n", "GPT-2 cannot spell"),
            ("\n".join(["a" * 129, *vocabulary()[1:]]) + "\n", "129 bytes"),
        ],
    )
    def test_malformed_vocabulary(self, model: Path, text: str, message: str) -> None:
        """A vocabulary of another model or of no model is refused."""
        model.with_name("vocabulary.txt").write_text(text, "utf-8")
        with pytest.raises(ModelCorruptError, match=message):
            converted(model)

    def test_missing_inputs(self, model: Path, upstream: Path) -> None:
        """A missing vocabulary, and a package whose build did not run, are said so."""
        with pytest.raises(ModelNotFoundError, match="vocabulary"):
            converted(model, "vocabulary.json")
        (upstream / convert._MEL_TEMPLATE).unlink()
        with pytest.raises(ModelNotFoundError, match=r"python build_native\.py"):
            converted(model)


class TestCheckGgml:
    """What the structural check refuses, each of which upstream's loader accepts or dies of."""

    @pytest.mark.parametrize(
        ("keep", "message"),
        [
            (0, "shorter than"),
            (8, "shorter than"),
            (1000, "ends where"),
            (300_000, "ends where"),
            (3_500_000, "ends where"),
            (-1, "ends where"),
        ],
    )
    def test_truncated(self, ggml: bytes, tmp_path: Path, keep: int, message: str) -> None:
        """A file cut in the header, the filters, the words, a tensor or before its last byte is refused."""
        path = tmp_path / "cut.bin"
        path.write_bytes(ggml[:keep])
        with pytest.raises(ModelCorruptError, match=message):
            convert.check_ggml(path)

    def test_without_weights(self, ggml: bytes, tmp_path: Path) -> None:
        """Upstream's files for tests, which end after the words, are no models."""
        first = ggml.index(b"decoder.positional_embedding") - 20
        path = tmp_path / "empty.bin"
        path.write_bytes(ggml[:first])
        with pytest.raises(ModelCorruptError, match="no weights"):
            convert.check_ggml(path)

    def test_missing_and_repeated_tensors(self, ggml: bytes, tmp_path: Path) -> None:
        """A file that ends between two tensors, or holds one twice, is refused."""
        last = ggml.index(b"encoder.ln_post.bias") - 16
        path = tmp_path / "m.bin"
        path.write_bytes(ggml[:last])
        with pytest.raises(
            ModelCorruptError, match=r"1 tensors are missing, among them encoder.ln_post.bias"
        ):
            convert.check_ggml(path)
        path.write_bytes(ggml + ggml[last:])
        with pytest.raises(ModelCorruptError, match="twice"):
            convert.check_ggml(path)

    @pytest.mark.parametrize("tail", [b"x", bytes(12), bytes(4096)])
    def test_trailing_garbage(self, ggml: bytes, tmp_path: Path, tail: bytes) -> None:
        """Nothing may follow the last tensor."""
        path = tmp_path / "tail.bin"
        path.write_bytes(ggml + tail)
        with pytest.raises(ModelCorruptError):
            convert.check_ggml(path)

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            (0, 0x46554747, "begins with"),
            (1, 51_865, "token_embedding"),
            (1, 1 << 30, "n_vocab"),
            (2, -1, "n_audio_ctx is -1"),
            (2, 8, "n_audio_ctx is 8, allowed is 1500"),
            (4, 2, "n_audio_head is 2, allowed is 1"),
            (3, 1 << 30, "n_audio_state"),
            (3, 192, "n_audio_state is 192"),
            (5, 2, "n_audio_layer is 2, allowed is 1"),
            (6, 4, "n_text_ctx is 4, allowed is 448"),
            (7, 128, "n_text_state"),
            (9, 0, "n_text_layer is 0"),
            (9, 2, "tensors are missing"),
            (10, 128, "mel filters"),
            (11, 0, r"all f32 .* take a Whisper of a published size, in f16"),
            (11, 4, "ftype is 4"),
            (11, 7, "ftype is 7"),
            (11, 1007, "ftype is 1007"),
            (11, 3007, "ftype is 3007"),
            (11, -1, "ftype is -1"),
            (11, 2007, "type"),
            (12, 81, "mel filters"),
        ],
    )
    def test_wrong_header(self, ggml: bytes, tmp_path: Path, field: int, value: int, message: str) -> None:
        """Each number of the header that is out of range or disagrees with the tensors is refused."""
        path = tmp_path / "head.bin"
        path.write_bytes(ggml[: 4 * field] + struct.pack("<I", value & 0xFFFFFFFF) + ggml[4 * field + 4 :])
        with pytest.raises(ModelCorruptError, match=message):
            convert.check_ggml(path)

    def test_what_whisper_dies_of(self, ggml: bytes, tmp_path: Path) -> None:
        """Mel filters that are no numbers, and a vocabulary without the word " ", are refused."""
        path = tmp_path / "m.bin"
        path.write_bytes(ggml[:56] + struct.pack("<f", float("nan")) + ggml[60:])
        with pytest.raises(ModelCorruptError, match="not all finite"):
            convert.check_ggml(path)
        path.write_bytes(ggml.replace(b"\1\0\0\0 ", b"\1\0\0\0_", 1))
        with pytest.raises(ModelCorruptError, match="single space"):
            convert.check_ggml(path)

    def test_wild_lengths(self, ggml: bytes, tmp_path: Path) -> None:
        """Huge or negative lengths of words, names and dimensions are refused without reading them."""
        words = 48 + 8 + 80 * 201 * 4
        tensor = ggml.index(b"decoder.positional_embedding") - 20
        path = tmp_path / "wild.bin"
        for at in (words, words + 4, tensor, tensor + 4, tensor + 8, tensor + 12):
            for value in (-1, 0x7FFFFFFF):
                path.write_bytes(ggml[:at] + struct.pack("<i", value) + ggml[at + 4 :])
                with pytest.raises(ModelCorruptError):
                    convert.check_ggml(path)

    def test_quantised(self, tmp_path: Path) -> None:
        """A q8_0 file, with its matrices in blocks of 34 bytes and its convolutions in float16, is taken."""
        header = replace(HEADER, ftype=2007)
        data = struct.pack("<I11i", 0x67676D6C, *astuple(header)) + ggml_template()[48:]
        data += struct.pack("<2ic", 50_257, 1, b" ") + bytes(4 * 50_256)
        for tensor in convert.tensors(header):
            values = int(np.prod(tensor.shape))
            kind, size = (0, 4 * values) if tensor.is_float32 else (8, values // 32 * 34)
            if "conv" in tensor.name and len(tensor.shape) == 3:
                kind, size = 1, 2 * values
            rank, name = len(tensor.shape), tensor.name.encode()
            data += (
                struct.pack(f"<3i{rank}i", rank, len(name), kind, *tensor.shape[::-1]) + name + bytes(size)
            )
        path = tmp_path / "q8.bin"
        path.write_bytes(data)
        assert convert.check_ggml(path) == header
