"""What `edgevoice doctor` looks at: one function for each check, none of which changes anything.

    configuration ──> the other checks, one after the other, each in bounded time ──> Check: ok, warn or fail

A check that fails has found why edgevoice does not work; one that warns, why it may not work well.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import secrets
import shlex
import shutil
import sys
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from edgevoice import config as configuration
from edgevoice import grammar_file, health, levels, models
from edgevoice import kernels as builds
from edgevoice.broker import Dialer, Outgoing, clock_s, mqtt_settings
from edgevoice.capture import MicrophoneSource
from edgevoice.errors import AudioError, EdgevoiceError, ModelError
from edgevoice.events import SAMPLE_RATE_HZ, ScoredFrame
from edgevoice.light import LEDS, brightness_of
from edgevoice.publish import base_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgevoice.config import Config
    from edgevoice.portaudio import PortAudio

State = Literal["ok", "warn", "fail"]

_MOST_S: Final = 10.0
"""For a check: name server, broker and sound system may each hang. Hashing a large model from a card takes
seconds."""

_BROKER_S: Final = 3.0  # a broker in the house answers in milliseconds; an old one is asked twice
_LISTEN_S: Final = 1.0  # long enough for a hum, and nobody has to speak
_BUSY: Final = -9985  # paDeviceUnavailable of portaudio.h
_BESIDE_MODEL_BYTES: Final = 110_000_000
"""Needed beside the model's file: with tiny.en, of 78 MB, the service needed 187 MB after 12 commands, on
x86-64."""

_ADDRESSES: Final = (
    7  # address space for each byte of that: 1216 MB with tiny.en, stacks and libraries included
)
_HOT_C: Final = 80.0  # from here on a Raspberry Pi slows itself down
_ROOM_BYTES: Final = 300_000_000  # pulling base takes its 148 MB twice, for the packed and the converted file
_TIME_ERROR: Final = 5  # adjtimex(2): nobody has set this clock by another
_FEATURES: Final = {
    # of ggml's kernels -> how Linux calls what the processor can
    "DOTPROD": "asimddp",
    "FP16_VA": "asimdhp",
    "MATMUL_INT8": "i8mm",
    "AVX2": "avx2",
    "FMA": "fma",
    "F16C": "f16c",
    "AVX512": "avx512f",
}


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found."""

    name: str
    state: State
    text: str
    """What was seen."""

    remedy: str | None = None
    """What to do; None: nothing."""


def examine(path: Path | None, root: Path = Path("/")) -> Iterator[Check]:
    """Yield what each check finds, as it finds it.

    Args:
        path: of the configuration; None: the defaults.
        root: of the file system, in which the kernel tells about the machine.
    """
    found: list[Config] = []

    def load() -> Check:
        found.append(configuration.load(path))
        configuration.check_files(found[0])
        return Check("configuration", "ok", str(path) if path else "no file: the defaults are in effect")

    yield patiently("configuration", load)
    for name, check in _MACHINE:
        yield patiently(name, lambda check=check: check(root))  # type: ignore[misc]
    for name, look in _CONFIGURED if found else ():
        yield patiently(name, lambda look=look: look(found[0], root))  # type: ignore[misc]


def patiently(name: str, check: Callable[[], Check], most_s: float = _MOST_S) -> Check:
    """Return what a check finds, or that it failed or took too long; it is then left alone."""
    outcome: Future[Check] = Future()

    def run() -> None:
        try:
            outcome.set_result(check())
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            outcome.set_exception(error)

    threading.Thread(target=run, name=f"edgevoice-doctor-{name}", daemon=True).start()
    try:
        return outcome.result(most_s)
    except TimeoutError:
        return Check(name, "fail", f"no answer within {most_s:g} s", "see what is slow or hangs there")
    except EdgevoiceError as error:  # its text ends with what to do
        text, _, remedy = str(error).rpartition("; ")
        return Check(name, "fail", text or remedy, remedy if text else None)
    except OSError as error:
        return Check(name, "fail", str(error), "check that it is there, and the right to read it")
    except Exception as error:  # noqa: BLE001 - one check that is at its end must not end the others
        return Check(
            name, "fail", f"{type(error).__name__}: {error}", "this is a mistake of edgevoice: report it"
        )


# ---- the machine ----


def python(_root: Path) -> Check:
    """Which Python, and where."""
    return Check("python", "ok", f"{platform.python_version()} on {platform.machine()}, {sys.executable}")


