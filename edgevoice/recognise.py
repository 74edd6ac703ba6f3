"""Recognition: an utterance in, a result out, through Whisper under the grammar and the decision after it."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgevoice import grammar as grammar_compiler
from edgevoice import grammar_file, models, prompt
from edgevoice.confidence import confidence_model
from edgevoice.decide import Decision, decide
from edgevoice.errors import ConfigError, DeadlineError
from edgevoice.events import SAMPLE_RATE_HZ, Reason, Result, Timings, Utterance
from edgevoice.native import Grammar, Model, Session, SessionOptions

if TYPE_CHECKING:
    from edgevoice.config import Config


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
        self.grammar = Grammar(grammar_compiler.compile_grammar(file))
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
        self._session = Session(self._model, network, options)
        self._min_confidence = config.recognition.min_confidence
        self._confidence = confidence_model(Path(config.model.name).name)

    def recognise(self, utterance: Utterance, vad_ms: float = 0.0) -> Result:
        """Return the accepted intent or the refusal for an utterance; its timings take over `vad_ms`."""
        if utterance.end_reason == "too_long":
            return refused("too_long", utterance, Timings(vad=vad_ms))
        started = time.perf_counter()
        try:
            transcript = self._session.recognise(utterance.samples)
        except DeadlineError:
            spent_ms = (time.perf_counter() - started) * 1000
            return refused("timeout", utterance, Timings(vad=vad_ms, search=spent_ms))
        started = time.perf_counter()
        decision = decide(
            transcript,
            self.grammar,
            speech_s=utterance.speech_s,
            min_confidence=self._min_confidence,
            model=self._confidence,
            transcribe=self._heard,
        )
        match_ms = (time.perf_counter() - started) * 1000
        return _result(decision, utterance, replace(transcript.timings, vad=vad_ms, match=match_ms))

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


def refused(
    reason: Reason,
    utterance: Utterance | None,
    timings: Timings,
    length_samples: int = 0,
    heard: str | None = None,
) -> Result:
    """Return a refusal without a meaning, for an utterance or a whole stream of `length_samples`."""
    start, end = (
        (utterance.speech_start_samples, utterance.speech_end_samples) if utterance else (0, length_samples)
    )
    return Result(
        utterance_id=str(uuid.uuid4()),
        time=_now(),
        start_s=start / SAMPLE_RATE_HZ,
        end_s=end / SAMPLE_RATE_HZ,
        text=None,
        intent=None,
        slots={},
        slots_raw={},
        confidence=0.0,
        accepted=False,
        reason=reason,
        heard=heard,
        timings=timings,
    )


def _result(decision: Decision, utterance: Utterance, timings: Timings) -> Result:
    if decision.meaning is None:
        return refused(decision.reason or "out_of_grammar", utterance, timings, heard=decision.heard)
    return Result(
        utterance_id=str(uuid.uuid4()),
        time=_now(),
        start_s=utterance.speech_start_samples / SAMPLE_RATE_HZ,
        end_s=utterance.speech_end_samples / SAMPLE_RATE_HZ,
        text=decision.meaning.text,
        intent=decision.meaning.intent,
        slots=decision.meaning.slots,
        slots_raw=decision.meaning.slots_raw,
        confidence=decision.confidence,
        accepted=decision.reason is None,
        reason=decision.reason,
        heard=decision.heard,
        confirm=decision.meaning.confirm,
        alternatives=decision.alternatives,
        timings=timings,
    )


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
