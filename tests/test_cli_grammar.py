"""`edgevoice grammar check|sample|explain` as users run them: what they print, and exit codes."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

import pytest

from edgevoice import cli, cli_grammar
from tests.test_grammar_check import GRAMMAR, with_sentences
from tests.test_match import ROOT

if TYPE_CHECKING:
    from pathlib import Path

HOME = ROOT / "grammars" / "home.yaml"


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_path: Path) -> None:
    """Nobody's configuration, our models, and a terminal of 80 columns."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("EDGEVOICE_CONFIG", raising=False)
    monkeypatch.setenv("EDGEVOICE_MODELS", str(model_path.parent))
    monkeypatch.setenv("COLUMNS", "80")


pytestmark = pytest.mark.usefixtures("nobody")


def written(folder: Path, text: str) -> str:
    path = folder / "grammar.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


class TestCheck:
    """`grammar check`."""

    def test_in_order(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Counts, and ends with the verdict."""
        path = written(tmp_path, GRAMMAR)
        assert cli.main(["grammar", "check", path]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"{path}: language en, 12 sentences"
        assert "TurnOn           6  name 2" in lines
        assert "examples  2 expected, 1 refused: all as written" in lines
        assert lines[-1] == f"{path}: in order"

    def test_errors(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """One a line, with its place, and exit code 1."""
        path = written(tmp_path, with_sentences('"go"', '"go [now]"', lists="lists: {x: {values: [a]}}\n"))
        assert cli.main(["grammar", "check", path]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[-3:] == [
            f'{path}:6: error: "go" is A, and by line 10 B: refused as ambiguous',
            f"{path}:11: warning: no sentence uses the list {{x}}",
            f"{path}: 1 error, 1 warning",
        ]

    @pytest.mark.parametrize(("strict", "code"), [([], 0), (["--strict"], 1)])
    def test_warnings(self, tmp_path: Path, strict: list[str], code: int) -> None:
        """Fail when asked to."""
        path = written(tmp_path, with_sentences('"go"', lists="lists: {x: {values: [a]}}\n"))
        assert cli.main(["grammar", "check", path, *strict]) == code

    def test_unreadable(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Exit code 2, one sentence."""
        assert cli.main(["grammar", "check", written(tmp_path, "language: en\n")]) == 2
        assert "no sentences" in capsys.readouterr().err

    def test_json(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Everything in one object, the number exact however large it is."""
        words = " ".join(f"[word{'abcdefgh'[i % 8]}{'abcdefgh'[i // 8]}]" for i in range(60))
        path = written(tmp_path, with_sentences('"go"', '"go"', f'"{words}"'))
        assert cli.main(["grammar", "check", path, "--json"]) == 1
        report = json.loads(capsys.readouterr().out)
        assert report["sentences"] == 2**60
        assert [intent["sentences"] for intent in report["intents"]] == [1, 1, 2**60 - 1]
        assert report["findings"][0] == {
            "level": "error",
            "kind": "ambiguous",
            "line": 6,
            "text": '"go" is A, and by line 10 B: refused as ambiguous',
        }
        assert report["cost"]["mean_choices"] > 1
        assert report["model"] == "tiny.en"

    def test_many_of_a_kind(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Are cut for people, and counted."""
        rules = "expansion_rules:\n" + "".join(f"  rule{i}: word\n" for i in range(15))
        path = written(tmp_path, with_sentences('"go"', lists=rules))
        assert cli.main(["grammar", "check", path]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert sum(": warning: no sentence uses" in line for line in lines) == cli_grammar.MAX_OF_A_KIND
        assert lines[-2:] == [f"{path}: warning: 5 more of unused; see --json", f"{path}: 15 warnings"]

    def test_without_a_model(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Checks the rest and says so; a model that is asked for must be there."""
        monkeypatch.setenv("EDGEVOICE_MODELS", str(tmp_path))
        path = written(tmp_path, GRAMMAR)
        assert cli.main(["grammar", "check", path]) == 0
        assert "tiny.en is not installed" in capsys.readouterr().out
        assert cli.main(["grammar", "check", path, "--model", "base"]) == 3

    def test_model_of_another_language(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Says nothing about this one's words."""
        path = written(tmp_path, GRAMMAR.replace("language: en", "language: de"))
        assert cli.main(["grammar", "check", path]) == 0
        assert "tiny.en knows only English" in capsys.readouterr().out

    def test_default_is_the_shipped_grammar(self, capsys: pytest.CaptureFixture[str]) -> None:
        """As for other commands."""
        assert cli.main(["grammar", "check"]) == 0
        assert capsys.readouterr().out.startswith(f"{HOME}: language en, ")


class TestSample:
    """`grammar sample`."""

    def test_sentences(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Each a line; all of them if there are fewer."""
        assert cli.main(["grammar", "sample", written(tmp_path, GRAMMAR), "-n", "100"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == len(set(lines)) == 12
        assert "turn off the big one" in lines

    def test_seed(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The same again, and others without it."""
        printed = []
        for seed in (["--seed", "7"], ["--seed", "7"], [], []):
            assert cli.main(["grammar", "sample", *seed]) == 0
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1]
        assert len(set(printed)) == 3
        assert len(printed[0].splitlines()) == 10

    def test_json_of_an_intent(self, capsys: pytest.CaptureFixture[str]) -> None:
        """With slots; free text by the name of its slot."""
        arguments = ["--intent", "HassShoppingListAddItem", "--json", "-n", "3"]
        assert cli.main(["grammar", "sample", str(HOME), *arguments]) == 0
        for line in capsys.readouterr().out.splitlines():
            fields = json.loads(line)
            assert "{item}" in fields["text"]
            assert fields["intent"] == "HassShoppingListAddItem"
            assert list(fields["slots"]) == ["item"]

    def test_unknown_intent(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Names the nearest."""
        assert cli.main(["grammar", "sample", "--intent", "HassTurnOm"]) == 2
        assert "did you mean 'HassTurnOn'?" in capsys.readouterr().err

    @pytest.mark.parametrize("n", ["0", "-1", "many", "1e3", "1000001", "9" * 5000])
    def test_wrong_number(self, n: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Is refused with what is possible."""
        with pytest.raises(SystemExit) as ended:
            cli.main(["grammar", "sample", f"-n={n}"])
        assert ended.value.code == 2
        assert "from 1 to 1000000" in capsys.readouterr().err

    def test_too_many_to_tell_apart(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Draws all the same, and says that it is not quite fair."""
        monkeypatch.setattr("edgevoice.grammar_check.EFFORT", 3)
        assert cli.main(["grammar", "sample", written(tmp_path, GRAMMAR), "-n", "12"]) == 0
        out, err = capsys.readouterr()
        assert len(out.splitlines()) == 12
        assert "more often" in err


class TestExplain:
    """`grammar explain`."""

    def test_understood(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Intent, slots, template."""
        path = written(tmp_path, GRAMMAR)
        assert cli.main(["grammar", "explain", path, "Turn off the tall one."]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "TurnOff",
            '  name = light.big  from "tall one"',
            f"  {path}:10: turn off [the] {{light:name}}",
        ]

    def test_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """How far it gets, and what could follow."""
        assert cli.main(["grammar", "explain", written(tmp_path, GRAMMAR), "turn on teh light"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            'no sentence of the grammar: "turn on" begins one, "teh light" does not go on',
            "could come next: {light}, the",
        ]

    def test_unfinished(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """More words are needed."""
        assert cli.main(["grammar", "explain", written(tmp_path, GRAMMAR), "turn on the big"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            'no sentence of the grammar: "turn on the big" begins one, more must follow',
            "could come next: 1, one",
        ]

    def test_default_grammar(self, capsys: pytest.CaptureFixture[str]) -> None:
        """As for other commands."""
        assert cli.main(["grammar", "explain", "turn on teh light", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["understood"], found["reached"], found["rest"]) == (False, "turn on", "teh light")
        assert "the" in found["next_words"]
        assert {"light", "switch"} <= set(found["next_lists"])

    def test_text_that_is_none(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Whatever bytes the shell passes."""
        for text in ("\udcff", "\0", "", " ", "turn\0on", "x" * 100_000):
            assert cli.main(["grammar", "explain", text]) == 0
            assert "begins like none" in capsys.readouterr().out

    def test_ambiguous(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Both, and what becomes of it."""
        path = written(tmp_path, with_sentences('"go"', '"go"'))
        assert cli.main(["grammar", "explain", path, "go"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "A",
            f"  {path}:6: go",
            "B",
            f"  {path}:10: go",
            "refused as ambiguous: these are several intents",
        ]

    def test_json_of_a_reading(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Names the template."""
        assert cli.main(["grammar", "explain", written(tmp_path, GRAMMAR), "turn on big one", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["understood"]
        assert found["readings"] == [
            {
                "intent": "TurnOn",
                "slots": {"name": "light.big"},
                "slots_raw": {"name": "big one"},
                "line": 6,
                "template": "turn on [the] {light:name}",
            }
        ]


def test_document_shows_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command in docs/grammar-tools.md prints what stands below it."""
    document = (ROOT / "docs" / "grammar-tools.md").read_text(encoding="utf-8")
    (grammar,) = re.findall(r"```yaml\n(.*?)```", document, re.DOTALL)
    (tmp_path / "my-home.yaml").write_text(grammar, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    shown = re.findall(
        r"```\n\$ edgevoice (grammar (?:check|sample|explain)[^\n]*)\n(.*?)```", document, re.DOTALL
    )
    assert len(shown) == 5
    for command, wanted in shown:
        cli.main(shlex.split(command))
        assert capsys.readouterr().out == wanted


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999_999_999, "999,999,999"),
        (1_000_000_000, "1.0e9"),
        (1_449_999_999, "1.4e9"),
        (9_960_000_000, "1.0e10"),
        (2**100, "1.3e30"),
        (10**400, "1.0e400"),
        (2**5000, "1.4e1505"),
    ],
)
def test_readable_number(number: int, text: str) -> None:
    """Exact up to a billion, then two digits."""
    assert cli_grammar.readable(number) == text
