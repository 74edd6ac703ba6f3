"""The page, and what it asks for: one ASGI application.

    GET  /                       the page; /page.css, /page.js, /icon.svg
    GET  /api/live               server-sent events: what is heard now, that there is a new utterance, health
    GET  /api/utterances         the last ones, in short; ?before=ID: older ones
    GET  /api/utterances/ID      one of them; /sound: its sound
    POST /api/mute               {"muted": true}
    WS   /api/microphone?rate=HZ    samples in, what became of them out
    GET  /metrics                for Prometheus
    GET, POST /login; POST /logout    with a password

Each request first passes the Door: is it really for us, and from a page of ours?
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import mimetypes
import re
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute

from edgevoice import __version__, metrics, records, web_microphone
from edgevoice.errors import UsageError
from edgevoice.web_live import Utterances
from edgevoice.web_password import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from concurrent.futures import ThreadPoolExecutor

    from starlette.requests import HTTPConnection, Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from starlette.websockets import WebSocket

    from edgevoice.commands import Commands
    from edgevoice.config import Config
    from edgevoice.health import Figures
    from edgevoice.web_live import Live
    from edgevoice.web_password import Verifier

    _Endpoint = Callable[[Request], Awaitable[Response]]
    _SocketEndpoint = Callable[[WebSocket], Awaitable[None]]
    _SendEvent = Callable[[str, object], Awaitable[None]]

_What = TypeVar("_What")

_FILES: Final = Path(__file__).with_name("web")
_COOKIE: Final = "edgevoice"
_MAX_BODY_BYTES: Final = 4_096  # a password in a form, where each byte may be three
MAX_SESSIONS: Final = 32
"""Browsers logged in at once; the one that was not seen for longest makes room."""

_SESSION_S: Final = 30 * 86_400.0  # since it was last seen: a telephone looks now and then
MAX_STREAMS: Final = 8
"""Pages that are open at once, of which each costs a hundredth of a small board's core."""

_LOOK_S: Final = 0.1  # between two looks at what is heard; the eye wants no more
_HEALTH_S: Final = 5.0  # between two looks at figures
_WRONG_S: Final = 1.0  # that a wrong password costs, one after the other
_MAX_GUESSES: Final = 4  # that wait for that
_CACHE_NOTHING: Final = "no-store"
_HEADERS: Final = {
    # Nothing but our own files, no script in the page, nobody's frame.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; media-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": _CACHE_NOTHING,
}


def application(
    config: Config,
    live: Live,
    figures: Figures,
    commands: Commands,
    verifier: Verifier | None,
    *,
    worker: ThreadPoolExecutor,
    stopping: asyncio.Event,
) -> ASGIApp:
    """Return the application.

    Args:
        config: everything else.
        live: what is heard.
        figures: how all fares.
        commands: who mutes.
        verifier: of the password; None: none is asked for.
        worker: does what takes time, one after the other.
        stopping: set when the server ends; then streams end.
    """
    page = _Page(config, live, figures, commands, worker=worker, stopping=stopping)
    login = _Login(verifier, worker)
    inside = login.wanted
    files = [Route(f"/{name}", _file(name)) for name in ("page.css", "page.js", "microphone.js", "icon.svg")]
    routes = [
        *files,
        Route("/login", login.show),
        Route("/login", login.take, methods=["POST"], max_body_size=_MAX_BODY_BYTES),
        Route("/logout", login.leave, methods=["POST"], max_body_size=_MAX_BODY_BYTES),
        Route("/", inside(_file("index.html"))),
        Route("/api/live", inside(page.stream)),
        Route("/api/utterances", inside(page.utterances)),
        Route("/api/utterances/{id}", inside(page.utterance)),
        Route("/api/utterances/{id}/sound", inside(page.sound)),
        Route("/api/mute", inside(page.mute), methods=["POST"], max_body_size=_MAX_BODY_BYTES),
        WebSocketRoute("/api/microphone", login.wanted_to_speak(page.speak)),
        Route("/metrics", inside(page.metrics)),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refuse})
    app.router.redirect_slashes = False
    return _Door(app, config.web.name)


