"""The command line: one function for each command, errors as one sentence and an exit code.

Exit codes: 0 done, a refused command is a result too; 1 a check failed, or the output cannot be written;
2 usage, configuration file or grammar file; 3 model or native module; 4 audio; 5 network; 130 ended by
Ctrl-C.
"""

from __future__ import annotations

import argparse
import dataclasses
import faulthandler
import io
import json
import logging
import os
import re
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NoReturn, cast

from edgevoice import __version__, cli_bench, cli_eval, cli_grammar, cli_grammar_import, cli_transcribe
from edgevoice.errors import (
    AudioError,
    CheckFailedError,
    EdgevoiceError,
    ModelError,
    NativeError,
    UsageError,
)
from edgevoice.notify import JournalFormatter, is_journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edgevoice.capture import FrameSource
    from edgevoice.config import Config
    from edgevoice.events import Result
    from edgevoice.publish import State

EXIT_CODES: Final = (
    "exit codes: 0 done, a refused command is a result too; 1 a check failed, or the output cannot be "
    "written; 2 usage, configuration file or grammar file; 3 model or native module; 4 audio; 5 network; "
    "130 ended by Ctrl-C"
)
TEST_S: Final = 5.0
"""Of a microphone: time to say a sentence, and to be silent."""

INTERRUPTED: Final = 130
"""128 + SIGINT, as shells count."""

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    try:
        try:
            return _command(arguments)
        finally:
            if sys.stdout is not None:  # it is when closed at the start
                sys.stdout.flush()  # here, where a full disk can still be told
    except BrokenPipeError:  # the reader of our output, such as head, has enough
        _discard_output()
        return 0
    except OSError as error:
        _log.debug("not done", exc_info=True)
        where = f"{error.filename}: " if error.filename else "reading or writing failed: "
        print(
            f"edgevoice: {where}{error.strerror or error}; check that there is space and the right to write",
            file=sys.stderr,
        )
        _discard_output()
        return 1


