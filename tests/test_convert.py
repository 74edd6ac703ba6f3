"""Import of models in other formats: the same values become the same ggml file, and bad files an error."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgevoice import convert, ggml_file, vocabulary
from edgevoice.errors import ModelCorruptError, ModelError, ModelNotFoundError
from tests import model_formats as formats
from tests.model_formats import HEADER, Values, vocabulary_list

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def tiny_size(monkeypatch: pytest.MonkeyPatch) -> None:
    formats.allow_tiny_size(monkeypatch)


@pytest.fixture(scope="module")
def values() -> Values:
    return formats.values()


@pytest.fixture(scope="module")
def ggml(values: Values) -> bytes:
    return formats.ggml(values)


def converted(path: Path, words: Path | None = None) -> bytes:
    weights = convert.read(convert.find_file(path))
    assert weights is not None
    chosen = words or weights.vocabulary
    assert chosen is not None
    out = io.BytesIO()
    heard: list[int] = []
    header = ggml_file.header_of(weights)
    ggml_file.write(weights, vocabulary.words(chosen, header.n_vocab), out, heard.append)
    assert sum(heard) == len(out.getvalue())
    return out.getvalue()


def as_float32(values: Values) -> Values:
    return {name: value.astype("<f4") for name, value in values.items()}


def write_tiktoken(path: Path) -> Path:
    words = formats.words_as_bytes()[:50_256]
    path.write_bytes(
        b"".join(base64.b64encode(word) + f" {rank}\n".encode() for rank, word in enumerate(words))
    )
    return path


class TestSame:
    """Every format gives the file that upstream's rules ask for."""

    @pytest.mark.parametrize("kind", ["<f2", "<f4"])
    def test_ctranslate2(self, tmp_path: Path, values: Values, ggml: bytes, kind: str) -> None:
        """In float16 and float32, told by its content; the folder does as well as the file."""
        path = formats.write_ctranslate2(tmp_path, formats.ct2_model(formats.ct2_variables(values, kind)))
        assert converted(path) == ggml
        assert converted(tmp_path) == ggml

    @pytest.mark.parametrize("dtype", ["F16", "F32"])
    def test_safetensors(self, tmp_path: Path, values: Values, ggml: bytes, dtype: str) -> None:
        """In float16 and float32, with and without the prefix of transformers."""
        named = formats.hf_values(values)
        path = formats.write_hf(tmp_path, formats.safetensors(named, dtype))
        assert converted(path) == ggml
        path.write_bytes(
            formats.safetensors({name.removeprefix("model."): value for name, value in named.items()}, dtype)
        )
        assert converted(tmp_path) == ggml

    def test_bfloat16(self, tmp_path: Path, values: Values) -> None:
        """What bfloat16 holds, float16 holds too, as long as it is not too large or small."""
        rounded = {
            name: (value.astype("<f4").view("<u4") & 0xFFFF0000).view("<f4") for name, value in values.items()
        }
        path = formats.write_hf(tmp_path, formats.safetensors(formats.hf_values(rounded), "BF16"))
        assert converted(path) == formats.ggml(rounded)

    def test_parts(self, tmp_path: Path, values: Values, ggml: bytes) -> None:
        """Several files and their index are one model."""
        write_parts(tmp_path, values)
        assert converted(tmp_path) == ggml

    def test_projection(self, tmp_path: Path, values: Values, ggml: bytes) -> None:
        """The output's projection may be there if it is the embedding."""
        named = formats.hf_values(values)
        named["proj_out.weight"] = values["decoder.token_embedding.weight"]
        path = formats.write_hf(tmp_path, formats.safetensors(named))
        assert converted(path) == ggml
        named["proj_out.weight"] = np.roll(named["proj_out.weight"], 1)
        path.write_bytes(formats.safetensors(named))
        with pytest.raises(ModelCorruptError, match=r"proj_out\.weight is not the embedding"):
            converted(path)

    def test_pt(self, tmp_path: Path, values: Values, ggml: bytes) -> None:
        """In float16 and float32; the words are OpenAI's, or those of a ggml model."""
        path = tmp_path / "tiny.pt"
        path.write_bytes(formats.pt(values))
        assert converted(path, write_tiktoken(tmp_path / "gpt2.tiktoken")) == ggml
        path.write_bytes(formats.pt(as_float32(values)))
        other = tmp_path / "other.bin"
        other.write_bytes(ggml)
        assert converted(path, other) == ggml

    def test_pt_of_one_storage(self, tmp_path: Path, values: Values, ggml: bytes) -> None:
        """Tensors may share a storage, each with its offset."""
        program = formats.Pickle()
        program.data += b"}("
        program.text("dims")
        program.data += b"}"
        program.text("model_state_dict")
        program.data += b"}("
        offset, total = 0, sum(value.size for value in values.values())
        for name, value in values.items():
            program.text(name)
            program.tensor("0", value.shape, offset=offset, count=total)
            offset += value.size
        program.data += b"uu"
        every = np.concatenate([value.ravel() for value in values.values()])
        path = tmp_path / "one.pt"
        path.write_bytes(formats.pt({"all": every}, program.finish()))
        assert converted(path, write_tiktoken(tmp_path / "words")) == ggml

    def test_rounding(self, tmp_path: Path, values: Values) -> None:
        """float32 is rounded to the nearest float16, ties to even, also where float32 is stored."""
        changed = as_float32(values)
        wanted = dict(values)
        bias = np.full(64, 1 + 2.0**-11, "<f4")  # half way between 1 and the next
        bias[1] = np.nextafter(bias[1], np.float32(2))
        changed["decoder.ln.bias"], wanted["decoder.ln.bias"] = bias, np.full(64, 1, "<f2")
        wanted["decoder.ln.bias"][1] = 1 + 2.0**-10
        path = formats.write_hf(tmp_path, formats.safetensors(formats.hf_values(changed), "F32"))
        assert converted(path) == formats.ggml(wanted)

    @pytest.mark.parametrize("bad", [70_000, np.inf, np.nan])
    def test_what_float16_cannot_hold(self, tmp_path: Path, values: Values, bad: float) -> None:
        """A value that would become infinite is told with its tensor."""
        changed = as_float32(values)
        changed["decoder.ln.bias"][3] = bad
        path = formats.write_hf(tmp_path, formats.safetensors(formats.hf_values(changed), "F32"))
        with pytest.raises(ModelCorruptError, match=r"decoder\.ln\.bias holds (70000|inf|nan)"):
            converted(path)

    def test_memory(self, tmp_path: Path, values: Values) -> None:
        """The model is never in memory: a few pieces of it are."""
        path = formats.write_hf(tmp_path, formats.safetensors(formats.hf_values(values)))
        weights = convert.read(path)
        assert weights is not None
        words = formats.words_as_bytes()
        tracemalloc.start()
        with (tmp_path / "out.bin").open("wb") as out:
            ggml_file.write(weights, words, out)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert path.stat().st_size > 7e6
        assert peak < 5e6  # words packed, and pieces of 1 MiB as float16 and float32


