"""The safe binding: the only module that touches the compiled extension.

    Model ──────┐
                ├── Session     recognises; keeps both alive
    Grammar ────┘
    VoiceDetector

Every handle is open or closed, never half: a constructor raises or succeeds, close() may be called
twice, and use after it is EngineClosedError. A session and a detector serve one thread at a time; a
second one gets EngineBusyError instead of a race. Each C call returns a status, and check() turns
it into a typed error. cffi releases the GIL while C runs.
"""

from __future__ import annotations

import gc
import logging
import math
import mmap
import os
import re
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from edgevoice import models, small_words
from edgevoice.audio import check_samples
from edgevoice.errors import (
    AudioFormatError,
    CancelledError,
    DeadlineError,
    EdgevoiceError,
    EngineBusyError,
    EngineClosedError,
    GrammarError,
    InferenceError,
    ModelCorruptError,
    NativeError,
    UsageError,
)
from edgevoice.events import Hypothesis, Samples, Timings, TokenScore, Transcript
from edgevoice.kernels import load as load_module
from edgevoice.mel import BINS, LogMel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from edgevoice.grammar import CompiledGrammar

_module = load_module()
ffi, lib = _module.ffi, _module.lib

_log = logging.getLogger(__name__)

ERRORS: Final[dict[int, type[EdgevoiceError]]] = {
    lib.EV_ERR_ARGUMENT: UsageError,
    lib.EV_ERR_FILE: ModelCorruptError,
    lib.EV_ERR_MODEL: ModelCorruptError,
    lib.EV_ERR_MEMORY: NativeError,
    lib.EV_ERR_GRAMMAR: GrammarError,
    lib.EV_ERR_AUDIO: AudioFormatError,
    lib.EV_ERR_INFERENCE: InferenceError,
    lib.EV_ERR_CANCELLED: CancelledError,
    lib.EV_ERR_DEADLINE: DeadlineError,
    lib.EV_ERR_INTERNAL: NativeError,
}
"""Which error each failing status raises; a test proves that no status is missing."""

STATUS_COUNT: Final[int] = lib.EV_STATUS_COUNT
ARC_KINDS: Final[int] = lib.EV_ARC_KINDS

_LOG_LEVELS: Final = {"D": logging.DEBUG, "I": logging.DEBUG, "W": logging.WARNING, "E": logging.ERROR}
"""whisper.cpp says at "info" what only its developers want to read."""


def check(status: int, what: str = "", remedy: str = "", *, expected: bool = False) -> None:
    """Raise the error of a failing status, `what: C's own text; remedy`; forward the engine's log.

    What is `expected`, as the end of what was cancelled, is logged for developers only.
    """
    _drain_log(expected=expected)
    if status == lib.EV_OK:
        return
    text = ffi.string(lib.ev_last_error()).decode("utf-8", "replace")
    text = f"{what}: {text}" if what else text
    raise ERRORS.get(status, NativeError)(f"{text}; {remedy}" if remedy else text)


def _drain_log(*, expected: bool) -> None:
    buffer = ffi.new("char[]", 8192)
    while size := lib.ev_log_take(buffer, len(buffer)):
        for line in ffi.buffer(buffer, size)[:].decode("utf-8", "replace").splitlines():
            level = logging.DEBUG if expected else _LOG_LEVELS.get(line[:1], logging.INFO)
            _log.log(level, "%s", line[2:])


def whisper_version() -> str:
    """Version of whisper.cpp compiled in."""
    return str(ffi.string(lib.ev_whisper_version()).decode())


def kernels() -> str:
    """What ggml's kernels were compiled for, as upstream prints it.

    At its end, behind "DEVICES :", are the backends that it was built with beside, each with the number of
    devices that it has found.
    """
    return str(ffi.string(lib.ev_kernels()).decode()).strip()


def absent_backends() -> list[str]:
    """Return those that it was built with and that find no device: the processor does their work."""
    return re.findall(r"(\w+) = 0", kernels().partition("DEVICES :")[2])


def gpus() -> tuple[str, ...]:
    """Names of the graphics devices that can transcribe, e.g. "Vulkan0: V3D 4.2"; none in a plain build."""
    names: list[str] = []
    while name := lib.ev_gpu(len(names)):
        names.append(ffi.string(name).decode("utf-8", "replace"))
    return tuple(names)


