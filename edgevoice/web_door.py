"""Who may ask the page for anything: the door, and the password.

request -> Door: is it really for us, and from a page of ours? -> Login: has who asks said the password?
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from edgevoice.web_password import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from concurrent.futures import ThreadPoolExecutor

    from starlette.requests import HTTPConnection, Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from starlette.websockets import WebSocket

    from edgevoice.web_password import Verifier

    Endpoint = Callable[[Request], Awaitable[Response]]
    SocketEndpoint = Callable[[WebSocket], Awaitable[None]]

MAX_SESSIONS: Final = 32
"""Browsers logged in at once; the one that was not seen for longest makes room."""

_COOKIE: Final = "edgevoice"
_SESSION_S: Final = 30 * 86_400.0  # since it was last seen: a telephone looks now and then
_WRONG_S: Final = 1.0  # that a wrong password costs, one after the other
_MAX_GUESSES: Final = 4  # that wait for that
_HEADERS: Final = {
    # Nothing but our own files, no script in the page, nobody's frame.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; media-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Door:
    """Lets in what is addressed to us, and by a page of ours.

    A page from elsewhere may give our address to its own name (DNS rebinding), and browsers then take it for
    ours: so who asks must call us by our address or a name of ours. And what changes something must come from
    our own page.
    """

    def __init__(self, app: ASGIApp, name: str | None) -> None:
        self._app = app
        self._names = {"localhost", *([name.lower()] if name else [])}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or say why not."""
        headers = Headers(scope=scope)
        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            begun = True
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
            if not begun and scope["type"] == "http":
                await PlainTextResponse("edgevoice ends\n", 503)(scope, receive, send_with_headers)

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


class Login:
    """Who may look; all may without a password.

    Args:
        verifier: of the password; None: there is none.
        form: asks for it.
        worker: computes what takes long.
    """

    def __init__(self, verifier: Verifier | None, form: Endpoint, worker: ThreadPoolExecutor) -> None:
        self._verifier = verifier
        self._sessions: dict[bytes, float] = {}  # what a cookie is hashed to, and when it was last seen
        self._turn = asyncio.Lock()
        self._guesses = 0
        self._key = secrets.token_bytes()
        self._known: bytes | None = None  # the password that was right, hashed fast with a key of this run
        self._worker = worker
        self._form = form

    def wanted(self, endpoint: Endpoint) -> Endpoint:
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

    def wanted_to_speak(self, endpoint: SocketEndpoint) -> SocketEndpoint:
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


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
