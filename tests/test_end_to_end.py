"""The command as users run it: recordings or raw audio in, results on a real broker or a clear error out."""

from __future__ import annotations

import json
import os
import shutil
import time
import wave
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgevoice.testing import Broker, Message, Subscriber
from tests import schemas
from tests.conftest import running

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from edgevoice.events import Samples
    from tests.conftest import Edgevoice, Sample

RATE_HZ = 16_000
RESULT_FIELDS = {
    "utterance_id", "site", "time", "text", "intent", "slots", "slots_raw", "confidence", "accepted",
    "reason", "heard", "confirm", "follows", "alternatives", "start_s", "end_s", "latency_ms",
    "timings_ms",
}  # fmt: skip
STAGES = {"vad", "mel", "encode", "search", "match", "explain", "total"}


@dataclass(frozen=True, slots=True)
class Run:
    """A finished command and what it published."""

    done: subprocess.CompletedProcess[bytes]
    messages: tuple[Message, ...]

    @property
    def results(self) -> list[Message]:
        """Accepted and refused, in order."""
        return [m for m in self.messages if "/intent/" in m.topic or m.topic.endswith("/rejected")]

    def on(self, level: str) -> list[Message]:
        """Messages on one topic of the site."""
        return [m for m in self.messages if m.topic == f"edgevoice/flat/{level}"]


def pcm(samples: Samples) -> bytes:
    """Raw signed 16-bit little-endian."""
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def write_wav(path: Path, samples: Samples) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(pcm(samples))
    return path


def room(duration_s: float) -> Samples:
    chance = np.random.default_rng(3)
    return (chance.standard_normal(round(duration_s * RATE_HZ)) * 1e-4).astype(np.float32)


def write_config(folder: Path, port: int, site: str = "flat", more: str = "") -> Path:
    path = folder / "edgevoice.yaml"
    path.write_text(f"site: {site}\nmqtt: {{host: 127.0.0.1, port: {port}, connect_timeout_s: 3}}\n{more}")
    return path


def one_sentence(done: subprocess.CompletedProcess[bytes]) -> str:
    """The line that says what went wrong; there is exactly one and no traceback."""
    text = done.stderr.decode()
    assert "Traceback" not in text
    lines = [
        line for line in text.splitlines() if line.startswith("edgevoice: ") and "no broker conf" not in line
    ]
    assert len(lines) == 1, text
    assert len(lines[0]) < 600
    return lines[0]


