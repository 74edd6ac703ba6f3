"""A grammar file is read as written, or refused at once with file, line and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgevoice import grammar, grammar_file
from edgevoice.errors import GrammarError

HEAD = "language: en\nintents:\n  Act:\n    data:\n      - sentences:\n"
"""Five lines; what sentence() adds is the sixth."""

QUICK_S = 2.0  # idle machine: 0.01 s
TOO_LONG_S = 8.0  # idle machine: 1 s
MEMORY_BYTES = 1 << 30

LOAD_IN_CHILD = """
import resource, sys
from pathlib import Path
from edgevoice import grammar, grammar_file
from edgevoice.errors import GrammarError
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
try:
    grammar.compile_grammar(grammar_file.load(Path(sys.argv[1])))
except GrammarError as error:
    print(error)
"""


def sentence(template: str, rest: str = "") -> str:
    """A grammar with one sentence, on line 6, and more from line 7 on."""
    return f"{HEAD}          - '{template}'\n{rest}"


def context(condition: str) -> str:
    """A grammar whose sentence requires a context."""
    return sentence("on", f"        requires_context: {condition}\n")


def bomb() -> str:
    """Twelve levels of aliases, each nine times the one before."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    return "\n".join([*lines, "language: en", ""])


def rule_chain(length: int) -> str:
    """Rules that each use the next one."""
    lines = [f"  r{i}: <r{i + 1}>" for i in range(length)]
    return sentence("<r0>", "\n".join(["expansion_rules:", *lines, f"  r{length}: lamp", ""]))


