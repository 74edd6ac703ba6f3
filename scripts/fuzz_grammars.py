"""Break the grammars that come with edgevoice, and see that each is read, or refused with a reason.

    .venv/bin/python scripts/fuzz_grammars.py [--seconds N] [--seed N]

Values, keys and templates are exchanged, repeated, cut and filled with what the syntax is made of, and lines
and bytes of the text likewise. What is not refused is compiled, opened and asked for sentences. Prints how
many there were and how much of the reader and the compiler they reached; ends with the file and an error at
the first that ends otherwise or takes too long.
"""

from __future__ import annotations

import argparse
import copy
import random
import signal
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn

import coverage
import yaml

ROOT: Final = Path(__file__).parents[1]
SHIPPED: Final = sorted((ROOT / "grammars").glob("*.yaml"))
REACHED: Final = [
    str(ROOT / "edgevoice" / f"{name}.py")
    for name in ("grammar_file", "grammar", "contexts", "free_text", "numbers", "surface", "match")
]
"""Whose lines are counted."""

LONGEST_S: Final = 10
"""The largest grammar that is not refused takes 2 seconds; the rest is for a busy machine."""

PIECES: Final = (
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "<",
        ">",
        "|",
        ";",
        ":",
        "@",
        "\\",
        "..",
        ",",
        " ",
        "-",
        "%",
        "°",
        "'",
        '"',
    ),
    *(
        "{area}",
        "{name:x}",
        "{area:@y}",
        "{@area}",
        "{0..9}",
        "{5..1,2:n}",
        "<the>",
        "<turn>",
        "[a|b]",
        "(a;b;c)",
    ),
    *("İ", "ß", "ﬀ", "\u0301", "\u202e", "\ud800", "\x00", "\x1b", "\ufeff", "9" * 30, "a" * 300),
)
VALUES: Final[tuple[Any, ...]] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1.5,
        float("nan"),
        float("inf"),
        10**20,
        "",
        " ",
        "on",
        "x",
        [],
        {},
        [[]],
        {"": ""},
    ),
    *(
        [None],
        {"in": "a"},
        {"in": "a", "out": 1},
        {"in": "[a]"},
        {"wildcard": True},
        {"values": ["a", "b (c|d)"]},
    ),
    *(
        {"range": {"from": 0, "to": 5}},
        {"range": {"from": -3, "to": 2, "step": 0}},
        {"slot": True},
        {"value": ["a"]},
    ),
    *(
        {"range": {"from": 0, "to": 10**9}},
        {"range": {"from": 0, "to": 9, "fractions": "tenths", "multiplier": -1}},
    ),
)
KEYS: Final = (
    *(
        "language",
        "intents",
        "lists",
        "expansion_rules",
        "skip_words",
        "settings",
        "expected",
        "refused",
        "data",
    ),
    *(
        "sentences",
        "slots",
        "requires_context",
        "excludes_context",
        "required_keywords",
        "metadata",
        "response",
    ),
    *(
        "values",
        "range",
        "wildcard",
        "in",
        "out",
        "context",
        "type",
        "from",
        "to",
        "step",
        "multiplier",
        "fractions",
    ),
    *("digits", "words", "words_language", "min_confidence", "confirm", "say", "intent", "ignore_whitespace"),
)