def write_parts(folder: Path, values: Values) -> Path:
    """Write a model as two parts and return the index."""
    named = formats.hf_values(values)
    formats.write_hf(folder, b"").unlink()
    names = sorted(named)
    files: dict[str, str] = {}
    for number in (0, 1):
        file = f"model-{number + 1:05}-of-00002.safetensors"
        part = {name: named[name] for name in names[number::2]}
        (folder / file).write_bytes(formats.safetensors(part))
        files |= dict.fromkeys(part, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}), "utf-8")
    return index


class TestWords:
    """Vocabularies, in all their spellings."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """Where each test writes its words."""
        return tmp_path / "words"

    def test_ctranslate2(self, file: Path) -> None:
        """Lines and a JSON list are the same; bytes that are no UTF-8 come out as themselves."""
        file.write_text("\n".join(vocabulary_list()) + "\n", "utf-8")
        found = vocabulary.words(file, 51_864)
        assert found == formats.words_as_bytes()
        assert sorted(found[:256]) == [bytes([value]) for value in range(256)]
        file.write_text(json.dumps(vocabulary_list()), "utf-8")
        assert vocabulary.words(file, 51_864) == found

    def test_hugging_face(self, file: Path) -> None:
        """vocab.json with and without end-of-text, and tokenizer.json, give the same."""
        spelled = {word: number for number, word in enumerate(vocabulary_list()[:50_256])}
        for parsed in (
            spelled,
            spelled | {"<|endoftext|>": 50_256},
            {"version": "1.0", "model": {"type": "BPE", "vocab": spelled}},
        ):
            file.write_text(json.dumps(parsed), "utf-8")
            assert vocabulary.words(file, 51_864) == formats.words_as_bytes()

    def test_multilingual(self, file: Path) -> None:
        """The 50,257th word is empty, whether the file says so or not; the English file is another."""
        words = vocabulary_list()[:50_256]
        spelled: dict[str, int] = {word: number for number, word in enumerate(words)}
        wanted = [*formats.words_as_bytes()[:-1], b""]
        for parsed in (spelled | {"<|endoftext|>": 50_257}, spelled | {"": 50_256}):
            file.write_text(json.dumps(parsed), "utf-8")
            assert vocabulary.words(file, 51_866) == wanted
        lines = [base64.b64encode(word) or b"=" for word in wanted]
        file.write_bytes(b"".join(line + f" {rank}\n".encode() for rank, line in enumerate(lines)))
        assert vocabulary.words(file, 51_865) == wanted
        with pytest.raises(ModelCorruptError, match="50257 words, not the 50256 of English"):
            vocabulary.words(file, 51_864)
        write_tiktoken(file)
        with pytest.raises(ModelCorruptError, match="50256 words, not the 50257 of multilingual"):
            vocabulary.words(file, 51_865)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "no vocabulary"),
            ("a\nb\n<|endoftext|>\n", "3 words"),
            ("\n".join([*vocabulary_list()[:-1], "<|endoftext|>"][1:]) + "\nx\n", "end-of-text at"),
            ("\n".join(["a\u2028b", *vocabulary_list()[1:]]) + "\n", "GPT-2 cannot spell"),
            ("\n".join(["a" * 129, *vocabulary_list()[1:]]) + "\n", "129 bytes"),
            ("{}", "1 of 50257 words"),
            ('{"a": "b"}', "no numbers"),
            ('{"<|endoftext|>": 50257}', "at 50257, and cannot belong to a model that is English"),
            ("[" * 100_000, "no vocabulary"),
            ("[1, 2]", "no vocabulary"),
            ("IQ== 0\nIg== 0\n", "1 words"),
            ("IQ== 99999999999999999999\n", "1 words"),
        ],
    )
    def test_malformed(self, file: Path, text: str, message: str) -> None:
        """A vocabulary of another model or of no model is refused."""
        file.write_text(text, "utf-8")
        with pytest.raises(ModelCorruptError, match=message):
            vocabulary.words(file, 51_864)

    def test_missing(self, file: Path) -> None:
        """It is asked for by name."""
        with pytest.raises(ModelNotFoundError, match="words is missing"):
            vocabulary.words(file, 51_864)

    def test_of_another_ggml_model(self, file: Path, ggml: bytes) -> None:
        """An English model has no words for a multilingual one."""
        file.write_bytes(ggml)
        assert vocabulary.words(file, 51_864) == formats.words_as_bytes()
        with pytest.raises(ModelCorruptError, match="cannot belong to a model that is multilingual"):
            vocabulary.words(file, 51_865)

    @given(st.binary(max_size=200) | st.text(max_size=60).map(str.encode))
    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_bytes(self, file: Path, data: bytes) -> None:
        """Whatever the file holds, it is refused in words."""
        file.write_bytes(data)
        with pytest.raises(ModelCorruptError):
            vocabulary.words(file, 51_864)


class TestFind:
    """Which file and which format it is."""

    def test_folders(self, tmp_path: Path) -> None:
        """A folder must hold one model; an absent path says what can be given."""
        with pytest.raises(ModelNotFoundError, match=r"none of model\.safetensors"):
            convert.find_file(tmp_path)
        (tmp_path / "model.bin").touch()
        (tmp_path / "model.safetensors").touch()
        with pytest.raises(ModelNotFoundError, match=r"model\.safetensors and model\.bin"):
            convert.find_file(tmp_path)
        with pytest.raises(ModelNotFoundError, match=r"there is no file .* OpenAI's \.pt"):
            convert.find_file(tmp_path / "absent")

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "begins with nothing"),
            (b"GGUF" + bytes(60), "begins with 47 47 55 46"),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "before 1.6"),
            (bytes(257) + b"ustar" + bytes(300), "before 1.6"),
            (b"PK\3\4" + bytes(60), "its zip is broken"),
            (b"\x06\0\0\0" + bytes(60), "version 6 of ''"),
            (bytes(8) + b"{}" + bytes(60), "0 bytes of header"),
        ],
    )
    def test_other_formats(self, tmp_path: Path, data: bytes, message: str) -> None:
        """What is no model is said to be none, and old ones of torch are named."""
        path = tmp_path / "some"
        path.write_bytes(data)
        with pytest.raises(ModelCorruptError, match=message):
            convert.read(path)

    def test_ggml_is_no_conversion(self, tmp_path: Path, ggml: bytes) -> None:
        """A ggml file is taken as it is."""
        path = tmp_path / "some"
        path.write_bytes(ggml)
        assert convert.read(path) is None

    def test_links(self, tmp_path: Path) -> None:
        """A link to a device or to itself is no model; one to a file is that file, as in caches."""
        for number, target in enumerate(("/dev/zero", "link-1", ".")):
            link = tmp_path / f"link-{number}"
            link.symlink_to(target)
            with pytest.raises((ModelNotFoundError, OSError)):
                convert.find_file(link)
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(ModelNotFoundError):
            convert.find_file(tmp_path / "fifo")


@pytest.fixture(scope="module")
def ct2_variables(values: Values) -> dict[str, bytes]:
    return formats.ct2_variables(values)


@pytest.fixture(scope="module")
def good_safetensors(values: Values) -> bytes:
    return formats.safetensors(formats.hf_values(values))


class Good:
    """A path and a good content; hypothesis, which says what each test was given, says no more than that."""

    def __init__(self, path: Path) -> None:
        self.path, self.content = path, path.read_bytes()


@pytest.fixture(scope="module")
def damaged(values: Values, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Good]:
    """Return a good file for each format, to be damaged."""
    folder = tmp_path_factory.mktemp("damaged")
    small = {name: value for name, value in values.items() if name != "decoder.token_embedding.weight"}
    paths = {
        "ct2": formats.write_ctranslate2(folder / "ct2", formats.ct2_model(formats.ct2_variables(values))),
        "hf": formats.write_hf(folder / "hf", formats.safetensors(formats.hf_values(small))),
        "pt": folder / "tiny.pt",
    }
    paths["ct2"].write_bytes(formats.ct2_model(dict(list(formats.ct2_variables(values).items())[:12])))
    paths["pt"].write_bytes(formats.pt(small))
    return {name: Good(path) for name, path in paths.items()}


def refused(path: Path, message: str, kind: type[ModelError] = ModelCorruptError) -> None:
    """Expect a refusal with these words."""
    with pytest.raises(kind, match=message):
        read_all(path)


def read_all(path: Path) -> None:
    """Read a model as `import` does, and drop it."""
    weights = convert.read(path)
    assert weights is not None
    ggml_file.header_of(weights)
    for name, stored in weights.tensors.items():
        for _ in stored.halves(name):
            pass


class TestCtranslate2:
    """What is refused of `model.bin`."""

    @pytest.mark.parametrize("keep", [0, 3, 8, 30, 1000, 3_000_000, -1])
    def test_truncated(self, tmp_path: Path, ct2_variables: dict[str, bytes], keep: int) -> None:
        """A file cut anywhere."""
        path = formats.write_ctranslate2(tmp_path, formats.ct2_model(ct2_variables)[:keep])
        refused(path, r"model\.bin")

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("encoder/conv2/bias", None, "encoder/conv2/bias is missing"),
            ("encoder/num_heads", None, "encoder/num_heads is missing"),
            ("encoder/num_heads", b"\0\2\2\0\0\0\7\0", "n_audio_head is 7"),
            ("encoder/conv1/bias", struct.pack("<BIBI", 1, 64, 1, 64) + bytes(64), "is int8, which ggml"),
            ("encoder/conv1/bias", struct.pack("<BIBI", 1, 64, 9, 64) + bytes(64), "is number format 9"),
            ("encoder/conv1/bias", struct.pack("<BIBI", 1, 65, 4, 130) + bytes(130), r"is \(65,\), not"),
            ("encoder/conv1/bias", struct.pack("<BIBI", 1, 64, 4, 126) + bytes(126), "but 126 bytes"),
            ("encoder/conv1/bias", b"\xff" + bytes(2000), "255 dimensions"),
            ("encoder/conv1/bias", struct.pack("<BIBI", 1, 64, 4, 2**32 - 1), "it ends where 4294967295"),
            (
                "decoder/layer_0/attention/linear_1/bias",
                struct.pack("<BIBI", 1, 128, 4, 256) + bytes([0, 1] * 128),
                "not zero for the keys",
            ),
            (
                "decoder/layer_0/attention/linear_1/weight",
                struct.pack("<BIBI", 1, 3, 4, 6) + bytes(6),
                "cannot be parted in 2",
            ),
            ("encoder/layer_1/ffn/linear_0/weight", struct.pack("<BBI", 0, 4, 2) + bytes(2), "layer_1"),
        ],
    )
    def test_malformed(
        self, tmp_path: Path, ct2_variables: dict[str, bytes], key: str, value: bytes | None, message: str
    ) -> None:
        """A missing, misshapen, quantised or unknown variable, or a bias that would be lost, is named."""
        changed = dict(ct2_variables)
        if value is None:
            del changed[key]
        else:
            changed[key] = value
        refused(formats.write_ctranslate2(tmp_path, formats.ct2_model(changed)), message)

    def test_other_version(self, tmp_path: Path, ct2_variables: dict[str, bytes]) -> None:
        """Another kind of model, too many variables, and bytes after the end."""
        data = formats.ct2_model(ct2_variables)
        count = data.index(struct.pack("<II", 3, len(ct2_variables))) + 4
        for bad, message in (
            (data.replace(b"WhisperSpec", b"Wav2VecSpec", 1), "Wav2VecSpec"),
            (data + b"!", "bytes follow its end"),
            (data[:count] + struct.pack("<I", 2**32 - 1) + data[count + 4 :], "4294967295 variables"),
        ):
            refused(formats.write_ctranslate2(tmp_path, bad), message)


class TestSafetensors:
    """What is refused of `model.safetensors`, its parts and its configuration."""

    @pytest.mark.parametrize("keep", [9, 1000, 3_000_000, -1])
    def test_truncated(self, tmp_path: Path, good_safetensors: bytes, keep: int) -> None:
        """A file cut anywhere."""
        refused(formats.write_hf(tmp_path, good_safetensors[:keep]), r"model\.safetensors is no usable")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda e: e.update(dtype="I8"), "is I8, not one of"),
            (lambda e: e.update(dtype=7), "says of"),
            (lambda e: e.update(shape=[-64]), "says of"),
            (lambda e: e.update(shape=[True] * 64), "says of"),
            (lambda e: e.update(shape=[1] * 9), "says of"),
            (lambda e: e.update(shape=[10**400]), "has shape"),
            (lambda e: e.update(shape=[65]), "but 128 bytes"),
            (lambda e: e.update(data_offsets=[0, 128]), "expected at|lies at"),
            (lambda e: e.update(data_offsets=[1 << 70, (1 << 70) + 128]), "lies at"),
            (lambda e: e.update(data_offsets=[128, 0]), "but -128 bytes"),
            (lambda e: e.clear(), "says of"),
        ],
    )
    def test_header(
        self, tmp_path: Path, good_safetensors: bytes, change: Callable[[dict[str, Any]], None], message: str
    ) -> None:
        """A tensor of another format, a wrong shape, one that lies on another or out of the file."""
        (length,) = struct.unpack("<Q", good_safetensors[:8])
        header = json.loads(good_safetensors[8 : 8 + length])
        change(header["model.encoder.conv2.bias"])
        refused(
            formats.write_hf(tmp_path, formats.pack_safetensors(header, good_safetensors[8 + length :])),
            message,
        )

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (struct.pack("<Q", 2**63) + b"{}", "9223372036854775808 bytes of header"),
            (struct.pack("<Q", 5) + b"{'a'}", "is no JSON"),
            (struct.pack("<Q", 20) + b'{"a": 1, "a": 2}    ', "comes twice"),
            (struct.pack("<Q", 100_000) + b'{"a":' * 20_000, "is no JSON"),
            (struct.pack("<Q", 8) + b'{"a": 1}', "says of"),
            (struct.pack("<Q", 2) + b"{}" + b"rest", "4 bytes follow"),
            (struct.pack("<Q", 2) + b"{}", "token_embedding.weight is missing"),
        ],
    )
    def test_no_header(self, tmp_path: Path, data: bytes, message: str) -> None:
        """A header that is too long, deep, doubled or no JSON at all."""
        refused(formats.write_hf(tmp_path, data), message)

    def test_too_many(self, tmp_path: Path) -> None:
        """Thousands of tensors are no Whisper."""
        entry = {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}
        many = dict.fromkeys(map(str, range(5000)), entry)
        refused(formats.write_hf(tmp_path, formats.pack_safetensors(many, b"")), "5000 tensors")

    def test_unknown_and_doubled_names(self, tmp_path: Path, values: Values) -> None:
        """A tensor that would be lost is named, and so is one that is there under two names."""
        named = formats.hf_values(values)
        extra = {"model.decoder.adapter.weight": values["decoder.ln.bias"]}
        path = formats.write_hf(tmp_path, formats.safetensors(named | extra))
        refused(path, r"Whisper has no 'decoder\.adapter\.weight'")
        twice = {"decoder.layer_norm.bias": values["decoder.ln.bias"]}
        path.write_bytes(formats.safetensors(named | twice))
        refused(path, r"two tensors are its decoder\.ln\.bias")

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ("", "is no JSON"),
            ("[]", "is no object"),
            ('{"model_type": "wav2vec2"}', "model_type is 'wav2vec2'"),
            ('{"activation_function": "relu"}', "activation_function is 'relu'"),
            ("{}", "how many attention heads"),
            (
                '{"encoder_attention_heads": 2, "decoder_attention_heads": 1}',
                "n_audio_head is 2, but it is 1",
            ),
            ('{"encoder_attention_heads": "1", "decoder_attention_heads": 1}', "no number"),
        ],
    )
    def test_config(self, tmp_path: Path, good_safetensors: bytes, config: str, message: str) -> None:
        """The configuration must be that of a Whisper, and of this one."""
        path = formats.write_hf(tmp_path, good_safetensors)
        path.with_name("config.json").write_text(config, "utf-8")
        refused(path, message)

    def test_no_config(self, tmp_path: Path, good_safetensors: bytes) -> None:
        """Without it, nobody knows the heads."""
        path = formats.write_hf(tmp_path, good_safetensors)
        path.with_name("config.json").unlink()
        refused(path, r"config\.json is missing", ModelNotFoundError)

    @pytest.mark.parametrize("name", ["../up.safetensors", "/etc/passwd", "a/b", "..", "", "a\0b", ".hidden"])
    def test_index_out_of_the_folder(self, tmp_path: Path, values: Values, name: str) -> None:
        """The index names files of its folder, and no others."""
        index = write_parts(tmp_path, values)
        listed = json.loads(index.read_text("utf-8"))
        listed["weight_map"]["model.decoder.layer_norm.bias"] = name
        index.write_text(json.dumps(listed), "utf-8")
        refused(index, "may only be a plain name")

    def test_index(self, tmp_path: Path, values: Values) -> None:
        """A part that is missing, tensors elsewhere than it says, an index of nothing or of too much."""
        index = write_parts(tmp_path, values)
        listed = json.loads(index.read_text("utf-8"))
        moved = {**listed["weight_map"], "model.decoder.layer_norm.bias": "model-00002-of-00002.safetensors"}
        assert moved != listed["weight_map"]
        for wanted, message in (
            (moved, "other tensors"),
            ({}, "token_embedding"),
            ([], "lists no files"),
            ({"a": 1}, "lists no files"),
            ({str(n): f"part-{n}" for n in range(100)}, "100 files"),
        ):
            index.write_text(json.dumps({"weight_map": wanted}), "utf-8")
            refused(index, message)
        index.write_text(json.dumps(listed), "utf-8")
        (tmp_path / "model-00002-of-00002.safetensors").unlink()
        refused(index, "00002-of-00002.* is missing", ModelNotFoundError)


# A tuple of two that are the same tuple of two, and so on: a few hundred bytes, 2 to the 100th elements
LAUGHS = b")q\0" + b"".join(b"h%ch%c\x86q%c" % (number, number, number + 1) for number in range(100))


class TestPt:
    """What is refused of OpenAI's `.pt`; nothing of it is ever run."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Where each test writes its file."""
        return tmp_path / "tiny.pt"

    @pytest.mark.parametrize("keep", [4, 1000, 3_000_000, -1])
    def test_truncated(self, path: Path, values: Values, keep: int) -> None:
        """A file cut anywhere, or with a byte changed in its values."""
        data = formats.pt(values)
        path.write_bytes(data[:keep])
        refused(path, r"tiny\.pt is no usable")
        at = data.index(values["decoder.token_embedding.weight"].tobytes()[:64]) + 1000
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        refused(path, "CRC-32")

    def test_nothing_is_run(self, path: Path, values: Values, tmp_path: Path) -> None:
        """A pickle that calls something is refused by the name of it, in every protocol, and not run."""
        done = tmp_path / "was-run"

        class Bomb:
            def __reduce__(self) -> tuple[object, ...]:
                return os.system, (f"touch {done}",)

        for protocol in range(2, 6):
            bomb = pickle.dumps({"dims": {}, "model_state_dict": Bomb()}, protocol)
            path.write_bytes(formats.pt(values, bomb))
            refused(path, r"posix\.system|STACK_GLOBAL")
        assert not done.exists()
        pickle.loads(bomb)  # noqa: S301 (the bomb works)
        assert done.exists()

    @pytest.mark.parametrize(
        ("program", "message"),
        [
            (b"cbuiltins\neval\n.", r"builtins\.eval"),
            (b"cnumpy.core.multiarray\n_reconstruct\n.", r"numpy\.core\.multiarray\._reconstruct"),
            (b"ctorch\nIntStorage\n.", r"torch\.IntStorage"),
            (b"ctorch\nDoubleStorage\n.", r"torch\.DoubleStorage"),
            (b"(ios\nsystem\n.", "instruction INST"),
            (b"\x82\x01.", "instruction EXT1"),
            (b"(lp0\n.", "instruction LIST"),
            (b"}r\xff\xff\xff\xff.", "has no model_state_dict"),  # a far place of the memo takes no memory
            (b"j\x00\x00\x00\x40.", "is broken"),
            (b"X\xff\xff\xff\x7fabc", "is broken"),
            (b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc", "is broken"),
            (b"\x96\xff\xff\xff\xff\xff\xff\xff\x00abc", "is broken"),
            (b"}", "is broken|does not end"),
            (b".", "is broken"),
            (b"", "is broken|does not end"),
            (b"(((((.", "has no model_state_dict"),
            (b"R.", "is broken"),
            (b"}Q.", "is broken"),
            (b"}(K\x01K\x02u.", "is broken"),
            (b"K\x01X\x01\0\0\0aK\x02s.", "is broken"),
            (b"ccollections\nOrderedDict\nK\x01\x85R.", "is broken"),
            (b"K\x01K\x02b.", "is broken"),
            (LAUGHS + b"Q.", "a storage"),
            (b"}(" + LAUGHS + b"K\x01u.", "that is no text"),
            (LAUGHS + b"\x85R.", "is broken"),
            (LAUGHS + LAUGHS + b"R.", "a call of"),
            (LAUGHS + b".", "has no model_state_dict"),
            (b"(" * 100_000 + b".", "has no model_state_dict"),
            (b")" + b"\x85" * 100_000 + b".", "has no model_state_dict"),
        ],
    )
    def test_programs(self, path: Path, values: Values, program: bytes, message: str) -> None:
        """Names that no checkpoint needs, instructions that no checkpoint has, and broken or endless ones."""
        path.write_bytes(formats.pt(values, b"\x80\x02" + program))
        refused(path, message)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"count": 1}, "bytes for 1 values"),
            ({"offset": 1}, "ends at value"),
            ({"offset": 1 << 61}, "ends at value"),
            ({"offset": -1}, "is broken"),
            ({"strides": (1, 448)}, "not stored row by row"),
            ({"strides": (0, 1)}, "not stored row by row"),
            ({"strides": (64,)}, "is broken"),
            ({"kind": "FloatStorage"}, "57344 bytes for 28672 values"),
            ({"kind": "IntStorage"}, r"torch\.IntStorage"),
            ({"key": "../../etc/passwd"}, "is broken"),
            ({"key": "999"}, "data/999.* are missing"),
        ],
    )
    def test_tensors(self, path: Path, values: Values, changes: dict[str, Any], message: str) -> None:
        """Strides, offset and size must fit the storage, which must be there."""
        key = changes.pop("key", None) if (changes := dict(changes)) else None
        pickled = formats.checkpoint(values, **changes)
        if key is not None:
            pickled = pickled.replace(b"X\x01\0\0\x000", b"X" + struct.pack("<I", len(key)) + key.encode(), 1)
        path.write_bytes(formats.pt(values, pickled))
        refused(path, message)

    def test_dims(self, path: Path, values: Values) -> None:
        """What the checkpoint says of its sizes must be so."""
        path.write_bytes(formats.pt(values, formats.checkpoint(values, {"n_audio_head": 2})))
        refused(path, "n_audio_head is 2, but it is 1")

    def test_zips(self, path: Path, values: Values) -> None:
        """A compressed zip, which could become anything, one that lacks or doubles members, one of two."""
        path.write_bytes(formats.pt(values, compression=zipfile.ZIP_DEFLATED))
        refused(path, "is compressed or encrypted")
        path.write_bytes(formats.pt(values, bytes(2_000_000)))
        refused(path, "has 2000000 bytes, more than")
        for names, message in (
            (["tiny/version"], "not exactly one data.pkl"),
            (["a/data.pkl", "b/data.pkl"], "not exactly one data.pkl"),
            (["a/data.pkl", "a/data.pkl"], "comes twice"),
        ):
            with zipfile.ZipFile(path, "w") as archive, pytest.MonkeyPatch.context() as quiet:
                quiet.setattr("warnings.warn", lambda *_, **__: None)
                for name in names:
                    archive.writestr(name, b"")
            refused(path, message)
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(15_000):
                archive.writestr(f"tiny/data/{number:040}", b"")
        refused(path, "its directory has more than")

    def test_big_endian(self, path: Path, values: Values) -> None:
        """Values in another order of bytes would be noise."""
        path.write_bytes(formats.pt(values).replace(b"little", b"bigger"))
        refused(path, "CRC-32|not little-endian")


