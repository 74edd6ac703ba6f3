"""The way of one command, from top to bottom.

    frames -> vad -> endpoint -> recognise -> results

Everything runs in the caller's thread; a live source buffers the audio that arrives meanwhile. States
are announced as they change: "listening", "speech", "recognising". "lost" and "muted" are announced by the
source, which then has no frames.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from edgevoice.endpoint import Endpointer, EndpointOptions
from edgevoice.events import FRAME_SAMPLES, Frame, Result, Timings, Utterance
from edgevoice.recognise import Recogniser, refused
from edgevoice.vad import Vad

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from edgevoice.config import Config
    from edgevoice.publish import State

_log = logging.getLogger(__name__)


class Pipeline:
    """All stages between audio and results, loaded once and used for any number of streams.

    Raises:
        GrammarError, ModelError, ConfigError: when a stage cannot be made.
    """

    def __init__(self, config: Config, grammar: Path | None = None) -> None:
        self.recogniser = Recogniser(config, grammar)
        self._vad = Vad()
        self._endpoint_options = EndpointOptions(
            threshold=config.vad.threshold,
            pre_roll_ms=config.endpoint.pre_roll_ms,
            min_speech_ms=config.endpoint.min_speech_ms,
            silence_ms=config.endpoint.silence_ms,
            max_utterance_s=config.endpoint.max_utterance_s,
        )

    def results(
        self, frames: Iterable[Frame], on_state: Callable[[State], None] = lambda _: None
    ) -> Iterator[Result]:
        """Yield a result for each utterance of a stream; without any, one that says "no_speech".

        Where a frame does not begin at the end of the one before, something is missing: what was being said
        is dropped, and listening begins anew.
        """
        endpointer = Endpointer(self._endpoint_options)
        vad_ms, all_vad_ms, announced, heard, length_samples = 0.0, 0.0, False, False, 0
        listening = False
        for frame in frames:
            if not listening or frame.start_samples != length_samples:
                if endpointer.in_speech:
                    _log.warning("audio is missing in the middle of what is said, which is dropped")
                endpointer = Endpointer(self._endpoint_options)
                self._vad.reset()
                vad_ms, announced, listening = 0.0, False, True
                on_state("listening")
            started = time.perf_counter()
            scored = self._vad.score(frame)
            spent_ms = (time.perf_counter() - started) * 1000
            vad_ms += spent_ms
            all_vad_ms += spent_ms
            length_samples = frame.start_samples + FRAME_SAMPLES
            utterance = endpointer.push(scored)
            if endpointer.in_speech and not announced:
                announced = True
                on_state("speech")
            if utterance is not None:
                heard = True
                yield self._recognise(utterance, vad_ms, on_state)
            if not endpointer.in_speech:
                vad_ms = 0.0
                if announced:
                    announced = False
                    on_state("listening")
        last = endpointer.finish()
        if last is not None:
            yield self._recognise(last, vad_ms, on_state)
        elif not heard:
            yield refused("no_speech", None, Timings(vad=all_vad_ms), length_samples)

    def _recognise(self, utterance: Utterance, vad_ms: float, on_state: Callable[[State], None]) -> Result:
        on_state("recognising")
        return self.recogniser.recognise(utterance, vad_ms)

    def close(self) -> None:
        """Release everything."""
        self._vad.close()
        self.recogniser.close()
