"""A server for the Wyoming protocol: Home Assistant and satellites send sound or text, and get the answer.

    transcribe, audio-start, audio-chunk ..., audio-stop ──> transcript
    recognize or transcript (text) ──> intent or not-recognized
    detect, audio-start, audio-chunk ... ──> detection (wyoming_wake.py)
    describe ──> info; ping ──> pong

The way of one request:

1. A task for each connection reads events (wyoming_events.py), everything bounded in size and time.
2. Sound goes, half a second at a time, to a thread that all connections share, which finds speech and its
   pauses (hearing.py).
3. What was said up to a pause is recognised while more may come, when the engine has nothing better to do
   (turns.py). If speech goes on, that is dropped.
4. With audio-stop the answer is there already, or has its turn now. It is sent by a task of its own, so the
   connection goes on being read.
5. When nobody waits, a record is made of it, if these are kept (recorder.py).

Nothing is published over MQTT: who asked here acts on the answer.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from wyoming.asr import Transcript
from wyoming.error import Error
from wyoming.event import Event, async_write_event
from wyoming.info import (
    AsrModel,
    AsrProgram,
    Attribution,
    Info,
    IntentModel,
    IntentProgram,
    WakeModel,
    WakeProgram,
)
from wyoming.intent import Entity, Intent, NotRecognized
from wyoming.ping import Pong

from edgevoice import __version__, announce, network
from edgevoice.errors import CancelledError, EdgevoiceError, NetworkError, ProtocolError
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.grammar import ALONE
from edgevoice.hearing import Hearing
from edgevoice.pipeline import endpoint_options
from edgevoice.recognise import Recogniser
from edgevoice.recorder import Recorder
from edgevoice.repair import differ
from edgevoice.turns import Job, Turns
from edgevoice.wyoming_events import MAX_HEADER_BYTES, AudioFormat, Decoder, read_event, text_of
from edgevoice.wyoming_wake import Watch, check_wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from edgevoice.config import Config
    from edgevoice.events import Utterance
    from edgevoice.recognise import Answer
    from edgevoice.records import Record

_log = logging.getLogger(__name__)
_Part = TypeVar("_Part")

MAX_CONNECTIONS: Final = 16
"""At once; each costs up to 7 MB while it sends. Home Assistant makes one for each command."""

MAX_STREAM_S: Final = 60.0
"""Of one request, silence included. Home Assistant's own limit for a command is 15 s."""

MAX_WATCHES: Final = 4
"""Streams in which a wake word is listened for: each takes 8 MB, and a tenth of a core while one speaks."""

MAX_TEXT: Final = 500
"""Characters of a typed command; nobody says as much within max_utterance_s."""

_PIECE_S: Final = (
    0.5  # so that nobody's sound waits long for another's: 1 ms of work, some 16 on a small board
)
_AHEAD_S: Final = 10.0  # that a stream may be ahead of the clock: what a satellite has kept for us
_MAX_RECORDS: Final = 4  # that wait to be made, with their sound; more are asked for than anybody looks at
_BEAT_S: Final = 2.0  # between two signs of life
_IDLE_S: Final = 60.0  # between requests; who needs it again connects again
_ANSWER_S: Final = 240.0  # until a reply: the turns of all others, and their time-out, may come first
_STALL_S: Final = 10.0  # within a request, and for an event to be read by the client
_LINGER_S: Final = 0.5  # for a client to read why it is turned away, before the connection ends
_COMPLAIN_S: Final = 1.0  # between two warnings, lest a hostile client fills the log
_STOP_S: Final = 5.0  # a clean end takes less than one
_EDGEVOICE: Final = Attribution("edgevoice", "")
_WHISPER: Final = Attribution("OpenAI", "https://github.com/openai/whisper")
_OPEN_WAKE_WORD: Final = Attribution("openWakeWord", "https://github.com/dscripka/openWakeWord")


