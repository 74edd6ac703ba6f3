"""edgevoice.whisper: what it gives, and that nothing one gives it ends the process.

The crash cases are those known of whisper.cpp and its bindings: each would have ended this process, or gone
unnoticed, there.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import build_native
from edgevoice import models, native, whisper
from edgevoice.audio import read_audio
from edgevoice.errors import (
    AudioFormatError,
    DownloadError,
    EdgevoiceError,
    EngineBusyError,
    EngineClosedError,
    GrammarError,
    ModelCorruptError,
    ModelNotFoundError,
    UsageError,
)
from edgevoice.whisper import CancelToken, Gbnf, Model, Options, Segment, Session
from edgevoice.whisper import model as model_module
from edgevoice.whisper.gbnf import utf8_ranges
from edgevoice.whisper.parts import Span, without_invented

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from edgevoice.events import Samples

FAST = Options(audio_ctx=768, temperature_step=0)
"""Half of the window is enough for the recordings here; with less Whisper repeats itself."""

DATA: Final = os.environ.get("EDGEVOICE_EVAL_DATA", "")


@pytest.fixture(scope="module")
def whisper_model(model_path: Path) -> Iterator[Model]:
    with Model(model_path, alignment="auto") as opened:
        yield opened


@pytest.fixture(scope="module")
def session(whisper_model: Model) -> Iterator[Session]:
    with whisper_model.session() as opened:
        yield opened


@pytest.fixture(scope="module")
def jfk() -> Samples:
    """Eleven seconds that whisper.cpp comes with."""
    return read_audio(build_native.whisper_source(None) / "samples" / "jfk.wav")


# ---- what it gives ----


def test_transcription_is_text_with_segments_tokens_and_timings(session: Session, speech: Samples) -> None:
    found = session.transcribe(speech, FAST)
    assert found.text.lower().rstrip(".") == "turn on the desk lamp"
    assert found.language == "en"
    assert found.aborted is None
    assert found.duration_s == pytest.approx(len(speech) / 16_000)
    segment = found.segments[0]
    assert 0 <= segment.start_s < segment.end_s
    assert b"".join(token.data for token in segment.tokens if not token.data.startswith(b"[_")) == (
        segment.text.encode()
    )
    assert all(0 < token.probability <= 1 and token.log_probability <= 0 for token in segment.tokens)
    assert 0 <= segment.no_speech_probability <= 1
    assert found.timings.total > found.timings.encode > 0
    assert not segment.words


def test_int16_is_the_same_as_float32(session: Session, speech: Samples) -> None:
    as_int = np.round(speech * 32768).astype(np.int16)
    assert session.transcribe(as_int, FAST).text == session.transcribe(speech, FAST).text


def test_beam_search_and_best_of_are_other_ways_to_the_text(session: Session, speech: Samples) -> None:
    for options in (
        Options(beam=4, audio_ctx=768),
        Options(beam=3, length_penalty=1.0, audio_ctx=768),
        Options(temperature=0.2, best_of=3, temperature_step=0, audio_ctx=768),
    ):
        assert "desk lamp" in session.transcribe(speech, options).text.lower()


def beam_search(
    session: Session, audio: Samples, beam: int, patience: float, length_penalty: float | None
) -> tuple[list[int], list[float]]:
    """OpenAI's beam search, as its decoding.py defines it: the best text's tokens and how likely each is."""
    model, special = session.model, session.model.special
    (space,) = (token for token in range(300) if model.token_data(token) == b" ")
    session.set_mel(session.mel(audio))
    session.encode()

    def following(text: list[int]) -> npt.NDArray[np.float64]:
        logits = session.decode([special.start, special.no_timestamps, *text]).astype(np.float64)
        logits[special.end_of_text + 1 :] = -np.inf
        if not text:
            logits[[space, special.end_of_text]] = -np.inf
        return np.asarray(logits - np.logaddexp.reduce(logits))

    def score(text: tuple[list[int], list[float]]) -> float:
        length = len(text[0]) - 1
        return sum(text[1]) / (length if length_penalty is None else ((5 + length) / 6) ** length_penalty)

    texts: list[tuple[list[int], list[float]]] = [([], [])]
    finished: list[tuple[list[int], list[float]]] = []
    while len(finished) < round(beam * patience):
        candidates = []
        for tokens, logs in texts:
            likely = following(tokens)
            best = np.argsort(-likely)[: beam + 1]
            candidates += [([*tokens, int(token)], [*logs, float(likely[token])]) for token in best]
        candidates.sort(key=lambda text: -sum(text[1]))
        texts = []
        for text in candidates:
            if len(texts) == beam:
                break
            if text[0][-1] != special.end_of_text:
                texts.append(text)
            elif len(finished) < round(beam * patience):
                finished.append(text)
    finished += [([*tokens, special.end_of_text], [*logs, 0.0]) for tokens, logs in texts][
        : max(0, beam - len(finished))
    ]
    return max(finished, key=score)


@pytest.mark.parametrize(
    ("beam", "patience", "length_penalty"), [(2, 0.5, None), (4, 1.0, None), (4, 2.0, None), (3, 1.0, 0.0)]
)
def test_beams_with_patience_are_those_of_openai(
    session: Session, speech: Samples, beam: int, patience: float, length_penalty: float | None
) -> None:
    options = Options(
        beam=beam, patience=patience, length_penalty=length_penalty, timestamps=False, temperature_step=0
    )
    # in so much noise each of these finds another text
    noise = np.random.default_rng(1).normal(0, 0.3, len(speech)).astype(np.float32)
    (segment,) = session.transcribe(speech + noise, options).segments
    tokens, likely = beam_search(session, speech + noise, beam, patience, length_penalty)
    assert [token.id for token in segment.tokens] == tokens
    found = [token.log_probability for token in segment.tokens]
    assert found == pytest.approx(likely, abs=2e-3)  # upstream adds 51,864 float32


def test_beams_with_patience_leave_what_is_certain(session: Session, jfk: Samples) -> None:
    """Where beams find the text that greedy decoding finds, all about it is the same."""
    pause = np.zeros(8 * 16_000, np.float32)
    audio = np.concatenate([jfk, jfk, pause, jfk])  # two windows
    usual = session.transcribe(audio, Options(word_times=True))
    found = session.transcribe(audio, Options(word_times=True, beam=3, patience=1.0))
    assert found.text == usual.text
    for segment, expected in zip(found.segments, usual.segments, strict=True):
        assert (segment.start_s, segment.end_s) == (expected.start_s, expected.end_s)
        assert [(word.text, word.start_s, word.end_s) for word in segment.words] == [
            (word.text, word.start_s, word.end_s) for word in expected.words
        ]
        likely = [token.log_probability for token in expected.tokens]
        assert [token.log_probability for token in segment.tokens] == pytest.approx(likely, abs=2e-3)


def test_second_tries_after_beams_with_patience_are_drawn(session: Session, speech: Samples) -> None:
    poor = Options(log_probability_threshold=0.0, audio_ctx=768)
    found = session.transcribe(speech, replace(poor, beam=3, patience=1.0))
    assert found.segments == session.transcribe(speech, poor).segments


def test_drawn_texts_are_the_same_each_time(session: Session, speech: Samples) -> None:
    options = Options(temperature=1.0, best_of=2, temperature_step=0, audio_ctx=768)
    first = session.transcribe(speech, options)
    session.transcribe(speech, FAST)
    again = session.transcribe(speech, options)
    assert again.segments == first.segments


@pytest.mark.parametrize("alignment", [None, "auto", "top"])
def test_words_follow_one_another_in_time(model_path: Path, speech: Samples, alignment: str | None) -> None:
    with Model(model_path, alignment=alignment) as model, model.session() as own:
        found = own.transcribe(speech, Options(audio_ctx=768, word_times=True))
    words = [word for segment in found.segments for word in segment.words]
    assert "".join(word.text for word in words).strip() == found.text
    assert [word.text.strip(" .").lower() for word in words] == ["turn", "on", "the", "desk", "lamp"]
    times = [time for word in words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= found.duration_s + 0.5
    assert any(token.aligned_s is not None for token in found.segments[0].tokens) == (alignment is not None)


def test_word_times_are_near_where_words_are_said(session: Session, speech: Samples) -> None:
    silence = np.zeros(16_000, np.float32)
    early = session.transcribe(np.concatenate([speech, silence]), Options(word_times=True))
    late = session.transcribe(np.concatenate([silence, speech]), Options(word_times=True))
    starts = [
        [word.start_s for segment in found.segments for word in segment.words] for found in (early, late)
    ]
    shift = np.median(np.subtract(starts[1][1:], starts[0][1:]))
    assert shift == pytest.approx(1.0, abs=0.15)


def test_alignment_heads_of_ones_own(model_path: Path, speech: Samples) -> None:
    """Those of the model's size, given by hand, are the same; others place words elsewhere."""
    own = [(1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4)]  # g_aheads_tiny_en of whisper.cpp
    options = replace(FAST, word_times=True)
    found = {}
    for name, alignment in {"known": "tiny.en", "same": own, "other": [(0, 1), (0, 1)]}.items():
        with Model(model_path, alignment=alignment) as model, model.session() as session:  # type: ignore[arg-type]
            found[name] = session.transcribe(speech, options).segments
    assert found["same"] == found["known"] != found["other"]
    assert found["other"][0].text == found["known"][0].text
    for wrong in ([], [(4, 0)], [(0, 6)], [(-1, 0)], [3], 5, [("a", 0)], [(0, 2**40)]):
        with pytest.raises(UsageError, match="alignment heads are pairs"):
            Model(model_path, alignment=wrong)  # type: ignore[arg-type]


