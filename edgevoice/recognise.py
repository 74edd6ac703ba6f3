"""Recognition: an utterance in, an answer out, through Whisper under the grammar and the decision after it.

An answer becomes a result when its utterance has ended.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypedDict

from edgevoice import grammar as grammar_compiler
from edgevoice import grammar_file, levels, match, models, prompt, wake
from edgevoice.active import ActiveIntents
from edgevoice.confidence import confidence_model
from edgevoice.decide import Decision, decide
from edgevoice.errors import CancelledError, ConfigError, DeadlineError
from edgevoice.events import SAMPLE_RATE_HZ, Result, Timings, Transcript, Utterance
from edgevoice.native import Grammar, Model, Session, SessionOptions, language_id
from edgevoice.repair import repair

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgevoice.config import Config
    from edgevoice.events import Interpretation, Samples
    from edgevoice.grammar import CompiledGrammar
    from edgevoice.grammar_file import GrammarFile


_MAX_PARTS: Final = 4
"""Of a grammar that stay ready, each a few MB with Home Assistant's sentences: a follow-up is soon over."""

BEYOND_DOUBT: Final = 0.97
"""Free text may be anything, so it is looked for only when no other sentence is as sure as this. Of 40 spoken
sentences without free text (bench/house.py) 35 were; of 40 with it none, but one was 0.95 sure without what
its free text said: "Create the twenty-five hour and ninety-one minutes timer"."""

LATER: Final = 2 / 3
"""Of the room before the first word, left out when what is nearly sure is looked at again. Of orders with
kitchen noise at 6, 9 and 12 dB that were right, 289 of 296, 302 of 304 and 306 of 308 were accepted; with the
mean of what both looks saw one more at 6 and 12 dB, and without noise one more of 310; of near misses 11 in
place of 10 of 287. A lower threshold that accepts as many accepts 20 of them."""

NEARLY: Final = 0.3
"""Confidence from which it is: of 133 refused with 0.1 to 0.5 a second look accepted 5, from 0.32 up."""

Outlook = Literal["finished", "open", "unfinished"]
"""Of what was said up to a pause: a sentence that no word of the grammar can follow, one that can go on, no
sentence."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an utterance is taken for."""

    utterance: Utterance
    decision: Decision
    timings: Timings
    outlook: Outlook


class Decoding:
    """A grammar, or the part of it that can be said now, and the session that decodes with it.

    Args:
        whole: the grammar.
        session: that decodes with it,
        bound: or, when false, without any.
    """

    def __init__(self, whole: Grammar, session: Session, *, bound: bool) -> None:
        self.grammar = whole
        self.session = session
        self.bound: Final = bound
        self.whole: Final = whole
        """That the grammar is, or is a part of."""
        self._parts = {frozenset(block.intent for block in whole.compiled.blocks): whole}

    def select(self, intents: frozenset[str]) -> None:
        """Let only these intents be said."""
        part = self._parts.pop(intents, None) or Grammar(self.whole.compiled.only(intents))
        self._parts[intents] = part  # the last one is the one used last
        if part is not self.grammar:
            if self.bound:
                self.session.use(part)
            self.grammar = part
        for unused in [key for key in self._parts if self._parts[key] is not self.whole][:-_MAX_PARTS]:
            self._parts.pop(unused).close()

    def close(self) -> None:
        """Release everything."""
        self.session.close()
        for part in self._parts.values():
            part.close()