_PLACES = st.tuples(st.sampled_from(["beginning", "end", "anywhere"]), st.integers(0, 1_000_000))


def _at(place: tuple[str, int], size: int) -> int:
    """Where a place is in a file of that size."""
    where, millionths = place
    if where == "anywhere":
        return millionths * (size - 1) // 1_000_000
    offset = millionths * (4_000 if where == "beginning" else 20_000) // 1_000_000
    return min(offset, size - 1) if where == "beginning" else max(0, size - 1 - offset)


class TestAnyDamage:
    """Whatever is changed in a good file, it is taken or refused, and nothing else happens."""

    @pytest.mark.parametrize("name", ["ct2", "hf", "pt"])
    @given(
        changes=st.lists(
            st.tuples(_PLACES, st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, bytes(8)])),
            min_size=1,
            max_size=4,
        ),
        cut=st.none() | _PLACES,
    )
    @settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_damage(
        self,
        damaged: dict[str, Good],
        name: str,
        changes: list[tuple[tuple[str, int], bytes]],
        cut: tuple[str, int] | None,
    ) -> None:
        """Bytes are overwritten near the beginning, near the end, or anywhere, or the file is cut."""
        path, whole = damaged[name].path, damaged[name].content
        changed = bytearray(whole)
        for place, piece in changes:
            at = _at(place, len(whole))
            changed[at : at + len(piece)] = piece
        if cut is not None:
            del changed[_at(cut, len(whole)) :]
        path.write_bytes(changed)
        try:
            weights = convert.read(path)
            if weights is not None:
                ggml_file.header_of(weights)
        except ModelError as error:
            said = str(error)
        else:
            said = ""
        assert len(said) < 700  # a sentence, not a copy of the file


def test_header_is_the_one_in_the_file(tmp_path: Path, ggml: bytes) -> None:
    """What was written passes the check that every model must."""
    path = tmp_path / "m.bin"
    path.write_bytes(ggml)
    assert ggml_file.check(path) == HEADER
