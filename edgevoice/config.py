"""The configuration: one YAML file, checked against the dataclasses below, which also hold every default.

    find_config(argument) -> path -> load(path) -> Config -> the stages

YAML is composed to nodes, which know their lines; each node is compared with the field of its name, that
field's type and its annotated constraint. All problems of a file are collected and raised together as one
ConfigError, one a line: `FILE:LINE: KEY: value seen; values allowed; what to do`. Secrets are never shown.
"""

from __future__ import annotations

import dataclasses
import difflib
import errno
import ipaddress
import logging
import os
import re
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import platformdirs
import yaml

from edgevoice.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

DEFAULT_YAML: Final = Path(__file__).with_name("default.yaml")
"""Shipped file with every option, explained, at its default."""

SYSTEM_FILE: Final = Path("/etc/edgevoice/edgevoice.yaml")
PATH_VARIABLE: Final = "EDGEVOICE_CONFIG"
PASSWORD_VARIABLE: Final = "EDGEVOICE_MQTT_PASSWORD"  # noqa: S105  a variable's name, no password

_YAML_TAG: Final = "tag:yaml.org,2002:"
_MAX_BYTES: Final = 1_000_000  # default.yaml has about 6,000
_MAX_PROBLEMS: Final = 100  # more than this is no configuration file
_MAX_DEPTH: Final = 8  # ours has 3; PyYAML composes recursively
_MAX_PASSWORD_BYTES: Final = 65_535  # MQTT's own limit


@dataclass(frozen=True, slots=True)
class Range:
    """A number between two bounds, both allowed."""

    low: float
    high: float

    def accepts(self, value: object) -> bool:
        """Whether a number is inside; NaN is not, and other types are not this constraint's business."""
        return not isinstance(value, (int, float)) or self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Pattern:
    """Text that matches a regular expression as a whole."""

    regex: str
    words: str
    """What the expression means, for the user."""

    slash_is_path: bool = False
    """Text with a slash is a path, relative to the file's folder."""

    def accepts(self, value: object) -> bool:
        """Whether text matches; other types are not this constraint's business."""
        return not isinstance(value, str) or re.fullmatch(self.regex, value) is not None


@dataclass(frozen=True, slots=True)
class AudioConfig:
    """Where speech comes from."""

    device: Annotated[str | int | None, Range(0, 999)] = None
    """Part of the microphone's name, or its number; None is the system's default."""

    enabled: bool = True
    """False opens no microphone: `edgevoice run` then serves others only."""

    channel: Annotated[int, Range(0, 31)] = 0
    """Which channel of the device, 0 is the first."""

    block_frames: Annotated[int, Range(1, 4)] = 1
    """Frames of 32 ms that the sound system hands over at once."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The Whisper model and how it is run."""

    name: Annotated[
        str,
        Pattern(
            r".*/.*|[A-Za-z0-9][A-Za-z0-9._-]*", "a model's name, or a path with a slash", slash_is_path=True
        ),
    ] = "tiny.en"
    """Name of a pulled model, or an absolute path when it holds a slash."""

    language: Annotated[str | None, Pattern(r"[a-z]{2,3}", "a language code such as en, de or yue")] = None
    """What is spoken; None is the language of the grammar, or English without one."""

    threads: Annotated[int | None, Range(1, 16)] = None
    """None is one less than the cores, see thread_count."""

    beam: Annotated[int, Range(1, 16)] = 8
    """Sentences followed at once."""

    @property
    def thread_count(self) -> int:
        """Threads to use, 1-16: as configured, or the cores this process may use less one for the audio."""
        if self.threads is not None:
            return self.threads
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(max(cores - 1, 1), 16)


@dataclass(frozen=True, slots=True)
class GrammarConfig:
    """What may be said."""

    file: Path | None = None
    """Sentence templates; None is the grammar shipped with edgevoice for the language of the model."""

    choices: Mapping[str, Path] = field(default_factory=dict)
    """Other files that can be chosen over MQTT, by name."""

    context: Mapping[str, str] = field(default_factory=dict)
    """What is known before anything is said, for requires_context and excludes_context of the grammar."""