class Recogniser:
    """A loaded model and grammar.

    Args:
        config: names the model, the grammar and how to decode.
        grammar: a grammar file in place of the configured one.
        model: one that is loaded already, and stays its owner's.
        file: a grammar that is read already, in place of what is in the file now.

    Raises:
        GrammarError, ModelNotFoundError, ModelCorruptError, ConfigError: before anything is recognised.
    """

    def __init__(
        self,
        config: Config,
        grammar: Path | None = None,
        model: Model | None = None,
        file: GrammarFile | None = None,
    ) -> None:
        self.grammar_path = grammar or config.grammar.file or shipped_grammar(config.model.language)
        self._config = config
        file = file or self.load()
        self.model = model or Model(models.find(config.model.name))
        self._owns_model = model is None
        self.min_confidence = config.recognition.min_confidence
        """From which on a sentence is accepted, 0-1; may be set from any thread."""
        self._confidence = confidence_model(Path(config.model.name).name)
        self.active = ActiveIntents()
        self.busy_since_s: float | None = None
        """When the engine began what it does now, by time.monotonic(); None: nothing."""
        self._changing = threading.Lock()  # guards what follows
        self._next: Decoding | None = None
        self._decoding = self.prepare(file)

    @property
    def grammar(self) -> Grammar:
        """The one in use."""
        return self._decoding.grammar

    @property
    def compiled(self) -> CompiledGrammar:
        """All of the grammar of the next command, whatever can be said now; in any thread."""
        with self._changing:
            return (self._next or self._decoding).whole.compiled

    @property
    def language(self) -> str:
        """That is understood, as Whisper's code."""
        return self._decoding.session.options.language

    def load(self, path: Path | None = None) -> GrammarFile:
        """Read a grammar's file, by default that of the beginning.

        Raises:
            GrammarError: it cannot be used.
        """
        return grammar_file.load(path or self.grammar_path, self._config.grammar.context)

    def prepare(self, file: GrammarFile) -> Decoding:
        """Compile a grammar and open a session for it, in any thread; nothing else changes.

        Raises:
            GrammarError, ConfigError: it cannot be used.
        """
        config = self._config
        network = grammar = Grammar(grammar_compiler.compile_grammar(file, wake.phrase(config.wake)))
        language = self.language_for(file.language)
        options = SessionOptions(
            threads=config.model.thread_count,
            language=language,
            beam=config.model.beam,
            timeout_s=config.recognition.timeout_s,
        )
        mode = config.recognition.mode
        if mode != "grammar":
            # Free text is as likely as Whisper says it is: nothing rewarded, nothing subtracted.
            options = replace(
                options,
                token_reward=0.0,
                lm_weight=0.0,
                context=prompt.build(file) if mode == "prompt" else "",
            )
            network = Grammar(grammar_compiler.compile_free_text(language))
            grammar.nearest("", 0.0, 1, 0)  # made now, not while somebody waits for the first repair
        return Decoding(grammar, Session(self.model, network, options), bound=network is grammar)

    def language_for(self, language: str) -> str:
        """Return what Whisper calls the language to understand with a grammar of a language.

        Raises:
            ConfigError: the model does not know it.
            UsageError: no model does.
        """
        config = self._config
        code = config.model.language or re.split("[-_]", language)[0].lower()
        if code != "en" and not self.model.info.multilingual:
            raise ConfigError(
                f"model {config.model.name} knows only English, the language to understand is {code!r}; "
                "pull and configure a model without .en, such as base"
            )
        language_id(code)
        return code

    def use(self, decoding: Decoding) -> None:
        """Use what was prepared from the next recognition on."""
        with self._changing:
            unused, self._next = self._next, decoding
        if unused:
            unused.close()

    def use_lists(self, given: Mapping[str, object]) -> None:
        """Put values in place of lists' own, for the next recognition; not while another thread recognises.

        Raises:
            GrammarError: they are no values.
        """
        self._renew()
        file = self.compiled.file
        if file.given != given:
            self.use(self.prepare(grammar_file.with_lists(file, given)))

    def _renew(self) -> None:
        """Between two recognitions, take what use() was given."""
        with self._changing:
            if self._next is None:
                return
            old, self._decoding, self._next = self._decoding, self._next, None
            old.close()  # here, where nobody can cancel() it

    def _select(self, at_s: float) -> None:
        """Let be said what can be said at a time."""
        self._renew()
        self._decoding.select(self.active.at(self.grammar.compiled.blocks, at_s))

    def understand(self, text: str) -> list[Interpretation]:
        """Return what a typed text means, as repair() does, among the intents that can be said.

        Not while another thread recognises.
        """
        self._select(0.0)
        return repair(self.grammar, text)

    def recognise(self, utterance: Utterance) -> Answer | None:
        """Return what an utterance is taken for; None if cancel() was called meanwhile."""
        if utterance.end_reason in ("too_long", "overload"):
            return Answer(utterance, Decision(None, 0.0, utterance.end_reason, ()), Timings(), "open")
        with self._busy():
            return self._recognise(utterance)

    def _recognise(self, utterance: Utterance) -> Answer | None:
        self._select(utterance.speech_start_samples / SAMPLE_RATE_HZ)
        started = time.perf_counter()
        try:
            decision, timings = self._look(utterance.samples, utterance)
            nearly = decision.reason == "low_confidence" and decision.confidence >= NEARLY
            if nearly and self._decoding.bound:
                decision, more = self._look(self._begun_later(utterance), utterance, before=decision)
                timings = timings.plus(more)
        except CancelledError:
            return None
        except DeadlineError:
            spent_ms = (time.perf_counter() - started) * 1000
            return Answer(utterance, Decision(None, 0.0, "timeout", ()), Timings(search=spent_ms), "open")
        return Answer(utterance, decision, timings, self._outlook(decision))

    def _begun_later(self, utterance: Utterance) -> Samples:
        """Return its samples with less of the room before the first word: Whisper writes otherwise then."""
        before = utterance.speech_start_samples - utterance.start_samples
        room = min(before, self._config.endpoint.pre_roll_ms * SAMPLE_RATE_HZ // 1000)
        return utterance.samples[round(LATER * room) :]

    def _look(
        self, samples: Samples, utterance: Utterance, before: Decision | None = None
    ) -> tuple[Decision, Timings]:
        """Decode samples of an utterance, first without free text if the grammar has other sentences, too."""
        session = self._decoding.session
        transcript = session.recognise(samples, free_text=False)
        decision, timings = self._decide(transcript, utterance, before)
        if transcript.without_free_text and decision.confidence < BEYOND_DOUBT:
            other, more = self._decide(session.recognise_free_text(), utterance, before)
            decision, timings = (other if other.meaning else decision), timings.plus(more)
        return decision, timings

    def _decide(
        self, transcript: Transcript, utterance: Utterance, before: Decision | None
    ) -> tuple[Decision, Timings]:
        started = time.perf_counter()
        decision = decide(
            transcript,
            self.grammar,
            sure_s=utterance.sure_s,
            addressed=utterance.addressed,
            min_confidence=self.min_confidence,
            model=self._confidence,
            before=before,
        )
        return decision, replace(transcript.timings, match=(time.perf_counter() - started) * 1000)

    def _outlook(self, decision: Decision) -> Outlook:
        if decision.reason == "no_speech":
            return "open"
        if decision.reason is not None or decision.meaning is None:
            return "unfinished"
        return "open" if self.grammar.can_go_on(decision.meaning.text.rstrip(".?! ")) else "finished"

    def cancel(self) -> None:
        """End a recognition that runs in another thread; without one, nothing."""
        with self._changing:
            self._decoding.session.cancel()

    def result(self, answer: Answer, utterance: Utterance, *, explain: bool = True) -> Result:
        """Return the accepted intent or the refusal for an utterance that has ended with this answer.

        To be called before the next recognition, or without `explain`: a refusal is explained by what the
        session still holds.
        """
        decision, timings = answer.decision, replace(answer.timings, vad=utterance.vad_ms)
        heard = decision.written if decision.reason else None
        explicable = explain and decision.reason not in (None, "too_long", "overload", "timeout")
        if explicable and heard is None:
            started = time.perf_counter()
            with contextlib.suppress(CancelledError):
                heard = self.heard()
            timings = replace(timings, explain=(time.perf_counter() - started) * 1000)
        order = None
        if decision.meaning is not None and decision.meaning.woken:
            order = match.without_wake_phrase(self.grammar, decision.meaning.text)
        since_s = utterance.speech_end_clock_s
        identity = _identity(utterance.speech_start_samples, utterance.speech_end_samples)
        follows = None
        if decision.reason is None and decision.meaning is not None:
            follows = self.active.follows(decision.meaning.intent, identity["start_s"])
            self.active.accepted(decision.meaning, identity["utterance_id"], identity["end_s"])
        return Result(
            **identity,
            text=(decision.written or decision.meaning.text) if decision.meaning else None,
            intent=(decision.meaning.intent or None) if decision.meaning else None,
            slots=decision.meaning.slots if decision.meaning else {},
            slots_raw=decision.meaning.slots_raw if decision.meaning else {},
            confidence=decision.confidence,
            accepted=decision.reason is None,
            reason=decision.reason,
            order=order,
            heard=heard,
            confirm=decision.meaning.confirm if decision.meaning else False,
            follows=follows,
            alternatives=tuple(other for other in decision.alternatives if other.intent),
            timings=timings,
            latency_ms=None if since_s is None else (time.monotonic() - since_s) * 1000,
            addressed=utterance.addressed,
            clarity_db=levels.clarity_db(utterance.samples),
        )

    def heard(self) -> str | None:
        """Return what Whisper would have written of the last utterance, once; None if that takes too long.

        Raises:
            CancelledError: cancel() was called.
        """
        try:
            with self._busy():
                return self._decoding.session.transcribe().text
        except CancelledError:
            raise
        except DeadlineError:  # it only explains: the decision stands without it
            return None

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        self.busy_since_s = time.monotonic()
        try:
            yield
        finally:
            self.busy_since_s = None

    def close(self) -> None:
        """Release model, grammar and session."""
        with self._changing:
            unused, self._next = self._next, None
        if unused:
            unused.close()
        self._decoding.close()
        if self._owns_model:
            self.model.close()


def shipped_grammar(language: str | None = None) -> Path:
    """Return the grammar for the home that comes with edgevoice in a language; None is English.

    Raises:
        ConfigError: there is none for the language, or edgevoice is not whole.
    """
    found = shipped_grammars()
    if not found:
        raise ConfigError(
            "the grammars that come with edgevoice are missing; set grammar.file, or install again"
        )
    path = found.get(language or "en")
    if path is None:
        raise ConfigError(
            f"model.language: {language!r} seen; a home grammar comes with edgevoice for "
            f"{', '.join(found)}; write one for your language and name it in grammar.file"
        )
    return path


def shipped_grammars() -> dict[str, Path]:
    """Return the grammars for the home that come with edgevoice, by language; none if they are missing."""
    package = Path(__file__).parent
    for folder in (package / "grammars", package.parent / "grammars"):  # installed, or in the source tree
        if (folder / "home.yaml").is_file():
            others = {path.name.split(".")[1]: path for path in folder.glob("home.*.yaml")}
            return dict(sorted({"en": folder / "home.yaml", **others}.items()))
    return {}


def typed(meaning: Interpretation) -> Result:
    """Return the accepted result of a command that was typed: nothing of it is uncertain, or took time."""
    return Result(
        **_identity(0, 0),
        text=meaning.text,
        intent=meaning.intent,
        slots=meaning.slots,
        slots_raw=meaning.slots_raw,
        confidence=1.0,
        accepted=True,
        reason=None,
        confirm=meaning.confirm,
    )


def nothing_said(length_samples: int, vad_ms: float) -> Result:
    """Return the refusal of a whole stream in which nobody spoke."""
    return Result(
        **_identity(0, length_samples),
        text=None,
        intent=None,
        slots={},
        slots_raw={},
        confidence=0.0,
        accepted=False,
        reason="no_speech",
        timings=Timings(vad=vad_ms),
    )


class _Identity(TypedDict):
    utterance_id: str
    time: str
    start_s: float
    end_s: float


def _identity(start_samples: int, end_samples: int) -> _Identity:
    return {
        "utterance_id": str(uuid.uuid4()),
        "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
        "start_s": start_samples / SAMPLE_RATE_HZ,
        "end_s": end_samples / SAMPLE_RATE_HZ,
    }
