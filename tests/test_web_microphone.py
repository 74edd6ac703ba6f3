"""A browser as the microphone: who may speak, one at a time; whatever is sent, it ends with a clear code."""

from __future__ import annotations

import json
import queue
import signal
import socket
import threading
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from edgevoice import web_microphone
from edgevoice.audio import read_audio
from edgevoice.capture import CaptureCounters
from edgevoice.config import Config, WebConfig
from edgevoice.errors import AudioError, ProtocolError
from edgevoice.events import FRAME_SAMPLES
from edgevoice.events import Frame as Sound
from edgevoice.floor import MAX_AHEAD_S, Floor, Talk
from edgevoice.microphone import Microphone
from edgevoice.web_password import write
from tests.conftest import wait_until
from tests.test_end_to_end import pcm, room
from tests.test_web import service
from tests.web_client import Served, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgevoice.capture import FrameSource
    from tests.conftest import Sample

SECOND = b"\0\0" * 16_000


class House:
    """Something that takes the floor's turns as the service does, without recognising."""

    def __init__(self, floor: Floor, microphone: Microphone | None = None) -> None:
        self.heard: queue.SimpleQueue[tuple[FrameSource, int]] = queue.SimpleQueue()
        self._turns = floor.turns(None if microphone is None else [microphone])
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        for source in self._turns:
            self.heard.put((source, sum(len(frame.samples) for frame in source)))


@pytest.fixture(scope="module")
def web() -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web_microphone, "STALL_S", 0.5)
        with served() as running:
            running.commands.floor = Floor()
            House(running.commands.floor)
            yield running


@pytest.fixture(autouse=True)
def _unharmed(web: Served) -> Iterator[None]:
    """After each of these, one can speak as before."""
    yield

    def works() -> bool:
        with speaking(web) as browser:
            try:
                told = json.loads(browser.recv(5))
            except ConnectionClosed:
                return False
            browser.send(b"")
            return bool(told == {"state": "listening"} and code_of(browser) == 1000)

    wait_until(works, 15)


def speaking(web: Served, query: str = "?rate=16000", **headers: str) -> ClientConnection:
    """A connection that asks to be heard."""
    origin = headers.pop("origin", f"http://127.0.0.1:{web.port}")
    return connect(
        f"ws://127.0.0.1:{web.port}/api/microphone{query}",
        origin=Origin(origin),
        additional_headers=headers,
        compression="deflate",
        proxy=None,
    )


def code_of(browser: ClientConnection, told: list[Any] | None = None) -> int | None:
    """With which code it ends; what is told before is added to a list."""
    try:
        while True:
            said = json.loads(browser.recv(30))
            if told is not None:
                told.append(said)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


