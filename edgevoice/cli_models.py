"""The command `edgevoice models quantize`: a smaller model of one, and a look at whether it still works."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgevoice import audio, ggml_file, model_check, models, native
from edgevoice.errors import ModelCorruptError, ModelError, NativeError, UsageError

if TYPE_CHECKING:
    import argparse

    from edgevoice.events import Samples


def run(options: argparse.Namespace, language: str) -> None:
    """Tell the sizes, or make a model and compare what it hears with what the original hears."""
    name, source, header = _source(options.name)
    if options.kind is None:
        print("\n".join(_sizes(name, source, header)))
        return
    if options.kind not in native.QUANTISATIONS:
        raise UsageError(f"{options.kind!r} is no quantisation; use one of {', '.join(native.QUANTISATIONS)}")
    if any(model.name == f"{name}-{options.kind}" for model in models.known()):
        raise UsageError(
            f"{name}-{options.kind} is a file that upstream publishes, of which one made here might differ; "
            f"run `edgevoice models pull {name}-{options.kind}`"
        )
    samples = audio.read_audio(options.sample or model_check.SAMPLE)
    with _folder() as folder:
        made = Path(folder) / f"{name}-{options.kind}.bin"
        native.quantize(source, made, options.kind)
        print("\n".join(_compare(name, source, made, language, samples)))
        print(models.import_file(made, made.stem))


def make(name: str, kind: str, *, progress: bool) -> Path:
    """Make NAME-KIND of an installed model, without looking at it."""
    source = models.find(name)
    with _folder() as folder:
        made = Path(folder) / f"{name}-{kind}.bin"
        native.quantize(source, made, kind)
        return models.import_file(made, made.stem, progress=progress)


def _source(name_or_path: str) -> tuple[str, Path, ggml_file.Header]:
    """Return the name, the file and the header of what is to be quantised."""
    name, path = name_or_path, Path(name_or_path)
    if path.suffix == ".bin" and path.is_file():
        name = path.stem.removeprefix("ggml-")
    else:
        path = models.find(name_or_path)
    try:
        return name, path, ggml_file.check(path, may_be_f32=True)
    except OSError as error:
        raise ModelError(
            f"cannot read {path}: {error.strerror}; check the file and its permissions"
        ) from None


def _folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder beside the models, gone afterwards."""
    try:
        models.models_dir().mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=models.models_dir())
    except OSError as error:
        raise ModelError(
            f"{models.models_dir()} cannot be written ({error.strerror}); "
            "set EDGEVOICE_MODELS to a folder of yours"
        ) from None


def _sizes(name: str, source: Path, header: ggml_file.Header) -> list[str]:
    """Return a table of what each kind would take."""
    size = source.stat().st_size
    lines = [f"{name:20} {size / 1e6:7.1f} MB"]
    for kind, ftype in native.QUANTISATIONS.items():
        other = ggml_file.quantised(header, ftype)
        made = size - ggml_file.tensor_bytes(header) + ggml_file.tensor_bytes(other)
        told = f"{made / 1e6:7.1f} MB  {made / size:.2f}"
        if other.problem() is not None:
            told = f"      -     has blocks of 256, rows of {header.n_audio_state} do not divide"
        lines.append(f"{f'{name}-{kind}':20} {told}")
    return lines


def _compare(name: str, source: Path, made: Path, language: str, samples: Samples) -> list[str]:
    """Return what both hear and what the new one takes of the size and the time.

    Raises:
        ModelCorruptError: the new one cannot be run, or hears nothing where the old one hears something.
    """
    size_bytes, before = made.stat().st_size, None
    size = f"{made.stem}: {size_bytes / 1e6:.1f} MB, {size_bytes / source.stat().st_size:.2f} of {name}"
    if ggml_file.check(source, may_be_f32=True).ftype:
        before = model_check.hear(source, samples, language)
    try:
        after = model_check.hear(made, samples, language)
    except (ModelError, NativeError) as error:
        raise ModelCorruptError(
            f"{made.stem} was made, but cannot be used: {error}; take another kind"
        ) from None
    if before is None:
        return [size, f"{made.stem} hears {after.text!r}; {name} is f32, which cannot be run to compare"]
    if before.text and not after.text:
        raise ModelCorruptError(
            f"{made.stem} was made, but hears nothing where {name} hears {before.text!r}; take another kind"
        )
    ratio = after.seconds / before.seconds
    return [
        size,
        f"{name} hears {before.text!r}",
        f"{made.stem} hears {after.text!r}, in {ratio:.2f} of the time",
    ]
