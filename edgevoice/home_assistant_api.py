"""What a running Home Assistant has: exposed entities, areas and floors, with their aliases.

Over its WebSocket API, because its REST API tells neither aliases nor what is exposed to voice assistants.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import re
import socket
import time
import urllib.parse
from typing import TYPE_CHECKING, Any, Final, TypeVar

from edgevoice import extras
from edgevoice.config import read_regular_file
from edgevoice.entities import Entity, Home, Place, can_be_said
from edgevoice.errors import NetworkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

Answer = TypeVar("Answer")

TIMEOUT_S: Final = 30.0
"""For everything together; a home of 3,000 entities answers in a second."""

MAX_ANSWER_BYTES: Final = 64_000_000
"""Of one message; the states of 3,000 entities take 4 MB."""

_MAX_TOKEN_BYTES: Final = 4_000
_TOKEN: Final = re.compile(rb"[!-~]+")

_ASSISTANT: Final = "conversation"
"""What Home Assistant calls its own voice assistant where it says who may see an entity."""

_quiet: Final = logging.getLogger("edgevoice.home_assistant_api.websocket")
_quiet.setLevel(logging.WARNING)  # below that, it shows every message, and the first one is the token


def read_token(path: Path) -> str:
    """Return the access token in a file.

    Raises:
        UsageError: the file cannot be read, or is no token; what it holds is never shown.
    """
    try:
        content = read_regular_file(path, _MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); write the token into it") from None
    token = content.strip()
    if not 0 < len(token) <= _MAX_TOKEN_BYTES or not _TOKEN.fullmatch(token):
        raise UsageError(
            f"{path} holds {len(content)} bytes that are no access token; write only the token into it"
        )
    return token.decode("ascii")


def read_home(url: str, token: str, timeout_s: float = TIMEOUT_S) -> Home:
    """Ask a running Home Assistant.

    Args:
        url: of its web page, such as "http://homeassistant.local:8123".
        token: a long-lived access token of an administrator.
        timeout_s: seconds for everything.

    Raises:
        UsageError: the address cannot be one, or websockets is not installed.
        NetworkError: it cannot be reached, refuses the token, or answers with something else.
    """
    if importlib.util.find_spec("websockets") is None:
        raise UsageError(
            f"websockets is not installed, which --from-ha needs; run: {extras.remedy('home-assistant')}"
        )
    address, deadline = _address(url), time.monotonic() + timeout_s
    with _connected(address, timeout_s) as connection:
        return _Client(connection, address, deadline).home(url, token)


def _address(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        usable = None
    if not usable or "@" in url:  # a password would be shown in errors
        raise UsageError(
            "the address of Home Assistant must be as in http://homeassistant.local:8123, without a password"
        )
    return f"ws{parts.scheme.removeprefix('http')}://{parts.netloc}{parts.path.rstrip('/')}/api/websocket"


@contextlib.contextmanager
def _connected(address: str, timeout_s: float) -> Iterator[ClientConnection]:
    from websockets.exceptions import InvalidHandshake, InvalidURI  # noqa: PLC0415 - optional
    from websockets.sync.client import connect  # noqa: PLC0415

    parts = urllib.parse.urlsplit(address)
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    with contextlib.ExitStack() as stack:
        try:
            connection = stack.enter_context(
                connect(
                    address,
                    # With a socket of ours it follows no redirects, which would take the token elsewhere.
                    sock=socket.create_connection((str(parts.hostname), port), timeout_s),
                    open_timeout=timeout_s,
                    close_timeout=1,
                    max_size=MAX_ANSWER_BYTES,
                    compression=None,
                    logger=_quiet,
                )
            )
        except (OSError, InvalidHandshake, InvalidURI, EOFError, ValueError) as error:
            raise NetworkError(
                f"{address} does not answer as Home Assistant ({_short(error)}); "
                "check the address, and that it is running"
            ) from None
        yield connection


class _Client:
    """One connection, from the greeting to the last answer."""

    def __init__(self, connection: ClientConnection, address: str, deadline: float) -> None:
        self._connection, self._address, self._deadline = connection, address, deadline
        self._number = 0

    def home(self, url: str, token: str) -> Home:
        version = self._greet(token)
        exposed = {
            name
            for name, assistants in self._ask("homeassistant/expose_entity/list", _exposed).items()
            if isinstance(assistants, dict) and assistants.get(_ASSISTANT)
        }
        states = [row for row in self._ask("get_states", _rows) if _text(row, "entity_id") in exposed]
        entries = self._ask("config/entity_registry/get_entries", _mapping, entity_ids=sorted(exposed))
        devices = self._ask("config/device_registry/list", _rows)
        areas = self._ask("config/area_registry/list", _rows)
        floors = self._ask("config/floor_registry/list", _rows)
        unsaid: list[str] = []
        area_names = {_text(row, "area_id"): _text(row, "name") for row in areas}
        device_areas = {_text(row, "id"): _text(row, "area_id") for row in devices}
        entities: list[Entity] = []
        for state in states:
            entry = entries.get(state["entity_id"])
            entry = entry if isinstance(entry, dict) else {}
            area = _text(entry, "area_id") or device_areas.get(_text(entry, "device_id"), "")
            if entity := _entity(state, entry, area_names.get(area), unsaid):
                entities.append(entity)
        notes = [f"{len(entities)} of {len(exposed)} entities that are exposed to Assist, with their aliases"]
        found = (_places(areas, unsaid), _places(floors, unsaid))
        if unsaid:
            notes.append("without names that cannot be said: " + ", ".join(sorted(set(unsaid))[:20]))
        return Home(
            f"Home Assistant {version} at {url}",
            tuple(sorted(entities, key=lambda entity: (entity.domain, entity.name.casefold()))),
            *found,
            tuple(notes),
        )

    def _greet(self, token: str) -> str:
        """Log in and return Home Assistant's version."""
        greeting = self._receive()
        if greeting.get("type") != "auth_required":
            raise self._strange("a greeting")
        self._send({"type": "auth", "access_token": token})
        answer = self._receive()
        if answer.get("type") == "auth_invalid":
            raise NetworkError(
                f"{self._address} refuses the access token; make a new one in Home Assistant: your profile, "
                "Security, Long-lived access tokens"
            )
        if answer.get("type") != "auth_ok":
            raise self._strange("the log-in")
        return _plain(answer.get("ha_version"))

    def _ask(self, command: str, checked: Callable[[Any], Answer | None], **more: Any) -> Answer:
        self._number += 1
        self._send({"id": self._number, "type": command, **more})
        answer = self._receive()
        while answer.get("id") != self._number or answer.get("type") != "result":
            answer = self._receive()
        if answer.get("success") is not True:
            error = answer.get("error")
            code = _plain(error.get("code")) if isinstance(error, dict) else "no reason"
            hint = {
                "unauthorized": "; the token must be an administrator's",
                "unknown_command": "; Home Assistant 2024.4 or newer is needed",
            }.get(code, "")
            raise NetworkError(f"{self._address} refuses {command} ({code}){hint}")
        result = checked(answer.get("result"))
        if result is None:
            raise self._strange(command)
        return result

    def _send(self, message: dict[str, Any]) -> None:
        from websockets.exceptions import WebSocketException  # noqa: PLC0415 - optional

        try:
            self._connection.send(json.dumps(message))
        except (OSError, WebSocketException) as error:
            raise self._lost(error) from None

    def _receive(self) -> dict[str, Any]:
        from websockets.exceptions import WebSocketException  # noqa: PLC0415 - optional

        try:
            message = json.loads(self._connection.recv(timeout=self._left_s()))
        except TimeoutError:
            raise self._late() from None
        except (OSError, EOFError, WebSocketException) as error:
            raise self._lost(error) from None
        except (ValueError, RecursionError):  # no JSON, or thousands of levels of it
            raise self._strange("a message") from None
        if not isinstance(message, dict):
            raise self._strange("a message")
        return message

    def _left_s(self) -> float:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise self._late()
        return left_s

    def _late(self) -> NetworkError:
        return NetworkError(f"{self._address} does not answer in time; check that Home Assistant is well")

    def _lost(self, error: Exception) -> NetworkError:
        return NetworkError(f"{self._address}: the connection was lost ({_short(error)}); try again")

    def _strange(self, what: str) -> NetworkError:
        return NetworkError(
            f"{self._address}: {what} is not what Home Assistant sends; check what answers at this address"
        )