def _discard_output() -> None:
    """Let Python's own flush at the end succeed."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    if sys.stderr is not None and is_journal(sys.stderr):
        logging.getLogger().handlers[0].setFormatter(JournalFormatter("%(name)s: %(message)s"))
    for stream in (sys.stdout, sys.stderr):  # file names may be any bytes; \udcff is JSON, too
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        command: Callable[[argparse.Namespace], int | None] = options.command
        return command(options) or 0
    except EdgevoiceError as error:
        print(f"edgevoice: {error}", file=sys.stderr)
        return error.exit_code
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't start new thread" not in str(error):
            raise
        _log.debug("not done", exc_info=True)
        print(
            f"edgevoice: out of memory ({error or 'Python had none'}); take a smaller model, end other "
            "programs, or raise the limit (MemoryMax=, LimitAS=, TasksMax= of the unit)",
            file=sys.stderr,
        )
        return NativeError.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


# ---- commands ----


def run(options: argparse.Namespace) -> int:
    """Microphone (or recordings, or raw audio) to MQTT."""
    # Before NumPy is loaded: its products are too small for more, and each thread takes memory.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from edgevoice import service  # noqa: PLC0415 - each command loads only what it needs

    config = _config(options)
    alone = not (options.input or config.audio.enabled)  # without sound of our own
    signal.signal(signal.SIGTERM, _stop)  # the way systemd ends a service, nothing out of order
    if sys.stderr is not None:
        faulthandler.enable()  # SIGABRT is the way it ends one that hangs: the journal says where
    if not options.verbose:
        logging.getLogger().setLevel(config.log.level.upper())
    sources = None if alone else partial(_sources, options, config)
    show = _Printer(needed=config.mqtt.host is None and config.wyoming.listen is None)
    try:
        service.run(config, options.grammar, sources, show)
    finally:
        if show.failed:
            _discard_output()
    return 0


class _Printer:
    """Prints results, which others get, too; where nobody else does, a failure ends the command."""

    def __init__(self, *, needed: bool) -> None:
        self._needed = needed
        self.failed = False

    def __call__(self, result: Result) -> None:
        try:
            print(_line(result), flush=True)
        except OSError as error:
            if self._needed:
                raise
            if not self.failed:
                _log.warning("results cannot be printed, and go only to others: %s", error)
            self.failed = True
        else:
            if self.failed:
                _log.warning("results can be printed again")
            self.failed = False


def listen(options: argparse.Namespace) -> int:
    """What is heard, as it is heard; nothing is published."""
    from rich.console import Console  # noqa: PLC0415

    from edgevoice import cli_listen  # noqa: PLC0415
    from edgevoice.pipeline import Pipeline  # noqa: PLC0415

    config = _config(options)
    pipeline = Pipeline(config, options.grammar)
    try:
        view = cli_listen.View(pipeline.threshold)
        for source in _sources(options, config, view.tell):
            try:
                cli_listen.show(pipeline, source, view, Console())
            finally:
                source.close()
    finally:
        pipeline.close()
    return 0


def recognize(options: argparse.Namespace) -> int:
    """Recordings through the same pipeline, one line for each utterance."""
    from edgevoice.capture import FileSource, RawSource  # noqa: PLC0415
    from edgevoice.pipeline import Pipeline  # noqa: PLC0415
    from edgevoice.publish import result_fields  # noqa: PLC0415

    exit_code = 0
    pipeline = Pipeline(_config(options), options.grammar)
    try:
        for name in options.files:
            try:
                source = RawSource(_stdin(), options.rate) if name == "-" else FileSource(name)
                for result in pipeline.results(source):
                    if options.json:
                        print(
                            json.dumps({"file": name, **result_fields(result)}, ensure_ascii=False),
                            flush=True,
                        )
                    else:
                        print(f"{name}: {_line(result)}", flush=True)
            except EdgevoiceError as error:  # one bad file does not stop the others
                what = "stdin" if name == "-" else name
                which = "" if what in str(error) else f"{what}: "
                print(f"edgevoice: {which}{error}", file=sys.stderr)
                exit_code = exit_code or error.exit_code
    finally:
        pipeline.close()
    return exit_code


def transcribe(options: argparse.Namespace) -> int:
    """Speech to text, without commands."""
    config = _config(options)
    return cli_transcribe.run(options, config, _stdin, partial(_microphone, config))


def evaluate(options: argparse.Namespace) -> int:
    """How well commands are understood, and how often something else is taken for one."""
    return cli_eval.run(options, _config(options))


def bench_stream(options: argparse.Namespace) -> int:
    """Long streams of commands: what is cut, missed or joined, and how soon the answer comes."""
    return cli_bench.run(options, _config(options))


def tell(options: argparse.Namespace) -> None:
    """Tell a running edgevoice something."""
    from edgevoice import cli_tell  # noqa: PLC0415

    cli_tell.run(options.name, options.value, _config(options))


def grammar_check(options: argparse.Namespace) -> int:
    """What a grammar says, and what in it is wrong or doubtful."""
    return cli_grammar.check(options, _config(options))


def grammar_sample(options: argparse.Namespace) -> None:
    """Sentences of a grammar."""
    cli_grammar.sample(options, _config(options))


def grammar_explain(options: argparse.Namespace) -> None:
    """What a grammar makes of a sentence."""
    cli_grammar.explain(options, _config(options))


def records_list(options: argparse.Namespace) -> None:
    """What is kept of utterances."""
    from edgevoice import cli_records  # noqa: PLC0415

    cli_records.list_records(options, _config(options))


def records_show(options: argparse.Namespace) -> None:
    """One record."""
    from edgevoice import cli_records  # noqa: PLC0415

    cli_records.show(options, _config(options))


def records_label(options: argparse.Namespace) -> None:
    """What was meant."""
    from edgevoice import cli_records  # noqa: PLC0415

    cli_records.label(options, _config(options))


def records_purge(options: argparse.Namespace) -> None:
    """Remove records."""
    from edgevoice import cli_records  # noqa: PLC0415

    cli_records.purge(options, _config(options))


def records_teach(options: argparse.Namespace) -> None:
    """Spellings of names that would have helped."""
    from edgevoice import cli_records  # noqa: PLC0415

    cli_records.teach(options, _config(options))


def replay(options: argparse.Namespace) -> int:
    """Records through the recogniser once more, and what has changed."""
    from edgevoice import cli_records  # noqa: PLC0415

    return cli_records.replay(options, _config(options))


def models_list(options: argparse.Namespace) -> None:
    """Known and installed models."""
    from edgevoice import models  # noqa: PLC0415

    if options.json:
        print(json.dumps([dataclasses.asdict(state) for state in models.list_models()], default=str))
        return
    for state in models.list_models():
        print(f"{state.name:19} {state.size_bytes / 1e6:6.0f} MB  {state.state:10}  {state.languages}")
    print(f"folder: {models.models_dir()}")


def models_pull(options: argparse.Namespace) -> None:
    """Fetch models by name; without a name the one of the configuration, unless it is here."""
    from edgevoice import models  # noqa: PLC0415

    progress = not options.quiet
    if options.names:
        for name in options.names:
            print(_pull(name, progress))
        return
    name = _config(options).model.name
    try:
        print(models.find(name))
    except ModelError:
        print(_pull(name, progress))


def _is_quantised(model: str) -> bool:
    """Whether its name ends in a kind: what is rounded is not rounded again."""
    from edgevoice import native  # noqa: PLC0415

    return model.rpartition("-")[2] in native.QUANTISATIONS


def _pull(name: str, progress: bool) -> Path:
    """Fetch a known model; `NAME-q8_0` that is not is made of NAME, which is fetched first."""
    from edgevoice import cli_models, models, native  # noqa: PLC0415

    of, _, kind = name.rpartition("-")
    known = {model.name for model in models.known()}
    if name in known or kind not in native.QUANTISATIONS or of not in known or _is_quantised(of):
        return models.pull(name, progress=progress)
    try:
        return models.find(name)
    except ModelError:
        models.pull(of, progress=progress)
        return cli_models.make(of, kind, progress=progress)


def models_import(options: argparse.Namespace) -> None:
    """Take a model into the models folder."""
    from edgevoice import models  # noqa: PLC0415

    print(models.import_file(options.file, options.name, options.vocabulary))


def models_quantize(options: argparse.Namespace) -> None:
    """Make a smaller model, and compare it with the original."""
    from edgevoice import cli_models  # noqa: PLC0415

    cli_models.run(options, _config(options).model.language or "en")


def models_verify(options: argparse.Namespace) -> int:
    """Compare the hash of installed models with the pinned one."""
    from edgevoice import models  # noqa: PLC0415

    failed = 0
    names = options.names or [state.name for state in models.list_models() if state.state != "absent"]
    if not names:
        raise CheckFailedError("no model is installed; pull one with: edgevoice models pull tiny.en")
    for name in names:
        try:
            print(models.verify(name, progress=True))
        except EdgevoiceError as error:
            print(f"edgevoice: {error}", file=sys.stderr)
            failed = failed or error.exit_code
    return failed


def config_show(options: argparse.Namespace) -> None:
    """Print the configuration in effect."""
    from edgevoice import config  # noqa: PLC0415

    print(config.default_text() if options.defaults else config.dump(_config(options)), end="")


def config_check(options: argparse.Namespace) -> None:
    """Check a configuration file."""
    from edgevoice import config  # noqa: PLC0415

    path = config.find_config(options.config)
    config.check_files(config.load(path))
    print(f"{path}: in order" if path else "no configuration file: the defaults are in effect")


def web_set_password(options: argparse.Namespace) -> None:
    """Set the password of the page."""
    from edgevoice import cli_web  # noqa: PLC0415

    cli_web.password(options, _config(options))


def ha_remove(options: argparse.Namespace) -> None:
    """Takes the device out of Home Assistant."""
    from edgevoice import cli_ha  # noqa: PLC0415

    print(cli_ha.remove(_config(options)))


def doctor(options: argparse.Namespace) -> int:
    """What of this installation works, what does not, and what to do about it."""
    from edgevoice import config  # noqa: PLC0415
    from edgevoice.doctor import Check, examine  # noqa: PLC0415

    found: list[Check] = []
    for check in examine(config.find_config(options.config)):
        found.append(check)
        if not options.json:
            remedy = f"\n      -> {check.remedy}" if check.remedy else ""
            print(f"{check.state:5} {check.name}: {check.text}{remedy}", flush=True)
    if options.json:
        print(json.dumps([dataclasses.asdict(check) for check in found], ensure_ascii=False))
    return 1 if any(check.state == "fail" for check in found) else 0


def devices(options: argparse.Namespace) -> None:
    """Microphones, with the name to put in the configuration."""
    from edgevoice.portaudio import list_devices  # noqa: PLC0415

    if options.test:
        if options.json:
            raise UsageError("--test prints words, no JSON; leave --json out")
        _test_device(_config(options))
        return
    found = list_devices()
    if options.json:
        print(json.dumps([dataclasses.asdict(device) for device in found]))
        return
    for device in found:
        print(device)
    if not found:
        raise CheckFailedError(
            "no microphone found; plug one in, and check that this user is in the group audio"
        )


def _test_device(config: Config) -> None:
    """Record some seconds and say how it sounds."""
    from edgevoice.capture import MicrophoneSource  # noqa: PLC0415
    from edgevoice.events import SAMPLE_RATE_HZ  # noqa: PLC0415
    from edgevoice.levels import Levels  # noqa: PLC0415
    from edgevoice.vad import Vad  # noqa: PLC0415

    vad, scored = Vad(), []
    source = MicrophoneSource(config.audio.device, channel=config.audio.channel)
    try:
        print(f"{source.device}: say something now", file=sys.stderr, flush=True)
        for frame in source:
            scored.append(vad.score(frame))
            if frame.start_samples >= TEST_S * SAMPLE_RATE_HZ:
                break
    finally:
        source.close()
        vad.close()
    measured = Levels.of(scored)
    speech = "none" if measured.speech_dbfs is None else f"{measured.speech_dbfs:.0f} dB"
    print(f"room {measured.room_dbfs:.0f} dB, speech {speech}, loudest {measured.peak_dbfs:.0f} dB")
    print(measured.advice())


# ---- shared parts ----


def _config(options: argparse.Namespace) -> Config:
    from edgevoice import config  # noqa: PLC0415

    loaded = config.load(config.find_config(options.config))
    model = getattr(options, "model", None)
    if model:
        loaded = dataclasses.replace(loaded, model=dataclasses.replace(loaded.model, name=model))
    return loaded


def _sources(
    options: argparse.Namespace, config: Config, on_state: Callable[[State], None]
) -> Iterable[FrameSource]:
    from edgevoice.capture import FileSource, RawSource  # noqa: PLC0415
    from edgevoice.network import SCHEMES, SocketMicrophone  # noqa: PLC0415

    if not options.input:
        yield _microphone(config, on_state)
    for name in options.input or ():
        if name == "-":
            yield RawSource(_stdin(), options.rate)
        elif name.startswith(SCHEMES):
            yield SocketMicrophone(name, options.rate, on_state)
        else:
            yield FileSource(name, real_time=options.real_time)


def _microphone(config: Config, on_state: Callable[[State], None]) -> FrameSource:
    from edgevoice.capture import MicrophoneSource  # noqa: PLC0415
    from edgevoice.microphone import Microphone  # noqa: PLC0415
    from edgevoice.portaudio import load_pyaudio  # noqa: PLC0415

    load_pyaudio()  # without it, waiting for a microphone is of no use
    audio = config.audio
    return Microphone(
        lambda: MicrophoneSource(audio.device, channel=audio.channel, block_frames=audio.block_frames),
        on_state,
    )


def _stdin() -> BinaryIO:
    if sys.stdin is None:  # closed by who started us
        raise AudioError("stdin is closed; feed it raw audio, or name a recording")
    # Unbuffered: a thread that still waits in a buffered read when Python ends would abort it.
    return cast("BinaryIO", sys.stdin.buffer.raw) if hasattr(sys.stdin.buffer, "raw") else sys.stdin.buffer


def _line(result: Result) -> str:
    """One result for people, which is one line also in a journal."""
    return " ".join(_words(result).split())


def _words(result: Result) -> str:
    heard = f'"{result.text}" ' if result.text else ""
    sure = f"confidence {result.confidence:.2f}, {result.timings.total:.0f} ms"
    if not result.accepted:
        free = f'without the grammar "{result.heard}" ' if result.heard else ""
        return f"refused ({result.reason}) {heard}{free}{sure}"
    slots = "".join(f" {name}={value}" for name, value in result.slots.items())
    return f"{heard}-> {result.intent}{slots} {sure}"


def _stop(_signal: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


def _version() -> str:
    try:
        from edgevoice import native  # noqa: PLC0415

        return f"edgevoice {__version__}\nwhisper.cpp {native.whisper_version()}\nkernels {native.kernels()}"
    except EdgevoiceError as error:
        return f"edgevoice {__version__}\n{error}"


class _VersionAction(argparse.Action):
    """--version, computed only when asked for: it loads the native module."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(_version())
        parser.exit()