def spare_memory() -> None:
    """Have this process keep little of the memory that it frees from now on: for a service, not a library."""
    lib.ev_memory_spare()


def give_back_memory() -> None:
    """Give back to the system what was freed and kept."""
    gc.collect()
    lib.ev_memory_give_back()


def language_id(code: str) -> int:
    """Return Whisper's number of a language code such as "en".

    Raises:
        UsageError: the code is not one of Whisper's languages.
    """
    number = int(lib.ev_language_id(code.encode())) if code.isalpha() else -1
    if number < 0:
        raise UsageError(f"{code!r} is no language of Whisper; use a code such as en, de, fr, es")
    return number


class Handle:
    """A C object with one owner."""

    _waits = False
    """A second thread waits and gets no error: of what does not change, and is not used for long."""

    def __init__(self, pointer: Any, free: Any) -> None:
        self._pointer = ffi.gc(pointer, free)  # freed with this object if close() is forgotten
        self._lock = threading.Lock()

    @contextmanager
    def _use(self) -> Iterator[Any]:
        """Lend the pointer to one thread."""
        if not self._lock.acquire(blocking=self._waits):
            raise EngineBusyError(
                f"this {type(self).__name__} is in use by another thread; give each thread its own"
            )
        try:
            if self._pointer is None:
                raise EngineClosedError(f"this {type(self).__name__} is closed; open a new one")
            yield self._pointer
        finally:
            self._lock.release()

    def close(self) -> None:
        """Release the memory now. May be called twice; not while another thread uses it.

        Raises:
            EngineBusyError: another thread is using it.
        """
        if self._pointer is None:
            return
        with self._use() as pointer:
            self._pointer = None
            ffi.release(pointer)

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._pointer is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


SESSION_BYTES: Final = 120_000_000
"""Of address space for a session of a model of tiny's layers, and the stacks of its threads. With tiny.en it
took 88 MB at the most on x86-64: 17 when opened, the rest for 28 s of noise, recognised and transcribed. With
base it took 111, for which 180 are reckoned."""

DETECTOR_BYTES: Final = 350_000_000
"""Of address space for the detector (85 MB) and what comes then: recognition (80 MB), stacks of threads."""

MODEL_BYTES: Final = 30_000_000
"""Of address space that a model takes beside what is in its file: 10 MB with tiny.en."""


_PIECE_BYTES: Final = 32_000_000  # ggml takes it in pieces, too, and 32-bit systems have few large holes


def check_room(size_bytes: int, what: str) -> None:
    """Check that there is address space for what ggml is about to take: without, it aborts or crashes.

    Raises:
        NativeError: a limit stands in the way; says which.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        with ExitStack() as pieces:
            for _ in range(math.ceil(size_bytes / _PIECE_BYTES)):
                # Only to be read, it counts for no limit but that of addresses, on a small board, too.
                pieces.enter_context(mmap.mmap(-1, _PIECE_BYTES, flags, mmap.PROT_READ))
    except OSError:
        raise NativeError(
            f"out of memory: {what} needs {size_bytes / 1e6:.0f} MB of address space, which are not there; "
            "raise the limit (ulimit -v, or LimitAS= of the unit), or take a smaller model"
        ) from None


QUANTISATIONS: Final = {
    "q8_0": 7,
    "q6_k": 14,
    "q5_1": 9,
    "q5_0": 8,
    "q5_k": 13,
    "q4_1": 3,
    "q4_0": 2,
    "q4_k": 12,
    "q3_k": 11,
    "q2_k": 10,
}
"""ggml's file types that whisper.cpp runs, largest first; names as upstream's. Those with k have blocks of
256 values, which the rows of tiny (384) are no multiple of."""


def quantize(source: Path, target: Path, kind: str) -> None:
    """Write an f16 or f32 model with its matrices quantised.

    Raises:
        UsageError: an unknown kind.
        ModelCorruptError: the source is no sound f16 or f32 model, its rows do not divide into the blocks of
            the kind, or the target cannot be written.
    """
    if kind not in QUANTISATIONS:
        raise UsageError(f"{kind!r} is no quantisation; use one of {', '.join(QUANTISATIONS)}")
    status = lib.ev_model_quantize(os.fsencode(source), os.fsencode(target), QUANTISATIONS[kind])
    check(status, str(source))


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model file says of itself."""

    n_vocab: int
    n_mels: int
    n_audio_ctx: int
    n_text_ctx: int
    n_audio_layer: int
    file_type: int
    multilingual: bool
    n_text_layer: int
    n_state: int
    """Width of encoder and decoder."""


