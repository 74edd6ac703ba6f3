"""What a logits filter in Python costs: a token without one, with one that does nothing, one that reads all.

    .venv/bin/python bench/logits_filter.py [--turns 40]

Milliseconds are processor time of the calling thread, of a greedy transcription of one sample by tiny.en,
less what the same transcription takes to write a single token: so of its tokens alone. The three take turns;
of all turns the fastest counts, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgevoice import audio, models, whisper

if TYPE_CHECKING:
    import numpy.typing as npt

_SAMPLE: Final = Path(__file__).parent.parent / "samples" / "set-pizza-timer-twelve.flac"


def main() -> int:
    """Measure, and print medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=40)
    turns = parser.parse_args().turns
    calls: list[int] = []

    def nothing(tokens: tuple[int, ...], _logits: npt.NDArray[Any]) -> None:
        calls.append(len(tokens))

    def reads_all(_tokens: tuple[int, ...], logits: npt.NDArray[Any]) -> None:
        logits.argmax()

    samples = audio.read_audio(_SAMPLE)
    filters = {"none": None, "does nothing": nothing, "reads all": reads_all}
    spent = {(name, count): math.inf for name in filters for count in (0, 1)}
    with whisper.Model(models.find("tiny.en")) as model, model.session() as session:

        def took_ms(max_tokens: int, logits_filter: Any) -> float:
            options = whisper.Options(
                audio_ctx=256, temperature_step=0, max_tokens=max_tokens, logits_filter=logits_filter
            )
            started = time.thread_time()
            session.transcribe(samples, options)
            return (time.thread_time() - started) * 1000

        took_ms(0, nothing)
        n_tokens = len(calls)
        names = list(filters)
        for turn in range(turns):
            for name in names[turn % 3 :] + names[: turn % 3]:
                for count in (0, 1):
                    spent[name, count] = min(spent[name, count], took_ms(count, filters[name]))
    # One is written, and one ends the text.
    each_ms = {name: (spent[name, 0] - spent[name, 1]) / (n_tokens - 2) for name in filters}
    for name, ms in each_ms.items():
        print(f"{name:14}{ms:8.3f} ms a token, {ms / each_ms['none']:.3f} of none")
    return 0


if __name__ == "__main__":
    sys.exit(main())