@dataclass(frozen=True, slots=True)
class VadConfig:
    """Voice activity detection."""

    threshold: Annotated[float, Range(0, 1)] = 0.5
    """Probability from which a frame is speech."""


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """Where an utterance begins and ends."""

    pre_roll_ms: Annotated[int, Range(0, 2000)] = 300
    """Audio kept from before the first speech."""

    min_speech_ms: Annotated[int, Range(0, 2000)] = 100
    """Speech shorter than this is a click."""

    mode: Literal["grammar", "fixed"] = "grammar"
    """Whether what was said so far decides how long a silence ends it."""

    silence_ms: Annotated[int, Range(160, 5000)] = 500
    """Silence that ends an utterance; in mode "grammar" a sentence that can go on."""

    finished_ms: Annotated[int, Range(100, 5000)] = 200
    """Silence that ends a sentence that cannot go on."""

    unfinished_ms: Annotated[int, Range(100, 5000)] = 1200
    """Silence that ends what is no sentence yet."""

    max_utterance_s: Annotated[float, Range(1, 28)] = 15.0
    """Longer speech is cut; Whisper hears 30 s, of which padding needs some."""


@dataclass(frozen=True, slots=True)
class RecognitionConfig:
    """How an utterance is understood, and when a sentence is believed."""

    mode: Literal["grammar", "prompt", "free"] = "grammar"
    """What the decoder is told: only sentences of the grammar; examples of them; nothing."""

    min_confidence: Annotated[float, Range(0, 1)] = 0.5
    timeout_s: Annotated[float, Range(0.1, 300)] = 10.0
    """One recognition is given up after this time."""


class Phrase(Pattern):
    """Words in the syntax of the grammar, without lists and rules."""

    def accepts(self, value: object) -> bool:
        """Whether it can be compiled; other types are not this constraint's business."""
        from edgevoice import wake  # noqa: PLC0415 - it takes hassil, which only a phrase needs

        return not isinstance(value, str) or wake.parse(value) is not None