# (what is wrong, file, line of the error, words its text must have)
REFUSED = [
    ("empty", "", 1, "key: value"),
    ("only a comment", "# nothing\n", 1, "key: value"),
    ("a list", "- a\n", 1, "key: value"),
    ("no language", "intents: {A: {data: [{sentences: [on]}]}}\n", 1, "language: en"),
    ("no intents", "language: en\n", 1, "no sentences"),
    ("no sentences", "language: en\nintents: {A: {data: []}}\n", 2, "no sentences"),
    ("intent without body", "language: en\nintents:\n  A:\n", 3, "intents.A"),
    ("undefined list", sentence("turn {thing}"), 6, "list {thing} is not defined"),
    ("undefined rule", sentence("turn <thing>"), 6, "rule <thing> is not defined"),
    ("rule uses itself", sentence("<x>", "expansion_rules:\n  x: a <x>\n"), 6, "<x> -> <x>"),
    (
        "rules use each other",
        sentence("<x>", "expansion_rules:\n  x: a <y>\n  y: '[b <x>]'\n"),
        6,
        "<x> -> <y> -> <x>",
    ),
    ("list uses itself", sentence("{x}", "lists:\n  x: {values: ['a {x}', b]}\n"), 6, "{x} -> {x}"),
    ("tab", f"{HEAD}\t  - turn on\n", 6, "no tabs"),
    ("key twice", sentence("on", "language: de\n"), 7, "'language' is given twice"),
    (
        "list twice",
        sentence("on", "lists:\n  x: {values: [a]}\n  x: {values: [b]}\n"),
        9,
        "'x' is given twice",
    ),
    ("unknown key", sentence("on", "expansion_rule: {}\n"), 7, "did you mean 'expansion_rules'"),
    (
        "unknown key of a block",
        "language: en\nintents:\n  A:\n    data:\n      - sentence: [on]\n",
        5,
        "did you mean 'sentences'",
    ),
    ("unlike any key", sentence("on", "zzz: 1\n"), 7, "known: expansion_rules, "),
    ("number as key", "language: en\nintents:\n  1: {data: []}\n", 3, "put it in quotes"),
    ("wildcard as text", sentence("{x}", "lists:\n  x: {wildcard: 'on'}\n"), 8, "'wildcard' must be true or"),
    ("wildcard false", sentence("{x}", "lists:\n  x: {wildcard: false}\n"), 8, "or 'wildcard: true'"),
    (
        "wildcard with values",
        sentence("{x}", "lists:\n  x: {wildcard: true, values: [a]}\n"),
        8,
        "list 'x' needs either 'values', 'range' or 'wildcard: true'",
    ),
    ("context as list", context("[a]"), 7, "requires_context must be"),
    ("context of mappings", context("{a: {value: {}}}"), 7, "a list of texts"),
    ("context misspelt", context("{a: {vale: b}}"), 7, "known: slot, value"),
    ("context to a number", context("{a: {slot: 1}}"), 7, "'slot' must be"),
    ("keywords as text", sentence("on", "        required_keywords: on\n"), 7, "must be a list"),
    (
        "context of a value",
        sentence("{x}", "lists:\n  x:\n    values:\n      - {in: a, context: b}\n"),
        10,
        "context must be",
    ),
    ("ignore_whitespace", sentence("on", "settings: {ignore_whitespace: true}\n"), 7, "'ignore_whitespace'"),
    ("intents as list", "language: en\nintents: [on]\n", 2, "intents must be"),
    ("language as list", "language: [en]\n", 1, "language must be text"),
    (
        "sentences as text",
        "language: en\nintents:\n  A:\n    data:\n      - sentences: turn on\n",
        5,
        "must be a list",
    ),
    ("slots as list", sentence("on", "        slots: [a]\n"), 7, "slots must be"),
    ("rule as list", sentence("on", "expansion_rules: {x: [a]}\n"), 7, "expansion_rules.x must be text"),
    ("values as text", sentence("on", "lists: {x: {values: a}}\n"), 7, "must be a list"),
    ("value as list", sentence("on", "lists: {x: {values: [[a]]}}\n"), 7, "must be text"),
    ("bare on", sentence("on", "lists:\n  x:\n    values:\n      - on\n"), 10, "in quotes"),
    ("value without in", sentence("on", "lists: {x: {values: [{out: a}]}}\n"), 7, "needs 'in'"),
    ("no values", sentence("on", "lists: {x: {values: []}}\n"), 7, "is empty"),
    (
        "neither kind of list",
        sentence("on", "lists: {x: {}}\n"),
        7,
        "either 'values', 'range' or",
    ),
    ("huge range", sentence("{x}", "lists: {x: {range: {from: 0, to: 1000000000}}}\n"), 7, "larger 'step'"),
    (
        "range backwards",
        sentence("{x}", "lists: {x: {range: {from: 3, to: 2}}}\n"),
        7,
        "must not exceed",
    ),
    ("range without from", sentence("on", "lists: {x: {range: {to: 2}}}\n"), 7, "'from' must be a whole"),
    ("range step 0", sentence("on", "lists: {x: {range: {from: 0, to: 2, step: 0}}}\n"), 7, "positive"),
    (
        "range in nothing",
        sentence("on", "lists: {x: {range: {from: 0, to: 2, digits: false, words: false}}}\n"),
        7,
        "both be false",
    ),
    (
        "fractions unknown",
        sentence("on", "lists: {x: {range: {from: 0, to: 2, fractions: thirds}}}\n"),
        7,
        "halves, tenths",
    ),
    (
        "no number words",
        sentence("{x}", "lists: {x: {range: {from: 0, to: 2, words_language: xx}}}\n"),
        6,
        "no number words",
    ),
    (
        "number too large for words",
        sentence("{x}", f"lists: {{x: {{range: {{from: {10**23}, to: {10**23}}}}}}}\n"),
        7,
        "",
    ),
    ("inline range backwards", sentence("{9..1:x}"), 6, ""),
    ("inline range step 0", sentence("{1..9,0:x}"), 6, ""),
    ("inline range without slot", sentence("{1..9}"), 6, "not defined"),
    ("permutation too long", sentence("(a;b;c;d;e;f)"), 6, "at most 5"),
    (
        "list value that can be empty",
        sentence("{x}", "lists:\n  x:\n    values: [a, '[milk]']\n"),
        9,
        "'[milk]' can be empty",
    ),
    ("list value of dots", sentence("{x}", "lists: {x: {values: ['...']}}\n"), 7, "can be empty"),
    (
        "list value that can be empty by a rule",
        sentence("a {x}", "lists: {x: {values: [<r>]}}\nexpansion_rules: {r: '<s>', s: '[b] [c|d]'}\n"),
        6,
        "list 'x' has a value that can be empty",
    ),
    *(
        (
            f"multiplier {value}",
            sentence("{x}", f"lists: {{x: {{range: {{from: 0, to: 2, multiplier: {value}}}}}}}\n"),
            7,
            "'multiplier' must be a number",
        )
        for value in (".nan", ".inf", "-.inf", "1.0e+300")
    ),
    ("language of 300 characters", f"language: {'a' * 300}\n", 1, "no language code"),
    ("language that is a path", "language: ../en\n", 1, "no language code"),
    (
        "language of number words",
        sentence("{x}", f"lists: {{x: {{range: {{from: 0, to: 2, words_language: {'e' * 300}}}}}}}\n"),
        7,
        "no language code",
    ),
    (
        "negative fraction without words",
        sentence(
            "{x}",
            "lists: {x: {range: {from: -2, to: 2, fractions: halves, digits: false, words_language: zh}}}\n",
        ),
        6,
        "has no words in language 'zh'",
    ),
    ("expected without intent", sentence("on", "expected: [{say: a}]\n"), 7, "needs 'say' and 'intent'"),
    ("refused as text", sentence("on", "refused: off\n"), 7, "must be a list"),
    ("metadata as list", sentence("on", "        metadata: [a]\n"), 7, "metadata must be"),
    (
        "confidence of a block out of range",
        sentence("on", "        metadata: {min_confidence: 1.5}\n"),
        7,
        "'min_confidence' must be a number from 0 to 1, got 1.5",
    ),
    (
        "confidence of an intent as text",
        "language: en\nintents:\n  A:\n    metadata: {min_confidence: high}\n    data: []\n",
        4,
        "'min_confidence' must be a number from 0 to 1, got 'high'",
    ),
    ("confidence true", sentence("on", "        metadata: {min_confidence: true}\n"), 7, "got True"),
    ("confidence nan", sentence("on", "        metadata: {min_confidence: .nan}\n"), 7, "got nan"),
    ("confirm as text", sentence("on", "        metadata: {confirm: 'yes'}\n"), 7, "'confirm' must be true"),
    ("skip words as text", sentence("on", "skip_words: please\n"), 7, "must be a list"),
    ("undefined alias", "language: *x\n", 1, "not valid YAML"),
    ("file that holds itself", "language: en\nintents: &a\n  A: *a\n", 2, ""),
    ("Python in YAML", "language: !!python/object/apply:os.system ['true']\n", 1, ""),
    ("two documents", "language: en\n---\nlanguage: de\n", 2, "not valid YAML"),
    ("impossible date", "language: 2026-99-99\n", 1, ""),
    ("number of 5000 digits", f"language: en\nintents: 1{'0' * 5000}\n", 2, ""),
    ("rules 900 deep", rule_chain(900), 6, ""),
    *(
        (f"template {template}", sentence(template), 6, "no sentence template")
        for template in (
            "turn (on", "[", "turn on)", "a]", "{", "<", "}", "{}", "<>", "()", "[]", "a|b;c", "a\\", "(on]",
            "[" * 3000,
        )
    ),
    ("blank sentence", sentence("  "), 6, "empty sentence"),
]  # fmt: skip