def test_long_segments_are_cut(session: Session, speech: Samples) -> None:
    options = Options(audio_ctx=768, word_times=True, max_segment_length=8, split_on_word=True)
    found = session.transcribe(speech, options)
    assert len(found.segments) > 2
    assert all(segment.text.startswith(" ") for segment in found.segments)


def test_prompt_sets_the_style(session: Session, speech: Samples) -> None:
    shouting = Options(prompt="TURN OFF THE LAMP. TURN ON THE LIGHT. OPEN THE DOOR.", audio_ctx=768)
    assert session.transcribe(speech, shouting).text.isupper()
    tokens = session.model.tokenize(shouting.prompt)
    by_tokens = Options(prompt_tokens=tokens, audio_ctx=768, carry_prompt=True)
    assert session.transcribe(speech, by_tokens).text.isupper()


def test_hotwords_stand_before_each_window(session: Session, speech: Samples, jfk: Samples) -> None:
    """As a prompt that is carried on does; and beside another prompt, of the first window alone."""
    assert session.transcribe(speech, Options(hotwords="Deskk Lampp")).text.endswith("Desk Lampp.")
    talk, options = np.tile(jfk, 3), Options(temperature_step=0)
    found = session.transcribe(talk, replace(options, hotwords="Amerikans, kountry"))
    carried = session.transcribe(talk, replace(options, prompt=" Amerikans, kountry", carry_prompt=True))
    assert [token.id for segment in found.segments for token in segment.tokens] == [
        token.id for segment in carried.segments for token in segment.tokens
    ]
    assert found.text != session.transcribe(talk, options).text
    shouting = replace(FAST, hotwords="Deskk Lampp", prompt="TURN OFF THE LAMP. OPEN THE DOOR.")
    assert session.transcribe(speech, shouting).text.isupper()
    with pytest.raises(UsageError, match="hotwords"):
        session.transcribe(speech, Options(hotwords="lamp " * 300))


def test_carried_prompt_is_that_of_the_call(model_path: Path, speech: Samples) -> None:
    """Not that of a call before whose text is kept."""
    upper = replace(FAST, prompt="TURN OFF THE LAMP. TURN ON THE LIGHT. OPEN THE DOOR.", carry_prompt=True)
    with Model(model_path) as model, model.session() as own:
        own.transcribe(speech, replace(FAST, prompt="the lamp", carry_prompt=True))
        assert own.transcribe(speech, replace(upper, context=True)).text.isupper()


