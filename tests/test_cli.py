"""The command line explains itself, ends with the documented code, and never shows a traceback."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
import yaml

from edgevoice import cli, config, model_check, native
from edgevoice.errors import EdgevoiceError, InferenceError

if TYPE_CHECKING:
    import argparse

    from edgevoice.events import Samples
    from tests.conftest import Edgevoice, Sample


def all_commands(parser: argparse.ArgumentParser) -> list[list[str]]:
    """Every command, from the parser itself; groups can be in groups."""
    group = parser._subparsers
    if group is None:
        return [[]]
    subs: dict[str, argparse.ArgumentParser] = group._group_actions[0].choices  # type: ignore[assignment]
    return [[name, *rest] for name, sub in subs.items() for rest in all_commands(sub)]


COMMANDS = all_commands(cli._parser())


def one_sentence(stderr: bytes) -> str:
    """What a user reads when something fails: one line from us, no traceback."""
    text = stderr.decode()
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if line.startswith("edgevoice: ")]
    assert len(lines) == 1, text
    return lines[0]


class TestHelp:
    """What can be found out without a manual."""

    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_help_of_a_command(self, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """Says what it does, every option, and what its exit codes mean."""
        with pytest.raises(SystemExit) as ended:
            cli.main([*command, "--help"])
        assert ended.value.code == 0
        text = " ".join(capsys.readouterr().out.split())
        assert text.startswith("usage: ")
        for code, meaning in ((0, "done"), (2, "usage"), (3, "model"), (4, "audio"), (5, "network")):
            assert f"{code} {meaning}" in text
        assert "--config" in text

    @pytest.mark.parametrize("group", [[], ["models"], ["grammar"], ["grammar", "import"], ["config"]])
    def test_exit_codes_are_those_of_the_readme(
        self, group: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Help of groups shows them too, each code the README has, and a refused command as done."""
        with pytest.raises(SystemExit):
            cli.main([*group, "--help"])
        text = " ".join(capsys.readouterr().out.split())
        shown = re.findall(r"[:;] (\d+) ", text[text.index("exit codes:") :])
        readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
        section = readme[readme.index("## Exit codes") :]
        assert shown == re.findall(r"^\| (\d+) \|", section, re.MULTILINE)[: len(shown)]
        assert shown == ["0", "1", "2", "3", "4", "5", "130"]
        assert "0 done, a refused command" in text

    @pytest.mark.parametrize("rate", ["3", "many", "-16000", "1e4", "192001"])
    def test_wrong_rate(self, rate: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Says which rates are allowed and what was seen, not the name of a function."""
        with pytest.raises(SystemExit) as ended:
            cli.main(["recognize", "a.wav", f"--rate={rate}"])
        assert ended.value.code == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.endswith(f"--rate: must be a whole number from 4000 to 192000, got {rate!r}")

    def test_help_names_every_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The list of commands is complete, each with a line of its own."""
        with pytest.raises(SystemExit):
            cli.main(["--help"])
        text = capsys.readouterr().out
        for command in {command[0] for command in COMMANDS}:
            assert re.search(rf"^ +{command}\s+\w", text, re.MULTILINE), command
        assert "exit codes" in text

    def test_the_documented_commands_exist(self) -> None:
        """Those that users have typed once stay."""
        documented = [
            ["run"], ["recognize"], ["devices"], ["models", "list"], ["models", "pull"], ["models", "import"],
            ["models", "verify"], ["config", "show"], ["config", "check"], ["doctor"],
        ]  # fmt: skip
        assert [command for command in documented if command not in COMMANDS] == []

    @pytest.mark.parametrize(
        "arguments",
        [
            [], ["nosuch"], ["models"], ["config"], ["recognize"], ["run", "--nosuch"],
            ["run", "--input"], ["recognize", "-", "--rate", "many"], ["recognize", "-", "--rate", "100"],
            ["recognize", "-", "--rate", "9" * 5000],
        ],
        ids=lambda arguments: " ".join(arguments)[:60],
    )  # fmt: skip
    def test_wrong_usage_ends_with_2(self, edgevoice: Edgevoice, arguments: list[str]) -> None:
        """The reason is on stderr, nothing on stdout."""
        done = edgevoice(*arguments)
        assert done.returncode == 2
        assert done.stdout == b""
        assert b"edgevoice" in done.stderr
        assert b"Traceback" not in done.stderr

    def test_version(self, edgevoice: Edgevoice) -> None:
        """Ours, whisper.cpp's and the kernels in use."""
        done = edgevoice("--version")
        assert done.returncode == 0
        assert re.match(rb"edgevoice \S+\nwhisper\.cpp \d+\.\d+\.\d+\nkernels .+", done.stdout)
        assert done.stderr == b""


class TestModels:
    """Models on this machine."""

    def test_list(self, edgevoice: Edgevoice, model_path: Path) -> None:
        """Every known model is a line; the folder is told."""
        done = edgevoice("models", "list")
        assert done.returncode == 0
        text = done.stdout.decode()
        assert re.search(r"^tiny\.en\b.*verified", text, re.MULTILINE)
        assert str(model_path.parent) in text

    def test_list_as_json(self, edgevoice: Edgevoice, model_path: Path) -> None:
        """The same for programs."""
        done = edgevoice("models", "list", "--json")
        (tiny,) = [state for state in json.loads(done.stdout) if state["name"] == "tiny.en"]
        assert tiny["path"] == str(model_path)

    def test_verify(self, edgevoice: Edgevoice) -> None:
        """A good model verifies."""
        done = edgevoice("models", "verify", "tiny.en")
        assert (done.returncode, b"tiny.en" in done.stdout) == (0, True)

    def test_verify_without_models(self, edgevoice: Edgevoice, tmp_path: Path) -> None:
        """Nothing to verify is a failed check that says what to do."""
        done = edgevoice("models", "verify", environment={"EDGEVOICE_MODELS": str(tmp_path)})
        assert done.returncode == 1
        assert "models pull" in one_sentence(done.stderr)

    def test_verify_a_broken_model(self, edgevoice: Edgevoice, tmp_path: Path, model_path: Path) -> None:
        """A file with other content is told, with the code for models."""
        (tmp_path / "ggml-tiny.en.bin").write_bytes(model_path.read_bytes()[:-1] + b"x")
        done = edgevoice("models", "verify", environment={"EDGEVOICE_MODELS": str(tmp_path)})
        assert done.returncode == 3
        assert "tiny.en" in one_sentence(done.stderr)

    @pytest.mark.parametrize("command", [["pull", "nosuch"], ["verify", "nosuch"]], ids=" ".join)
    def test_unknown_name(self, edgevoice: Edgevoice, tmp_path: Path, command: list[str]) -> None:
        """A model that does not exist is told by name."""
        done = edgevoice("models", *command, environment={"EDGEVOICE_MODELS": str(tmp_path)})
        assert done.returncode in {2, 3}
        assert "nosuch" in one_sentence(done.stderr)

    def test_pull_what_is_configured(self, edgevoice: Edgevoice, tmp_path: Path, model_path: Path) -> None:
        """Without a name the configured model; one in 8 bits is made of the one it is called after."""
        folder, settings = tmp_path / "models", tmp_path / "edgevoice.yaml"
        folder.mkdir()
        (folder / model_path.name).symlink_to(model_path)  # nothing is fetched
        settings.write_text("model: {name: tiny.en-q8_0}\n")
        made = folder / "ggml-tiny.en-q8_0.bin"
        absent = edgevoice("models", "verify", "tiny.en-q8_0", environment={"EDGEVOICE_MODELS": str(folder)})
        assert "edgevoice models pull tiny.en-q8_0" in one_sentence(absent.stderr)
        for _ in range(2):  # the second time it is there
            done = edgevoice(
                "models",
                "pull",
                "--quiet",
                "--config",
                settings,
                environment={"EDGEVOICE_MODELS": str(folder)},
            )
            assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{made}\n", b"")
        assert 0.5 < made.stat().st_size / model_path.stat().st_size < 0.6

    def test_import_of_what_is_no_model(self, edgevoice: Edgevoice, tmp_path: Path) -> None:
        """Refused, and nothing is left in the folder."""
        rubbish = tmp_path / "rubbish.bin"
        rubbish.write_bytes(b"no model" * 100)
        folder = tmp_path / "models"
        done = edgevoice("models", "import", rubbish, "mine", environment={"EDGEVOICE_MODELS": str(folder)})
        assert done.returncode == 3
        assert "rubbish.bin" in one_sentence(done.stderr)
        assert not list(folder.glob("*.bin"))

    def test_quantize_without_a_folder(self, edgevoice: Edgevoice, tmp_path: Path, model_path: Path) -> None:
        """An absent folder is made, one that cannot be is told with the code for models."""
        blocked = tmp_path / "file"
        blocked.touch()
        done = edgevoice(
            "models",
            "quantize",
            model_path,
            "q8_0",
            environment={"EDGEVOICE_MODELS": str(blocked / "models")},
        )
        assert done.returncode == 3
        assert "cannot be written" in one_sentence(done.stderr)
        absent = tmp_path / "absent" / "models"
        done = edgevoice(
            "models", "quantize", model_path, "q4_k", environment={"EDGEVOICE_MODELS": str(absent)}
        )
        assert done.returncode == 3
        assert "rows of 384 values, but q4_K has blocks of 256" in one_sentence(done.stderr)
        assert list(absent.iterdir()) == []
        done = edgevoice("models", "quantize", model_path, "q9")
        assert done.returncode == 2
        assert "use one of q8_0" in one_sentence(done.stderr)
        (tmp_path / "ggml-large-v3.bin").symlink_to(model_path)  # the name counts
        done = edgevoice("models", "quantize", tmp_path / "ggml-large-v3.bin", "q5_0")
        assert done.returncode == 2
        assert "edgevoice models pull large-v3-q5_0" in one_sentence(done.stderr)

    def test_quantize(
        self, edgevoice: Edgevoice, tmp_path: Path, model_path: Path, samples: tuple[Sample, ...]
    ) -> None:
        """Both models are heard on a sample, size and time are compared, and the new one is installed."""
        folder = tmp_path / "models"
        sample = next(sample.path for sample in samples if sample.path.stem == "mute-tv")
        done = edgevoice(
            "models",
            "quantize",
            model_path,
            "q8_0",
            "--sample",
            sample,
            environment={"EDGEVOICE_MODELS": str(folder)},
        )
        assert done.returncode == 0, done.stderr
        size, before, after, path = done.stdout.decode().splitlines()
        assert size == "tiny.en-q8_0: 43.6 MB, 0.56 of tiny.en"
        assert before == "tiny.en hears 'Mute the TV'"
        assert re.fullmatch(r"tiny\.en-q8_0 hears 'Mute the TV\.?', in \d\.\d\d of the time", after)
        assert path == str(folder / "ggml-tiny.en-q8_0.bin")
        assert {each.suffix for each in folder.iterdir()} == {".bin", ".json"}

    @pytest.mark.parametrize("case", [(-1, "cannot be used"), (None, "hears nothing where")])
    def test_quantize_of_what_cannot_be_used(
        self,
        case: tuple[int | None, str],
        tmp_path: Path,
        model_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """What cannot be run, or hears nothing where the original hears something, is not kept."""
        monkeypatch.setenv("EDGEVOICE_MODELS", str(tmp_path / "models"))
        (keep, message), whole, hear = case, native.quantize, model_check.hear

        def cut(source: Path, target: Path, kind: str) -> None:
            whole(source, target, kind)
            target.write_bytes(target.read_bytes()[:keep])

        def deaf(path: Path, samples: Samples, language: str) -> model_check.Heard:
            heard = hear(path, samples, language)
            return heard if path == model_path else dataclasses.replace(heard, text="")

        monkeypatch.setattr(native, "quantize", cut)
        if keep is None:
            monkeypatch.setattr(model_check, "hear", deaf)
        assert cli.main(["models", "quantize", str(model_path), "q8_0"]) == 3
        assert message in capsys.readouterr().err
        assert list((tmp_path / "models").iterdir()) == []

    def test_sizes(self, edgevoice: Edgevoice, model_path: Path) -> None:
        """Without a kind, the size of each is told, as it would be."""
        done = edgevoice("models", "quantize", model_path)
        lines = done.stdout.decode().splitlines()
        assert lines[0].split() == ["tiny.en", "77.7", "MB"]
        assert lines[1].split() == ["tiny.en-q8_0", "43.6", "MB", "0.56"]
        assert len(lines) == 1 + len(native.QUANTISATIONS)
        assert "blocks of 256, rows of 384 do not" in next(line for line in lines if "q4_k" in line)


class TestConfig:
    """The configuration in effect."""

    def test_show_defaults_is_a_configuration(self, edgevoice: Edgevoice, tmp_path: Path) -> None:
        """The commented file can be used as it is and is the same as none."""
        done = edgevoice("config", "show", "--defaults")
        assert done.returncode == 0
        path = tmp_path / "edgevoice.yaml"
        path.write_bytes(done.stdout)
        assert config.load(path) == config.Config()

    def test_show_what_is_in_effect(self, edgevoice: Edgevoice, tmp_path: Path) -> None:
        """A file's options appear beside the defaults."""
        path = tmp_path / "edgevoice.yaml"
        path.write_text("site: attic\n")
        shown = yaml.safe_load(edgevoice("config", "show", "--config", path).stdout)
        assert (shown["site"], shown["endpoint"]["silence_ms"]) == ("attic", 500)

    def test_check(self, edgevoice: Edgevoice, tmp_path: Path) -> None:
        """A good file is in order; no file at all is too."""
        path = tmp_path / "edgevoice.yaml"
        path.write_text("site: attic\n")
        assert edgevoice("config", "check", "--config", path).returncode == 0
        assert b"defaults" in edgevoice("config", "check").stdout

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("sit: attic\n", "edgevoice.yaml:1: sit"),
            ("site: [\n", "edgevoice.yaml"),
            ("vad:\n  threshold: 2\n", ":2:"),
        ],
    )
    def test_check_of_a_bad_file(self, edgevoice: Edgevoice, tmp_path: Path, text: str, words: str) -> None:
        """Told with file and line, and with the code of configuration, by every command that reads it."""
        path = tmp_path / "edgevoice.yaml"
        path.write_text(text)
        for command in (["config", "check"], ["config", "show"], ["run"], ["recognize", "a.wav"]):
            done = edgevoice(*command, "--config", path)
            assert done.returncode == 2
            assert b"Traceback" not in done.stderr
            assert words in done.stderr.decode()

    def test_check_of_files_that_are_named(self, edgevoice: Edgevoice, tmp_path: Path) -> None:
        """A grammar that is not there is not in order."""
        path = tmp_path / "edgevoice.yaml"
        path.write_text("grammar: {file: absent.yaml}\n")
        done = edgevoice("config", "check", "--config", path)
        assert (done.returncode, done.stdout) == (2, b"")
        assert "grammar.file" in one_sentence(done.stderr)

    def test_missing_file(self, edgevoice: Edgevoice, tmp_path: Path) -> None:
        """A file that was named but is not there is an error, not the defaults."""
        done = edgevoice("config", "check", "--config", tmp_path / "absent.yaml")
        assert done.returncode == 2
        assert "absent.yaml" in one_sentence(done.stderr)


