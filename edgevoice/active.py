"""Which intents can be the answer now.

All that are not dormant, or those that somebody has chosen; and for a while those of the follow-up of what
was said before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from edgevoice.events import Interpretation
    from edgevoice.grammar_file import Block


@dataclass(frozen=True, slots=True)
class _Open:
    """A follow-up that waits for its answer."""

    utterance_id: str
    intents: frozenset[str]
    until_s: float


class ActiveIntents:
    """Keeps count. Times are places in the stream, in seconds."""

    def __init__(self) -> None:
        self._chosen: frozenset[str] | None = None
        self._asked: frozenset[str] | None = None
        self._open: _Open | None = None

    def choose(self, intents: Collection[str] | None) -> None:
        """Let only these be said, from any thread, or all again: None."""
        self._chosen = None if intents is None else frozenset(intents)

    def ask(self, intents: Collection[str] | None) -> None:
        """Let only these be said while somebody waits for an answer, from any thread, whatever is chosen."""
        self._asked = None if intents is None else frozenset(intents)

    def begin(self) -> None:
        """Begin a stream: nothing waits for an answer."""
        self._open = None

    def at(self, blocks: Sequence[Block], at_s: float) -> frozenset[str]:
        """Return the intents that can be said when speech begins at a time.

        When none of the chosen is there (any more), it is as if none had been chosen.
        """
        awake = frozenset(block.intent for block in blocks if not block.dormant)
        chosen = awake if self._chosen is None else self._chosen
        known = frozenset(block.intent for block in blocks)
        asked = self._asked
        wanted = chosen | self._waiting(at_s) if asked is None else asked
        return (wanted & known) or awake

    def follows(self, intent: str | None, at_s: float) -> str | None:
        """Return the utterance to which an intent is the answer."""
        return self._open.utterance_id if self._open and intent in self._waiting(at_s) else None

    def accepted(self, meaning: Interpretation, utterance_id: str, end_s: float) -> None:
        """Take what was said: it answers a follow-up that was open, or lets it go, and may open one."""
        self._open = None
        if meaning.follow_up:
            until_s = end_s + meaning.follow_up.seconds
            self._open = _Open(utterance_id, frozenset(meaning.follow_up.intents), until_s)

    def _waiting(self, at_s: float) -> frozenset[str]:
        return self._open.intents if self._open and at_s <= self._open.until_s else frozenset()
