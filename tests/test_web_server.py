"""Whoever does what to the server of the page: it stays bounded, others are served, and it ends at once."""

from __future__ import annotations

import resource
import select
import socket
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from edgevoice import web_server
from edgevoice.config import Config, WebConfig
from edgevoice.errors import NetworkError
from edgevoice.web_app import MAX_STREAMS
from edgevoice.web_server import MAX_CONNECTIONS
from tests.conftest import wait_until
from tests.web_client import Served, served

if TYPE_CHECKING:
    from collections.abc import Iterator

POST = b"POST /api/mute HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n"
HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
REQUEST_S = 1.0  # here, so that this does not take long
LATE_S = REQUEST_S + 3  # on a busy machine


@pytest.fixture(scope="module")
def web() -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web_server, "REQUEST_S", REQUEST_S)
        with served() as running:
            yield running


@pytest.fixture(autouse=True)
def _unharmed(web: Served) -> Iterator[None]:
    """After each of these, it serves as before."""
    yield
    wait_until(lambda: works(web), 15)


def works(web: Served) -> bool:
    try:
        return web.ask("/").status == 200
    except OSError:
        return False


def end_of(connection: socket.socket) -> bytes:
    """All that comes until the server ends a connection."""
    said = b""
    try:
        while piece := connection.recv(65_536):
            said += piece
    except ConnectionError:
        pass
    return said


class TestMalformed:
    """What is no request."""

    @pytest.mark.parametrize(
        "data",
        [
            b"\0\1\2\3\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",  # no host
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 600,  # TLS
            b"POST /api/mute HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
            b"POST /api/mute HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"POST /api/mute HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ],
    )
    def test_is_refused(self, web: Served, data: bytes) -> None:
        """With 400 (or what its host, or its origin, is refused with), and the connection ends."""
        with web.raw(data) as connection:
            connection.shutdown(socket.SHUT_WR)
            said = end_of(connection)
        assert said[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 403", b"HTTP/1.1 421")
        assert len(said) < 1000

    def test_noise(self, web: Served) -> None:
        """Endless noise ends with its connection."""
        sent = 0
        with web.raw() as connection, suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"x" * 65_536)
                sent += 1
        assert sent < 1000

    @pytest.mark.parametrize("path", ["/absent", "/api", "/api/utterances/x/y/z", "/page.css/", "//", "/%00"])
    def test_no_such_page(self, web: Served, path: str) -> None:
        """404, in a line."""
        answer = web.ask(path)
        assert answer.status == 404
        assert answer.body.count(b"\n") <= 1

    @pytest.mark.parametrize(
        "path",
        [
            "/../../etc/passwd",
            "/page.css/../../config.py",
            "/api/utterances/..%2f..%2fetc%2fpasswd",
            "/api/utterances/%2e%2e/sound",
            "/api/utterances/20261126-172337-945-f062%2f../sound",
            "/api/utterances/20261126-172337-945-f062%00/sound",
            "/api/utterances/20261126-172337-945-f062",
            "/api/utterances?before=../x",
            "/api/utterances?before=%d9%a2%d9%a0261126-172337-945-f062",
        ],
    )
    def test_paths_lead_nowhere_else(self, web: Served, path: str) -> None:
        """What is no name of an utterance is not looked for."""
        assert web.ask(path).status == 404

    @pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
    def test_other_methods(self, web: Served, method: str) -> None:
        """Are not ours."""
        assert web.ask("/api/mute", method, origin=f"http://127.0.0.1:{web.port}").status == 405


class TestOversized:
    """What is too large."""

    def test_head(self, web: Served) -> None:
        """Is not read to its end."""
        with web.raw() as connection:
            try:
                connection.sendall(HEAD)
                for _ in range(10_000):
                    connection.sendall(b"X-A: " + b"a" * 1000 + b"\r\n")
            except ConnectionError:
                return
            assert end_of(connection)[:12] == b"HTTP/1.1 400"

    def test_target(self, web: Served) -> None:
        """Nor is a long address."""
        with web.raw(b"GET /" + b"a" * 100_000) as connection:
            assert end_of(connection)[:12] in (b"HTTP/1.1 400", b"")

    @pytest.mark.parametrize("size", [5_000, 50_000_000])
    def test_body_that_is_announced(self, web: Served, size: int) -> None:
        """Is refused before it is sent."""
        with web.raw(POST + f"Content-Length: {size}\r\n\r\n".encode()) as connection:
            assert connection.recv(12) == b"HTTP/1.1 413"

    def test_body_without_end(self, web: Served) -> None:
        """Is refused when it is too long."""
        with web.raw(POST + b"Transfer-Encoding: chunked\r\n\r\n") as connection:
            try:
                for _ in range(200):
                    connection.sendall(b"1000\r\n" + b"a" * 4096 + b"\r\n")
            except ConnectionError:
                return
            assert connection.recv(12) == b"HTTP/1.1 413"


