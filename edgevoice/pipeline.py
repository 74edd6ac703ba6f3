"""The way of one command, from top to bottom.

    frames -> vad -> endpoint -> recognise -> results

Two threads work on it, three with a microphone:

1. PortAudio's thread puts each 32 ms of sound into a queue (capture.py).
2. The listener's thread takes them out as frames, asks the detector how likely each is speech, and lets the
   endpointer see where an utterance begins, pauses and ends (listen.py).
3. After a short pause the caller's thread, in results(), gets what was said so far and recognises it, while
   the listener goes on listening.
4. If speech goes on, the listener cancels that, and the next pause has its turn.
5. If not, the answer decides how long to wait: short after a sentence that no word can follow, longer after
   one that can go on, longest after what is no sentence.
6. When the silence has lasted that long, the utterance has ended. The answer is there already, unless the
   machine is slow, and becomes the result, which is published before the caller asks for more.

What has ended waits for the caller; when it takes too long, the oldest is refused as "overload". A recording
that is not played in real time waits instead, so that its results do not depend on the speed of the machine.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from edgevoice.attention import Attention, Gate
from edgevoice.endpoint import EndpointOptions
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.grammar import ALONE
from edgevoice.listen import Listener
from edgevoice.recognise import Recogniser, nothing_said
from edgevoice.vad import Vad
from edgevoice.wake import WakeWord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from edgevoice.config import Config
    from edgevoice.events import Frame, Result, ScoredFrame, Utterance
    from edgevoice.publish import State
    from edgevoice.recognise import Answer, Outlook

GUESS_MS: Final = 96
"""Pause after which what was said is recognised. With 128, half of the answers to short commands came within
328 ms of the last word, and with 96 within 304. A longer tail does not help: with 256, 310 and 291 of 310
orders were right, clear and in noise at 6 dB; with 128, 309 and 292."""


def endpoint_options(config: Config) -> EndpointOptions:
    """When speech begins and ends, as configured."""
    endpoint = config.endpoint
    return EndpointOptions(
        threshold=config.vad.threshold,
        pre_roll_ms=endpoint.pre_roll_ms,
        min_speech_ms=endpoint.min_speech_ms,
        guess_ms=GUESS_MS,
        silence_ms=endpoint.silence_ms,
        max_utterance_s=endpoint.max_utterance_s,
    )


class Watcher:
    """Told what happens on the way of a command; this one does not care."""

    def scored(self, scored: ScoredFrame) -> None:
        """Take each frame, in the listener's thread."""

    def recognising(self, utterance: Utterance) -> None:
        """Take what is recognised now, in the caller's thread; what follows tells how it ended."""

    def answered(self, answer: Answer) -> None:
        """Take each answer, also to a pause, there, too."""

    def cancelled(self) -> None:
        """Take that speech has gone on, and there is no answer."""

    def decided(self, utterance: Utterance, answer: Answer, result: Result) -> None:
        """Take what is told, with what it was made of, before it is told."""