class TestDevices:
    """Microphones."""

    def test_machine_without_one(self, edgevoice: Edgevoice) -> None:
        """Either there are some, or the check fails with advice; JSON is always JSON."""
        done = edgevoice("devices", "--json")
        assert done.returncode in {0, 4}
        if done.returncode == 0:
            found = json.loads(done.stdout)
            done = edgevoice("devices")
            assert done.returncode == (0 if found else 1)
        if done.returncode:
            assert one_sentence(done.stderr)


class TestProcess:
    """How a command behaves among other programs."""

    def test_reader_that_has_enough(
        self, child_environment: dict[str, str], samples: tuple[Sample, ...]
    ) -> None:
        """A closed pipe ends the command quietly, as with head."""
        command = [sys.executable, "-m", "edgevoice", "recognize", *(str(s.path) for s in samples[:4])]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=child_environment
        ) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            assert child.stdout.readline()
            child.stdout.close()
            stderr = child.stderr.read()
            assert child.wait(30) == 0
        assert stderr == b""

    @pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
    def test_stopped_by_a_signal(
        self, child_environment: dict[str, str], stop: signal.Signals, code: int
    ) -> None:
        """A service that waits for audio ends at once and in order."""
        command = [sys.executable, "-m", "edgevoice", "run", "--input", "-"]
        # A shell starts background jobs with SIGINT ignored; children inherit that, but not a handler.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment,
        ) as child:
            signal.signal(signal.SIGINT, before)
            assert child.stdin is not None
            assert child.stderr is not None
            assert b"no broker" in child.stderr.readline()
            for _ in range(
                200
            ):  # 3 s of audio, more than a pipe holds: it is being read when this is through
                child.stdin.write(b"\0\0" * 512)
            child.stdin.flush()
            time.sleep(1)  # until all is heard and it waits for more
            child.send_signal(stop)
            assert child.wait(10) == code
            stderr = child.stderr.read()
            assert b"Traceback" not in stderr
            assert b"Fatal" not in stderr

    @pytest.mark.parametrize(
        "command", [["--version"], ["--help"], ["models", "list"], ["config", "show"]], ids=" ".join
    )
    def test_output_that_cannot_be_written(
        self, child_environment: dict[str, str], command: list[str]
    ) -> None:
        """A full disk is one sentence and a failure."""
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "edgevoice", *command],
                stdout=full,
                stderr=subprocess.PIPE,
                env={**child_environment, "PYTHONUNBUFFERED": ""},  # set, argparse would pass over it
                check=False,
            )
        assert done.returncode == 1
        assert "No space left" in one_sentence(done.stderr)
        assert len(done.stderr.splitlines()) == 1

    @pytest.mark.parametrize("command", ["recognize -", "run --input -"])
    def test_closed_stdin(self, child_environment: dict[str, str], command: str) -> None:
        """Told as an error of audio."""
        done = subprocess.run(
            ["/bin/sh", "-c", f'exec "$0" -m edgevoice {command} <&-', sys.executable],
            capture_output=True,
            env=child_environment,
            check=False,
        )
        assert done.returncode == 4
        assert b"Traceback" not in done.stderr
        assert b"stdin is closed" in done.stderr

    def test_verbose_says_more(self, edgevoice: Edgevoice, samples: tuple[Sample, ...]) -> None:
        """With -v the log goes to stderr and the results stay alone on stdout."""
        quiet = edgevoice("recognize", "--json", samples[0].path)
        loud = edgevoice("recognize", "--json", "-v", samples[0].path)
        assert quiet.stderr == b""
        assert b"DEBUG" in loud.stderr
        assert len(loud.stdout.splitlines()) == len(quiet.stdout.splitlines()) == 1

    def test_native_module_that_cannot_be_loaded(
        self, child_environment: dict[str, str], tmp_path: Path
    ) -> None:
        """Told with what to do; commands that do not need it work."""
        package = tmp_path / "edgevoice"
        package.mkdir()
        for path in Path(cli.__file__).parent.iterdir():
            if not path.name.startswith(("_native", "__pycache__")):
                (package / path.name).symlink_to(path)
        # An editable install would find the module in the source tree all the same.
        start = (
            "import sys; sys.path.insert(0, sys.argv.pop(1)); "
            "sys.meta_path[:] = [each for each in sys.meta_path if 'editable' not in each.__module__]; "
            "from edgevoice.cli import main; exit(main())"
        )

        def without(*arguments: str) -> subprocess.CompletedProcess[bytes]:
            return subprocess.run(
                [sys.executable, "-P", "-B", "-c", start, tmp_path, *arguments],
                capture_output=True,
                env={**child_environment, "PYTHONPATH": ""},
                check=False,
            )

        recognised = without("recognize", "a.wav")
        assert recognised.returncode == 3
        assert "build_native.py" in one_sentence(recognised.stderr)
        assert without("config", "show", "--defaults").returncode == 0