def main() -> int:
    """Try mutants until the time is over."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, too_long)
    measured = coverage.Coverage(data_file=None, include=REACHED, messages=False)
    measured.start()
    choice = random.Random(options.seed)  # noqa: S311 - no secret depends on it
    counts = {"read": 0, "refused": 0}
    ends_s = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant.yaml"
        while time.monotonic() < ends_s:
            path.write_bytes(mutant(choice))
            signal.alarm(LONGEST_S)
            try:
                counts[outcome(path)] += 1
            except BaseException:
                print(path.read_bytes()[:20_000].decode("utf-8", "backslashreplace"))
                raise
            signal.alarm(0)
    measured.stop()
    lines = 0
    missed = 0
    for name in REACHED:
        _, statements, _, missing, _ = measured.analysis2(name)
        lines += len(statements)
        missed += len(missing)
    print(
        f"{counts['read']} read, {counts['refused']} refused, nothing else; {lines - missed} of {lines} "
        f"lines reached ({100 * (lines - missed) / lines:.0f} %)"
    )
    return 0


def too_long(_signal: int, _frame: object) -> NoReturn:
    """End a mutant that takes too long."""
    raise TimeoutError(f"more than {LONGEST_S} s")


def outcome(path: Path) -> str:
    """Say what became of a file; any other error is a mistake of ours."""
    from edgevoice import grammar, grammar_file, match  # noqa: PLC0415 - measured from here on
    from edgevoice.errors import GrammarError  # noqa: PLC0415
    from edgevoice.native import Grammar  # noqa: PLC0415

    try:
        file = grammar_file.load(path, {"area": "kitchen"})
        with Grammar(grammar.compile_grammar(file)) as opened:
            for example in file.examples[:5]:
                match.interpret(opened, example.say)
    except GrammarError as error:
        if not str(error) or len(str(error)) > 2000 + len(str(path)):
            raise AssertionError(f"{len(str(error))} characters in a message") from error
        return "refused"
    return "read"


def mutant(choice: random.Random) -> bytes:
    """Return the text of a broken grammar."""
    path = choice.choice(SHIPPED)
    text = path.read_text(encoding="utf-8")
    if choice.random() < 0.8:
        tree = part(shipped(path), choice)
        for _ in range(choice.choice((1, 1, 1, 2, 4))):
            tree = changed(tree, choice)
        try:
            text = yaml.dump(tree, allow_unicode=True, sort_keys=False, Dumper=yaml.CSafeDumper)
        except (
            yaml.YAMLError,
            UnicodeEncodeError,
        ):  # an inner value that YAML cannot write, such as a lone surrogate
            text = repr(tree)
    data = text.encode("utf-8", "surrogatepass")
    if choice.random() < 0.5:
        for _ in range(choice.choice((1, 2, 5))):
            data = scrambled(data, choice)
    return data


@cache
def shipped(path: Path) -> dict[str, Any]:
    """Return what a grammar holds."""
    tree: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return tree


def part(tree: dict[str, Any], choice: random.Random) -> dict[str, Any]:
    """Return a copy with a few of the intents and examples, so that many are tried in a second."""
    intents = choice.sample(sorted(tree["intents"]), min(len(tree["intents"]), choice.randint(1, 3)))
    few = {"intents": {name: tree["intents"][name] for name in intents}}
    few |= {key: tree[key][:3] for key in ("expected", "refused") if key in tree}
    return copy.deepcopy(tree | few)


def changed(tree: Any, choice: random.Random) -> Any:
    """Change one place of a tree."""
    places: list[tuple[Any, Any]] = []
    waiting = [tree]
    seen: set[int] = set()  # it may hold itself
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        places += [(node, key) for key in keys]
        waiting += [node[key] for key in keys]
    if not places:
        return tree
    parent, key = choice.choice(places)
    value = parent[key]
    what = choice.randrange(6)
    if what == 0:
        parent[key] = choice.choice(VALUES)
    elif what == 1:
        other, at = choice.choice(places)
        parent[key] = other[at]  # may hold its parent: YAML writes an alias
    elif what == 2 and isinstance(parent, dict):
        parent[choice.choice(KEYS)] = parent.pop(key)
    elif what == 3 and isinstance(parent, list):
        parent.insert(choice.randrange(len(parent) + 1), value)
    elif isinstance(value, str):
        at = choice.randrange(len(value) + 1)
        parent[key] = value[:at] + choice.choice(PIECES) + value[at + choice.randrange(3) :]
    elif isinstance(parent, dict):
        parent[choice.choice(KEYS)] = choice.choice(VALUES)
    return tree


def scrambled(data: bytes, choice: random.Random) -> bytes:
    """Change one place of a text."""
    at, end = sorted(choice.choices(range(len(data) + 1), k=2))
    end = min(end, at + choice.choice((1, 3, 40, 400)))
    piece = choice.choice(
        (b"", data[at:end] * 2, choice.choice(PIECES).encode("utf-8", "surrogatepass"), b"\xff\n")
    )
    return data[:at] + piece + data[end:]


if __name__ == "__main__":
    sys.exit(main())
