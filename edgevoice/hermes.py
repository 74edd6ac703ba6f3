"""Hermes, the MQTT protocol of Rhasspy and Snips: results out, dialogues and questions in.

    results, messages, time ──> one queue ──> a thread ──> messages (publish.py), Attention, intent filter

The dialogue of one session:

    startSession, a wake word ──> say ──> listen ── a command ──> intent ── continueSession ──> say
                                            │                       └────── endSession ──> ended
                                            └── nobody speaks ──> ended (timeout)

A command that nobody asked for is a session of its own, whose id is that of the utterance. One session is
open at a time; up to sixteen wait. What is sent goes through the publisher's queue, and is as fresh as any
result.
Everything but what the publisher and the pipeline call happens in one thread, and needs no lock.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
import uuid
from collections import deque
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from edgevoice.errors import UsageError
from edgevoice.events import Interpretation
from edgevoice.native import Grammar
from edgevoice.publish import topic_level
from edgevoice.repair import differ, repair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgevoice.attention import Attention
    from edgevoice.config import Config
    from edgevoice.events import Result
    from edgevoice.publish import Publisher
    from edgevoice.recognise import Recogniser

_log = logging.getLogger(__name__)

TOPICS: Final = (
    "hermes/dialogueManager/startSession",
    "hermes/dialogueManager/continueSession",
    "hermes/dialogueManager/endSession",
    "hermes/asr/startListening",
    "hermes/asr/stopListening",
    "hermes/hotword/toggleOn",
    "hermes/hotword/toggleOff",
    "hermes/hotword/+/detected",
    "hermes/nlu/query",
    "hermes/tts/sayFinished",
)
"""What is taken."""

Ending = Literal["nominal", "intentNotRecognized", "timeout", "error"]

MAX_BYTES: Final = 65_536
"""Of a message; the longest of a real one is a few thousand."""

MAX_INPUT: Final = 500
"""Characters of a text to understand; nobody says as much in one command."""

MAX_SESSIONS: Final = 16
"""That wait: more are not answered while anybody still knows what was asked."""

ANSWER_S: Final = 30.0
"""How long whoever acts on an intent may take to continue or end the session; as in Rhasspy."""

SAY_S: Final = 10.0
"""For something to be said, if nobody tells that it was; without a voice in the house, nobody does."""

_WAITING: Final = 256  # messages and results; more than anyone sends while one is dealt with


@dataclass(slots=True)
class _Session:
    session_id: str
    custom_data: str | None = None
    text: str | None = None
    """To be said first."""

    notification: bool = False
    intent_filter: list[str] | None = None
    tells_not_recognized: bool = False
    state: Literal["saying", "listening", "answered"] = "listening"
    ends: Ending | None = None
    """How, when what is being said was said; None: it goes on with listening."""

    say_id: str | None = None
    due_s: float = 0.0
    """When it is not waited any longer for what comes next, on the monotonic clock."""


@dataclass(slots=True)
class _Listening:
    """Asked for by another dialogue manager."""

    session_id: str | None
    until_s: float


@contextmanager
def speaking(
    config: Config, publisher: Publisher | None, recogniser: Recogniser, attention: Attention
) -> Iterator[list[Callable[[Result], None]]]:
    """Speak Hermes while the block runs, if that is configured, and give it what takes results."""
    if publisher is None or not config.hermes.enabled:
        yield []
        return
    with closing(Hermes(config, publisher.send, recogniser, attention)) as hermes:
        publisher.also_take(TOPICS, hermes.take)
        yield [hermes.result]


class Hermes:
    """Speaks it, in a thread of its own, until close().

    Args:
        config: whose site is the siteId.
        send: publishes a message: its topic and its fields.
        recogniser: whose grammar understands texts, and whose intents are filtered.
        attention: is told when to listen.
    """

    def __init__(
        self,
        config: Config,
        send: Callable[[str, dict[str, object]], None],
        recogniser: Recogniser,
        attention: Attention,
    ) -> None:
        self._site = config.site
        self._listen_s = config.wake.window_s
        self._speech_s = config.endpoint.max_utterance_s
        self._send = send
        self._recogniser = recogniser
        self._attention = attention
        self._session: _Session | None = None
        self._waiting: deque[_Session] = deque()
        self._listening: _Listening | None = None
        self._grammar: Grammar | None = None
        self._off: set[str] = set()  # reasons for which the wake word is off
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="edgevoice-hermes", daemon=True)
        self._thread.start()

    def take(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take a message on one of TOPICS, in any thread; a retained one was meant for another time."""
        if not retained:
            self._put(lambda: self._message(topic, payload))

    def result(self, result: Result) -> None:
        """Take a result, in any thread."""
        self._put(lambda: self._result(result))

    def close(self) -> None:
        """End the thread when it has done what waits."""
        try:
            self._queue.put(None, timeout=1.0)
        except queue.Full:
            _log.warning("hermes: what waits is not done any more")
        self._thread.join(1.0)
        if self._grammar is not None:
            self._grammar.close()

    def _put(self, job: Callable[[], None]) -> None:
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            _log.warning("hermes: %d messages wait; one is dropped", _WAITING)

    # ---- in the thread ----

    def _run(self) -> None:
        while True:
            due_s = self._session.due_s - time.monotonic() if self._session else None
            try:
                job = self._queue.get(timeout=None if due_s is None else max(0.0, due_s))
            except queue.Empty:
                self._overdue()
                continue
            if job is None:
                self._waiting.clear()
                if self._session is not None:
                    self._end(self._session, "error")
                return
            try:
                job()
            except Exception:  # noqa: BLE001 - one message must not end the dialogues of all others
                _log.exception("hermes: a message was not dealt with")

    def _message(self, topic: str, payload: bytes) -> None:
        area = topic.split("/")[1]
        fields: Mapping[str, Any] = {}
        try:
            fields = _fields(payload)
            if _text(fields, "siteId", "default") == self._site or topic.endswith("/sayFinished"):
                self._do(topic, fields)
        except UsageError as error:
            _log.warning("hermes: %s: %s", topic, error)
            self._tell(
                f"error/{area}",
                error=str(error),
                context=topic,
                sessionId=fields["sessionId"] if isinstance(fields.get("sessionId"), str) else None,
            )

    def _do(self, topic: str, fields: Mapping[str, Any]) -> None:
        match topic.removeprefix("hermes/"):
            case "asr/startListening":
                self._filter(_names(fields))
                until_s = time.monotonic() + self._listen_s + self._speech_s
                self._listening = _Listening(_text(fields, "sessionId"), until_s)
                self._attention.listen(self._listen_s)
            case "asr/stopListening":
                self._stop_listening()
            case "hotword/toggleOff":
                self._off.add(_text(fields, "reason") or "")
                self._attention.only_asked = True
            case "hotword/toggleOn":
                self._off.discard(_text(fields, "reason") or "")
                self._attention.only_asked = bool(self._off)
            case "nlu/query":
                self._query(fields)
            case name:
                self._do_in_session(name, fields)

    def _do_in_session(self, name: str, fields: Mapping[str, Any]) -> None:
        match name:
            case "dialogueManager/startSession":
                self._start(_new_session(fields), enqueue=_can_wait(fields))
            case "dialogueManager/continueSession":
                self._continue(fields)
            case "dialogueManager/endSession":
                session = self._named(fields)
                session.custom_data = _text(fields, "customData") or session.custom_data
                session.ends = "nominal"
                self._say(session, _text(fields, "text"))
            case "tts/sayFinished":
                said = self._session
                if said is not None and said.state == "saying" and said.say_id == fields.get("id"):
                    self._said(said)
            case _:  # hotword/<name>/detected
                self._start(_Session(str(uuid.uuid4())), enqueue=False)

    # ---- sessions ----

    def _start(self, session: _Session, *, enqueue: bool) -> None:
        if self._session is None:
            self._open(session)
        elif not enqueue or len(self._waiting) >= MAX_SESSIONS:
            raise UsageError(
                f"session {self._session.session_id} is open; end it first, or set canBeEnqueued"
            )
        else:
            self._waiting.append(session)
            self._tell("dialogueManager/sessionQueued", **_identity(session))

    def _open(self, session: _Session) -> None:
        self._session = session
        self._tell("dialogueManager/sessionStarted", lang=self._recogniser.language, **_identity(session))
        session.ends = "nominal" if session.notification else None
        self._say(session, session.text)

    def _continue(self, fields: Mapping[str, Any]) -> None:
        session = self._named(fields)
        session.custom_data = _text(fields, "customData") or session.custom_data
        session.intent_filter = _names(fields)
        session.tells_not_recognized = fields.get("sendIntentNotRecognized") is True
        session.ends = None
        self._say(session, _text(fields, "text"))

    def _named(self, fields: Mapping[str, Any]) -> _Session:
        session_id = _text(fields, "sessionId")
        if self._session is None or session_id != self._session.session_id:
            raise UsageError(f"sessionId: {str(session_id)[:60]!r} seen; no such session is open")
        return self._session

    def _say(self, session: _Session, text: str | None) -> None:
        """Have something said before the session goes on, and do not hear it."""
        self._stop_listening()
        if not text:
            self._said(session)
            return
        session.state, session.say_id = "saying", str(uuid.uuid4())
        session.due_s = time.monotonic() + SAY_S
        self._attention.play(SAY_S, "hermes")
        self._tell(
            "tts/say",
            text=text,
            lang=self._recogniser.language,
            id=session.say_id,
            sessionId=session.session_id,
        )

    def _said(self, session: _Session) -> None:
        if session.state == "saying":
            self._attention.stop("hermes")
        if session.ends is not None:
            self._end(session, session.ends)
            return
        session.state = "listening"
        session.due_s = time.monotonic() + self._listen_s + self._speech_s
        self._filter(session.intent_filter)
        self._attention.listen(self._listen_s)

    def _overdue(self) -> None:
        session = self._session
        if session is None or time.monotonic() < session.due_s:
            return
        if session.state == "saying":
            self._said(session)
        else:
            self._end(session, "timeout")

    def _end(self, session: _Session, how: Ending) -> None:
        self._stop_listening()
        self._session = None
        self._tell("dialogueManager/sessionEnded", termination={"reason": how}, **_identity(session))
        if self._waiting:
            self._open(self._waiting.popleft())

    def _stop_listening(self) -> None:
        self._filter(None)
        self._listening = None
        self._attention.listen(0)

    def _filter(self, intents: list[str] | None) -> None:
        self._recogniser.active.ask(intents)

    # ---- results ----

    def _result(self, result: Result) -> None:
        if result.reason == "no_speech":  # nobody said anything
            return
        listening, self._listening = self._listening, None
        session = self._session
        if listening is not None and time.monotonic() < listening.until_s:
            self._filter(None)
            session_id = listening.session_id
        else:
            if (
                session is not None and session.state != "listening"
            ):  # something new, before the last was answered
                self._end(session, "nominal")
                session = self._session
            if session is None:
                session = _Session(result.utterance_id)
                self._session = session
                self._tell(
                    "dialogueManager/sessionStarted", lang=self._recogniser.language, **_identity(session)
                )
            session_id = session.session_id
            self._filter(None)
            session.state, session.due_s = "answered", time.monotonic() + ANSWER_S
        text = result.text if result.accepted else result.heard or result.text
        self._tell(
            "asr/textCaptured",
            text=text or "",
            likelihood=result.confidence,
            seconds=result.timings.total / 1000,
            sessionId=session_id,
            wakewordId=None,
            lang=self._recogniser.language,
            asrTokens=_tokens(text or "", result.confidence),
        )
        custom_data = session.custom_data if session else None
        common = {"id": result.utterance_id, "sessionId": session_id, "customData": custom_data}
        if result.accepted and result.intent and result.text:
            meaning = Interpretation(result.text, result.intent, result.slots, result.slots_raw)
            self._intent(meaning, result.confidence, common)
            return
        self._tell("nlu/intentNotRecognized", input=text or "", **common)
        if session is not None and session_id == session.session_id:
            if session.tells_not_recognized:
                self._tell("dialogueManager/intentNotRecognized", input=text or "", **_identity(session))
            else:
                self._end(session, "intentNotRecognized")

    def _query(self, fields: Mapping[str, Any]) -> None:
        text = fields.get("input")
        if not isinstance(text, str) or len(text) > MAX_INPUT:
            raise UsageError(f"input must be text of at most {MAX_INPUT} characters")
        names = _names(fields)
        common = {name: _text(fields, name) for name in ("id", "sessionId", "customData")}
        found = [each for each in self._understand(text) if names is None or each.intent in names]
        if not found or any(differ(found[0], other) for other in found[1:]):
            self._tell("nlu/intentNotRecognized", input=text, **common)
        else:
            self._intent(replace(found[0], text=text), 1.0, common)

    def _understand(self, text: str) -> list[Interpretation]:
        """Return what a text means, by a grammar of our own: the recogniser's is in use by its thread."""
        compiled = self._recogniser.compiled
        if self._grammar is None or self._grammar.compiled is not compiled:
            if self._grammar is not None:
                self._grammar.close()
            self._grammar = Grammar(compiled)
        return repair(self._grammar, text)

    def _intent(self, meaning: Interpretation, confidence: float, common: Mapping[str, object]) -> None:
        text = meaning.text
        fields: dict[str, object] = {
            "input": text,
            "rawInput": text,
            "intent": {"intentName": meaning.intent, "confidenceScore": confidence},
            "slots": [_slot(meaning, name, confidence) for name in meaning.slots],
            **common,
        }
        self._tell("nlu/intentParsed", **fields)
        self._tell(
            f"intent/{topic_level(meaning.intent)}",
            asrTokens=_tokens(text, confidence),
            asrConfidence=confidence,
            wakewordId=None,
            lang=self._recogniser.language,
            **fields,
        )

    def _tell(self, topic: str, **fields: object) -> None:
        self._send(f"hermes/{topic}", {"siteId": self._site, **fields})