def _file(name: str) -> _Endpoint:
    """Return what tells one of our files, which is read once."""
    path = _FILES / name
    data, kind = path.read_bytes(), mimetypes.guess_type(name)[0]

    async def tell(_: Request) -> Response:
        return Response(data, media_type=kind)

    return tell


async def _refuse(_: Request, error: Exception) -> Response:
    """Tell why, in a line."""
    if not isinstance(error, HTTPException):
        raise error
    return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)


class _Door:
    """Lets in what is addressed to us, and by a page of ours.

    A page from elsewhere may give our address to its own name (DNS rebinding), and browsers then take it for
    ours: so who asks must call us by our address or a name of ours. And what changes something must come from
    our own page.
    """

    def __init__(self, app: ASGIApp, name: str | None) -> None:
        self._app = app
        self._names = {"localhost", *([name.lower()] if name else [])}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                told = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    told.setdefault(name, value)
            await send(message)

        why = self._why_not(scope, headers)
        app = self._app if why is None else PlainTextResponse(f"{why[1]}\n", why[0])
        try:
            await app(scope, receive, send_with_headers)
        except asyncio.CancelledError:  # the server ends, and who has asked has waited for too long
            return

    def _why_not(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._ours(hosts[0], scope["server"][0]):
            return 421, "this name is not ours; call us by our address, or set web.name to it"
        elsewhere = headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
        if elsewhere and headers.get("sec-fetch-mode") != "navigate":
            return 403, "asked for by a page from elsewhere"
        # A browser lets every page open a WebSocket.
        if scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD"):
            origin = headers.get("origin", "")
            if origin.partition("://")[2].lower() != hosts[0].lower():
                return 403, "asked for by a page from elsewhere; Origin must be our own"
        return None

    def _ours(self, host: str, address: str) -> bool:
        found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?", host)
        if found is None:
            return False
        name = (found[1] or found[2]).lower()
        return name in self._names or _same_address(name, address)


def _same_address(name: str, address: str) -> bool:
    try:
        one, other = (ipaddress.ip_address(each.partition("%")[0]) for each in (name, address))
    except ValueError:
        return False
    return one == other or other == ipaddress.ip_address(f"::ffff:{one}" if one.version == 4 else one)


class _Login:
    """Who may look; all may without a password.

    Args:
        verifier: of the password; None: there is none.
        worker: computes what takes long.
    """

    def __init__(self, verifier: Verifier | None, worker: ThreadPoolExecutor) -> None:
        self._verifier = verifier
        self._sessions: dict[bytes, float] = {}  # what a cookie is hashed to, and when it was last seen
        self._turn = asyncio.Lock()
        self._guesses = 0
        self._key = secrets.token_bytes()
        self._known: bytes | None = None  # the password that was right, hashed fast with a key of this run
        self._worker = worker
        self._form = _file("login.html")

    def wanted(self, endpoint: _Endpoint) -> _Endpoint:
        """Return what asks for the password first."""

        async def ask(request: Request) -> Response:
            if self._verifier is None or self._inside(request):
                return await endpoint(request)
            if request.url.path == "/":
                return RedirectResponse("/login", 303)
            if request.url.path == "/metrics":
                return await self._basic(request, endpoint)
            raise HTTPException(401, "log in first, at /login")

        return ask

    def wanted_to_speak(self, endpoint: _SocketEndpoint) -> _SocketEndpoint:
        """Return what asks for the password first."""

        async def ask(socket: WebSocket) -> None:
            if self._verifier is None or self._inside(socket):
                await endpoint(socket)
            else:
                await socket.send_denial_response(PlainTextResponse("log in first, at /login\n", 401))

        return ask

    async def show(self, request: Request) -> Response:
        """Ask for the password."""
        if self._verifier is None or self._inside(request):
            return RedirectResponse("/", 303)
        return await self._form(request)

    async def take(self, request: Request) -> Response:
        """Take it."""
        body = (await request.body()).decode("utf-8", "replace")
        try:
            password = parse_qs(body, max_num_fields=4).get("password", [""])[0]
        except ValueError:
            raise HTTPException(400, "one field, password, is allowed") from None
        if not await self._right(password):
            return RedirectResponse("/login#wrong", 303)
        token = secrets.token_urlsafe(32)
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[min(self._sessions, key=lambda each: self._sessions[each])]
        self._sessions[_digest(token)] = time.monotonic()
        answer = RedirectResponse("/", 303)
        # Without `secure`: we speak plain HTTP; who has put TLS before us loses nothing on the way.
        answer.set_cookie(_COOKIE, token, max_age=int(_SESSION_S), httponly=True, samesite="strict")
        return answer

    async def leave(self, request: Request) -> Response:
        """Forget who has logged in."""
        self._sessions.pop(_digest(request.cookies.get(_COOKIE, "")), None)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(_COOKIE, httponly=True, samesite="strict")
        return answer

    def _inside(self, request: HTTPConnection) -> bool:
        digest = _digest(request.cookies.get(_COOKIE, ""))  # looked up by its hash, so time tells nothing
        seen_s = self._sessions.get(digest)
        if seen_s is None or time.monotonic() - seen_s > _SESSION_S:
            self._sessions.pop(digest, None)
            return False
        self._sessions[digest] = time.monotonic()
        return True

    async def _basic(self, request: Request, endpoint: Callable[[Request], Awaitable[Response]]) -> Response:
        """Let Prometheus in, which has no cookies: any user name, and the password."""
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                password = base64.b64decode(text, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                raise HTTPException(400, "Authorization: Basic is base64 of USER:PASSWORD") from None
            if await self._right(password):
                return await endpoint(request)
        raise HTTPException(401, "the password is wanted", {"www-authenticate": 'Basic realm="edgevoice"'})

    async def _right(self, password: str) -> bool:
        """Whether it is the password; a wrong one takes a second, one after the other."""
        if self._verifier is None or len(password.encode("utf-8", "replace")) > MAX_BYTES:
            return False
        digest = hmac.digest(self._key, password.encode("utf-8", "replace"), "sha256")
        if self._known is not None and hmac.compare_digest(digest, self._known):
            return True
        if self._guesses >= _MAX_GUESSES:
            raise HTTPException(429, "too many passwords at once; try again in some seconds")
        self._guesses += 1
        try:
            async with self._turn:
                loop = asyncio.get_running_loop()
                if await loop.run_in_executor(self._worker, self._verifier.verify, password):
                    self._known = digest
                    return True
                await asyncio.sleep(_WRONG_S)
                return False
        finally:
            self._guesses -= 1


class _Page:
    """What the page asks for."""

    def __init__(
        self,
        config: Config,
        live: Live,
        figures: Figures,
        commands: Commands,
        *,
        worker: ThreadPoolExecutor,
        stopping: asyncio.Event,
    ) -> None:
        self._config = config
        self._live = live
        self._figures = figures
        self._commands = commands
        self._stopping = stopping
        self._utterances = Utterances(config, live)
        self._worker = worker
        self._streams = 0

    async def stream(self, request: Request) -> Response:
        """Tell what is heard, until the page or the server goes."""
        return Response() if request.method == "HEAD" else _Stream(self._tell)

    async def _tell(self, begin: Callable[[], Awaitable[None]], send: _SendEvent) -> None:
        if self._streams >= MAX_STREAMS:
            raise HTTPException(503, f"{MAX_STREAMS} pages are open; close one")
        self._streams += 1
        try:
            await begin()
            await send("about", self._about())
            told: dict[str, object] = {}
            count, health_s = self._live.count, -_HEALTH_S
            while not self._stopping.is_set():
                now = self._live.now() | {"muted": self._commands.muted}
                if now != told:
                    await send("live", now)
                    told = now
                if self._live.count != count:
                    count = self._live.count
                    await send("utterance", count)
                if time.monotonic() - health_s >= _HEALTH_S:  # a sign of life, too
                    health_s = time.monotonic()
                    await send("health", await self._read(self._figures.report))
                await asyncio.sleep(_LOOK_S)
        finally:
            self._streams -= 1

    def _about(self) -> dict[str, object]:
        config = self._config
        return {
            "site": config.site,
            "version": __version__,
            "speech_threshold": config.vad.threshold,
            "records": {"keep": config.records.keep, "audio": config.records.audio},
            "password": config.web.password_file is not None,
        }

    async def utterances(self, request: Request) -> Response:
        """Tell the last ones."""
        before = request.query_params.get("before")
        found, more = await self._read(self._utterances.page, None if before is None else _id(before))
        return JSONResponse({"utterances": found, "more": more})

    async def utterance(self, request: Request) -> Response:
        """Tell one."""
        found = await self._read(self._utterances.find, _id(request.path_params["id"]))
        if found is None:
            raise HTTPException(404, "there is no such utterance (any longer)")
        return JSONResponse(found)

    async def sound(self, request: Request) -> Response:
        """Let one be heard."""
        path = await self._read(self._utterances.sound, _id(request.path_params["id"]))
        if path is None:
            raise HTTPException(404, "its sound is not kept (any longer)")
        try:
            return FileResponse(path, media_type="audio/flac", stat_result=path.stat())
        except FileNotFoundError:
            raise HTTPException(404, "its sound is not kept (any longer)") from None

    async def mute(self, request: Request) -> Response:
        """Hear nothing, or again."""
        try:
            fields = json.loads(await request.body())
        except (ValueError, RecursionError):
            raise HTTPException(400, "this is no JSON") from None
        muted = fields.get("muted") if isinstance(fields, dict) else None
        if not isinstance(muted, bool):
            raise HTTPException(400, 'allowed is {"muted": true} or {"muted": false}')
        try:
            self._commands.take("mute", b"ON" if muted else b"OFF")
        except UsageError as error:
            raise HTTPException(409, str(error)) from None
        return JSONResponse({"muted": self._commands.muted})

    async def speak(self, socket: WebSocket) -> None:
        """Let a browser be the microphone."""
        await web_microphone.speak(socket, self._commands.floor, self._config.site, self._stopping)

    async def metrics(self, _: Request) -> Response:
        """Tell Prometheus."""
        text = await self._read(metrics.text_of, self._figures, self._config.site)
        return Response(text, headers={"content-type": metrics.CONTENT_TYPE})

    async def _read(self, work: Callable[..., _What], *arguments: object) -> _What:
        """Do what may wait for the disk, one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, work, *arguments)


class _Stream(Response):
    """Server-sent events, https://html.spec.whatwg.org/multipage/server-sent-events.html."""

    def __init__(self, tell: Callable[[Callable[[], Awaitable[None]], _SendEvent], Awaitable[None]]) -> None:
        super().__init__(media_type="text/event-stream")
        del self.headers["content-length"]
        self._tell = tell

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        async def begin() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

        async def send_part(data: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        async def send_event(kind: str, data: object) -> None:
            text = json.dumps(data, ensure_ascii=False)
            await send_part(f"event: {kind}\ndata: {text}\n\n".encode("utf-8", "replace"))

        async def leave() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        telling = asyncio.ensure_future(self._tell(begin, send_event))
        leaving = asyncio.ensure_future(leave())
        try:
            await asyncio.wait({telling, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            telling.cancel()
        if telling.done():
            telling.result()
            await send_part(b"", more=False)


def _id(text: str) -> str:
    """Return the name of a record; nothing else is looked for on the disk."""
    if records.ID.fullmatch(text) is None:
        raise HTTPException(404, "this is no name of an utterance")
    return text


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
