"""A running Home Assistant is asked what it has; the token is told to nobody else."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from edgevoice import home_assistant_api
from edgevoice.entities import Entity, Place
from edgevoice.errors import EdgevoiceError, NetworkError, UsageError
from edgevoice.home_assistant_api import read_home, read_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Edgevoice

    Run = Callable[[Callable[[ServerConnection], None]], str]
    """Starts a server and returns its address."""

TOKEN = "eyJhbGciOi.secret.token"  # noqa: S105 - of nobody

ANSWERS: dict[str, Any] = {
    "homeassistant/expose_entity/list": {
        "exposed_entities": {
            "light.desk": {"conversation": True},
            "cover.garage": {"conversation": True, "cloud.alexa": True},
            "light.hidden": {"conversation": False},
            "sensor.gone": {"conversation": True},
            "light.odd": {"conversation": True},
        }
    },
    "get_states": [
        {"entity_id": "light.desk", "state": "on", "attributes": {"friendly_name": "Desk  lamp"}},
        {
            "entity_id": "cover.garage",
            "state": "open",
            "attributes": {"friendly_name": "Garage door", "device_class": "garage"},
        },
        {"entity_id": "light.hidden", "state": "on", "attributes": {"friendly_name": "Hidden"}},
        {"entity_id": "light.odd", "state": "on", "attributes": {"friendly_name": "?!"}},
    ],
    "config/entity_registry/get_entries": {
        "light.desk": {"aliases": [None, "work light", " "], "area_id": "study", "device_id": "d1"},
        "cover.garage": {"aliases": [], "area_id": None, "device_id": "d2"},
        "light.odd": None,
        "sensor.gone": None,
    },
    "config/device_registry/list": [{"id": "d2", "area_id": "garage"}],
    "config/area_registry/list": [
        {"area_id": "study", "name": "Study", "aliases": ["office"], "floor_id": None},
        {"area_id": "garage", "name": "Garage", "aliases": []},
    ],
    "config/floor_registry/list": [{"floor_id": "up", "name": "First floor", "aliases": ["upstairs"]}],
}


class FakeHomeAssistant:
    """The part of Home Assistant's WebSocket API that is used, on a real server."""

    def __init__(self, **changed: Any) -> None:
        self.answers = {**ANSWERS, **changed}
        self.asked: list[dict[str, Any]] = []

    def __call__(self, connection: ServerConnection) -> None:
        """Serve one client."""
        with contextlib.suppress(ConnectionClosed):
            self.talk(connection)

    def talk(self, connection: ServerConnection) -> None:
        """Greet, check the token, answer."""
        assert connection.request is not None
        assert connection.request.path == "/api/websocket"
        connection.send(json.dumps({"type": "auth_required", "ha_version": "2026.11.0"}))
        login = json.loads(connection.recv())
        if login != {"type": "auth", "access_token": TOKEN}:
            connection.send(json.dumps({"type": "auth_invalid", "message": f"no {login}"}))
            return
        connection.send(json.dumps({"type": "auth_ok", "ha_version": "2026.11.0"}))
        for text in connection:
            message = json.loads(text)
            self.asked.append(message)
            answer = self.answers.get(message["type"], KeyError)
            connection.send(json.dumps({"id": 99, "type": "event", "event": {}}))  # nobody asked for it
            if isinstance(answer, str):  # an error's code, or anything else as it is
                connection.send(answer.replace("$ID", str(message["id"])))
            else:
                connection.send(
                    json.dumps({"id": message["id"], "type": "result", "success": True, "result": answer})
                )


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts servers on loopback and returns their addresses."""
    with contextlib.ExitStack() as stack:

        def start(handler: Callable[[ServerConnection], None]) -> str:
            server = serve(handler, "127.0.0.1", 0, close_timeout=0.1)
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.socket.getsockname()[1]}/"

        yield start


def failure(code: str) -> str:
    return json.dumps({"id": 0, "type": "result", "success": False, "error": {"code": code}}).replace(
        '"id": 0', '"id": $ID'
    )


def wait(connection: ServerConnection) -> None:
    """A server that says nothing."""
    with contextlib.suppress(ConnectionClosed):
        connection.recv()


def send(text: str | bytes) -> Callable[[ServerConnection], None]:
    """A server that says one thing and waits."""

    def handler(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            connection.send(text)
            connection.recv()

    return handler


@contextlib.contextmanager
def web_page(status: str) -> Iterator[str]:
    """A server that answers its first request with this status; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


