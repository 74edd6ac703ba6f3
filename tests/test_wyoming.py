"""Home Assistant and satellites ask over the Wyoming protocol, and no client can do harm."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
import soxr
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient, AsyncTcpClient
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.intent import Recognize
from wyoming.ping import Ping
from wyoming.wake import Detect

from edgevoice import announce, watchdog, wyoming_server, wyoming_wake
from edgevoice.audio import read_audio
from edgevoice.capture import FileSource
from edgevoice.config import Config, RecordsConfig, WakeConfig, WyomingConfig
from edgevoice.errors import NetworkError
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.recognise import Recogniser
from edgevoice.reload import Reloader
from edgevoice.replay import replay
from edgevoice.wyoming_events import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES
from edgevoice.wyoming_server import MAX_CONNECTIONS, MAX_TEXT, MAX_WATCHES, WyomingServer
from tests.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

    from edgevoice.events import Samples, Utterance
    from edgevoice.native import Model
    from edgevoice.pipeline import Pipeline
    from edgevoice.recorder import Recorder
    from edgevoice.records import Record
    from tests.conftest import Sample

LONG_S = 20.0  # for a busy machine
DATA = os.environ.get("EDGEVOICE_EVAL_DATA")


@dataclass(frozen=True, slots=True)
class Sound:
    """Samples as a client sends them."""

    data: bytes
    rate: int = SAMPLE_RATE_HZ
    width: int = 2
    channels: int = 1

    @property
    def format(self) -> dict[str, int]:
        """For the library's events."""
        return {"rate": self.rate, "width": self.width, "channels": self.channels}

    @property
    def second_bytes(self) -> int:
        """Of one second."""
        return self.rate * self.width * self.channels


def pcm(samples: Samples) -> Sound:
    return Sound((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def as_format(samples: Samples, rate: int, width: int, channels: int) -> Sound:
    """The same sound in another format."""
    mono = samples if rate == SAMPLE_RATE_HZ else soxr.resample(samples, SAMPLE_RATE_HZ, rate)
    whole = np.round(np.clip(mono, -1, 1).astype(np.float64) * (2 ** (8 * width - 1) - 1)).astype("<i4")
    rows = np.repeat(whole[:, None], channels, axis=1).copy()
    data = rows.view(np.uint8).reshape(-1, 4)[:, :width].tobytes()
    return Sound(data, rate, width, channels)


@contextmanager
def serving(config: Config, model: Model, **wyoming: Any) -> Iterator[WyomingServer]:
    listening = WyomingConfig(**{"listen": "tcp://127.0.0.1:0", **wyoming})
    config = dataclasses.replace(config, wyoming=listening)
    recogniser = Recogniser(config, model=model)
    try:
        server = WyomingServer(config, recogniser)
        try:
            yield server
        finally:
            started_s = time.monotonic()
            server.close()
            assert time.monotonic() - started_s < 1
    finally:
        recogniser.close()


@pytest.fixture(scope="module")
def server(model: Model) -> Iterator[WyomingServer]:
    with serving(Config(), model) as opened:
        yield opened


def port_of(server: WyomingServer) -> int:
    assert server.port is not None
    return server.port


@asynccontextmanager
async def client(server: WyomingServer) -> AsyncIterator[AsyncTcpClient]:
    async with AsyncTcpClient("127.0.0.1", port_of(server), read_timeout=LONG_S) as opened:
        yield opened


def run(test: Coroutine[None, None, None], limit_s: float = 60.0) -> None:
    async def limited() -> None:
        async with asyncio.timeout(limit_s):
            await test

    asyncio.run(limited())


async def read(caller: AsyncClient) -> Event:
    event = await caller.read_event()
    assert event is not None, "the connection has ended"
    return event


async def ask(caller: AsyncClient, event: Event) -> Event:
    await caller.write_event(event)
    return await read(caller)


async def send(caller: AsyncClient, sound: Sound, chunk_bytes: int = 2048, *, pace: float = 0.0) -> None:
    """Send sound as Home Assistant does; pace 1 is real time, 0 as fast as it is taken."""
    await caller.write_event(Transcribe(language="en").event())
    await caller.write_event(AudioStart(**sound.format).event())
    started_s = time.monotonic()
    for first in range(0, len(sound.data), chunk_bytes):
        await caller.write_event(
            AudioChunk(audio=sound.data[first : first + chunk_bytes], **sound.format).event()
        )
        due_s = started_s + pace * (first + chunk_bytes) / sound.second_bytes
        if pace:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))


async def transcribe(server: WyomingServer, sound: Sound, chunk_bytes: int = 2048) -> str:
    async with client(server) as caller:
        await send(caller, sound, chunk_bytes)
        event = await ask(caller, AudioStop().event())
        assert event.type == "transcript", event
        assert event.data["language"] == "en"
        return str(event.data["text"])


def words(text: str) -> str:
    return text.lower().rstrip(".?!")


def meaning(event: Event) -> tuple[str, dict[str, Any]]:
    assert event.type == "intent", event
    return event.data["name"], {each["name"]: each["value"] for each in event.data.get("entities", [])}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