def _rate(text: str) -> int:
    # Refused as text, which may be longer than int() takes; no rate has more than six digits.
    if not re.fullmatch(r"[0-9]{4,6}", text) or not 4_000 <= int(text) <= 192_000:
        raise argparse.ArgumentTypeError(f"must be a whole number from 4000 to 192000, got {text[:60]!r}")
    return int(text)


def _add_rate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rate", type=_rate, default=16000, metavar="HZ", help="of raw audio (default 16000)"
    )


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        nargs="+",
        metavar="FILE",
        help="recordings in place of the microphone; raw s16le mono: - from stdin, tcp:[HOST:]PORT or "
        "unix:PATH from who connects there",
    )
    parser.add_argument("--real-time", action="store_true", help="play recordings at their own pace")


def _add_tell(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        choices=["mute", "playing", "listen", "reload", "say-again", "threshold", "grammar"],
        metavar="NAME",
        help="mute: hear nothing; playing: hear nothing of what our own speaker plays; "
        "listen: to what is said next; reload: read the grammar again; "
        "say-again: what was told of the last command; threshold: how sure a sentence must be; "
        "grammar: use another one of grammar.choices",
    )
    parser.add_argument(
        "value",
        nargs="?",
        default="",
        metavar="VALUE",
        help="mute: on, off; playing: on, off, for how many seconds; listen: within how many seconds; "
        "threshold: 0 to 1, or nothing: as configured; grammar: its name, or nothing: that of the beginning",
    )


