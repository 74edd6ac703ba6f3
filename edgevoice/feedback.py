"""Feedback for people on what became of a command: by programs that sound or speak, and by a light.

    Result, state, whether somebody is waited for ─> Feedback
        ├─> edgevoice/<site>/feedback, if wanted
        ├─> a program that chimes, then one that speaks; meanwhile nothing is heard
        └─> a program, an LED (light.py), which make no sound: they are told also that somebody is heard

Programs are run without a shell. What they are to say comes to their standard input: it holds names and words
that somebody has said, which must not become options or commands. It never begins with the wake phrase, which
would wake whoever else hears it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import signal
import subprocess
import threading
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import yaml

from edgevoice.config import PASSWORD_VARIABLE
from edgevoice.errors import UsageError
from edgevoice.light import Light

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgevoice.attention import Attention
    from edgevoice.config import Config
    from edgevoice.events import Result
    from edgevoice.publish import State

_log = logging.getLogger(__name__)

Kind = Literal["accepted", "refused", "ambiguous", "muted", "unmuted", "lost", "found"]
"""What happened; lost and found: the microphone."""

Silent = Literal["hearing", "idle"] | Kind
"""And what is told to what makes no sound: that somebody is heard, or waited for; and not any more, though
nothing came of it."""

LONGEST_S: Final = 10.0
"""A program that takes longer is ended: nothing is heard meanwhile."""

_END_S: Final = 1.0  # for a program that was killed
_MAX_COMPLAINT: Final = 120  # characters; one line that can be read
_TEXTS: Final = Path(__file__).with_suffix(".yaml")
_LANGUAGE: Final = re.compile(r"[A-Za-z0-9]{2,8}([-_][A-Za-z0-9]{1,8})*")
_HEARING: Final = ("speech", "recognising")
_AWAY: Final[dict[str, tuple[Kind, Kind]]] = {"muted": ("muted", "unmuted"), "lost": ("lost", "found")}


@dataclass(frozen=True, slots=True)
class Signal:
    """One thing that people are told."""

    kind: Silent
    text: str | None
    """To be spoken, in the language; None: a sound is enough."""

    language: str
    utterance_id: str | None
    """Of the command it is about."""

    again: bool = False
    """Whether somebody asked to have it repeated."""


class Feedback:
    """Tells people what became of their commands; from any thread, and returns at once.

    Args:
        config: which programs, and when.
        attention: told while something sounds; tells whether somebody is waited for.
        language: in which is spoken now.
        publish: given each signal's fields, or None.

    Raises:
        ConfigError: the LED is not there, or cannot be written.
    """

    def __init__(
        self,
        config: Config,
        attention: Attention,
        language: Callable[[], str],
        publish: Callable[[dict[str, object]], None] | None = None,
    ) -> None:
        self._config = config
        self._language = language
        self._publish = publish
        self._light = Light(config.feedback.led) if config.feedback.led else None
        programs = config.feedback
        self._player = _Player({"chime": programs.chime, "say": programs.say}, attention)
        self._runner = _Player({"run": programs.run})
        self._last: Signal | None = None  # of what was accepted
        self._lock = threading.Lock()  # guards what follows
        self._state: State = "listening"
        self._waits = False
        self._shown: Silent = "idle"
        attention.on_waits = self._set_waits

    def tell(self, result: Result) -> None:
        """Take a result."""
        kind = _kind(result)
        if kind is None:
            return
        with self._lock:
            self._show(kind)
        # With `always`, this is what a television says. In 10 minutes of English meetings and reading, 7 of
        # 78 utterances came near a sentence of the home grammar. A light disturbs nobody.
        if kind == "refused" and self._config.wake.mode == "always":
            return
        text = None if kind == "accepted" else _question(result, self._language())
        signalled = Signal(kind, text, self._language(), result.utterance_id)
        if kind == "accepted":
            self._last = replace(signalled, text=_sentence(result), again=True)
        self._give(signalled)

    def set_state(self, state: State) -> None:
        """Take what the engine is doing."""
        kind: Kind | None = None
        with self._lock:
            before, self._state = self._state, state
            if state in _AWAY and state != before:
                kind = _AWAY[state][0]
            elif before in _AWAY and state not in _AWAY:
                kind = _AWAY[before][1]
            if kind is not None:
                self._show(kind)
            self._look()
        if kind is not None:
            self._give(Signal(kind, _text(kind, self._language()), self._language(), None))

    def _set_waits(self, waits: bool) -> None:
        with self._lock:
            self._waits = waits
            self._look()

    def _look(self) -> None:
        """Show whether somebody is heard, if that is not what is shown; call with the lock held.

        What became of what was said shows already that it is over.
        """
        hearing = self._state not in _AWAY and (self._waits or self._state in _HEARING)
        if hearing != (self._shown == "hearing"):
            self._show("hearing" if hearing else "idle")

    def _show(self, kind: Silent) -> None:
        """Tell what makes no sound; call with the lock held."""
        self._shown = kind
        if self._light is not None:
            self._light.tell(kind)
        self._runner.play(Signal(kind, None, "", None))

    def again(self) -> None:
        """Repeat what was told of the last accepted command, with its words; the command is not given again.

        Raises:
            UsageError: there was none.
        """
        if self._last is None:
            raise UsageError("say-again: nothing was accepted yet; say a command first")
        self._give(self._last)

    def close(self) -> None:
        """End what sounds and shines."""
        self._player.close()
        self._runner.close()
        if self._light is not None:
            self._light.close()

    def _give(self, signalled: Signal) -> None:
        if self._publish is not None:
            self._publish(
                {
                    "kind": signalled.kind,
                    "text": signalled.text,
                    "language": signalled.language,
                    "utterance_id": signalled.utterance_id,
                    "again": signalled.again,
                    "site": self._config.site,
                }
            )
        self._player.play(signalled)


class _Player:
    """Runs programs, one after the other, in a thread of its own; what is newer replaces what waits.

    Args:
        programs: by the names of their options; None: there is none.
        attention: told while they run; None: they make no sound.
    """

    def __init__(self, programs: Mapping[str, str | None], attention: Attention | None = None) -> None:
        self._programs = {option: command for option, command in programs.items() if command}
        self._attention = attention
        self._changed = threading.Condition()  # guards what follows
        self._waiting: Signal | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._failures: set[str] = set()  # each told once
        self._thread: threading.Thread | None = None
        if self._programs:
            self._thread = threading.Thread(target=self._run, name="edgevoice-feedback", daemon=True)
            self._thread.start()

    def play(self, signalled: Signal) -> None:
        with self._changed:
            self._waiting = signalled
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._kill()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(LONGEST_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed or self._waiting is None:
                    return
                signalled, self._waiting = self._waiting, None
            if self._attention:
                self._attention.play(whose="feedback")
            try:
                for option, command in self._programs.items():
                    if option != "say" or signalled.text:
                        self._do(option, command, signalled)
            finally:
                if self._attention:
                    self._attention.stop("feedback")

    def _do(self, option: str, command: str, signalled: Signal) -> None:
        """Run a program to its end, or to ours."""
        arguments = _arguments(command, signalled)
        text = f"{signalled.text or ''}\n".encode("utf-8", "replace") if option == "say" else b""
        # Of a program that complains without end, the pipe keeps the beginning, and nobody waits.
        complaints, stderr = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            failure = self._run_program(arguments, text, stderr)
            if failure:
                self._fail(
                    f"feedback.{option}: {arguments[0]} {failure}",
                    f"{_complaint(complaints)}; try as the user that runs edgevoice: {command}",
                )
        finally:
            os.close(complaints)
            os.close(stderr)

    def _run_program(self, arguments: list[str], text: bytes, stderr: int) -> str | None:
        """Return why it failed; None: it did not, or we end."""
        try:
            with self._changed:
                if self._closed:
                    return None
                process = self._process = subprocess.Popen(  # noqa: S603 - no shell, and the user's own program
                    arguments,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    env={name: value for name, value in os.environ.items() if name != PASSWORD_VARIABLE},
                    start_new_session=True,  # so that its children can be ended with it
                )
        except OSError as error:
            return f"cannot be run: {error.strerror}"
        failure = None
        try:
            process.communicate(text, LONGEST_S)
            if process.returncode:
                failure = f"failed with {process.returncode}"
        except subprocess.TimeoutExpired:
            failure = f"took longer than {LONGEST_S:g} s and was ended"
        with self._changed:
            self._kill()  # what it has started, too
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_END_S)
        with self._changed:
            self._process = None
            return None if self._closed else failure

    def _kill(self) -> None:
        """End the program, and what it has started; call with the lock held."""
        if self._process is not None:
            # Of a group whose last one has just ended, nobody else has the number yet.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _fail(self, failure: str, more: str) -> None:
        if failure not in self._failures:
            self._failures.add(failure)
            _log.warning("%s%s", failure, more)


def _kind(result: Result) -> Kind | None:
    """Return what people are told of a result; None: nothing, as it may not have been for us at all."""
    if result.accepted:
        return "accepted"
    if result.reason == "ambiguous":
        return "ambiguous"
    if result.reason == "low_confidence":
        meant = result.intent is not None  # and not only something like the wake phrase
    else:
        meant = result.reason in ("out_of_grammar", "timeout", "overload") and result.addressed
    return "refused" if meant else None


def _sentence(result: Result) -> str | None:
    return result.text if result.order is None else result.order


def _question(result: Result, language: str) -> str | None:
    """Return what to say of a refusal."""
    sentence = _sentence(result)
    if sentence is None or result.reason not in ("ambiguous", "low_confidence"):
        return _text("not_understood", language)
    others = [other.text for other in result.alternatives]
    same = result.reason == "ambiguous" and others[:1] in ([], [result.text])
    return _text("two_meanings" if same else "did_you_mean", language, sentence.rstrip(".?! "))


def _text(name: str, language: str, text: str = "") -> str | None:
    """Return a text of the data file in a language; None: nobody has written it."""
    found = _texts().get(re.split("[-_]", language)[0].lower(), {}).get(name)
    return None if found is None else found.replace("{text}", text)


@cache
def _texts() -> dict[str, dict[str, str]]:
    texts: dict[str, dict[str, str]] = yaml.safe_load(_TEXTS.read_text("utf-8"))
    return texts


def _complaint(pipe: int) -> str:
    """Return the last line of what a program has complained of, for a message."""
    with contextlib.suppress(BlockingIOError):  # nothing
        lines = os.read(pipe, 65_536).decode("utf-8", "replace").split("\n")  # what a pipe holds
        if said := [line.strip() for line in lines if line.strip()]:
            return f", saying {said[-1][:_MAX_COMPLAINT]!r}"
    return ""


def _arguments(command: str, signalled: Signal) -> list[str]:
    """Return a program and its arguments, with words in their places that are known to be words."""
    language = signalled.language if _LANGUAGE.fullmatch(signalled.language) else "en"
    return [
        argument.replace("{kind}", signalled.kind).replace("{language}", language)
        for argument in shlex.split(command)
    ]
