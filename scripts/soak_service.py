"""Two hours of sound through the service, as fast as it takes them: what it needs must not grow.

    .venv/bin/python scripts/soak_service.py [--hours H] [--model NAME] [--more YAML] [--show]

`edgevoice run` as it is, with a broker and where systemd would listen, hears rounds of some minutes: the
samples, people of EDGEVOICE_EVAL_DATA where there are any, with pauses, in a quiet room and in noise, and
noise alone. Every second round is the same to the sample, and must be answered the same. The others have
other noise, levels and pauses, lest all be known already when memory is read. It must end when told to.

After each round, when all of it was heard and nobody speaks, the kernel is asked for resident memory (VmRSS),
threads and descriptors. The first quarter of the rounds is warm-up. Growth is the median of memory in the
last quarter less that in the second one: what malloc keeps of what was freed differs from round to round.
"""

from __future__ import annotations

import argparse
import array
import fcntl
import json
import os
import sys
import termios
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np

ROOT: Final = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from edgevoice import mixing  # noqa: E402
from edgevoice.audio import read_audio  # noqa: E402
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ  # noqa: E402
from edgevoice.testing import Broker, Subscriber  # noqa: E402
from footprint import Service, running  # noqa: E402

if TYPE_CHECKING:
    from edgevoice.events import Samples

HOURS: Final = 2.0
MAX_GROWTH_MB: Final = 1.0
WATCHDOG_S: Final = 3.0
"""The unit's 30 s, compressed about as much as the stream is on an idle machine."""

LEAST: Final = 8  # rounds, two for each quarter
PEOPLE: Final = ("coffee_commands", "read_librispeech_test_other", "nonwake_speech_precise")
OF_EACH: Final = 8  # beside the samples, which are 27
SOUNDS: Final = 12  # noises of 5 s each
PAUSES_S: Final = (0.5, 1.5, 3.0, 6.0)
NOISES_DB: Final = (None, None, 18.0, 9.0)  # of speech above noise; None: a quiet room
LONG_S: Final = 20.0  # endpoint.max_utterance_s and more
QUIET: Final = 0.02  # between words
ROOM: Final = 10 ** (-75 / 20)  # RMS of a quiet room; digital silence is found nowhere
END_S: Final = 5.0  # of quiet after a round; what was said before is answered by then
ANSWERED_S: Final = 1.0  # until what was answered has come from the broker
PATIENCE_S: Final = 120.0  # for the service to hear the last of a round, on a busy machine
FIELDS: Final = ("text", "intent", "slots", "accepted", "reason")