def _add_records_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _add_records_show(parser: argparse.ArgumentParser) -> None:
    _add_record(parser)
    parser.add_argument("--json", action="store_true", help="all that is known, as JSON")


def _add_records_label(parser: argparse.ArgumentParser) -> None:
    _add_record(parser)
    parser.add_argument("intent", metavar="INTENT", help='that was meant; "none": no command, to be refused')
    parser.add_argument("slots", nargs="*", metavar="NAME=VALUE", help="slots that must come out")


def _add_records_purge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "records", nargs="*", metavar="RECORD", help="which; default: all, labelled ones, too"
    )


def _add_records_teach(parser: argparse.ArgumentParser) -> None:
    cli_eval.add_negatives(parser)
    parser.add_argument("--apply", action="store_true", help="write them into the grammar without asking")


def _add_record(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "record", metavar="RECORD", help="its name, the beginning or end of it, last, or the path of its JSON"
    )


def _parser() -> argparse.ArgumentParser:  # noqa: PLR0915 - a few a command
    parser = argparse.ArgumentParser(
        prog="edgevoice",
        description="Offline voice commands: speech in, intents on MQTT out.",
        epilog=EXIT_CODES,
    )
    parser.add_argument(
        "--version", action=_VersionAction, nargs=0, help="ours, whisper.cpp's, kernels in use"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, metavar="FILE", help="configuration (default: see docs/configuration.md)"
    )
    common.add_argument("-v", "--verbose", action="store_true", help="say what happens inside")
    engine = argparse.ArgumentParser(add_help=False)
    engine.add_argument("--grammar", type=Path, metavar="FILE", help="grammar in place of the configured one")
    engine.add_argument("--model", metavar="NAME", help="model in place of the configured one")
    _add_rate(engine)

    def add(group: argparse._SubParsersAction[argparse.ArgumentParser], name: str, command: object, text: str,
            parents: Iterable[argparse.ArgumentParser] = ()) -> argparse.ArgumentParser:  # fmt: skip
        sub = group.add_parser(
            name, help=text, description=text, parents=[common, *parents], epilog=EXIT_CODES
        )
        sub.set_defaults(command=command)
        return sub

    sub = add(commands, "run", run, "the service: microphone to MQTT", [engine])
    _add_input(sub)

    sub = add(
        commands, "listen", listen, "try it: what is heard, as it is heard, and why it is refused", [engine]
    )
    _add_input(sub)

    sub = add(
        commands,
        "recognize",
        recognize,
        "recordings through the same pipeline, one line an utterance",
        [engine],
    )
    sub.add_argument("files", nargs="+", metavar="FILE", help="WAV, FLAC, ...; - is raw s16le mono on stdin")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")

    sub = add(commands, "transcribe", transcribe, "speech to text, whatever is said: files or microphone")
    cli_transcribe.add_arguments(sub)
    _add_rate(sub)

    sub = add(commands, "eval", evaluate, "measure on recordings: commands, noise, and what must be refused")
    cli_eval.add_arguments(sub)

    bench = commands.add_parser(
        "bench", help="measure on this machine", description="measure on this machine"
    )
    group = bench.add_subparsers(metavar="COMMAND", required=True)
    sub = add(
        group, "stream", bench_stream, "a long stream of commands: what is cut, and how soon the answer comes"
    )
    cli_bench.add_arguments(sub)

    _add_tell(add(commands, "tell", tell, "tell a running edgevoice something, over MQTT, until it is done"))

    sub = add(commands, "devices", devices, "microphones, with the name to put in the configuration")
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub.add_argument("--test", action="store_true", help="record five seconds and say how it sounds")

    sub = add(commands, "doctor", doctor, "checks the installation and says what to do")
    sub.add_argument("--json", action="store_true", help="as JSON")

    def add_group(
        name: str, text: str, to: argparse._SubParsersAction[argparse.ArgumentParser] = commands
    ) -> argparse._SubParsersAction[argparse.ArgumentParser]:
        parser = to.add_parser(name, help=text, description=text, epilog=EXIT_CODES)
        return parser.add_subparsers(metavar="COMMAND", required=True)

    group = add_group("models", "list, pull, import and verify models")
    sub = add(group, "list", models_list, "known and installed models")
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub = add(group, "pull", models_pull, "fetch models; nothing to do when they are there")
    sub.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="one of `list`, or one of these in fewer bits: tiny.en-q8_0; default: the configured one",
    )
    sub.add_argument("--quiet", action="store_true", help="no progress bars")
    sub = add(
        group,
        "import",
        models_import,
        "take a model of your own: ggml, CTranslate2, Hugging Face safetensors or OpenAI .pt",
    )
    sub.add_argument("file", type=Path, metavar="FILE", help="of the model, or the folder it is in")
    sub.add_argument("name", metavar="NAME", help="what to call it")
    sub.add_argument(
        "--vocabulary",
        type=Path,
        metavar="FILE",
        help="vocab.json, multilingual.tiktoken or a ggml model with these words; default: what is beside it",
    )
    sub = add(group, "quantize", models_quantize, "make a smaller model NAME-KIND, and look how it does")
    sub.add_argument("name", metavar="NAME", help="an installed model, or a ggml file in f16 or f32")
    sub.add_argument(
        "kind", nargs="?", metavar="KIND", help="such as q8_0; without, what each would take is told"
    )
    sub.add_argument(
        "--sample", type=Path, metavar="FILE", help="speech to look with, in place of a sentence in English"
    )
    sub = add(group, "verify", models_verify, "compare the hash of installed models with the pinned one")
    sub.add_argument("names", nargs="*", metavar="NAME", help="default: all installed")

    group = add_group(
        "grammar", "check a grammar, draw sentences of it, explain one, make one of what you have"
    )
    for name, command, add_arguments, text in (
        ("check", grammar_check, cli_grammar.add_check, "how much it says, and what is wrong or doubtful"),
        ("sample", grammar_sample, cli_grammar.add_sample, "sentences of it, all equally likely"),
        ("explain", grammar_explain, cli_grammar.add_explain, "what it makes of a sentence, and why"),
    ):
        add_arguments(add(group, name, command, text))
    cli_grammar_import.add_commands(
        add_group("import", "from Home Assistant, Rhasspy, or plain sentences", group), add
    )

    group = add_group("records", "what was kept of utterances: list, look at, label, learn from, remove")
    for name, command, add_arguments, text in (
        ("list", records_list, _add_records_list, "what is kept, oldest first"),
        ("show", records_show, _add_records_show, "one record: what happened, and why it was decided so"),
        ("label", records_label, _add_records_label, "say what was meant, for `edgevoice eval` to count"),
        ("purge", records_purge, _add_records_purge, "remove records"),
    ):
        add_arguments(add(group, name, command, text))
    _add_records_teach(
        add(group, "teach", records_teach, "spellings of names that labelled records were heard as", [engine])
    )
    sub = add(
        commands, "replay", replay, "run what was kept again, and say what would be decided now", [engine]
    )
    sub.add_argument("records", nargs="*", metavar="RECORD", help="which; default: all")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")

    group = add_group("ha", "what Home Assistant knows of edgevoice")
    add(group, "remove", ha_remove, "take the device out of Home Assistant")

    group = add_group("web", "the page in a browser")
    sub = add(group, "password", web_set_password, "write the hash of its password, which it asks for")
    sub.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="default: web.password_file of the configuration"
    )

    group = add_group("config", "show and check the configuration")
    sub = add(group, "show", config_show, "the configuration in effect")
    sub.add_argument(
        "--defaults", action="store_true", help="the commented file with every default, to start from"
    )
    add(group, "check", config_check, "check a configuration file")
    return parser
