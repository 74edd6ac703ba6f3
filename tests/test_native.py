"""Nothing that Python can pass to the engine crashes it, races in it or goes wrong without a typed error."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from edgevoice._native import lib

from edgevoice import ggml_file, match, models, native
from edgevoice.errors import (
    AudioFormatError,
    CancelledError,
    DeadlineError,
    EdgevoiceError,
    EngineBusyError,
    EngineClosedError,
    ModelCorruptError,
    UsageError,
)
from edgevoice.native import Grammar, Model, Session, SessionOptions, VoiceDetector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgevoice.events import Samples, Transcript
    from tests.conftest import MakeGrammar, Sample

RATE_HZ = 16_000
MAX_S = 28
DEFAULTS = SessionOptions()
RECOGNITIONS = 200
MEMORY_GROWTH_BYTES = 6 << 20  # allocator noise is 1 MB; a leaked utterance of 1 s would be 13 MB

OPEN_IN_CHILD = """
import json, sys
from pathlib import Path
from edgevoice.errors import EdgevoiceError
from edgevoice.native import Model
path, edits = Path(sys.argv[1]), json.load(sys.stdin)
outcomes = {}
with path.open("r+b") as file:
    for name, (offset, new) in edits.items():
        file.seek(offset)
        old = file.read(4)
        file.seek(offset)
        file.write(bytes(new))
        file.flush()
        try:
            Model(path).close()
            outcomes[name] = "opened"
        except EdgevoiceError as error:
            outcomes[name] = type(error).__name__
        file.seek(offset)
        file.write(old)
        file.flush()
Model(path).close()
print(json.dumps(outcomes))
"""

DETECT_IN_CHILD = """
import resource, sys
from pathlib import Path
from edgevoice.errors import EdgevoiceError
from edgevoice.native import VoiceDetector
resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
try:
    VoiceDetector(Path(sys.argv[1]))
except EdgevoiceError as error:
    print(type(error).__name__)