def main() -> int:
    """Play, print the figures, and return 1 if a bound is broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=HOURS)
    parser.add_argument("--model", default="tiny.en-q8_0")
    parser.add_argument("--more", default="", help="lines of the configuration")
    parser.add_argument("--show", action="store_true", help="print each round")
    options = parser.parse_args()
    rounds, audio_s = Rounds(), 0.0
    answers: list[list[tuple[Any, ...]]] = []
    states: list[dict[str, float]] = []
    with (
        Broker() as broker,
        Subscriber(broker.port, "edgevoice/default/#") as subscriber,
        running(broker, options.model, watchdog_s=WATCHDOG_S, more=options.more) as service,
    ):
        started_s = time.monotonic()
        while audio_s < options.hours * 3600 or len(states) < LEAST:
            samples = rounds.make(len(states) if len(states) % 2 else 0)
            before = len(subscriber.messages)
            service.play(samples)
            wait_until_heard(service)
            answers.append(
                [
                    tuple(json.dumps(message.json()[field]) for field in FIELDS)
                    for message in subscriber.messages[before:]
                    if message.topic.startswith(("edgevoice/default/intent/", "edgevoice/default/rejected"))
                ]
            )
            states.append(service.state())
            audio_s += len(samples) / SAMPLE_RATE_HZ
            if options.show:
                figures = ", ".join(f"{name} {value:.1f}" for name, value in states[-1].items())
                as_in = [i + 1 for i, each in enumerate(answers[:-1]) if each == answers[-1]]
                print(
                    f"round {len(states)}: {len(answers[-1])} answers, {figures}, answered as in {as_in}",
                    flush=True,
                )
        elapsed_s = time.monotonic() - started_s
        told = list(service.told)
        service.process.terminate()
        code = service.process.wait(PATIENCE_S)
    n = len(states)
    warm, late = states[n // 4 : n // 2], states[-(n // 4) :]
    growth_mb = median(each["VmRSS"] for each in late) - median(each["VmRSS"] for each in warm)
    # The first begins after nothing, and the others after the end of another.
    same = answers[2::2]
    changed = sum(each != same[0] for each in same)
    beats_s = [at_s for at_s, text in told if text == "WATCHDOG=1"]
    gap_s = float(max(np.diff([*beats_s, started_s + elapsed_s]), default=np.inf))
    flat = {name: {each[name] for each in warm + late} for name in ("threads", "descriptors")}
    print(
        f"{audio_s / 3600:.2f} hours in {elapsed_s / 60:.0f} minutes, {sum(map(len, answers))} answers; "
        f"memory {median(each['VmRSS'] for each in warm):.1f} MB {growth_mb:+.1f} MB, at most "
        f"{states[-1]['VmHWM']:.1f} MB; "
        + ", ".join(f"{'/'.join(f'{n:.0f}' for n in sorted(seen))} {name}" for name, seen in flat.items())
        + f"; {len(beats_s)} watchdog messages, {gap_s:.1f} s apart at most; {len(same)} rounds the same, "
        f"{changed} answered otherwise; exit code {code}"
    )
    broken = [f"memory grew by more than {MAX_GROWTH_MB:g} MB"] * (growth_mb > MAX_GROWTH_MB)
    broken += [f"{name} are not flat" for name, seen in flat.items() if len(seen) > 1]
    broken += ["a watchdog message was late"] * (gap_s > WATCHDOG_S)
    broken += [f"told systemd: {text}" for _, text in told if "stuck" in text]
    broken += ["the same sound was answered otherwise"] * bool(changed or not same[0])
    broken += [f"ended with exit code {code}"] * bool(code)
    print("\n".join(broken), end="\n" * bool(broken))
    return 1 if broken else 0


class Rounds:
    """Makes what is played."""

    def __init__(self) -> None:
        lines = (ROOT / "samples" / "manifest.jsonl").read_text("utf-8").splitlines()
        self._speech = [read_audio(ROOT / "samples" / json.loads(line)["audio"]) for line in lines]
        # One that goes on without pauses until it is cut off: the longest that the engine has to hold.
        # Otherwise memory would grow with each utterance that is longer than all before.
        words = np.concatenate(self._speech)
        words = words[np.abs(words) > QUIET]
        self._longest = words[: round(LONG_S * SAMPLE_RATE_HZ)]
        choice = np.random.default_rng(0)
        hiss = 0.1 * choice.standard_normal(5 * SAMPLE_RATE_HZ)
        self._noises = [hiss.astype(np.float32)]
        # The detector remembers: each round must begin after the same.
        self._end = (ROOM * choice.standard_normal(round(END_S * SAMPLE_RATE_HZ))).astype(np.float32)
        if folder := os.environ.get("EDGEVOICE_EVAL_DATA"):
            for name in PEOPLE:
                self._speech += _some(Path(folder) / name, OF_EACH)
            self._noises += _some(Path(folder) / "noise_esc10", SOUNDS)

    def make(self, seed: int) -> Samples:
        """Return a round; its seed chooses all but the recordings and the end."""
        choice = np.random.default_rng(seed)
        pieces = [self._longest]
        for speech in self._speech:
            pieces.append(np.zeros(round(choice.choice(PAUSES_S) * SAMPLE_RATE_HZ), np.float32))
            level_db = NOISES_DB[choice.integers(len(NOISES_DB))]
            noise = self._noises[choice.integers(len(self._noises))]
            said = (speech * choice.uniform(0.3, 1.0)).astype(np.float32)
            if level_db is not None:
                said = mixing.mix(said, mixing.noise_piece(noise, len(said), choice), level_db)
            pieces.append(said)
        heard = np.concatenate([*pieces, *self._noises])
        heard = np.clip(heard + ROOM * choice.standard_normal(len(heard)), -1, 1).astype(np.float32)
        whole = np.concatenate([heard, self._end])
        # In whole frames, each of which is as the last time. What is left out is of the beginning.
        return whole[len(whole) % FRAME_SAMPLES :]


def _some(folder: Path, count: int) -> list[Samples]:
    paths = sorted(folder.glob("*.flac"))
    return [read_audio(path) for path in paths[:: max(1, len(paths) // count)]]


def wait_until_heard(service: Service) -> None:
    """Wait until nothing of what was sent is left in the pipe."""
    unread, deadline_s = array.array("i", [1]), time.monotonic() + PATIENCE_S
    while unread[0]:
        if service.process.stdin is None or time.monotonic() > deadline_s:
            sys.exit(f"the service does not listen any more: {service.told[-3:]}")
        time.sleep(0.1)
        fcntl.ioctl(service.process.stdin, termios.FIONREAD, unread)
    time.sleep(ANSWERED_S)


if __name__ == "__main__":
    sys.exit(main())