class TestTranscripts:
    """Sound in, a sentence of the grammar out, or nothing."""

    def test_every_sample(self, server: WyomingServer, samples: tuple[Sample, ...]) -> None:
        """What was said and the intent that the same server finds in it are right; the rest is empty."""

        async def test() -> None:
            for sample in samples:
                text = await transcribe(server, pcm(sample.read()))
                assert bool(text) == sample.accepted, (sample.path.name, text)
                if text:
                    async with client(server) as caller:
                        seen = meaning(await ask(caller, Recognize(text).event()))
                    assert seen == (sample.intent, sample.slots), sample.path.name

        run(test())

    @pytest.mark.parametrize(
        ("rate", "width", "channels"),
        [(8_000, 2, 1), (44_100, 2, 2), (48_000, 4, 2), (22_050, 3, 1), (16_000, 2, 8), (96_000, 3, 2)],
    )
    def test_formats(
        self, server: WyomingServer, speech: Samples, rate: int, width: int, channels: int
    ) -> None:
        """Any rate, width and number of channels; chunks may cut samples in two."""
        sound = as_format(speech, rate, width, channels)
        seen: list[str] = []

        async def test() -> None:
            seen.append(await transcribe(server, sound, 4097))

        run(test())
        assert words(seen[0]) == "turn on the desk lamp"

    def test_one_chunk(self, server: WyomingServer, speech: Samples) -> None:
        """A whole command may come as one chunk, and without anything that announces it."""

        async def test() -> None:
            sound = pcm(speech)
            async with client(server) as caller:
                await caller.write_event(AudioChunk(audio=sound.data, **sound.format).event())
                event = await ask(caller, AudioStop().event())
            assert words(event.data["text"]) == "turn on the desk lamp"

        run(test())

    def test_nothing_sent(self, server: WyomingServer) -> None:
        """No sound, no text."""

        async def test() -> None:
            assert await transcribe(server, Sound(b"")) == ""
            assert await transcribe(server, Sound(b"\0\0")) == ""

        run(test())

    def test_several_in_one_connection(self, server: WyomingServer, speech: Samples) -> None:
        """One command after the other, also before the first answer was read; context comes back."""

        async def test() -> None:
            sound = pcm(speech)
            async with client(server) as caller:
                for number in range(2):
                    await caller.write_event(Transcribe(context={"n": number}).event())
                    await caller.write_event(AudioStart(**sound.format).event())
                    await caller.write_event(AudioChunk(audio=sound.data, **sound.format).event())
                    await caller.write_event(AudioStop().event())
                for number in range(2):
                    event = await read(caller)
                    assert words(event.data["text"]) == "turn on the desk lamp"
                    assert event.data["context"] == {"n": number}

        run(test())

    def test_click_before_the_command(self, server: WyomingServer, speech: Samples) -> None:
        """What is refused does not spoil what is accepted in the same stream; two commands are both told."""
        pause = np.zeros(round(1.5 * SAMPLE_RATE_HZ), np.float32)
        chance = np.random.default_rng(5)
        noise = (chance.standard_normal(SAMPLE_RATE_HZ // 2) * 0.1).astype(np.float32)

        async def test() -> None:
            text = await transcribe(server, pcm(np.concatenate([noise, pause, speech])))
            assert words(text) == "turn on the desk lamp"
            text = await transcribe(server, pcm(np.concatenate([speech, pause, speech])))
            assert words(text) == "turn on the desk lamp. turn on the desk lamp"

        run(test())

    def test_answer_is_ready_at_the_end(self, server: WyomingServer, speech: Samples) -> None:
        """Sent in real time with the silence that ends a command, it is recognised before audio-stop."""
        sound = pcm(np.concatenate([speech, np.zeros(round(0.7 * SAMPLE_RATE_HZ), np.float32)]))
        waits_ms: list[float] = []

        async def test() -> None:
            for _ in range(3):
                async with client(server) as caller:
                    await send(caller, sound, pace=1.0)
                    started_s = time.monotonic()
                    event = await ask(caller, AudioStop().event())
                    waits_ms.append((time.monotonic() - started_s) * 1000)
                    assert words(event.data["text"]) == "turn on the desk lamp"

        run(test())
        assert statistics.median(waits_ms) < 100, waits_ms  # recognition itself takes 200 and more

    def test_heard(self, model: Model, samples: tuple[Sample, ...]) -> None:
        """When asked for, what Whisper hears is told of what is no sentence; noise and silence stay empty."""

        async def test(server: WyomingServer) -> None:
            texts = {
                sample.path.stem: await transcribe(server, pcm(sample.read()))
                for sample in samples
                if not sample.accepted
            }
            assert "washing machine" in texts["refused-washing-machine"].lower()
            assert "weather" in texts["refused-weather-talk"].lower()
            assert texts["refused-silence-and-hum"] == ""

        with serving(Config(), model, refused="heard") as server:
            run(test(server))

    def test_free(self, model: Model, samples: tuple[Sample, ...]) -> None:
        """In the mode free, what Whisper writes is the transcript, of the grammar or not."""
        config = Config()
        config = dataclasses.replace(config, recognition=dataclasses.replace(config.recognition, mode="free"))

        async def test(server: WyomingServer) -> None:
            texts = {
                sample.path.stem: words(await transcribe(server, pcm(sample.read())))
                for sample in samples
                if sample.path.stem in ("refused-weather-talk", "mute-tv")
            }
            assert texts["refused-weather-talk"].endswith("think the weather might change tomorrow")
            assert texts["mute-tv"] == "mute the tv"

        with serving(config, model) as server:
            run(test(server))

    @pytest.mark.skipif(DATA is None, reason="EDGEVOICE_EVAL_DATA names no recordings")
    def test_people(self, model: Model) -> None:
        """Orders of real people, with the grammar of the coffee shop."""
        folder = Path(DATA or "") / "coffee_commands"
        clips = sorted(folder.rglob("*.wav"))[:10] or sorted(folder.rglob("*.flac"))[:10]
        assert len(clips) == 10
        config = Config()
        grammar = dataclasses.replace(config.grammar, file=folder / "grammar.yaml")

        async def test(server: WyomingServer) -> None:
            empty = 0
            for clip in clips:
                samples, rate = soundfile.read(clip, dtype="int16", always_2d=True)
                text = await transcribe(server, Sound(samples.tobytes(), rate, 2, samples.shape[1]))
                empty += not text
            assert empty <= 1

        with serving(dataclasses.replace(config, grammar=grammar), model) as server:
            run(test(server))


class TestRecords:
    """What is heard here can be looked at, and run again, as what the microphone hears."""

    @pytest.fixture
    def kept(self, server: WyomingServer) -> Iterator[list[Record]]:
        """What is kept meanwhile."""
        found: list[Record] = []
        server._engine.keep = found.append
        yield found
        server._engine.keep = None

    def test_as_of_the_microphone(
        self, server: WyomingServer, kept: list[Record], pipeline: Pipeline, samples: tuple[Sample, ...]
    ) -> None:
        """Of all samples there is a record, with the same result when it is run again, to the last bit.

        The guess at a pause that became the answer is in it; a refusal says what Whisper hears.
        """
        wanted = [each for each in samples if each.path.stem != "refused-silence-and-hum"][:12]
        refused = next(each for each in samples if each.path.stem == "refused-washing-machine")

        async def test() -> None:
            for sample in (*wanted, refused):
                before = kept[:]
                await transcribe(server, pcm(sample.read()))
                await asyncio.to_thread(wait_until, lambda before=before: kept != before)  # type: ignore[misc]

        run(test())
        config = dataclasses.replace(Config(), records=RecordsConfig(keep=10))
        for record, sample in zip(kept, (*wanted, refused), strict=True):
            fields = json.loads(json.dumps(record.fields, allow_nan=False))
            assert fields["source"] == "wyoming"
            assert fields["result"]["intent"] == sample.intent or not sample.accepted
            assert len(fields["track"]["speech"]) > 10
            assert fields["recognitions"]
            assert record.samples is not None
            again = replay(record, pipeline.recogniser, config)
            assert again.same, (again.before, again.after)
            assert again.otherwise == ()
        assert "washing machine" in kept[-1].fields["result"]["heard"].lower()

    def test_several_at_once(
        self, server: WyomingServer, kept: list[Record], speech: Samples, samples: tuple[Sample, ...]
    ) -> None:
        """Each has its own, and a client that goes before its answer has none."""
        milk = next(sample for sample in samples if sample.path.stem == "add-oat-milk").read()

        async def go() -> None:
            async with client(server) as caller:
                await send(caller, pcm(speech))

        async def test() -> None:
            sounds = [pcm(speech), pcm(milk)] * 2
            await asyncio.gather(*(transcribe(server, sound) for sound in sounds), go())
            await asyncio.to_thread(wait_until, lambda: len(kept) >= 4)

        run(test())
        texts = sorted(str(record.fields["result"]["text"]) for record in kept)
        assert [words(text)[:4] for text in texts] == ["add ", "add ", "turn", "turn"]
        assert server._engine.records == 0

    def test_a_flood(self, server: WyomingServer, kept: list[Record], speech: Samples) -> None:
        """Nobody waits for a record, and only a few wait to be made."""
        much = pcm(np.concatenate([speech, np.zeros(round(1.3 * SAMPLE_RATE_HZ), np.float32)] * 10))
        most: list[int] = []

        async def test() -> None:
            others = [asyncio.create_task(transcribe(server, much, 100_000)) for _ in range(2)]
            while not all(other.done() for other in others):
                most.append(server._engine.records)
                await asyncio.sleep(0.005)

        run(test())
        assert max(most) <= 4
        wait_until(lambda: server._engine.records == 0)
        assert kept


class TestText:
    """Text in, its meaning out."""

    def test_intent(self, server: WyomingServer) -> None:
        """Intent, entities, and the context that was sent; as Home Assistant asks, too."""

        async def test() -> None:
            async with client(server) as caller:
                for kind in ("recognize", "transcript"):
                    data = {
                        "text": "set a pizza timer for twelve minutes",
                        "context": {"conversation_id": "7"},
                    }
                    event = await ask(caller, Event(kind, data))
                    assert meaning(event) == ("HassStartTimer", {"name": "pizza", "minutes": 12})
                    assert event.data["context"] == {"conversation_id": "7"}
                    assert "text" not in event.data  # it would be spoken

        run(test())

    @pytest.mark.parametrize("text", ["turn on the washing machine", "", " ", "\0", "x" * MAX_TEXT, "😀"])
    def test_not_recognized(self, server: WyomingServer, text: str) -> None:
        """What is no sentence is said to be none, in words that can be spoken."""

        async def test() -> None:
            async with client(server) as caller:
                event = await ask(caller, Recognize(text, {"a": 1}).event())
            assert event.type == "not-recognized"
            assert event.data["text"] == f"I do not know the command: {text}"
            assert event.data["context"] == {"a": 1}

        run(test())


def test_beside_a_microphone(pipeline: Pipeline, samples: tuple[Sample, ...]) -> None:
    """Both are answered at the same time, with one model; a new choice of intents counts for both."""
    config = dataclasses.replace(Config(), wyoming=WyomingConfig(listen="tcp://127.0.0.1:0"))
    sample = next(each for each in samples if each.path.stem == "turn-on-desk-lamp")
    intents: list[str | None] = []

    async def test(server: WyomingServer) -> None:
        async def hear() -> None:
            for _ in range(3):
                results = await asyncio.to_thread(lambda: list(pipeline.results(FileSource(sample.path))))
                intents.extend(result.intent for result in results)

        texts = await asyncio.gather(*(transcribe(server, pcm(sample.read())) for _ in range(3)), hear())
        assert {words(text) for text in texts if text is not None} == {"turn on the desk lamp"}

    own = Recogniser(config, model=pipeline.recogniser.model)
    with (
        closing(own),
        closing(WyomingServer(config, own)) as server,
        closing(Reloader(pipeline.recogniser, lambda _: None, own)) as reloader,
    ):
        run(test(server))
        reloader.set_intents(b'["HassNevermind"]')
        for each in (own, pipeline.recogniser):
            assert each.active.at(each.compiled.blocks, 0) == {"HassNevermind"}
        reloader.set_intents(b"")
    assert intents == ["HassTurnOn"] * 3
    assert not pipeline.recogniser.model.closed


def test_engine_that_fails(model: Model, speech: Samples) -> None:
    """Who waits is told, whatever becomes of the engine, and the server lives."""
    config = dataclasses.replace(Config(), wyoming=WyomingConfig(listen="tcp://127.0.0.1:0"))
    recogniser = Recogniser(config, model=model)

    async def test(server: WyomingServer) -> None:
        async with client(server) as caller:
            await send(caller, pcm(speech))
            await caller.write_event(AudioStop().event())
            for event in (await read(caller), await ask(caller, Recognize("next song").event())):
                assert (event.type, event.data["code"]) == ("error", "engine")
                assert "closed" in event.data["text"]
            assert (await ask(caller, Describe().event())).type == "info"

    with closing(WyomingServer(config, recogniser)) as server:
        recogniser.close()
        run(test(server))


class TestInfo:
    """What Home Assistant asks for when it is set up."""

    def test_fields(self, server: WyomingServer) -> None:
        """Speech to text and intents, installed, with a language; Home Assistant reads nothing else."""

        async def test() -> None:
            async with client(server) as caller:
                info = Info.from_event(await ask(caller, Describe().event()))
                pong = await ask(caller, Ping("still there?").event())
            assert [(each.name, each.installed) for each in (*info.asr, *info.intent)] == [
                ("edgevoice", True),
                ("edgevoice", True),
            ]
            assert info.asr[0].models[0].languages == info.intent[0].models[0].languages == ["en"]
            assert info.asr[0].models[0].installed
            assert info.intent[0].models[0].installed
            assert (info.tts, info.wake, info.handle, info.satellite) == ([], [], [], None)
            assert (pong.type, pong.data["text"]) == ("pong", "still there?")

        run(test())

    def test_soon_while_recognising(self, server: WyomingServer, speech: Samples) -> None:
        """Within a second, Home Assistant's limit, whoever else is being answered, also on one connection."""

        async def test() -> None:
            others = [asyncio.create_task(transcribe(server, pcm(speech), 65536)) for _ in range(6)]
            slowest_s = 0.0
            while not all(other.done() for other in others):
                started_s = time.monotonic()
                async with client(server) as caller:
                    assert (await ask(caller, Describe().event())).type == "info"
                slowest_s = max(slowest_s, time.monotonic() - started_s)
            assert {words(await other) for other in others} == {"turn on the desk lamp"}
            assert slowest_s < 1
            async with client(server) as caller:
                await send(caller, pcm(speech))
                await caller.write_event(AudioStop().event())
                assert (await ask(caller, Describe().event())).type == "info"  # and only then
                assert (await read(caller)).type == "transcript"

        run(test())


@pytest.fixture(scope="module")
def waking(model: Model) -> Iterator[WyomingServer]:
    """A server that listens for a wake word."""
    pytest.importorskip("pyopen_wakeword")
    with serving(Config(wake=WakeConfig(mode="model", model="alexa")), model) as opened:
        yield opened


class TestWake:
    """A wake word is listened for in the sound of a client."""

    async def detect(self, caller: AsyncClient, sound: Sound) -> None:
        """Send what a satellite sends."""
        await caller.write_event(Detect(["alexa"], {"room": 1}).event())
        await caller.write_event(AudioStart(**sound.format).event())
        for first in range(0, len(sound.data), 2048):
            await caller.write_event(
                AudioChunk(audio=sound.data[first : first + 2048], **sound.format).event()
            )

    @pytest.mark.skipif(DATA is None, reason="EDGEVOICE_EVAL_DATA names no recordings")
    def test_people(self, waking: WyomingServer, speech: Samples) -> None:
        """Each time it is said, with its place; then the command is understood on the same connection."""
        folder = Path(DATA or "") / "wakewords_en"
        rows = map(json.loads, (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
        said = [read_audio(folder / row["audio"]) for row in rows if row["keyword"] == "alexa"][:2]
        silence = np.zeros(2 * SAMPLE_RATE_HZ, np.float32)

        async def test() -> None:
            async with client(waking) as caller:
                await self.detect(caller, pcm(np.concatenate([silence, said[0], silence, said[1], silence])))
                events = [await read(caller), await read(caller)]
                assert [event.type for event in events] == ["detection"] * 2
                assert all(event.data["name"] == "alexa" for event in events)
                assert all(event.data["context"] == {"room": 1} for event in events)
                first_s = events[0].data["timestamp"] / 1000
                assert 2 < first_s < 2 + len(said[0]) / SAMPLE_RATE_HZ + 1
                await caller.write_event(AudioStop().event())  # no answer: it was said
                await send(caller, pcm(speech))
                answer = await ask(caller, AudioStop().event())
                assert words(answer.data["text"]) == "turn on the desk lamp"

        run(test())

    def test_other_speech(self, waking: WyomingServer, speech: Samples) -> None:
        """What is something else is not detected, and told at the end."""

        async def test() -> None:
            async with client(waking) as caller:
                await self.detect(caller, pcm(speech))
                event = await ask(caller, AudioStop().event())
                assert (event.type, event.data["context"]) == ("not-detected", {"room": 1})

        run(test())

    def test_faster_than_speech(self, waking: WyomingServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """A stream without end is heard at its own pace after the first seconds, and others as ever."""
        monkeypatch.setattr(wyoming_server, "_AHEAD_S", 1.0)
        chunk = AudioChunk(16_000, 2, 1, bytes(2 * SAMPLE_RATE_HZ)).event()  # a second
        heard_s = 0.0
        take = wyoming_wake.Watch.push

        def push(watch: wyoming_wake.Watch, payload: bytes) -> list[Event]:
            nonlocal heard_s
            heard_s += len(payload) / 2 / SAMPLE_RATE_HZ
            return take(watch, payload)

        monkeypatch.setattr(wyoming_wake.Watch, "push", push)

        async def flood(caller: AsyncClient) -> None:
            while True:
                await caller.write_event(chunk)

        async def test() -> None:
            async with client(waking) as caller:
                await caller.write_event(Detect(["alexa"]).event())
                await caller.write_event(AudioStart(16_000, 2, 1).event())
                started_s = time.monotonic()
                flooding = asyncio.create_task(flood(caller))
                await asyncio.sleep(2)
                async with client(waking) as other:
                    assert (await ask(other, Describe().event())).type == "info"
                flooding.cancel()
                assert 1 <= heard_s <= 1.0 + 0.5 + time.monotonic() - started_s

        run(test())

    def test_offered(self, waking: WyomingServer) -> None:
        """Home Assistant is told its name."""

        async def test() -> None:
            async with client(waking) as caller:
                info = Info.from_event(await ask(caller, Describe().event()))
            assert [each.name for each in info.wake[0].models] == ["alexa"]
            assert info.wake[0].installed

        run(test())

    @pytest.mark.parametrize("names", [["hey_jarvis"], "alexa", {"a": 1}, 7])
    def test_another_one(self, waking: WyomingServer, names: object) -> None:
        """Who asks for what is not listened for is told so."""

        async def test() -> None:
            async with client(waking) as caller:
                event = await ask(caller, Event("detect", {"names": names}))
                assert event.type == "error"
                assert "only alexa is listened for" in event.data["text"]

        run(test())

    def test_too_many(self, waking: WyomingServer) -> None:
        """The next one is told so; when one has gone, there is room again."""

        async def test() -> None:
            sound = pcm(np.zeros(2048, np.float32))
            async with AsyncExitStack() as stack:
                watching = [await stack.enter_async_context(client(waking)) for _ in range(MAX_WATCHES)]
                for caller in watching:
                    await self.detect(caller, sound)
                    await ask(caller, Ping().event())  # so that it has begun
                async with client(waking) as other:
                    await self.detect(other, sound)
                    event = await read(other)
                assert event.type == "error"
                assert "listened to for a wake word; close one" in event.data["text"]
                assert (await ask(watching[0], AudioStop().event())).type == "not-detected"
                async with client(waking) as other:
                    await self.detect(other, sound)
                    assert (await ask(other, AudioStop().event())).type == "not-detected"

        run(test())


class TestSharing:
    """Several clients, one engine."""

    def test_at_once(self, server: WyomingServer, samples: tuple[Sample, ...]) -> None:
        """Each is given its own answer."""

        async def test() -> None:
            accepted = [sample for sample in samples if sample.accepted][:8]
            texts = await asyncio.gather(*(transcribe(server, pcm(sample.read())) for sample in accepted))
            async with client(server) as caller:
                for sample, text in zip(accepted, texts, strict=True):
                    seen = meaning(await ask(caller, Recognize(text).event()))
                    assert seen == (sample.intent, sample.slots)

        run(test())

    def test_fair(
        self,
        server: WyomingServer,
        samples: tuple[Sample, ...],
        speech: Samples,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Who sends much, as fast as it can, has its turn once at most before another is answered."""
        much = pcm(np.concatenate([speech, np.zeros(round(1.3 * SAMPLE_RATE_HZ), np.float32)] * 15))
        other = next(sample for sample in samples if sample.path.stem == "add-oat-milk")
        done: list[str] = []
        transcribe_ = server._engine.transcribe

        def count(utterance: Utterance, recorder: Recorder | None) -> wyoming_server._Said | None:
            said = transcribe_(utterance, recorder)
            if said is not None:
                done.append(words(said.text))
            return said

        monkeypatch.setattr(server._engine, "transcribe", count)

        async def test() -> None:
            greedy = asyncio.create_task(transcribe(server, much, 100_000))
            async with client(server) as caller:
                await asyncio.to_thread(wait_until, lambda: bool(done))
                await send(caller, pcm(other.read()))
                before = len(done)
                answer = await ask(caller, AudioStop().event())
            assert words(answer.data["text"]) == words(other.text)
            assert (await greedy).lower().count("turn on the desk lamp") == 15
            # What is running when it asks, and perhaps what begins before that is read.
            assert done.index(words(other.text)) <= before + 2

        run(test())

    def test_gone_in_the_middle(self, server: WyomingServer, speech: Samples) -> None:
        """A client that vanishes while it speaks, or waits, leaves nothing behind."""

        async def test() -> None:
            for stop in (False, True) * 3:
                async with client(server) as caller:
                    await send(caller, pcm(speech))
                    if stop:
                        await caller.write_event(AudioStop().event())
            assert words(await transcribe(server, pcm(speech))) == "turn on the desk lamp"

        run(test())

    def test_too_many(self, server: WyomingServer) -> None:
        """One connection too many is told so; when another ends, there is room again."""

        async def test() -> None:
            inside = [AsyncTcpClient("127.0.0.1", port_of(server)) for _ in range(MAX_CONNECTIONS)]
            for caller in inside:
                await caller.connect()
                assert (await ask(caller, Describe().event())).type == "info"
            async with client(server) as caller:
                event = await read(caller)
                assert (event.type, event.data["code"]) == ("error", "overload")
            await inside.pop().disconnect()
            while True:
                async with client(server) as caller:
                    if (await ask(caller, Describe().event())).type == "info":
                        break
            for caller in inside:
                await caller.disconnect()

        run(test())

    def test_two_hundred_connections(self, server: WyomingServer, speech: Samples) -> None:
        """One after the other, some with sound, some that break off: files and memory stay as they were."""

        async def test(count: int) -> None:
            for number in range(count):
                async with client(server) as caller:
                    if number % 4 == 0:
                        await send(caller, pcm(speech[: 8 * 512]))
                    if number % 4 == 1:
                        assert (await ask(caller, Recognize("next song").event())).type == "intent"
                    if number % 4 == 2:
                        await caller.write_event(Event("audio-chunk", {}, b"12"))
                    assert (await ask(caller, Describe().event())).type in ("info", "error")

        run(test(60))
        time.sleep(0.2)
        files, memory = open_files(), memory_mb()
        run(test(200))
        time.sleep(0.2)
        assert open_files() <= files
        assert memory_mb() - memory < 8


def raw(server: WyomingServer, data: bytes, timeout_s: float = 5.0) -> list[dict[str, Any]]:
    """Send bytes and the end, and return the events that come back, without their payload."""
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=timeout_s) as caller:
        received = b""
        try:
            caller.sendall(data)
            caller.shutdown(socket.SHUT_WR)
            while piece := caller.recv(65536):
                received += piece
        except ConnectionError:
            pass
    events = []
    while received:
        line, _, received = received.partition(b"\n")
        header = json.loads(line)
        length = header.get("data_length", 0)
        header["data"] = json.loads(received[:length]) if length else {}
        received = received[length:]
        events.append(header)
    return events


def frame(header: dict[str, Any], data: bytes = b"") -> bytes:
    return json.dumps(header).encode() + b"\n" + data


AUDIO = {"rate": 16000, "width": 2, "channels": 1}
HOSTILE = {
    "no JSON": b"GET / HTTP/1.1\r\n\r\n",
    "empty line": b"\n",
    "list": b"[1, 2]\n",
    "no type": b"{}\n",
    "type is a number": b'{"type": 7}\n',
    "data is a list": b'{"type": "describe", "data": []}\n',
    "deep": b"[" * 60_000 + b"\n",
    "long header": b"x" * (2 * MAX_HEADER_BYTES) + b"\n",
    "huge data": frame({"type": "describe", "data_length": 10**15}),
    "huge payload": frame({"type": "audio-chunk", "data": AUDIO, "payload_length": MAX_PAYLOAD_BYTES + 1}),
    "huge payload elsewhere": frame({"type": "describe", "payload_length": MAX_HEADER_BYTES + 1}),
    "negative": frame({"type": "describe", "data_length": -1}),
    "length is text": frame({"type": "describe", "payload_length": "7"}),
    "length is true": frame({"type": "describe", "data_length": True}),
    "length is a fraction": frame({"type": "describe", "data_length": 2.5}),
    "data is no JSON": frame({"type": "describe", "data_length": 3}, b"abc"),
    "data is no UTF-8": frame({"type": "describe", "data_length": 3}, b"\xff\xfe\xfd"),
    "number too long": b'{"type": "ping", "data": {"x": ' + b"9" * 10_000 + b"}}\n",
    "no rate": frame({"type": "audio-start", "data": {"width": 2, "channels": 1}}),
    "rate 0": frame({"type": "audio-start", "data": {**AUDIO, "rate": 0}}),
    "rate too high": frame({"type": "audio-start", "data": {**AUDIO, "rate": 10**9}}),
    "rate is text": frame({"type": "audio-start", "data": {**AUDIO, "rate": "16000"}}),
    "width 5": frame({"type": "audio-start", "data": {**AUDIO, "width": 5}}),
    "no channels": frame({"type": "audio-start", "data": {**AUDIO, "channels": 0}}),
    "too many channels": frame({"type": "audio-start", "data": {**AUDIO, "channels": 10**6}}),
    "format changes": frame({"type": "audio-start", "data": AUDIO})
    + frame({"type": "audio-chunk", "data": {**AUDIO, "rate": 8000}}),
    "stop before start": frame({"type": "audio-stop"}),
    "text is a number": frame({"type": "recognize", "data": {"text": 5}}),
    "no text": frame({"type": "transcript"}),
    "long text": frame({"type": "recognize", "data": {"text": "x" * (MAX_TEXT + 1)}}),
}


async def until_in(wanted: tuple[str, str], seen: list[tuple[str, str]]) -> None:
    while wanted not in seen:  # noqa: ASYNC110 - the library calls back, and has no event
        await asyncio.sleep(0.02)


def test_announced(model: Model) -> None:
    """Who looks for Wyoming servers in the network finds the address, as long as it is served."""
    zeroconf = pytest.importorskip("zeroconf.asyncio")
    seen: list[tuple[str, str]] = []

    def note(*, name: str, state_change: Any, **_: Any) -> None:
        seen.append((state_change.name, name))

    async def test() -> None:
        network = zeroconf.AsyncZeroconf(interfaces=["127.0.0.1"])
        browser = zeroconf.AsyncServiceBrowser(network.zeroconf, announce.SERVICE, handlers=[note])
        config = dataclasses.replace(Config(), site="attic")
        name = f"edgevoice-attic.{announce.SERVICE}"
        with serving(config, model, announce=True) as server:
            await until_in(("Added", name), seen)
            found = await network.async_get_service_info(announce.SERVICE, name)
            assert (found.parsed_addresses(), found.port) == (["127.0.0.1"], server.port)
        await until_in(("Removed", name), seen)
        await browser.async_cancel()
        await network.async_close()

    run(test())


@pytest.mark.parametrize("what", ["loop", "ears"])
def test_hangs(model: Model, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """It shows that it goes on, while nobody asks for anything; when a thread of it hangs, it does not."""
    monkeypatch.setattr(wyoming_server, "_BEAT_S", 0.02)
    monkeypatch.setattr(watchdog, "WYOMING_S", 0.5)
    config = Config()
    go_on = threading.Event()
    with serving(config, model) as opened:
        pipeline = SimpleNamespace(busy_since_s=None, recogniser=SimpleNamespace(busy_since_s=None))
        progress = watchdog.progress(config, pipeline, (), opened)  # type: ignore[arg-type]
        deadline_s = time.monotonic() + 1
        while time.monotonic() < deadline_s:
            assert progress.stuck() is None
            time.sleep(0.05)
        if what == "loop":
            opened._loop.call_soon_threadsafe(go_on.wait)
        else:
            monkeypatch.setattr(wyoming_server, "_go_on", go_on.wait)
        wait_until(lambda: progress.stuck() is not None)
        assert str(progress.stuck()).startswith("a turn of the Wyoming server takes ")
        go_on.set()
        wait_until(lambda: progress.stuck() is None)


class TestHostile:
    """What no honest client sends."""

    def test_flood(self, server: WyomingServer) -> None:
        """Who asks thousands of times at once does not keep another waiting."""

        async def test() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            writer.write(frame({"type": "describe"}) * 5000)
            slowest_s = 0.0
            for _ in range(20):
                started_s = time.monotonic()
                async with client(server) as caller:
                    assert (await ask(caller, Describe().event())).type == "info"
                slowest_s = max(slowest_s, time.monotonic() - started_s)
            assert slowest_s < 0.5
            assert await reader.readline()
            writer.transport.abort()

        run(test())

    @pytest.mark.parametrize("name", HOSTILE)
    def test_refused(self, server: WyomingServer, name: str) -> None:
        """It is told what is wrong, in one event, and the connection ends; the next client is served."""
        answers = raw(server, HOSTILE[name])
        assert [(each["type"], each["data"].get("code")) for each in answers] == [("error", "protocol")], (
            answers
        )
        assert 10 < len(answers[0]["data"]["text"]) < 300
        assert raw(server, frame({"type": "describe"}))[0]["type"] == "info"

    def test_unknown_events(self, server: WyomingServer) -> None:
        """They are ignored, as newer clients may send them; odd fields of known ones, too."""
        data = frame({"type": "play-chess", "payload_length": 3, "data_length": 2}, b"{}abc")
        data += frame({"type": "transcribe", "data": {"language": 5, "name": [], "context": 7}, "extra": 1})
        assert [each["type"] for each in raw(server, data + frame({"type": "describe"}))] == ["info"]

    def test_memory_is_not_taken_before(self, server: WyomingServer) -> None:
        """Lengths that are announced cost nothing; what is sent behind them is not kept."""
        before = memory_mb()
        header = frame({"type": "describe", "data_length": 10**12})
        for _ in range(20):
            raw(server, header + bytes(4_000_000))
        assert memory_mb() - before < 30

    def test_half_sent(self, server: WyomingServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Half a frame times out, in a request and before one, and is said to."""
        monkeypatch.setattr(wyoming_server, "_IDLE_S", 0.3)
        monkeypatch.setattr(wyoming_server, "_STALL_S", 0.3)

        async def test() -> None:
            for begin in (b"", frame({"type": "audio-start", "data": AUDIO})):
                for half in (
                    b"",
                    b'{"type": "desc',
                    frame({"type": "audio-chunk", "payload_length": 9}, b"1234"),
                ):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
                    writer.write(begin + half)
                    started_s = time.monotonic()
                    assert b"timeout" in await reader.read()
                    assert 0.25 < time.monotonic() - started_s < 5
                    writer.close()

        run(test())

    def test_slow(self, server: WyomingServer) -> None:
        """A client may send byte for byte, if it goes on."""
        with socket.create_connection(("127.0.0.1", port_of(server)), timeout=LONG_S) as caller:
            for byte in frame({"type": "describe"}):
                caller.sendall(bytes([byte]))
                time.sleep(0.01)
            assert b'"info"' in caller.recv(1000)

    def test_client_that_does_not_read(
        self, server: WyomingServer, monkeypatch: pytest.MonkeyPatch, speech: Samples
    ) -> None:
        """Who asks and asks and takes no answer is let go; others are served meanwhile."""
        monkeypatch.setattr(wyoming_server, "_STALL_S", 0.5)
        files = open_files()
        with socket.create_connection(("127.0.0.1", port_of(server)), timeout=LONG_S) as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.settimeout(0.2)
            with contextlib.suppress(TimeoutError, ConnectionError):
                while True:
                    caller.sendall(frame({"type": "describe"}) * 1000)
            # The server has let go of it; that the kernel tells the client may take longer.
            wait_until(lambda: open_files() <= files + 1, LONG_S)

        async def test() -> None:
            assert words(await transcribe(server, pcm(speech))) == "turn on the desk lamp"

        run(test())

    def test_without_end(
        self, server: WyomingServer, speech: Samples, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Sound that goes on for too long is cut off and answered; the connection goes on."""
        minute = np.zeros(61 * SAMPLE_RATE_HZ, np.float32)
        minute[: len(speech)] = speech

        async def test() -> None:
            async with client(server) as caller:
                await send(caller, pcm(minute), 100_000)
                event = await read(caller)  # before audio-stop
                assert words(event.data["text"]) == "turn on the desk lamp"
                await caller.write_event(AudioStop().event())
                assert (await ask(caller, Describe().event())).type == "info"

        caplog.set_level(logging.DEBUG)  # there are few warnings after others
        run(test())
        assert "a command without end" in caplog.text

    def test_speech_without_end(self, server: WyomingServer, samples: tuple[Sample, ...]) -> None:
        """Speech longer than a command can be is no command."""
        talk = next(sample for sample in samples if sample.path.stem == "refused-weather-talk").read()
        said = talk[np.abs(talk).cumsum() > 1]

        async def test() -> None:
            assert await transcribe(server, pcm(np.concatenate([said] * 12)), 20_000) == ""

        run(test())

    def test_fuzz(self, server: WyomingServer, speech: Samples) -> None:
        """Four seconds of broken frames of all kinds: the server lives, and forgets them."""
        chance = random.Random(11)  # noqa: S311 - the same every time
        good = [
            frame({"type": "describe"}),
            frame({"type": "ping", "data": {"text": "x"}}),
            frame({"type": "transcribe", "data": {"language": "en"}}),
            frame({"type": "audio-start", "data": AUDIO}),
            frame({"type": "audio-chunk", "data": AUDIO, "payload_length": 3000}, bytes(3000)),
            frame({"type": "audio-stop"}),
            frame({"type": "recognize", "data": {"text": "next song"}}),
            *HOSTILE.values(),
        ]
        files, memory = open_files(), memory_mb()
        end_s, rounds = time.monotonic() + 4, 0
        while time.monotonic() < end_s:
            data = bytearray(b"".join(chance.choices(good, k=chance.randint(1, 6))))
            for _ in range(chance.randint(0, 4)):
                at = chance.randrange(len(data))
                change = chance.randrange(3)
                if change == 0:
                    data[at] = chance.randrange(256)
                elif change == 1:
                    del data[at : at + chance.randint(1, 20)]
                else:
                    data[at:at] = chance.randbytes(chance.randint(1, 20))
                data = data or bytearray(b"\n")
            raw(server, bytes(data[: chance.randint(1, len(data))]))
            rounds += 1
        assert rounds > 20

        async def test() -> None:
            assert words(await transcribe(server, pcm(speech))) == "turn on the desk lamp"

        run(test())
        assert open_files() <= files + 1
        assert memory_mb() - memory < 30


class TestService:
    """`edgevoice run` with a server."""

    @contextmanager
    def _service(
        self, environment: dict[str, str], folder: Path, listen: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        path = folder / "edgevoice.yaml"
        path.write_text(
            f"audio: {{enabled: false}}\nwyoming: {{listen: '{listen}'}}\n"
            "records: {keep: 5, folder: kept}\nmodel: {threads: 1}\n"
        )
        command = [sys.executable, "-m", "edgevoice", "run", "--config", str(path)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as child:
            try:
                assert child.stderr is not None
                for line in child.stderr:
                    if b"listening on" in line:
                        break
                yield child
            finally:
                child.kill()

    def test_without_microphone(
        self, child_environment: dict[str, str], tmp_path: Path, speech: Samples
    ) -> None:
        """It serves at a socket of the file system, which is for its user only, and ends when told to.

        What was heard is kept, if that is wanted.
        """
        path = tmp_path / "wyoming.sock"
        with self._service(child_environment, tmp_path, f"unix://{path}") as child:
            assert path.stat().st_mode & 0o777 == 0o600

            async def test() -> None:
                caller = AsyncClient.from_uri(f"unix://{path}")
                await caller.connect()
                await send(caller, pcm(speech))
                event = await ask(caller, AudioStop().event())
                assert words(event.data["text"]) == "turn on the desk lamp"
                kept = tmp_path / "kept"
                await asyncio.to_thread(wait_until, lambda: kept.is_dir() and any(kept.glob("*.json")))
                await send(caller, pcm(speech))
                await caller.write_event(AudioStop().event())
                started_s = time.monotonic()
                child.send_signal(signal.SIGTERM)  # while it recognises
                assert await asyncio.to_thread(child.wait, LONG_S) == 0
                assert time.monotonic() - started_s < 2
                with contextlib.suppress(ConnectionError):
                    await caller.disconnect()

            run(test())
            assert not path.exists()
            assert child.stderr is not None
            assert b"Traceback" not in child.stderr.read()

    def test_address_in_use(self, server: WyomingServer, model: Model) -> None:
        """Is said with the address, and what to do."""
        address = f"tcp://127.0.0.1:{port_of(server)}"
        with (
            pytest.raises(NetworkError, match=r"wyoming\.listen: tcp://127.* in use.*choose another"),
            serving(Config(), model, listen=address),
        ):
            pass
