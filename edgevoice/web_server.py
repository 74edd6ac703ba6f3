"""The server of the page: a thread with a loop of its own, by which nothing else is held up.

    browsers, Prometheus ──> _Guest, a connection ──> web_app.py ──> Live, Figures, records, Commands

uvicorn reads HTTP. What it does not bound is bounded here: how many connect, and how long a request takes.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

import h11

from edgevoice import extras, network
from edgevoice.errors import ConfigError, NetworkError
from edgevoice.web_bench import Bench
from edgevoice.web_live import Live
from edgevoice.web_password import Verifier

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
    from uvicorn.server import ServerState

    from edgevoice.web_app import application
    from edgevoice.web_microphone import MAX_MESSAGE_BYTES
except ImportError as _error:
    raise ConfigError(
        f"web.listen needs what is not installed ({_error.name}); run: {extras.remedy('web')}"
    ) from None

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.frames import Frame

    from edgevoice.commands import Commands
    from edgevoice.config import Config
    from edgevoice.health import Figures

_log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 64
"""At once; a browser makes six, and more are closed unheard. Each costs 20 kB."""

REQUEST_S: Final = 5.0
"""From its first byte until all of a request has come, and from a connection to its first request."""

_MAX_HEAD_BYTES: Final = 8_192  # of a request line and headers; browsers send 1,000
_STALL_MS: Final = 10_000  # until a client that does not read what was sent loses its connection
_PING_S: Final = 5.0  # until a browser is asked whether it is still there, and until it must have answered
_STOP_S: Final = 5.0  # a clean end takes less than one
_LAST_TURNS: Final = 3  # of the loop, in which what was aborted is closed
_LINGER_S: Final = 0.5  # of that, for answers that are being sent


@contextmanager
def serving(config: Config, figures: Figures, commands: Commands) -> Iterator[Live]:
    """Serve while the block runs, and give it what is to be told.

    Raises:
        NetworkError: the address cannot be listened on.
        ConfigError: the file of the password cannot be used.
    """
    live = Live(config)
    with closing(WebServer(config, live, figures, commands)):
        yield live


class WebServer:
    """Listens from its making until close(), in a thread of its own.

    Args:
        config: with web.listen.
        live: what is heard.
        figures: how all fares.
        commands: who mutes.

    Raises:
        NetworkError: the address cannot be listened on.
        ConfigError: the file of the password cannot be used.
    """

    def __init__(self, config: Config, live: Live, figures: Figures, commands: Commands) -> None:
        path = config.web.password_file
        verifier = Verifier(path) if path is not None else None
        try:
            self._socket = network.listen(f"tcp:{config.web.listen}")
        except OSError as error:
            raise NetworkError(
                f"web.listen: {config.web.listen} cannot be listened on ({error.strerror or error}); end the "
                "program that uses it, or choose another one"
            ) from None
        self.port: Final[int] = self._socket.getsockname()[1]
        """That is listened on."""
        # Who does not read, or has gone without a word, is no connection after this time: the kernel ends it.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALL_MS)
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, "edgevoice-web-worker")
        self._engine = ThreadPoolExecutor(1, "edgevoice-web-engine")
        self._bench = Bench(config, live, commands)
        self._app = application(
            config,
            live,
            figures,
            commands,
            bench=self._bench,
            verifier=verifier,
            worker=self._worker,
            engine=self._engine,
            stopping=self._stopping,
        )
        self._thread = threading.Thread(target=self._run, name="edgevoice-web", daemon=True)
        self._thread.start()
        _log.info("web: listening on http://%s", self._address())
        if not config.web.loopback:
            _log.warning("web: nothing is encrypted on the way to a browser, nor is the password")

    def close(self) -> None:
        """End all connections and free the address; may be called twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_STOP_S)

    def _address(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._bench.shelf.close()
            self._worker.shutdown(wait=False, cancel_futures=True)
            self._engine.shutdown(cancel_futures=True)  # it uses a model that is closed after us
            self._loop.close()

    async def _serve(self) -> None:
        # What clients do wrong is their business: one that is hostile must not fill the log.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        config = uvicorn.Config(
            self._app,
            http=_Guest,
            ws=_Speaker,
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,  # nor bombs
            ws_ping_interval=_PING_S,
            ws_ping_timeout=_PING_S,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # whose word would have to be taken
            server_header=False,
            date_header=False,
            h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        )
        state = ServerState()
        server = await self._loop.create_server(
            lambda: _Guest(config, state, {}, self._loop), sock=self._socket, backlog=MAX_CONNECTIONS
        )
        await self._stopping.wait()
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=_LINGER_S)
        for task in list(state.tasks):
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        for connection in list(state.connections):
            connection.transport.abort()
        for _ in range(_LAST_TURNS):
            await asyncio.sleep(0)


class _Guest(H11Protocol):
    """One connection, which has not for ever to say what it wants."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if there are not too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._hurry()

    def data_received(self, data: bytes) -> None:
        """Take a piece of what it says."""
        super().data_received(data)
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._hurry()
        elif self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Take that it has gone."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _hurry(self) -> None:
        """Count the time, unless it is counted."""
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_S, self._late)

    def _late(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self.transport.write(
                b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self.transport.close()
        else:
            self.transport.abort()


class _Speaker(WebSocketsSansIOProtocol):
    """A browser's microphone: sound comes, and no text."""

    def handle_text(self, _: Frame) -> None:
        """End it: uvicorn would log text that is none."""
        self.conn.fail(1003, "sound is binary")
        self.handle_parser_exception()
