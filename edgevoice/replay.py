"""A record run again: record in, what would be decided now and what has changed out.

With the same grammar, model, options and versions the decision is the same to the last bit; where they are
not, the answer says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgevoice.errors import GrammarError, UsageError
from edgevoice.publish import result_fields
from edgevoice.recorder import setting, utterance_of

if TYPE_CHECKING:
    from edgevoice.config import Config
    from edgevoice.recognise import Recogniser
    from edgevoice.records import Record

DECISION: Final = ("text", "intent", "slots", "confidence", "accepted", "reason", "alternatives")
"""What of a result a decision is."""

_TOLD: Final = ("intent", "slots", "accepted")
"""And what of that others are told."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What became of a record."""

    record_id: str
    before: dict[str, Any]
    """The fields of its result that are DECISION,"""

    after: dict[str, Any]
    """and what they are now."""

    otherwise: tuple[str, ...]
    """What was not as it is now: "grammar", "model", options, "versions", "sound"."""

    label: dict[str, Any] | None
    """What was meant, if somebody has said so."""

    heard: str | None
    """What Whisper writes of it without the grammar, of what is refused now."""

    @property
    def same(self) -> bool:
        """Whether it is the same decision, to the last bit."""
        return self.before == self.after

    @property
    def tells_the_same(self) -> bool:
        """Whether others are told the same."""
        return all(self.before[name] == self.after[name] for name in _TOLD)

    @property
    def right(self) -> bool | None:
        """Whether it is what was meant now; None: nobody has said what that is."""
        if self.label is None:
            return None
        if self.label["intent"] is None:
            return not self.after["accepted"]
        slots = self.after["slots"]
        return bool(
            self.after["accepted"]
            and self.after["intent"] == self.label["intent"]
            and all(name in slots and slots[name] == value for name, value in self.label["slots"].items())
        )


def replay(record: Record, recogniser: Recogniser, config: Config) -> Replay:
    """Recognise again what a record holds, among the intents that could be said then, with the lists of then.

    Args:
        record: with its sound.
        recogniser: with the grammar and model to try; nobody else's meanwhile. The lists stay with it.
        config: of the recogniser.

    Raises:
        UsageError: the record has no sound, or is damaged.
    """
    try:
        utterance = utterance_of(record)
        before = {name: record.fields["result"][name] for name in DECISION}
        then = {name: record.fields[name] for name in ("grammar", "model", "options", "versions")}
        exact = record.fields["utterance"]["exact"]
        intents = frozenset(then["grammar"]["intents"])
        label = record.fields.get("label")
    except (KeyError, TypeError) as error:
        raise UsageError(f"record {record.record_id} is damaged ({error}); remove it") from None
    if utterance is None:
        raise UsageError(
            f"record {record.record_id} has no sound, so it cannot be run again; "
            "with records.audio: true later ones can"
        )
    try:
        recogniser.use_lists(record.lists)
    except GrammarError as error:
        raise UsageError(f"record {record.record_id} has lists that cannot be used: {error}") from None
    recogniser.active.ask(intents)
    try:
        answer = recogniser.recognise(utterance)
    finally:
        recogniser.active.ask(None)
        recogniser.active.begin()  # what one record asks back, the next does not answer
    if answer is None:
        raise UsageError(f"record {record.record_id} was cancelled")
    result = recogniser.result(answer, utterance)
    fields = result_fields(result, config.site)
    now = setting(config, recogniser)
    otherwise = [
        name for name in ("grammar", "model", "versions") if _identity(then[name]) != _identity(now[name])
    ]
    otherwise += [
        f"options.{name}" for name in now["options"] if now["options"][name] != then["options"].get(name)
    ]
    return Replay(
        record.record_id,
        before,
        {name: fields[name] for name in DECISION},
        (*otherwise, *(() if exact else ("sound",))),
        label,
        result.heard,
    )


def _identity(what: dict[str, Any]) -> object:
    """Of a grammar or model what it is, wherever it lies and whatever it is called."""
    return what.get("digest") or what.get("sha256") or what