def json_lines(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def check_answer(fields: dict[str, Any], sample: Sample) -> None:
    seen = {name: fields[name] for name in ("text", "intent", "slots", "confidence", "reason")}
    assert fields["accepted"] == sample.accepted, (sample.path.name, seen)
    if sample.accepted:
        assert (fields["intent"], fields["slots"]) == (sample.intent, sample.slots), sample.path.name
        assert fields["reason"] is None
    else:
        assert fields["reason"] in sample.reasons, (sample.path.name, seen)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


@pytest.fixture(scope="module")
def run(
    edgevoice: Edgevoice,
    broker: Broker,
    samples: tuple[Sample, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """The finished command and every message it published."""
    path = write_config(tmp_path_factory.mktemp("run"), broker.port)
    with Subscriber(broker.port, "edgevoice/#") as subscriber:
        done = edgevoice("run", "--config", path, "--input", *(sample.path for sample in samples))
        subscriber.wait_for(lambda m: m.payload == b"offline")
        return Run(done, tuple(subscriber.messages))


class TestRunToBroker:
    """`edgevoice run --input` with every sample recording, to a real broker."""

    def test_ends_well(self, run: Run) -> None:
        """Exit code 0 and nothing to complain about."""
        assert run.done.returncode == 0
        assert [line for line in run.done.stderr.decode().splitlines() if not line.startswith("INFO ")] == []

    def test_results(self, run: Run, samples: tuple[Sample, ...]) -> None:
        """One result for each recording, on the topic of its intent or on `rejected`."""
        assert len(run.results) == len(samples)
        for message, sample in zip(run.results, samples, strict=True):
            check_answer(message.json(), sample)
            level = f"intent/{sample.intent}" if sample.accepted else "rejected"
            assert message.topic == f"edgevoice/flat/{level}"
            assert not message.retain
            assert message.expiry_s is not None
            assert message.expiry_s <= 5

    def test_fields(self, run: Run) -> None:
        """Every result has every documented field, of the documented kind."""
        for message in run.results:
            fields = message.json()
            assert set(fields) == RESULT_FIELDS
            assert set(fields["timings_ms"]) == STAGES
            assert fields["timings_ms"]["total"] > 0 or fields["reason"] == "no_speech"
            assert fields["site"] == "flat"
            assert 0 <= fields["confidence"] <= 1
            assert 0 <= fields["start_s"] <= fields["end_s"]
            assert set(fields["slots_raw"]) <= set(fields["slots"])
            for other in fields["alternatives"]:
                assert set(other) == {"text", "intent", "slots", "score"}
        ids = [message.json()["utterance_id"] for message in run.results]
        assert len(set(ids)) == len(ids)

    def test_states(self, run: Run) -> None:
        """States are retained, follow each other in order, and presence begins and ends truly."""
        states = [message.payload.decode() for message in run.on("state")]
        assert set(states) == {"listening", "speech", "recognising"}
        before = [states[i - 1] for i, state in enumerate(states) if state == "recognising"]
        assert set(before) == {"speech"}
        assert [message.payload for message in run.on("availability")] == [b"online", b"offline"]
        assert all(message.retain for message in run.on("state") + run.on("availability"))

    def test_only_documented_topics(self, run: Run) -> None:
        """Nothing else is published."""
        levels = {message.topic.removeprefix("edgevoice/flat/").split("/")[0] for message in run.messages}
        assert levels == {"intent", "rejected", "state", "settings", "grammar", "health", "availability"}

    def test_schemas(self, run: Run) -> None:
        """Every message is as the schema of its topic in the documents says."""
        for message in run.messages:
            schemas.check(message)

    def test_late_subscriber(self, run: Run, broker: Broker) -> None:
        """Who comes later sees presence, state, settings, health and grammar, but no command of the past."""
        assert run.done.returncode == 0
        with Subscriber(broker.port, "edgevoice/flat/#") as subscriber:
            subscriber.wait_for(5)
            time.sleep(0.2)
            late = {message.topic.rsplit("/", 1)[1]: message.payload for message in subscriber.messages}
        assert set(late) == {"state", "settings", "grammar", "health", "availability"}
        assert late["availability"] == b"offline"

    def test_printed_lines(self, run: Run, samples: tuple[Sample, ...]) -> None:
        """One line for each result, for people."""
        lines = run.done.stdout.decode().splitlines()
        assert len(lines) == len(samples)
        for line, sample in zip(lines, samples, strict=True):
            assert (f"-> {sample.intent}" if sample.accepted else "refused (") in line


class TestBroker:
    """Brokers that are not as they should be."""

    def test_absent(self, edgevoice: Edgevoice, tmp_path: Path, samples: tuple[Sample, ...]) -> None:
        """What is heard is printed; at the end exit code 5 and one sentence with the address, and soon."""
        with Broker() as gone:
            port = gone.port
        started_s = time.monotonic()
        done = edgevoice("run", "--config", write_config(tmp_path, port), "--input", samples[0].path)
        assert done.returncode == 5
        assert f"127.0.0.1:{port}" in one_sentence(done)
        assert time.monotonic() - started_s < 15
        assert len(done.stdout.splitlines()) == 1

    def test_absent_at_the_start(
        self, child_environment: dict[str, str], tmp_path: Path, speech: Samples
    ) -> None:
        """Commands are recognised while there is no broker yet, and published when there is."""
        broker = Broker()
        config = write_config(tmp_path, broker.port)
        with running(child_environment, "run", "--config", config, "--input", "-") as run:
            assert run.stdin is not None
            assert run.stdout is not None
            audio = pcm(np.concatenate([speech, room(0.5)]))
            run.stdin.write(audio)
            run.stdin.flush()
            assert b"HassTurnOn" in run.stdout.readline()
            with broker, Subscriber(broker.port, "edgevoice/flat/#") as subscriber:
                subscriber.wait_for(lambda m: m.payload == b"online", timeout_s=20)
                run.stdin.write(audio)
                run.stdin.flush()
                assert b"HassTurnOn" in run.stdout.readline()
                subscriber.wait_for(lambda m: "/intent/" in m.topic)
                run.stdin.close()
                assert run.wait(20) == 0

    @pytest.mark.parametrize("login", ["", ", username: u"])
    def test_refusing(
        self, edgevoice: Edgevoice, tmp_path: Path, samples: tuple[Sample, ...], login: str
    ) -> None:
        """No login or a wrong one: exit code 5 and what to check, never the password."""
        with Broker(accounts={"u": "right"}) as strict:
            path = tmp_path / "edgevoice.yaml"
            path.write_text(f"mqtt: {{host: 127.0.0.1, port: {strict.port}, connect_timeout_s: 3{login}}}\n")
            password = {"EDGEVOICE_MQTT_PASSWORD": "wr0ng-s3cret"} if login else {}
            done = edgevoice("run", "--config", path, "--input", samples[0].path, environment=password)
        assert done.returncode == 5
        assert one_sentence(done)
        assert b"wr0ng-s3cret" not in done.stdout + done.stderr

    def test_dropping_in_the_middle(
        self, child_environment: dict[str, str], tmp_path: Path, speech: Samples
    ) -> None:
        """Commands go on being recognised while the broker is away, and reach it when it is back."""
        audio = pcm(np.concatenate([speech, room(0.5)]))
        with (
            Broker() as broker,
            running(
                child_environment, "run", "--config", write_config(tmp_path, broker.port), "--input", "-"
            ) as run,
        ):
            assert run.stdin is not None
            assert run.stdout is not None

            def say() -> None:
                assert run.stdin is not None
                assert run.stdout is not None
                run.stdin.write(audio)
                run.stdin.flush()
                assert b"HassTurnOn" in run.stdout.readline()

            with Subscriber(broker.port, "edgevoice/flat/intent/#") as subscriber:
                say()
                subscriber.wait_for(1)
            broker.kill()
            say()
            broker.start()
            with Subscriber(broker.port, "edgevoice/flat/#") as subscriber:
                subscriber.wait_for(lambda m: m.payload == b"online", timeout_s=20)
                say()
                subscriber.wait_for(lambda m: "/intent/" in m.topic)
                run.stdin.close()
                assert run.wait(20) == 0
                subscriber.wait_for(lambda m: m.payload == b"offline")
            assert run.stderr is not None
            assert b"Traceback" not in run.stderr.read()


def test_push_to_talk(child_environment: dict[str, str], tmp_path: Path, speech: Samples) -> None:
    """What is said is nobody's business until somebody pushes, and a sound of our own is not heard at all."""
    # Said at 1 s, played by us at 5 s, and said at 9 s.
    pieces = [piece for _ in range(3) for piece in (room(1), speech, room(3 - len(speech) / RATE_HZ))]
    recording = write_wav(tmp_path / "day.wav", np.concatenate(pieces))
    with (
        Broker() as broker,
        Subscriber(broker.port, "edgevoice/flat/#") as subscriber,
        running(
            child_environment,
            "run",
            *("--input", recording, "--real-time"),
            *("--config", write_config(tmp_path, broker.port, more="wake: {mode: push_to_talk}\n")),
        ) as run,
    ):
        subscriber.wait_for(lambda m: m.payload == b"listening", timeout_s=30)
        started_s = time.monotonic()

        def tell(at_s: float, name: str, payload: str) -> None:
            time.sleep(max(0.0, started_s + at_s - time.monotonic()))
            subscriber.publish(f"edgevoice/flat/set/{name}", payload)

        tell(4.0, "playing", "3.5")
        tell(4.1, "listen", "30")
        assert run.wait(40) == 0
        subscriber.wait_for(lambda m: m.payload == b"offline")
    results = [m.json() for m in subscriber.messages if "/intent/" in m.topic or "/rejected" in m.topic]
    assert [(fields["intent"], int(fields["start_s"])) for fields in results] == [("HassTurnOn", 9)]
    states = [m.payload.decode() for m in subscriber.messages if m.topic.endswith("/state")]
    assert states.count("speech") == 1


class TestRawAudio:
    """Samples without a header on standard input."""

    @pytest.mark.parametrize("command", [["run", "--input", "-"], ["recognize", "-"]], ids=lambda c: c[0])
    def test_stdin(self, edgevoice: Edgevoice, speech: Samples, command: list[str]) -> None:
        """They are recognised as a file would be."""
        done = edgevoice(*command, stdin=pcm(speech))
        assert done.returncode == 0
        assert b"HassTurnOn name=desk lamp" in done.stdout

    def test_other_rate(self, edgevoice: Edgevoice, speech: Samples) -> None:
        """With --rate they are converted."""
        slow = np.repeat(speech, 3)  # 48 kHz, roughly
        done = edgevoice("recognize", "-", "--rate", "48000", "--json", stdin=pcm(slow))
        (fields,) = json_lines(done)
        assert (fields["intent"], fields["file"]) == ("HassTurnOn", "-")

    def test_nothing(self, edgevoice: Edgevoice) -> None:
        """An empty stream has no speech."""
        (fields,) = json_lines(edgevoice("recognize", "-", "--json"))
        assert fields["reason"] == "no_speech"

    def test_odd_number_of_bytes(self, edgevoice: Edgevoice, speech: Samples) -> None:
        """Half a sample at the end does no harm."""
        done = edgevoice("recognize", "-", "--json", stdin=pcm(speech) + b"\1")
        assert done.returncode == 0
        assert json_lines(done)[0]["intent"] == "HassTurnOn"

    def test_wave_file_is_not_raw(self, edgevoice: Edgevoice, speech: Samples, tmp_path: Path) -> None:
        """A header among the samples is noticed."""
        done = edgevoice("recognize", "-", stdin=write_wav(tmp_path / "a.wav", speech).read_bytes())
        assert done.returncode == 4
        assert one_sentence(done)


class TestRecognize:
    """`edgevoice recognize`."""

    def test_json_lines(self, edgevoice: Edgevoice, samples: tuple[Sample, ...]) -> None:
        """Every recording is a line with every documented field and the answer of its manifest."""
        done = edgevoice("recognize", "--json", *(sample.path for sample in samples))
        assert (done.returncode, done.stderr) == (0, b"")
        lines = json_lines(done)
        assert len(lines) == len(samples)
        for fields, sample in zip(lines, samples, strict=True):
            assert set(fields) == RESULT_FIELDS | {"file"}
            assert set(fields["timings_ms"]) == STAGES
            assert fields["file"] == str(sample.path)
            check_answer(fields, sample)

    def test_file_without_speech_is_one_line(self, edgevoice: Edgevoice, tmp_path: Path) -> None:
        """It says no_speech, and covers the whole file."""
        path = write_wav(tmp_path / "quiet.wav", room(3))
        (fields,) = json_lines(edgevoice("recognize", "--json", path))
        assert (fields["accepted"], fields["reason"], fields["intent"]) == (False, "no_speech", None)
        assert fields["end_s"] == pytest.approx(3, abs=0.04)

    def test_one_bad_file_does_not_stop_the_others(
        self, edgevoice: Edgevoice, tmp_path: Path, samples: tuple[Sample, ...]
    ) -> None:
        """Good ones are recognised; the exit code is that of the bad one."""
        done = edgevoice("recognize", "--json", samples[0].path, tmp_path / "absent.wav", samples[1].path)
        assert done.returncode == 4
        assert "absent.wav" in one_sentence(done)
        assert [fields["intent"] for fields in json_lines(done)] == [samples[0].intent, samples[1].intent]

    def test_file_name_of_any_bytes(
        self, edgevoice: Edgevoice, tmp_path: Path, samples: tuple[Sample, ...]
    ) -> None:
        """A name that is no UTF-8 does not stop the command."""
        path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xe9 \xf0\x9f\x8e\x89.flac")
        shutil.copy(samples[0].path, path)
        for form in ([], ["--json"]):
            done = edgevoice("recognize", *form, path)
            assert (done.returncode, done.stderr) == (0, b"")
            assert b"HassTurnOn" in done.stdout

    def test_ten_minutes(self, edgevoice: Edgevoice, tmp_path: Path, samples: tuple[Sample, ...]) -> None:
        """A long recording, mostly quiet: each command is found where it was said, and nothing else."""
        chosen = [sample for sample in samples if sample.accepted][:6]
        long = room(600)
        for i, sample in enumerate(chosen):
            said = sample.read()
            at = round((20 + 100 * i) * RATE_HZ)
            long[at : at + len(said)] = said
        path = write_wav(tmp_path / "long.wav", long)
        done = edgevoice("recognize", "--json", path)
        assert done.returncode == 0
        lines = json_lines(done)
        assert [fields["intent"] for fields in lines] == [sample.intent for sample in chosen]
        for i, fields in enumerate(lines):
            assert 20 + 100 * i <= fields["start_s"] < fields["end_s"] < 25 + 100 * i

    def test_grammar_and_model_of_the_command_line(
        self, edgevoice: Edgevoice, tmp_path: Path, model_path: Path, samples: tuple[Sample, ...]
    ) -> None:
        """--grammar and --model go before the configuration; a model may be a path."""
        grammar = tmp_path / "grammar.yaml"
        grammar.write_text(
            "language: en\nintents: {Lamp: {data: [{sentences: ['turn on the desk lamp']}]}}\n"
        )
        done = edgevoice("recognize", "--json", "--grammar", grammar, "--model", model_path, samples[0].path)
        assert json_lines(done)[0]["intent"] == "Lamp"


class TestFailures:
    """Whatever is wrong: one clear sentence, the documented exit code, no traceback."""

    @pytest.fixture(params=["run", "recognize"])
    def command(self, request: pytest.FixtureRequest) -> list[str]:
        """Both commands that take recordings."""
        return {"run": ["run", "--input"], "recognize": ["recognize"]}[request.param]

    def test_text_named_wav(self, edgevoice: Edgevoice, tmp_path: Path, command: list[str]) -> None:
        """A name does not make audio."""
        path = tmp_path / "text.wav"
        path.write_text("this is no audio\n" * 100)
        done = edgevoice(*command, path)
        assert done.returncode == 4
        assert "text.wav" in one_sentence(done)

    def test_empty_file(self, edgevoice: Edgevoice, tmp_path: Path, command: list[str]) -> None:
        """Neither does an empty file."""
        path = tmp_path / "empty.wav"
        path.touch()
        done = edgevoice(*command, path)
        assert done.returncode == 4
        assert "empty.wav" in one_sentence(done)

    def test_truncated_file(
        self, edgevoice: Edgevoice, tmp_path: Path, command: list[str], speech: Samples
    ) -> None:
        """A file cut off is told from a whole one."""
        path = write_wav(tmp_path / "cut.wav", speech)
        path.write_bytes(path.read_bytes()[:20_000])
        done = edgevoice(*command, path)
        assert done.returncode == 4
        assert "cut.wav" in one_sentence(done)

    def test_missing_file(self, edgevoice: Edgevoice, tmp_path: Path, command: list[str]) -> None:
        """A file that is not there is told by name."""
        done = edgevoice(*command, tmp_path / "absent.wav")
        assert done.returncode == 4
        assert "absent.wav" in one_sentence(done)

    def test_missing_model(
        self, edgevoice: Edgevoice, tmp_path: Path, command: list[str], samples: tuple[Sample, ...]
    ) -> None:
        """The sentence says how to get it."""
        done = edgevoice(*command, samples[0].path, environment={"EDGEVOICE_MODELS": str(tmp_path)})
        assert done.returncode == 3
        assert "edgevoice models pull tiny.en" in one_sentence(done)

    @pytest.mark.parametrize("size_bytes", [0, 8, 1000, 40_000_000])
    def test_corrupt_model(
        self,
        edgevoice: Edgevoice,
        tmp_path: Path,
        model_path: Path,
        samples: tuple[Sample, ...],
        size_bytes: int,
    ) -> None:
        """A download that was cut off is noticed, whether found by name or by path."""
        path = tmp_path / "ggml-tiny.en.bin"
        path.write_bytes(model_path.read_bytes()[:size_bytes])
        here = {"EDGEVOICE_MODELS": str(tmp_path)}
        for model in ("tiny.en", str(path)):
            done = edgevoice("recognize", "--model", model, samples[0].path, environment=here)
            assert done.returncode == 3
            assert one_sentence(done)

    @pytest.mark.parametrize("text", ["vad: 5\n", "\0", "mqtt: [\n", "site: 'a/b'\n"])
    def test_bad_configuration(
        self, edgevoice: Edgevoice, tmp_path: Path, command: list[str], samples: tuple[Sample, ...], text: str
    ) -> None:
        """It names the file."""
        path = tmp_path / "edgevoice.yaml"
        path.write_text(text)
        done = edgevoice(*command, samples[0].path, "--config", path)
        assert done.returncode == 2
        assert "edgevoice.yaml" in one_sentence(done)

    @pytest.mark.parametrize(
        "text", ["", "language: en\n", "language: en\nintents: {A: {data: [{sentences: ['turn (on']}]}}\n"]
    )
    def test_bad_grammar(
        self, edgevoice: Edgevoice, tmp_path: Path, command: list[str], samples: tuple[Sample, ...], text: str
    ) -> None:
        """It names file and line."""
        path = tmp_path / "grammar.yaml"
        path.write_text(text)
        done = edgevoice(*command, samples[0].path, "--grammar", path)
        assert done.returncode == 2
        assert "grammar.yaml:" in one_sentence(done)
