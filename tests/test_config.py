"""The configuration file: defaults, every kind of mistake, where it is looked for, and the password."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgevoice import config as module
from edgevoice.config import (
    DEFAULT_YAML,
    AudioConfig,
    Config,
    EndpointConfig,
    GrammarConfig,
    ModelConfig,
    MqttConfig,
    TlsConfig,
    check_files,
    default_text,
    dump,
    find_config,
    load,
    mqtt_password,
)
from edgevoice.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "edgevoice.yaml"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tester's own settings play no part."""
    for name in ("EDGEVOICE_CONFIG", "EDGEVOICE_MQTT_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def problems(file: Path, text: str | bytes) -> list[str]:
    """Lines of the error, without the folder."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load(file)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{file}:") for line in lines), lines
    return [line.removeprefix(f"{file.parent}/") for line in lines]


def names(value: Any, prefix: str = "") -> set[str]:
    """Dotted names of all leaves of a mapping."""
    if not isinstance(value, dict):
        return {prefix.rstrip(".")}
    return set().union(*(names(item, f"{prefix}{key}.") for key, item in value.items()))


def test_the_shipped_file_is_the_defaults() -> None:
    """default.yaml parses to exactly Config() and shows every option, so defaults live in one place."""
    assert load(DEFAULT_YAML) == Config() == load(None)
    assert names(yaml.safe_load(default_text())) == names(dataclasses.asdict(Config()))


def test_every_option_of_the_shipped_file_is_explained() -> None:
    """The line before each option is a comment, a blank line's comment block, or a section's name."""
    lines = default_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if ": " in line and not line.lstrip().startswith("#"):
            assert before.lstrip().startswith("#"), line


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("audio: {enabled: false}", "audio.enabled"),
        ("wyoming: {refused: heard}", "wyoming.refused"),
        ("wyoming: {announce: true}", "wyoming.announce"),
        ("wyoming: {listen: 'unix:///run/x', announce: true}", "wyoming.announce"),
        ("web: {listen: 8490}", "web.listen"),
        ("web: {listen: 'http://127.0.0.1:8490'}", "web.listen"),
        ("web: {listen: '0.0.0.0:8490'}", "web.listen"),  # without a password
        ("web: {listen: 'kitchen:8490'}", "web.listen"),
        ("web: {password_file: p}", "web.password_file"),
        ("web: {name: kitchen.local}", "web.name"),
        ("web: {edit: true}", "web.edit"),
        ("wyoming: {listen: 10300}", "wyoming.listen"),
        ("wyoming: {listen: 'http://127.0.0.1:10300'}", "wyoming.listen"),
        ("wyoming: {listen: 'tcp://127.0.0.1'}", "wyoming.listen"),
        ("wyoming: {listen: 'unix://'}", "wyoming.listen"),
    ],
)
def test_what_a_server_cannot_be(file: Path, text: str, key: str) -> None:
    """Options without effect, and addresses that are none."""
    (problem,) = problems(file, text)
    assert f":1: {key}: " in problem


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:10300", "tcp://[::1]:1", "tcp://attic:0", "unix:///a/b"]
)
def test_addresses_of_a_server(file: Path, address: str) -> None:
    """With it, no microphone is needed."""
    file.write_text(f"audio: {{enabled: false}}\nwyoming: {{listen: '{address}'}}\n")
    assert load(file).wyoming.listen == address


@pytest.mark.parametrize(
    ("address", "password"),
    [("127.0.0.1:8490", False), ("localhost:0", False), ("[::1]:8490", False), ("0.0.0.0:8490", True)],
)
def test_addresses_of_the_page(file: Path, address: str, password: bool) -> None:
    """Only what others can reach needs a password."""
    file.write_text(f"web: {{listen: '{address}'{', password_file: p' if password else ''}}}\n")
    assert load(file).web.listen == address


def test_empty_files_and_sections_are_the_defaults(file: Path) -> None:
    """A section whose options are all commented out keeps its defaults; so does a whole file."""
    for text in ("", "# nothing\n", "---\n", "mqtt:\n  # host: broker\naudio:\n", "\ufeffaudio:\r\n"):
        file.write_text(text, encoding="utf-8")
        assert load(file) == Config()


def test_values_are_read(file: Path) -> None:
    """Values replace defaults, whole numbers do for seconds, and paths start at the file's folder."""
    file.write_text(
        "site: Kitchen-1.b_2\n"
        "audio: {device: 3, channel: 1}\n"
        "model: {name: ./my.bin, language: de}\n"
        "grammar: {file: sub/home.yaml}\n"
        "endpoint: {max_utterance_s: 20}\n"
        "mqtt:\n"
        "  host: fe80::1%eth0\n"
        "  password_file: /run/secret\n"
        "  tls: {enabled: true, ca_file: ../ca.pem}\n",
        encoding="utf-8",
    )
    config = load(file)
    folder = file.parent
    assert config == Config(
        site="Kitchen-1.b_2",
        audio=AudioConfig(device=3, channel=1),
        model=ModelConfig(name=str(folder / "my.bin"), language="de"),
        grammar=GrammarConfig(file=folder / "sub/home.yaml"),
        endpoint=EndpointConfig(max_utterance_s=20.0),
        mqtt=MqttConfig(
            host="fe80::1%eth0",
            password_file=Path("/run/secret"),
            tls=TlsConfig(enabled=True, ca_file=folder / "../ca.pem"),
        ),
    )
    assert type(config.endpoint.max_utterance_s) is float


def test_relative_paths_do_not_depend_on_how_the_file_was_named(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file named relatively gives the same absolute paths."""
    file.write_text("grammar: {file: g.yaml}\n", encoding="utf-8")
    monkeypatch.chdir(file.parent)
    assert load(Path(file.name)) == load(file)
    assert load(file).grammar.file == file.parent / "g.yaml"


def test_files_by_name(file: Path) -> None:
    """Files in a group have paths of the file's folder, too, are checked, and survive being shown."""
    file.write_text("grammar: {choices: {guests: guests.yaml, kids: /absent/kids.yaml}}\n", encoding="utf-8")
    read = load(file)
    assert read.grammar.choices == {"guests": file.parent / "guests.yaml", "kids": Path("/absent/kids.yaml")}
    with pytest.raises(ConfigError, match=r"grammar\.choices\.guests: .* cannot be read.*\n.*choices\.kids"):
        check_files(read)
    file.write_text(dump(read), encoding="utf-8")
    assert load(file) == read
    (line,) = problems(file, "grammar: {choices: {guests: 7}}")
    assert "grammar.choices: 7 seen; allowed are lines" in line


def test_home_folders_in_paths(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """~ is the home folder; that of an unknown user is a problem of the option."""
    monkeypatch.setenv("HOME", "/home/someone")
    file.write_text("grammar: {file: ~/g.yaml}\n", encoding="utf-8")
    assert load(file).grammar.file == Path("/home/someone/g.yaml")
    (line,) = problems(file, "grammar: {file: ~nobody-of-this-name/g.yaml}")
    assert line.startswith("edgevoice.yaml:1: grammar.file: ~nobody-of-this-name/g.yaml seen")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "model: {beam: 17}",
            "model.beam: 17 seen; allowed is a whole number from 1 to 16; correct the value",
        ),
        ("model: {beam: 0}", "model.beam: 0 seen"),
        ("model: {beam: true}", "model.beam: true seen"),
        ("model: {beam: 8.0}", "model.beam: 8.0 seen"),
        ("model: {beam: '8'}", "model.beam: 8 seen"),
        ("model: {beam: null}", "model.beam: null seen"),
        ("model: {beam: }", "model.beam: empty text seen"),
        ("model: {beam: [8]}", "model.beam: a list seen"),
        ("model: {beam: {n: 8}}", "model.beam: a group of options seen"),
        ("model: {beam: 010}", "model.beam: 010 seen"),
        ("model: {beam: 0x8}", "model.beam: 0x8 seen"),
        ("model: {beam: !!int eight}", "model.beam: eight seen"),
        ("model: {beam: !new 8}", "model.beam: 8 seen"),
        ("model: {threads: 17}", "allowed is a whole number from 1 to 16 or null"),
        (
            "model: {language: no}",
            "model.language: no seen; allowed is a language code such as en, de or yue or null; put text",
        ),
        ("model: {language: english}", "model.language: english seen"),
        (
            "model: {name: ''}",
            "model.name: empty text seen; allowed is a model's name, or a path with a slash",
        ),
        ("model: {language: de}", "model.language: a model whose name ends in .en understands only en"),
        ("mqtt: {port: 18:83}", "mqtt.port: 18:83 seen; allowed is a whole number from 1 to 65535"),
        ("mqtt: {host: 'mqtt://broker'}", "allowed is a host name or address without scheme or null"),
        ('mqtt: {client_id: "a\\0b"}', "mqtt.client_id: 'a\\x00b' seen; allowed is text or null"),
        (
            "mqtt: {username: 2026-01-01}",
            "mqtt.username: 2026-01-01 seen; allowed is text or null; put text in quotes",
        ),
        ("mqtt: {tls: {enabled: 1}}", "mqtt.tls.enabled: 1 seen; allowed is true or false"),
        ("wake: {mode: phrase}", "wake.mode: phrase needs a wake.phrase"),
        ("wake: {mode: model}", "wake.mode: model needs a wake.model"),
        ("wake: {mode: push_to_talk}", "wake.mode: push_to_talk is pushed over MQTT; set mqtt.host"),
        ("wake: {phrase: computer}", "wake.phrase: has no effect unless wake.mode is phrase or model"),
        (
            "wake: {mode: phrase, phrase: a, model: alexa}",
            "wake.model: has no effect unless wake.mode is model",
        ),
        (
            "wake: {mode: phrase, phrase: 'hey {name}'}",
            "wake.phrase: hey {name} seen; allowed is words as in",
        ),
        ("wake: {mode: model, model: computer}", "wake.model: computer seen; allowed is alexa, hey_jarvis,"),
        ("mqtt: {tls: {ca_file: a.pem}}", "mqtt.tls.ca_file: has no effect while mqtt.tls.enabled is false"),
        ("vad: {threshold: .nan}", "vad.threshold: .nan seen; allowed is a number from 0 to 1"),
        ("vad: {threshold: .inf}", "vad.threshold: .inf seen"),
        ("vad: {threshold: true}", "vad.threshold: true seen"),
        ("vad: {threshold: 1.01}", "vad.threshold: 1.01 seen"),
        ("vad: {threshold: -1e999}", "vad.threshold: -1e999 seen"),
        ("vad: 0.5", "vad: 0.5 seen; allowed are options as `name: value`"),
        ("vad: [0.5]", "vad: a list seen"),
        ("endpoint: {max_utterance_s: 28.1}", "a number from 1 to 28"),
        (
            "endpoint: {max_utterance_s: 2, silence_ms: 1600}",
            "endpoint.max_utterance_s: leaves no room for speech",
        ),
        (
            "audio: {device: -1}",
            "audio.device: -1 seen; allowed is a whole number from 0 to 999 or text or null",
        ),
        ("audio: {device: true}", "audio.device: true seen"),
        ("audio: {channel: null}", "audio.channel: null seen"),
        (
            "log: {level: INFO}",
            "log.level: INFO seen; allowed is debug, info, warning, error; correct the value",
        ),
        ("log: {level: 5}", "log.level: 5 seen"),
        ("site: a/b", "site: a/b seen; allowed is 1 to 64 letters, digits or - _ ."),
        ("site: " + "x" * 65, "seen; allowed is 1 to 64 letters"),
        ("site: 5", "site: 5 seen; allowed is 1 to 64 letters, digits or - _ .; put text in quotes"),
        ("site: +", "site: + seen"),
        ("- site", "file: a list seen"),
        ("site", "file: site seen"),
        (
            "grammar: {file: 5}",
            "grammar.file: 5 seen; allowed is the path of a file or null; put text in quotes",
        ),
    ],
)
def test_wrong_values_name_line_key_value_and_what_is_allowed(file: Path, text: str, expected: str) -> None:
    """One wrong value gives one line that says all a user needs."""
    (line,) = problems(file, "# one\n\n" + text + "\n")
    assert line.startswith("edgevoice.yaml:3: ")
    assert expected in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mqtt: {hots: broker}", "mqtt.hots: unknown option; allowed here are host, port, username,"),
        ("mqtt: {hots: broker}", "did you mean mqtt.host?"),
        ("host: broker", "did you mean mqtt.host?"),
        ("mqt: {}", "did you mean mqtt?"),
        ("zzzzzz: 1", "delete it"),
        ("1: 2", "1: unknown option"),
        ("<<: {site: x}", "<<: unknown option"),
        ("? [a, b]\n: 1", "?: unknown option"),
        ("audio: {rate_hz: 1}", "audio.rate_hz: unknown option"),
    ],
)
def test_unknown_options_name_the_nearest(file: Path, text: str, expected: str) -> None:
    """A misspelt or misplaced option is an error that says which one was probably meant."""
    (line,) = problems(file, text)
    assert line.startswith("edgevoice.yaml:1: ")
    assert expected in line


