"""A server of the page without recognition, and a client that can say anything to it."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgevoice.commands import Commands
from edgevoice.config import Config, WebConfig
from edgevoice.health import Figures
from edgevoice.web_live import Live
from edgevoice.web_server import WebServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Served:
    """A server, and what it shows."""

    server: WebServer
    live: Live
    commands: Commands

    @property
    def port(self) -> int:
        """Its own."""
        return self.server.port

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """One request; `sec_fetch_site="..."` is a header."""
        return ask(self.port, path, method, body, headers)

    def post(self, path: str, body: bytes, **headers: str) -> Answer:
        """As our page does."""
        return self.ask(path, "POST", body, **{"origin": f"http://127.0.0.1:{self.port}", **headers})

    def raw(self, data: bytes = b"") -> socket.socket:
        """A connection on which something was said."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=15)
        connection.sendall(data)
        return connection


def ask(
    port: int,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request, on a connection of its own."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=15)) as connection:
        named = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())


@contextmanager
def served(config: Config | None = None, commands: Commands | None = None) -> Iterator[Served]:
    """A server on a free port, while the block runs."""
    config = config or Config(web=WebConfig(listen="127.0.0.1:0"))
    live, commands = Live(config), commands or Commands(5.0)
    with closing(WebServer(config, live, Figures(), commands)) as server:
        yield Served(server, live, commands)