@dataclass(frozen=True, slots=True)
class WakeConfig:
    """Which of what is said is meant for us."""

    mode: Literal["always", "phrase", "model", "push_to_talk"] = "always"
    """All of it, what begins with a phrase, what a model wakes for, or what is asked for over MQTT."""

    phrase: Annotated[
        str | None,
        Phrase("", "words as in a sentence of the grammar, without lists and rules, as (hey|ok) jarvis"),
    ] = None
    """None are the words of the model."""

    model: Annotated[
        str | None,
        Pattern(
            "alexa|hey_jarvis|hey_mycroft|hey_rhasspy|okay_nabu",
            "alexa, hey_jarvis, hey_mycroft, hey_rhasspy, okay_nabu",
        ),
    ] = None
    window_s: Annotated[float, Range(1, 60)] = 5.0
    """How long to wait for a command after the wake word alone, or after a push of the button."""


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Encryption to the broker."""

    enabled: bool = False
    ca_file: Path | None = None
    """Certificates that may sign the broker's; None are the system's."""

    cert_file: Path | None = None
    """Our own certificate, for a broker that asks for one."""

    key_file: Path | None = None
    """Its key; None: in the same file."""


@dataclass(frozen=True, slots=True)
class MqttConfig:
    """The broker intents are published to. The password is no field: see mqtt_password()."""

    host: Annotated[
        str | None, Pattern(r"[A-Za-z0-9._:%-]{1,253}", "a host name or address without scheme")
    ] = None
    """None publishes nothing."""

    port: Annotated[int, Range(1, 65535)] = 1883
    username: str | None = None
    password_file: Path | None = None
    client_id: str | None = None
    """None derives one from the site."""

    tls: TlsConfig = field(default_factory=TlsConfig)
    keepalive_s: Annotated[int, Range(5, 65535)] = 30
    intent_expiry_s: Annotated[int, Range(1, 3600)] = 5
    """The broker drops intents not delivered within this time: MQTT counts whole seconds."""

    connect_timeout_s: Annotated[float, Range(0.1, 120)] = 5.0
    health_interval_s: Annotated[int, Range(0, 86_400)] = 60
    """Between two reports on the topic health; 0: none."""

    settle_ms: Annotated[int, Range(0, 1_000)] = 0
    """How long to wait for other sites that heard the same; 0: they do not count."""


@dataclass(frozen=True, slots=True)
class WyomingConfig:
    """The server for Home Assistant and satellites."""

    listen: Annotated[
        str | None,
        Pattern(
            r"tcp://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}|unix:///.{1,100}",
            "tcp://HOST:PORT or unix:///PATH",
        ),
    ] = None
    """None serves nobody."""

    refused: Literal["empty", "heard"] = "empty"
    """What is answered when no sentence of the grammar was said: nothing, or what Whisper hears."""

    announce: bool = False
    """By multicast DNS, so that Home Assistant finds it."""


@dataclass(frozen=True, slots=True)
class HermesConfig:
    """The protocol of Rhasspy and Snips, over the same broker."""

    enabled: bool = False


@dataclass(frozen=True, slots=True)
class HomeAssistantConfig:
    """How Home Assistant finds us, over the same broker."""

    discovery: bool = False
    """Whether it is told of a device with our intents and settings."""

    prefix: Annotated[
        str,
        Pattern(r"[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,4}", "letters, digits, - _, with / between"),
    ] = "homeassistant"
    """Where it looks for devices."""


class Command(Pattern):
    """A program and its arguments, as a shell would split them."""

    def accepts(self, value: object) -> bool:
        """Whether it can be split; other types are not this constraint's business."""
        try:
            return not isinstance(value, str) or bool(shlex.split(value))
        except ValueError:  # a quote that does not end
            return False


_COMMAND: Final = Command("", "a program and its arguments, with every quote ended")


@dataclass(frozen=True, slots=True)
class FeedbackConfig:
    """What people hear and see of what became of their commands."""

    chime: Annotated[str | None, _COMMAND] = None
    """Program that plays a sound for {kind}."""

    say: Annotated[str | None, _COMMAND] = None
    """Program that speaks what it reads from its standard input, in {language}."""

    run: Annotated[str | None, _COMMAND] = None
    """Program that makes no sound, run for each {kind}, and when somebody is heard."""

    led: Annotated[
        str | None,
        Pattern(r".*/.*|[^/\s]{1,100}", "an LED's name, or a path with a slash", slash_is_path=True),
    ] = None
    """Below /sys/class/leds, which shows the same."""

    publish: bool = False
    """Whether it is told on the topic feedback, too."""


@dataclass(frozen=True, slots=True)
class RecordsConfig:
    """What is kept of each utterance, on this machine."""

    keep: Annotated[int, Range(0, 100_000)] = 0
    """How many; 0: nothing."""

    max_mb: Annotated[int, Range(1, 1_000_000)] = 100
    max_age_days: Annotated[float, Range(0.01, 3650)] = 7
    audio: bool = True
    """Whether the sound is kept, too."""

    folder: Path | None = None
    """None is `records` in the user's folder for state."""