def kernels(root: Path) -> Check:
    """Whether the native module is there, and made for what this processor can."""
    from edgevoice import native  # noqa: PLC0415 - it may not be there, which is what is to be found out

    able, chosen = builds.abilities(root), builds.chosen()
    machine = platform.machine()
    fitting = [name for name, its in builds.VARIANTS.items() if its.machine == machine and its.needs <= able]
    compiled = {name for name, on in re.findall(r"(\w+) = (\d+)", native.kernels()) if on != "0"}
    text = (
        f"whisper.cpp {native.whisper_version()}, {chosen or 'built for one machine'}: "
        f"{' '.join(sorted(compiled)) or 'no special kernels'}; "
        f"this processor can run {', '.join(fitting) or 'none of those in wheels'}"
    )
    if names := native.gpus():
        text += f"; transcription, not commands, on {names[0]}"
    if absent := native.absent_backends():
        text += f"; {', '.join(absent)}: no device is found, the processor computes"
        return Check("kernels", "warn", text, "install the device's driver, or build without that backend")
    if chosen:
        if chosen == fitting[-1]:
            return Check("kernels", "ok", text)
        remedy = f"unset {builds.VARIABLE}"
        if fitting[-1] not in builds.built():
            remedy = "install edgevoice again: its wheel has them"
        return Check("kernels", "warn", f"{text}; {fitting[-1]} would be faster", remedy)
    unused = [name for name, word in _FEATURES.items() if word in able and name not in compiled]
    if not unused:
        return Check("kernels", "ok", text)
    remedy = "build it on this machine for more speed: python build_native.py"
    return Check("kernels", "warn", f"{text}; unused: {' '.join(unused)}", remedy)


def detector(_root: Path) -> Check:
    """Whether the model of the voice detector is there and right."""
    return Check("detector", "ok", str(models.vad_model()))


def heat(root: Path) -> Check:
    """Whether the machine is slowed down by heat or a weak power supply."""
    celsius, throttled = health.temperature_c(root), health.throttled(root) or {}
    text = "no sensor" if celsius is None else f"{celsius:.0f} °C"
    power = "take the power supply made for this board, and a short cable"
    cooling = "let air to the board, or give it a heat sink"
    if throttled.get("under_voltage_now"):
        return Check("heat", "fail", f"{text}, too little voltage now", power)
    if throttled.get("now") or (celsius or 0.0) >= _HOT_C:
        return Check("heat", "warn", f"{text}, slowed down or about to be", cooling)
    if throttled.get("under_voltage_since_boot"):
        return Check("heat", "warn", f"{text}, too little voltage at times", power)
    if throttled.get("since_boot"):
        return Check("heat", "warn", f"{text}, slowed down at times", cooling)
    return Check("heat", "ok", text)


def clock(_root: Path, now_s: Callable[[], float] = time.time) -> Check:
    """Whether the time can be right, and is kept so."""
    seen = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now_s())) + " UTC"
    remedy = "see `timedatectl`; certificates and the time in messages need it"
    if now_s() < Path(__file__).stat().st_mtime:
        return Check("clock", "fail", f"{seen}, before edgevoice was installed", remedy)
    # All zeros only asks; larger than struct timex, whose first field says what to change.
    if ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)) == _TIME_ERROR:
        return Check("clock", "warn", f"{seen}, not set by another clock", remedy)
    return Check("clock", "ok", f"{seen}, synchronised")


def disk(_root: Path) -> Check:
    """Whether there is room for models."""
    folder = models.models_dir()
    place = next(each for each in (folder, *folder.parents) if each.is_dir())
    free_bytes = shutil.disk_usage(place).free
    text = f"{free_bytes / 1e6:.0f} MB free for {folder}"
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        remedy = "if that is not wanted, see `dmesg`: the card may be failing"
        return Check("disk", "warn", f"{folder} is read-only: no model can be added", remedy)
    if free_bytes < _ROOM_BYTES:
        return Check("disk", "warn", text, f"free {_ROOM_BYTES / 1e6:.0f} MB before models are added")
    return Check("disk", "ok", text)


# ---- what is configured ----


def model(config: Config, _root: Path) -> Check:
    """Whether the model is there, and its content right."""
    name = config.model.name
    if "/" in name:
        return Check("model", "ok", f"{models.find(name)}, whole")
    return Check("model", "ok", f"{models.verify(name).path}, with the right hash")


def grammar(config: Config, _root: Path) -> Check:
    """Whether the grammar can be read."""
    from edgevoice.recognise import shipped_grammar  # noqa: PLC0415 - it takes the native module, as above

    file = grammar_file.load(
        config.grammar.file or shipped_grammar(config.model.language), config.grammar.context
    )
    return Check("grammar", "ok", f"{len(file.intents)} intents, language {file.language}")


