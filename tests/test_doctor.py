"""`edgevoice doctor`: what each check says of what is in order, doubtful or broken, on real things."""

from __future__ import annotations

import json
import platform
import resource
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgevoice import doctor, kernels, native
from edgevoice.config import AudioConfig, Config, FeedbackConfig, GrammarConfig, ModelConfig, MqttConfig
from edgevoice.doctor import Check, patiently
from edgevoice.events import FRAME_SAMPLES
from edgevoice.testing import Broker, FakeDevice, FakeLed, FakePortAudio, FakeStream, Front, Subscriber
from tests.conftest import running
from tests.test_publish import server

if TYPE_CHECKING:
    from tests.conftest import Edgevoice

NO_ROOT = Path("/nowhere")


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return root


class TestCommand:
    """What people see, and programs."""

    def test_lines(self, edgevoice: Edgevoice) -> None:
        """A line each, below what is not in order what to do; here there is no microphone, so 1."""
        done = edgevoice("doctor")
        lines = done.stdout.decode().splitlines()
        names = [line.split()[1].rstrip(":") for line in lines if not line.startswith(" ")]
        assert names == [
            "configuration", "python", "kernels", "detector", "heat", "clock", "disk", "model", "memory",
            "grammar", "microphone", "feedback", "broker",
        ]  # fmt: skip
        assert all(line.startswith(("ok    ", "warn  ", "fail  ", "      -> ")) for line in lines)
        assert done.returncode == ("fail" in done.stdout.decode())
        assert b"Traceback" not in done.stderr

    def test_json(self, edgevoice: Edgevoice, tmp_path: Path) -> None:
        """The same for programs; without a microphone and with a broker all is in order."""
        with Broker() as running_broker:
            write(
                tmp_path,
                "e.yaml",
                f"audio: {{enabled: false}}\nwyoming: {{listen: 'tcp://127.0.0.1:10300'}}\n"
                f"mqtt: {{host: 127.0.0.1, port: {running_broker.port}}}\n",
            )
            done = edgevoice("doctor", "--json", "--config", tmp_path / "e.yaml")
        checks: list[dict[str, Any]] = json.loads(done.stdout)
        assert [check for check in checks if check["state"] == "fail"] == []
        assert done.returncode == 0
        for check in checks:
            assert set(check) == {"name", "state", "text", "remedy"}
            assert (check["remedy"] is None) == (check["state"] == "ok")

    def test_wrong_configuration(self, edgevoice: Edgevoice, tmp_path: Path) -> None:
        """It is said, and what depends on it is not checked."""
        write(tmp_path, "e.yaml", "audio: {devise: USB}\n")
        done = edgevoice("doctor", "--config", tmp_path / "e.yaml")
        assert done.returncode == 1
        assert b"fail  configuration" in done.stdout
        assert b"e.yaml:1: audio.devise" in done.stdout
        assert b"microphone" not in done.stdout

    def test_without_native_module(self, child_environment: dict[str, str]) -> None:
        """It still runs, and says what to do."""
        program = (
            "import sys\nsys.modules['edgevoice._native'] = None\n"
            "from edgevoice import cli\nsys.exit(cli.main(sys.argv[1:]))"
        )
        with running(child_environment, "doctor", start=("-c", program)) as child:
            out, err = child.communicate(timeout=30)
        assert child.returncode == 1
        assert b"fail  kernels: the native module cannot be loaded" in out
        assert b"-> run: python build_native.py" in out
        assert err == b""


