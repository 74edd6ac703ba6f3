"""Weights and vocabulary of a Whisper model, for transcription.

What of whisper.h it stands for: whisper_init_from_file_with_params_no_state, whisper_init_from_buffer_...,
whisper_free, whisper_tokenize, whisper_token_to_str, whisper_token_*, whisper_lang_*, whisper_model_*.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from edgevoice import ggml_file, native
from edgevoice.errors import ModelNotFoundError, UsageError
from edgevoice.native import check, ffi, lib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgevoice.whisper.session import Session

_log = logging.getLogger(__name__)

ALIGNMENTS: Final = (
    "tiny.en", "tiny", "base.en", "base", "small.en", "small", "medium.en", "medium",
    "large-v1", "large-v2", "large-v3", "large-v3-turbo", "top",
)  # fmt: skip
"""Models whose alignment heads are known; "top" takes all heads of the highest layer, of any model."""

MAX_HEADS: Final = 32
"""Alignment heads: as EV_MAX_ALIGNMENT_HEADS in csrc/edgevoice.h."""

_FILE_TYPES: Final = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1",
    10: "q2_K", 11: "q3_K", 12: "q4_K", 13: "q5_K", 14: "q6_K",
}  # fmt: skip
"""ggml_ftype in ggml/include/ggml.h."""

_BY_AUDIO_LAYERS: Final = {4: "tiny", 6: "base", 12: "small", 24: "medium", 32: "large"}
_DISTILLED_LAYERS: Final = 2
_TURBO_LAYERS: Final = 4
_V3_MELS: Final = 128
_ENGLISH_TOKENS: Final = 51_864


@dataclass(frozen=True, slots=True)
class ModelType:
    """What a model file is, and what it takes."""

    size: str
    """As upstream names it: "tiny.en", "large-v3-turbo", "distil-medium.en"; "large" is v1 or v2."""

    quantisation: str
    """"f16", "q8_0", ..."""

    multilingual: bool
    file_bytes: int
    model_bytes: int
    """Memory of a Model: what is read from the file, and the vocabulary."""

    session_bytes: int
    """Memory of a Session, at most: with 8 beams and the whole window."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Numbers of the tokens that are no text."""

    end_of_text: int
    start: int
    translate: int
    transcribe: int
    solm: int
    """Speaker turn, of models trained for it."""

    previous: int
    no_speech: int
    no_timestamps: int
    first_timestamp: int
    """0.00 s; the next is 0.02 s later."""


