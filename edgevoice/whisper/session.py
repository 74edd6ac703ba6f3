"""A decoder of one model: one transcription at a time, in whatever thread.

What of whisper.h it stands for, each of them "_with_state" or "_from_state": whisper_init_state,
whisper_free_state, whisper_full and all of whisper_full_*, whisper_lang_auto_detect, whisper_pcm_to_mel,
whisper_set_mel, whisper_encode, whisper_decode, whisper_get_logits.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgevoice.audio import check_samples
from edgevoice.errors import AudioFormatError, UsageError
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.native import Handle, check, check_room, ffi, language_id, lib
from edgevoice.whisper.options import THREADS, Options, check_range
from edgevoice.whisper.results import Aborted, Segment, Timings, Token, Transcription, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from edgevoice.events import Samples
    from edgevoice.whisper.model import Model
    from edgevoice.whisper.run import Run
    from edgevoice.whisper.stream import Stream, StreamOptions

    OnSegments = Callable[[float, Sequence[Segment]], None]

MIN_SAMPLES: Final = SAMPLE_RATE_HZ // 10
"""Upstream makes nothing of less."""

_ALL_CONTEXT: Final = 224
_FOREVER_S: Final = 1e6


class CancelToken:
    """Ends, for good, the transcriptions that it was given to: at their next step, also in the encoder."""

    def __init__(self) -> None:
        out = ffi.new("ev_cancel **")
        check(lib.ev_cancel_new(out))
        self._pointer = ffi.gc(out[0], lib.ev_cancel_free)
        self.cancelled = False
        """Whether cancel() was called."""

    def cancel(self) -> None:
        """Cancel, in any thread; twice is as good as once."""
        self.cancelled = True
        lib.ev_cancel_set(self._pointer)


@dataclass(slots=True)
class Window:
    """30 seconds or less, transcribed by themselves."""

    said: tuple[int, ...]
    """Tokens of what was said before."""

    next_s: float = 0.0
    """Where in it the next one begins, when it was transcribed."""


@dataclass(slots=True)
class _Call:
    """One transcription, for the functions that C calls back."""

    model: Model
    options: Options
    duration_s: float
    on_segments: OnSegments
    segments: list[Segment] = field(default_factory=list)
    error: BaseException | None = None
    """Of our caller's function: raised when C has returned."""


@ffi.def_extern(error=1, name="ev_python_segments")  # type: ignore[untyped-decorator]
def _on_segments(handle: Any, percent: int, c_segments: Any, n: int) -> int:
    call: _Call = ffi.from_handle(handle)
    if call.error is None:
        try:
            found = [_segment(c_segments[i], call) for i in range(n)]
            call.segments += found
            call.on_segments(percent / 100, found)
        except BaseException as error:  # noqa: BLE001 - C must not see it; raised by transcribe()
            call.error = error
    return 0 if call.error is None else 1


@ffi.def_extern(error=1, name="ev_python_logits")  # type: ignore[untyped-decorator]
def _on_logits(handle: Any, tokens: Any, n_tokens: int, logits: Any, n_logits: int) -> int:
    call: _Call = ffi.from_handle(handle)
    if call.error is None and call.options.logits_filter is not None:
        try:
            values = np.frombuffer(ffi.buffer(logits, n_logits * 4), np.float32)
            call.options.logits_filter(tuple(ffi.unpack(tokens, n_tokens)) if n_tokens else (), values)
        except BaseException as error:  # noqa: BLE001 - likewise
            call.error = error
    return 0 if call.error is None else 1