def test_a_duplicate_option_names_both_lines(file: Path) -> None:
    """YAML would silently take the last one."""
    assert problems(file, "mqtt:\n  port: 1\nsite: a\nmqtt:\n  port: 2\n") == [
        "edgevoice.yaml:4: mqtt: seen before on line 1; allowed is once; delete one of them"
    ]
    assert "mqtt.port: seen before on line 2" in problems(file, "mqtt:\n  port: 1\n  port: 1\n")[0]


def test_all_problems_are_reported_in_the_order_of_the_file(file: Path) -> None:
    """Nobody repairs a file one error at a time; a refused value causes no second error."""
    lines = problems(
        file,
        "mqtt:\n  tls:\n    enabled: maybe\n    ca_file: x\n  prot: 1\nvad: {threshold: 2}\nsite: ''\n",
    )
    assert [line.split(": ")[:2] for line in lines] == [
        ["edgevoice.yaml:3", "mqtt.tls.enabled"],
        ["edgevoice.yaml:5", "mqtt.prot"],
        ["edgevoice.yaml:6", "vad.threshold"],
        ["edgevoice.yaml:7", "site"],
    ]


def test_passwords_are_refused_and_never_shown(file: Path) -> None:
    """The error says where the password belongs instead, and repeats neither it nor any part of its line."""
    (line,) = problems(file, "mqtt: {password: geheim42}")
    assert "mqtt.password: seen; a password is not allowed here" in line
    assert "mqtt.password_file" in line
    assert "EDGEVOICE_MQTT_PASSWORD" in line
    for text in (
        "mqtt: {password: geheim42}",
        "mqtt: {password: 'geheim42}",
        "mqtt:\n  password: geheim42: x",
        "mqtt: {passwort: geheim42}",
        "mqtt: {host: 'mqtt://me:geheim42@broker'}",
        "mqtt: {host: {password: geheim42}}",
    ):
        assert "geheim42" not in "".join(problems(file, text))


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("site: a\n\tb: 1\n", 2, "tab seen"),
        ("mqtt:\n  \thost: x\n", 2, "tab seen"),
        ("site: 'a\n", 2, "found unexpected end of stream"),
        ("a: b: c\n", 1, "mapping values are not allowed here"),
        ("site: a\n--- \nsite: b\n", 2, "but found another document"),
        ("site: &a x\naudio: {device: *a}\n", 2, "aliases (*name) are not allowed"),
        ("site: a\nlog: \x07\n", 2, "character U+0007 is not allowed"),
        (b"site: a\n# caf\xe9\n", 2, "byte 0xe9 is not UTF-8"),
        ("a: [[[[[[[[[[1]]]]]]]]]]", 1, "more than 8 levels"),
        ("[" * 100_000, 1, "more than 8 levels"),
        ("x: {" * 1000, 1, "more than 8 levels"),
    ],
)
def test_what_is_no_yaml_of_ours_names_the_line(
    file: Path, text: str | bytes, line: int, expected: str
) -> None:
    """Broken, recursive or exotic YAML is one sentence, not a traceback."""
    (said,) = problems(file, text)
    assert said.startswith(f"edgevoice.yaml:{line}: ")
    assert expected in said