def test_error_of_one_file_among_several_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], samples: tuple[Sample, ...]
) -> None:
    """Whatever fails inside, the line says on which file."""

    class Failing:
        def __init__(self, *_: object) -> None:
            pass

        def results(self, _: object) -> NoReturn:
            raise InferenceError("it did not work; try again")

        def close(self) -> None:
            pass

    monkeypatch.setattr("edgevoice.pipeline.Pipeline", Failing)
    names = [str(sample.path) for sample in samples[:2]]
    assert cli.main(["recognize", *names]) == InferenceError.exit_code
    expected = [f"edgevoice: {name}: it did not work; try again" for name in names]
    assert capsys.readouterr().err.splitlines() == expected


def test_every_error_ends_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a command raises on purpose becomes one line and its code."""

    def subclasses(error: type[EdgevoiceError]) -> list[type[EdgevoiceError]]:
        return [error, *(each for sub in error.__subclasses__() for each in subclasses(sub))]

    for error in subclasses(EdgevoiceError):

        def fail(*_: object, kind: type[EdgevoiceError] = error) -> None:
            raise kind("it did not work; try again")

        monkeypatch.setattr(config, "load", fail)
        assert cli.main(["config", "check"]) == error.exit_code
        assert capsys.readouterr().err == "edgevoice: it did not work; try again\n"


def test_a_command_loads_only_what_it_needs() -> None:
    """Each of these takes a tenth of a second or more, and `run` says how NumPy is to be loaded first."""
    heavy = {"numpy", "rich", "yaml", "hassil", "asyncio", "starlette"}
    code = "import sys, edgevoice.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())