class Session(Handle):
    """Transcribes with a model, whose weights it keeps alive.

    Raises:
        NativeError: not enough memory.
    """

    def __init__(self, model: Model) -> None:
        check_room(model.type.session_bytes, "a session")
        out = ffi.new("ev_transcriber **")
        self.model = model._share()  # noqa: SLF001
        """Its own: closing the one that it was made of changes nothing."""

        with self.model._use() as c_model:  # noqa: SLF001
            check(lib.ev_transcriber_open(c_model, out))
        super().__init__(out[0], lib.ev_transcriber_free)
        self._matching: dict[str, frozenset[int]] = {}
        """Tokens that match a regular expression."""

    def close(self) -> None:
        """Release the memory now. May be called twice.

        Raises:
            EngineBusyError: it is transcribing.
        """
        super().close()
        self.model.close()

    def transcribe(
        self,
        samples: npt.NDArray[Any],
        options: Options | None = None,
        *,
        timeout_s: float | None = None,
        cancel: CancelToken | None = None,
        on_segments: OnSegments | None = None,
    ) -> Transcription:
        """Transcribe audio.

        Args:
            samples: 1-D, 16 kHz mono, int16 or float32, finite, 0.1 s to 12 h.
            options: by default those of upstream, in this thread.
            timeout_s: when it ends with what it has, `aborted` by "deadline".
            cancel: ends it in the same way, `aborted` as "cancelled".
            on_segments: called, in this thread, with how much is done (0-1) and the segments found since,
                for each 30 seconds or less. What it raises ends the transcription, and is raised here.

        Raises:
            AudioFormatError: other audio.
            UsageError: an option that this model or audio cannot have.
            GrammarError: the grammar nests deeper than 64 levels where the text has got to.
            EngineBusyError, EngineClosedError, InferenceError, NativeError: as named.
        """
        with self._use() as pointer:
            return self._transcribe(
                pointer, samples, options, timeout_s=timeout_s, cancel=cancel, on_segments=on_segments
            )

    def _transcribe(
        self,
        pointer: Any,
        samples: npt.NDArray[Any],
        options: Options | None,
        *,
        timeout_s: float | None,
        cancel: CancelToken | None,
        on_segments: OnSegments | None,
        window: Window | None = None,
    ) -> Transcription:
        options = options or Options()
        if not isinstance(options, Options):
            raise UsageError(f"options must be Options, got {options!r}")
        if on_segments is not None and not callable(on_segments):
            raise UsageError(f"on_segments must be a function, got {on_segments!r}")
        samples = check_audio(samples)
        started = time.perf_counter()
        duration_s = len(samples) / SAMPLE_RATE_HZ
        call = _Call(self.model, options, duration_s, on_segments or (lambda _done, _segments: None))
        handle = ffi.new_handle(call)
        out = ffi.new("ev_transcribed *")
        c_options, kept = self._c_options(options, timeout_s, len(samples), window)
        c_options.of = handle
        data = ffi.from_buffer("float[]", samples)
        status = lib.ev_transcriber_run(pointer, data, len(data), c_options, _pointer(cancel), out)
        del kept
        if window is not None:
            window.next_s = out.next_cs / 100
        check(status, expected=bool(out.aborted or call.error or window))
        if call.error is not None:
            raise call.error
        languages = self.model.languages
        probabilities = {}
        if out.language_probabilities:
            values = ffi.unpack(out.language_probabilities, len(languages))
            probabilities = dict(zip(languages, values, strict=True))
        aborted: dict[int, Aborted] = {lib.EV_ERR_CANCELLED: "cancelled", lib.EV_ERR_DEADLINE: "deadline"}
        return Transcription(
            segments=tuple(call.segments),
            language=ffi.string(lib.ev_language_code(max(0, out.language))).decode(),
            duration_s=duration_s,
            timings=Timings(
                mel=out.mel_ms,
                language=out.language_ms,
                encode=out.encode_ms,
                prompt=out.prompt_ms,
                decode=out.decode_ms,
                sample=out.sample_ms,
                total=(time.perf_counter() - started) * 1000,
            ),
            language_probabilities=probabilities,
            aborted=aborted.get(out.aborted),
        )

    def run(
        self,
        samples: npt.NDArray[Any],
        options: Options | None = None,
        *,
        timeout_s: float | None = None,
        cancel: CancelToken | None = None,
    ) -> Run:
        """Begin a transcription in a thread of its own; as transcribe(), which raises its errors there."""
        from edgevoice.whisper.run import Run  # noqa: PLC0415 - it imports this file

        return Run(self, samples, options, timeout_s=timeout_s, cancel=cancel)

    def stream(self, options: StreamOptions | None = None) -> Stream:
        """Return a stream, which takes audio as it comes and tells the text as far as it is certain."""
        from edgevoice.whisper.stream import Stream  # noqa: PLC0415 - likewise

        return Stream(self, options)

    def detect_language(
        self, samples: npt.NDArray[Any], *, threads: int = 1, cancel: CancelToken | None = None
    ) -> dict[str, float]:
        """Return the probability of each language, likeliest first, by the first 30 seconds.

        Raises:
            UsageError: the model knows only English.
            CancelledError: it was cancelled.
            AudioFormatError, EngineBusyError, EngineClosedError, InferenceError: as named.
        """
        samples = check_audio(samples)
        languages = self.model.languages
        out = ffi.new("float[]", len(languages))
        with self._use() as pointer:
            data = ffi.from_buffer("float[]", samples)
            check(
                lib.ev_transcriber_detect(pointer, data, len(data), _threads(threads), _pointer(cancel), out)
            )
        found = zip(languages, ffi.unpack(out, len(languages)), strict=True)
        return dict(sorted(found, key=lambda each: -each[1]))

    # ---- step by step: the session keeps spectrogram, encoder output and decoder between calls ----

    def mel(self, samples: npt.NDArray[Any], *, threads: int = 1) -> npt.NDArray[np.float32]:
        """Compute the spectrogram that encode() takes, and return a copy.

        Returns:
            shape (n_mels, columns of 10 ms), the last 3,000 of them silence.

        Raises:
            AudioFormatError, EngineBusyError, EngineClosedError: as named.
        """
        samples = check_audio(samples)
        values, n_columns = ffi.new("const float **"), ffi.new("size_t *")
        with self._use() as pointer:
            data = ffi.from_buffer("float[]", samples)
            check(lib.ev_transcriber_mel(pointer, data, len(data), _threads(threads), values, n_columns))
            return _copy(values[0], self.model.info.n_mels, n_columns[0])

    def set_mel(self, mel: npt.NDArray[np.float32]) -> None:
        """Take a spectrogram of shape (n_mels, columns), finite, in place of that of audio.

        Raises:
            UsageError: another shape.
            AudioFormatError: it is not finite.
            EngineBusyError, EngineClosedError: as named.
        """
        n_mels = self.model.info.n_mels
        if not isinstance(mel, np.ndarray) or mel.ndim != 2 or mel.shape[0] != n_mels or not mel.size:
            shape = getattr(mel, "shape", type(mel).__name__)
            raise UsageError(f"a spectrogram of this model has the shape ({n_mels}, columns), got {shape}")
        mel = np.ascontiguousarray(mel, np.float32)
        with self._use() as pointer:
            check(lib.ev_transcriber_set_mel(pointer, ffi.from_buffer("float[]", mel), mel.shape[1]))

    def encode(self, column: int = 0, *, threads: int = 1) -> npt.NDArray[np.float32]:
        """Encode 30 seconds from a column of the spectrogram on, and return a copy of the output.

        Returns:
            shape (1500, n_state)

        Raises:
            UsageError: there is no spectrogram, or no such column.
            EngineBusyError, EngineClosedError, InferenceError: as named.
        """
        values, n, width = ffi.new("const float **"), ffi.new("size_t *"), ffi.new("size_t *")
        with self._use() as pointer:
            check(lib.ev_transcriber_encode(pointer, _size(column), _threads(threads), values, n, width))
            return _copy(values[0], n[0], width[0])

    def decode(self, tokens: Sequence[int], n_past: int = 0, *, threads: int = 1) -> npt.NDArray[np.float32]:
        """Run tokens through the decoder and return a copy of the logits of what follows the last.

        Args:
            tokens: e.g. those of `model.special` and `model.tokenize()`.
            n_past: how many tokens of the calls before, from the first on, stand before them.
            threads: 1-64

        Returns:
            shape (n_vocab,)

        Raises:
            UsageError: no such tokens, too many, or nothing was encoded.
            EngineBusyError, EngineClosedError, InferenceError: as named.
        """
        out = ffi.new("const float **")
        c_tokens = _tokens(tokens, "tokens")
        with self._use() as pointer:
            n = len(c_tokens)
            check(lib.ev_transcriber_decode(pointer, c_tokens, n, _size(n_past), _threads(threads), out))
            return _copy(out[0], 1, self.model.info.n_vocab).reshape(-1)

    def _c_options(
        self, options: Options, timeout_s: float | None, n_samples: int, window: Window | None
    ) -> tuple[Any, list[Any]]:
        """Return the options as C takes them, and what must live as long."""
        model = self.model
        if options.translate and not model.info.multilingual:
            raise UsageError(f"translate needs a multilingual model, this is {model.type.size}")
        if options.language not in (None, "auto", *model.languages):
            known = ", ".join(model.languages[:8])
            raise UsageError(f"this model does not know the language {options.language!r}; use {known}, ...")
        if options.start_s + MIN_SAMPLES / SAMPLE_RATE_HZ > n_samples / SAMPLE_RATE_HZ:
            raise UsageError(
                f"start_s is {options.start_s:g}, the audio ends at {n_samples / SAMPLE_RATE_HZ:g} s"
            )
        timeout_s = 0.0 if timeout_s is None else timeout_s
        check_range("timeout_s", timeout_s, 0, _FOREVER_S)
        detect = options.language in (None, "auto") and model.info.multilingual
        prompt, hotwords = self._prompts(options, window)
        suppress = _tokens(
            sorted(options.suppress_tokens | self._matches(options.suppress_regex)), "suppress"
        )
        grammar = options.grammar._native() if options.grammar else None  # noqa: SLF001
        c_options = ffi.new(
            "ev_transcription *",
            {
                "threads": options.threads,
                "language": -1 if detect else language_id(options.language or "en"),
                "translate": options.translate,
                "beam": options.beam,
                "n_finished": round((options.patience or 0) * options.beam),
                "best_of": options.best_of,
                "temperature": options.temperature,
                "temperature_step": options.temperature_step,
                "entropy_threshold": options.entropy_threshold,
                "log_probability_threshold": options.log_probability_threshold,
                "no_speech_threshold": options.no_speech_threshold,
                "length_penalty": -1 if options.length_penalty is None else options.length_penalty,
                "prompt": prompt,
                "n_prompt": len(prompt),
                "hotwords": hotwords,
                "n_hotwords": len(hotwords),
                "carry_prompt": options.carry_prompt and window is None,
                "context": options.context and window is None,
                "max_context": _ALL_CONTEXT if options.max_context is None else options.max_context,
                "start_cs": round(options.start_s * 100),
                "duration_cs": round((options.duration_s or 0) * 100),
                "timestamps": options.timestamps,
                "single_segment": options.single_segment,
                "token_times": options.word_times,
                "token_threshold": options.token_threshold,
                "token_sum_threshold": options.token_sum_threshold,
                "max_segment_length": options.max_segment_length,
                "split_on_word": options.split_on_word,
                "max_tokens": options.max_tokens,
                "audio_ctx": options.audio_ctx,
                "fit_window": options.fit_window,
                "max_initial_timestamp_s": options.max_initial_timestamp_s,
                "suppress_blank": options.suppress_blank,
                "suppress_non_speech": options.suppress_non_speech,
                "special_tokens": options.special_tokens,
                "speaker_turns": options.speaker_turns,
                "suppress": suppress,
                "n_suppress": len(suppress),
                "repetition_penalty": options.repetition_penalty,
                "no_repeat_ngram": options.no_repeat_ngram,
                "one_window": window is not None,
                "timeout_ms": math.ceil(timeout_s * 1000),
                "on_segments": lib.ev_python_segments,
                "on_logits": lib.ev_python_logits if options.logits_filter else ffi.NULL,
            },
        )
        if grammar is not None:
            c_options.grammar = grammar._pointer  # noqa: SLF001
        return c_options, [prompt, hotwords, suppress, grammar]

    def _prompts(self, options: Options, window: Window | None) -> tuple[Any, Any]:
        """Return what stands before the first window, and what stands before that and all others."""
        model = self.model
        prompt = options.prompt_tokens or model.tokenize(options.prompt)
        words = options.hotwords.strip()
        carried = model.tokenize(f" {words}") if words else ()
        if window is not None and options.carry_prompt:
            room = (_ALL_CONTEXT if options.max_context is None else options.max_context) - 1 - len(carried)
            carried, prompt = carried + prompt[max(0, len(prompt) - room) :], window.said
        elif window is not None:
            prompt += window.said
        return _tokens(prompt, "prompt_tokens"), _tokens(carried, "hotwords")

    def _matches(self, expression: str | None) -> frozenset[int]:
        if expression is None:
            return frozenset()
        if expression not in self._matching:
            found, pattern = set[int](), re.compile(expression)
            for token in range(self.model.special.end_of_text):
                text = self.model.token_data(token).decode("utf-8", "surrogateescape")
                if pattern.fullmatch(text):
                    found.add(token)
            self._matching[expression] = frozenset(found)
        return self._matching[expression]


