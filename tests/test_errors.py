"""The tree of errors: one base, one exit code each, all of them documented."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from edgevoice import cli, errors
from edgevoice.errors import EdgevoiceError

CLASSES = [
    each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, EdgevoiceError)
]
TREE = errors.__doc__ or ""
PACKAGE = Path(errors.__file__).parent


@pytest.mark.parametrize("error", CLASSES)
def test_exit_code_is_the_documented_one(error: type[EdgevoiceError]) -> None:
    """The drawn tree names each error with the code it ends a command with, 1 to 5."""
    line = re.search(rf"\b{error.__name__}(?: \(ValueError\))?\s+(\d|exit code)\b", TREE)
    assert line, f"{error.__name__} is not in the tree"
    assert error is EdgevoiceError or int(line[1]) == error.exit_code
    assert 1 <= error.exit_code <= 5


@pytest.mark.parametrize("error", CLASSES)
def test_builtin_base_is_the_documented_one(error: type[EdgevoiceError]) -> None:
    """An error that the tree shows as a ValueError can be caught as one."""
    drawn = re.search(rf"\b{error.__name__} \(ValueError\)", TREE) is not None
    assert issubclass(error, ValueError) == drawn
    assert not issubclass(error, OSError)


def test_tree_draws_no_error_that_does_not_exist() -> None:
    """Every name in the tree is a class."""
    drawn = set(re.findall(r"\w+Error\b", TREE.partition("A message says")[0])) - {"ValueError"}
    assert drawn == {error.__name__ for error in CLASSES}


def test_every_exit_code_is_explained_in_the_help() -> None:
    """What a command can end with stands at the end of its help."""
    explained = set(re.findall(r"\b(\d) [a-z]", cli.EXIT_CODES))
    assert explained == {"0"} | {str(error.exit_code) for error in CLASSES}


def test_text_is_the_message() -> None:
    """What is given is what a user reads."""
    assert str(errors.ModelCorruptError("the file is cut off")) == "the file is cut off"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_no_error_is_swallowed(path: Path) -> None:
    """No handler in the package catches everything and does nothing, and input is never checked by assert."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), f"{path.name}:{node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path.name}:{node.lineno}: bare except"
            broad = isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}
            silent = all(isinstance(each, ast.Pass) for each in node.body)
            assert not (broad and silent), f"{path.name}:{node.lineno}"