@contextmanager
def serving(
    config: Config,
    recogniser: Recogniser,
    grammar: Path | None,
    *,
    alone: bool,
    keep: Callable[[Record], None] | None,
) -> Iterator[tuple[list[Recogniser], WyomingServer]]:
    """Serve while the block runs, and give it the recognisers that were made for it, and the server.

    Args:
        config: with wyoming.listen.
        recogniser: the one of the microphone.
        grammar: a grammar file in place of the configured one.
        alone: there is no microphone, so its recogniser can be used. Otherwise each has its own, which takes
            40 MB, and the model is shared.
        keep: as for WyomingServer.

    Raises:
        NetworkError: the address cannot be listened on.
    """
    with ExitStack() as stack:
        made: list[Recogniser] = []
        if not alone:
            made.append(stack.enter_context(closing(Recogniser(config, grammar, recogniser.model))))
        server = stack.enter_context(closing(WyomingServer(config, made[0] if made else recogniser, keep)))
        yield made, server


class WyomingServer:
    """Listens from its making until close(), in a thread of its own.

    Args:
        config: with wyoming.listen.
        recogniser: of its own; nobody else may recognise with it.
        keep: given a record of what was heard, in the engine's thread; None: none are made.

    Raises:
        NetworkError: the address cannot be listened on.
        ConfigError: it is to be announced, and what that needs is not installed.
    """

    def __init__(
        self, config: Config, recogniser: Recogniser, keep: Callable[[Record], None] | None = None
    ) -> None:
        if config.wyoming.announce:
            announce.check_installed()
        self._config = config
        address = config.wyoming.listen or ""
        try:
            self._socket = network.listen(address.replace("://", ":", 1))
        except OSError as error:
            raise NetworkError(
                f"wyoming.listen: {address} cannot be listened on ({error.strerror or error}); end the "
                "program that uses it, or choose another one"
            ) from None
        self.port: Final = None if address.startswith("unix:") else int(self._socket.getsockname()[1])
        """That is listened on; None for unix://."""
        self._path = Path(address.removeprefix("unix://")) if self.port is None else None
        self._engine = _Engine(config, recogniser, keep)
        self.busy_since_s = time.monotonic()
        """When its loop and the thread that finds speech were last seen to go on; they always do."""
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="edgevoice-wyoming", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections and free the address; may be called twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_STOP_S)
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    def _announced(self) -> AbstractAsyncContextManager[None]:
        if not self._config.wyoming.announce:
            return nullcontext()
        host, port = self._socket.getsockname()[:2]
        return announce.announced(self._config.site, host, port)

    async def _beat(self, ears: ThreadPoolExecutor) -> None:
        while True:
            await self._loop.run_in_executor(ears, _go_on)
            self.busy_since_s = time.monotonic()
            await asyncio.sleep(_BEAT_S)

    async def _serve(self) -> None:
        turns = Turns(self._engine.cancel)
        ears = ThreadPoolExecutor(1, "edgevoice-wyoming-ear")
        clients: set[asyncio.Task[None] | None] = set()
        too_many: set[asyncio.Task[None] | None] = set()

        async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            client = _Client(reader, writer, self._engine, turns, ears)
            task = asyncio.current_task()
            inside = clients if len(clients) < MAX_CONNECTIONS else too_many
            inside.add(task)
            try:
                if inside is clients:
                    await client.serve()
                elif len(too_many) <= MAX_CONNECTIONS:
                    await client.turn_away(f"{MAX_CONNECTIONS} connections are open; close one", "overload")
                else:
                    writer.transport.abort()
            except asyncio.CancelledError:  # which asyncio would log as a failure
                _log.debug("wyoming: the server ends while a client is there")
            finally:
                inside.discard(task)

        # Both take a socket that listens already.
        start = asyncio.start_server if self._path is None else asyncio.start_unix_server
        server = await start(welcome, sock=self._socket, limit=MAX_HEADER_BYTES)
        _log.info("wyoming: listening on %s", self._path or self._socket.getsockname())
        if self._path is None and not ipaddress.ip_address(self._socket.getsockname()[0]).is_loopback:
            _log.warning(
                "wyoming: whoever reaches this address can use it: there is no password, no encryption"
            )
        beat = asyncio.create_task(self._beat(ears))
        async with self._announced():
            await self._stop.wait()
        beat.cancel()
        server.close()
        inside = [task for task in (*clients, *too_many) if task is not None]
        for task in inside:
            task.cancel()
        await asyncio.gather(*inside, turns.close(), return_exceptions=True)
        ears.shutdown(wait=False)