class Model(Handle):
    """Weights and vocabulary of a ggml Whisper file; may serve many sessions.

    Raises:
        ModelCorruptError: the file is unreadable, truncated or malformed; nothing of it was loaded.
    """

    def __init__(self, path: Path) -> None:
        out = ffi.new("ev_model **")
        if path.is_file():
            check_room(path.stat().st_size + MODEL_BYTES, str(path))
        check(
            self._open(os.fsencode(path), out),
            f"{path} is no usable model",
            "pull it again with: edgevoice models pull NAME",
        )
        super().__init__(out[0], lib.ev_model_free)
        info = ffi.new("ev_model_info *")
        lib.ev_model_info_get(out[0], info)
        self.info = ModelInfo(
            info.n_vocab,
            info.n_mels,
            info.n_audio_ctx,
            info.n_text_ctx,
            info.n_audio_layer,
            info.file_type,
            bool(info.multilingual),
            info.n_text_layer,
            info.n_state,
        )
        filters = ffi.buffer(lib.ev_model_mel_filters(out[0]), info.n_mels * BINS * 4)
        self.mel_filters = np.frombuffer(bytes(filters), np.float32).reshape(-1, BINS)
        """shape (n_mels, BINS)"""

    def _open(self, path: bytes, out: Any) -> int:
        """Call the function of C that opens it."""
        return int(lib.ev_model_open(path, out))

    def fewest_tokens(self, text: str) -> int:
        """Return how many tokens of the vocabulary spell a text at least; -1: none do."""
        data, out = text.encode(), ffi.new("int32_t *")
        with self._use() as pointer:
            check(lib.ev_model_fewest_tokens(pointer, data, len(data), out))
        return int(out[0])


@dataclass(frozen=True, slots=True)
class Nearby:
    """What a search for the nearest sentences found."""

    sentences: list[tuple[str, float]]
    """Text and cost in letters, cheapest first."""

    searched: float
    """All that cost less are among them, unless there are as many as were asked for."""

    work: int
    """Letters compared and steps made."""


def open_network(arcs: Any, first_arc: Any, name: str) -> Any:
    """Return an ev_grammar of tables as csrc/edgevoice.h has them; an error begins with `name`.

    Raises:
        GrammarError: they contradict themselves.
    """
    arcs = np.ascontiguousarray(arcs, dtype=np.uint32)
    first = np.ascontiguousarray(first_arc, dtype=np.uint32)
    out = ffi.new("ev_grammar **")
    c_arcs, c_first = ffi.from_buffer("uint32_t[]", arcs), ffi.from_buffer("uint32_t[]", first)
    check(lib.ev_grammar_open(c_arcs, len(arcs), c_first, len(first) - 1, out), name)
    return out[0]