"""


def noise(n_samples: int, level: float = 0.1) -> Samples:
    return (np.random.default_rng(7).standard_normal(n_samples) * level).astype(np.float32)


def texts(transcript: Transcript) -> list[str]:
    return [hypothesis.text for hypothesis in transcript.hypotheses]


def wait_until_used(session: Session) -> None:
    deadline_s = time.monotonic() + 5
    while not session._lock.locked():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


@pytest.fixture
def own_session(model: Model, home_grammar: Grammar) -> Iterator[Session]:
    """A session that a test may spoil."""
    with Session(model, home_grammar, DEFAULTS) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(session: Session, speech: Samples) -> list[str]:
    """What the engine hears when all is well."""
    heard = texts(session.recognise(speech))
    assert heard[0].lower().startswith("turn on the desk lamp")
    return heard


class Recognition(threading.Thread):
    """A recognition on another thread, and how it ended."""

    def __init__(self, session: Session, samples: Samples) -> None:
        super().__init__()
        self._session, self._samples = session, samples
        self.transcript: Transcript | None = None
        self.error: EdgevoiceError | None = None

    def run(self) -> None:
        """Recognise, once."""
        try:
            self.transcript = self._session.recognise(self._samples)
        except EdgevoiceError as error:
            self.error = error


class TestStatus:
    """The table from C's status to Python's error."""

    def test_every_failing_status_has_an_error(self) -> None:
        """No status but EV_OK is without one, and the table has no other entries."""
        assert set(native.ERRORS) == set(range(1, native.STATUS_COUNT))

    def test_every_status_of_the_header_is_counted(self) -> None:
        """EV_STATUS_COUNT is one more than the largest status that C names."""
        named = [getattr(lib, name) for name in dir(lib) if name.startswith("EV_ERR_")]
        assert sorted(named) == list(range(1, native.STATUS_COUNT))

    @pytest.mark.parametrize("status", range(1, native.STATUS_COUNT))
    def test_check_raises_it(self, status: int) -> None:
        """A failing status raises its error, with the name of what failed."""
        with pytest.raises(native.ERRORS[status], match=r"^this: "):
            native.check(status, "this")


class TestAudio:
    """What recognise() accepts."""

    @pytest.mark.parametrize(
        "audio",
        [
            pytest.param(np.zeros(0, np.float32), id="empty"),
            pytest.param(np.array([0.0, np.nan], np.float32), id="NaN"),
            pytest.param(np.array([0.0, np.inf], np.float32), id="infinite"),
            pytest.param(np.array([-np.inf], np.float32), id="minus infinite"),
            pytest.param(np.zeros(RATE_HZ, np.float64), id="float64"),
            pytest.param(np.zeros(RATE_HZ, np.uint8), id="uint8"),
            pytest.param(np.zeros(RATE_HZ, np.int32), id="int32"),
            pytest.param(np.zeros(RATE_HZ, np.complex64), id="complex"),
            pytest.param(np.zeros(RATE_HZ, ">i2"), id="big-endian"),
            pytest.param(np.zeros((RATE_HZ, 1), np.float32), id="two dimensions"),
            pytest.param(np.float32(0.0), id="a number"),
            pytest.param(np.zeros(2 * RATE_HZ, np.float32)[::2], id="strided"),
            pytest.param(np.zeros(RATE_HZ, np.float32)[::-1], id="backwards"),
            pytest.param(np.zeros(MAX_S * RATE_HZ + 1, np.float32), id="over 28 s"),
            pytest.param([0.0] * RATE_HZ, id="list"),
            pytest.param(b"\0\0" * RATE_HZ, id="bytes"),
            pytest.param(None, id="None"),
        ],
    )
    def test_unusable_audio_is_refused(
        self, session: Session, audio: Any, speech: Samples, expected: list[str]
    ) -> None:
        """It is an AudioFormatError, and the session works afterwards."""
        with pytest.raises(AudioFormatError):
            session.recognise(audio)
        assert texts(session.recognise(speech)) == expected

    @pytest.mark.parametrize(
        "audio",
        [
            pytest.param(np.zeros(1, np.float32), id="one sample"),
            pytest.param(np.zeros(160, np.float32), id="10 ms"),
            pytest.param(np.zeros(RATE_HZ, np.float32), id="silence"),
            pytest.param(np.zeros(RATE_HZ, np.int16), id="silence as int16"),
            pytest.param(np.full(RATE_HZ, 0.5, np.float32), id="direct current"),
            pytest.param(np.full(RATE_HZ, 1e-42, np.float32), id="denormal"),
            pytest.param(np.sign(noise(RATE_HZ)), id="clipped noise"),
            pytest.param(noise(RATE_HZ), id="noise"),
            pytest.param(noise(RATE_HZ, 100), id="far beyond full scale"),
            pytest.param(noise(MAX_S * RATE_HZ), id="28 s"),
        ],
    )
    def test_odd_audio_gives_sentences_of_the_grammar_or_none(
        self, session: Session, home_grammar: Grammar, audio: Any
    ) -> None:
        """Audio without words is like any other: each hypothesis is of the grammar, each number finite."""
        transcript = session.recognise(audio)
        assert 0 <= transcript.no_speech_probability <= 1
        for hypothesis in transcript.hypotheses:
            assert match.interpret(home_grammar, hypothesis.text), hypothesis.text
            assert np.isfinite([hypothesis.score, hypothesis.log_probability]).all()
            assert hypothesis.tokens >= 1

    def test_absurd_level_ends_in_a_result_or_an_error(
        self, session: Session, speech: Samples, expected: list[str]
    ) -> None:
        """Finite samples whose spectrum overflows do not spoil the session."""
        with suppress(EdgevoiceError):
            session.recognise(np.full(RATE_HZ, 3e38, np.float32))
        assert texts(session.recognise(speech)) == expected

    def test_int16_is_the_same_as_float32(
        self, session: Session, speech: Samples, expected: list[str]
    ) -> None:
        """The level of both is full scale at 1."""
        assert texts(session.recognise((speech * 32767).astype(np.int16)))[0] == expected[0]

    def test_read_only_audio_is_not_written_to(
        self, session: Session, speech: Samples, expected: list[str]
    ) -> None:
        """Samples of a file mapped into memory serve as well."""
        frozen = speech.copy()
        frozen.flags.writeable = False
        assert texts(session.recognise(frozen)) == expected


class TestOptions:
    """What a session may be opened with."""

    @pytest.mark.parametrize(
        "options",
        [
            {"threads": 0}, {"threads": -1}, {"threads": 65}, {"threads": 2**31},
            {"beam": 0}, {"beam": -1}, {"beam": 33},
            {"n_best": 0}, {"n_best": 33},
            {"language": "xx"}, {"language": ""}, {"language": "english?"},
            {"timeout_s": -1.0}, {"timeout_s": float("nan")}, {"timeout_s": float("inf")}, {"timeout_s": 1e9},
            {"token_reward": -0.1}, {"token_reward": float("nan")}, {"token_reward": 1e6},
            {"lm_weight": -0.1}, {"lm_weight": 1.1}, {"lm_weight": float("nan")},
        ],
        ids=repr,
    )  # fmt: skip
    def test_option_outside_its_range_is_refused(
        self, model: Model, home_grammar: Grammar, options: dict[str, Any]
    ) -> None:
        """It is a UsageError when the session opens, before any audio is lost to it."""
        with pytest.raises(UsageError):
            Session(model, home_grammar, replace(DEFAULTS, **options))

    @pytest.mark.parametrize(
        "options",
        [{"beam": 1}, {"beam": 32, "n_best": 32}, {"n_best": 1}, {"lm_weight": 0.0}],
        ids=repr,
    )
    def test_other_options_work(
        self,
        model: Model,
        home_grammar: Grammar,
        speech: Samples,
        expected: list[str],
        options: dict[str, Any],
    ) -> None:
        """Least, most and other values recognise the same sentence."""
        with Session(model, home_grammar, replace(DEFAULTS, **options)) as session:
            heard = texts(session.recognise(speech))
        assert heard[0].lower().rstrip(".") == expected[0].lower().rstrip(".")
        assert len(heard) <= options.get("n_best", DEFAULTS.n_best)

    def test_error_names_option_range_and_value(self, model: Model, home_grammar: Grammar) -> None:
        """The message says what to change."""
        with pytest.raises(UsageError, match=r"beam must be between 1\D.*32\D.*got 33"):
            Session(model, home_grammar, replace(DEFAULTS, beam=33))

    def test_two_sessions_share_model_and_grammar(
        self, model: Model, home_grammar: Grammar, speech: Samples, expected: list[str]
    ) -> None:
        """Each on its own thread, at the same time, hears what it would hear alone."""
        with Session(model, home_grammar, DEFAULTS) as one, Session(model, home_grammar, DEFAULTS) as two:
            both = [Recognition(one, speech), Recognition(two, speech)]
            for thread in both:
                thread.start()
            for thread in both:
                thread.join()
        assert [thread.transcript and texts(thread.transcript) for thread in both] == [expected, expected]


class TestModelFiles:
    """Files that are no models."""

    @pytest.mark.parametrize(
        "content", [b"", b"\0" * 8, b"lmgg", b"lmgg" + b"\xff" * 1020, b"<html>" * 200], ids=len
    )
    def test_small_rubbish_is_refused(self, tmp_path: Path, content: bytes) -> None:
        """A few bytes are no model, whatever they begin with."""
        path = tmp_path / "model.bin"
        path.write_bytes(content)
        with pytest.raises(ModelCorruptError, match=r"model\.bin"):
            Model(path)

    @pytest.mark.parametrize("size_bytes", [8, 1000, 100_000, 38_000_000, -1], ids=lambda n: f"{n}")
    def test_truncated_file_is_refused(self, tmp_path: Path, model_path: Path, size_bytes: int) -> None:
        """Cut anywhere, even one byte before its end, a file is refused before whisper.cpp sees it."""
        path = tmp_path / "model.bin"
        path.write_bytes(model_path.read_bytes()[:size_bytes])
        with pytest.raises(ModelCorruptError, match=r"model\.bin"):
            Model(path)

    def test_changed_header_is_refused(
        self, tmp_path: Path, model_path: Path, child_environment: dict[str, str]
    ) -> None:
        """With any of its first twelve numbers changed a file is refused, and the process lives."""
        path = tmp_path / "model.bin"
        path.write_bytes(model_path.read_bytes())
        header = np.frombuffer(path.read_bytes()[:48], "<i4")
        edits = {
            f"number {i} = {new}": (4 * i, list(int(new).to_bytes(4, "little", signed=True)))
            for i, old in enumerate(header.tolist())
            for new in {0, -1, 1, 2**31 - 1, old + 1, old * 2 if old < 2**30 else 3} - {old}
        }
        child = subprocess.run(
            [sys.executable, "-c", OPEN_IN_CHILD, path],
            input=json.dumps(edits).encode(),
            capture_output=True,
            timeout=60,
            env=child_environment,
            check=False,
        )
        assert child.returncode == 0, child.stderr.decode()[-500:]
        outcomes = json.loads(child.stdout)
        assert outcomes == dict.fromkeys(edits, "ModelCorruptError")

    def test_missing_file_and_folder_are_refused(self, tmp_path: Path) -> None:
        """A path that is no file is a typed error that names it."""
        for path in (tmp_path / "absent.bin", tmp_path):
            with pytest.raises(ModelCorruptError, match=path.name):
                Model(path)

    def test_path_of_any_bytes(self, tmp_path: Path, model_path: Path) -> None:
        """A file name that is not UTF-8 is a name like any other, for opening and for writing."""
        path = tmp_path / os.fsdecode(b"m\xff.bin")
        path.symlink_to(model_path)
        Model(path).close()
        target = tmp_path / os.fsdecode(b"q\xff.bin")
        native.quantize(path, target, "q8_0")
        assert target.stat().st_size > 0
        silero = tmp_path / os.fsdecode(b"v\xff.bin")
        silero.symlink_to(models.vad_model())
        VoiceDetector(silero).close()

    def test_quantised_from_f32(self, tmp_path: Path, model_path: Path) -> None:
        """The same values in f32 give the same model; the f32 one itself, is not opened."""
        data = model_path.read_bytes()
        header = ggml_file.check(model_path)
        at = data.index(b"decoder.positional_embedding") - 20
        path = tmp_path / "f32.bin"
        with path.open("wb") as out:
            out.write(data[:44] + struct.pack("<i", 0) + data[48:at])
            for tensor in ggml_file.tensors(header):
                rank, name = len(tensor.shape), tensor.name.encode()
                kind, size = tensor.layout(header)
                values = at + 12 + 4 * rank + len(name)
                assert data[values - len(name) : values] == name
                out.write(struct.pack(f"<3i{rank}i", rank, len(name), 0, *tensor.shape[::-1]) + name)
                stored = np.frombuffer(data[values : values + size], "<f2" if kind else "<f4")
                out.write(stored.astype("<f4").tobytes())
                at = values + size
        made = {}
        for source in (model_path, path):
            target = tmp_path / "made.bin"
            native.quantize(source, target, "q4_0")
            made[source] = hashlib.sha256(target.read_bytes()).digest()
        assert made[model_path] == made[path]
        with pytest.raises(ModelCorruptError, match="all f32"):
            Model(path)

    def test_info_of_a_good_model(self, model: Model) -> None:
        """tiny.en says what it is."""
        assert model.info.n_audio_ctx == 1500
        assert model.info.n_audio_layer == 4
        assert not model.info.multilingual


class TestLifetime:
    """Open, closed, and nothing between."""

    def test_use_after_close(self, own_session: Session, speech: Samples) -> None:
        """A closed session says so; closing it again is nothing."""
        own_session.close()
        own_session.close()
        assert own_session.closed
        own_session.cancel()
        with pytest.raises(EngineClosedError, match="closed"):
            own_session.recognise(speech)

    def test_closed_model_or_grammar_opens_no_session(
        self, model: Model, home_grammar: Grammar, model_path: Path, make_grammar: MakeGrammar
    ) -> None:
        """A session cannot be made of what is closed."""
        closed_model = Model(model_path)
        closed_model.close()
        closed_grammar = make_grammar("language: en\nintents: {A: {data: [{sentences: [a]}]}}\n")
        closed_grammar.close()
        with pytest.raises(EngineClosedError):
            Session(closed_model, home_grammar, DEFAULTS)
        with pytest.raises(EngineClosedError):
            Session(model, closed_grammar, DEFAULTS)
        with pytest.raises(EngineClosedError):
            closed_grammar.match("a")

    def test_session_keeps_model_and_grammar_alive(
        self, model_path: Path, make_grammar: MakeGrammar, speech: Samples
    ) -> None:
        """It recognises after both were closed and forgotten."""
        model = Model(model_path)
        grammar = make_grammar(
            "language: en\nintents: {A: {data: [{sentences: ['turn on the desk lamp']}]}}\n"
        )
        session = Session(model, grammar, DEFAULTS)
        model.close()
        grammar.close()
        del model, grammar
        gc.collect()
        with session:
            assert texts(session.recognise(speech))[0].lower().startswith("turn on the desk lamp")

    def test_free_text_is_looked_for_once(
        self, model: Model, make_grammar: MakeGrammar, speech: Samples
    ) -> None:
        """After a recognition that left it out, and after no other."""
        grammar = make_grammar(
            "language: en\nintents: {A: {data: [{sentences: ['turn on the desk lamp']}]},\n"
            "  B: {data: [{sentences: ['turn on the {what}']}]}}\nlists: {what: {wildcard: true}}\n"
        )
        with Session(model, grammar, DEFAULTS) as session:
            without = session.recognise(speech, free_text=False)
            assert without.without_free_text
            assert [text.lower().rstrip(".") for text in texts(without)] == ["turn on the desk lamp"]
            whole = session.recognise_free_text()
            assert not whole.without_free_text
            assert len(whole.hypotheses) > 1
            assert texts(whole) == texts(session.recognise(speech))
            with pytest.raises(UsageError, match="free text"):
                session.recognise_free_text()

    def test_forgotten_handles_are_freed(self, model: Model, home_grammar: Grammar) -> None:
        """Without close() the memory comes back with the object."""
        before = resident_bytes()
        for _ in range(5):
            Session(model, home_grammar, DEFAULTS)
            gc.collect()
        assert resident_bytes() - before < 60 << 20  # one session is some 50 MB


class TestThreads:
    """Concurrent use is an error, not a race."""

    def test_second_thread_gets_an_error_and_the_first_its_result(
        self, own_session: Session, speech: Samples
    ) -> None:
        """One recognition at a time: the one under way is not disturbed."""
        long = np.concatenate([speech, np.zeros(10 * RATE_HZ, np.float32)])
        alone = texts(own_session.recognise(long))
        first = Recognition(own_session, long)
        first.start()
        wait_until_used(own_session)
        with pytest.raises(EngineBusyError, match="another thread"):
            own_session.recognise(speech)
        with pytest.raises(EngineBusyError):
            own_session.close()
        first.join()
        assert first.transcript is not None
        assert texts(first.transcript) == alone

    def test_cancel_from_another_thread(
        self, own_session: Session, speech: Samples, expected: list[str]
    ) -> None:
        """A cancelled recognition raises CancelledError and the session can go on."""
        running = Recognition(own_session, noise(MAX_S * RATE_HZ))
        running.start()
        wait_until_used(own_session)
        while running.is_alive():
            own_session.cancel()
            running.join(0.01)
        assert isinstance(running.error, CancelledError)
        assert "cancelled" in str(running.error)
        assert texts(own_session.recognise(speech)) == expected

    def test_cancelled_encoder_ends_soon(
        self, own_session: Session, speech: Samples, expected: list[str]
    ) -> None:
        """Nothing waits for the end of what nobody wants any more, not even the encoder."""
        long = noise(MAX_S * RATE_HZ)
        encode_s = min(own_session.recognise(long).timings.encode for _ in range(2)) / 1000
        running = Recognition(own_session, long)
        running.start()
        time.sleep(encode_s / 4)
        own_session.cancel()
        cancelled_s = time.monotonic()
        running.join()
        assert time.monotonic() - cancelled_s < encode_s / 4
        assert isinstance(running.error, CancelledError)
        assert texts(own_session.recognise(speech)) == expected

    def test_cancel_without_a_recognition_is_forgotten(
        self, own_session: Session, speech: Samples, expected: list[str]
    ) -> None:
        """What was cancelled before it began runs."""
        own_session.cancel()
        assert texts(own_session.recognise(speech)) == expected

    def test_python_goes_on_while_c_recognises(self, own_session: Session) -> None:
        """Other threads are not held up."""
        running = Recognition(own_session, noise(MAX_S * RATE_HZ))
        running.start()
        turns = 0
        while running.is_alive():
            time.sleep(0.001)
            turns += 1
        assert turns > 20


@pytest.mark.parametrize("timeout_s", [0.0001, 0.001, 0.01])
def test_tiny_timeout_is_a_deadline_error(
    model: Model, home_grammar: Grammar, speech: Samples, timeout_s: float
) -> None:
    """Time that cannot suffice runs out soon; 0 alone means none."""
    with Session(model, home_grammar, replace(DEFAULTS, timeout_s=timeout_s)) as session:
        started_s = time.monotonic()
        with pytest.raises(DeadlineError, match="too long"):
            session.recognise(speech)
        assert time.monotonic() - started_s < 1
    with Session(model, home_grammar, replace(DEFAULTS, timeout_s=0)) as session:
        assert session.recognise(speech).hypotheses


def test_only_sentences_of_the_grammar_come_out(
    model: Model, coffee_grammar: Grammar, samples: tuple[Sample, ...]
) -> None:
    """Speech about lights can only be heard as an order of coffee; hypotheses differ and are ranked."""
    with Session(model, coffee_grammar, replace(DEFAULTS, n_best=8)) as session:
        for sample in samples[::3]:
            transcript = session.recognise(sample.read()[: MAX_S * RATE_HZ])
            for hypothesis in transcript.hypotheses:
                assert match.interpret(coffee_grammar, hypothesis.text), hypothesis.text
            scores = [hypothesis.score for hypothesis in transcript.hypotheses]
            assert scores == sorted(scores, reverse=True)
            assert len({text.lower() for text in texts(transcript)}) == len(scores)


def test_result_does_not_depend_on_what_came_before(
    session: Session, speech: Samples, expected: list[str], samples: tuple[Sample, ...]
) -> None:
    """Caches of one recognition are not seen by the next."""
    first = session.recognise(speech)
    for sample in samples[3:6]:
        session.recognise(sample.read())
    again = session.recognise(speech)
    assert texts(again) == texts(first) == expected
    assert [hypothesis.score for hypothesis in again.hypotheses] == pytest.approx(
        [hypothesis.score for hypothesis in first.hypotheses], abs=1e-3
    )


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no regular file
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_stays_flat(model: Model, home_grammar: Grammar, speech: Samples) -> None:
    """Many recognitions of different lengths need no more memory than a few."""
    lengths = [RATE_HZ // 2, RATE_HZ, RATE_HZ * 3 // 2]
    with Session(model, home_grammar, replace(DEFAULTS, beam=2)) as session:  # for speed
        for length in lengths * 7:
            session.recognise(speech[:length])
        before = resident_bytes()
        for i in range(RECOGNITIONS):
            session.recognise(speech[: lengths[i % len(lengths)]])
        assert resident_bytes() - before < MEMORY_GROWTH_BYTES


class TestAboutAGrammar:
    """What a grammar says of itself."""

    def test_sentences_are_copied(self, make_grammar: MakeGrammar) -> None:
        """They outlive the grammar, and asking again and again takes no more memory."""
        with make_grammar("language: en\nintents: {A: {data: [{sentences: ['go [on]']}]}}\n") as grammar:
            graphs = [grammar.sentences(1000) for _ in range(1000)]
        assert {graph.bytes for graph in graphs} == {b"go on"}
        assert (graphs[0].accepts, graphs[0].complete) == ([0, 0], True)

    def test_effort_is_a_bound(self, home_grammar: Grammar) -> None:
        """Little effort ends soon, without the sentences that are longer; too much is what there is."""
        started = time.process_time()
        assert not home_grammar.sentences(1000).complete
        assert time.process_time() - started < 0.5

    def test_ahead_names_networks(self, make_grammar: MakeGrammar) -> None:
        """Only those asked for, in any order, and no more words than wanted."""
        with make_grammar("language: en\nintents: {A: {data: [{sentences: ['go (a|b|c)']}]}}\n") as grammar:
            assert grammar.ahead("go", most=2) == native.Ahead("go", ("a", "b"), (), more=True)
            assert grammar.ahead("go x", [7, 3]) == native.Ahead("go", ("a", "b", "c"), (), more=False)
            assert grammar.ahead("", most=0) == native.Ahead("", (), (), more=True)

    def test_tokens(self, model: Model, home_grammar: Grammar) -> None:
        """Common words are one token; any bytes have some; what begins no sentence leaves no choice."""
        assert model.fewest_tokens(" light") == 1
        assert model.fewest_tokens("") == 0
        assert 2 <= model.fewest_tokens("qwrtzq") <= 6
        assert model.fewest_tokens("\0\u20ac\U0001f600") > 0
        assert home_grammar.choices(model, "turn on the") > home_grammar.choices(model, "turn on the des") > 0
        assert home_grammar.choices(model, "xyz") == 0

    def test_closed(self, make_grammar: MakeGrammar, model: Model, model_path: Path) -> None:
        """Everything says so."""
        grammar, closed_model = (
            make_grammar("language: en\nintents: {A: {data: [{sentences: [a]}]}}\n"),
            Model(model_path),
        )
        closed_model.close()
        with pytest.raises(EngineClosedError):
            grammar.choices(closed_model, "")
        with pytest.raises(EngineClosedError):
            closed_model.fewest_tokens("a")
        grammar.close()
        for use in (
            lambda: grammar.sentences(10),
            lambda: grammar.ahead(""),
            lambda: grammar.choices(model, ""),
        ):
            with pytest.raises(EngineClosedError):
                use()


class TestLog:
    """What whisper.cpp says goes to Python's log and nowhere else."""

    def test_lines_are_forwarded(self, caplog: pytest.LogCaptureFixture, model_path: Path) -> None:
        """Loading a model is described in whole lines at debug level."""
        with caplog.at_level(logging.DEBUG, "edgevoice.native"):
            Model(model_path).close()
        lines = [record for record in caplog.records if record.name == "edgevoice.native"]
        assert any("n_vocab" in record.message for record in lines)
        assert not any("\n" in record.message for record in lines)
        assert {record.levelno for record in lines} == {logging.DEBUG}

    @pytest.mark.parametrize(
        "code",
        [
            "from edgevoice.native import language_id; language_id('xx')",
            "from edgevoice.native import Model; import pathlib, sys; Model(pathlib.Path(sys.argv[1]))",
        ],
        ids=["language", "model"],
    )
    def test_nothing_is_printed(self, model_path: Path, child_environment: dict[str, str], code: str) -> None:
        """Neither a failure nor a success writes to the terminal on its own account."""
        quiet = (
            "from contextlib import suppress\nfrom edgevoice.errors import UsageError\n"
            f"with suppress(UsageError):\n    {code}\n"
        )
        child = subprocess.run(
            [sys.executable, "-c", quiet, model_path], capture_output=True, env=child_environment, check=True
        )
        assert (child.stdout, child.stderr) == (b"", b"")


