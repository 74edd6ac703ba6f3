"""Recognition: an utterance in, an answer out, through Whisper under the grammar and the decision after it.

An answer becomes a result when its utterance has ended.
"""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from edgevoice import grammar as grammar_compiler
from edgevoice import grammar_file, models, prompt, wake
from edgevoice.confidence import confidence_model
from edgevoice.decide import Decision, decide
from edgevoice.errors import CancelledError, ConfigError, DeadlineError
from edgevoice.events import SAMPLE_RATE_HZ, Result, Timings, Utterance
from edgevoice.native import Grammar, Model, Session, SessionOptions

if TYPE_CHECKING:
    from edgevoice.config import Config


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

    def covers(self, utterance: Utterance) -> bool:
        """Whether this is the answer for an utterance, too: one that ended where this one paused."""
        return (
            utterance.end_reason in ("silence", "end_of_stream")
            and utterance.speech_start_samples == self.utterance.speech_start_samples
            and utterance.speech_end_samples == self.utterance.speech_end_samples
        )


class Recogniser:
    """A loaded model and grammar.

    Args:
        config: names the model, the grammar and how to decode.
        grammar: a grammar file in place of the configured one.

    Raises:
        GrammarError, ModelNotFoundError, ModelCorruptError, ConfigError: before anything is recognised.
    """

    def __init__(self, config: Config, grammar: Path | None = None) -> None:
        path = grammar or config.grammar.file or shipped_grammar()
        file = grammar_file.load(path)
        self.grammar = Grammar(grammar_compiler.compile_grammar(file, wake.phrase(config.wake)))
        self._model = Model(models.find(config.model.name))
        language = config.model.language or re.split("[-_]", self.grammar.compiled.file.language)[0].lower()
        if language != "en" and not self._model.info.multilingual:
            raise ConfigError(
                f"model {config.model.name} knows only English, the language to understand is {language!r}; "
                "pull and configure a model without .en, such as base"
            )
        options = SessionOptions(
            threads=config.model.thread_count,
            language=language,
            beam=config.model.beam,
            timeout_s=config.recognition.timeout_s,
        )
        network = self.grammar
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
            self.grammar.nearest("", 0.0, 1, 0)  # made now, not while somebody waits for the first repair
        self._session = Session(self._model, network, options)
        self._min_confidence = config.recognition.min_confidence
        self._confidence = confidence_model(Path(config.model.name).name)

    def recognise(self, utterance: Utterance) -> Answer | None:
        """Return what an utterance is taken for; None if cancel() was called meanwhile."""
        if utterance.end_reason in ("too_long", "overload"):
            return Answer(utterance, Decision(None, 0.0, utterance.end_reason, ()), Timings(), "open")
        started = time.perf_counter()
        try:
            transcript = self._session.recognise(utterance.samples)
        except CancelledError:
            return None
        except DeadlineError:
            spent_ms = (time.perf_counter() - started) * 1000
            return Answer(utterance, Decision(None, 0.0, "timeout", ()), Timings(search=spent_ms), "open")
        started = time.perf_counter()
        decision = decide(
            transcript,
            self.grammar,
            sure_s=utterance.sure_s,
            addressed=utterance.addressed,
            min_confidence=self._min_confidence,
            model=self._confidence,
        )
        outlook = self._outlook(decision)
        match_ms = (time.perf_counter() - started) * 1000
        return Answer(utterance, decision, replace(transcript.timings, match=match_ms), outlook)

    def _outlook(self, decision: Decision) -> Outlook:
        if decision.reason == "no_speech":
            return "open"
        if decision.reason is not None or decision.meaning is None:
            return "unfinished"
        return "open" if self.grammar.can_go_on(decision.meaning.text.rstrip(".?! ")) else "finished"

    def cancel(self) -> None:
        """End a recognition that runs in another thread; without one, nothing."""
        self._session.cancel()

    def result(self, answer: Answer, utterance: Utterance) -> Result:
        """Return the accepted intent or the refusal for an utterance that has ended with this answer.

        To be called before the next recognition: a refusal is explained by what the session still holds.
        """
        decision, timings = answer.decision, replace(answer.timings, vad=utterance.vad_ms)
        heard = decision.written if decision.reason else None
        if decision.reason not in (None, "too_long", "overload", "timeout") and heard is None:
            started = time.perf_counter()
            heard = self._heard()
            timings = replace(timings, explain=(time.perf_counter() - started) * 1000)
        since_s = utterance.speech_end_clock_s
        return Result(
            **_identity(utterance.speech_start_samples, utterance.speech_end_samples),
            text=(decision.written or decision.meaning.text) if decision.meaning else None,
            intent=(decision.meaning.intent or None) if decision.meaning else None,
            slots=decision.meaning.slots if decision.meaning else {},
            slots_raw=decision.meaning.slots_raw if decision.meaning else {},
            confidence=decision.confidence,
            accepted=decision.reason is None,
            reason=decision.reason,
            heard=heard,
            confirm=decision.meaning.confirm if decision.meaning else False,
            alternatives=tuple(other for other in decision.alternatives if other.intent),
            timings=timings,
            latency_ms=None if since_s is None else (time.monotonic() - since_s) * 1000,
        )

    def _heard(self) -> str | None:
        try:
            return self._session.transcribe().text
        except DeadlineError:  # it only explains: the decision stands without it
            return None

    def close(self) -> None:
        """Release model, grammar and session."""
        self._session.close()
        self.grammar.close()
        self._model.close()


def shipped_grammar() -> Path:
    """Return the grammar for the home that comes with edgevoice."""
    package = Path(__file__).parent
    for folder in (package / "grammars", package.parent / "grammars"):  # installed, or in the source tree
        if (folder / "home.yaml").is_file():
            return folder / "home.yaml"
    raise ConfigError(
        "the grammar home.yaml that comes with edgevoice is missing; set grammar.file, or install again"
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