def test_alias_bombs_are_refused_at_the_first_alias(file: Path) -> None:
    """Nine levels of nine aliases would be 400 million nodes."""
    text = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
    (said,) = problems(file, text)
    assert said.startswith("edgevoice.yaml:2: YAML aliases")


def test_huge_files_and_floods_of_errors_are_cut_short(file: Path) -> None:
    """A wrong file (a log, a model) is refused at once."""
    (said,) = problems(file, b"#" * 1_000_001)
    assert "more than 1000000 bytes" in said
    lines = problems(file, "".join(f"k{i}: 1\n" for i in range(5000)))
    assert len(lines) == 101
    assert "too many problems" in lines[-1]


def test_unreadable_files(tmp_path: Path) -> None:
    """A missing file and a folder are errors that name the path and the reason."""
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read: No such file"):
        load(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


_YAMLISH = st.lists(
    st.sampled_from(["mqtt", "port", "site", "tls", ":", " ", "\n", *"{}[]&*!|>-#%,?~'\"1.\t\\"])
)


@given(st.binary(max_size=200) | _YAMLISH.map("".join).map(str.encode))
def test_no_file_gives_anything_but_a_config_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Whatever the bytes, load() returns or raises ConfigError."""
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    try:
        assert isinstance(load(file), Config)
    except ConfigError as error:
        assert str(error).startswith(str(file))  # noqa: PT017


def test_dump_reads_back(file: Path) -> None:
    """`config show` prints a file that means the same, with text YAML would mistake in quotes."""
    config = Config(
        site="5",
        model=ModelConfig(name="/m/ä.bin", language="no", threads=2),
        grammar=GrammarConfig(file=Path("/g.yaml")),
        mqtt=MqttConfig(host="10.0.0.1", username="no", tls=TlsConfig(enabled=True, ca_file=Path("/ca.pem"))),
    )
    file.write_text(dump(config), encoding="utf-8")
    assert load(file) == config
    file.write_text(dump(Config()), encoding="utf-8")
    assert load(file) == Config()


def test_find_config_takes_the_first_of_argument_variable_user_and_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named files are taken as named, existing or not; the others only if they exist."""
    system = tmp_path / "etc.yaml"
    user = tmp_path / "xdg" / "edgevoice" / "edgevoice.yaml"
    monkeypatch.setattr(module, "SYSTEM_FILE", system)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert find_config() is None
    system.touch()
    assert find_config() == system
    user.parent.mkdir(parents=True)
    user.touch()
    assert find_config() == user
    monkeypatch.setenv("EDGEVOICE_CONFIG", "named.yaml")
    assert find_config() == Path("named.yaml")
    assert find_config(Path("argument.yaml")) == Path("argument.yaml")


def test_the_password_comes_from_its_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One newline is dropped, spaces stay; the environment goes first; neither is in the Config."""
    secret = tmp_path / "secret"
    config = Config(mqtt=MqttConfig(password_file=secret))
    assert mqtt_password(Config()) is None
    for content in ("ge heim ", "ge heim \n", "ge heim \r\n"):
        secret.write_bytes(content.encode())
        secret.chmod(0o640)
        assert mqtt_password(config) == "ge heim "
    assert "heim" not in repr(config) + dump(config)
    assert caplog.text == ""
    monkeypatch.setenv("EDGEVOICE_MQTT_PASSWORD", "other")
    assert mqtt_password(config) == mqtt_password(Config()) == "other"


def test_a_password_file_everybody_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It works, with a warning that names the file and not the password."""
    secret = tmp_path / "secret"
    secret.write_text("geheim\n", encoding="utf-8")
    secret.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert mqtt_password(Config(mqtt=MqttConfig(password_file=secret))) == "geheim"
    assert f"chmod o-r {secret}" in caplog.text
    assert "geheim" not in caplog.text


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo\n", b"\xff\xfe", b"x" * 65_536, b"a\0b"])
def test_what_is_no_password_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, binary, too long, or more than one line: the error names the file only."""
    secret = tmp_path / "secret"
    secret.write_bytes(content)
    with pytest.raises(ConfigError, match=r"^mqtt\.password_file: .*secret (holds|is not)"):
        mqtt_password(Config(mqtt=MqttConfig(password_file=secret)))


def test_a_missing_password_file_is_an_error(tmp_path: Path) -> None:
    """A service must not log in without the password it was told to use."""
    with pytest.raises(ConfigError, match="absent cannot be read: No such file"):
        mqtt_password(Config(mqtt=MqttConfig(password_file=tmp_path / "absent")))


def test_files_that_are_named_are_checked(file: Path, tmp_path: Path) -> None:
    """Each that cannot be read is a line with its option; files that are there are in order."""
    keys = ("grammar.file", "mqtt.password_file", "mqtt.tls.ca_file")
    file.write_text(
        "grammar: {file: g.yaml}\nmqtt: {password_file: p, tls: {enabled: true, ca_file: c.pem}}\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        check_files(load(file))
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == list(keys)
    assert all("No such file" in line for line in lines)
    for name in ("g.yaml", "p", "c.pem"):
        (tmp_path / name).touch()
    check_files(load(file))
    check_files(Config())


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """A device that never ends and a pipe nobody writes to are refused at once, as file and as password."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (Path("/dev/zero"), pipe):
        with pytest.raises(ConfigError, match="cannot be read: it is no regular file"):
            load(path)
        with pytest.raises(ConfigError, match="cannot be read: it is no regular file"):
            mqtt_password(Config(mqtt=MqttConfig(password_file=path)))


def test_threads_leave_one_core_to_the_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is one less than the cores this process may use, from 1 to 16; a number is taken as it is."""
    for cores, threads in ((1, 1), (2, 1), (4, 3), (64, 16)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _pid, n=cores: set(range(n)))
        assert ModelConfig().thread_count == threads
    assert ModelConfig(threads=4).thread_count == 4
