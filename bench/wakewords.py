"""What each threshold of a wake word model gives: wake words heard, and false wakes an hour.

    EDGEVOICE_EVAL_DATA=DIR .venv/bin/python bench/wakewords.py

The detector hears what `edgevoice run` lets it hear, speech with its pre-roll, and for comparison everything.
DIR holds `wakewords_en`, and folders in which nobody says the word.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from edgevoice import mixing
from edgevoice.audio import frames, read_audio
from edgevoice.endpoint import Endpointer, EndpointOptions
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.vad import Vad
from edgevoice.wake import WakeWord

if TYPE_CHECKING:
    from edgevoice.events import Samples

MODEL: Final = "alexa"
THRESHOLDS: Final = (0.1, 0.25, 0.5, 0.75, 0.9)
OTHERS: Final = (
    "nonwake_speech_precise",
    "read_librispeech_train_notext",
    "read_librispeech_test_other",
    "noise_esc10",
)


class Ear:
    """The detector behind the voice detector, and the time it takes."""

    def __init__(self) -> None:
        self.word = WakeWord(MODEL)
        self.vad = Vad()
        self.spent_s = self.heard_s = 0.0

    def in_speech(self, samples: Samples) -> float:
        """Highest probability, as in a pipeline."""
        self.vad.reset()
        endpointer, first, done, best = Endpointer(EndpointOptions()), None, 0, 0.0
        for frame in frames([samples]):
            endpointer.push(self.vad.score(frame))
            kept = endpointer.kept
            if kept and kept[0] is not first:
                first, done = kept[0], 0
                self.word.reset()
            started_s = time.process_time()
            best = max([best, *(self.word.score(each.samples) for each in kept[done:])])
            self.spent_s += time.process_time() - started_s
            done = len(kept)
        self.heard_s += len(samples) / SAMPLE_RATE_HZ
        return best

    def always(self, samples: Samples) -> float:
        """Highest probability, without a voice detector."""
        self.word.reset()
        return max(self.word.score(frame.samples) for frame in frames([samples]))


def main() -> None:
    """Print the tables."""
    data, ear = Path(os.environ["EDGEVOICE_EVAL_DATA"]), Ear()
    rows = [json.loads(line) for line in (data / "wakewords_en/manifest.jsonl").open(encoding="utf-8")]
    quiet = np.zeros(SAMPLE_RATE_HZ, np.float32)
    words = {
        row["audio"]: np.concatenate([read_audio(data / "wakewords_en" / row["audio"]), quiet])
        for row in rows
        if row["keyword"] == MODEL
    }
    (kitchen,) = (read_audio(path) for path in (data / "noise_picovoice").glob("*.flac"))
    print(f"{MODEL!r} heard of {len(words)} (without voice detector), at thresholds {THRESHOLDS}")
    for snr_db in (None, 15, 6, 0):
        best = []
        for name, word in words.items():
            heard = word
            if snr_db is not None:
                choice = mixing.generator(0, f"{snr_db} dB", name)
                heard = mixing.mix(word, mixing.noise_piece(kitchen, len(word), choice), snr_db)
            best.append((ear.in_speech(heard), ear.always(heard)))
        counts = [[sum(each[i] >= threshold for each in best) for i in (0, 1)] for threshold in THRESHOLDS]
        print(
            f"{'as recorded' if snr_db is None else f'kitchen, {snr_db} dB':>15}",
            *(f"{heard:3d} ({always})" for heard, always in counts),
        )
    paths = [data / "wakewords_en" / row["audio"] for row in rows if row["keyword"] != MODEL]
    paths += [path for folder in OTHERS for path in sorted((data / folder).rglob("*.flac"))]
    ear.spent_s = ear.heard_s = 0.0
    false = [ear.in_speech(read_audio(path)) for path in paths]
    print(f"false wakes in {len(paths)} other recordings, {ear.heard_s / 3600:.2f} hours")
    print(
        *(f"{threshold}: {sum(each >= threshold for each in false)}" for threshold in THRESHOLDS), sep="   "
    )
    print(f"{1000 * ear.spent_s / ear.heard_s:.0f} ms of one core for each second of them")


if __name__ == "__main__":
    main()
