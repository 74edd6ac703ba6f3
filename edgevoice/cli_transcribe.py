"""The command `edgevoice transcribe`: what it is given."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from edgevoice.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgevoice.capture import FrameSource
    from edgevoice.config import Config
    from edgevoice.publish import State
    from edgevoice.whisper import Options

_ONLY_FILES: Final = (
    *("files", "formats", "output_dir", "resume", "jobs", "vad", "grammar", "word_times"),
    *("max_line_length", "max_lines", "highlight_words"),
)
_FORMATS: Final = ("text", "srt", "vtt", "json", "tsv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    from pathlib import Path  # noqa: PLC0415

    add = parser.add_argument
    add(
        "files",
        nargs="*",
        metavar="FILE",
        help="WAV, FLAC, MP3, ..., or a pattern of such; - is stdin: a sound file, or raw s16le mono",
    )
    add("--mic", action="store_true", help="the microphone in place of files: text as it is spoken")
    add(
        "--format",
        type=_formats,
        dest="formats",
        metavar="LIST",
        help="text, srt, vtt, json, tsv, or several such as srt,json (default text)",
    )
    add(
        "--output-dir",
        type=Path,
        metavar="FOLDER",
        help="write FILE.txt, .srt, ... there (default: stdout, in one format)",
    )
    add(
        "--resume",
        action="store_true",
        help="leave out what is in FOLDER already, from the same FILE and options",
    )
    add("--jobs", type=_number(1, 64), metavar="N", help="files at a time (default 1)")
    add("--model", metavar="NAME", help="name or path of a model, in place of the configured one")
    add("--language", metavar="CODE", help="such as en or de; auto: detected (default)")
    add("--translate", action="store_true", help="write English, whatever is spoken")
    add("--prompt", default="", metavar="TEXT", help="taken for what was said before: names, spelling, style")
    add("--beam", type=_number(1, 8), default=1, metavar="N", help="texts followed together, 1-8 (default 1)")
    add(
        "--patience",
        type=float,
        metavar="P",
        help="with --beam: as OpenAI follows them, until P texts for each are finished; 1 is its default",
    )
    add(
        "--temperature", type=float, default=0.0, metavar="T", help="0-1; above 0 words are drawn (default 0)"
    )
    add("--threads", type=_number(1, 64), metavar="N", help="for each file (default: the cores but one)")
    add("--vad", action="store_true", help="transcribe only where somebody speaks")
    add(
        "--grammar",
        type=Path,
        metavar="FILE",
        help="GBNF: nothing else is written; no times within 30 seconds",
    )
    add("--word-times", action="store_true", help="say in JSON when each word was said")
    add("--max-line-length", type=_number(1, 1000), metavar="N", help="most characters of a line")
    add("--max-lines", type=_number(1, 100), metavar="N", help="most lines of a subtitle (default 1)")
    add("--highlight-words", action="store_true", help="underline each word of a subtitle while it is said")


def run(
    options: argparse.Namespace,
    config: Config,
    stdin: Callable[[], BinaryIO],
    microphone: Callable[[Callable[[State], None]], FrameSource],
) -> int:
    """Transcribe what is named, or the microphone."""
    if options.mic:
        given = [name for name in _ONLY_FILES if getattr(options, name)]
        if given:
            what = "files" if given[0] == "files" else f"--{given[0].replace('_', '-')}"
            raise UsageError(f"--mic and {what} do not go together; give one of them")
        from edgevoice import cli_transcribe_mic  # noqa: PLC0415

        cli_transcribe_mic.run(config.model.name, _options(options, config.model.thread_count), microphone)
        return 0
    if not options.files:
        raise UsageError("there is nothing to transcribe; name recordings, - for stdin, or --mic")
    formats = options.formats or ("text",)
    if options.word_times and "json" not in formats:
        raise UsageError("--word-times stand in JSON only; add --format json")
    if (options.max_lines or options.highlight_words) and not {"srt", "vtt"} & set(formats):
        raise UsageError("--max-lines and --highlight-words are for subtitles; add --format srt, or vtt")
    if options.resume and options.output_dir is None:
        raise UsageError("--resume looks into the folder of --output-dir; give one")
    from edgevoice import cli_transcribe_files  # noqa: PLC0415 - quick to say what is wrong
    from edgevoice.whisper import Layout, SpeechOptions  # noqa: PLC0415

    if (options.max_lines or 1) > 1 and not options.max_line_length:
        raise UsageError("--max-lines needs lines to be cut; give --max-line-length")
    jobs = options.jobs or 1
    plan = cli_transcribe_files.Plan(
        model=config.model.name,
        options=_options(options, max(1, config.model.thread_count // jobs)),
        speech=SpeechOptions() if options.vad else None,
        formats=formats,
        layout=Layout(
            max_line_length=options.max_line_length or 0,
            max_lines=options.max_lines or 1,
            highlight_words=options.highlight_words,
        ),
        output_dir=options.output_dir,
        resume=options.resume,
        jobs=jobs,
        rate_hz=options.rate,
    )
    return cli_transcribe_files.run(options.files, plan, stdin() if "-" in options.files else None)


def _options(options: argparse.Namespace, threads: int) -> Options:
    from edgevoice.whisper import Gbnf, Options  # noqa: PLC0415

    more: dict[str, Any] = {}
    if options.grammar:
        more = {"grammar": Gbnf.load(options.grammar), "timestamps": False}
    return Options(
        threads=options.threads or threads,
        language=None if options.language == "auto" else options.language,
        translate=options.translate,
        beam=options.beam,
        patience=options.patience,
        temperature=options.temperature,
        prompt=options.prompt,
        word_times=options.word_times or bool(options.max_line_length or options.highlight_words),
        **more,
    )


def _formats(text: str) -> tuple[str, ...]:
    formats = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if not set(formats) <= set(_FORMATS):
        raise argparse.ArgumentTypeError(f"must be of {', '.join(_FORMATS)}, with commas; got {text[:60]!r}")
    return formats


def _number(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,6}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {low} to {high}, got {text[:60]!r}"
            )
        return int(text)

    return number