class TestSlow:
    """Who takes his time."""

    @pytest.mark.parametrize(
        ("begin", "drip"),
        [
            (b"", b""),
            (b"GET / HT", b""),
            (HEAD, b"X-A: b\r\n"),
            (
                POST + b"Content-Length: 4000\r\n\r\n",
                b"a",
            ),
            (HEAD + b"\r\n" + HEAD, b"X-A: b\r\n"),  # after a whole one
        ],
    )
    def test_request(self, web: Served, begin: bytes, drip: bytes) -> None:
        """Must have come within some seconds, however often a little of it comes."""
        begin_s = time.monotonic()
        with web.raw(begin) as connection:
            try:
                while time.monotonic() - begin_s < LATE_S:
                    connection.sendall(drip)
                    connection.settimeout(0.5)
                    try:
                        if not connection.recv(65_536):
                            break
                    except TimeoutError:
                        pass
            except ConnectionError:
                pass
        assert time.monotonic() - begin_s < LATE_S

    def test_others_do_not_wait(self, web: Served) -> None:
        """While many are slow, others are served soon."""
        with ExitStack() as stack:
            for _ in range(MAX_CONNECTIONS // 2):
                stack.enter_context(web.raw(b"GET / HT"))
            begin_s = time.monotonic()
            assert works(web)
            assert time.monotonic() - begin_s < 1


class TestMany:
    """Who comes with many."""

    def test_connections(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Too many are closed unheard; the first ones may stay for their time."""
        monkeypatch.setattr(web_server, "REQUEST_S", 60.0)
        with served() as web, ExitStack() as stack:
            many = [stack.enter_context(web.raw()) for _ in range(2 * MAX_CONNECTIONS)]
            wait_until(lambda: len(select.select(many, [], [], 0)[0]) >= MAX_CONNECTIONS)
            time.sleep(0.2)
            assert len(select.select(many, [], [], 0)[0]) == MAX_CONNECTIONS

    def test_streams(self, web: Served) -> None:
        """Of what is live there are some; one that goes makes room."""
        live = b"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        with ExitStack() as stack:
            streams = [stack.enter_context(web.raw(live)) for _ in range(MAX_STREAMS)]
            for stream in streams:
                assert stream.recv(12) == b"HTTP/1.1 200"
            assert web.ask("/api/live").status == 503
            assert works(web)
        with ExitStack() as stack:

            def again() -> bool:
                return stack.enter_context(web.raw(live)).recv(12) == b"HTTP/1.1 200"

            wait_until(again)

    def test_pipelined(self, web: Served) -> None:
        """Requests in a row are answered in a row, and memory does not grow with them."""
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with web.raw() as connection:
            answers = bytearray()
            reader = threading.Thread(target=lambda: answers.extend(end_of(connection)))
            reader.start()
            for _ in range(100):
                connection.sendall(b"GET /icon.svg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 10)
            connection.shutdown(socket.SHUT_WR)
            reader.join(20)
            assert not reader.is_alive()
        assert answers.count(b"HTTP/1.1 200") == 1000
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 30_000


class TestEnd:
    """How it ends."""

    def test_with_guests(self) -> None:
        """At once, whoever is there; its address is free then."""
        with ExitStack() as stack:
            with served() as web:
                port = web.port
                stream = stack.enter_context(web.raw(b"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"))
                assert stream.recv(12) == b"HTTP/1.1 200"
                stack.enter_context(web.raw(b"GET / HT"))
                stack.enter_context(web.raw())
                assert works(web)  # all are in
                begin_s = time.monotonic()
            assert time.monotonic() - begin_s < 2
            assert end_of(stream).endswith(b"0\r\n\r\n")
            with served(Config(web=WebConfig(listen=f"127.0.0.1:{port}"))) as web:
                assert works(web)

    def test_twice(self) -> None:
        """Closing it again does nothing."""
        with served() as web:
            web.server.close()

    def test_address_in_use(self, web: Served) -> None:
        """Is said, with what to do."""
        with (
            pytest.raises(NetworkError, match=r"^web\.listen: .* cannot be listened on"),
            served(Config(web=WebConfig(listen=f"127.0.0.1:{web.port}"))),
        ):
            pass
