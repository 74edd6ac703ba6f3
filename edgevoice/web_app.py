"""The page, and what it asks for: one ASGI application.

    GET  /                       the page; /page.css, /page.js, /icon.svg
    GET  /api/live               server-sent events: what is heard now, that there is a new utterance, health
    GET  /api/utterances         the last ones, in short; ?before=ID: older ones
    GET  /api/utterances/ID      one of them; /sound: its sound
    POST /api/utterances/ID/again    run again with the grammar in use
    POST /api/utterances/ID/label    {"say": TEXT}: what was meant; null: no command
    POST /api/mute               {"muted": true}
    POST /api/text               {"say": TEXT}: what it means, or why nothing
    POST /api/do                 {"say": TEXT}: as if it had been said
    POST /api/trial              {"say": TEXT}: whether it is understood when it is said now
    GET  /api/grammar            its file
    POST /api/grammar            {"text": TEXT, "digest": OF_WHAT_WAS_READ}: saved
    POST /api/grammar/check      {"text": TEXT, "say": TEXT, "samples": N, "seed": N}: what is wrong in it
    WS   /api/microphone?rate=HZ    samples in, what became of them out; &trial=TEXT: it is no command
    GET  /metrics                for Prometheus
    GET, POST /login; POST /logout    with a password

Each request first passes the Door: is it really for us, and from a page of ours?
"""

from __future__ import annotations

import asyncio
import json
import mimetypes
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from edgevoice import __version__, metrics, web_microphone
from edgevoice.errors import CheckFailedError, UsageError
from edgevoice.health import BOUNDS_S
from edgevoice.web_bench import MAX_TEXT
from edgevoice.web_door import Door, Login
from edgevoice.web_live import Utterances
from edgevoice.web_try import MAX_BODY_BYTES, MAX_GRAMMAR_BODY_BYTES, Tries, fields_of, record_id, refuse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from concurrent.futures import ThreadPoolExecutor

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send
    from starlette.websockets import WebSocket

    from edgevoice.commands import Commands
    from edgevoice.config import Config
    from edgevoice.health import Figures
    from edgevoice.web_bench import Bench
    from edgevoice.web_door import Endpoint
    from edgevoice.web_live import Live
    from edgevoice.web_password import Verifier

    _SendEvent = Callable[[str, object], Awaitable[None]]

_What = TypeVar("_What")

_FILES: Final = Path(__file__).with_name("web")
_OPEN_FILES: Final = tuple(
    each.name for each in sorted(_FILES.iterdir()) if each.suffix in {".css", ".svg", ".js"}
)
"""That are told without a password: what is in them is in every edgevoice."""

MAX_STREAMS: Final = 8
"""Pages that are open at once, of which each costs a hundredth of a small board's core."""

_LOOK_S: Final = 0.1  # between two looks at what is heard; the eye wants no more
_HEALTH_S: Final = 5.0  # between two looks at figures


def application(
    config: Config,
    live: Live,
    figures: Figures,
    commands: Commands,
    *,
    bench: Bench,
    verifier: Verifier | None,
    worker: ThreadPoolExecutor,
    engine: ThreadPoolExecutor,
    stopping: asyncio.Event,
) -> ASGIApp:
    """Return the application.

    Args:
        config: everything else.
        live: what is heard.
        figures: how all fares.
        commands: who mutes.
        bench: what can be tried, and changed.
        verifier: of the password; None: none is asked for.
        worker: does what takes time, one after the other.
        engine: runs records again.
        stopping: set when the server ends; then streams end.
    """
    page = _Page(config, live, figures, commands, bench, worker=worker, stopping=stopping)
    tries = Tries(config, bench, worker=worker, engine=engine, stopping=stopping)
    login = Login(verifier, _file("login.html"), worker)
    inside = login.wanted
    files = [Route(f"/{name}", _file(name)) for name in _OPEN_FILES]
    routes = [
        *files,
        Route("/login", login.show),
        Route("/login", login.take, methods=["POST"], max_body_size=MAX_BODY_BYTES),
        Route("/logout", login.leave, methods=["POST"], max_body_size=MAX_BODY_BYTES),
        Route("/", inside(_file("index.html"))),
        Route("/api/live", inside(page.stream)),
        Route("/api/utterances", inside(page.utterances)),
        Route("/api/utterances/{id}", inside(page.utterance)),
        Route("/api/utterances/{id}/sound", inside(page.sound)),
        *(
            Route(f"/api/{path}", inside(take), methods=["POST"], max_body_size=MAX_BODY_BYTES)
            for path, take in (
                ("mute", page.mute),
                ("text", tries.text),
                ("do", tries.do),
                ("trial", tries.trial),
                ("utterances/{id}/again", tries.again),
                ("utterances/{id}/label", tries.label),
            )
        ),
        Route("/api/grammar", inside(tries.grammar)),
        Route("/api/grammar", inside(tries.save), methods=["POST"], max_body_size=MAX_GRAMMAR_BODY_BYTES),
        Route(
            "/api/grammar/check", inside(tries.check), methods=["POST"], max_body_size=MAX_GRAMMAR_BODY_BYTES
        ),
        WebSocketRoute("/api/microphone", login.wanted_to_speak(page.speak)),
        Route("/metrics", inside(page.metrics)),
    ]
    refusals = {HTTPException: refuse, UsageError: refuse, CheckFailedError: refuse}
    app = Starlette(routes=routes, exception_handlers=refusals)
    app.router.redirect_slashes = False
    return Door(app, config.web.name)