def _identity(session: _Session) -> dict[str, object]:
    return {"sessionId": session.session_id, "customData": session.custom_data}


def _fields(payload: bytes) -> Mapping[str, Any]:
    if len(payload) > MAX_BYTES:
        raise UsageError(f"{len(payload)} bytes seen; allowed are {MAX_BYTES}")
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"no JSON ({str(error)[:60]}); send an object") from None
    if not isinstance(fields, dict):
        raise UsageError(f"{type(fields).__name__} seen; send an object")
    return fields


def _text(fields: Mapping[str, Any], name: str, default: str | None = None) -> str | None:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise UsageError(f"{name}: {type(value).__name__} seen; it must be text")
    return value


def _names(fields: Mapping[str, Any]) -> list[str] | None:
    """Return the intents that may be the answer; None, and an empty list: all."""
    names = fields.get("intentFilter")
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError("intentFilter must be a list of names")
    return names or None


def _new_session(fields: Mapping[str, Any]) -> _Session:
    init = fields.get("init")
    if not isinstance(init, dict) or init.get("type") not in ("action", "notification"):
        raise UsageError('init must be an object whose type is "action" or "notification"')
    return _Session(
        session_id=str(uuid.uuid4()),
        custom_data=_text(fields, "customData"),
        text=_text(init, "text"),
        notification=init["type"] == "notification",
        intent_filter=_names(init),
        tells_not_recognized=init.get("sendIntentNotRecognized") is True,
    )


def _can_wait(fields: Mapping[str, Any]) -> bool:
    init = fields["init"]
    return init["type"] == "notification" or init.get("canBeEnqueued") is not False


def _slot(meaning: Interpretation, name: str, confidence: float) -> dict[str, object]:
    value, raw, text = meaning.slots[name], meaning.slots_raw.get(name), meaning.text
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    start = text.lower().find(raw.lower()) if raw else -1
    place = None
    if raw and start >= 0:
        place = {"start": start, "end": start + len(raw), "rawStart": start, "rawEnd": start + len(raw)}
    return {
        "entity": name,
        "slotName": name,
        "value": {"kind": "Number" if is_number else "Custom", "value": value},
        "rawValue": raw if raw is not None else str(value),
        "confidence": confidence,
        "confidenceScore": confidence,
        "alternatives": [],
        "range": place,
    }


def _tokens(text: str, confidence: float) -> list[list[dict[str, object]]]:
    tokens: list[dict[str, object]] = []
    at = 0
    for word in text.split():
        start = text.index(word, at)
        at = start + len(word)
        tokens.append(
            {"value": word, "confidence": confidence, "rangeStart": start, "rangeEnd": at, "time": None}
        )
    return [tokens]