class TestTime:
    """No check holds up the others."""

    def test_hangs(self) -> None:
        """It is given up."""
        end = threading.Event()

        def hang() -> Check:
            end.wait()
            return Check("x", "ok", "")

        check = patiently("x", hang, most_s=0.05)
        end.set()
        assert (check.state, check.text) == ("fail", "no answer within 0.05 s")

    def test_fails(self) -> None:
        """A file that cannot be read is told with its name."""
        check = patiently("x", lambda: Check("x", "ok", Path("/nowhere/x").read_text("utf-8")))
        assert check.state == "fail"
        assert "/nowhere/x" in check.text

    def test_breaks(self) -> None:
        """What nobody has thought of fails this check, and the next one is made."""
        check = patiently("x", lambda: Check("x", "ok", str(1 // 0)))
        assert (check.state, check.text) == ("fail", "ZeroDivisionError: integer division or modulo by zero")
        assert check.remedy is not None


class TestMachine:
    """Checks that need no configuration."""

    @pytest.mark.parametrize(
        ("cpu", "compiled", "state"),
        [
            ("fp asimd asimddp", "CPU : NEON = 1 | ARM_FMA = 1 | DOTPROD = 1 |", "ok"),
            ("fp asimd", "CPU : NEON = 1 | ARM_FMA = 1 |", "ok"),
            ("fp asimd asimdhp asimddp", "CPU : NEON = 1 | ARM_FMA = 1 |", "warn"),
        ],
    )
    def test_kernels(self, monkeypatch: pytest.MonkeyPatch, cpu: str, compiled: str, state: str) -> None:
        """What the processor can and the build does not use is named."""
        monkeypatch.setattr(native, "kernels", lambda: compiled)
        monkeypatch.setattr(kernels, "abilities", lambda _root: frozenset(cpu.split()))
        check = doctor.kernels(Path("/"))
        assert check.state == state
        assert "built for one machine: ARM_FMA" in check.text
        assert "this processor can run " in check.text
        assert ("unused: DOTPROD FP16_VA" in check.text) == (state == "warn")

    @pytest.mark.parametrize(
        ("compiled", "gpus", "state", "text"),
        [
            ("CPU : DEVICES : BLAS = 1 | VULKAN = 0 |", (), "warn", "; VULKAN: no device is found"),
            ("CPU : DEVICES : VULKAN = 1 |", ("Vulkan0: V3D",), "ok", "not commands, on Vulkan0: V3D"),
            ("WHISPER : COREML = 0 | CPU :", (), "ok", "this processor can run"),
        ],
    )
    def test_backends(
        self, monkeypatch: pytest.MonkeyPatch, compiled: str, gpus: tuple[str, ...], state: str, text: str
    ) -> None:
        """What it was built with is named, and what of that finds no device."""
        monkeypatch.setattr(native, "kernels", lambda: compiled)
        monkeypatch.setattr(native, "gpus", lambda: gpus)
        monkeypatch.setattr(kernels, "abilities", lambda _root: frozenset())
        check = doctor.kernels(Path("/"))
        assert check.state == state
        assert text in check.text

    @pytest.mark.parametrize(
        ("there", "chosen", "remedy"),
        [
            (["neon", "dotprod"], "dotprod", None),
            (["neon", "dotprod"], "neon", "unset EDGEVOICE_KERNELS"),
            (["neon"], "neon", "install edgevoice again: its wheel has them"),
        ],
    )
    def test_variants(
        self, monkeypatch: pytest.MonkeyPatch, there: list[str], chosen: str, remedy: str | None
    ) -> None:
        """A wheel's kernels are named, and better ones that this processor could run."""
        able = kernels.VARIANTS["dotprod"].needs
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
        monkeypatch.setattr(kernels, "abilities", lambda _root: able)
        monkeypatch.setattr(kernels, "built", lambda: there)
        monkeypatch.setattr(kernels, "chosen", lambda: chosen)
        check = doctor.kernels(Path("/"))
        assert (check.state, check.remedy) == ("warn" if remedy else "ok", remedy)
        assert f", {chosen}: " in check.text
        assert ("dotprod would be faster" in check.text) == (remedy is not None)

    def test_kernels_of_this_machine(self) -> None:
        """The build here is for this machine."""
        assert doctor.kernels(Path("/")).state == "ok"

    @pytest.mark.parametrize(
        ("throttled", "millidegrees", "state", "text"),
        [
            ("0", "48312", "ok", "48 °C"),
            ("0", "81000", "warn", "81 °C, slowed down or about to be"),
            ("1", "48312", "fail", "48 °C, too little voltage now"),
            ("4", "48312", "warn", "48 °C, slowed down or about to be"),
            ("50000", "48312", "warn", "48 °C, too little voltage at times"),
            ("40000", "48312", "warn", "48 °C, slowed down at times"),
        ],
    )
    def test_heat(self, tmp_path: Path, throttled: str, millidegrees: str, state: str, text: str) -> None:
        """As the firmware of a Raspberry Pi tells it."""
        write(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", throttled)
        write(tmp_path, "sys/class/thermal/thermal_zone0/temp", millidegrees)
        check = doctor.heat(tmp_path)
        assert (check.state, check.text) == (state, text)

    def test_no_sensor(self) -> None:
        """That is no fault."""
        assert doctor.heat(NO_ROOT) == Check("heat", "ok", "no sensor")

    def test_clock(self) -> None:
        """A board without a clock starts in the past; one whose time nobody keeps is doubtful."""
        assert doctor.clock(NO_ROOT).state in ("ok", "warn")  # ask the kernel of who runs this
        past = doctor.clock(NO_ROOT, lambda: 0.0)
        assert (past.state, past.text) == ("fail", "1970-01-01 00:00:00 UTC, before edgevoice was installed")

    def test_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Asked of the folder that will be made; a file system that cannot be written is told."""
        monkeypatch.setenv("EDGEVOICE_MODELS", str(tmp_path / "to" / "be" / "made"))
        assert doctor.disk(NO_ROOT).state == "ok"
        monkeypatch.setenv("EDGEVOICE_MODELS", "/proc/self")  # no room for anything
        assert doctor.disk(NO_ROOT).state == "warn"
        read_only = next(
            (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()
             if line.split()[3].startswith("ro") and Path(line.split()[1]).is_dir()), None
        )  # fmt: skip
        if read_only is not None:
            monkeypatch.setenv("EDGEVOICE_MODELS", read_only)
            assert "read-only" in doctor.disk(NO_ROOT).text


class TestConfigured:
    """Checks of what the configuration names."""

    def test_model(self, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """There and right, absent, or changed since it was pulled."""
        assert doctor.model(Config(), NO_ROOT).state == "ok"
        by_path = Config(model=ModelConfig(name=str(model_path)))
        assert doctor.model(by_path, NO_ROOT).state == "ok"
        monkeypatch.setenv("EDGEVOICE_MODELS", str(tmp_path))
        absent = patiently("model", lambda: doctor.model(Config(), NO_ROOT))
        assert (absent.state, absent.remedy) == ("fail", "run `edgevoice models pull tiny.en`")
        assert doctor.memory(Config(), NO_ROOT).state == "warn"
        (tmp_path / "ggml-tiny.en.bin").write_bytes(b"lmgg")
        changed = patiently("model", lambda: doctor.model(Config(), NO_ROOT))
        assert changed.state == "fail"
        assert "SHA-256" in changed.text

    @pytest.mark.parametrize(
        ("all_kb", "free_kb", "state"),
        [(948_000, 600_000, "ok"), (424_000, 100_000, "warn"), (100_000, 60_000, "fail")],
    )
    def test_memory(self, tmp_path: Path, model_path: Path, all_kb: int, free_kb: int, state: str) -> None:
        """Room for the model, room if others made it, or none."""
        assert model_path.is_file()
        write(tmp_path, "proc/meminfo", f"MemTotal: {all_kb} kB\nMemAvailable: {free_kb} kB\n")
        assert doctor.memory(Config(), tmp_path).state == state

    def test_limited_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A limit of the address space is told."""
        monkeypatch.setattr(resource, "getrlimit", lambda _: (500_000_000, 500_000_000))
        check = doctor.memory(Config(), Path("/"))
        assert (check.state, check.text) == ("warn", "address space is limited to 500 MB")

    def test_grammar(self, tmp_path: Path) -> None:
        """The shipped one is in order; a broken one is told with file and line."""
        assert doctor.grammar(Config(), NO_ROOT).state == "ok"
        write(tmp_path, "g.yaml", "language: en\nintents: {A: {data: [{sentences: ['(open']}]}}\n")
        broken = Config(grammar=GrammarConfig(file=tmp_path / "g.yaml"))
        check = patiently("grammar", lambda: doctor.grammar(broken, NO_ROOT))
        assert check.state == "fail"
        assert "g.yaml" in check.text

    @pytest.mark.parametrize(
        ("amplitude", "state", "text"),
        [
            (0.01, "ok", "Mic: room -4"),
            (0.0, "fail", "which is no sound at all"),
            (1.0, "warn", "peaks are cut off"),
        ],
    )
    def test_microphone(self, amplitude: float, state: str, text: str) -> None:
        """It can be opened, and delivers sound that is neither nothing nor too loud."""

        class Card(FakePortAudio):
            def open(self, **settings: Any) -> FakeStream:
                stream = super().open(**settings)
                noise = np.random.default_rng(1).uniform(-amplitude, amplitude, 40 * FRAME_SAMPLES) * 32_767
                for block in noise.astype("<i2").reshape(40, -1):
                    stream.feed(block.tobytes())
                return stream

        check = doctor.microphone(Config(), NO_ROOT, Card(devices=(FakeDevice("Mic"),)))
        assert check.state == state
        assert text in check.text

    def test_no_microphone(self) -> None:
        """None there, one in use, and none wanted."""
        none = patiently("x", lambda: doctor.microphone(Config(), NO_ROOT, FakePortAudio()))
        assert none.state == "fail"
        used = FakePortAudio(devices=(FakeDevice("Mic"),), open_error="Device unavailable")
        check = doctor.microphone(Config(), NO_ROOT, used)
        assert (check.state, check.text) == ("warn", "another program uses it")
        silent = Config(audio=AudioConfig(enabled=False))
        assert doctor.microphone(silent, NO_ROOT, FakePortAudio()).state == "ok"

    def test_feedback(self, tmp_path: Path) -> None:
        """Programs and light are there; nothing is run, nothing shines."""
        assert doctor.feedback(Config(), NO_ROOT).text == "none"
        FakeLed(tmp_path / "sys" / "class" / "leds" / "ring")
        told = FeedbackConfig(run="touch 'ran {kind}'", led="ring")
        check = doctor.feedback(Config(feedback=told), tmp_path)
        assert (check.state, check.text) == ("ok", "run touch, led ring")
        assert (tmp_path / "sys" / "class" / "leds" / "ring" / "brightness").read_text() == "1\n"
        for wrong, said in (
            (FeedbackConfig(say="absent-program --stdin"), "no program 'absent-program'"),
            (FeedbackConfig(led="bulb"), "this machine has ring"),
        ):
            found = patiently("f", lambda wrong=wrong: doctor.feedback(Config(feedback=wrong), tmp_path))  # type: ignore[misc]
            assert found.state == "fail"
            assert said in found.text
            assert found.remedy


class TestBroker:
    """Real ones."""

    def look(self, port: int, **more: Any) -> Check:
        """Check one on loopback."""
        config = Config(mqtt=MqttConfig(host="127.0.0.1", port=port, connect_timeout_s=0.3, **more))
        return patiently("broker", lambda: doctor.broker(config, NO_ROOT))

    def test_none(self) -> None:
        """Nobody gets the commands."""
        assert doctor.broker(Config(), NO_ROOT).state == "warn"

    def test_takes_us(self) -> None:
        """It does, nothing is published, and who has our client_id keeps its connection."""
        with Broker() as broker, Subscriber(broker.port) as subscriber:
            check = self.look(broker.port, client_id="edgevoice-here")
            assert (check.state, check.text) == ("ok", f"127.0.0.1:{broker.port} takes us, MQTT 5")
            subscriber.publish("last", "")
            assert [message.topic for message in subscriber.wait_for(1)] == ["last"]

    @pytest.mark.parametrize("old", ["refuses", "waits"])
    def test_old(self, old: Any) -> None:
        """One of MQTT 3.1.1 takes us, too."""
        with Broker() as broker, Front(broker.port, old=old) as front:
            assert self.look(front.port).text.endswith("takes us, MQTT 3.1.1")

    def test_refuses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A wrong password is told, and never shown."""
        monkeypatch.setenv("EDGEVOICE_MQTT_PASSWORD", "wr0ng-s3cret")
        with Broker(accounts={"u": "right"}) as broker:
            check = self.look(broker.port, username="u")
        assert (check.state, check.remedy) == ("fail", "check mqtt username and password")
        assert "wr0ng-s3cret" not in str(check)

    def test_hangs_up(self) -> None:
        """It says that it takes us, and then ends the connection at what we ask for."""
        with server(b"\x20\x03\0\0\0") as port:
            check = self.look(port)
        assert (check.state, check.text) == (
            "fail",
            f"127.0.0.1:{port} takes us, but then the connection broke",
        )

    def test_absent(self) -> None:
        """Nobody there, or somebody who says nothing."""
        with socket.create_server(("127.0.0.1", 0)) as mute:
            port: int = mute.getsockname()[1]
            silent = self.look(port)
        absent = self.look(port)
        for check, why in ((silent, "no answer within 0.3 s"), (absent, "connection refused")):
            assert check.state == "fail"
            assert f"127.0.0.1:{port}" in check.text
            assert why in check.text
