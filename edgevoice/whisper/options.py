"""How to transcribe: every option of whisper.cpp that does something, checked before C sees it.

Names are ours where upstream's are unclear; each docstring names the field of `whisper_full_params`
(include/whisper.h of whisper.cpp 1.8.5) that it becomes. What cannot take effect is an error.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgevoice.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from edgevoice.whisper.gbnf import Gbnf

    LogitsFilter = Callable[[tuple[int, ...], npt.NDArray[np.float32]], None]

THREADS: Final = (1, 64)
MAX_BEAMS: Final = 8
"""WHISPER_MAX_DECODERS in src/whisper.cpp."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to transcribe; the defaults are those of upstream's `whisper_full_default_params`."""

    threads: int = 1
    """1-64. n_threads."""

    language: str | None = None
    """Whisper's code, such as "en"; None: detected, or English for a model that knows only that. language."""

    translate: bool = False
    """Write English whatever is spoken; multilingual models only."""

    beam: int = 1
    """Texts followed at the same time, 1-8; 1 is greedy. strategy, beam_search.beam_size."""

    patience: float | None = None
    """Follow the beams as OpenAI's decoder does, until so many texts for each beam are finished: 1 is its
    default, more looks longer for a better text. None: upstream's way, whose beams are drawn, and end when
    each has ended; it does not use beam_search.patience."""

    best_of: int = 5
    """Texts drawn at a temperature above 0, 1-8. greedy.best_of."""

    temperature: float = 0.0
    """0-1: 0 takes the likeliest token, above it tokens are drawn."""

    temperature_step: float = 0.2
    """How much is added to the temperature when a text is poor, as often as it is below 1; 0: never again.
    temperature_inc."""

    entropy_threshold: float = 2.4
    """A text of more than 32 tokens with less entropy repeats itself, and is poor. entropy_thold."""

    log_probability_threshold: float = -1.0
    """A text with a lower mean of its tokens' is poor. logprob_thold."""

    no_speech_threshold: float = 0.6
    """With a higher probability of no speech, a poor text is none. no_speech_thold."""

    length_penalty: float | None = None
    """Exponent by which beams are compared; None: by their mean log-probability."""

    prompt: str = ""
    """Text that is taken for what was said before. initial_prompt."""

    prompt_tokens: tuple[int, ...] = ()
    """The same, as tokens."""

    carry_prompt: bool = False
    """Keep the prompt before each 30 seconds, not only the first. carry_initial_prompt."""

    hotwords: str = ""
    """Names and words to expect: they stand before the prompt and what was said, in each 30 seconds, and take
    of their room. The last 5 seconds of longer audio are without: upstream forgets all prompts there."""

    context: bool = False
    """Take what the session transcribed before for what was said before. Not no_context."""

    max_context: int | None = None
    """Most tokens of what was said before, 0-224; None: all there is room for. n_max_text_ctx."""

    start_s: float = 0.0
    """Where in the audio to begin. offset_ms."""

    duration_s: float | None = None
    """How much of the audio to transcribe; None: to its end. duration_ms."""

    timestamps: bool = True
    """Let Whisper write timestamps, by which it cuts segments. Not no_timestamps."""

    single_segment: bool = False
    """Make one segment of each 30 seconds."""

    word_times: bool = False
    """Tell when each token and word was said: by dynamic time warping if the model was opened with an
    alignment, otherwise by the probabilities of timestamps. token_timestamps."""

    token_threshold: float = 0.01
    """Least probability of a timestamp to be believed, with word_times. thold_pt."""

    token_sum_threshold: float = 0.01
    """Least probability of all timestamps to be believed, with word_times. thold_ptsum."""

    max_segment_length: int = 0
    """Most characters of a segment, with word_times; 0: no limit. max_len."""

    split_on_word: bool = False
    """Cut segments that are too long between words only."""

    max_tokens: int = 0
    """Most tokens of 30 seconds; 0: no limit."""

    audio_ctx: int = 0
    """Encoder positions, 20 ms each, to look at; 0: all, 30 seconds. Less is faster, and may repeat words."""

    fit_window: bool = False
    """Look at no more than the audio and 4 seconds of silence in place of 30 seconds, which is faster, up to
    23 seconds of audio; and once more at all 30 if `entropy_threshold` or `log_probability_threshold` take
    that text for doubtful. How exact that is: docs/whisper.md."""

    max_initial_timestamp_s: float = 1.0
    """Latest first timestamp of 30 seconds; 0: any. max_initial_ts."""

    suppress_blank: bool = True
    """A text does not begin with a space alone, or end before it began."""

    suppress_non_speech: bool = False
    """Leave out tokens such as brackets and notes. suppress_nst."""

    suppress_tokens: frozenset[int] = frozenset()
    """Tokens that are never written."""

    suppress_regex: str | None = None
    """Tokens whose whole text matches it are never written; Python's `re`, once a session for each."""

    repetition_penalty: float = 1.0
    """1-10: by how much what was written in these 30 seconds becomes less likely. Its logits are divided by
    it, those below 0 multiplied, as faster-whisper does."""

    no_repeat_ngram: int = 0
    """So many tokens are not written twice in 30 seconds, timestamps included; 0: whatever comes.
    faster-whisper's no_repeat_ngram_size."""

    special_tokens: bool = False
    """Special tokens stand in the text, too. print_special."""

    speaker_turns: bool = False
    """Mark where another speaker begins: a model trained for it only. tdrz_enable."""

    grammar: Gbnf | None = None
    """Nothing else is written; without timestamps only. grammar_rules, but hard, and checked."""

    logits_filter: LogitsFilter | None = None
    """Called before each token is chosen, with the tokens so far and the logits of all tokens, which it may
    change: for experiments. Python runs once a token and beam: docs/whisper.md has what it costs."""

    def __post_init__(self) -> None:
        """Check each option, and what goes together.

        Raises:
            UsageError: says which, and what to do.
        """
        self._check_kinds()
        self._check_values()
        self._check_effects()

    def _check_kinds(self) -> None:
        for name, kinds in _KINDS.items():
            if not isinstance(value := getattr(self, name), kinds):
                wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
                raise UsageError(f"{name} must be {wanted}, got {value!r}")
        if self.logits_filter is not None and not callable(self.logits_filter):
            raise UsageError(f"logits_filter must be a function, got {self.logits_filter!r}")
        if self.grammar is not None and not hasattr(self.grammar, "root"):
            raise UsageError(f"grammar must be a Gbnf, got {self.grammar!r}; make one with Gbnf(text)")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                check_range(name, value, low, high)

    def _check_values(self) -> None:
        if self.temperature_step and self.temperature_step < _LEAST_STEP:
            raise UsageError(
                f"temperature_step must be 0 or {_LEAST_STEP:g}-1, got {self.temperature_step:g}"
            )
        if self.prompt and self.prompt_tokens:
            raise UsageError("prompt and prompt_tokens are both given; give one")
        if self.suppress_regex is not None:
            try:
                re.compile(self.suppress_regex)
            except (re.error, RecursionError) as error:
                raise UsageError(
                    f"suppress_regex {self.suppress_regex!r} is no regular expression: {error}"
                ) from None

    def _check_effects(self) -> None:
        room = self.max_context is None or self.max_context > 1  # one token tells that there is a prompt
        for wanted, given, need, remedy in (
            ("carry_prompt", self.carry_prompt, self.prompt or self.prompt_tokens, "give a prompt"),
            ("max_segment_length", self.max_segment_length, self.word_times, "set word_times"),
            ("split_on_word", self.split_on_word, self.max_segment_length, "set max_segment_length"),
            ("length_penalty", self.length_penalty is not None, self.beam > 1, "set beam"),
            ("patience", self.patience is not None, self.beam > 1, "set beam"),
            ("patience", self.patience is not None, self.temperature == 0, "set temperature=0"),
            ("grammar", self.grammar, not self.timestamps, "set timestamps=False"),
            ("prompt", self.prompt or self.prompt_tokens, room, "set max_context to 2 or more"),
            ("hotwords", self.hotwords, room, "set max_context to 2 or more"),
            ("context", self.context, room, "set max_context to 2 or more"),
            ("fit_window", self.fit_window, self.audio_ctx == 0, "do not set audio_ctx"),
        ):
            if given and not need:
                raise UsageError(f"{wanted} has no effect as the options are; {remedy}, or leave it out")