@dataclass(frozen=True, slots=True)
class WebConfig:
    """The page in a browser, and the metrics."""

    listen: Annotated[
        str | None, Pattern(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}", "HOST:PORT")
    ] = None
    """None serves nobody."""

    password_file: Path | None = None
    """With what `edgevoice web password` has made of the password."""

    name: Annotated[str | None, Pattern(r"[A-Za-z0-9._-]{1,253}", "a host name")] = None
    """By which browsers may call this machine, beside its address and localhost."""

    edit: bool = False
    """Whether the page may write the grammar's file."""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        host = (self.listen or "").rpartition(":")[0].strip("[]")
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What is logged."""

    level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True)
class Config:
    """Every option; Config() is all defaults. Built by load(), which alone checks constraints."""

    site: Annotated[str, Pattern(r"[A-Za-z0-9_.-]{1,64}", "1 to 64 letters, digits or - _ .")] = "default"
    """Name of this place, a level of the MQTT topics."""

    audio: AudioConfig = field(default_factory=AudioConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    grammar: GrammarConfig = field(default_factory=GrammarConfig)
    vad: VadConfig = field(default_factory=VadConfig)
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    recognition: RecognitionConfig = field(default_factory=RecognitionConfig)
    wake: WakeConfig = field(default_factory=WakeConfig)
    mqtt: MqttConfig = field(default_factory=MqttConfig)
    wyoming: WyomingConfig = field(default_factory=WyomingConfig)
    hermes: HermesConfig = field(default_factory=HermesConfig)
    home_assistant: HomeAssistantConfig = field(default_factory=HomeAssistantConfig)
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    records: RecordsConfig = field(default_factory=RecordsConfig)
    web: WebConfig = field(default_factory=WebConfig)
    log: LogConfig = field(default_factory=LogConfig)


@dataclass(frozen=True, slots=True)
class _Rule:
    """A condition between options; broken, it is reported at the line of the first."""

    keys: tuple[str, ...]
    holds: Callable[[Config], bool]
    text: str


_RULES: Final = (
    *(
        _Rule(
            (f"mqtt.tls.{name}", "mqtt.tls.enabled"),
            lambda c, name=name: getattr(c.mqtt.tls, name) is None or c.mqtt.tls.enabled,  # type: ignore[misc]
            "has no effect while mqtt.tls.enabled is false; set that to true or this to null",
        )
        for name in ("ca_file", "cert_file", "key_file")
    ),
    _Rule(
        ("mqtt.tls.key_file", "mqtt.tls.cert_file"),
        lambda c: c.mqtt.tls.key_file is None or c.mqtt.tls.cert_file is not None,
        "has no effect without mqtt.tls.cert_file; name the certificate, too",
    ),
    _Rule(
        ("model.language", "model.name"),
        lambda c: c.model.language in (None, "en") or not re.search(r"\.en(\.bin)?$", c.model.name),
        "a model whose name ends in .en understands only en; take one without .en, such as base",
    ),
    _Rule(
        ("wake.mode", "wake.phrase"),
        lambda c: c.wake.mode != "phrase" or c.wake.phrase is not None,
        "phrase needs a wake.phrase; add one, such as hey jarvis",
    ),
    _Rule(
        ("wake.mode", "wake.model"),
        lambda c: c.wake.mode != "model" or c.wake.model is not None,
        "model needs a wake.model; add one, such as hey_jarvis",
    ),
    _Rule(
        ("wake.phrase", "wake.mode"),
        lambda c: c.wake.phrase is None or c.wake.mode in ("phrase", "model"),
        "has no effect unless wake.mode is phrase or model; set that, or this to null",
    ),
    _Rule(
        ("wake.model", "wake.mode"),
        lambda c: c.wake.model is None or c.wake.mode == "model",
        "has no effect unless wake.mode is model; set that, or this to null",
    ),
    _Rule(
        ("wake.mode", "mqtt.host"),
        lambda c: c.wake.mode != "push_to_talk" or c.mqtt.host is not None,
        "push_to_talk is pushed over MQTT; set mqtt.host to your broker",
    ),
    _Rule(
        ("hermes.enabled", "mqtt.host"),
        lambda c: not c.hermes.enabled or c.mqtt.host is not None,
        "Hermes is spoken over MQTT; set mqtt.host to your broker",
    ),
    _Rule(
        ("home_assistant.discovery", "mqtt.host"),
        lambda c: not c.home_assistant.discovery or c.mqtt.host is not None,
        "Home Assistant is told over MQTT; set mqtt.host to your broker",
    ),
    _Rule(
        ("feedback.publish", "mqtt.host"),
        lambda c: not c.feedback.publish or c.mqtt.host is not None,
        "it is published over MQTT; set mqtt.host to your broker",
    ),
    _Rule(
        ("audio.enabled", "wyoming.listen", "web.listen"),
        lambda c: c.audio.enabled or c.wyoming.listen is not None or c.web.listen is not None,
        "without a microphone, only who connects to wyoming.listen or web.listen is heard; set one of them, "
        "or this to true",
    ),
    _Rule(
        ("wyoming.refused", "wyoming.listen"),
        lambda c: c.wyoming.refused == "empty" or c.wyoming.listen is not None,
        "has no effect without wyoming.listen; set that, such as tcp://127.0.0.1:10300, or this to empty",
    ),
    _Rule(
        ("wyoming.announce", "wyoming.listen"),
        lambda c: not c.wyoming.announce or (c.wyoming.listen or "").startswith("tcp:"),
        "only what listens on tcp:// can be announced; set wyoming.listen to that, or this to false",
    ),
    _Rule(
        ("web.listen", "web.password_file"),
        lambda c: c.web.listen is None or c.web.loopback or c.web.password_file is not None,
        "others than this machine can reach it, and there is no password; set web.password_file, or listen "
        "on 127.0.0.1",
    ),
    *(
        _Rule(
            (f"web.{name}", "web.listen"),
            lambda c, name=name: getattr(c.web, name) is None or c.web.listen is not None,  # type: ignore[misc]
            "has no effect without web.listen; set that, such as 127.0.0.1:8490, or this to null",
        )
        for name in ("password_file", "name")
    ),
    _Rule(
        ("web.edit", "web.listen"),
        lambda c: not c.web.edit or c.web.listen is not None,
        "has no effect without web.listen; set that, such as 127.0.0.1:8490, or this to false",
    ),
    _Rule(
        (
            "endpoint.max_utterance_s",
            *("endpoint.pre_roll_ms", "endpoint.min_speech_ms"),
            *("endpoint.silence_ms", "endpoint.finished_ms", "endpoint.unfinished_ms"),
        ),
        lambda c: (
            c.endpoint.pre_roll_ms
            + c.endpoint.min_speech_ms
            + max(c.endpoint.silence_ms, c.endpoint.finished_ms, c.endpoint.unfinished_ms)
            < c.endpoint.max_utterance_s * 1000
        ),
        "leaves no room for speech beside pre_roll_ms, min_speech_ms and the longest silence (silence_ms, "
        "finished_ms or unfinished_ms); make it longer",
    ),
)


def find_config(argument: Path | None = None) -> Path | None:
    """The file to load: the argument, $EDGEVOICE_CONFIG, the user's, the system's, or None for the defaults.

    The first two are returned even if they do not exist: load() then says so.
    """
    if argument is not None:
        return argument
    if variable := os.environ.get(PATH_VARIABLE):
        return Path(variable)
    candidates = (platformdirs.user_config_path("edgevoice") / "edgevoice.yaml", SYSTEM_FILE)
    return next((path for path in candidates if path.is_file()), None)


def load(path: Path | None) -> Config:
    """Reads and checks a configuration file; None gives the defaults.

    Relative paths in the file become absolute, starting at the file's folder.

    Raises:
        ConfigError: the file cannot be read, or has problems; the text holds one line for each.
    """
    if path is None:
        return Config()
    text = _read_text(path)
    check = _Check(path)
    for number, content in enumerate(text.split("\n"), 1):
        if re.match(r" *\t", content):
            check.problem(number, "indentation", "tab seen; allowed are spaces; replace the tab by spaces")
    check.stop_at_problems()
    config = check.section(Config, check.compose(text), "")
    for rule in _RULES:
        if not check.refused.intersection(rule.keys) and not rule.holds(config):
            line = next((check.lines[key] for key in rule.keys if key in check.lines), 1)
            check.problem(line, rule.keys[0], rule.text)
    check.stop_at_problems()
    return config


def default_text() -> str:
    """The shipped commented file."""
    return DEFAULT_YAML.read_text(encoding="utf-8")


def dump(config: Config) -> str:
    """Effective values as YAML that load() reads back to an equal Config. Holds no password."""
    values = dataclasses.asdict(
        config, dict_factory=lambda items: {key: _plain(value) for key, value in items}
    )
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def mqtt_password(config: Config) -> str | None:
    """The broker's password: $EDGEVOICE_MQTT_PASSWORD if set, else password_file's content, else None.

    One newline at the end of the file is dropped. A file others can read is used with a warning.

    Raises:
        ConfigError: the file cannot be read, or is no password.
    """
    if variable := os.environ.get(PASSWORD_VARIABLE):
        return variable
    path = config.mqtt.password_file
    if path is None:
        return None
    try:
        # A line end of two bytes, and one byte too many.
        content = read_regular_file(path, _MAX_PASSWORD_BYTES + 3)
        mode = path.stat().st_mode
        password = content.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ConfigError(
            f"mqtt.password_file: {path} cannot be read: {error.strerror}; correct the path"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(
            f"mqtt.password_file: {path} is not UTF-8 text; write the password as text"
        ) from None
    if not 0 < len(password.encode()) <= _MAX_PASSWORD_BYTES or not password.isprintable():
        raise ConfigError(
            f"mqtt.password_file: {path} holds {len(content)} bytes that are no password; "
            f"write one line of 1 to {_MAX_PASSWORD_BYTES} bytes"
        )
    if mode & stat.S_IROTH:
        _log.warning("mqtt.password_file: every user can read %s; run: chmod o-r %s", path, path)
    return password


def check_files(config: Config) -> None:
    """Check that the files a configuration names can be read.

    Raises:
        ConfigError: one line for each that cannot.
    """
    problems: list[str] = []
    for key, path in (
        ("grammar.file", config.grammar.file),
        *((f"grammar.choices.{name}", path) for name, path in config.grammar.choices.items()),
        ("mqtt.password_file", config.mqtt.password_file),
        ("mqtt.tls.ca_file", config.mqtt.tls.ca_file),
        ("mqtt.tls.cert_file", config.mqtt.tls.cert_file),
        ("mqtt.tls.key_file", config.mqtt.tls.key_file),
        ("web.password_file", config.web.password_file),
    ):
        try:
            if path is not None:
                read_regular_file(path, 1)
        except OSError as error:
            problems.append(f"{key}: {path} cannot be read: {error.strerror}; correct the path")
    if problems:
        raise ConfigError("\n".join(problems))


def read_regular_file(path: Path, limit_bytes: int) -> bytes:
    """The first bytes of a file; never waits for a pipe, never reads a device.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    # Opening a pipe waits for its other end, so the kind is asked for first; folders open() refuses itself.
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    with path.open("rb") as file:
        return file.read(limit_bytes)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return str(value) if isinstance(value, Path) else value