@pytest.mark.parametrize("origin", ["http://elsewhere.example", "null", "http://127.0.0.1"])
def test_a_page_from_elsewhere(web: Served, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        speaking(web, origin=origin)
    assert refused.value.response.status_code == 403
    assert "default-src 'none'" in refused.value.response.headers["content-security-policy"]


def test_another_name(web: Served) -> None:
    with closing(web.raw(
        b"GET /api/microphone?rate=16000 HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )) as connection:  # fmt: skip
        assert connection.recv(4096).startswith(b"HTTP/1.1 421")


def test_a_password_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "password", "let me in, please")
    config = Config(web=WebConfig(listen="127.0.0.1:0", password_file=tmp_path / "password"))
    with served(config) as locked:
        with pytest.raises(InvalidStatus) as refused:
            speaking(locked)
        assert refused.value.response.status_code == 401
        cookie = locked.post("/login", b"password=let+me+in,+please").headers["set-cookie"]
        with speaking(locked, cookie=cookie.partition(";")[0]) as browser:
            assert code_of(browser) == web_microphone.TAKEN  # nothing listens there, but it is let in


def test_one_at_a_time(web: Served) -> None:
    with speaking(web) as first:
        assert json.loads(first.recv(5)) == {"state": "listening"}
        with speaking(web) as second, pytest.raises(ConnectionClosed) as closed:
            second.recv(5)
        assert closed.value.rcvd
        assert closed.value.rcvd.code == web_microphone.TAKEN
        assert "somebody else speaks" in closed.value.rcvd.reason
        first.send(SECOND)
        first.send(b"")
        assert code_of(first) == 1000


def test_plain_http(web: Served) -> None:
    assert web.ask("/api/microphone").status == 404


@pytest.mark.parametrize("query", ["", "?rate=", "?rate=x", "?rate=-1", "?rate=1e9", "?rate=" + "9" * 4000])
def test_no_rate(web: Served, query: str) -> None:
    with speaking(web, query) as browser:
        assert code_of(browser) == web_microphone.MALFORMED


def test_half_a_sample(web: Served) -> None:
    with speaking(web) as browser:
        browser.send(b"\0\0\0")
        assert code_of(browser) == web_microphone.MALFORMED


def test_text(web: Served) -> None:
    with speaking(web) as browser:
        browser.send("hello")
        assert code_of(browser) == 1003


def test_too_large(web: Served) -> None:
    with speaking(web) as browser:
        browser.send(b"\0" * (web_microphone.MAX_MESSAGE_BYTES + 2))
        assert code_of(browser) == 1009


def test_broken_frames(web: Served) -> None:
    with speaking(web) as browser:
        browser.socket.sendall(b"\xff" * 400)
        assert code_of(browser) == 1002


def test_nothing(web: Served) -> None:
    """Not even a goodbye: it is idle after a while."""
    with speaking(web) as browser:
        assert code_of(browser) == web_microphone.IDLE


def test_pieces_without_end(web: Served) -> None:
    """A message that never ends, in empty fragments, is no sound."""
    with speaking(web) as browser:
        fragment = Frame(Opcode.CONT, b"", fin=False).serialize(mask=True)
        browser.socket.sendall(Frame(Opcode.BINARY, b"", fin=False).serialize(mask=True))
        with suppress(OSError):
            for _ in range(100):
                browser.socket.sendall(fragment * 100)
        assert code_of(browser) == web_microphone.IDLE


def test_for_ever(web: Served) -> None:
    """As fast as it goes: it ends when nobody can have said so much."""
    with speaking(web) as browser:
        with suppress(ConnectionClosed):
            for _ in range(100):
                browser.send(SECOND)
        assert code_of(browser) == web_microphone.TOO_MUCH


def test_who_goes(web: Served) -> None:
    """In the middle of it, without a word; the fixture sees that others can speak."""
    with speaking(web) as browser:
        browser.send(SECOND)
        browser.socket.shutdown(socket.SHUT_RDWR)


def test_many(web: Served) -> None:
    with ExitStack() as stack:
        browsers = [stack.enter_context(speaking(web)) for _ in range(20)]
        codes = [code_of(browser) for browser in browsers]
    assert set(codes) == {web_microphone.TAKEN, web_microphone.IDLE}


class Tone:
    """A microphone that is there, and hears silence."""

    live = True
    counters = CaptureCounters()

    def __init__(self) -> None:
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[Sound]:
        start = 0
        while not self.closed.wait(0.002):
            yield Sound(np.zeros(FRAME_SAMPLES, np.float32), start)
            start += FRAME_SAMPLES

    def discard(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """It is not heard any more."""
        self.closed.set()


def test_the_microphone_of_the_house_rests_meanwhile() -> None:
    opened: list[Tone] = []

    def open_source() -> Tone:
        opened.append(Tone())
        return opened[-1]

    floor, microphone = Floor(), Microphone(open_source)
    house = House(floor, microphone)
    wait_until(lambda: bool(opened) and microphone.beats > 3)
    talk = Talk(48_000)
    floor.take(talk)
    talk.push(b"\0\0" * 24_000)
    talk.close()
    assert house.heard.get(timeout=5)[0] is microphone
    assert opened[0].closed.is_set()
    source, length = house.heard.get(timeout=5)
    assert source is talk
    assert 8_000 <= length < 8_000 + FRAME_SAMPLES
    wait_until(lambda: len(opened) == 2)  # it is heard again
    microphone.close()
    assert house.heard.get(timeout=5)[0] is microphone


def test_a_microphone_that_is_lost_before_and_after() -> None:
    """Who looks is told so again; a browser is heard at once."""
    states: list[str] = []

    def open_source() -> Tone:
        raise AudioError("it is not plugged in")

    floor, microphone = Floor(), Microphone(open_source, states.append)
    house = House(floor, microphone)
    wait_until(lambda: states == ["lost"])
    talk = Talk(16_000)
    floor.take(talk)
    talk.close()
    assert [house.heard.get(timeout=5)[0] for _ in range(2)] == [microphone, talk]
    wait_until(lambda: states == ["lost", "lost"])
    microphone.close()
    assert house.heard.get(timeout=5)[0] is microphone


def test_what_waits_is_bounded() -> None:
    talk = Talk(16_000)
    for _ in range(int(MAX_AHEAD_S)):
        talk.push(SECOND)
    with pytest.raises(ProtocolError, match="send it as it is spoken"):
        talk.push(SECOND)


def test_a_phone_in_a_house_with_a_microphone(
    child_environment: dict[str, str], samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    """Of the real service: both are understood in turn, and a browser is told of what it said."""
    config = tmp_path / "c.yaml"
    port = socket.create_server(("127.0.0.1", 0))
    address = f"tcp:{port.getsockname()[1]}"
    port.close()
    with service(child_environment, samples, config, "", source=("--input", address)) as run:
        at = ("127.0.0.1", int(address.partition(":")[2]))
        told: list[dict[str, Any]] = []
        wait_until(lambda: _answers(at))
        with closing(socket.create_connection(at)) as house:
            house.sendall(pcm(read_audio(run.samples["pause-music"].path)) + pcm(room(2.0)))
            assert run.newest(1)["intent"] == run.samples["pause-music"].intent
            with connect(
                f"ws://127.0.0.1:{run.port}/api/microphone?rate=16000",
                origin=Origin(f"http://127.0.0.1:{run.port}"),
                proxy=None,
            ) as browser:
                said = pcm(read_audio(run.samples["turn-on-desk-lamp"].path)) + pcm(room(1.0))
                for first in range(0, len(said), 4096):
                    browser.send(said[first : first + 4096])
                browser.send(b"")
                assert code_of(browser, told) == 1000
        assert told[0] == {"state": "listening"}
        assert [each["result"]["intent"] for each in told[1:]] == ["HassTurnOn"]
        assert run.newest(2)["slots"] == {"name": "desk lamp"}
        with closing(socket.create_connection(at)) as house:
            house.sendall(pcm(read_audio(run.samples["pause-music"].path)) + pcm(room(2.0)))
            assert run.newest(3)["intent"] == run.samples["pause-music"].intent
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(10) == 0
    assert not [line for line in run.log if "Traceback" in line or "ERROR" in line]


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address).close()
    except ConnectionRefusedError:
        return False
    return True