def _short(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return _plain(text.splitlines()[0] if text else type(error).__name__)


def _plain(value: object) -> str:
    """Return a text of the other side, fit to be shown."""
    return "".join(c for c in str(value) if c.isprintable())[:80]


def _rows(result: Any) -> list[dict[str, Any]] | None:
    usable = isinstance(result, list) and all(isinstance(row, dict) for row in result)
    return result if usable else None


def _mapping(result: Any) -> dict[str, Any] | None:
    return result if isinstance(result, dict) else None


def _exposed(result: Any) -> dict[str, Any] | None:
    return _mapping(result.get("exposed_entities")) if isinstance(result, dict) else None


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else ""


def _entity(
    state: dict[str, Any], entry: dict[str, Any], area: str | None, unsaid: list[str]
) -> Entity | None:
    domain, _, rest = _text(state, "entity_id").partition(".")
    attributes = state.get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    name = _said(_text(attributes, "friendly_name") or rest.replace("_", " "), unsaid)
    aliases = _aliases(entry, unsaid)
    if not name and not aliases:
        return None
    return Entity(
        name=name or aliases[0],
        domain=domain,
        aliases=aliases,
        device_class=_text(attributes, "device_class") or None,
        area=area or None,
    )


def _places(rows: list[dict[str, Any]], unsaid: list[str]) -> tuple[Place, ...]:
    return tuple(
        Place(name, _aliases(row, unsaid)) for row in rows if (name := _said(_text(row, "name"), unsaid))
    )


def _aliases(row: dict[str, Any], unsaid: list[str]) -> tuple[str, ...]:
    """Return the other names; since 2026.4 one that is null stands for the name."""
    aliases = row.get("aliases")
    given: Iterable[object] = aliases if isinstance(aliases, list) else ()
    texts = (alias for alias in given if isinstance(alias, str))
    return tuple(sorted(name for alias in texts if (name := _said(alias, unsaid))))


def _said(text: str, unsaid: list[str]) -> str:
    """Return a name with single spaces; nothing, and a note of it, when it cannot be said."""
    name = " ".join(text.split())
    if can_be_said(name):
        return name
    if name:
        unsaid.append(_plain(name))
    return ""
