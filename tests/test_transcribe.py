"""`edgevoice transcribe`, with the real model: recordings in, texts out, also when it is stopped."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

import build_native
from edgevoice import whisper
from edgevoice.audio import read_audio
from edgevoice.cli_transcribe_files import NOTES, expand
from edgevoice.errors import AudioFormatError, UsageError
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.whisper import pieces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgevoice.events import Samples
    from tests.conftest import Edgevoice, Sample

TEXT = (
    "And so my fellow Americans ask not what your country can do for you\n"
    "ask what you can do for your country.\n"
)


@pytest.fixture(scope="module")
def jfk() -> Path:
    """Eleven seconds that whisper.cpp comes with."""
    return build_native.whisper_source(None) / "samples" / "jfk.wav"


@pytest.fixture(scope="module")
def session(model_path: Path) -> Iterator[whisper.Session]:
    with whisper.Model(model_path) as model, model.session() as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path, samples: tuple[Sample, ...]) -> Path:
    """Two short recordings."""
    place = tmp_path / "talks"
    place.mkdir()
    for name, sample in zip(("a", "b"), samples[:2], strict=True):
        shutil.copy(sample.path, place / f"{name}.flac")
    return place


class TestOutput:
    """What becomes of recordings that can be read."""

    def test_text_is_that_of_the_session(
        self, edgevoice: Edgevoice, jfk: Path, session: whisper.Session
    ) -> None:
        """A line for each segment, and nothing else on stdout or stderr."""
        found = session.transcribe(read_audio(jfk))
        done = edgevoice("transcribe", jfk)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode() == "".join(f"{each.text.strip()}\n" for each in found.segments)
        assert done.stdout.decode() == TEXT

    def test_subtitles_with_short_lines(self, edgevoice: Edgevoice, jfk: Path) -> None:
        """Each line fits, together they are the text, and times go on."""
        done = edgevoice("transcribe", "--format", "srt", "--max-line-length", "20", jfk)
        blocks = [block.split("\n") for block in done.stdout.decode().split("\n\n")[:-1]]
        assert max(len(text) for _, _, text in blocks) <= 20
        assert " ".join(text for _, _, text in blocks) == TEXT.replace("\n", " ").strip()
        clocks = [clock for _, line, _ in blocks for clock in line.split(" --> ")]
        assert clocks == sorted(clocks)
        assert "00:00:00,000" <= clocks[0] < clocks[-1] <= "00:00:11,000"

    def test_subtitles_of_two_lines_with_words_lit(self, edgevoice: Edgevoice, jfk: Path) -> None:
        """Each word once, in the order they are said."""
        more = ("--max-line-length", "30", "--max-lines", "2", "--highlight-words")
        done = edgevoice("transcribe", "--format", "srt", *more, jfk)
        blocks = [block.split("\n")[2:] for block in done.stdout.decode().split("\n\n")[:-1]]
        assert max(map(len, blocks)) == 2
        assert max(len(re.sub("</?u>", "", line)) for lines in blocks for line in lines) <= 30
        lit = re.findall("<u>(.*?)</u>", done.stdout.decode())
        assert lit == TEXT.split()

    def test_files(self, edgevoice: Edgevoice, folder: Path, jfk: Path, tmp_path: Path) -> None:
        """All formats of all recordings of a pattern, with the times of words in JSON; nothing on stdout."""
        out = tmp_path / "new" / "out"
        done = edgevoice(
            "transcribe", "--output-dir", out, "--format", "text,srt,vtt,json,tsv", "--word-times",
            "--jobs", "2", folder / "*.flac", jfk,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        kinds = (".json", ".srt", ".tsv", ".txt", ".vtt")
        wanted = {f"{stem}{kind}" for stem in ("a", "b", "jfk") for kind in kinds}
        assert {path.name for path in out.iterdir()} == wanted | {NOTES}
        assert (out / "jfk.txt").read_text() == TEXT
        found = json.loads((out / "jfk.json").read_text())
        assert (found["language"], found["duration"]) == ("en", 11.0)
        words = [word for segment in found["segments"] for word in segment["words"]]
        assert "".join(word["word"] for word in words).split() == TEXT.split()
        assert [word["start"] for word in words] == sorted(word["start"] for word in words)
        assert words[-1]["start"] < 11

    def test_several_on_stdout(self, edgevoice: Edgevoice, folder: Path) -> None:
        """In the order given, with their names; JSON as an object a line."""
        files = [str(folder / "b.flac"), str(folder / "a.flac")]
        done = edgevoice("transcribe", "--jobs", "2", *files)
        lines = done.stdout.decode().splitlines()
        assert [line.split(": ")[0] for line in lines] == files
        objects = [
            json.loads(line)
            for line in edgevoice("transcribe", "--format", "json", *files).stdout.decode().splitlines()
        ]
        assert [each["file"] for each in objects] == files
        assert [f"{each['file']}: {each['text']}" for each in objects] == lines

    def test_options_reach_whisper(self, edgevoice: Edgevoice, jfk: Path, tmp_path: Path) -> None:
        """A grammar binds the text; speech alone, beams and a prompt change nothing that was clear."""
        path = tmp_path / "country.gbnf"
        path.write_text('root ::= " " ("my country" | "our house") "."\n')
        done = edgevoice("transcribe", "--grammar", path, jfk)
        assert done.stdout.decode().strip() in ("my country.", "our house.")
        beams = ("--beam", "2", "--patience", "1", "--temperature", "0")
        done = edgevoice("transcribe", *beams, "--vad", "--prompt", "Kennedy:", "--threads", "2", jfk)
        assert (done.returncode, done.stderr) == (0, b"")
        assert re.sub(r"[^a-z ]", "", " ".join(done.stdout.decode().lower().split())).endswith(
            "ask what you can do for your country"
        )


class TestStdin:
    """A recording that comes through a pipe."""

    def test_sound_file(self, edgevoice: Edgevoice, jfk: Path) -> None:
        """Is known by how it begins."""
        done = edgevoice("transcribe", "-", stdin=jfk.read_bytes())
        assert (done.returncode, done.stdout.decode()) == (0, TEXT)

    def test_raw(self, edgevoice: Edgevoice, jfk: Path) -> None:
        """Other bytes are raw audio, at a rate that is told."""
        halved = soundfile.read(jfk, dtype="int16")[0][::2].tobytes()
        done = edgevoice("transcribe", "-", "--rate", "8000", stdin=halved)
        assert done.returncode == 0
        assert "country" in done.stdout.decode()

    @pytest.mark.parametrize("data", [b"", b"\0\0" * 100, b"RIFF", b"fLaC" + b"\xff" * 1000])
    def test_unusable(self, edgevoice: Edgevoice, data: bytes) -> None:
        """One sentence that names stdin, and no path of ours."""
        done = edgevoice("transcribe", "-", stdin=data)
        assert done.returncode == 4
        assert done.stdout == b""
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith("edgevoice: stdin")
        assert "/" not in line.split("stdin")[1].split(" ")[0]


class TestFailures:
    """What goes wrong is told, and the rest is done."""

    def test_bad_files_among_good_ones(self, edgevoice: Edgevoice, folder: Path, tmp_path: Path) -> None:
        """Each is named once; the others are there; the exit code is that of audio."""
        (folder / "empty.wav").touch()
        (folder / "noise.flac").write_bytes(b"fLaC" + bytes(range(256)) * 40)
        (folder / "cut.flac").write_bytes((folder / "a.flac").read_bytes()[:-9000])
        soundfile.write(folder / "short.wav", np.zeros(100, np.int16), SAMPLE_RATE_HZ)
        (folder / "dir.wav").mkdir()
        out = tmp_path / "out"
        done = edgevoice("transcribe", "--output-dir", out, folder / "*", folder / "nosuch.wav")
        assert done.returncode == 4
        lines = done.stderr.decode().splitlines()
        assert len(lines) == 6
        for name in ("cut.flac", "dir.wav", "empty.wav", "noise.flac", "nosuch.wav", "short.wav"):
            assert sum(f"{folder / name}" in line for line in lines) == 1
        assert all(line.startswith("edgevoice: ") for line in lines)
        assert {path.name for path in out.iterdir()} == {"a.txt", "b.txt", NOTES}

    @pytest.mark.parametrize(
        ("arguments", "words", "code"),
        [
            ([], "nothing to transcribe", 2),
            (["a.wav", "--mic"], "--mic and files", 2),
            (["--mic", "--output-dir", "{out}"], "--mic and --output-dir", 2),
            (["a.wav", "--format", "srt,docx"], "text, srt, vtt, json, tsv", 2),
            (["a.wav", "--format", "srt,json"], "--output-dir", 2),
            (["a.wav", "b.wav", "--format", "srt"], "--output-dir", 2),
            (["x/a.wav", "y/a.flac", "--output-dir", "{out}"], "both be written", 2),
            (["a.wav", "--resume"], "--output-dir", 2),
            (["a.wav", "--word-times"], "--format json", 2),
            (["a.wav", "--highlight-words"], "--format srt", 2),
            (["a.wav", "--max-lines", "2", "--format", "srt"], "--max-line-length", 2),
            (["a.wav", "--beam", "9"], "from 1 to 8", 2),
            (["a.wav", "--temperature", "3"], "between 0 and 1", 2),
            (["a.wav", "--patience", "2"], "set beam", 2),
            (["a.wav", "--language", "de"], "does not know the language 'de'", 2),
            (["a.wav", "--translate"], "multilingual", 2),
            (["a.wav", "--grammar", "nosuch.gbnf"], "nosuch.gbnf", 2),
            (["a.wav", "--model", "nosuch"], "nosuch", 3),
            (["a.wav"], "a.wav is not there", 4),
        ],
    )
    def test_usage(
        self, edgevoice: Edgevoice, tmp_path: Path, arguments: list[str], words: str, code: int
    ) -> None:
        """Says what and what to do, before any work."""
        done = edgevoice("transcribe", *(each.format(out=tmp_path) for each in arguments))
        assert done.returncode == code, done.stderr
        assert words in " ".join(done.stderr.decode().split())
        assert b"Traceback" not in done.stderr
        assert done.stdout == b""

    def test_output_that_cannot_be_written(self, edgevoice: Edgevoice, folder: Path, tmp_path: Path) -> None:
        """A file in the place of the folder."""
        (tmp_path / "out").touch()
        done = edgevoice("transcribe", "--output-dir", tmp_path / "out", folder / "a.flac")
        assert done.returncode == 1
        assert b"out" in done.stderr
        assert b"Traceback" not in done.stderr


class TestResume:
    """A list goes on where it was left."""

    def test_what_is_done_is_left_out(self, edgevoice: Edgevoice, folder: Path, tmp_path: Path) -> None:
        """And done again when output, note, recording or options are not what they were."""
        out = tmp_path / "out"

        def run(*more: str | Path) -> list[str]:
            """The recordings done: those whose files are new."""
            before = {path: path.stat().st_mtime_ns for path in out.glob("*.txt")}
            done = edgevoice("transcribe", "--output-dir", out, folder / "*.flac", *more)
            assert done.returncode == 0, done.stderr
            return sorted(p.stem for p in out.glob("*.txt") if p.stat().st_mtime_ns != before.get(p))

        assert run() == ["a", "b"]
        text = (out / "a.txt").read_text()
        assert run("--resume") == []
        (out / "a.txt").unlink()
        assert run("--resume") == ["a"]
        assert (out / "a.txt").read_text() == text
        notes = out / NOTES
        notes.write_text(notes.read_text()[:-20] + "\n[]\n\xff")  # the last line, of a, was cut off
        notes.write_text("\n".join(line for line in notes.read_text().splitlines() if '"a"' not in line))
        assert run("--resume") == ["a"]
        shutil.copy(folder / "b.flac", folder / "a.flac")
        assert run("--resume") == ["a"]
        assert run("--resume", "--threads", "2") == []
        assert run("--resume", "--prompt", "Home.") == ["a", "b"]
        assert run("--resume", "--prompt", "Home.", "--format", "text,srt") == ["a", "b"]
        assert run("--resume", "--prompt", "Home.", "--format", "srt") == []

    def test_interrupted(
        self, child_environment: dict[str, str], edgevoice: Edgevoice, jfk: Path, tmp_path: Path
    ) -> None:
        """Ctrl-C ends it soon, says what is left, leaves nothing half done, and --resume goes on."""
        audio = read_audio(jfk)
        soundfile.write(tmp_path / "a.wav", audio, SAMPLE_RATE_HZ)
        soundfile.write(tmp_path / "b.wav", np.tile(audio, 30), SAMPLE_RATE_HZ)
        soundfile.write(tmp_path / "c.wav", audio, SAMPLE_RATE_HZ)
        out = tmp_path / "out"
        files = [str(tmp_path / f"{name}.wav") for name in "abc"]
        command = [sys.executable, "-m", "edgevoice", "transcribe", "--output-dir", str(out), *files]
        # A shell starts background jobs with SIGINT ignored; children inherit that, but not a handler.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        with subprocess.Popen(command, env=child_environment, stderr=subprocess.PIPE) as process:
            signal.signal(signal.SIGINT, before)
            deadline_s = time.monotonic() + 30
            while not (out / NOTES).exists():
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            time.sleep(0.5)  # in the midst of b's first windows
            sent_s = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=10)
            assert time.monotonic() - sent_s < 5  # within a second; a busy machine is given more
        assert process.returncode == 130
        assert stderr.decode() == (
            f"edgevoice: interrupted; not done: {files[1]}, {files[2]}; --resume does these\n"
        )
        assert {path.name for path in out.iterdir()} == {"a.txt", NOTES}
        done = edgevoice("transcribe", "--output-dir", out, "--resume", files[0], files[2])
        assert done.stderr.decode() == "1 of 2 recordings are done\n"
        assert (out / "c.txt").read_text() == (out / "a.txt").read_text()

    def test_interrupted_while_it_waits_for_stdin(self, child_environment: dict[str, str]) -> None:
        """Ctrl-C ends that, too."""
        command = [sys.executable, "-m", "edgevoice", "transcribe", "-"]
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        with subprocess.Popen(
            command, env=child_environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            signal.signal(signal.SIGINT, before)
            assert process.stdin is not None
            process.stdin.write(bytes(500_000))  # more than a pipe holds: when this is through, it is read
            process.stdin.flush()
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
            assert process.stderr is not None
            assert process.stderr.read() == b"edgevoice: interrupted; not done: stdin\n"


def test_patterns(tmp_path: Path) -> None:
    """Are looked up in order; a file that is named like one is itself; nothing is done twice."""
    for name in ("b.wav", "a.wav", "x[1].wav"):
        (tmp_path / name).touch()
    a, b, x = (str(tmp_path / name) for name in ("a.wav", "b.wav", "x[1].wav"))
    assert expand([b, str(tmp_path / "?.wav"), x, "-", "-"]) == [b, a, x, "-"]
    assert expand([str(tmp_path / "*.mp3")]) == [str(tmp_path / "*.mp3")]


class TestPieces:
    """Long recordings."""

    @given(st.lists(st.integers(0, 900_000), max_size=6), st.integers(0, 2**32 - 1))
    def test_nothing_is_lost(self, sizes: list[int], seed: int) -> None:
        """Pieces are as long as allowed or up to 30 seconds less, and together are the audio."""
        chance = np.random.default_rng(seed)
        blocks = [chance.standard_normal(size, np.float32) for size in sizes]
        found = [piece.copy() for piece in pieces._pieces(iter(blocks), 31)]
        whole = np.concatenate([*blocks, np.empty(0, np.float32)])
        assert np.array_equal(np.concatenate([*found, np.empty(0, np.float32)]), whole)
        for piece in found[:-1]:
            assert SAMPLE_RATE_HZ <= len(piece) <= 31 * SAMPLE_RATE_HZ

    def test_cut_is_in_a_pause(self) -> None:
        """In the last of those that are as quiet."""
        samples = np.ones(40 * SAMPLE_RATE_HZ, np.float32)
        for pause_s in (12.0, 15.0, 31.5):
            samples[round(pause_s * SAMPLE_RATE_HZ) :][: SAMPLE_RATE_HZ // 2] = 0
        assert 31.5 < pieces._quietest(samples) / SAMPLE_RATE_HZ < 32

    def test_text_of_pieces(
        self, session: whisper.Session, samples: tuple[Sample, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each sentence is there, at its time, though pieces are cut; progress goes on."""
        pause = np.zeros(SAMPLE_RATE_HZ // 2, np.float32)
        blocks = [block for sample in samples[:18] for block in (sample.read(), pause)]
        length_s = sum(map(len, blocks)) / SAMPLE_RATE_HZ
        done = list[float]()
        monkeypatch.setattr(pieces, "PIECE_S", 31)
        found = pieces.transcribe_blocks(session, blocks, on_progress=lambda done_s, _: done.append(done_s))
        assert found.duration_s == pytest.approx(length_s)
        assert length_s > 40
        words = {word for sample in samples[:18] for word in re.findall("[a-z]{4,}", sample.text.lower())}
        heard = {word for word in words if word in found.text.lower()}
        assert len(heard) >= 0.8 * len(words), words - heard
        starts = [each.start_s for each in found.segments]
        assert starts == sorted(starts)
        assert length_s - 5 < found.segments[-1].end_s < length_s + 0.1
        assert done == sorted(done)
        assert done[-1] == pytest.approx(length_s, abs=0.5)

    def test_pieces_at_the_same_time(self, session: whisper.Session, jfk: Path) -> None:
        """As many as there are minutes, up to the jobs, cut in a pause."""
        pause = np.zeros(SAMPLE_RATE_HZ // 2, np.float32)
        audio = np.concatenate([read_audio(jfk), pause])
        talk, options = np.tile(audio, 11), whisper.Options(temperature_step=0)
        found = whisper.transcribe_parallel(session.model, talk, options, jobs=2)
        assert found.duration_s == len(talk) / SAMPLE_RATE_HZ
        assert found.text.lower().count("fellow americans") == 11
        starts = [each.start_s for each in found.segments]
        assert starts == sorted(starts)
        assert starts[-1] > 115
        first, second = pieces._shares(talk, 2)
        assert np.array_equal(np.concatenate([first, second]), talk)
        assert abs(len(first) - len(second)) <= 30 * SAMPLE_RATE_HZ
        assert not first[-1600:].any()
        assert len(pieces._shares(talk[: 100 * SAMPLE_RATE_HZ], 2)) == 1

    def test_pieces_end_together(self, session: whisper.Session, jfk: Path) -> None:
        """When they are cancelled, are late, or one has what it cannot have."""
        talk = np.tile(read_audio(jfk), 11)
        cancel = whisper.CancelToken()
        cancel.cancel()
        assert whisper.transcribe_parallel(session.model, talk, cancel=cancel).aborted == "cancelled"
        assert whisper.transcribe_parallel(session.model, talk, timeout_s=0.01).aborted == "deadline"
        for wrong in ({"jobs": 0}, {"options": whisper.Options(context=True)}, {"jobs": 1.5}):
            with pytest.raises(UsageError):
                whisper.transcribe_parallel(session.model, talk, **wrong)
        with pytest.raises(ZeroDivisionError):
            whisper.transcribe_parallel(
                session.model,
                talk,
                whisper.Options(logits_filter=lambda _tokens, _logits: 1 / 0),  # type: ignore[arg-type]
            )

    def test_short_ones_are_as_the_session_has_them(self, session: whisper.Session, jfk: Path) -> None:
        """One piece is transcribed as it always is."""
        audio = read_audio(jfk)
        alone = session.transcribe(audio)
        found = pieces.transcribe_blocks(session, [audio[:100_000], audio[100_000:]])
        assert found.segments == alone.segments

    def test_no_audio(self, session: whisper.Session) -> None:
        """Is told, as is too little."""
        blocks: list[Samples] = []
        with pytest.raises(AudioFormatError, match=r"no audio"):
            pieces.transcribe_blocks(session, blocks)
        with pytest.raises(AudioFormatError, match=r"0\.1 s"):
            pieces.transcribe_blocks(session, [np.zeros(1000, np.float32)])

    def test_cancelled(self, session: whisper.Session, jfk: Path) -> None:
        """What was found until then is returned."""
        cancel, audio = whisper.CancelToken(), read_audio(jfk)
        found = pieces.transcribe_blocks(
            session,
            itertools.repeat(audio, 30),
            cancel=cancel,
            on_progress=lambda _done_s, segments: segments and cancel.cancel(),  # type: ignore[func-returns-value,arg-type]
        )
        assert found.aborted == "cancelled"
        assert 0 < found.segments[-1].end_s < 60
