"""Why a command was refused, in words for people: what it means, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgevoice.events import Reason


@dataclass(frozen=True, slots=True)
class Words:
    """About a reason."""

    short: str
    """A few words, after the name of the reason."""

    meaning: str
    """What happened, one sentence."""

    remedy: str
    """What can be done, one sentence."""


REASONS: Final[dict[Reason, Words]] = {
    "no_speech": Words(
        "no speech",
        "There was a sound, but nobody seems to have spoken, or far too little for any sentence.",
        "If somebody did, speak closer to the microphone, or turn it up; `edgevoice devices --test` helps.",
    ),
    "out_of_grammar": Words(
        "no sentence of the grammar",
        "What was said is no sentence that edgevoice was told.",
        "If it should be one, add it to the grammar; `edgevoice grammar explain` shows how far it gets.",
    ),
    "low_confidence": Words(
        "nearly, but not surely",
        "It sounded like the sentence shown, but not surely enough to act on it.",
        "Say it again, clearer or closer; if it is refused again and again, label some records and measure.",
    ),
    "ambiguous": Words(
        "two intents are as likely",
        "Two commands that mean different things fit equally well.",
        "Word one of them differently; `edgevoice grammar check` lists sentences that say or sound the same.",
    ),
    "too_long": Words(
        "too long without a pause",
        "Somebody, or the television, spoke for longer than a command can be.",
        "Pause before a command; tell edgevoice when the house plays something, or use a wake word.",
    ),
    "timeout": Words(
        "recognition took too long",
        "The machine was too slow, or busy with something else.",
        "Take a smaller model, see what else runs, or raise recognition.timeout_s; ask `edgevoice doctor`.",
    ),
    "overload": Words(
        "too many commands at once",
        "Others came before this one could be recognised.",
        "Wait for the answer before the next command; if that does not help, take a smaller model.",
    ),
    "elsewhere": Words(
        "answered by another edgevoice",
        "Another edgevoice in the house heard it better, and has answered.",
        "Nothing: this is how it should be.",
    ),
}