def _read_text(path: Path) -> str:
    try:
        content = read_regular_file(path, _MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: cannot be read: {reason}; give an existing file") from None
    if len(content) > _MAX_BYTES:
        raise ConfigError(
            f"{path}: has more than {_MAX_BYTES} bytes, which is no configuration; give another file"
        )
    try:
        return content.decode("utf-8-sig")  # editors on Windows write the mark
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}:{line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


class _RefusedError(Exception):
    """A value does not fit; the text says what was seen and what is allowed."""


class _NotAllowedError(yaml.YAMLError):
    """YAML that is valid, but not allowed here; args are the text and the event."""


class _Loader(yaml.SafeLoader):
    """Composes nodes only, without aliases (which can grow without bound) and without deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _NotAllowedError("YAML aliases (*name) are not allowed", event)
        if self.depth >= _MAX_DEPTH:
            raise _NotAllowedError(f"more than {_MAX_DEPTH} levels are not allowed", event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Section = TypeVar("_Section")


class _Check:
    """One pass over one file: collects problems, and where each option stands."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = Path(os.path.abspath(path)).parent  # noqa: PTH100  resolve() would follow links
        self.lines: dict[str, int] = {}
        self.refused: set[str] = set()
        self._problems: list[tuple[int, str]] = []

    def problem(self, line: int, key: str, text: str) -> None:
        self.refused.add(key)
        self._problems.append((line, f"{self.path}:{line}: {key}: {text}"))
        if len(self._problems) >= _MAX_PROBLEMS:
            self._problems.append((line, f"{self.path}:{line}: too many problems; the rest was not checked"))
            self.stop_at_problems()

    def stop_at_problems(self) -> None:
        if self._problems:
            raise ConfigError("\n".join(text for _, text in sorted(self._problems, key=lambda item: item[0])))

    def compose(self, text: str) -> yaml.Node | None:
        """The file's only document, None if it is empty."""
        try:
            loader = _Loader(text)
            return loader.get_single_node()
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            said = f"character U+{error.character:04X} is not allowed in YAML"
        except _NotAllowedError as error:
            said, event = error.args
            line = event.start_mark.line + 1
        except yaml.MarkedYAMLError as error:  # its str() would quote the line, which may hold a secret
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            said = error.problem or "is not YAML"
        raise ConfigError(
            f"{self.path}:{line}: {said}; correct the YAML here or on the lines before"
        ) from None

    def section(self, cls: type[_Section], node: yaml.Node | None, prefix: str) -> _Section:
        """A dataclass from a mapping; refused values keep their default, so that checking goes on."""
        values: dict[str, object] = {}
        if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == _YAML_TAG + "null"):
            return cls()  # all of its options commented out
        if not isinstance(node, yaml.MappingNode):
            name = prefix.rstrip(".") or "file"
            self.problem(
                _line(node), name, f"{_shown(node)} seen; allowed are options as `name: value`; write them so"
            )
            return cls()
        hints = get_type_hints(cls, include_extras=True)
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = _line(key_node)
            name = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            key = prefix + name
            if name in seen:
                self.problem(
                    line,
                    _clean(key),
                    f"seen before on line {seen[name]}; allowed is once; delete one of them",
                )
                continue
            seen[name] = self.lines[key] = line
            if name not in hints:
                self.problem(line, _clean(key), _unknown(name, prefix, hints))
            elif dataclasses.is_dataclass(hints[name]):
                values[name] = self.section(hints[name], value_node, key + ".")
            else:
                try:
                    values[name] = _convert(hints[name], value_node, self.folder)
                except _RefusedError as error:
                    self.problem(_line(value_node), key, str(error))
        return cls(**values)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _clean(text: str) -> str:
    """Text of the file for a message: short, printable, and of user:password@host only the host."""
    masked = re.sub(r"[^@\s]*@", "...@", text)
    return masked if masked.isprintable() and len(masked) <= 60 else ascii(masked[:60])


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return _clean(node.value) or "empty text"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a group of options"


