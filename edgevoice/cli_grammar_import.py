"""The command `edgevoice grammar import`: sentences that people already have, as a grammar file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgevoice.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgevoice.grammar_writer import Draft

    AddCommand = Callable[..., argparse.ArgumentParser]


def add_commands(group: argparse._SubParsersAction[argparse.ArgumentParser], add: AddCommand) -> None:
    """Declare the commands in the group `grammar import`."""
    text = "Home Assistant's sentences, for your entities, areas and floors"
    sub = add(group, "home-assistant", home_assistant, text)
    names = sub.add_mutually_exclusive_group()
    names.add_argument(
        "--entities", type=Path, metavar="FILE", help="your entities, areas and floors (docs/grammars.md)"
    )
    names.add_argument("--from-ha", metavar="URL", help="ask a running Home Assistant for them")
    sub.add_argument(
        "--token-file", type=Path, metavar="FILE", help="holds an access token, which --from-ha needs"
    )
    sub.add_argument(
        "--source",
        type=Path,
        metavar="DIR",
        help="sentences from a checkout of the intents repository, or from custom_sentences/LANGUAGE "
        "(default: the package home-assistant-intents)",
    )
    sub.add_argument(
        "--custom", type=Path, metavar="DIR", help="custom sentences that are added, as Home Assistant does"
    )
    sub.add_argument(
        "--intent", action="append", default=[], metavar="NAME", help="only this one; can be repeated"
    )
    _add_output(sub)

    sub = add(group, "rhasspy", rhasspy, "Rhasspy's sentences.ini with its slot files")
    sub.add_argument("file", type=Path, metavar="FILE", help="sentences.ini")
    sub.add_argument("--slots", type=Path, metavar="DIR", help="slot files (default: slots, beside FILE)")
    _add_output(sub)

    sub = add(group, "sentences", sentences, "plain sentences, one a line")
    sub.add_argument("file", type=Path, metavar="FILE", help="blank lines and # comments are skipped")
    sub.add_argument(
        "--intent", metavar="NAME", help="of every sentence (default: each line is 'Intent: sentence')"
    )
    _add_output(sub)


def home_assistant(options: argparse.Namespace) -> None:
    """Import Home Assistant's sentences."""
    from edgevoice import entities, home_assistant_api, import_home_assistant  # noqa: PLC0415

    if bool(options.from_ha) != bool(options.token_file):
        raise UsageError("--from-ha and --token-file belong together; give both")
    source = options.source
    found = (
        import_home_assistant.folder_sentences(source, options.language)
        if source
        else import_home_assistant.package_sentences(options.language)
    )
    if options.custom:
        custom = import_home_assistant.folder_sentences(options.custom, options.language, complete=False)
        found.add(custom)
        found.origin += f", and {custom.origin}"
    home = None
    if options.entities:
        home = entities.read_entities(options.entities)
    elif options.from_ha:
        home = home_assistant_api.read_home(
            options.from_ha, home_assistant_api.read_token(options.token_file)
        )
    _write(import_home_assistant.draft(found, home, intents=tuple(options.intent)), options)


def rhasspy(options: argparse.Namespace) -> None:
    """Import Rhasspy's sentences."""
    from edgevoice import import_rhasspy  # noqa: PLC0415 - each command loads only what it needs

    _write(import_rhasspy.draft(options.file, options.slots, options.language), options)


def sentences(options: argparse.Namespace) -> None:
    """Import plain sentences."""
    from edgevoice import import_sentences  # noqa: PLC0415 - each command loads only what it needs

    _write(import_sentences.draft(options.file, options.intent, options.language), options)


def _write(draft: Draft, options: argparse.Namespace) -> None:
    from edgevoice import grammar_writer  # noqa: PLC0415 - each command loads only what it needs

    text = grammar_writer.render(draft)
    if options.out:
        grammar_writer.write(text, options.out, force=options.force)
    else:
        print(text, end="")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--language", type=_language, default="en", metavar="CODE", help="such as en or pt-BR (default en)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there (default: print it)")
    parser.add_argument("--force", action="store_true", help="replace FILE if there is one")


def _language(text: str) -> str:
    from edgevoice.grammar_file import LANGUAGE  # noqa: PLC0415 - each command loads only what it needs

    if not LANGUAGE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"must be a language code such as en or pt-BR, got {text[:60]!r}")
    return text