class Model(native.Model):
    """Weights and vocabulary; immutable, serves any number of sessions and threads.

    Args:
        file: a ggml file, or its bytes.
        alignment: whose alignment heads tell when words were said (Options.word_times): one of ALIGNMENTS,
            "auto" for those of this size, None for none, which saves some memory; or heads of your own, pairs
            of a layer of the decoder and a head of it, from 0 on.
        gpu: the graphics device that computes, the index of one of gpus(); "auto" for the first one, or the
            processor where there is none; None for the processor.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelCorruptError: it is unreadable, truncated or malformed; nothing of it was loaded.
        UsageError: an unknown alignment, or one of another model; no such graphics device.
        NativeError: not enough memory.
    """

    _waits = True

    def __init__(
        self,
        file: str | os.PathLike[str] | bytes,
        *,
        alignment: str | Sequence[tuple[int, int]] | None = None,
        gpu: int | Literal["auto"] | None = "auto",
    ) -> None:
        self.gpu = _graphics_device(gpu)
        """Index of the graphics device that computes; None: the processor does."""
        if isinstance(alignment, str) and alignment not in {*ALIGNMENTS, "auto"}:
            raise UsageError(f"unknown alignment {alignment!r}; use auto, or one of {', '.join(ALIGNMENTS)}")
        if isinstance(file, (bytes, bytearray, memoryview)):
            # Checked and loaded as any other file is: it just has no name.
            descriptor = os.memfd_create("edgevoice-model")
            try:
                with open(descriptor, "wb", closefd=False) as memory:
                    memory.write(file)
                self._load(Path(f"/proc/self/fd/{descriptor}"), alignment)
            finally:
                os.close(descriptor)
        else:
            self._load(Path(file), alignment)

    def _load(self, path: Path, alignment: str | Sequence[tuple[int, int]] | None) -> None:
        self.type, header = _inspected(path)
        """What it is and takes."""

        if alignment == "auto":
            alignment = self.type.size if self.type.size in ALIGNMENTS else "top"
        if alignment is not None and not isinstance(alignment, str):
            alignment = _heads(alignment, header)
        self.alignment = alignment
        """Whose alignment heads are used; None: none."""
        super().__init__(path)

    def _open(self, path: bytes, out: Any) -> int:
        name, heads = ffi.NULL, list[int]()
        if isinstance(self.alignment, str):
            name = ffi.new("char[]", self.alignment.encode())
        elif self.alignment is not None:
            heads = [number for head in self.alignment for number in head]
        c_heads = ffi.new("int32_t[]", heads)
        gpu = -1 if self.gpu is None else self.gpu
        return int(lib.ev_model_open_for_transcription(path, name, c_heads, len(heads) // 2, gpu, out))

    @staticmethod
    def inspect(path: str | os.PathLike[str]) -> ModelType:
        """Return what a file is and takes, without loading it.

        Raises:
            ModelNotFoundError, ModelCorruptError: as the constructor.
        """
        return _inspected(Path(path))[0]

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages it knows."""
        with self._use() as pointer:
            n = max(1, lib.ev_model_languages(pointer))
        return tuple(ffi.string(lib.ev_language_code(i)).decode() for i in range(n))

    @cached_property
    def special(self) -> SpecialTokens:
        """Tokens that are no text."""
        out = ffi.new("ev_special *")
        with self._use() as pointer:
            lib.ev_model_special(pointer, out)
        return SpecialTokens(*(getattr(out, name) for name in SpecialTokens.__slots__))

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Return a text as tokens of the vocabulary, as upstream cuts it.

        Raises:
            UsageError: the text is no valid Unicode.
        """
        if not isinstance(text, str):
            raise UsageError(f"a text is wanted, got {text!r}")
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"the text cannot be written as UTF-8: {error}") from None
        n = ffi.new("size_t *")
        tokens = ffi.new("int32_t[]", max(1, len(data)))  # a token is a byte at least
        with self._use() as pointer:
            check(lib.ev_model_tokenize(pointer, data, len(data), tokens, len(tokens), n))
        return tuple(ffi.unpack(tokens, n[0])) if n[0] else ()

    def token_data(self, token: int) -> bytes:
        """Return the UTF-8 of a token, which may begin or end within a character; of others their name.

        Raises:
            UsageError: there is no such token.
        """
        bytes_, size = ffi.new("const char **"), ffi.new("size_t *")
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < self.info.n_vocab:
            raise UsageError(f"the model has tokens 0 to {self.info.n_vocab - 1}, got {token!r}")
        with self._use() as pointer:
            check(lib.ev_model_token(pointer, token, bytes_, size))
            return bytes(ffi.buffer(bytes_[0], size[0]))

    def _share(self) -> Model:
        """Return another one of the same weights, which stays when this one is closed."""
        out = ffi.new("ev_model **")
        with self._use() as pointer:
            check(lib.ev_model_share(pointer, out))
        other = object.__new__(Model)
        native.Handle.__init__(other, out[0], lib.ev_model_free)
        other.type, other.alignment, other.info = self.type, self.alignment, self.info
        other.mel_filters, other.gpu = self.mel_filters, self.gpu
        return other

    def session(self) -> Session:
        """Return a new session, which keeps this model's weights as long as it needs them."""
        from edgevoice.whisper.session import Session  # noqa: PLC0415 - it imports this file

        return Session(self)


def _graphics_device(wanted: int | Literal["auto"] | None) -> int | None:
    if wanted is None:
        return None
    names = native.gpus()
    if wanted == "auto":
        if not names:
            _tell_absent()
        return 0 if names else None
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 0 <= wanted < len(names):
        there = ", ".join(f"{i} ({name})" for i, name in enumerate(names)) or "none"
        raise UsageError(f'gpu must be "auto", None or a graphics device, got {wanted!r}; there are: {there}')
    return wanted


@cache  # once is enough
def _tell_absent() -> None:
    if absent := native.absent_backends():
        _log.warning("%s: built in, but no device is found; the processor computes", ", ".join(absent))


_VOCABULARY_BYTES: Final = 30_000_000
"""Two maps of 52,000 words and a trie: 22 MB with tiny.en and base."""


def _session_bytes(header: ggml_file.Header) -> int:
    """Return an upper bound of what upstream allocates for a state.

    Half-precision caches of the decoder (8 beams have room of their own) and of the encoder's output; the
    encoder's attention over the whole window, which is by far the largest of its graph, twice; logits and
    masks of the decoder. tests/test_whisper.py compares it with what sessions take.
    """
    positions = 1536  # 1,500, in blocks of 256
    texts = 512 * (8 + 2)
    cache = 2 * 2 * header.n_text_state * header.n_text_layer * (texts + positions)
    encoder = 4 * positions * (2 * header.n_audio_head * positions + 24 * header.n_audio_state)
    decoder = 4 * header.n_text_ctx * (3 * header.n_vocab + 64 * header.n_text_state)
    return cache + encoder + decoder


def _inspected(path: Path) -> tuple[ModelType, ggml_file.Header]:
    if not path.is_file():
        raise ModelNotFoundError(f"{path} is no file; give a ggml model, such as models.find('tiny.en')")
    header = ggml_file.check(path)
    size = path.stat().st_size
    kind = ModelType(
        size=_size(header),
        quantisation=_FILE_TYPES.get(header.matrix_ftype, f"type {header.ftype}"),
        multilingual=_is_multilingual(header),
        file_bytes=size,
        model_bytes=size + _VOCABULARY_BYTES,
        session_bytes=_session_bytes(header),
    )
    return kind, header


def _heads(heads: Sequence[tuple[int, int]], header: ggml_file.Header) -> tuple[tuple[int, int], ...]:
    """Return alignment heads of the caller's as they are, each once."""
    known = {(layer, head) for layer in range(header.n_text_layer) for head in range(header.n_text_head)}
    try:
        found = tuple(dict.fromkeys((int(layer), int(head)) for layer, head in heads))
    except (TypeError, ValueError):
        found = ()
    if not 1 <= len(found) <= MAX_HEADS or not set(found) <= known:
        raise UsageError(
            f"alignment heads are pairs of a layer (0-{header.n_text_layer - 1}) and a head "
            f"(0-{header.n_text_head - 1}) of this model, 1 to {MAX_HEADS} of them; got {heads!r}"
        )
    return found


def _is_multilingual(header: ggml_file.Header) -> bool:
    return header.n_vocab > _ENGLISH_TOKENS


def _size(header: ggml_file.Header) -> str:
    name = _BY_AUDIO_LAYERS[header.n_audio_layer]
    if name == "large" and header.n_mels == _V3_MELS:
        name = "large-v3-turbo" if header.n_text_layer == _TURBO_LAYERS else "large-v3"
    if header.n_text_layer == _DISTILLED_LAYERS:
        name = f"distil-{name}"
    return name if _is_multilingual(header) else f"{name}.en"
