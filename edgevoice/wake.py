"""Wake words: the model that hears one, and the words of which it consists.

The model is one of openWakeWord's, run by the library pyopen-wakeword (extra `wake`). It looks back over some
two seconds, in steps of 80 ms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from hassil.expression import Expression, Group, Permutation, TextChunk
from hassil.parse_expression import parse_sentence
from hassil.parser import ParseError

from edgevoice import extras
from edgevoice.errors import ConfigError
from edgevoice.events import FRAME_SAMPLES
from edgevoice.grammar_file import can_be_empty

if TYPE_CHECKING:
    from edgevoice.config import WakeConfig
    from edgevoice.events import Frame

THRESHOLD: Final = 0.5
"""openWakeWord's own; bench/wakewords.py shows what others would give."""

_MAX_CHARACTERS: Final = 200  # of a phrase: hassil's parser takes time by the square, and nobody says more

_PHRASES: Final = {
    "alexa": "alexa",
    "hey_jarvis": "hey jarvis",
    "hey_mycroft": "hey mycroft",
    "hey_rhasspy": "hey rhasspy",
    "okay_nabu": "(okay|ok) nabu",
}
"""The words of each model of the library, in the syntax of the grammar."""


def phrase(wake: WakeConfig) -> Expression | None:
    """Return the words before a command: those configured, those of the model, or none."""
    text = wake.phrase or (_PHRASES[wake.model] if wake.mode == "model" and wake.model else None)
    return parse(text) if text else None


def parse(text: str) -> Expression | None:
    """Return a wake phrase as an expression of the grammar; None if it is none.

    It is words, alternatives and optional words, and never empty.
    """
    if len(text) > _MAX_CHARACTERS:
        return None
    try:
        expression = parse_sentence(text).expression
    except (ParseError, AssertionError, ValueError, IndexError, RecursionError):
        return None
    return expression if _is_plain(expression) and not can_be_empty(expression, {}) else None


def _is_plain(expression: Expression) -> bool:
    """Whether no list or rule is named."""
    if isinstance(expression, Group) and not isinstance(expression, Permutation):
        return all(map(_is_plain, expression.items))
    return isinstance(expression, TextChunk)


class WakeWord:
    """A loaded model that listens for its wake word.

    Args:
        model: name of one that comes with the library.

    Raises:
        ConfigError: the library is not installed, or cannot be used here.
    """

    def __init__(self, model: str) -> None:
        try:
            import pyopen_wakeword  # noqa: PLC0415 - an extra

            self._features: Any = pyopen_wakeword.OpenWakeWordFeatures.from_builtin()
            self._model: Any = pyopen_wakeword.OpenWakeWord.from_builtin(pyopen_wakeword.Model(model))
        except ImportError:
            raise ConfigError(
                f"wake.mode is model, but pyopen-wakeword is not installed; run: {extras.remedy('wake')}"
            ) from None
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"wake.model {model} cannot be used on this machine ({error}); it needs glibc 2.35 or newer"
            ) from None
        self.score(np.zeros(FRAME_SAMPLES, np.float32))
        # The library fills what it has not heard with 8 s of silence, which takes it half a second. So what
        # it remembers then is kept, and put back in place of its reset().
        self._silence = self._memory()

    def reset(self) -> None:
        """Forget what was heard."""
        for (owner, name), value in zip(self._places(), self._silence, strict=True):
            setattr(owner, name, np.array(value) if isinstance(value, np.ndarray) else value)

    def hears(self, frame: Frame) -> bool:
        """Whether the wake word ends with the next frame."""
        return self.score(frame.samples) >= THRESHOLD

    def score(self, samples: np.ndarray[Any, np.dtype[np.float32]]) -> float:
        """Return the highest probability, 0-1, that the wake word ends within the next samples."""
        pcm = (np.clip(samples, -1.0, 1.0) * 32767).astype("<i2").tobytes()
        return max(
            (
                float(probability)
                for embedding in self._features.process_streaming(pcm)
                for probability in self._model.process_streaming(embedding)
            ),
            default=0.0,
        )

    def close(self) -> None:
        """Release the models; may be called twice."""
        self._features.close()
        self._model.close()

    def _places(self) -> list[tuple[Any, str]]:
        """Where the library remembers."""
        return [
            *((self._features, name) for name in ("audio", "new_audio_samples", "mels", "new_mels")),
            *((self._model, name) for name in ("embeddings", "new_embeddings")),
        ]

    def _memory(self) -> list[Any]:
        return [
            value.copy() if isinstance(value := getattr(owner, name), np.ndarray) else value
            for owner, name in self._places()
        ]
