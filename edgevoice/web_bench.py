"""The bench of the page: what can be tried out there.

typed text ──> meaning, or why not ──> given to the house, if that is asked for
a sentence, and what is said ──> whether it was understood, and no command
the grammar's file (web_grammar.py), and the records (web_again.py)
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Any, Final

from edgevoice import web_check
from edgevoice.errors import UsageError
from edgevoice.grammar import TracedGrammar, compile_traced
from edgevoice.grammar_explain import explain_with
from edgevoice.native import Grammar
from edgevoice.publish import result_fields
from edgevoice.recognise import typed
from edgevoice.repair import differ, repair
from edgevoice.trial import TRIAL_S
from edgevoice.web_again import Shelf
from edgevoice.web_grammar import BusyError, Editor
from edgevoice.web_live import words_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from edgevoice.commands import Commands
    from edgevoice.config import Config
    from edgevoice.events import Interpretation, Result
    from edgevoice.grammar import CompiledGrammar
    from edgevoice.recognise import Recogniser
    from edgevoice.web_live import Live

MAX_TEXT: Final = 500
"""Characters of a typed sentence; nobody says as much in one command."""

_MAX_MEANINGS: Final = 10
_LAST_WORDS_S: Final = 30.0  # for what was begun within the time of a trial to end, and be understood
_LOOK_S: Final = 0.2  # between two looks whether who tries is still there


class Bench:
    """What the page lets one try; in one thread, but for hear() and what is asked of the two others.

    Args:
        config: everything else.
        live: tells when somebody speaks.
        commands: have the recogniser, and who takes what was typed.
    """

    def __init__(self, config: Config, live: Live, commands: Commands) -> None:
        self._config = config
        self._live = live
        self._commands = commands
        self._known: _Known | None = None
        self.editor = Editor(config, commands)
        """The grammar's file."""
        self.shelf = Shelf(config, live, commands)
        """The records."""

    # ---- typed text ----

    def read(self, text: str) -> dict[str, Any]:
        """Return what the house would make of a typed text, as JSON values.

        Raises:
            UsageError: nothing is listening yet.
        """
        recogniser = self._recogniser()
        known = self._understanding(recogniser)
        meanings = repair(known.grammar, text)
        explained = web_check.told(
            known.compiled.file, explain_with(known.traced, known.traced_grammar, text)
        )
        active = recogniser.active.at(known.compiled.blocks, math.inf)  # inf: no question waits for an answer
        return explained | {
            "outcome": _outcome(meanings, active),
            "meanings": [
                {
                    **web_check.meaning(each),
                    "sentence": web_check.cut(each.text),
                    "corrected": each.cost > 0,
                    "confirm": each.confirm,
                }
                for each in meanings[:_MAX_MEANINGS]
            ],
        }

    def give(self, text: str) -> dict[str, Any]:
        """Give a typed command to the house, as if it had been said, and return its result's fields.

        Raises:
            UsageError: it is none, or nobody takes it yet.
        """
        result = typed(self._meaning(text))
        if self._commands.give is None:
            raise UsageError("nothing is listening yet; try again")
        self._commands.give(result)
        return result_fields(result, self._config.site)

    def _meaning(self, text: str) -> Interpretation:
        """Return the one meaning of a typed command that can be said now."""
        recogniser = self._recogniser()
        known = self._understanding(recogniser)
        meanings = repair(known.grammar, text)
        outcome = _outcome(meanings, recogniser.active.at(known.compiled.blocks, math.inf))
        if outcome == "understood":
            return meanings[0]
        why = {
            "refused": "it is no sentence of the grammar",
            "ambiguous": "it can mean several things",
            "asleep": "it cannot be said now: its intent is switched off, or answers a question only",
        }[outcome]
        raise UsageError(f"this is no command: {why}; try another sentence than {web_check.cut(text)!r}")

    def _understanding(self, recogniser: Recogniser) -> _Known:
        """Return the grammar in use, for this thread: the recogniser's own is in use by its thread."""
        if self._known is None or self._known.compiled is not recogniser.compiled:
            if self._known is not None:
                self._known.close()
            self._known = _Known(recogniser.compiled)
        return self._known

    def _recogniser(self) -> Recogniser:
        if self._commands.recogniser is None:
            raise UsageError("nothing is listening yet; try again")
        return self._commands.recogniser

    # ---- saying it ----

    def wanted(self, text: str) -> Interpretation:
        """Return what a sentence means that is to be said; {slot} in it stands for any text.

        Raises:
            UsageError: it is no command.
        """
        return self._meaning(text)

    async def hear(self, gone: Callable[[], Awaitable[bool]]) -> Result:
        """Return what becomes of what is said next into the microphone of the house; nobody acts on it.

        Args:
            gone: whether who asked has gone.

        Raises:
            UsageError: somebody else tries something out, or no microphone hears.
            BusyError: nobody has said anything.
        """
        if self._live.now()["state"] in ("muted", "lost", "serving", "starting") or self._commands.muted:
            raise UsageError("no microphone of the house hears now; say it with this one")
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[Result] = loop.create_future()

        def take(result: Result) -> None:
            if not heard.done():
                heard.set_result(result)

        def tell(result: Result) -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(take, result)

        trial = self._commands.trials.begin(tell)
        try:
            self._commands.attention.listen(TRIAL_S)  # whatever the wake word
            ends_s = loop.time() + TRIAL_S
            while not heard.done():
                await asyncio.wait({heard}, timeout=_LOOK_S)
                if loop.time() > ends_s + (_LAST_WORDS_S if self._live.busy else 0.0):
                    raise BusyError(f"nothing was said within {TRIAL_S:g} s; try again")
                if await gone():
                    raise BusyError("who wanted to say it has gone")
        finally:
            self._commands.trials.end(trial)
        return heard.result()


class _Known:
    """A grammar in use, opened for another thread, and as it is explained."""

    def __init__(self, compiled: CompiledGrammar) -> None:
        self.compiled = compiled
        self.grammar = Grammar(compiled)
        self.traced: TracedGrammar = compile_traced(compiled.file)
        self.traced_grammar = Grammar(self.traced.compiled)

    def close(self) -> None:
        """Release it."""
        self.grammar.close()
        self.traced_grammar.close()


def compare(wanted: Interpretation, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what became of a sentence that was to be said, and whether that is what it means.

    Args:
        wanted: what it means.
        fields: of the result.
    """
    meant = web_check.meaning(wanted)
    slots = fields["slots"]
    right = (
        fields["accepted"]
        and fields["intent"] == wanted.intent
        and slots.keys() == meant["slots"].keys()
        and all(value in (slots[name], f"{{{name}}}") for name, value in meant["slots"].items())
    )
    return {
        "right": right,
        "wanted": {"text": wanted.text, **meant},
        "result": {**fields, "words": words_of(fields["reason"])},
    }


def _outcome(meanings: list[Interpretation], active: frozenset[str]) -> str:
    if not meanings:
        return "refused"
    if any(differ(meanings[0], other) for other in meanings[1:]):
        return "ambiguous"
    return "understood" if meanings[0].intent in active else "asleep"