class Grammar(Handle):
    """The network of a compiled grammar, ready to decode and match with."""

    def __init__(self, compiled: CompiledGrammar) -> None:
        pointer = open_network(compiled.arcs, compiled.first_arc, str(compiled.file.path))
        super().__init__(pointer, lib.ev_grammar_free)
        self.compiled = compiled
        self._nearest: Any = None
        self.size_bytes = 4 * (3 * len(compiled.arcs) + len(compiled.first_arc))
        """Memory of the network."""

    @cached_property
    def digest(self) -> str:
        """What tells this network from others."""
        return self.compiled.digest()

    def match(self, text: str) -> list[list[tuple[int, int]]]:
        """Return the readings of a text: lists of (label, byte position), the last one the block accepted."""
        data = text.encode()
        with self._use() as pointer:
            capacity = 64
            while True:
                labels = ffi.new("ev_label[]", capacity)
                n = ffi.new("size_t *")
                check(lib.ev_grammar_match(pointer, data, len(data), labels, capacity, n))
                if n[0] <= capacity:
                    break
                capacity = int(n[0])
        readings: list[list[tuple[int, int]]] = []
        for i in range(n[0]):
            while labels[i].path >= len(readings):
                readings.append([])
            readings[labels[i].path].append((labels[i].label, labels[i].position))
        return readings

    def can_go_on(self, text: str) -> bool:
        """Whether words of the grammar, other than skip words, can follow a text that begins a sentence."""
        data = text.encode()
        answer = ffi.new("int32_t *")
        with self._use() as pointer:
            check(lib.ev_grammar_can_go_on(pointer, data, len(data), answer))
        return bool(answer[0])

    def sentences(self, effort: int, is_free: Sequence[bool] = ()) -> SentenceGraph:
        """Return all sentences as plain text, without words to skip; short ones if the effort is too little.

        Args:
            effort: configurations to look at; a million take about a second and 80 MB.
            is_free: for each block whether it is left out, as one with free text must be; a sentence of
                another block that is one of it, too, names it as well.

        Raises:
            GrammarError: the sentences have no end: there is free text in a block that is not left out.
        """
        free, out = bytes(is_free), ffi.new("ev_sentences **")
        with self._use() as pointer:
            c_free = ffi.from_buffer("uint8_t[]", free)
            check(lib.ev_grammar_sentences(pointer, c_free, len(free), effort, out))
        try:
            graph = ffi.new("ev_sentence_graph *")
            lib.ev_sentences_get(out[0], graph)
            n = graph.n_states + 1
            first_edge = ffi.unpack(graph.first_edge, n)
            first_accept = ffi.unpack(graph.first_accept, n)
            return SentenceGraph(
                complete=bool(graph.complete),
                first_edge=first_edge,
                bytes=bytes(ffi.unpack(graph.bytes, first_edge[-1])) if first_edge[-1] else b"",
                targets=ffi.unpack(graph.targets, first_edge[-1]) if first_edge[-1] else [],
                first_accept=first_accept,
                accepts=ffi.unpack(graph.accepts, first_accept[-1]) if first_accept[-1] else [],
            )
        finally:
            lib.ev_sentences_free(out[0])

    def ahead(self, text: str, networks: Sequence[int] = (), most: int = 20) -> Ahead:
        """Return how far a plain text begins a sentence, and what words can come next.

        Args:
            text: in lower case, with one space between words and no punctuation after them.
            networks: first nodes of networks that are named in place of the words they begin with.
            most: words wanted.
        """
        data, calls = text.encode(), sorted(networks)
        words, called = ffi.new("char[]", 65 * most), ffi.new("uint8_t[]", len(calls))
        out = ffi.new("ev_ahead *")
        with self._use() as pointer:
            check(lib.ev_grammar_ahead(pointer, data, len(data), calls, len(calls), most, words, called, out))
        return Ahead(
            reached=data[: out.reached].decode("utf-8", "replace"),
            words=tuple(ffi.buffer(words, out.size)[:].decode("utf-8", "replace").split("\n")[:-1]),
            networks=tuple(call for call, is_next in zip(calls, called, strict=True) if is_next),
            more=bool(out.more),
        )

    def choices(self, model: Model, text: str) -> int:
        """Return how many tokens the decoder may go on with after a text; 0: it begins no sentence."""
        data, out = text.encode(), ffi.new("size_t *")
        with self._use() as pointer, model._use() as c_model:  # noqa: SLF001
            check(lib.ev_grammar_choices(pointer, c_model, data, len(data), out))
        return int(out[0])

    def nearest(self, text: str, max_cost: float, n_best: int, max_work: int) -> Nearby:
        """Return the sentences that differ least from a text, by the costs of csrc/nearest.h.

        Args:
            text: up to 100 words between spaces, without punctuation around them; of others nothing is found.
            max_cost: letters.
            n_best: 1-64.
            max_work: letters compared and steps made, when the search ends with what it has.
        """
        data = text.encode()
        found, n_found = ffi.new("const ev_near **"), ffi.new("int32_t *")
        searched, work = ffi.new("int32_t *"), ffi.new("int32_t *")
        with self._use() as pointer:
            if self._nearest is None:  # most grammars are never asked
                self._nearest = _open_nearest(pointer, self.compiled.file.language)
            cost = round(max_cost * _COST_UNITS)
            arguments = (data, len(data), cost, n_best, max_work, found, n_found, searched, work)
            check(lib.ev_nearest_find(self._nearest, *arguments), str(self.compiled.file.path))
            sentences = [
                (ffi.string(near.text).decode("utf-8", "replace"), near.cost / _COST_UNITS)
                for near in (found[0][i] for i in range(n_found[0]))
            ]
        return Nearby(sentences, searched[0] / _COST_UNITS, work[0])

    def close(self) -> None:
        """As Handle.close."""
        super().close()
        self._nearest = None