def _unknown(name: str, prefix: str, hints: dict[str, Any]) -> str:
    if name.lower() in {"password", "passwd", "pass"}:
        return (
            "seen; a password is not allowed here, where it would be shown to others; "
            f"put it into a file of its own and name that in mqtt.password_file, or set {PASSWORD_VARIABLE}"
        )
    full = _keys(Config)
    near = [prefix + match for match in difflib.get_close_matches(name, hints, n=1)]
    near = near or [key for key in full if key.rpartition(".")[2] == name]
    near = near or difflib.get_close_matches(prefix + name, full, n=1)
    hint = f"did you mean {near[0]}?" if near else "delete it"
    return f"unknown option; allowed here are {', '.join(hints)}; {hint}"


def _keys(cls: Any, prefix: str = "") -> list[str]:
    """Dotted names of every option below a section."""
    keys: list[str] = []
    for name, hint in get_type_hints(cls).items():
        keys += _keys(hint, f"{prefix}{name}.") if dataclasses.is_dataclass(hint) else [prefix + name]
    return keys


def _convert(hint: Any, node: yaml.Node, folder: Path) -> object:
    """The value of a node if it is of the annotated type and within the constraints, else _RefusedError."""
    if get_origin(hint) is Mapping:
        texts = _texts(node)
        if Path in get_args(hint):
            return {name: _path(text, folder) for name, text in texts.items()}
        return texts
    base, *limits = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    choices = get_args(base) if get_origin(base) is Literal else ()
    kinds: set[Any] = {str} if choices else set(get_args(base)) if isinstance(base, UnionType) else {base}
    accepts_text = not kinds.isdisjoint({str, Path})
    value = _scalar(node)
    if type(value) is int and float in kinds:
        value = float(value)
    if isinstance(value, str):
        fits = (
            accepts_text and value.isprintable() and value.strip() != "" and (not choices or value in choices)
        )
    else:
        fits = type(value) in kinds  # exactly: True is an int to isinstance
    if not fits or not all(limit.accepts(value) for limit in limits):
        quotes = (
            accepts_text
            and isinstance(node, yaml.ScalarNode)
            and value is not None
            and not isinstance(value, str)
        )
        advice = "put text in quotes" if quotes and int not in kinds else "correct the value"
        raise _RefusedError(f"{_shown(node)} seen; allowed is {_allowed(kinds, choices, limits)}; {advice}")
    if isinstance(value, str) and Path in kinds:
        return _path(value, folder)
    if (
        isinstance(value, str)
        and "/" in value
        and any(getattr(limit, "slash_is_path", False) for limit in limits)
    ):
        return str(_path(value, folder))
    return value