def memory(config: Config, root: Path) -> Check:
    """Whether model and engine have room."""
    try:
        size_bytes = models.find(config.model.name).stat().st_size
    except ModelError:
        return Check("memory", "warn", "not known without the model", "see to the model first")
    need_mb = (size_bytes + _BESIDE_MODEL_BYTES) / 1e6
    text = (root / "proc/meminfo").read_text("ascii")
    all_mb, free_mb = (
        int(found[1]) * 1024 / 1e6
        if (found := re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE))
        else 0.0
        for name in ("MemTotal", "MemAvailable")
    )
    seen = f"{free_mb:.0f} of {all_mb:.0f} MB available, about {need_mb:.0f} needed"
    smaller = "take a smaller model (edgevoice models quantize), or end other programs"
    if all_mb < need_mb:
        return Check("memory", "fail", seen, smaller)
    if free_mb < need_mb:
        return Check("memory", "warn", f"{seen}, unless edgevoice is running", smaller)
    limit_bytes = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit_bytes != resource.RLIM_INFINITY and limit_bytes / 1e6 < _ADDRESSES * need_mb:
        limit = f"address space is limited to {limit_bytes / 1e6:.0f} MB"
        return Check("memory", "warn", limit, "raise it: ulimit -v, or LimitAS= of the unit")
    return Check("memory", "ok", seen)


def microphone(config: Config, _root: Path, port_audio: PortAudio | None = None) -> Check:
    """Whether the microphone can be opened, and what comes from it is sound."""
    if not config.audio.enabled:
        return Check("microphone", "ok", "none is wanted (audio.enabled)")
    try:
        source = MicrophoneSource(config.audio.device, channel=config.audio.channel, port_audio=port_audio)
    except AudioError as error:
        if getattr(error.__cause__, "errno", None) != _BUSY:
            raise
        stop = "if that is edgevoice, stop it to have this checked: sudo systemctl stop edgevoice"
        return Check("microphone", "warn", "another program uses it", stop)
    heard = []
    try:
        for frame in source:
            heard.append(ScoredFrame(frame, 0.0))
            if frame.start_samples >= _LISTEN_S * SAMPLE_RATE_HZ:
                break
    finally:
        source.close()
    measured = levels.Levels.of(heard)
    text = f"{source.device.name}: room {measured.room_dbfs:.0f} dB, loudest {measured.peak_dbfs:.0f} dB"
    if measured.peak_dbfs <= levels.DIGITAL_DBFS:
        silent = "see whether it is muted, or another device is meant: edgevoice devices"
        return Check("microphone", "fail", f"{text}, which is no sound at all", silent)
    if measured.peak_dbfs >= levels.LOUD_DBFS:
        return Check("microphone", "warn", f"{text}: peaks are cut off", "turn it down: alsamixer -V capture")
    return Check("microphone", "ok", text)


def feedback(config: Config, root: Path) -> Check:
    """Whether what tells people is there; nothing sounds or shines."""
    options = config.feedback
    programs = {"chime": options.chime, "say": options.say, "run": options.run}
    told = {name: shlex.split(command)[0] for name, command in programs.items() if command}
    for name, program in told.items():
        if shutil.which(program) is None:
            remedy = "install it, or give its path; the service finds no programs in home folders"
            return Check("feedback", "fail", f"feedback.{name}: there is no program {program!r}", remedy)
    if options.led:
        file = brightness_of(options.led, root / LEDS.relative_to("/"))
        if not os.access(file, os.W_OK):
            remedy = "give this user the right to, see docs/configuration.md"
            return Check("feedback", "fail", f"{file} cannot be written", remedy)
        told["led"] = options.led
    return Check("feedback", "ok", ", ".join(f"{name} {what}" for name, what in told.items()) or "none")


def broker(config: Config, _root: Path) -> Check:
    """Whether the broker takes us, and lets us ask for commands; nothing is published."""
    if config.mqtt.host is None:
        return Check("broker", "warn", "none is configured: commands are only printed", "set mqtt.host")
    settings = replace(mqtt_settings(config), connect_timeout_s=min(_BROKER_S, config.mqtt.connect_timeout_s))
    name = f"edgevoice-doctor-{secrets.token_hex(4)}"  # not client_id, which a running edgevoice has
    # A will that nobody listens to and that is not kept, as each connection has one.
    will = Outgoing(f"edgevoice/doctor/{name}", b"", clock_s())
    connection = Dialer(settings, name, will, lambda *_: None, lambda: None).open()
    try:
        connection.subscribe([f"{base_topic(config.site)}/set/#"])
        lost = connection.lost_because
    finally:
        connection.close(farewell=True)
    if lost:
        remedy = "see its log; does it allow what docs/mqtt.md lists?"
        return Check("broker", "fail", f"{settings.address} takes us, but then {lost}", remedy)
    return Check("broker", "ok", f"{settings.address} takes us, MQTT {connection.version}")


_MACHINE: Final[tuple[tuple[str, Callable[[Path], Check]], ...]] = (
    ("python", python),
    ("kernels", kernels),
    ("detector", detector),
    ("heat", heat),
    ("clock", clock),
    ("disk", disk),
)
_CONFIGURED: Final[tuple[tuple[str, Callable[[Config, Path], Check]], ...]] = (
    ("model", model),
    ("memory", memory),
    ("grammar", grammar),
    ("microphone", microphone),
    ("feedback", feedback),
    ("broker", broker),
)
