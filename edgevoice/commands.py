"""Commands in: what others may tell a running edgevoice over MQTT.

    edgevoice/<site>/set/mute       ON or OFF; nothing, which clears what was retained, changes nothing
    edgevoice/<site>/set/playing    ON, OFF or seconds
    edgevoice/<site>/set/listen     nothing, or seconds
    edgevoice/<site>/set/reload     nothing
    edgevoice/<site>/set/say-again  nothing
    edgevoice/<site>/set/threshold  a number, 0 to 1; or nothing
    edgevoice/<site>/set/grammar    a name of grammar.choices; or nothing
    edgevoice/<site>/set/intents    JSON: names of the only intents that can be said; or nothing
    edgevoice/<site>/set/lists/<name>   JSON: values in place of those of a list of the grammar; or nothing

The publisher receives them on its connection, and answers (publish.py). `edgevoice tell` sends them
(cli_tell.py).
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from edgevoice.attention import MAX_LISTEN_S, MAX_PLAYING_S, Attention
from edgevoice.errors import UsageError
from edgevoice.trial import Trials

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgevoice.events import Result
    from edgevoice.feedback import Feedback
    from edgevoice.floor import Floor
    from edgevoice.microphone import Microphone
    from edgevoice.recognise import Recogniser
    from edgevoice.reload import Reloader

_log = logging.getLogger(__name__)

NAMES: Final = ("mute", "playing", "listen", "reload", "say-again", "threshold")
_KEPT: Final = ("mute", "threshold")  # what still holds when it was said to one before us
LIST: Final = "lists/"
INTENTS: Final = "intents"
_GRAMMAR: Final = "grammar"
_MAX_BYTES: Final = 32  # a word or a number
_SHOWN_BYTES: Final = 40  # of what was seen, in messages
_WORDS: Final = {"on": True, "true": True, "off": False, "false": False}


def parse(name: str, payload: bytes) -> bool | float | None:
    """Return what a command without JSON says: on or off, seconds, or nothing.

    Raises:
        UsageError: it is none; says what is allowed.
    """
    if name not in NAMES:
        allowed = ", ".join((*NAMES, _GRAMMAR, INTENTS, LIST + "NAME"))
        raise UsageError(f"there is no command {shown(name.encode())}; allowed are {allowed}")
    text = payload[: _MAX_BYTES + 1].decode("utf-8", "replace").strip().lower()
    most = {"playing": MAX_PLAYING_S, "listen": MAX_LISTEN_S, "threshold": 1.0}.get(name)
    if len(payload) <= _MAX_BYTES:
        if name in ("mute", "playing") and text in _WORDS:
            return _WORDS[text]
        if name != "playing" and not text:
            return None
        if most is not None and re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) and float(text) <= most:
            return float(text)
    allowed = {
        "mute": "ON, OFF or nothing",
        "playing": "ON, OFF or seconds",
        "listen": "nothing or seconds",
        "reload": "nothing",
        "say-again": "nothing",
        "threshold": "nothing or a number",
    }[name]
    limit = f" from 0 to {most:g}" if most else ""
    raise UsageError(f"{name}: {shown(payload)} seen; allowed is {allowed}{limit}; correct the value")


def shown(seen: bytes) -> str:
    """Return what was seen for a message, cut to a length one can read."""
    text = ascii(seen[:_SHOWN_BYTES].decode("utf-8", "replace"))
    return text if len(seen) <= _SHOWN_BYTES else f"{text}... ({len(seen)} bytes)"


class Commands:
    """Carries commands out, from any thread.

    Args:
        window_s: how long `listen` waits for speech, unless it says.
        recognisers: whose threshold is set.
        tell: given what is set, now and at each change, as JSON types.
    """

    def __init__(
        self,
        window_s: float,
        recognisers: Sequence[Recogniser] = (),
        tell: Callable[[dict[str, object]], None] = lambda _: None,
    ) -> None:
        self.attention = Attention()
        self._recognisers = recognisers
        self._threshold = recognisers[0].min_confidence if recognisers else 0.0  # as configured
        self._tell = tell
        self.reloader: Reloader | None = None
        """Who changes the grammar."""
        self.feedback: Feedback | None = None
        """Who repeats what was told of a command."""
        self.floor: Floor | None = None
        """Who lets browsers speak."""
        self.give: Callable[[Result], None] | None = None
        """Who takes what was typed, and acts as if it had been said."""
        self.trials = Trials()
        """What is said to be tried out only."""
        self._window_s = window_s
        self._muted = False
        self._microphone: Microphone | None = None
        self._report()

    @property
    def recogniser(self) -> Recogniser | None:
        """The one of the microphone; None: nothing is recognised here."""
        return self._recognisers[0] if self._recognisers else None

    @property
    def muted(self) -> bool:
        """Whether nothing is heard, or will not be by a microphone that opens."""
        return self._muted

    @property
    def microphone(self) -> Microphone | None:
        """The one that is muted; None while recordings are played."""
        return self._microphone

    @microphone.setter
    def microphone(self, microphone: Microphone | None) -> None:
        self._microphone = microphone
        if microphone is not None:
            microphone.muted = self._muted

    def take(self, name: str, payload: bytes, *, retained: bool = False) -> None:
        """Carry out one command.

        A retained one was sent before we were there: only what is set, and no moment, still holds.

        Raises:
            UsageError: it cannot be carried out.
        """
        if name.startswith(LIST):
            self._grammar.set_list(name.removeprefix(LIST), payload, retained=retained)
            return
        if name == INTENTS:
            self._grammar.set_intents(payload, retained=retained)
            return
        if name == _GRAMMAR:
            self._grammar.choose(payload)
            return
        value = parse(name, payload)
        if retained and name not in _KEPT:
            _log.info("a retained %s is ignored: it was meant for another time", name)
            return
        carry_out: dict[str, Callable[[bool | float | None], None]] = {
            "mute": self._mute,
            "playing": self._play,
            "listen": self._listen,
            "reload": lambda _: self._grammar.reload(),
            "say-again": lambda _: self._say_again(),
            "threshold": self._set_threshold,
        }
        carry_out[name](value)

    @property
    def _grammar(self) -> Reloader:
        if self.reloader is None:
            raise UsageError("nothing is listening yet; send it again")
        return self.reloader

    def _mute(self, muted: bool | float | None) -> None:
        if muted is None:  # who had it retained takes that back
            return
        self._muted = bool(muted)
        if self._microphone is None:
            _log.info("no microphone is open; one that opens will be %s", "muted" if muted else "heard")
        else:
            self._microphone.muted = self._muted
        self._report()

    def _play(self, playing: bool | float | None) -> None:
        if playing is True:
            self.attention.play()
        elif playing:
            self.attention.play(playing)
        else:
            self.attention.stop()

    def _listen(self, duration_s: float | None) -> None:
        self.attention.listen(self._window_s if duration_s is None else duration_s)

    def _say_again(self) -> None:
        if self.feedback is None:
            raise UsageError("say-again: nobody speaks here; set feedback.say, chime or publish")
        self.feedback.again()

    def _set_threshold(self, threshold: float | None) -> None:
        for recogniser in self._recognisers:
            recogniser.min_confidence = self._threshold if threshold is None else threshold
        self._report()

    def _report(self) -> None:
        if self._recognisers:
            self._tell({"muted": self._muted, "threshold": self._recognisers[0].min_confidence})