class TestVoiceDetector:
    """Silero, window by window."""

    @pytest.fixture
    def detector(self) -> Iterator[VoiceDetector]:
        """A detector that has heard nothing."""
        with VoiceDetector(models.vad_model()) as opened:
            yield opened

    def windows(self, samples: Samples) -> list[Samples]:
        """The samples in pieces of 512, without the rest."""
        return [samples[i : i + 512] for i in range(0, len(samples) - 511, 512)]

    def test_speech_and_silence(self, detector: VoiceDetector, speech: Samples) -> None:
        """Words are heard, a quiet room is not."""
        assert max(detector.process(window) for window in self.windows(speech)) > 0.9
        detector.reset()
        assert max(detector.process(window) for window in self.windows(noise(RATE_HZ, 1e-4))) < 0.2

    def test_reset_forgets(self, detector: VoiceDetector, speech: Samples) -> None:
        """After a reset the same stream has the same probabilities."""
        first = [detector.process(window) for window in self.windows(speech)]
        detector.reset()
        assert [detector.process(window) for window in self.windows(speech)] == first

    @pytest.mark.parametrize("n_samples", [0, 1, 511, 513, 16000])
    def test_other_windows_are_refused(self, detector: VoiceDetector, n_samples: int) -> None:
        """A window has 512 samples."""
        with pytest.raises(AudioFormatError, match="512"):
            detector.process(np.zeros(n_samples, np.float32))

    def test_not_finite_is_refused(self, detector: VoiceDetector) -> None:
        """NaN would stay in its memory for ever."""
        with pytest.raises(AudioFormatError, match="finite"):
            detector.process(np.full(512, np.nan, np.float32))

    def test_loud_noise_does_not_deafen_it(self, detector: VoiceDetector, speech: Samples) -> None:
        """After samples far beyond full scale it hears speech again."""
        for window in self.windows(noise(RATE_HZ, 1e4)):
            assert 0 <= detector.process(window) <= 1
        assert max(detector.process(window) for window in self.windows(speech)) > 0.5

    def test_closed(self, detector: VoiceDetector) -> None:
        """Use after close is an error."""
        detector.close()
        with pytest.raises(EngineClosedError):
            detector.process(np.zeros(512, np.float32))
        with pytest.raises(EngineClosedError):
            detector.reset()

    @pytest.mark.parametrize("content", [b"", b"lmgg" * 100, None], ids=["empty", "rubbish", "speech model"])
    def test_rubbish_is_no_detector(
        self, tmp_path: Path, model_path: Path, child_environment: dict[str, str], content: bytes | None
    ) -> None:
        """Neither a small file nor a speech model is taken for one, and the process lives."""
        path = tmp_path / "vad.bin"
        path.write_bytes(model_path.read_bytes()[:100_000] if content is None else content)
        child = subprocess.run(
            [sys.executable, "-c", DETECT_IN_CHILD, path],
            capture_output=True,
            env=child_environment,
            timeout=20,
            check=False,
        )
        assert child.returncode == 0, child.stderr.decode()[-300:]
        assert child.stdout == b"ModelCorruptError\n"