_TINY_LAYERS: Final = 4
_COST_UNITS: Final = 100
"""Of a letter, in csrc/nearest.h."""


def _open_nearest(grammar: Any, language: str) -> Any:
    texts = {
        "kept": small_words.kept(language),
        "missing": small_words.missing(language),
        "spare": small_words.spare(language),
        "alike": small_words.ALIKE,
        "silent": (small_words.SILENT,),
        "endings": (small_words.ENDINGS,),
        "spellings": (spelling for pair in small_words.SPELLINGS for spelling in pair),
    }
    kept = {name: ffi.new("char[]", " ".join(each).encode()) for name, each in texts.items()}
    out = ffi.new("ev_nearest **")
    check(lib.ev_nearest_open(grammar, ffi.new("ev_language *", kept), out))
    return ffi.gc(out[0], lib.ev_nearest_free)


@dataclass(frozen=True, slots=True, eq=False)
class SentenceGraph:
    """A deterministic automaton over bytes without cycles, as small as can be.

    State 0 is the start; edges lead to states with higher numbers.
    """

    complete: bool
    """False: sentences are missing, long ones first."""

    first_edge: list[int]
    """Edges of state i are first_edge[i] up to first_edge[i + 1]."""

    bytes: bytes
    """Of each edge, ascending within a state."""

    targets: list[int]
    """Of each edge."""

    first_accept: list[int]
    """Likewise for `accepts`."""

    accepts: list[int]
    """Blocks of the sentences that end at a state, ascending."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """What can follow the part of a text that begins a sentence."""

    reached: str
    """That part, whole words."""

    words: tuple[str, ...]
    """In byte order."""

    networks: tuple[int, ...]
    """First nodes of those that can be run."""

    more: bool
    """There are more words than wanted."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How to decode. Ranges are checked when a session opens."""

    threads: int = 1
    """1-64"""

    language: str = "en"
    """Ignored by English-only models."""

    beam: int = 8
    """Hypotheses kept at each step, 1-32; 16 and 24 were no better than 8 on coffee orders."""

    n_best: int = 5
    """Sentences returned, 1-32."""

    token_reward: float = 0.5
    """Nats added for each token."""

    lm_weight: float = 0.4
    """Share of the internal language model that is subtracted, 0-1."""

    timeout_s: float = 10.0
    """For one recognition; 0 = none."""

    context: str = ""
    """Taken by Whisper for what was said before, so that it expects these words; at most its last 223 tokens
    count."""