@dataclass(frozen=True, slots=True)
class _Said:
    """What an utterance was taken for."""

    text: str
    """For the transcript; "": nothing for us."""

    answer: Answer
    heard: str | None
    """What Whisper hears in it, if that was asked for."""


class _Engine:
    """What the clients share: the recogniser, and what they may know about it."""

    def __init__(self, config: Config, recogniser: Recogniser, keep: Callable[[Record], None] | None) -> None:
        # A pause ends nothing before the longest silence has: the client says when the command is over.
        endpoint = config.endpoint
        longest_ms = max(endpoint.finished_ms, endpoint.silence_ms, endpoint.unfinished_ms)
        self.options = replace(endpoint_options(config), silence_ms=longest_ms)
        self.cancel = recogniser.cancel
        self._config = config
        self._recogniser = recogniser
        self._last: Answer | None = None  # of which the session still knows
        self.keep = keep
        self.records = 0  # that wait to be made
        self._complained_s = -_COMPLAIN_S
        self.wake_model = config.wake.model if config.wake.mode == "model" else None
        self.watches = 0  # that are open

    @property
    def language(self) -> str:
        """That is understood."""
        return self._recogniser.language

    def info(self) -> Info:
        """What we can do."""
        languages = [self.language]
        name = Path(self._config.model.name).name
        model = AsrModel(name, _WHISPER, True, f"Whisper {name} under a grammar", __version__, languages)
        grammar = self._recogniser.grammar_path.name
        intents = IntentModel(grammar, _EDGEVOICE, True, "Sentences of the grammar", __version__, languages)
        words = "Offline voice commands"
        wake = []
        if self.wake_model:
            phrase = self.wake_model.replace("_", " ")
            heard = WakeModel(self.wake_model, _OPEN_WAKE_WORD, True, phrase, __version__, ["en"], phrase)
            wake = [WakeProgram("edgevoice", _EDGEVOICE, True, "Wake word", __version__, [heard])]
        return Info(
            asr=[AsrProgram("edgevoice", _EDGEVOICE, True, words, __version__, [model])],
            intent=[IntentProgram("edgevoice", _EDGEVOICE, True, words, __version__, [intents])],
            wake=wake,
        )

    def recorder(self) -> Recorder | None:
        """Return what makes records of a stream; None: none are kept."""
        keep = self.keep
        return None if keep is None else Recorder(self._config, self._recogniser, keep, "wyoming")

    def transcribe(self, utterance: Utterance, recorder: Recorder | None) -> _Said | None:
        """Return what was said, in the engine's thread. None: cancelled."""
        started_s = time.perf_counter()
        if recorder is not None:
            recorder.recognising(utterance)
        answer = self._last = self._recogniser.recognise(utterance)
        if answer is None:
            if recorder is not None:
                recorder.cancelled()
            return None
        if recorder is not None:
            recorder.answered(answer)
        decision, meaning = answer.decision, answer.decision.meaning
        text, heard = "", None
        if decision.reason is None and meaning is not None:
            text = "" if meaning.intent == ALONE else meaning.text
        elif decision.reason in ("out_of_grammar", "low_confidence", "ambiguous"):
            if self._config.recognition.mode != "grammar":
                text = decision.written or (meaning.text if meaning else "")
            elif self._config.wyoming.refused == "heard":
                try:
                    text = heard = self._recogniser.heard() or ""
                except CancelledError:
                    return None
        _log.info(
            "wyoming: %r (%s, confidence %.2f, %.0f ms for %.1f s)",
            text,
            decision.reason or (meaning.intent if meaning else "no meaning"),
            decision.confidence,
            (time.perf_counter() - started_s) * 1000,
            len(utterance.samples) / SAMPLE_RATE_HZ,
        )
        return _Said(text.strip(), answer, heard)

    def record(self, recorder: Recorder, utterance: Utterance, said: _Said) -> bool:
        """Make the record of an utterance that was answered, in the engine's thread."""
        answer, meaning = said.answer, said.answer.decision.meaning
        if answer.decision.reason is None and meaning is not None and meaning.intent == ALONE:
            return False
        explain = self._last is answer and said.heard is None
        result = self._recogniser.result(answer, utterance, explain=explain)
        self._recogniser.active.begin()  # nobody can answer a question here
        if said.heard is not None:
            result = replace(result, heard=said.heard)
        recorder.decided(utterance, answer, result)
        return True

    def understand(self, text: str, context: dict[str, Any] | None) -> Event:
        """Return the meaning of a text, in the engine's thread."""
        meanings = self._recogniser.understand(text)
        if not meanings:
            return NotRecognized(f"I do not know the command: {text}", context).event()
        first = meanings[0]
        if any(differ(first, other) for other in meanings[1:]):
            return NotRecognized(f"This can mean two things: {text}", context).event()
        entities = [Entity(name, value) for name, value in first.slots.items()]
        return Intent(first.intent, entities, context=context).event()

    def complain(self, text: str, *values: object) -> None:
        """Log what a client does wrong, but not more than once a second as a warning."""
        now_s = time.monotonic()
        seldom = now_s - self._complained_s >= _COMPLAIN_S
        self._complained_s = now_s if seldom else self._complained_s
        _log.log(logging.WARNING if seldom else logging.DEBUG, "wyoming: " + text, *values)