def _file(name: str) -> Endpoint:
    """Return what tells one of our files, which is read once."""
    path = _FILES / name
    data, kind = path.read_bytes(), mimetypes.guess_type(name)[0]

    async def tell(_: Request) -> Response:
        return Response(data, media_type=kind)

    return tell


class _Page:
    """What the page asks for."""

    def __init__(
        self,
        config: Config,
        live: Live,
        figures: Figures,
        commands: Commands,
        bench: Bench,
        *,
        worker: ThreadPoolExecutor,
        stopping: asyncio.Event,
    ) -> None:
        self._config = config
        self._live = live
        self._figures = figures
        self._commands = commands
        self._bench = bench
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
            settings: dict[str, object] = {}
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
                    await send("health", await self._read(self._health))
                    if (seen := self._settings()) != settings:
                        settings = seen
                        await send("settings", settings)
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

    def _health(self) -> dict[str, object]:
        stages = {name: each.counts for name, each in self._figures.stages().items()}
        return self._figures.report() | {"bounds_s": BOUNDS_S, "stages": stages}

    def _settings(self) -> dict[str, object]:
        config, commands = self._config, self._commands
        recogniser, reloader = commands.recogniser, commands.reloader
        return {
            "grammar": reloader.state() if reloader else None,
            "confidence": recogniser.min_confidence if recogniser else config.recognition.min_confidence,
            "language": recogniser.language if recogniser else None,
            "model": config.model.name,
            "threads": config.model.thread_count,
            "mode": config.recognition.mode,
            "microphone": config.audio.device if config.audio.enabled else False,
            "wake": {"mode": config.wake.mode, "phrase": config.wake.phrase, "model": config.wake.model},
            "silence_ms": [
                config.endpoint.finished_ms, config.endpoint.silence_ms, config.endpoint.unfinished_ms,
            ],
            "broker": config.mqtt.host,
            "edit": config.web.edit,
        }  # fmt: skip

    async def utterances(self, request: Request) -> Response:
        """Tell the last ones."""
        before = request.query_params.get("before")
        found, more = await self._read(self._utterances.page, None if before is None else record_id(before))
        return JSONResponse({"utterances": found, "more": more})

    async def utterance(self, request: Request) -> Response:
        """Tell one."""
        found = await self._read(self._utterances.find, record_id(request.path_params["id"]))
        if found is None:
            raise HTTPException(404, "there is no such utterance (any longer)")
        return JSONResponse(found)

    async def sound(self, request: Request) -> Response:
        """Let one be heard."""
        path = await self._read(self._utterances.sound, record_id(request.path_params["id"]))
        if path is None:
            raise HTTPException(404, "its sound is not kept (any longer)")
        try:
            return FileResponse(path, media_type="audio/flac", stat_result=path.stat())
        except FileNotFoundError:
            raise HTTPException(404, "its sound is not kept (any longer)") from None

    async def mute(self, request: Request) -> Response:
        """Hear nothing, or again."""
        muted = (await fields_of(request, "muted")).get("muted")
        if not isinstance(muted, bool):
            raise HTTPException(400, 'allowed is {"muted": true} or {"muted": false}')
        self._commands.take("mute", b"ON" if muted else b"OFF")
        return JSONResponse({"muted": self._commands.muted})

    async def speak(self, socket: WebSocket) -> None:
        """Let a browser be the microphone."""
        wanted = None
        if (text := socket.query_params.get("trial")) is not None:
            try:
                wanted = await self._read(self._bench.wanted, text[:MAX_TEXT])
            except UsageError as error:
                await web_microphone.refuse(socket, str(error))
                return
        await web_microphone.speak(socket, self._commands.floor, self._config.site, self._stopping, wanted)

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