class TestReadHome:
    """What comes of its answers."""

    def test_everything(self, run: Run) -> None:
        """Exposed entities only, with aliases and areas, also those of their devices."""
        server = FakeHomeAssistant()
        home = read_home(run(server), TOKEN)
        assert home.entities == (
            Entity("Garage door", "cover", device_class="garage", area="Garage"),
            Entity("Desk lamp", "light", ("work light",), area="Study"),
        )
        assert home.areas == (Place("Study", ("office",)), Place("Garage"))
        assert home.floors == (Place("First floor", ("upstairs",)),)
        assert "2026.11.0" in home.origin
        assert "cannot be said: ?!" in home.notes[-1]
        assert [message["id"] for message in server.asked] == list(range(1, 7))

    def test_a_token_that_is_refused(self, run: Run) -> None:
        """Says so, without the token, even if the server repeats it."""
        with pytest.raises(NetworkError, match="refuses the access token") as refused:
            read_home(run(FakeHomeAssistant()), "other-secret")
        assert "other-secret" not in str(refused.value)

    @pytest.mark.parametrize(
        ("code", "hint"),
        [
            ("unauthorized", "must be an administrator's"),
            ("unknown_command", "2024.4 or newer"),
            ("x", r"\(x\)"),
        ],
    )
    def test_a_command_that_is_refused(self, run: Run, code: str, hint: str) -> None:
        """Is named, with what to do."""
        server = FakeHomeAssistant(**{"config/floor_registry/list": failure(code)})
        with pytest.raises(NetworkError, match=f"refuses config/floor_registry/list .*{hint}"):
            read_home(run(server), TOKEN)

    @pytest.mark.parametrize(
        "answers",
        [
            {"get_states": None},
            {"get_states": [1]},
            {"get_states": {}},
            {"homeassistant/expose_entity/list": {}},
            {"homeassistant/expose_entity/list": {"exposed_entities": []}},
            {"config/entity_registry/get_entries": []},
            {"config/area_registry/list": "no JSON"},
            {"config/area_registry/list": "[" * 100_000},
            {"config/area_registry/list": "[]"},
            {"config/area_registry/list": failure("x").replace("{", "[").replace("}", "]")},
        ],
    )
    def test_other_answers_are_refused(self, run: Run, answers: dict[str, Any]) -> None:
        """What is not as Home Assistant sends it is an error, no guess."""
        with pytest.raises(NetworkError, match="not what Home Assistant sends"):
            read_home(run(FakeHomeAssistant(**answers)), TOKEN)

    def test_rows_of_other_types_are_left_out(self, run: Run) -> None:
        """A name that is a number, an id that is a list: nothing that can be said."""
        odd = [{"area_id": [], "name": 5, "aliases": 6}, {"name": "Attic", "aliases": [7, {}, "loft"]}]
        states = [{"entity_id": []}, {"entity_id": "light.desk", "attributes": []}]
        server = FakeHomeAssistant(**{"config/area_registry/list": odd, "get_states": states})
        home = read_home(run(server), TOKEN)
        assert home.areas == (Place("Attic", ("loft",)),)
        assert home.entities == (Entity("desk", "light", ("work light",)),)

    @pytest.mark.parametrize("text", ["", "hello", "[]", '{"type": "x"}', b"\xff\xfe", "5"], ids=repr)
    def test_something_else_at_this_address(self, run: Run, text: str | bytes) -> None:
        """A WebSocket that greets otherwise gets no token."""
        with pytest.raises(NetworkError, match="not what Home Assistant sends"):
            read_home(run(send(text)), TOKEN)

    def test_a_server_without_websockets(self) -> None:
        """Such as a web page, or nothing at all."""
        with web_page("401 Unauthorized") as url, pytest.raises(NetworkError, match="HTTP 401"):
            read_home(url, TOKEN)
        with pytest.raises(NetworkError, match="refused"):
            read_home(url, TOKEN)

    def test_the_token_is_not_taken_elsewhere(self, run: Run) -> None:
        """A redirect is told, not followed."""
        called: list[str] = []
        elsewhere = run(lambda _: called.append("called"))
        page = f"302 Found\r\nLocation: {elsewhere.replace('http', 'ws')}"
        with web_page(page) as url, pytest.raises(NetworkError, match="redirect to ws://"):
            read_home(url, TOKEN)
        assert called == []

    def test_silence_ends(self, run: Run) -> None:
        """Before the greeting, in the middle, and when only other messages come."""
        with pytest.raises(NetworkError, match="in time"):
            read_home(run(wait), TOKEN, 0.3)
        chatter = json.dumps({"id": 99, "type": "event"})

        class Chatter(FakeHomeAssistant):
            def talk(self, connection: ServerConnection) -> None:
                connection.send(json.dumps({"type": "auth_required"}))
                connection.recv()
                connection.send(json.dumps({"type": "auth_ok"}))
                while True:
                    connection.send(chatter)

        with pytest.raises(NetworkError, match="in time"):
            read_home(run(Chatter()), TOKEN, 0.5)
        with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(NetworkError, match="answer"):
            read_home(f"http://127.0.0.1:{listener.getsockname()[1]}", TOKEN, 0.3)

    def test_an_endless_answer_is_not_kept(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Larger than any home."""
        monkeypatch.setattr(home_assistant_api, "MAX_ANSWER_BYTES", 10_000)
        server = FakeHomeAssistant(get_states=[{"entity_id": "a" * 20_000}])
        with pytest.raises(NetworkError, match="connection was lost"):
            read_home(run(server), TOKEN)

    @pytest.mark.parametrize(
        "url",
        ["", "homeassistant.local", "ftp://a", "http://", "http://a:b", "http://u:secret@a", "http://a:0"],
    )
    def test_what_is_no_address(self, url: str) -> None:
        """Is refused before anything is sent, and a password in it is not shown."""
        with pytest.raises(UsageError) as refused:
            read_home(url, TOKEN)
        assert "secret" not in str(refused.value)

    def test_the_token_is_not_in_the_log(
        self,
        run: Run,
        tmp_path: Path,
        edgevoice: Edgevoice,
    ) -> None:
        """Nor anywhere else in what the command prints, however much it is to tell."""
        (tmp_path / "token").write_text(TOKEN + "\n")
        url = run(FakeHomeAssistant())
        done = edgevoice(
            *("grammar", "import", "home-assistant", "--verbose", "--from-ha", url),
            *("--token-file", tmp_path / "token"),
        )
        assert done.returncode == 0, done.stderr
        assert b"work light" in done.stdout
        assert TOKEN.encode() not in done.stdout + done.stderr
        assert b"secret" not in done.stdout + done.stderr


class TestReadToken:
    """The file of the token."""

    def test_one_line(self, tmp_path: Path) -> None:
        """With or without a line end."""
        path = tmp_path / "token"
        path.write_text(f" {TOKEN}\r\n")
        assert read_token(path) == TOKEN

    @pytest.mark.parametrize("content", [b"", b"\n", b"se cret", b"s\xffcret", b"s\x00cret", b"s" * 5000])
    def test_what_is_no_token(self, tmp_path: Path, content: bytes) -> None:
        """Is refused, and not shown."""
        path = tmp_path / "token"
        path.write_bytes(content)
        with pytest.raises(EdgevoiceError) as refused:
            read_token(path)
        text = str(refused.value)
        assert text.startswith(str(path))
        assert "cret" not in text.removeprefix(str(path))

    def test_a_file_that_is_missing(self, tmp_path: Path) -> None:
        """Is named."""
        with pytest.raises(UsageError, match="none cannot be read"):
            read_token(tmp_path / "none")
