"""Write docs/whisper-api.md: what edgevoice.whisper offers, from its signatures and docstrings.

    python scripts/api_reference.py             write it
    python scripts/api_reference.py --check     exit code 1 if it is not what would be written

Docstrings behind fields are read from the source, as Python does not keep them.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import itertools
import re
import sys
import textwrap
from pathlib import Path
from typing import Any, Final

from edgevoice import whisper

FILE: Final = Path(__file__).parent.parent / "docs" / "whisper-api.md"
_LINE: Final = 100
_SECTIONS: Final = ("Args", "Returns", "Raises", "Yields")


def text() -> str:
    """Return the document."""
    parts = [
        "# edgevoice.whisper: reference",
        "Made by `scripts/api_reference.py` from the docstrings; [whisper.md](whisper.md) has examples.",
    ]
    names = sorted(whisper.__all__, key=lambda name: (not name[0].isupper(), name.lower()))
    parts.append("\n".join(f"- [`{name}`](#{name.lower()})" for name in names))
    for name in names:
        parts += [f"## {name}", *_described(name, getattr(whisper, name))]
    return "\n\n".join(parts) + "\n"


def _described(name: str, value: Any) -> list[str]:
    if inspect.isclass(value):
        return _class(value)
    if inspect.isfunction(value):
        return [_signature(name, value), *_docstring(value)]
    return [f"```\n{name} = {value!r}\n```", *_constant_docstring(name)]


def _class(cls: type) -> list[str]:
    # Whose signature is only that of dataclasses is shown by its fields.
    own_init = not dataclasses.is_dataclass(cls) and "__init__" in vars(cls)
    parts = [_signature(cls.__name__, cls)] if own_init else []
    parts += _docstring(cls)
    fields = _fields(cls)
    if fields:
        rows = [f"| `{name}` | {_cell(kind)} | {_text_cell(docs)} |" for name, kind, docs in fields]
        parts.append("\n".join(["| field | type and default | |", "|---|---|---|", *rows]))
    for name, member in _members(cls):
        if isinstance(member, property) or not callable(_function(member)):
            getter = getattr(member, "fget", None) or getattr(member, "func", None)
            returns = inspect.signature(getter).return_annotation if getter else ""
            parts += [f"### {cls.__name__}.{name}: `{returns}`", *_docstring(getter)]
        else:
            function = _function(member)
            parts += [f"### {cls.__name__}.{name}", _signature(name, function), *_docstring(function)]
    return parts


def _members(cls: type) -> list[tuple[str, Any]]:
    """Return public methods and properties with a docstring, those of our base classes included, in order."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.split(".")[0] != "edgevoice":
            continue
        for name, member in vars(base).items():
            documented = name == "__iter__" or not name.startswith("_")
            function = getattr(member, "fget", None) or getattr(member, "func", None) or _function(member)
            if documented and getattr(function, "__doc__", None) and not isinstance(member, (int, str)):
                found[name] = member
    return [(name, member) for name, member in found.items() if not dataclasses.is_dataclass(member)]


def _function(member: Any) -> Any:
    return member.__func__ if isinstance(member, (staticmethod, classmethod)) else member


def _fields(cls: type) -> list[tuple[str, str, str]]:
    """Return annotated fields and attributes that __init__ sets, those of our base classes first."""
    fields: dict[str, tuple[str, str, str]] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.split(".")[0] != "edgevoice":
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(tree, ast.ClassDef)  # noqa: S101 - the source of a class
        methods = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        for body in (tree.body, *(node.body for node in methods)):
            for node, following in zip(body, [*body[1:], None], strict=True):
                target, kind = _target(node, attribute=body is not tree.body)
                docs = _string(following)
                if target and not target.startswith("_") and (docs or body is tree.body):
                    fields[target] = (target, kind, docs)
    return list(fields.values())


def _target(node: ast.stmt, *, attribute: bool) -> tuple[str | None, str]:
    target: ast.expr
    if isinstance(node, ast.AnnAssign):
        target = node.target
        default = f" = {ast.unparse(node.value)}" if node.value else ""
        kind = f"`{ast.unparse(node.annotation)}{default}`"
    elif isinstance(node, ast.Assign) and attribute:
        target, kind = node.targets[0], ""
    else:
        return None, ""
    if isinstance(target, ast.Name) and not attribute:
        return target.id, kind
    if isinstance(target, ast.Attribute) and attribute:
        return target.attr, kind
    return None, ""


def _constant_docstring(name: str) -> list[str]:
    for module in (
        sys.modules[each] for each in sorted(sys.modules) if each.startswith("edgevoice.whisper.")
    ):
        body = ast.parse(inspect.getsource(module)).body
        for node, following in itertools.pairwise(body):
            if _target(node, attribute=False)[0] == name:
                return [_string(following)]
    return []


def _string(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return inspect.cleandoc(str(node.value.value))
    return ""


def _signature(name: str, value: Any) -> str:
    signature = inspect.signature(value)
    kept = [each for each in signature.parameters.values() if each.name not in {"self", "cls"}]
    shown: list[str] = []
    star = False
    for each in kept:
        if each.kind is each.KEYWORD_ONLY and not star:
            shown, star = [*shown, "*"], True
        default = "" if each.default is each.empty else f" = {each.default!r}"
        shown.append(f"{each.name}: {_plain(each.annotation)}{default}")
    returns = signature.return_annotation
    end = "" if returns is signature.empty or inspect.isclass(value) else f" -> {_plain(returns)}"
    line = f"{name}({', '.join(shown)}){end}"
    if len(line) > _LINE:
        line = "\n".join([f"{name}(", *(f"    {each}," for each in shown), f"){end}"])
    return f"```\n{line}\n```"


def _plain(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _docstring(value: Any) -> list[str]:
    """Turn sections as "Args:" into lists."""
    parts: list[str] = []
    section = ""
    for paragraph in re.split(r"\n\s*\n", inspect.getdoc(value) or ""):
        heading, _, rest = paragraph.partition("\n")
        if heading.rstrip(":") in _SECTIONS and heading.endswith(":"):
            section, block = heading.rstrip(":"), textwrap.dedent(rest)
        elif section:
            block = textwrap.dedent(paragraph)
        else:
            parts.append(paragraph if paragraph.startswith(" ") else " ".join(paragraph.split("\n")))
            continue
        items: list[str] = []
        for line in block.splitlines():
            if line.startswith(" ") and items:
                items[-1] += " " + line.strip()
            else:
                items.append(line.strip())
        if section == "Returns":
            parts.append("Returns: " + " ".join(items))
        else:
            parts.append(f"{section}:\n\n" + "\n".join(f"- {_named(item)}" for item in items))
    return parts


def _named(item: str) -> str:
    names, colon, rest = item.partition(": ")
    if colon and re.fullmatch(r"[\w, ]+", names):
        return ", ".join(f"`{name.strip()}`" for name in names.split(",")) + f": {rest}"
    return item


def _cell(kind: str) -> str:
    return kind.replace("|", "\\|")


def _text_cell(docs: str) -> str:
    return " ".join(docs.split()).replace("|", "\\|")


def main() -> int:
    """Write or check the document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        return int(not FILE.is_file() or FILE.read_text(encoding="utf-8") != text())
    FILE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
