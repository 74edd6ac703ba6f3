"""Makes ggml files of Whisper models in other formats; which one it is, the content tells.

    CTranslate2      model.bin          import_ctranslate2.py
    Hugging Face     model.safetensors  import_safetensors.py     Weights -> ggml_file.write
    OpenAI           NAME.pt            import_pt.py

The words come from the vocabulary beside the file, read by `vocabulary.py`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from edgevoice import ggml_file, import_ctranslate2, import_pt, import_safetensors
from edgevoice.errors import ModelCorruptError, ModelNotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from edgevoice.weights import Weights

_GGML: Final = struct.pack("<I", ggml_file.MAGIC)
_PICKLE: Final = b"\x80\x02"  # torch before 1.6 begins so, and still does when asked
_TAR: Final = (257, b"ustar")  # torch before 0.1.10: where POSIX's tar has its magic
_FRONT_BYTES: Final = 512  # enough for all of these
_IN_FOLDER: Final = (import_safetensors.FILE, import_safetensors.INDEX, "model.bin")
_OURS: Final = "ggml, CTranslate2's model.bin, Hugging Face's safetensors or OpenAI's .pt"


def find_file(path: Path) -> Path:
    """Return the file of a model: the path itself, or what a folder holds.

    Raises:
        ModelNotFoundError: There is none, or more than one.
    """
    if path.is_dir():
        found = [path / name for name in _IN_FOLDER if (path / name).is_file()]
        if len(found) != 1:
            names = " and ".join(file.name for file in found) or f"none of {', '.join(_IN_FOLDER)}"
            raise ModelNotFoundError(f"the folder {path} has {names}; give the file of the model")
        return found[0]
    if not path.is_file():
        raise ModelNotFoundError(f"there is no file {path}; give a file ({_OURS}) or the folder of one")
    return path


def read(path: Path) -> Weights | None:
    """Find the weights in a file; None when it is a ggml file, which need not be converted.

    Raises:
        ModelCorruptError: It is of no known format, or malformed.
        ModelNotFoundError: A file that belongs to it is missing.
    """
    with path.open("rb") as file:
        front = file.read(_FRONT_BYTES)
    at, tar = _TAR
    if front.startswith(_GGML):
        return None
    if front.startswith(import_ctranslate2.START):
        return import_ctranslate2.read(path)
    if front.startswith(import_pt.START):
        return import_pt.read(path)
    if front[8:9] == b"{" or (front.lstrip()[:1] == b"{" and path.suffix == ".json"):
        return import_safetensors.read(path)
    if front.startswith(_PICKLE) or front[at : at + len(tar)] == tar:
        raise ModelCorruptError(
            f"{path.name} is of a format that torch wrote before 1.6, which is not read; save it again with "
            "a newer torch, as a zip"
        )
    raise ModelCorruptError(
        f"{path.name} is no usable Whisper model: it begins with {front[:8].hex(' ') or 'nothing'}, like no "
        f"format of them; give {_OURS}"
    )
