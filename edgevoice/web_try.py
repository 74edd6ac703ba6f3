"""What the page asks the bench for: JSON in, JSON out, each within its bounds.

    POST /api/text, do, trial, grammar, grammar/check, utterances/ID/again, label ──> web_bench.py

What cannot be has a status: 400 no such question, 403 not allowed, 404 not there, 409 not now or not so,
413 too long, 422 a grammar with errors, 503 others are at it, again soon.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final, TypeVar

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse

from edgevoice import records
from edgevoice.errors import UsageError
from edgevoice.publish import result_fields
from edgevoice.web_bench import MAX_TEXT, compare
from edgevoice.web_grammar import MAX_GRAMMAR_BYTES, BusyError, ReadOnlyError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from starlette.requests import Request
    from starlette.responses import Response

    from edgevoice.config import Config
    from edgevoice.web_bench import Bench

MAX_BODY_BYTES: Final = 4_096
"""A sentence, or a password in a form, where each byte may be three."""

MAX_GRAMMAR_BODY_BYTES: Final = 2 * MAX_GRAMMAR_BYTES + MAX_BODY_BYTES
"""In JSON the end of a line has two bytes, and so have quotes."""

_MAX_SAMPLES: Final = 20
_RETRY_AFTER_S: Final = 2
_What = TypeVar("_What")


class Tries:
    """Answers them.

    Args:
        config: names the site.
        bench: tries.
        worker: does what takes time, one after the other.
        engine: the same for what wants the engine.
        stopping: set when the server ends.
    """

    def __init__(
        self,
        config: Config,
        bench: Bench,
        *,
        worker: ThreadPoolExecutor,
        engine: ThreadPoolExecutor,
        stopping: asyncio.Event,
    ) -> None:
        self._site = config.site
        self._edit = config.web.edit
        self._bench = bench
        self._worker = worker
        self._engine = engine
        self._stopping = stopping
        self._running = False  # whether a record is run again

    async def text(self, request: Request) -> Response:
        """Tell what a typed text means."""
        return JSONResponse(await self._read(self._bench.read, await _sentence(request)))

    async def do(self, request: Request) -> Response:
        """Act on it as if it had been said."""
        return JSONResponse({"result": await self._read(self._bench.give, await _sentence(request))})

    async def trial(self, request: Request) -> Response:
        """Tell whether a sentence is understood when it is said."""
        wanted = await self._read(self._bench.wanted, await _sentence(request))

        async def gone() -> bool:
            return self._stopping.is_set() or await request.is_disconnected()

        result = await self._bench.hear(gone)
        return JSONResponse(compare(wanted, result_fields(result, self._site)))

    async def again(self, request: Request) -> Response:
        """Run a record again."""
        await fields_of(request)
        wanted = record_id(request.path_params["id"])
        if self._running:
            raise BusyError("another one is run; try again when it is done")
        self._running = True
        try:
            loop = asyncio.get_running_loop()
            return JSONResponse(await loop.run_in_executor(self._engine, self._bench.shelf.again, wanted))
        finally:
            self._running = False

    async def label(self, request: Request) -> Response:
        """Take what was meant."""
        wanted = record_id(request.path_params["id"])
        fields = await fields_of(request, "say")
        meant = None
        if fields.get("say", "") is not None:
            meant = await self._read(self._bench.wanted, _text(fields))
        return JSONResponse({"label": await self._read(self._bench.shelf.label, wanted, meant)})

    async def grammar(self, _: Request) -> Response:
        """Tell what can be said."""
        return JSONResponse(await self._read(self._bench.editor.read))

    async def check(self, request: Request) -> Response:
        """Look at what may be said."""
        fields = await fields_of(request, "text", "say", "samples", "seed")
        question: dict[str, object] = {"say": _text(fields) if "say" in fields else None}
        for name, most in (("samples", _MAX_SAMPLES), ("seed", 2**32)):
            number = fields.get(name, 0)
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= most:
                raise HTTPException(400, f"{name} is a whole number from 0 to {most}")
            question[name] = number
        if "text" in fields:
            if not self._edit:
                raise HTTPException(403, "the page may not change the grammar; see web.edit")
            question["text"] = _grammar(fields)
        else:
            told = await self._read(self._bench.editor.read)
            if told["text"] is None:
                raise HTTPException(409, told["read_only"])
            question["text"] = told["text"]
        return JSONResponse(await self._bench.editor.check(question))

    async def save(self, request: Request) -> Response:
        """Take it."""
        fields = await fields_of(request, "text", "digest")
        digest = fields.get("digest")
        if not isinstance(digest, str):
            raise HTTPException(400, "digest is that of the text that was read")
        return JSONResponse(await self._bench.editor.save(_grammar(fields), digest, self._read))

    async def _read(self, work: Callable[..., _What], *arguments: object) -> _What:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work, *arguments)


async def refuse(_: Request, error: Exception) -> Response:
    """Tell why, in a line; what is wrong with a grammar in JSON."""
    if isinstance(error, RefusedError):
        return JSONResponse(error.answer | {"why": str(error)}, 422)
    if isinstance(error, HTTPException):
        return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)
    if isinstance(error, BusyError):
        return PlainTextResponse(f"{error}\n", 503, {"retry-after": str(_RETRY_AFTER_S)})
    status = 403 if isinstance(error, ReadOnlyError) else 409 if isinstance(error, UsageError) else 500
    return PlainTextResponse(f"{error}\n", status)


async def fields_of(request: Request, *names: str) -> dict[str, object]:
    """Return the JSON object of a request, which has no other names than these."""
    body = await request.body()
    try:
        fields = json.loads(body) if body or names else {}
    except (ValueError, RecursionError):
        raise HTTPException(400, "this is no JSON") from None
    if not isinstance(fields, dict) or not fields.keys() <= set(names):
        raise HTTPException(400, f"allowed is a JSON object with: {', '.join(names) or 'nothing'}")
    return fields


async def _sentence(request: Request) -> str:
    return _text(await fields_of(request, "say"))


def _text(fields: dict[str, object]) -> str:
    text = fields.get("say")
    if not isinstance(text, str) or len(text) > MAX_TEXT or not text.strip():
        raise HTTPException(400, f"say is a sentence of at most {MAX_TEXT} characters")
    return text.encode("utf-8", "replace").decode()  # JSON has halves of characters


def _grammar(fields: dict[str, object]) -> str:
    text = fields.get("text")
    try:
        size = len(text.encode()) if isinstance(text, str) else None
    except UnicodeEncodeError:  # JSON has halves of characters
        size = None
    if not isinstance(text, str) or size is None:
        raise HTTPException(400, "text is that of the grammar")
    if size > MAX_GRAMMAR_BYTES:
        raise HTTPException(413, f"{size} bytes seen; allowed are {MAX_GRAMMAR_BYTES}: use an editor")
    return text


def record_id(text: str) -> str:
    """Return the name of a record; nothing else is looked for on the disk."""
    if records.ID.fullmatch(text) is None:
        raise HTTPException(404, "this is no name of an utterance")
    return text