def test_suppressed_tokens_are_not_written(session: Session, speech: Samples) -> None:
    lamp = session.model.tokenize(" lamp")
    assert "lamp" not in session.transcribe(speech, Options(suppress_tokens=frozenset(lamp))).text.lower()
    assert "desk" not in session.transcribe(speech, Options(suppress_regex=" ?[Dd]e?s?k?")).text


def test_start_and_duration_choose_a_part(session: Session, speech: Samples) -> None:
    audio = np.concatenate([np.zeros(32_000, np.float32), speech, speech])
    part = Options(start_s=2.0, duration_s=len(speech) / 16_000, temperature_step=0)
    found = session.transcribe(audio, part)
    assert found.text.lower().count("lamp") == 1
    assert found.segments[0].start_s >= 2.0


def test_a_window_that_fits_hears_the_same(session: Session, speech: Samples) -> None:
    whole = session.transcribe(speech, Options(word_times=True))
    fitted = session.transcribe(speech, Options(fit_window=True, word_times=True))
    assert fitted.text == whole.text
    positions = 336  # of 20 ms: 2.42 s and 4 s of silence, in blocks of 16
    assert (
        fitted.segments == session.transcribe(speech, Options(audio_ctx=positions, word_times=True)).segments
    )
    starts = [
        np.array([word.start_s for segment in each.segments for word in segment.words])
        for each in (whole, fitted)
    ]
    assert np.abs(starts[0] - starts[1]).max() < 0.2


def test_a_doubtful_text_of_a_window_that_fits_is_heard_with_all_of_it(
    session: Session, speech: Samples
) -> None:
    never_sure = Options(log_probability_threshold=0, temperature_step=0)
    for options in (never_sure, replace(never_sure, prompt="A lamp.", carry_prompt=True)):
        given: list[Segment] = []
        whole = session.transcribe(speech, options)
        fitted = session.transcribe(
            speech,
            replace(options, fit_window=True),
            on_segments=lambda _, found, to=given: to.extend(found),  # type: ignore[misc]
        )
        assert fitted.segments == whole.segments == tuple(given)
        sure = replace(options, fit_window=True, log_probability_threshold=-1000, entropy_threshold=0)
        assert session.transcribe(speech, sure).segments != whole.segments


def test_a_doubtful_text_is_not_what_was_said_before(session: Session, speech: Samples) -> None:
    shout = Options(prompt="TURN OFF THE LAMP. OPEN THE DOOR.", audio_ctx=768)
    followed = Options(context=True, log_probability_threshold=0, temperature_step=0)
    texts = []
    for options in (followed, replace(followed, fit_window=True)):
        session.transcribe(speech, shout)
        texts.append(session.transcribe(speech, options).segments)
    assert texts[0] == texts[1]


def test_a_window_never_fits_much_audio(session: Session, speech: Samples) -> None:
    long = np.concatenate([speech, np.zeros(26 * 16_000, np.float32)])
    options = Options(max_tokens=20, temperature_step=0)
    whole = session.transcribe(long, options)
    assert session.transcribe(long, replace(options, fit_window=True)).segments == whole.segments