class Session(Handle):
    """A decoder: encoder output, caches and grammar states of one recognition at a time.

    Raises:
        UsageError: an option outside its range.
        NativeError: not enough memory.
    """

    def __init__(self, model: Model, grammar: Grammar, options: SessionOptions) -> None:
        context = ffi.new("char[]", options.context.encode())
        try:
            c_options = ffi.new(
                "ev_options *",
                {
                    "threads": options.threads,
                    "language": language_id(options.language),
                    "beam": options.beam,
                    "n_best": options.n_best,
                    "token_reward": options.token_reward,
                    "lm_weight": options.lm_weight,
                    "timeout_ms": math.ceil(options.timeout_s * 1000),
                    "context": context,
                },
            )
        except (OverflowError, TypeError, ValueError) as error:  # too large for C, no number, NaN
            raise UsageError(f"an option is out of range ({error}): {options}") from None
        out = ffi.new("ev_session **")
        check_room(SESSION_BYTES * model.info.n_audio_layer // _TINY_LAYERS, "a recogniser")
        with model._use() as c_model, grammar._use() as c_grammar:  # noqa: SLF001
            check(lib.ev_session_open(c_model, c_grammar, c_options, out))
        super().__init__(out[0], lib.ev_session_free)
        self.options = options
        self._log_mel = LogMel(model.mel_filters)

    def recognise(self, samples: Samples, *, free_text: bool = True) -> Transcript:
        """Return the sentences of the grammar that the samples most likely say.

        Args:
            samples: 1-D, 16 kHz mono, int16 or float32, finite, at most 28 s.
            free_text: look for sentences with free text, too. Without, a step of the search takes a third of
                the time; a grammar that has no other sentences is searched for these all the same.

        Raises:
            AudioFormatError: anything else.
            DeadlineError: the time ran out.
            CancelledError: another thread called cancel().
            EngineBusyError, EngineClosedError, InferenceError: as named.
        """
        samples = check_samples(samples)
        n_columns, result = ffi.new("size_t *"), ffi.new("ev_result *")
        check(lib.ev_mel_columns(len(samples), n_columns))
        with self._use() as pointer:
            started = time.perf_counter()
            mel = self._log_mel(samples, n_columns[0])
            mel_ms = (time.perf_counter() - started) * 1000
            data = ffi.from_buffer("float[]", mel)
            check(lib.ev_session_recognise(pointer, data, len(data), len(samples), free_text, result))
            return _transcript(result, mel_ms)

    def recognise_free_text(self) -> Transcript:
        """Return the sentences of the whole grammar that the samples last recognised most likely say.

        Once after a recognition whose transcript is `without_free_text`; the time counts from its beginning.

        Raises:
            UsageError: there was none, or this was asked already.
            DeadlineError, CancelledError, EngineBusyError, EngineClosedError, InferenceError: as named.
        """
        result = ffi.new("ev_result *")
        with self._use() as pointer:
            check(lib.ev_session_recognise_free_text(pointer, result))
            return _transcript(result, 0.0)

    def transcribe(self) -> Hypothesis:
        """Return what Whisper would have written of the samples last recognised if there were no grammar.

        Greedy. Once after each recognition.

        Raises:
            UsageError: there was no recognition, it failed, or this was asked already.
            DeadlineError, EngineBusyError, EngineClosedError, InferenceError: as named.
        """
        out = ffi.new("ev_hypothesis *")
        with self._use() as pointer:
            check(lib.ev_session_transcribe(pointer, out))
            return _hypothesis(out)

    def use(self, grammar: Grammar) -> None:
        """Decode with another grammar from the next recognition on.

        Raises:
            EngineBusyError, EngineClosedError: as named.
        """
        with self._use() as pointer, grammar._use() as c_grammar:  # noqa: SLF001
            check(lib.ev_session_set_grammar(pointer, c_grammar))

    def cancel(self) -> None:
        """Stop a recognition that runs on another thread at its next step; without one, nothing."""
        pointer = self._pointer
        if pointer is not None:
            lib.ev_session_cancel(pointer)


def _transcript(result: Any, mel_ms: float) -> Transcript:
    """Copy a result, to be called while the session is in use: C reuses the memory at the next call."""
    return Transcript(
        hypotheses=tuple(_hypothesis(result.hypotheses[i]) for i in range(result.n_hypotheses)),
        tokens=tuple(
            TokenScore(t.end, t.log_probability, t.best, t.acoustic_gap)
            for t in (result.tokens[i] for i in range(result.n_tokens))
        ),
        no_speech_probability=result.no_speech_probability,
        timings=Timings(mel=mel_ms, encode=result.encode_ms, search=result.search_ms),
        without_free_text=bool(result.without_free_text),
    )


def _hypothesis(c_hypothesis: Any) -> Hypothesis:
    return Hypothesis(
        text=ffi.string(c_hypothesis.text).decode("utf-8", "replace"),
        score=c_hypothesis.score,
        log_probability=c_hypothesis.log_probability,
        tokens=c_hypothesis.tokens,
    )


class VoiceDetector(Handle):
    """Silero voice activity detection over a stream of 512-sample windows.

    Args:
        path: another copy of the Silero file that comes with the build; its hash must be the same.

    Raises:
        ModelNotFoundError, ModelCorruptError: no such file, or another one.
    """

    def __init__(self, path: Path | None = None) -> None:
        path = models.vad_model(path)
        check_room(DETECTOR_BYTES, "the voice detector")
        out = ffi.new("ev_vad **")
        check(lib.ev_vad_open(os.fsencode(path), out), str(path))
        super().__init__(out[0], lib.ev_vad_free)

    def process(self, samples: Samples) -> float:
        """Return the probability 0-1 that this window of 512 samples (32 ms) holds speech."""
        samples = check_samples(samples)
        probability = ffi.new("float *")
        with self._use() as pointer:
            check(lib.ev_vad_process(pointer, ffi.from_buffer("float[]", samples), len(samples), probability))
        return float(probability[0])

    def reset(self) -> None:
        """Forget what was heard before."""
        with self._use() as pointer:
            lib.ev_vad_reset(pointer)