def check_audio(samples: npt.NDArray[Any]) -> Samples:
    """Accept audio to transcribe, or say what is wrong with it.

    Raises:
        AudioFormatError: as audio.check_samples, or it is shorter than 0.1 s.
    """
    checked = check_samples(samples)
    if len(checked) < MIN_SAMPLES:
        raise AudioFormatError(
            f"audio must be 0.1 s ({MIN_SAMPLES} samples) at least, got {len(checked)} samples; is it 16 kHz?"
        )
    return checked


def _threads(threads: int) -> int:
    check_range("threads", threads, *THREADS)
    return threads


def _pointer(cancel: CancelToken | None) -> Any:
    if cancel is not None and not isinstance(cancel, CancelToken):
        raise UsageError(f"cancel must be a CancelToken, got {cancel!r}")
    return ffi.NULL if cancel is None else cancel._pointer  # noqa: SLF001


def _size(value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
        raise UsageError(f"a count must be 0 or more, got {value!r}")
    return value


def _tokens(tokens: Sequence[int], name: str) -> Any:
    try:
        return ffi.new("int32_t[]", list(tokens))
    except (OverflowError, TypeError) as error:
        raise UsageError(f"{name}: tokens are small whole numbers: {error}") from None


def _copy(values: Any, rows: int, columns: int) -> npt.NDArray[np.float32]:
    copy = np.empty((rows, columns), np.float32)
    ffi.memmove(ffi.from_buffer(copy), values, copy.nbytes)
    return copy


def _segment(c_segment: Any, call: _Call) -> Segment:
    """Copy a segment while it is there."""
    tokens = tuple(_token(c_segment.tokens[i]) for i in range(c_segment.n_tokens))
    start_s, end_s = c_segment.start_cs / 100, c_segment.end_cs / 100
    words: tuple[Word, ...] = ()
    if call.options.word_times:
        aligned = (
            [c_segment.tokens[i].aligned_cs for i in range(c_segment.n_tokens)]
            if call.model.alignment
            else None
        )
        latest_s = min(end_s, max(start_s, call.duration_s))  # Whisper may write a later end
        words = _words(tokens, aligned, call.model.special.end_of_text, start_s, latest_s)
    return Segment(
        text=ffi.string(c_segment.text).decode("utf-8", "replace"),
        start_s=start_s,
        end_s=end_s,
        tokens=tokens,
        words=words,
        no_speech_probability=c_segment.no_speech_probability,
        speaker_turn=bool(c_segment.speaker_turn),
        language=ffi.string(lib.ev_language_code(c_segment.language)).decode(),
    )


def _token(c_token: Any) -> Token:
    return Token(
        id=c_token.id,
        data=bytes(ffi.string(c_token.bytes)),
        probability=c_token.probability,
        log_probability=c_token.log_probability,
        start_s=None if c_token.start_cs < 0 else c_token.start_cs / 100,
        end_s=None if c_token.end_cs < 0 else c_token.end_cs / 100,
        aligned_s=None if c_token.aligned_cs < 0 else c_token.aligned_cs / 100,
    )


def _words(
    tokens: Sequence[Token], aligned: Sequence[int] | None, end_of_text: int, start_s: float, end_s: float
) -> tuple[Word, ...]:
    """Join tokens to words.

    With an alignment a word begins where its first token does, and ends where the next word begins; otherwise
    both are what upstream made of the probabilities of timestamps. Times never run backwards.
    """
    groups: list[list[int]] = []
    for i, token in enumerate(tokens):
        if token.id >= end_of_text:
            continue
        if groups and not token.data.startswith(b" "):
            groups[-1].append(i)
        else:
            groups.append([i])
    words, last_s = [], start_s
    for at, group in enumerate(groups):
        first, final = tokens[group[0]], tokens[group[-1]]
        if aligned is not None:
            begin = first.aligned_s
            following = tokens[groups[at + 1][0]].aligned_s if at + 1 < len(groups) else end_s
        else:
            begin, following = first.start_s, final.end_s
        begin = max(last_s, last_s if begin is None else begin)
        end = max(begin, begin if following is None else following)
        words.append(
            Word(
                text=b"".join(tokens[i].data for i in group).decode("utf-8", "replace"),
                start_s=begin,
                end_s=end,
                probability=sum(tokens[i].probability for i in group) / len(group),
            )
        )
        last_s = end if aligned is None else begin
    return tuple(words)