def test_logits_filter_in_python(session: Session, speech: Samples) -> None:
    lengths = []

    def filter_logits(tokens: tuple[int, ...], logits: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        lengths.append(len(tokens))
        assert logits.shape == (session.model.info.n_vocab,)
        logits[session.model.tokenize(" desk")] = -np.inf

    found = session.transcribe(
        speech, Options(logits_filter=filter_logits, audio_ctx=768, temperature_step=0)
    )
    assert "desk" not in found.text
    assert lengths == list(range(len(lengths)))


@pytest.mark.parametrize(("penalty", "n"), [(1.3, 0), (1.0, 1), (1.0, 2), (4.0, 3)])
def test_repetition_is_avoided_as_ctranslate2_avoids_it(
    session: Session, speech: Samples, penalty: float, n: int
) -> None:
    """Token by token with the same probabilities as by its definition, written here in Python."""

    def avoid(tokens: tuple[int, ...], logits: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        for token in set(tokens):
            logits[token] *= np.float32(penalty) if logits[token] < 0 else 1 / np.float32(penalty)
        for end in range(n, len(tokens) + 1):
            if n and tokens[end - n : end - 1] == tokens[len(tokens) - n + 1 :]:
                logits[tokens[end - 1]] = -np.inf

    talk = np.concatenate([speech, speech])  # says everything twice
    options = Options(temperature_step=0, max_tokens=40)
    usual = session.transcribe(talk, options).text
    found = session.transcribe(talk, replace(options, repetition_penalty=penalty, no_repeat_ngram=n))
    expected = session.transcribe(talk, replace(options, logits_filter=avoid))
    assert found.text == expected.text != usual
    tokens = [token.id for segment in found.segments for token in segment.tokens]
    assert tokens == [token.id for segment in expected.segments for token in segment.tokens]
    likely = [token.log_probability for segment in found.segments for token in segment.tokens]
    assert likely == pytest.approx(
        [token.log_probability for segment in expected.segments for token in segment.tokens], abs=1e-4
    )


def test_what_a_python_function_raises_comes_out(session: Session, speech: Samples) -> None:
    def broken(_tokens: tuple[int, ...], _logits: object) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        session.transcribe(speech, Options(logits_filter=broken))
    with pytest.raises(ZeroDivisionError):
        session.transcribe(speech, FAST, on_segments=lambda _done, _segments: _fail())
    assert "lamp" in session.transcribe(speech, FAST).text.lower()


def test_single_segment_is_one_of_all_that_is_in_30_seconds(session: Session, speech: Samples) -> None:
    talk = np.tile(np.concatenate([speech, np.zeros(16_000, np.float32)]), 4)
    several = session.transcribe(talk, Options(temperature_step=0))
    single = session.transcribe(talk, Options(temperature_step=0, single_segment=True))
    assert len(several.segments) > 1
    assert len(single.segments) == 1
    assert single.text.lower().count("lamp") == 4


def test_speaker_turn_is_that_of_the_model(session: Session, speech: Samples) -> None:
    """A model trained for it writes a token where another speaker begins; here a filter has it written."""
    special, on = session.model.special, session.model.tokenize(" on")[0]

    def turn_after_on(tokens: tuple[int, ...], logits: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        if tokens and tokens[-1] == on:
            logits[:] = -np.inf
            logits[special.solm] = 0

    for filtered, marked, expected in ((True, True, True), (True, False, False), (False, True, False)):
        options = Options(
            speaker_turns=marked,
            logits_filter=turn_after_on if filtered else None,
            audio_ctx=768,
            temperature_step=0,
        )
        segment = session.transcribe(speech, options).segments[0]
        assert segment.speaker_turn == expected
        assert (special.solm in [token.id for token in segment.tokens]) == filtered
        assert "on the desk" in segment.text  # the token is no text


def test_kernels_are_those_of_this_processor() -> None:
    """Each is named with 1, or 0; what runs is what the processor has."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8").lower()
    flags = set(next(line for line in info.splitlines() if line.startswith(("flags", "features"))).split())
    found = dict(re.findall(r"(\w+) = (\d)", whisper.kernels()))
    names = {"AVX2": "avx2", "FMA": "fma", "F16C": "f16c", "AVX512": "avx512f", "NEON": "asimd"}
    assert set(found) & set(names)
    assert all(flag in flags for name, flag in names.items() if found.get(name, "0") != "0")


def test_model_is_on_the_first_graphics_device_or_on_the_processor() -> None:
    path = models.find("tiny.en")
    with whisper.Model(path) as model, model.session() as session:
        assert model.gpu == session.model.gpu == (0 if whisper.gpus() else None)
    with whisper.Model(path, gpu=None) as model:
        assert model.gpu is None


@pytest.mark.parametrize("gpu", [-1, 1000, True, "cuda", 0.0])
def test_no_such_graphics_device(gpu: Any) -> None:
    with pytest.raises(UsageError, match="gpu must be "):
        whisper.Model(models.find("tiny.en"), gpu=gpu)


def test_backend_without_device_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native, "gpus", lambda: ())
    monkeypatch.setattr(native, "kernels", lambda: "CPU : AVX2 = 1 | DEVICES : VULKAN = 0 |")
    model_module._tell_absent.cache_clear()
    for _ in range(2):
        with whisper.Model(models.find("tiny.en")) as model:
            assert model.gpu is None
    model_module._tell_absent.cache_clear()
    assert [record.message for record in caplog.records if "no device" in record.message] == [
        "VULKAN: built in, but no device is found; the processor computes"
    ]


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _resident_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssAnon:")) * 1024


def _fail() -> None:
    raise ZeroDivisionError


def test_logits_that_leave_nothing_end_the_text(session: Session, speech: Samples) -> None:
    def nothing(_tokens: tuple[int, ...], logits: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        logits[:] = np.nan

    assert session.transcribe(speech, Options(logits_filter=nothing)).text == ""


def test_run_yields_segments_as_they_are_found(session: Session, speech: Samples) -> None:
    talk = np.tile(np.concatenate([speech, np.zeros(8_000, np.float32)]), 20)[: 65 * 16_000]
    with session.run(talk, Options(temperature_step=0)) as run:
        first = next(iter(run))
        assert "lamp" in first.text.lower()
        assert not run.done
        assert 0 < run.progress < 1
        with pytest.raises(EngineBusyError):
            session.transcribe(speech, FAST)
        run.cancel()
        found = run.result(timeout_s=5)
    assert found.aborted == "cancelled"
    assert found.segments[0] == first
    assert list(run)[-1] in (*found.segments, first)
    assert "lamp" in session.transcribe(speech, FAST).text.lower()


def test_run_raises_what_went_wrong_where_the_result_is_asked_for(session: Session, speech: Samples) -> None:
    run = session.run(speech, Options(start_s=99.0))
    with pytest.raises(UsageError, match="start_s"):
        run.result()
    with pytest.raises(UsageError, match="start_s"):
        list(run)


@pytest.mark.parametrize("wait_s", [0.0, 0.005, 0.05, 0.12])
def test_cancelling_takes_effect_in_the_encoder_too(session: Session, speech: Samples, wait_s: float) -> None:
    token = CancelToken()
    timer = threading.Timer(wait_s, token.cancel)
    timer.start()
    started = time.monotonic()
    found = session.transcribe(np.tile(speech, 30), Options(), cancel=token)
    assert found.aborted == "cancelled"
    assert time.monotonic() - started < wait_s + 4.0  # all of it takes ten times that
    timer.join()
    assert session.transcribe(speech, FAST, cancel=token).aborted == "cancelled"  # for good
    assert session.transcribe(speech, FAST).aborted is None


def test_a_function_of_ones_own_is_asked_whether_to_go_on(session: Session, speech: Samples) -> None:
    """As often as one likes, in one's own thread; its no takes effect within the encoder, too."""
    answers = iter([True] * 5 + [False])
    started = time.monotonic()
    with session.run(np.tile(speech, 30)) as run:
        while not run.done and next(answers):
            time.sleep(0.01)
        run.cancel()
        found = run.result()
    assert found.aborted == "cancelled"
    assert next(answers, None) is None
    assert time.monotonic() - started < 4.0  # all of it takes ten times that


def test_deadline_ends_with_what_there_is(session: Session, speech: Samples) -> None:
    found = session.transcribe(np.tile(speech, 40), Options(), timeout_s=0.02)
    assert found.aborted == "deadline"
    assert found.segments == ()
    assert session.transcribe(speech, FAST, timeout_s=60).aborted is None


def test_step_by_step_is_what_transcribe_does(session: Session, speech: Samples) -> None:
    special = session.model.special
    with pytest.raises(UsageError, match="nothing encoded"):
        session.model.session().decode([special.start])
    mel = session.mel(speech)
    assert mel.shape == (80, len(speech) // 160 + 3000)
    session.set_mel(mel)
    assert session.encode().shape == (1500, 384)
    tokens = [special.start, special.no_timestamps]
    logits = session.decode(tokens)
    written: list[int] = []
    while len(written) < 20:
        logits[special.no_timestamps :] = -np.inf
        written.append(int(logits.argmax()))
        if written[-1] == special.end_of_text:
            break
        logits = session.decode([written[-1]], len(tokens) + len(written) - 1)
    text = b"".join(session.model.token_data(token) for token in written[:-1]).decode()
    assert text == session.transcribe(speech, Options(timestamps=False)).segments[0].text


def test_model_tells_what_it_is_and_takes(whisper_model: Model, model_path: Path, speech: Samples) -> None:
    kind = Model.inspect(model_path)
    assert (kind.size, kind.quantisation, kind.multilingual) == ("tiny.en", "f16", False)
    assert whisper_model.languages == ("en",)
    assert whisper_model.token_data(whisper_model.special.first_timestamp) == b"[_BEG_]"

    before = _resident_bytes()
    with whisper_model.session() as own:
        own.transcribe(speech, Options(beam=8))
        assert _resident_bytes() - before < kind.session_bytes


def test_model_from_bytes(model_path: Path, speech: Samples) -> None:
    descriptors = _open_files()
    with Model(model_path.read_bytes()) as model, model.session() as own:
        assert "lamp" in own.transcribe(speech, FAST).text.lower()
    gc.collect()
    assert _open_files() == descriptors


def test_session_keeps_its_model(model_path: Path, speech: Samples) -> None:
    model = Model(model_path)
    own = model.session()
    model.close()
    del model
    gc.collect()
    assert "lamp" in own.transcribe(speech, FAST).text.lower()
    own.close()
    own.close()
    with pytest.raises(EngineClosedError):
        own.transcribe(speech)


def test_sessions_of_one_model_work_at_the_same_time(whisper_model: Model, speech: Samples) -> None:
    texts: list[str] = []

    def work() -> None:
        with whisper_model.session() as own:
            texts.extend(own.transcribe(speech, FAST).text for _ in range(2))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 8
    assert len(set(texts)) == 1


def test_speech_is_found_and_times_are_those_of_the_whole(session: Session, speech: Samples) -> None:
    gap = np.zeros(3 * 16_000, np.float32)
    audio = np.concatenate([gap, speech, gap, speech, gap])
    pieces = whisper.find_speech(audio)
    assert pieces[0][0] == pytest.approx(3.5, abs=0.5)  # the recording begins with a pause
    assert pieces[-1][1] == pytest.approx(len(audio) / 16_000 - 3.5, abs=0.5)
    assert max(later[0] - one[1] for one, later in itertools.pairwise(pieces)) > 2.5
    found = whisper.transcribe_speech(session, audio, Options(word_times=True))
    assert found.text.lower().count("lamp") == 2
    lamps = [w for s in found.segments for w in s.words if "lamp" in w.text.lower()]
    length = len(speech) / 16_000
    assert 3.0 < lamps[0].start_s < 3.0 + length
    assert 6.0 + length < lamps[1].start_s < 6.0 + 2 * length
    assert whisper.transcribe_speech(session, gap).segments == ()


def test_parts_are_transcribed_at_their_times(session: Session, speech: Samples) -> None:
    length_s = len(speech) / 16_000
    audio = np.concatenate([speech, speech, np.zeros(16_000, np.float32), speech])
    done = list[float]()
    found = whisper.transcribe_parts(
        session,
        audio,
        [(0, length_s), (2 * length_s + 1, None)],
        FAST,
        on_segments=lambda at, _: done.append(at),
    )
    assert found.text.lower().count("lamp") == 2
    first, second = found.segments
    assert 0 <= first.start_s < first.end_s <= length_s + 0.01
    assert 2 * length_s + 1 <= second.start_s < second.end_s <= found.duration_s + 0.01
    assert done == [pytest.approx(0.5), pytest.approx(1.0)]
    assert found.duration_s == len(audio) / 16_000
    assert (
        whisper.transcribe_parts(session, audio, [(0.1, length_s)], FAST, timeout_s=0.001).aborted
        == "deadline"
    )


def test_windows_follow_one_another_as_upstream_has_them(session: Session, jfk: Samples) -> None:
    talk, options = np.tile(jfk, 4), Options(temperature_step=0)
    found = whisper.transcribe_parts(session, talk, options=options)
    assert [(each.start_s, each.text) for each in found.segments] == [
        (each.start_s, each.text) for each in session.transcribe(talk, options).segments
    ]
    assert found.segments[-1].end_s > 40


def test_what_is_made_up_in_silence_is_left_out(session: Session, speech: Samples) -> None:
    """The next window then begins where it would, and so hears what is said after the silence."""
    silence = np.zeros(35 * 16_000, np.float32)
    audio = np.concatenate([speech, silence, speech])
    options = Options(word_times=True, suppress_non_speech=True, temperature_step=0)
    made_up = session.transcribe(audio, options).text.lower()
    assert made_up.count("lamp") < 2
    found = whisper.transcribe_parts(session, audio, options=options, hallucination_silence_s=2.0)
    assert re.sub("[^a-z ]", "", found.text.lower()) == "turn on the desk lamp turn on the desk lamp"
    assert found.segments[-1].end_s > 35


def invented(text: str, start_s: float, end_s: float, *, odd: bool) -> whisper.Segment:
    """A segment of two words, too short for words if it is odd."""
    middle_s = start_s + (0.01 if odd else (end_s - start_s) / 2)
    last_s = start_s + 0.02 if odd else end_s
    words = (
        whisper.Word(f" {text}", start_s, middle_s, 0.9),
        whisper.Word(f" {text}.", middle_s, last_s, 0.9),
    )
    return whisper.Segment(f" {text} {text}.", start_s, end_s, (), words, 0.0, speaker_turn=False)


@pytest.mark.parametrize(
    ("odd", "kept", "next_s"),
    [
        ((False, False), 2, 60.0),  # said
        ((True, False), 0, 38.0),  # begins 8 s after the window: heard again from there
        ((False, True), 1, 50.0),  # between silence and silence: left out, and heard again from there
    ],
)
def test_rules_for_what_is_made_up(odd: tuple[bool, bool], kept: int, next_s: float) -> None:
    """Those of openai/whisper, for a window from 30 to 60 s with texts at 38 and 50 s, 2 s long."""
    segments = [invented("a", 38.0, 40.0, odd=odd[0]), invented("b", 50.0, 52.0, odd=odd[1])]
    window = Span(start_s=30.0, until_s=60.0, next_s=60.0, end_s=90.0)
    assert without_invented(segments, window, 29.0, 2.0) == (segments[:kept], next_s)


@pytest.mark.parametrize(
    ("parts", "more", "problem"),
    [
        ([], {}, "no parts"),
        ([(0, 0.05)], {}, "0.1 s at least"),
        ([(1, 2), (0.5, 1)], {}, "one after the other"),
        ([(0, 100)], {}, "within"),
        ([(float("nan"), 1)], {}, "within"),
        ([3], {}, "pairs of seconds"),
        ([(0, None)], {"options": Options(start_s=1)}, "give them as a part"),
        ([(0, None)], {"each_language": True}, "each_language has no effect"),
        ([(0, None)], {"hallucination_silence_s": 2.0}, "word_times"),
        ([(0, None)], {"hallucination_silence_s": 0}, "between 0.1 and 30"),
    ],
)
def test_parts_that_are_none(
    session: Session, speech: Samples, parts: Any, more: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        whisper.transcribe_parts(session, speech, parts, **more)


def test_detecting_the_language_needs_a_multilingual_model(session: Session, speech: Samples) -> None:
    with pytest.raises(UsageError, match="only English"):
        session.detect_language(speech)


# ---- multilingual: the model base, where it is there ----


@pytest.fixture(scope="module")
def base() -> Iterator[Session]:
    try:
        path = models.pull("base", progress=False)  # when it is absent, as tiny.en in conftest.py
    except DownloadError as error:
        pytest.skip(str(error))
    with Model(path) as model, model.session() as opened:
        yield opened


def test_language_is_detected_with_all_probabilities(base: Session, speech: Samples) -> None:
    assert len(base.model.languages) == 99
    probabilities = base.detect_language(speech)
    assert next(iter(probabilities)) == "en"
    assert sum(probabilities.values()) == pytest.approx(1)
    found = base.transcribe(speech, Options(audio_ctx=768))
    assert found.language == "en"
    assert found.language_probabilities == pytest.approx(probabilities, abs=0.3)
    assert set(found.language_probabilities) == set(base.model.languages)
    german = base.transcribe(speech, Options(language="de", audio_ctx=768))
    assert (german.language, german.language_probabilities) == ("de", {})
    with pytest.raises(UsageError, match="yue"):
        base.transcribe(speech, Options(language="yue"))  # of large-v3 only


@pytest.mark.skipif(not DATA, reason="EDGEVOICE_EVAL_DATA names no folder of recordings")
def test_each_part_has_its_language(base: Session, speech: Samples) -> None:
    """A German sentence, and then an English one; without asking, all is in the language of the first."""
    german = read_audio(Path(DATA) / "read_german_emodb" / "08a04Nc.flac")
    parts = [(0.0, len(german) / 16_000), (len(german) / 16_000, None)]
    for each, expected in ((True, ["de", "en"]), (False, ["de", "de"])):
        found = whisper.transcribe_parts(
            base, np.concatenate([german, speech]), parts, FAST, each_language=each
        )
        assert [segment.language for segment in found.segments] == expected
        assert found.language == "de"
    assert "heute abend" in found.text.lower()
    assert "desk lamp" in found.text.lower()


@pytest.mark.skipif(not DATA, reason="EDGEVOICE_EVAL_DATA names no folder of recordings")
def test_translation_is_english(base: Session) -> None:
    """Of a German sentence: "I could tell it to him this evening"."""
    german = read_audio(Path(DATA) / "read_german_emodb" / "08a04Nc.flac")
    options = Options(language="de", audio_ctx=768, temperature_step=0)
    assert "heute abend könnte ich es ihm sagen" in base.transcribe(german, options).text.lower()
    assert "i could" in base.transcribe(german, replace(options, translate=True)).text.lower()


# ---- what is wrong ----


@pytest.mark.parametrize(
    ("audio", "problem"),
    [
        (np.zeros(0, np.float32), "0.1 s"),
        (np.zeros(1, np.float32), "0.1 s"),
        (np.zeros(200, np.float32), "0.1 s"),
        (np.zeros(1599, np.int16), "0.1 s"),
        (np.full(16_000, np.nan, np.float32), "finite"),
        (np.full(16_000, np.inf, np.float32), "finite"),
        (np.full(16_000, 1e30, np.float32), "loud"),
        (np.zeros(16_000, np.float64), "float32"),
        (np.zeros((2, 16_000), np.float32), "one channel"),
        (np.zeros(32_000, np.float32)[::2], "contiguous"),
        ([0.0] * 16_000, "numpy array"),
        (None, "numpy array"),
    ],
)
def test_wrong_audio_is_refused(session: Session, audio: Any, problem: str) -> None:
    for call in (session.transcribe, session.mel):
        with pytest.raises(AudioFormatError, match=problem):
            call(audio)


WRONG_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"threads": 0}, "threads must be between 1 and 64"),
    ({"threads": -1}, "threads"),
    ({"threads": 10**9}, "threads"),
    ({"threads": 1.5}, "whole number"),
    ({"threads": True}, "whole number"),
    ({"beam": 9}, "beam"),
    ({"best_of": 0}, "best_of"),
    ({"temperature": float("nan")}, "temperature"),
    ({"temperature_step": 1e-9}, "temperature_step"),
    ({"audio_ctx": 1501}, "audio_ctx"),
    ({"threads": None}, "threads"),
    ({"prompt": 5}, "prompt must be str"),
    ({"single_segment": "no"}, "single_segment must be bool"),
    ({"suppress_tokens": [1]}, "suppress_tokens must be frozenset"),
    ({"suppress_regex": 5}, "suppress_regex must be str or None"),
    ({"grammar": 'root ::= "a"', "timestamps": False}, "must be a Gbnf"),
    ({"logits_filter": 5}, "must be a function"),
    ({"audio_ctx": -1}, "audio_ctx"),
    ({"max_context": -1}, "max_context"),
    ({"start_s": -1.0}, "start_s"),
    ({"duration_s": 0.0}, "duration_s"),
    ({"max_tokens": 10**6}, "max_tokens"),
    ({"max_initial_timestamp_s": 1e9}, "max_initial"),
    ({"repetition_penalty": 0.5}, "repetition_penalty must be between 1 and 10"),
    ({"no_repeat_ngram": 2.0}, "no_repeat_ngram must be a whole number"),
    ({"suppress_regex": "("}, "no regular expression"),
    ({"prompt": "a", "prompt_tokens": (1,)}, "both given"),
    ({"carry_prompt": True}, "give a prompt"),
    ({"fit_window": True, "audio_ctx": 768}, "do not set audio_ctx"),
    ({"max_segment_length": 10}, "set word_times"),
    ({"split_on_word": True}, "max_segment_length"),
    ({"length_penalty": 1.0}, "set beam"),
    ({"patience": 1.0}, "set beam"),
    ({"patience": 1.0, "beam": 2, "temperature": 0.2}, "set temperature=0"),
    ({"patience": 0.1, "beam": 2}, "patience must be between 0.5 and 10"),
    ({"grammar": Gbnf('root ::= "a"')}, "timestamps=False"),
    ({"prompt": "a", "max_context": 0}, "max_context"),
    ({"prompt": "a", "carry_prompt": True, "max_context": 1}, "max_context to 2"),
    ({"hotwords": "a", "max_context": 1}, "max_context to 2"),
    ({"hotwords": 5}, "hotwords must be str"),
]


@pytest.mark.parametrize(("options", "problem"), WRONG_OPTIONS)
def test_options_that_cannot_take_effect_are_errors(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        Options(**options)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (Options(language="xx"), "does not know the language"),
        (Options(language="de"), "does not know the language"),
        (Options(language="e\0n"), "does not know the language"),
        (Options(translate=True), "multilingual"),
        (Options(start_s=1e6), "the audio ends at"),
        (Options(prompt_tokens=(10**6,)), "tokens 0 to"),
        (Options(prompt_tokens=(-1,)), "tokens 0 to"),
        (Options(prompt_tokens=(2**40,)), "small whole numbers"),
        (Options(suppress_tokens=frozenset({51_864})), "tokens 0 to"),
        (Options(prompt="\ud800"), "UTF-8"),
    ],
)
def test_options_that_this_model_cannot_have(
    session: Session, speech: Samples, options: Options, problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        session.transcribe(speech, options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"options": {"beam": 2}},
        {"timeout_s": "a"},
        {"timeout_s": -1.0},
        {"cancel": 5},
        {"on_segments": 5},
    ],
)
def test_arguments_of_another_kind(session: Session, speech: Samples, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        session.transcribe(speech, **wrong)
    with pytest.raises(UsageError, match="threads"):
        session.mel(speech, threads=1.5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="overlap_s"):
        whisper.SpeechOptions(overlap_s=float("nan"))
    with pytest.raises(UsageError, match="start_s"):
        whisper.transcribe_speech(session, speech, Options(start_s=1.0))


def test_prompts_of_any_length_and_kind(session: Session, speech: Samples) -> None:
    for prompt in ("a" * 200_000, "é" * 1000, "\0", " " * 5000, "'s" * 300, "\n\t x  y"):
        session.transcribe(speech, Options(prompt=prompt, audio_ctx=768, max_tokens=3, temperature_step=0))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab 1-'sé\n\tlver."), max_size=30))
def test_tokens_are_the_text_again(text: str) -> None:
    model = _shared_model()
    assert b"".join(map(model.token_data, model.tokenize(text))).decode() == text


def _shared_model() -> Model:
    global _model  # noqa: PLW0603 - hypothesis and fixtures do not go together
    if _model is None:
        _model = Model(models.find("tiny.en"))
    return _model


_model: Model | None = None


@pytest.mark.parametrize("size", [0, 4, 8, 1000, 300_000, 10_000_000, -1])
def test_models_that_are_cut_are_refused(model_path: Path, tmp_path: Path, size: int) -> None:
    data = model_path.read_bytes()[:size]
    path = tmp_path / "cut.bin"
    path.write_bytes(data)
    for source in (path, data):
        with pytest.raises(ModelCorruptError):
            Model(source)


def test_damaged_models_are_refused_or_run(model_path: Path, speech: Samples) -> None:
    numbers = random.Random(0)  # noqa: S311
    data = bytearray(model_path.read_bytes())
    for _ in range(12):
        at = numbers.randrange(4, 48)
        before, data[at] = data[at], numbers.randrange(256)
        with contextlib.suppress(EdgevoiceError), Model(bytes(data)) as model, model.session() as own:
            own.transcribe(speech[:8000], Options(audio_ctx=64, max_tokens=3, temperature_step=0))
        data[at] = before


def test_models_that_are_not_there(tmp_path: Path, model_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.bin"):
        with pytest.raises(ModelNotFoundError, match="is no file"):
            Model(path)
    for alignment in ("huge", "", "large-v3"):
        with pytest.raises((UsageError, ModelCorruptError), match=alignment or "alignment"):
            Model(model_path, alignment=alignment)


@pytest.mark.parametrize("call", ["encode", "decode", "set_mel"])
def test_steps_refuse_what_is_out_of_range(session: Session, speech: Samples, call: str) -> None:
    session.mel(speech)
    session.encode()
    wrong: dict[str, list[tuple[Any, ...]]] = {
        "encode": [(-1,), (10**9,), (2**70,), ("a",)],
        "decode": [
            ([],),
            ([10**6],),
            ([-1],),
            ([1] * 449,),
            ([1], 5),
            ([1], -1),
            (["a"],),
        ],
        "set_mel": [(np.zeros((80, 0), np.float32),), (np.zeros((1, 3), np.float32),), (None,)],
    }
    for arguments in wrong[call]:
        with pytest.raises(UsageError):
            getattr(session, call)(*arguments)
    with pytest.raises(UsageError):
        getattr(session, call)(
            *({"decode": ([1],), "set_mel": (np.zeros(3),)}.get(call, (0,))),
            **({} if call == "set_mel" else {"threads": 0}),
        )
    with pytest.raises(AudioFormatError):
        session.set_mel(np.full((80, 3), np.nan, np.float32))


def test_one_thread_at_a_time(session: Session, speech: Samples) -> None:
    with session.run(np.tile(speech, 20)):
        for call in (session.transcribe, session.mel):
            with pytest.raises(EngineBusyError):
                call(speech)
        with pytest.raises(EngineBusyError):
            session.run(speech)
        with pytest.raises(EngineBusyError):
            session.close()


def test_memory_does_not_grow(whisper_model: Model, speech: Samples) -> None:
    options = Options(audio_ctx=64, max_tokens=4, temperature_step=0, word_times=True)
    numbers = random.Random(1)  # noqa: S311

    def work(turns: int) -> None:
        for _ in range(turns):
            token = CancelToken()
            timer = threading.Timer(numbers.uniform(0, 0.05), token.cancel)
            timer.start()
            with whisper_model.session() as own:
                own.transcribe(speech[:16_000], options, cancel=token)
            timer.join()

    work(10)
    gc.collect()
    before, threads, files = _resident_bytes(), threading.active_count(), _open_files()
    work(40)
    gc.collect()
    assert _resident_bytes() - before < 20_000_000  # a session takes three times that
    assert threading.active_count() == threads
    assert _open_files() == files


# ---- grammars ----


def test_text_cannot_leave_the_grammar(session: Session, speech: Samples) -> None:
    grammar = Gbnf(
        'root ::= " " ("Turn" | "turn") " o" ("n" | "ff") " the " [a-z]+ (" lamp" | " light") "."?'
    )
    found = session.transcribe(speech, Options(grammar=grammar, timestamps=False, audio_ctx=768))
    assert found.text.lower().rstrip(".") == "turn on the desk lamp"
    other = Gbnf('root ::= " play" (" " [a-c]+){2} "!"')
    for beam, patience in ((1, None), (3, None), (3, 1.0)):
        options = Options(
            grammar=other, timestamps=False, beam=beam, patience=patience, audio_ctx=768, max_tokens=40
        )
        text = session.transcribe(speech, options).text
        assert text.startswith("play ")
        assert set(text[5:]) <= set("abc !")


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", None, "no rule root"),
        ('other ::= "a"', None, "no rule root"),
        ('root ::= "a" next', 1, "next is not defined"),
        ('root ::= "a"\nroot ::= "b"', 2, "defined twice"),
        ('root ::= "a"\n\nother ::= "b"', 3, "not reached"),
        ('root ::= root "a" | "a"', 1, "begins with itself"),
        ('root ::= a "x"\na ::= "y"? b | "z"\nb ::= a "q"', 2, "begins with itself"),
        ('root ::= "a" root', 1, "never comes to an end"),
        ("root ::= [a", 1, "must end"),
        ("root ::= [b-a]", 1, "backwards"),
        ("root ::= []", 1, "no character"),
        ('root ::= "a', 1, "must end"),
        ('root ::= "\\q"', 1, "unknown escape"),
        ('root ::= "\\ud800"', 1, "no character U"),
        ('root ::= ("a"', 1, r"\) expected"),
        ('root ::= "a"{2', 1, "expected"),
        ('root ::= "a"{3,2}', 1, "repetition"),
        ('root ::= "a"{1000000}', 1, "repetition"),
        ('root = "a"', 1, "::= expected"),
        ('root ::= "a" )', 1, "should end here"),
        ('root ::= "a"\n+ "b"', 2, "name of a rule"),
        ("root ::= " + "(" * 200, 1, "deeper"),
        ('root ::= ((("a"{1000}){1000}){1000})', None, "too large"),
    ],
)
def test_wrong_grammars_are_refused_with_their_line(text: str, line: int | None, problem: str) -> None:
    with pytest.raises(GrammarError, match=problem) as caught:
        Gbnf(text, name="my.gbnf")
    assert str(caught.value).startswith("my.gbnf" + (f":{line}:" if line else ":"))


