"""Write simulated room impulse responses: how a living room or a kitchen changes speech from across it.

    python bench/rooms.py OUT [--count 40] [--seed 1]

Each is a shoebox room with walls as absorbing as its reverberation time asks for, the microphone on a piece
of furniture near a wall and a speaker standing or sitting 1 to 4 m away (image sources and ray tracing,
pyroomacoustics, installed into the cache). OUT gets a FLAC file for each (16 kHz mono, the highest peak 0.9)
and manifest.jsonl with the room's measures: the folder is what `edgevoice eval --rir OUT` takes. The same
seed gives the same rooms, and a larger count more of them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any, Final

from ownvenv import restart_with

PACKAGES: Final = ("numpy==2.4.6", "pyroomacoustics==0.10.1", "scipy==1.17.1", "soundfile==0.14.0")

_RATE_HZ: Final = 16_000
_IMAGE_ORDER: Final = 8  # reflections by image sources, which are exact; later ones by rays
_RAYS: Final = 20_000
_WALL_M: Final = 0.3  # nobody's mouth and no device is nearer to a wall
_PEAK: Final = 0.9
_ATTEMPTS: Final = 1000


def main() -> int:
    """Simulate room after room."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--count", type=int, default=40, help="how many (default: 40)")
    parser.add_argument("--seed", type=int, default=1, help="another seed makes other rooms (default: 1)")
    options = parser.parse_args()
    restart_with("rooms", PACKAGES)
    import soundfile  # noqa: PLC0415 - only in that environment

    options.out.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(options.count):
        response, entry = simulate(options.seed, number)
        name = f"room-{options.seed}-{number:03}.flac"
        soundfile.write(options.out / name, response, _RATE_HZ, subtype="PCM_24")
        lines.append(json.dumps({"audio": name, "label": "rir", **entry, "synthetic": True}))
        print(f"\r{number + 1} of {options.count}", end="", file=sys.stderr, flush=True)
    (options.out / "manifest.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(file=sys.stderr)
    print(f"{options.count} rooms in {options.out}")
    return 0


def simulate(seed: int, number: int) -> tuple[Any, dict[str, Any]]:
    """Return an impulse response and what it is of; `number` chooses the room."""
    import numpy as np  # noqa: PLC0415 - only in that environment
    import pyroomacoustics  # noqa: PLC0415

    chance = np.random.default_rng([seed, number])
    pyroomacoustics.random.seed(seed * 100_003 + number)  # of the rays
    kitchen = chance.random() < 0.4
    # width, length, height in m: from a galley kitchen, from a small room to an open living room
    low, high = ((2.2, 2.8, 2.4), (4.0, 5.0, 2.7)) if kitchen else ((3.2, 4.0, 2.4), (6.0, 8.0, 3.0))
    size = chance.uniform(low, high)
    # Kitchens are small and hard; below 0.3 s is a furnished bedroom, above 0.7 s an empty hall.
    rt60_s = float(chance.uniform(0.3, 0.5 if kitchen else 0.7))
    microphone, speaker, distance_m = _places(chance, size)
    absorption, _ = pyroomacoustics.inverse_sabine(rt60_s, size)
    room = pyroomacoustics.ShoeBox(
        size,
        fs=_RATE_HZ,
        materials=pyroomacoustics.Material(absorption, scattering=0.1),  # furniture
        max_order=_IMAGE_ORDER,
        ray_tracing=True,
        air_absorption=True,
    )
    room.set_ray_tracing(n_rays=_RAYS, receiver_radius=0.3)
    room.add_source(speaker)
    room.add_microphone(microphone)
    room.compute_rir()
    response = np.asarray(room.rir[0][0], dtype=np.float64)
    response = response[: math.ceil((rt60_s + 0.1) * _RATE_HZ)]  # what follows is below -60 dB
    response *= _PEAK / float(np.abs(response).max())
    return response, {
        "duration": round(len(response) / _RATE_HZ, 3),
        "room": "kitchen" if kitchen else "living room",
        "size_m": [round(float(side), 2) for side in size],
        "rt60_s": round(rt60_s, 2),
        "measured_rt60_s": round(float(pyroomacoustics.experimental.measure_rt60(response, _RATE_HZ, 30)), 2),
        "distance_m": round(distance_m, 2),
    }


def _places(chance: Any, size: Any) -> tuple[Any, Any, float]:
    """Return where the microphone is, where the mouth is, and how far they are apart."""
    import numpy as np  # noqa: PLC0415 - only in that environment

    wanted_m = float(chance.uniform(1.0, 4.0))
    for _ in range(_ATTEMPTS):
        # On a shelf or sideboard; the mouth of someone who sits or stands.
        microphone = np.array([*chance.uniform(_WALL_M, size[:2] - _WALL_M), chance.uniform(0.7, 1.5)])
        wall = int(chance.integers(2))
        microphone[wall] = _WALL_M if chance.random() < 0.5 else size[wall] - _WALL_M
        angle = chance.uniform(0, 2 * math.pi)
        height_m = chance.uniform(1.1, 1.75)
        across_m = math.sqrt(max(wanted_m**2 - (height_m - microphone[2]) ** 2, 0.01))
        speaker = np.array(
            [
                microphone[0] + across_m * math.cos(angle),
                microphone[1] + across_m * math.sin(angle),
                height_m,
            ]
        )
        if all(_WALL_M <= speaker[axis] <= size[axis] - _WALL_M for axis in range(2)):
            return microphone, speaker, float(np.linalg.norm(speaker - microphone))
    raise SystemExit(f"no place {wanted_m:.1f} m apart in a room of {size}")


if __name__ == "__main__":
    sys.exit(main())
