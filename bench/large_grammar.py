"""How much a large grammar costs: 2,000 names in 40 templates, with numbers.

    .venv/bin/python bench/large_grammar.py [--names N] [--templates N] [--rounds N] [--profile]

Prints the best of several rounds, each in a process of its own: processor time of reading the file, compiling
it, opening it natively and reading a sentence, and how much the memory of the process grew (modules aside).
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import json
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edgevoice import grammar, grammar_file, match, native

SENTENCE = "Verb39 the gadget 1999 of floor 4 to 57%."


def main() -> None:
    """Measure, or with --child be what is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--names", type=int, default=2000)
    parser.add_argument("--templates", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="where the time goes")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.yaml"
        path.write_text(house(options.names, options.templates), encoding="utf-8")
        if options.profile:
            profile(path)
            return
        rounds = [
            json.loads(subprocess.check_output([sys.executable, __file__, "--child", str(path)]))  # noqa: S603
            for _ in range(options.rounds)
        ]
    for key in rounds[0]:
        print(f"{key:16} {min(found[key] for found in rounds):9.2f}")


def house(n_names: int, n_templates: int) -> str:
    """Return a grammar of many device names, each of which fits each of many templates, and numbers."""
    names = "\n".join(f"      - gadget {i} of floor {i % 7}" for i in range(n_names))
    templates = "\n".join(
        f'          - "verb{i} [the|my] {{name}} to {{level}}[%| percent]"' for i in range(n_templates)
    )
    return (
        "language: en\nskip_words: [please, could you]\n"
        f"intents:\n  Act:\n    data:\n      - sentences:\n{templates}\n"
        f"lists:\n  name:\n    values:\n{names}\n  level:\n    range: {{from: 0, to: 100}}\n"
        "  heat:\n    range: {from: -20, to: 40, fractions: halves}\n"
    )


def measure(path: Path) -> dict[str, float]:
    """Return milliseconds of each step and the megabytes they took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    marks = [time.process_time()]
    file = grammar_file.load(path)
    marks.append(time.process_time())
    compiled = grammar.compile_grammar(file)
    marks.append(time.process_time())
    opened = native.Grammar(compiled)
    marks.append(time.process_time())
    (meaning,) = match.interpret(opened, SENTENCE)
    marks.append(time.process_time())
    (meaning,) = match.interpret(opened, SENTENCE)
    marks.append(time.process_time())
    if meaning.slots.get("level") != 57:
        raise SystemExit(f"{SENTENCE!r} was understood as {meaning}")
    steps = ("load ms", "compile ms", "native open ms", "first match ms", "match ms")
    found = dict(zip(steps, ((b - a) * 1000 for a, b in itertools.pairwise(marks)), strict=True))
    found["ready ms"] = (marks[3] - marks[0]) * 1000
    found["memory MB"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    found["arcs"] = len(compiled.arcs)
    return found


def profile(path: Path) -> None:
    """Print which functions of reading and compiling take the time."""
    profiler = cProfile.Profile()
    profiler.enable()
    grammar.compile_grammar(grammar_file.load(path))
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