def _texts(node: yaml.Node) -> dict[str, str]:
    """The texts of a mapping, by name."""
    allowed = "allowed are lines as `name: text`; put numbers, true and false in quotes"
    if not isinstance(node, yaml.MappingNode):
        raise _RefusedError(f"{_shown(node)} seen; {allowed}")
    texts: dict[str, str] = {}
    for pair in node.value:
        for each in pair:
            text = _scalar(each)
            if not isinstance(text, str) or not text.isprintable() or not text.strip():
                raise _RefusedError(f"{_shown(each)} seen; {allowed}")
        name = pair[0].value
        if name in texts:
            raise _RefusedError(f"{_clean(name)} seen twice; allowed is once; delete one of them")
        texts[name] = pair[1].value
    return texts


def _path(text: str, folder: Path) -> Path:
    try:
        return folder / Path(text).expanduser()
    except RuntimeError:  # ~name of nobody
        raise _RefusedError(
            f"{_clean(text)} seen; the home folder of that user is unknown; write it out"
        ) from None


def _scalar(node: yaml.Node) -> object:
    """None, bool, int, float or str; the node itself if it is anything else.

    YAML 1.1 reads 0123 as octal and 12:30 as 750: only plain decimal numbers are taken, the rest is refused.
    """
    if not isinstance(node, yaml.ScalarNode):
        return node
    text = node.value
    value: object = node
    match node.tag.removeprefix(_YAML_TAG):
        case "null":
            value = None
        case "bool" if text.lower() in yaml.SafeLoader.bool_values:
            value = yaml.SafeLoader.bool_values[text.lower()]
        case "int" if re.fullmatch(r"[-+]?(0|[1-9][0-9]{0,17})", text):
            value = int(text)
        case "float" if re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text):
            value = float(text)
        case "str":
            value = str(text)
    return value


def _allowed(kinds: set[Any], choices: tuple[str, ...], limits: list[Any]) -> str:
    """The values an option may have, in words."""
    bounds = next(
        (f" from {limit.low:g} to {limit.high:g}" for limit in limits if isinstance(limit, Range)), ""
    )
    text = next((limit.words for limit in limits if isinstance(limit, Pattern)), ", ".join(choices) or "text")
    words = {
        bool: "true or false",
        int: "a whole number" + bounds,
        float: "a number" + bounds,
        str: text,
        Path: "the path of a file",
        NoneType: "null",
    }
    return " or ".join(word for kind, word in words.items() if kind in kinds)