# Files that a careless reader would hang on, or crash the process with.
HOSTILE = [
    ("aliases unfold to 10^12 values", bomb()),
    ("brackets 100,000 deep", f"language: en\nintents: {'[' * 100_000}\n"),
    ("mappings 3,000 deep", f"language: en\nintents: {'{a: ' * 3000}{'}' * 3000}\n"),
    ("line of 1 MB", sentence("turn on " * 125_000)),
    ("line of 1 MB, 250,000 lists", sentence("{x} " * 250_000)),
    ("line of 1 MB, 300,000 alternatives", sentence("|".join(["ab"] * 300_000))),
    ("line of 1 MB, opening", sentence("(" * 1_000_000)),
    ("inline range of 10^9", sentence("{0..1000000000:x}")),
    ("permutations in permutations", sentence("((((a;b;c;d;e);b;c;d;e);b;c;d;e);b;c;d;e)")),
]


def load(folder: Path, text: str | bytes) -> grammar.CompiledGrammar:
    path = folder / "grammar.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return grammar.compile_grammar(grammar_file.load(path))


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """A device that never ends and a pipe nobody writes to are refused at once."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (Path("/dev/zero"), pipe):
        with pytest.raises(GrammarError, match=f"^{path}: cannot be read .*regular file"):
            grammar_file.load(path)


@pytest.mark.parametrize("code", ["en", "de-CH", "pt_BR", "sr-Latn", "zh-Hant-TW", "es-419", "yue"])
def test_language_codes(tmp_path: Path, code: str) -> None:
    """Codes of languages with script and country are taken as they are."""
    text = sentence("on").replace("language: en", f"language: {code}")
    assert load(tmp_path, text).file.language == code


@pytest.mark.parametrize(
    ("text", "line", "words"), [case[1:] for case in REFUSED], ids=[case[0][:60] for case in REFUSED]
)
def test_bad_file_is_refused_with_its_place(tmp_path: Path, text: str, line: int, words: str) -> None:
    """The error names file and line, says what is wrong in a readable length, and comes quickly."""
    started_s = time.monotonic()
    with pytest.raises(GrammarError) as caught:
        load(tmp_path, text)
    assert time.monotonic() - started_s < QUICK_S
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'grammar.yaml'}:{line}: ")
    assert words in message
    assert len(message) < len(str(tmp_path)) + 1000
    assert "\n" not in message


@pytest.mark.parametrize("text", [text for _, text in HOSTILE], ids=[name for name, _ in HOSTILE])
def test_hostile_file_is_read_or_refused_within_bounds(tmp_path: Path, text: str) -> None:
    """Neither time nor memory runs away and the process survives."""
    path = tmp_path / "grammar.yaml"
    path.write_text(text, encoding="utf-8")
    child = subprocess.run(
        [sys.executable, "-c", LOAD_IN_CHILD, path, str(MEMORY_BYTES)],
        capture_output=True,
        timeout=TOO_LONG_S,
        check=False,
    )
    assert (child.returncode, child.stderr.decode()[-500:]) == (0, "")
    said = child.stdout.decode()
    assert not said or said.startswith(str(path))
    assert len(said) < 1000 + len(str(path))


def test_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    """Bytes of another encoding are found on their line."""
    with pytest.raises(GrammarError, match=r"grammar.yaml:2: not UTF-8"):
        load(tmp_path, b"language: de\n# K\xfcche\n")


@pytest.mark.parametrize("character", ["\0", "\x07"])
def test_control_character_is_refused(tmp_path: Path, character: str) -> None:
    """YAML allows none."""
    with pytest.raises(GrammarError, match=r"grammar\.yaml.*not valid YAML"):
        load(tmp_path, f"language: e{character}n\n")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """The error names the file and tells to check the path."""
    with pytest.raises(GrammarError, match=r"absent\.yaml: cannot be read .*check the path"):
        grammar_file.load(tmp_path / "absent.yaml")


def test_directory_is_refused(tmp_path: Path) -> None:
    """A folder in place of a file is an error like any other."""
    with pytest.raises(GrammarError, match="cannot be read"):
        grammar_file.load(tmp_path)


def test_file_too_large_is_refused_unread(tmp_path: Path) -> None:
    """Nothing above the limit is read into memory."""
    path = tmp_path / "grammar.yaml"
    with path.open("wb") as file:
        file.truncate(grammar_file.MAX_FILE_BYTES + 1)
    started_s = time.monotonic()
    with pytest.raises(GrammarError, match="split it"):
        grammar_file.load(path)
    assert time.monotonic() - started_s < QUICK_S


def test_file_is_read_as_written(tmp_path: Path) -> None:
    """Intents, blocks, fixed slots, examples and their lines arrive; a byte order mark does not matter."""
    path = tmp_path / "grammar.yaml"
    path.write_text(
        "\ufeff"
        + sentence(
            "turn on {lamp:name}",
            "        slots: {domain: light}\n"
            "  Other:\n    data:\n      - sentences: [hello]\n"
            "lists:\n  lamp: {values: [desk lamp, {in: floor lamp, out: 2}]}\n"
            "skip_words: [please]\n"
            "expected:\n  - {say: hello, intent: Other}\n"
            "refused:\n  - goodbye\n",
        ),
        encoding="utf-8",
    )
    file = grammar_file.load(path)
    assert (file.language, file.intents, file.skip_words) == ("en", ("Act", "Other"), ("please",))
    assert file.blocks[0].slots == {"domain": "light"}
    assert [template.line for block in file.blocks for template in block.templates] == [6, 10]
    assert [(example.say, example.intent, example.line) for example in file.examples] == [
        ("hello", "Other", 15),
        ("goodbye", None, 17),
    ]


def test_metadata_of_intent_and_block(tmp_path: Path) -> None:
    """A block's own goes before its intent's; what hassil's users keep there is no concern of ours."""
    compiled = load(
        tmp_path,
        "language: en\nintents:\n  A:\n    metadata: {min_confidence: 0.8, confirm: true, x: 1}\n    data:\n"
        "      - {sentences: [one]}\n"
        "      - {sentences: [two], metadata: {min_confidence: 1, confirm: false, y: [2]}}\n"
        "  B: {data: [{sentences: [three]}, {sentences: [four], metadata: {confirm: true}}]}\n",
    )
    assert [(block.min_confidence, block.confirm) for block in compiled.blocks] == [
        (0.8, True),
        (1, False),
        (None, False),
        (None, True),
    ]


def test_a_text_in_place_of_the_file() -> None:
    """It need not be written first; errors name the file, and the column where YAML tells it."""
    path = Path("absent.yaml")
    assert grammar_file.load(path, text=sentence("on")).intents == ("Act",)
    with pytest.raises(GrammarError, match=r"absent\.yaml:3: not valid YAML") as caught:
        grammar_file.load(path, text="language: en\nintents: [\n  a: b: c\n]")
    assert caught.value.column is not None
    with pytest.raises(GrammarError, match=r"absent\.yaml:6: ") as caught:
        grammar_file.load(path, text=sentence("on ["))
    assert caught.value.column is None