@dataclass(slots=True)
class _Request:
    """Sound that is being sent."""

    audio: AudioFormat
    decoder: Decoder
    hearing: Hearing
    context: dict[str, Any] | None
    recorder: Recorder | None
    answers: list[Job[_Said]] = field(default_factory=list)
    """One for each utterance that has ended."""

    guess: tuple[Utterance, Job[_Said]] | None = None
    """At what is being said."""

    cut: bool = False
    """It is answered already; the rest is not heard."""


class _Client:
    """One connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        engine: _Engine,
        turns: Turns,
        ears: ThreadPoolExecutor,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._engine = engine
        self._turns = turns
        self._ears = ears
        self._request: _Request | None = None
        self._context: dict[str, Any] | None = None  # of the request to come
        self._detects = False  # whether that is for a wake word
        self._watch: Watch | None = None
        self._reply: asyncio.Task[None] | None = None
        peer = writer.get_extra_info("peername")
        self._name = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "a client"

    async def serve(self) -> None:
        """Read events until the client goes, or has to."""
        try:
            while (event := await self._next()) is not None:
                await self._take(event)
                await asyncio.sleep(0)  # what has come already must not keep others from theirs
        except ProtocolError as error:
            self._engine.complain("%s: %s", self._name, error)
            await self.turn_away(str(error), "protocol")
        except TimeoutError:
            self._engine.complain("%s: nothing came or went for too long; its connection ends", self._name)
            await self.turn_away("nothing came or went for too long", "timeout")
        except EdgevoiceError as error:
            _log.error("wyoming: %s: %s", self._name, error)
            await self.turn_away(str(error), "engine")
        except (OSError, asyncio.IncompleteReadError) as error:
            _log.info("wyoming: %s went: %s", self._name, error)
        finally:
            self._forget()
            if self._reply is not None:
                self._reply.cancel()
            self._writer.transport.abort()

    async def turn_away(self, text: str, code: str) -> None:
        """Say why, and end the connection when the client had time to read it."""
        try:
            async with asyncio.timeout(_LINGER_S):
                await async_write_event(Error(text, code).event(), self._writer)
                self._writer.write_eof()
                # What it still sends is read, or the kernel would drop what we have said.
                while await self._reader.read(MAX_HEADER_BYTES):
                    pass
        except (OSError, TimeoutError):
            _log.debug("wyoming: %s did not wait to be told", self._name)
        finally:
            self._writer.transport.abort()

    async def _next(self) -> Event | None:
        """Wait for an event, as long as is fair."""
        waits = self._reply is not None and not self._reply.done()
        limit_s = _ANSWER_S if waits else _STALL_S if self._request or self._watch else _IDLE_S
        async with asyncio.timeout(limit_s):
            return await read_event(self._reader)

    async def _take(self, event: Event) -> None:
        match event.type:
            case "describe":
                await self._send(self._engine.info().event())
            case "ping":
                await self._send(Pong(event.data.get("text")).event())
            case "transcribe":
                self._context, self._detects = _context(event), False
            case "detect" if self._engine.wake_model:
                check_wanted(event, self._engine.wake_model)
                self._context, self._detects = _context(event), True
            case "audio-start":
                await self._begin(AudioFormat.of(event))
            case "audio-chunk":
                await self._hear(event)
            case "audio-stop":
                await self._end()
            case "recognize" | "transcript":
                await self._recognize(event)
            case _:
                _log.debug("wyoming: %s: %.60r is ignored", self._name, event.type)

    async def _send(self, event: Event) -> None:
        async with asyncio.timeout(_STALL_S):
            await async_write_event(event, self._writer)

    async def _answer(self, jobs: list[Job[_Part]], event: Callable[[list[_Part]], Event]) -> None:
        """Send what the engine makes of the parts of a request."""
        try:
            try:
                reply = event([await job.done for job in jobs])
            except EdgevoiceError as error:
                _log.error("wyoming: %s: %s", self._name, error)
                reply = Error(str(error), "engine").event()
            await self._send(reply)
        except (OSError, TimeoutError) as error:
            _log.info("wyoming: %s did not take its answer: %s", self._name, error or "too slow")
            self._writer.transport.abort()
        finally:
            for job in jobs:
                self._turns.drop(job)

    # ---- text ----

    async def _recognize(self, event: Event) -> None:
        text = text_of(event, MAX_TEXT)
        await self._answered()
        job = self._turns.answer(partial(self._engine.understand, text, _context(event)))
        self._reply = asyncio.create_task(self._answer([job], lambda events: events[0]))

    # ---- sound ----

    async def _begin(self, audio: AudioFormat) -> None:
        self._forget()
        if self._detects and self._engine.wake_model:
            await self._begin_watch(audio, self._engine.wake_model)
            return
        await self._answered()  # a client has one answer at a time
        recorder = self._engine.recorder()
        hearing = Hearing(self._engine.options, recorder.scored if recorder else lambda _: None)
        self._request = _Request(audio, Decoder(audio), hearing, self._context, recorder)

    async def _hear(self, event: Event) -> None:
        audio = AudioFormat.of(event)
        if self._request is None and self._watch is None:  # clients that do not say audio-start
            await self._begin(audio)
        begun = self._watch or self._request
        if begun is None or begun.cut:
            return
        if audio != begun.audio:
            raise ProtocolError(f"audio-chunk: {audio} after {begun.audio}; begin with another audio-start")
        payload = event.payload or b""
        step = begun.decoder.rows_bytes(_PIECE_S)
        for first in range(0, len(payload), step):
            piece = payload[first : first + step]
            if isinstance(begun, Watch):
                begun.heard_s += len(piece) / begun.decoder.rows_bytes(1.0)
                # It has no end, so who sends faster than one speaks would keep a core busy for ever.
                ahead_s = begun.heard_s - (time.monotonic() - begun.begin_s)
                await asyncio.sleep(ahead_s - _AHEAD_S)
                for detection in await self._in_ear(partial(begun.push, piece)):
                    await self._send(detection)
            else:
                await self._take_in(begun, piece)
            if begun.cut:
                return

    async def _take_in(self, request: _Request, piece: bytes) -> None:
        heard = await self._in_ear(partial(_push, request, piece))
        await self._found(request, heard)
        if any(each.end_reason == "too_long" for each in heard) or (
            request.hearing.length_samples > MAX_STREAM_S * SAMPLE_RATE_HZ
        ):
            self._engine.complain("%s: a command without end; the rest of it is not heard", self._name)
            await self._finish(request)

    async def _end(self) -> None:
        if self._watch is not None:
            for event in self._watch.finish():
                await self._send(event)
            self._forget()
            return
        request, self._request = self._request, None
        if request is None:
            raise ProtocolError("audio-stop without audio-start; send audio first")
        if not request.cut:
            await self._finish(request)

    async def _finish(self, request: _Request) -> None:
        """Answer what has ended."""
        request.cut = True
        await self._found(
            request, await self._in_ear(lambda: request.hearing.finish(request.decoder.finish()))
        )
        self._let_go_of_guess(request)
        self._ears.submit(request.hearing.close)
        language = self._engine.language
        self._reply = asyncio.create_task(
            self._answer(
                request.answers,
                lambda parts: Transcript(
                    " ".join(part.text for part in parts if part.text), request.context, language
                ).event(),
            )
        )

    async def _found(self, request: _Request, utterances: list[Utterance]) -> None:
        """Have recognised what has paused or ended."""
        if request.guess is not None and not request.hearing.paused and not utterances:
            self._let_go_of_guess(request)  # speech goes on
        for utterance in utterances:
            work = partial(self._engine.transcribe, utterance, request.recorder)
            if utterance.end_reason == "pause":
                self._let_go_of_guess(request)
                request.guess = utterance, self._turns.guess(work)
                continue
            # Who sends faster than is recognised has to wait, before more of it is read: so it has one
            # answer to come, and others their turn after that.
            await asyncio.gather(*(each.done for each in request.answers))
            if request.guess is not None and utterance.is_end_of(request.guess[0]):
                job = request.guess[1]
                request.guess = None
                self._turns.want(job)
            else:
                self._let_go_of_guess(request)
                job = self._turns.answer(work)
            request.answers.append(job)
            if request.recorder is not None:
                job.done.add_done_callback(partial(self._record, request.recorder, utterance))

    def _record(self, recorder: Recorder, utterance: Utterance, done: asyncio.Future[_Said]) -> None:
        """Have a record made of what was answered, when nobody waits for anything else."""
        engine = self._engine
        if done.cancelled() or done.exception() is not None or engine.records >= _MAX_RECORDS:
            return

        def made(_: object) -> None:
            engine.records -= 1

        engine.records += 1
        job = self._turns.guess(partial(engine.record, recorder, utterance, done.result()))
        job.done.add_done_callback(made)

    def _let_go_of_guess(self, request: _Request) -> None:
        if request.guess is not None:
            self._turns.drop(request.guess[1])
            request.guess = None

    async def _begin_watch(self, audio: AudioFormat, model: str) -> None:
        if self._engine.watches >= MAX_WATCHES:
            raise ProtocolError(f"{MAX_WATCHES} streams are listened to for a wake word; close one")
        self._engine.watches += 1
        try:  # loading the model takes a while, in which others are heard
            self._watch = await asyncio.to_thread(Watch, audio, model, self._engine.options, self._context)
        finally:
            if self._watch is None:
                self._engine.watches -= 1

    def _forget(self) -> None:
        """Drop a request that does not come to its end."""
        if self._watch is not None:
            self._ears.submit(self._watch.close)
            self._watch = None
            self._engine.watches -= 1
        request, self._request = self._request, None
        if request is not None and not request.cut:
            self._let_go_of_guess(request)
            for job in request.answers:
                self._turns.drop(job)
            self._ears.submit(request.hearing.close)

    async def _answered(self) -> None:
        """Wait for the reply to the request before."""
        if self._reply is not None:
            await self._reply

    async def _in_ear(self, work: Callable[[], list[_Part]]) -> list[_Part]:
        return await asyncio.get_running_loop().run_in_executor(self._ears, work)


def _go_on() -> None:
    """Show that a thread has come so far."""


def _push(request: _Request, payload: bytes) -> list[Utterance]:
    return request.hearing.push(request.decoder.decode(payload))


def _context(event: Event) -> dict[str, Any] | None:
    """What the client wants to have back with the answer."""
    context = event.data.get("context")
    return context if isinstance(context, dict) else None
