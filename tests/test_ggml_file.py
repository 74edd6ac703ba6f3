"""The structural check of ggml files, on a small made-up model."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import astuple, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgevoice import ggml_file
from edgevoice.errors import ModelCorruptError
from edgevoice.mel_filters import mel_filters
from tests import model_formats as formats
from tests.model_formats import HEADER

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def tiny_size(monkeypatch: pytest.MonkeyPatch) -> None:
    formats.allow_tiny_size(monkeypatch)


@pytest.fixture(scope="module")
def ggml() -> bytes:
    return formats.ggml(formats.values())


class TestMelFilters:
    """The filter bank that is computed."""

    def test_80_bands(self) -> None:
        """They are upstream's, bit for bit."""
        assert mel_filters(80).tobytes() == formats.real_filters()

    def test_128_bands(self) -> None:
        """They are triangles, each of the same area; as scripts/formats.py saw them to be OpenAI's."""
        filters = mel_filters(128)
        assert filters.shape == (128, 201)
        assert (filters >= 0).all()
        assert (filters.sum(axis=1) > 0).all()
        peaks = filters.argmax(axis=1)
        assert (np.diff(peaks) >= 0).all()
        assert hashlib.sha256(filters.tobytes()).hexdigest()[:16] == "2a5f9822897750e0"
        np.testing.assert_allclose(filters[100:].sum(axis=1) * 40, 1, rtol=0.05)  # of 40 Hz a bin


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
            ggml_file.check(path)

    def test_without_weights(self, ggml: bytes, tmp_path: Path) -> None:
        """Upstream's files for tests, which end after the words, are no models."""
        first = ggml.index(b"decoder.positional_embedding") - 20
        path = tmp_path / "empty.bin"
        path.write_bytes(ggml[:first])
        with pytest.raises(ModelCorruptError, match="no weights"):
            ggml_file.check(path)

    def test_missing_and_repeated_tensors(self, ggml: bytes, tmp_path: Path) -> None:
        """A file that ends between two tensors, or holds one twice, is refused."""
        last = ggml.index(b"encoder.ln_post.bias") - 16
        path = tmp_path / "m.bin"
        path.write_bytes(ggml[:last])
        with pytest.raises(
            ModelCorruptError, match=r"1 tensors are missing, among them encoder.ln_post.bias"
        ):
            ggml_file.check(path)
        path.write_bytes(ggml + ggml[last:])
        with pytest.raises(ModelCorruptError, match="twice"):
            ggml_file.check(path)

    @pytest.mark.parametrize("tail", [b"x", bytes(12), bytes(4096)])
    def test_trailing_garbage(self, ggml: bytes, tmp_path: Path, tail: bytes) -> None:
        """Nothing may follow the last tensor."""
        path = tmp_path / "tail.bin"
        path.write_bytes(ggml + tail)
        with pytest.raises(ModelCorruptError):
            ggml_file.check(path)

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
            (11, 2012, "blocks of 256 values, into which rows of 64 do not divide"),
            (12, 81, "mel filters"),
        ],
    )
    def test_wrong_header(self, ggml: bytes, tmp_path: Path, field: int, value: int, message: str) -> None:
        """Each number of the header that is out of range or disagrees with the tensors is refused."""
        path = tmp_path / "head.bin"
        path.write_bytes(ggml[: 4 * field] + struct.pack("<I", value & 0xFFFFFFFF) + ggml[4 * field + 4 :])
        with pytest.raises(ModelCorruptError, match=message):
            ggml_file.check(path)

    def test_what_whisper_dies_of(self, ggml: bytes, tmp_path: Path) -> None:
        """Mel filters that are no numbers, and a vocabulary without the word " ", are refused."""
        path = tmp_path / "m.bin"
        path.write_bytes(ggml[:56] + struct.pack("<f", float("nan")) + ggml[60:])
        with pytest.raises(ModelCorruptError, match="not all finite"):
            ggml_file.check(path)
        path.write_bytes(ggml.replace(b"\1\0\0\0 ", b"\1\0\0\0_", 1))
        with pytest.raises(ModelCorruptError, match="single space"):
            ggml_file.check(path)

    def test_wild_lengths(self, ggml: bytes, tmp_path: Path) -> None:
        """Huge or negative lengths of words, names and dimensions are refused without reading them."""
        words = 48 + 8 + 80 * 201 * 4
        tensor = ggml.index(b"decoder.positional_embedding") - 20
        path = tmp_path / "wild.bin"
        for at in (words, words + 4, tensor, tensor + 4, tensor + 8, tensor + 12):
            for value in (-1, 0x7FFFFFFF):
                path.write_bytes(ggml[:at] + struct.pack("<i", value) + ggml[at + 4 :])
                with pytest.raises(ModelCorruptError):
                    ggml_file.check(path)

    def test_quantised(self, tmp_path: Path) -> None:
        """A q8_0 file, with its matrices in blocks of 34 bytes and its convolutions in float16, is taken."""
        header = replace(HEADER, ftype=2007)
        data = (
            struct.pack("<I11i", 0x67676D6C, *astuple(header))
            + struct.pack("<2i", 80, 201)
            + formats.real_filters()
        )
        data += struct.pack("<2ic", 50_257, 1, b" ") + bytes(4 * 50_256)
        for tensor in ggml_file.tensors(header):
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
        assert ggml_file.check(path) == header

    def test_all_f32(self, ggml: bytes, tmp_path: Path) -> None:
        """A file all in f32 is taken only to be quantised."""
        header = replace(HEADER, ftype=0)
        first = ggml.index(b"decoder.positional_embedding") - 20
        data = struct.pack("<I11i", 0x67676D6C, *astuple(header)) + ggml[48:first]
        for tensor in ggml_file.tensors(header):
            rank, name = len(tensor.shape), tensor.name.encode()
            data += struct.pack(f"<3i{rank}i", rank, len(name), 0, *tensor.shape[::-1]) + name
            data += bytes(4 * int(np.prod(tensor.shape)))
        path = tmp_path / "f32.bin"
        path.write_bytes(data)
        assert ggml_file.check(path, may_be_f32=True) == header
        with pytest.raises(ModelCorruptError, match="all f32"):
            ggml_file.check(path)

    def test_sizes(self, ggml: bytes) -> None:
        """What a quantisation takes is known before it is made."""
        halves = ggml_file.tensor_bytes(HEADER)
        eighths = ggml_file.tensor_bytes(ggml_file.quantised(HEADER, 7))
        matrices = sum(
            int(np.prod(each.shape))
            for each in ggml_file.tensors(HEADER)
            if len(each.shape) == 2 and not each.is_float32
        )
        assert halves - eighths == matrices * 2 - matrices // 32 * 34
        assert halves < len(ggml)