_LEAST_STEP: Final = 0.05  # upstream makes a list of all temperatures up to 1

_RANGES: Final[dict[str, tuple[float, float]]] = {
    "threads": THREADS,
    "beam": (1, MAX_BEAMS),
    "best_of": (1, MAX_BEAMS),
    "temperature": (0, 1),
    "temperature_step": (0, 1),
    "entropy_threshold": (0, 100),
    "log_probability_threshold": (-1000, 0),
    "no_speech_threshold": (0, 1),
    "length_penalty": (0, 10),
    "patience": (0.5, 10),  # of two beams, one text at least
    "max_context": (0, 224),  # half of the decoder's window, as upstream has it
    "start_s": (0, 1e6),
    "duration_s": (0.1, 1e6),  # upstream ignores what is shorter
    "token_threshold": (0, 1),
    "token_sum_threshold": (0, 1),
    "max_segment_length": (0, 100_000),
    "max_tokens": (0, 224),
    "audio_ctx": (0, 1500),
    "max_initial_timestamp_s": (0, 30),
    "repetition_penalty": (1, 10),
    "no_repeat_ngram": (0, 224),
}
_OPTIONAL: Final = {"length_penalty", "patience", "max_context", "duration_s"}
_FLAGS: Final = (
    "translate", "carry_prompt", "context", "timestamps", "single_segment", "word_times", "split_on_word",
    "fit_window", "suppress_blank", "suppress_non_speech", "special_tokens", "speaker_turns",
)  # fmt: skip
_KINDS: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(_FLAGS, (bool,)),
    "language": (str, type(None)),
    "prompt": (str,),
    "hotwords": (str,),
    "prompt_tokens": (tuple,),
    "suppress_tokens": (frozenset,),
    "suppress_regex": (str, type(None)),
}
_WHOLE: Final = {
    "threads",
    "beam",
    "best_of",
    "max_context",
    "max_segment_length",
    "max_tokens",
    "audio_ctx",
    "no_repeat_ngram",
    "jobs",
}


def check_range(name: str, value: object, low: float, high: float) -> None:
    """Refuse a number outside its range, and what is none.

    Raises:
        UsageError: says what it must be.
    """
    kinds = int if name in _WHOLE else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise UsageError(f"{name} must be {'a whole number' if kinds is int else 'a number'}, got {value!r}")
    if not (math.isfinite(value) and low <= value <= high):
        raise UsageError(f"{name} must be between {low:g} and {high:g}, got {value!r}")