def test_grammars_of_files(tmp_path: Path) -> None:
    path = tmp_path / "a.gbnf"
    with pytest.raises(GrammarError, match="cannot be read"):
        Gbnf.load(path)
    path.write_text('# lights\nroot ::= " on" |\n  " off"  # the other\n', encoding="utf-8")
    assert Gbnf.load(path).root == "root"
    path.write_bytes(b"root ::= \xff")
    with pytest.raises(GrammarError, match="UTF-8"):
        Gbnf.load(path)


def test_rules_may_nest_but_not_without_end(session: Session, speech: Samples) -> None:
    nested = Gbnf('root ::= " (" root? ")"')
    options = Options(grammar=nested, timestamps=False, audio_ctx=64, max_tokens=30, temperature_step=0)
    text = session.transcribe(speech, options).text
    assert set(text) <= set("( )")
    endless = Gbnf('root ::= " a" root | " b"')  # a list, not a nesting
    found = session.transcribe(
        speech, Options(grammar=endless, timestamps=False, max_tokens=200, temperature_step=0)
    )
    assert set(found.text) <= set(" ab")


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=60) | st.text(alphabet=st.sampled_from('rot:=" ab|()[]{}*+?.^-\\x1,\n#'), max_size=60)
)
def test_any_text_is_a_grammar_or_an_error(text: str) -> None:
    for each in (text, f"root ::= {text}"):
        with contextlib.suppress(GrammarError):
            Gbnf(each)


@settings(deadline=None)
@given(st.tuples(st.integers(0, 0x10FFFF), st.integers(0, 0x10FFFF)), st.integers(0, 0x10FFFF))
def test_character_ranges_are_exact(ends: tuple[int, int], code: int) -> None:
    low, high = sorted(ends)
    if low <= 0xDFFF and high >= 0xD800:  # surrogates are no characters; the parser takes them out
        return
    for each in (code, low, high, (low + high) // 2):
        if 0xD800 <= each <= 0xDFFF:
            continue
        data = chr(each).encode()
        inside = any(
            len(ranges) == len(data)
            and all(a <= byte <= b for byte, (a, b) in zip(data, ranges, strict=True))
            for ranges in utf8_ranges(low, high)
        )
        assert inside == (low <= each <= high)
