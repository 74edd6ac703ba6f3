"""Import the same model of random weights from every format, made by that format's own library.

    .venv/bin/python scripts/formats.py

Safetensors by transformers (whole and sharded), CTranslate2 by its converter (float16 and float32) and a
`.pt` by torch must all become the same ggml file, byte for byte; and that is what upstream's own two
converters write, but for what is named below. It must load and run. Then it is quantised to every kind.
`make soak` runs it too; the first time it installs torch and transformers into an environment of its own
(1.5 GB).
"""

from __future__ import annotations

import hashlib
import os
import resource
import struct
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

ROOT: Final = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from build_native import whisper_source  # noqa: E402
from edgevoice import ggml_file, model_check, models, native  # noqa: E402
from edgevoice.errors import ModelCorruptError  # noqa: E402
from ownvenv import python_with  # noqa: E402

PACKAGES: Final = (
    "torch==2.13.0",
    "transformers==5.23.0",
    "ctranslate2==4.8.5",
    "tiktoken==0.14.0",
    "numba>=0.61",
    "more-itertools",
    "tqdm",
    "setuptools<81",
)
ALONE: Final = ("openai-whisper==20250625",)  # without triton, which only a GPU needs
HEADERS: Final = {
    "english": ggml_file.Header(51_864, 1500, 384, 6, 4, 448, 384, 6, 4, 80, 1),
    "multilingual": ggml_file.Header(51_866, 1500, 512, 8, 6, 448, 512, 8, 2, 128, 1),
}

MAX_MB: Final = 40.0
"""Of memory that an import may add: it copies a model in pieces of 1 MiB, whatever its size."""


def main() -> None:
    """Make the models, import them, compare, run, quantise."""
    python = python_with("formats", PACKAGES, ALONE)
    upstream = whisper_source(None)
    for kind, header in HEADERS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            os.environ["EDGEVOICE_MODELS"] = str(folder / "models")
            (folder / "order").write_text("\n".join(each.name for each in ggml_file.tensors(header)))
            command = [str(python), str(ROOT / "scripts" / "format_models.py"), name, str(upstream), kind]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"the models were not made: {done.stderr.strip()[-2000:]}")
            words = next(python.parents[1].glob(f"lib/*/site-packages/whisper/assets/{TIKTOKEN[kind]}"))
            print(compare(folder, kind, header, words), flush=True)
            print(quantise(folder, header), flush=True)


def compare(folder: Path, kind: str, header: ggml_file.Header, words: Path) -> str:
    """Import from every format, and compare the results and what upstream's converters wrote."""
    sources = {
        "safetensors": (folder / "hf", None),
        "parts": (folder / "parts", None),
        "ct2": (folder / "ct2", None),
        "ct2-float32": (folder / "ct2-float32" / "model.bin", None),
        "pt": (folder / "openai.pt", words),
    }
    before_mb = peak_mb()
    made = {
        name: models.import_file(path, name, given, progress=False).read_bytes
        for name, (path, given) in sources.items()
    }
    grown_mb = peak_mb() - before_mb
    expect(grown_mb < MAX_MB, f"importing took {grown_mb:.0f} MB")
    data = made["safetensors"]()
    for name, read in made.items():
        expect(read() == data, f"{name} became another model than safetensors")
    expect(ggml_file.check(models.find("pt")) == header, "the header is another one")

    front, rest = split(data, header)
    their_front, their_rest = split((folder / "pt.bin").read_bytes(), header)
    if kind == "english":  # published models have 0, not -0, and a word for end-of-text
        expect(their_front[FILTERS : FILTERS + 4] == struct.pack("<f", -0.0), "upstream has another zero")
        their_front = their_front[:FILTERS] + bytes(4) + their_front[FILTERS + 4 :]
        their_rest = add_end_of_text(their_rest)
    expect((front, rest) == (their_front, their_rest), "upstream's convert-pt-to-ggml.py writes another file")

    h5 = (folder / "h5.bin").read_bytes()
    expect(tensors_of(h5) == tensors_of(data), "upstream's convert-h5-to-ggml.py writes other tensors")
    expect(h5[:48] == data[:48], "upstream's convert-h5-to-ggml.py writes another header")
    try:
        models.import_file(folder / "int8", "int8", progress=False)
    except ModelCorruptError as error:
        expect("int8" in str(error), f"int8 is refused for another reason: {error}")
    else:
        expect(False, "int8 was taken")
    digest = hashlib.sha256(data).hexdigest()[:12]
    return (
        f"{kind}: {len(made)} formats, {len(data)} bytes, SHA-256 {digest}..., +{grown_mb:.0f} MB of memory"
    )


FILTERS: Final = 4 + 44 + 8
"""Where the mel filters begin."""

TIKTOKEN: Final = {"english": "gpt2.tiktoken", "multilingual": "multilingual.tiktoken"}
END_OF_TEXT: Final = b"<|endoftext|>"


def split(data: bytes, header: ggml_file.Header) -> tuple[bytes, bytes]:
    """Return header with filters, and what follows."""
    at = FILTERS + header.n_mels * 201 * 4
    return data[:at], data[at:]


def add_end_of_text(rest: bytes) -> bytes:
    """Add a word to the words, with which `rest` begins."""
    (count,) = struct.unpack_from("<i", rest)
    at = 4
    for _ in range(count):
        at += 4 + struct.unpack_from("<i", rest, at)[0]
    word = struct.pack("<i", len(END_OF_TEXT)) + END_OF_TEXT
    return struct.pack("<i", count + 1) + rest[4:at] + word + rest[at:]


def tensors_of(data: bytes) -> dict[bytes, bytes]:
    """Return the tensors of a file by name, each with its shape, type and values, in any order."""
    header = struct.unpack_from("<11i", data, 4)
    at = FILTERS + header[9] * 201 * 4
    (count,) = struct.unpack_from("<i", data, at)
    at += 4
    for _ in range(count):
        at += 4 + struct.unpack_from("<i", data, at)[0]
    found = {}
    while at < len(data):
        rank, length, kind = struct.unpack_from("<3i", data, at)
        shape = struct.unpack_from(f"<{rank}i", data, at + 12)
        name_at = at + 12 + 4 * rank
        end = name_at + length + int(np.prod(shape)) * (2 if kind else 4)
        found[data[name_at : name_at + length]] = data[at:name_at] + data[name_at + length : end]
        at = end
    return found


def quantise(folder: Path, header: ggml_file.Header) -> str:
    """Make every kind of the imported model and run it; those with k only where rows divide."""
    source, sizes = models.find("pt"), []
    samples = np.random.default_rng(1).standard_normal(16_000, np.float32)
    model_check.hear(source, samples)
    for kind in native.QUANTISATIONS:
        target = folder / f"{kind}.bin"
        if kind.endswith("k") and header.n_audio_state % 256:
            try:
                native.quantize(source, target, kind)
            except ModelCorruptError:
                continue
            expect(False, f"{kind} of rows of {header.n_audio_state} was made")
        native.quantize(source, target, kind)
        expect(ggml_file.check(target) == replace(header, ftype=2000 + native.QUANTISATIONS[kind]), kind)
        model_check.hear(target, samples)
        sizes.append(f"{kind} {target.stat().st_size / source.stat().st_size:.2f}")
        target.unlink()
    return f"    loads and runs; of its size: {', '.join(sizes)}"


def peak_mb() -> float:
    """Return the most memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def expect(holds: bool, problem: str) -> None:
    """End with a message unless something holds."""
    if not holds:
        sys.exit(problem)


if __name__ == "__main__":
    main()