class Watchers(Watcher):
    """Tells several."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = watchers

    def scored(self, scored: ScoredFrame) -> None:
        """Pass it on."""
        for each in self._watchers:
            each.scored(scored)

    def recognising(self, utterance: Utterance) -> None:
        """Pass it on."""
        for each in self._watchers:
            each.recognising(utterance)

    def answered(self, answer: Answer) -> None:
        """Pass it on."""
        for each in self._watchers:
            each.answered(answer)

    def cancelled(self) -> None:
        """Pass it on."""
        for each in self._watchers:
            each.cancelled()

    def decided(self, utterance: Utterance, answer: Answer, result: Result) -> None:
        """Pass it on."""
        for each in self._watchers:
            each.decided(utterance, answer, result)


class LastAnswer(Watcher):
    """Keeps the last answer, which is that of the result that comes next."""

    def __init__(self) -> None:
        self.answer: Answer | None = None

    def answered(self, answer: Answer) -> None:
        """Take it."""
        self.answer = answer


class Pipeline:
    """All stages between audio and results, loaded once and used for any number of streams.

    Raises:
        GrammarError, ModelError, ConfigError: when a stage cannot be made.
    """

    def __init__(self, config: Config, grammar: Path | None = None) -> None:
        self.recogniser = Recogniser(config, grammar)
        self._vad = Vad()
        self._wake = config.wake
        self._wake_word = (
            WakeWord(config.wake.model) if config.wake.mode == "model" and config.wake.model else None
        )
        self._listener: Listener | None = None
        self.used_ms = 0.0
        """Time spent on recognitions that became results."""
        self.wasted_ms = 0.0
        """And on those after which speech went on."""
        endpoint = config.endpoint
        self._endpoint_options = endpoint_options(config)
        self._silence_ms: dict[Outlook, int] = {
            "finished": endpoint.finished_ms,
            "open": endpoint.silence_ms,
            "unfinished": endpoint.unfinished_ms,
        }
        if endpoint.mode == "fixed":
            self._silence_ms = dict.fromkeys(self._silence_ms, endpoint.silence_ms)

    @property
    def waiting(self) -> int:
        """Utterances that have ended and wait to be recognised."""
        listener = self._listener
        return listener.waiting if listener else 0

    @property
    def busy_since_s(self) -> float | None:
        """When the caller's thread got what it has not done with yet, by time.monotonic(); None: it waits."""
        listener = self._listener
        return listener.busy_since_s if listener else None

    @property
    def threshold(self) -> float:
        """Probability from which a frame is speech, 0-1."""
        return self._endpoint_options.threshold

    def results(
        self,
        frames: Iterable[Frame],
        on_state: Callable[[State], None] = lambda _: None,
        *,
        live: bool = False,
        watch: Watcher | None = None,
        attention: Attention | None = None,
        tell_silence: bool = True,
    ) -> Iterator[Result]:
        """Yield a result for each utterance that is meant for us; without any, one that says "no_speech".

        Args:
            frames: iterated in another thread. Where one does not begin at the end of the one before,
                something is missing: what was being said is dropped, and listening begins anew.
            on_state: told "listening", "speech" and "recognising" in that thread.
            live: frames come as they are spoken, and do not wait.
            watch: told more.
            attention: by which others tell when to listen. Without it nobody can push to talk, and in that
                mode everything is listened to.
            tell_silence: whether a stream without any utterance has a result. Nobody wants to know that a
                microphone came to rest.

        Raises:
            AudioError: of the stream.
        """
        watch = watch or Watcher()
        mode = self._wake.mode if attention or self._wake.mode != "push_to_talk" else "always"
        attention = attention or Attention()
        self.recogniser.active.begin()
        gate = Gate(
            attention,
            self._wake_word,
            selective=mode in ("model", "push_to_talk"),
            everything=mode == "always",
        )
        answer: Answer | None = None
        spent_ms = 0.0  # on the answer
        nothing = True
        with Listener(
            frames,
            self._vad,
            self._endpoint_options,
            patience_ms=max(self._silence_ms.values()),
            on_resumed=self.recogniser.cancel,
            on_state=on_state,
            on_scored=watch.scored,
            live=live,
            gate=gate,
        ) as self._listener:
            listener = self._listener
            while (utterance := listener.next()) is not None:
                if answer is None or not utterance.is_end_of(answer.utterance):
                    self.wasted_ms += spent_ms
                    watch.recognising(utterance)
                    started_s = time.perf_counter()
                    answer = self.recogniser.recognise(utterance)
                    spent_ms = (time.perf_counter() - started_s) * 1000
                if answer is None:
                    watch.cancelled()
                    continue
                watch.answered(answer)
                if utterance.end_reason == "pause":
                    listener.expect(utterance, self._silence_ms[answer.outlook])
                else:
                    nothing = False
                    self.used_ms += spent_ms
                    spent_ms = 0.0
                    meaning = answer.decision.meaning
                    alone = meaning is not None and meaning.intent == ALONE
                    # What a model has heard Whisper need not be sure of.
                    if alone and (answer.decision.reason is None or self._wake_word):
                        attention.listen(self._wake.window_s, utterance.speech_end_samples / SAMPLE_RATE_HZ)
                    else:
                        if meaning is not None and meaning.follow_up and answer.decision.reason is None:
                            ends_s = utterance.speech_end_samples / SAMPLE_RATE_HZ
                            attention.listen(meaning.follow_up.seconds, ends_s)
                        result = self.recogniser.result(answer, utterance)
                        watch.decided(utterance, answer, result)
                        yield result
            if nothing and tell_silence:
                yield nothing_said(listener.length_samples, listener.vad_ms)

    def close(self) -> None:
        """Release everything."""
        if self._wake_word:
            self._wake_word.close()
        self._vad.close()
        self.recogniser.close()
