"""Text while it is spoken: what is stable never changes, and the finals are what was shown."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import build_native
from edgevoice import whisper
from edgevoice.audio import read_audio
from edgevoice.errors import AudioFormatError, UsageError
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.whisper.stream import MOST_S, Agreement
from tests import sound_server
from tests.sound_server import SoundServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from edgevoice.events import Samples
    from tests.conftest import Sample

PIECES = (
    b" the",
    b" lamp",
    b" lamps",
    b"s",
    b"'t",
    b".",
    b",",
    " é".encode(),
    b" \xe5",
    b"\xad\x97",
    b"-",
    b"7",
)


@pytest.fixture(scope="module")
def jfk() -> Samples:
    """Eleven seconds that whisper.cpp comes with."""
    return read_audio(build_native.whisper_source(None) / "samples" / "jfk.wav")


@pytest.fixture(scope="module")
def model(model_path: Path) -> Iterator[whisper.Model]:
    with whisper.Model(model_path) as opened:
        yield opened


@pytest.fixture
def stream(model: whisper.Model) -> Iterator[whisper.Stream]:
    with model.session() as session, whisper.Stream(session, real_time=False) as opened:
        yield opened


def follow(stream: whisper.Stream, pieces: Iterable[npt.NDArray[Any]]) -> list[whisper.Update]:
    """Feed a stream to its end; what is stable must never change, nor what is final be anything else."""
    updates = [update for piece in pieces for update in stream.push(piece)]
    updates += stream.finish()
    check(updates)
    return updates


def check(updates: list[whisper.Update]) -> None:
    shown = ""
    for update in updates:
        assert update.stable.startswith(shown)
        assert update.start_s < update.end_s <= update.start_s + MOST_S
        assert not (update.final and update.tentative)
        shown = "" if update.final else update.stable
    assert shown == ""  # what was shown has become final
    for before, after in itertools.pairwise(updates):
        assert after.start_s >= before.end_s if before.final else after.start_s == before.start_s


def text(updates: list[whisper.Update]) -> str:
    return "".join(update.stable for update in updates if update.final)


def cut(samples: npt.NDArray[Any], size: int) -> Iterator[npt.NDArray[Any]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


class TestAgreement:
    """What two runs in a row agree on."""

    @given(st.lists(st.lists(st.integers(0, len(PIECES) - 1), max_size=12), min_size=1, max_size=8))
    def test_stable_text_never_changes(self, texts: list[list[int]]) -> None:
        """Whatever the runs write: also if they forget what is stable."""
        agreement = Agreement(PIECES.__getitem__)
        shown, before = "", tuple[int, ...]()
        for n, tokens in enumerate(texts):
            forced = (*agreement.tokens, *tokens) if n % 3 else tuple(tokens)
            agreement.push(forced)
            assert agreement.stable.startswith(shown)
            assert "\ufffd" not in agreement.stable
            if len(agreement.stable) > len(shown):  # then both runs wrote it
                length = len(agreement.tokens)
                assert forced[:length] == before[:length] == agreement.tokens
            shown = agreement.stable
            if forced[: len(agreement.tokens)] == agreement.tokens:
                before = forced
        agreement.finish((*agreement.tokens, 0))
        assert agreement.stable == f"{shown} the"
        assert agreement.tentative == ""

    @pytest.mark.parametrize(
        ("first", "second", "stable"),
        [
            ([0, 1], [0, 1, 5], " the lamp"),
            ([0, 1, 5], [0, 1, 0], " the lamp"),
            ([0, 1], [0, 1, 3], " the"),  # "lamps" is another word
            ([0, 1, 3], [0, 1, 4], " the"),
            ([8, 9], [8, 9], " 字"),
            ([0, 8], [0, 8, 9], " the"),  # half a character
            ([0], [1], ""),
        ],
    )
    def test_whole_words(self, first: list[int], second: list[int], stable: str) -> None:
        """A word that may go on is not stable."""
        agreement = Agreement(PIECES.__getitem__)
        agreement.push(first)
        assert (agreement.stable, agreement.tentative) == (
            "",
            b"".join(PIECES[i] for i in first).decode("utf-8", "replace"),
        )
        agreement.push(second)
        assert agreement.stable == stable


class TestStream:
    """With the real model."""

    def test_speech(self, stream: whisper.Stream, jfk: Samples) -> None:
        """Some of it is stable long before it has ended, and all of it in the end."""
        updates = follow(stream, cut(jfk, 1600))
        words = text(updates).lower().split()
        assert words[-8:] == ["ask", "what", "you", "can", "do", "for", "your", "country."]
        assert "americans." in words
        early = [update for update in updates if update.stable and not update.final]
        assert any("what you" in update.stable.lower() for update in early)
        assert any(update.tentative for update in updates)

    def test_size_of_pieces_does_not_matter(self, stream: whisper.Stream, jfk: Samples) -> None:
        """One sample less or more at a time, or all at once, as numbers of 16 bits, too."""
        part = np.rint(jfk[: 4 * SAMPLE_RATE_HZ] * 32768).astype(np.int16)
        whole = follow(stream, iter([part]))
        assert text(whole)
        stream.reset()
        assert follow(stream, cut(part, 777)) == whole

    @pytest.mark.parametrize("loud", [0.0, 0.01])
    def test_silence(self, stream: whisper.Stream, loud: float) -> None:
        """Costs no run and says nothing; so does no audio."""
        noise = np.random.default_rng(1).standard_normal(20 * SAMPLE_RATE_HZ, np.float32) * np.float32(loud)
        assert follow(stream, iter([noise, noise[:0]])) == []
        assert stream.runs == 0

    def test_speech_without_a_pause(
        self, stream: whisper.Stream, jfk: Samples, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Is cut before 28 s, and no more is kept, however long it goes on."""
        monkeypatch.setattr("edgevoice.whisper.stream._PAUSES", ((0.0, 99.0),))
        stream._options = whisper.StreamOptions(step_s=10)
        updates = follow(stream, itertools.repeat(jfk, 3))
        finals = [update for update in updates if update.final]
        assert len(finals) == 2
        assert all(update.end_s - update.start_s > MOST_S - 0.1 for update in finals[:-1])
        assert stream._audio.nbytes == MOST_S * SAMPLE_RATE_HZ * 4

    def test_reset_forgets(self, stream: whisper.Stream, jfk: Samples) -> None:
        """What was begun is gone, and the clock begins anew."""
        assert stream.push(jfk[SAMPLE_RATE_HZ : 5 * SAMPLE_RATE_HZ])
        stream.reset()
        assert stream.finish() == []
        updates = follow(stream, [jfk[: 4 * SAMPLE_RATE_HZ]])
        assert updates[0].start_s < 1

    def test_slow_machine(self, model: whisper.Model, jfk: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
        """When a run takes long, the next waits until as much audio is there, and a quarter more."""
        with model.session() as session, whisper.Stream(session) as stream:
            run, heard = stream._run, list[float]()

            def slow() -> tuple[int, ...]:
                tokens = run()
                heard.append(stream._filled / SAMPLE_RATE_HZ)
                stream._last_run_s = 2.0
                return tokens

            monkeypatch.setattr(stream, "_run", slow)
            monkeypatch.setattr("edgevoice.whisper.stream._PAUSES", ((0.0, 99.0),))
            follow(stream, cut(jfk, 512))
        assert 0.9 < heard[0] < 1.2
        assert all(after - before >= 2.5 for before, after in itertools.pairwise(heard[:-1]))

    @settings(max_examples=4, deadline=None)
    @given(st.data())
    def test_any_audio(self, model: whisper.Model, samples: tuple[Sample, ...], data: st.DataObject) -> None:
        """Speech, cut anywhere, with silence, noise, gaps and clipping between, in pieces of any size."""
        chosen = data.draw(st.lists(st.integers(0, len(samples) - 1), min_size=1, max_size=2))
        chance = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        updates: list[whisper.Update] = []
        with model.session() as session, whisper.Stream(session, real_time=False) as stream:
            for index in chosen:
                sound = samples[index].read()
                start = chance.integers(0, len(sound))
                sound = sound[start:] * np.float32(chance.choice([0.1, 1, 30]))
                sound = sound + chance.standard_normal(len(sound), np.float32) * np.float32(0.001)
                for piece in cut(sound, int(chance.integers(1, 20_000))):
                    updates += stream.push(piece)
                if chance.integers(2):
                    updates += stream.finish()  # a gap
            updates += stream.finish()
        check(updates)

    def test_wrong_use(self, stream: whisper.Stream, jfk: Samples) -> None:
        """Is told, and changes nothing."""
        stream.push(jfk[:16000])
        filled = stream._filled
        for wrong in (np.full(10, np.nan, np.float32), np.zeros((2, 2), np.float32), np.zeros(9)):
            with pytest.raises(AudioFormatError):
                stream.push(wrong)
        assert stream._filled == filled
        for step_s in (0.0, 11.0, float("nan")):
            with pytest.raises(UsageError, match="step_s"):
                whisper.StreamOptions(step_s=step_s)
        with pytest.raises(UsageError, match="grammar"):
            whisper.StreamOptions(
                options=whisper.Options(grammar=whisper.Gbnf('root ::= " a"'), timestamps=False)
            )


@pytest.mark.skipif(
    bool(sound_server.MISSING),
    reason=f"{', '.join(sound_server.MISSING)} not there; see scripts/debian-packages.sh",
)
def test_microphone(samples: tuple[Sample, ...], child_environment: dict[str, str]) -> None:
    """`edgevoice transcribe --mic` prints what is played to it, a line each, until Ctrl-C."""
    chosen = [sample for sample in samples if sample.path.stem == "turn-on-desk-lamp"]
    # A shell starts background jobs with SIGINT ignored; children inherit that, but not a handler.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with (
        SoundServer() as server,
        subprocess.Popen(
            [sys.executable, "-m", "edgevoice", "transcribe", "--mic", "--threads", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**child_environment, **server.environment},
        ) as child,
    ):
        signal.signal(signal.SIGINT, before)
        watchdog = threading.Timer(60, child.kill)
        watchdog.start()
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stderr.readline() == b"listening; Ctrl-C ends it\n"
        for sample in chosen * 2:
            server.play(sample.path)
            assert "desk lamp" in child.stdout.readline().decode().lower()
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 130
        watchdog.cancel()
        assert child.stdout.read() == b""
        assert b"Traceback" not in child.stderr.read()
