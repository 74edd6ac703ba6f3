"""People hear what became of their commands, from real programs; what they say is never part of a command."""

from __future__ import annotations

import itertools
import json
import logging
import shlex
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgevoice import feedback as module
from edgevoice.attention import Attention
from edgevoice.commands import Commands
from edgevoice.config import Config, FeedbackConfig, WakeConfig, load
from edgevoice.errors import ConfigError, UsageError
from edgevoice.events import Interpretation
from edgevoice.feedback import Feedback
from edgevoice.testing import Broker, FakeLed, Subscriber
from tests import schemas
from tests.conftest import running, wait_until
from tests.results import ACCEPTED
from tests.test_end_to_end import pcm, room, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgevoice.events import Samples
    from tests.conftest import Edgevoice, Sample

WRITE: Final = "import sys; open(sys.argv[1], 'a').write(repr((sys.argv[2:], sys.stdin.read())) + '\\n')"
LANGUAGES: Final = ("de", "en", "es", "fr", "it", "nl", "pt")
UNSURE = replace(ACCEPTED, accepted=False, reason="low_confidence")


def command(script: str, *arguments: object) -> str:
    """A program as the configuration names it."""
    return shlex.join([sys.executable, "-c", script, *map(str, arguments)])


class House:
    """Feedback whose programs write down what they are told."""

    def __init__(self, folder: Path, language: str = "en", **more: Any) -> None:
        self.log = folder / "log"
        self.log.touch()
        self.attention = Attention()
        self.published: list[dict[str, Any]] = []
        options = FeedbackConfig(
            chime=command(WRITE, self.log, "chime", "{kind}"),
            say=command(WRITE, self.log, "say", "{language}"),
        )
        wake = WakeConfig(mode="phrase", phrase="computer")
        self.feedback = Feedback(
            Config(**{"feedback": options, "wake": wake, **more}),
            self.attention,
            lambda: language,
            self.published.append,
        )

    @property
    def told(self) -> list[tuple[list[str], str]]:
        """Arguments and standard input of the programs that have run."""
        return [eval(line) for line in self.log.read_text("utf-8").splitlines()]  # noqa: S307 - our own

    def wait(self, count: int) -> list[tuple[list[str], str]]:
        """Wait until so many have run."""
        wait_until(lambda: len(self.told) >= count)
        return self.told


@contextmanager
def house(folder: Path, language: str = "en", **more: Any) -> Iterator[House]:
    made = House(folder, language, **more)
    try:
        yield made
    finally:
        made.feedback.close()


class TestWhat:
    """What is told of what."""

    def test_accepted_and_again(self, tmp_path: Path) -> None:
        """A sound; the words only when somebody wants them again."""
        with house(tmp_path) as it:
            with pytest.raises(UsageError, match="nothing was accepted yet"):
                it.feedback.again()
            it.feedback.tell(ACCEPTED)
            assert it.wait(1) == [(["chime", "accepted"], "")]
            it.feedback.tell(UNSURE)
            it.wait(3)
            it.feedback.again()
            assert it.wait(5)[3:] == [
                (["chime", "accepted"], ""),
                (["say", "en"], "Küche auf zwanzig Grad\n"),
            ]
        assert [fields["again"] for fields in it.published] == [False, False, True]
        for fields in it.published:
            schemas.validator("feedback").validate(fields)

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_unsure(self, tmp_path: Path, language: str) -> None:
        """Whether that was meant, in the language of the grammar."""
        with house(tmp_path, f"{language}-XX") as it:
            it.feedback.tell(replace(UNSURE, text="Turn it on."))
            chime, (arguments, said) = it.wait(2)
        assert chime[0] == ["chime", "refused"]
        assert arguments == ["say", f"{language}-XX"]
        assert "Turn it on?" in said.replace(" ?", "?")

    def test_ambiguous(self, tmp_path: Path) -> None:
        """Of the same words that mean two things, that; else the likelier one is asked for."""
        two = replace(UNSURE, reason="ambiguous", text="Stop.")
        other = Interpretation("Stop.", "Other", {}, {})
        with house(tmp_path) as it:
            it.feedback.tell(replace(two, alternatives=(other,)))
            assert it.wait(2)[1][1] == "That can mean two things: Stop\n"
            it.feedback.tell(replace(two, alternatives=(replace(other, text="Top."),)))
            assert it.wait(4)[3][1] == "Did you mean: Stop?\n"

    @pytest.mark.parametrize(
        ("reason", "mode", "addressed", "told"),
        [
            ("out_of_grammar", "always", True, False),
            ("low_confidence", "always", True, False),
            ("low_confidence", "phrase", False, True),
            ("ambiguous", "always", True, True),
            ("elsewhere", "phrase", True, False),
            ("out_of_grammar", "phrase", True, True),
            ("out_of_grammar", "phrase", False, False),
            ("timeout", "model", True, True),
            ("no_speech", "model", True, False),
            ("too_long", "always", True, False),
            ("elsewhere", "model", True, False),
        ],
    )
    def test_others(self, tmp_path: Path, reason: Any, mode: Any, addressed: bool, told: bool) -> None:
        """What may not have been meant for us, or what another one has answered, makes no sound.

        With `always`, what nearly fits is mostly a television.
        """
        refused = replace(UNSURE, reason=reason, addressed=addressed)
        with house(tmp_path, wake=WakeConfig(mode=mode, phrase="computer")) as it:
            it.feedback.tell(refused)
            it.feedback.tell(ACCEPTED)
            wait_until(lambda: (["chime", "accepted"], "") in it.told)
        kind = "ambiguous" if reason == "ambiguous" else "refused"
        kinds = [fields["kind"] for fields in it.published]
        assert kinds == ([kind, "accepted"] if told else ["accepted"])

    def test_the_wake_phrase(self, tmp_path: Path) -> None:
        """It is not said, lest another edgevoice obeys; and what is nearly it alone is no command."""
        called: dict[str, Any] = {"text": "Hey Jarvis, stop.", "order": "stop."}
        with house(tmp_path) as it:
            it.feedback.tell(replace(UNSURE, **called))
            it.feedback.tell(replace(UNSURE, text="Hey Jarvis.", order="", intent=None))
            it.feedback.tell(replace(ACCEPTED, **called))
            it.feedback.again()
        assert [fields["text"] for fields in it.published] == ["Did you mean: stop?", None, "stop."]

    def test_states(self, tmp_path: Path) -> None:
        """Muted and heard again, lost and found; nothing else."""
        with house(tmp_path, "de") as it:
            for state in ("listening", "muted", "muted", "listening", "speech", "lost", "listening"):
                it.feedback.set_state(state)
        assert [fields["kind"] for fields in it.published] == ["muted", "unmuted", "lost", "found"]
        assert it.published[0]["text"] == "Ich höre nicht mehr zu."

    def test_a_language_without_texts(self, tmp_path: Path) -> None:
        """There is only the sound."""
        with house(tmp_path, "xx") as it:
            it.feedback.tell(UNSURE)
            it.feedback.tell(ACCEPTED)
            wait_until(lambda: (["chime", "accepted"], "") in it.told)
        assert it.published[0]["text"] is None
        assert all(arguments[0] == "chime" for arguments, _ in it.told)

    def test_texts_are_whole(self) -> None:
        """Each language has each text, with a place for the sentence where one belongs."""
        texts = yaml.safe_load(module._TEXTS.read_text("utf-8"))
        assert tuple(texts) == LANGUAGES
        for of_language in texts.values():
            assert set(of_language) == set(texts["en"])
            with_place = {name for name in of_language if "{text}" in of_language[name]}
            assert with_place == {"did_you_mean", "two_meanings"}


class TestSilent:
    """What makes no sound is told more."""

    @staticmethod
    @contextmanager
    def house(folder: Path, mode: Any = "always") -> Iterator[House]:
        """One with nothing but such a program."""
        silent = FeedbackConfig(run=command(WRITE, folder / "log", "{kind}"))
        with house(folder, feedback=silent, wake=WakeConfig(mode=mode, phrase="computer")) as it:
            yield it

    def wait_for(self, it: House, kind: str) -> None:
        """Wait until that is the last it was told: a program takes a while."""
        wait_until(lambda: bool(it.told) and it.told[-1][0] == [kind])

    def test_states(self, tmp_path: Path) -> None:
        """Somebody is heard, and that is over; what became of it says so, too."""
        with self.house(tmp_path) as it:
            for state, told in (("speech", "hearing"), ("recognising", "hearing"), ("listening", "idle")):
                it.feedback.set_state(state)  # type: ignore[arg-type]
                self.wait_for(it, told)
            it.feedback.set_state("speech")
            self.wait_for(it, "hearing")
            it.feedback.tell(ACCEPTED)
            it.feedback.set_state("listening")
            self.wait_for(it, "accepted")
            for state, told in (("muted", "muted"), ("lost", "lost"), ("listening", "found")):
                it.feedback.set_state(state)  # type: ignore[arg-type]
                self.wait_for(it, told)
            assert [arguments[0] for arguments, _ in it.told] == [
                "hearing", "idle", "hearing", "accepted", "muted", "lost", "found",
            ]  # fmt: skip

    def test_with_always(self, tmp_path: Path) -> None:
        """It is told what is refused, too; there is no sound that a television could cause."""
        with self.house(tmp_path) as it:
            it.feedback.tell(UNSURE)
            self.wait_for(it, "refused")
            it.feedback.tell(replace(UNSURE, reason="no_speech"))
            it.feedback.tell(replace(UNSURE, reason="elsewhere"))
            assert it.published == []

    def test_who_is_waited_for(self, tmp_path: Path) -> None:
        """From a push of the button on, or the wake word alone, until it was said or too late."""
        with self.house(tmp_path, "phrase") as it:
            it.attention.listen(5.0)
            self.wait_for(it, "hearing")
            assert it.attention.take(1.0, 2.0)
            self.wait_for(it, "idle")
            it.attention.listen(5.0)
            self.wait_for(it, "hearing")
            it.feedback.set_state("muted")
            self.wait_for(it, "muted")
            it.feedback.set_state("listening")
            self.wait_for(it, "hearing")
            it.attention.hears(5.1)
            self.wait_for(it, "idle")

    def test_it_is_listened_meanwhile(self, tmp_path: Path) -> None:
        """What makes no sound makes nobody deaf."""
        slow = FeedbackConfig(
            run=command(f"import time; open({str(tmp_path / 'on')!r}, 'w'); time.sleep(0.5)")
        )
        with house(tmp_path, feedback=slow) as it:
            it.feedback.set_state("speech")
            wait_until((tmp_path / "on").exists)
            assert it.attention.hears(1.0)


class TestPrograms:
    """Programs that are not as they should be."""

    def test_nothing_is_heard_meanwhile(self, tmp_path: Path) -> None:
        """From before the sound until it has died away."""
        slow = FeedbackConfig(
            chime=command(f"import time; open({str(tmp_path / 'on')!r}, 'w'); time.sleep(0.5)")
        )
        with house(tmp_path, feedback=slow) as it:
            assert it.attention.hears(0.0)
            it.feedback.tell(ACCEPTED)
            wait_until((tmp_path / "on").exists)
            assert not it.attention.hears(1.0)
            times_s = itertools.count(1.4, 0.4)  # as the stream goes on
            wait_until(lambda: it.attention.hears(next(times_s)))

    def test_what_is_said_is_no_option(self, tmp_path: Path) -> None:
        """Nor a command, nor a program."""
        hostile = "--version; $(touch /tmp/x) `id` {kind} {language}"
        with house(tmp_path, "-rf /") as it:
            it.feedback.tell(replace(ACCEPTED, text=hostile))
            it.feedback.again()
            wait_until(lambda: any(arguments[0] == "say" for arguments, _ in it.told))
        assert it.told[-1] == (["say", "en"], f"{hostile}\n")

    def test_one_that_hangs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is ended with its children, told once, and the next one has its turn."""
        monkeypatch.setattr(module, "LONGEST_S", 0.3)
        child = f"import time; time.sleep(1); open({str(tmp_path / 'alive')!r}, 'w')"
        hanging = FeedbackConfig(
            chime=command(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"),
            say=command(WRITE, tmp_path / "log", "say"),
        )
        with house(tmp_path, feedback=hanging) as it:
            for count in (1, 2):
                it.feedback.tell(UNSURE)
                it.wait(count)
        time.sleep(1.2)
        assert not (tmp_path / "alive").exists()
        assert [record.message.count("took longer than 0.3 s") for record in caplog.records] == [1]

    def test_what_it_leaves(self, tmp_path: Path) -> None:
        """What a program has started ends with it: nothing sounds that we would hear."""
        child = f"import time; time.sleep(0.5); open({str(tmp_path / 'alive')!r}, 'w')"
        leaving = FeedbackConfig(
            chime=command(f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"),
            say=command(WRITE, tmp_path / "log", "say"),
        )
        with house(tmp_path, feedback=leaving) as it:
            it.feedback.tell(UNSURE)
            it.wait(1)
            time.sleep(0.7)
        assert not (tmp_path / "alive").exists()

    def test_secrets(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A program has our environment, but not the broker's password."""
        monkeypatch.setenv("EDGEVOICE_MQTT_PASSWORD", "geheim")
        monkeypatch.setenv("ALSA_CARD", "Headset")
        script = f"import os; open({str(tmp_path / 'seen')!r}, 'w').write(repr(dict(os.environ)))"
        with house(tmp_path, feedback=FeedbackConfig(chime=command(script))) as it:
            it.feedback.tell(ACCEPTED)
            wait_until(lambda: (tmp_path / "seen").exists() and "Headset" in (tmp_path / "seen").read_text())
        assert "geheim" not in (tmp_path / "seen").read_text()

    @pytest.mark.parametrize(
        ("chime", "said"),
        [
            ("/absent/program {kind}", "feedback.chime: /absent/program cannot be run: No such file"),
            (command("raise SystemExit(3)"), "failed with 3; try as the user that runs edgevoice: "),
            (command("import sys; sys.exit('no\\ncard')"), "failed with 1, saying 'card'; try as"),
            (
                command("import os\ntry:\n    while os.write(2, b'x'): pass\nfinally: os._exit(1)"),
                f"failed with 1, saying '{'x' * module._MAX_COMPLAINT}'; try as",
            ),
        ],
    )
    def test_one_that_fails(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, chime: str, said: str
    ) -> None:
        """It is told once, and what is to be said is said."""
        broken = FeedbackConfig(chime=chime, say=command(WRITE, tmp_path / "log", "say"))
        with house(tmp_path, feedback=broken) as it:
            for count in (1, 2):
                it.feedback.tell(UNSURE)
                it.wait(count)
        assert [said in record.message for record in caplog.records] == [True]

    def test_a_flood(self, tmp_path: Path) -> None:
        """Of many at once, the last one is told, and those between are not; nobody waits."""
        slow = FeedbackConfig(
            chime=command("import time; time.sleep(0.2)"), say=command(WRITE, tmp_path / "log", "say")
        )
        with house(tmp_path, feedback=slow) as it:
            started_s = time.monotonic()
            for i in range(1000):
                it.feedback.tell(replace(UNSURE, text=f"Sentence {i}."))
            assert time.monotonic() - started_s < 0.2
            wait_until(lambda: any("999" in said for _, said in it.told))
            assert len(it.told) <= 2

    def test_closed_in_the_middle(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """What sounds is ended at once."""
        slow = FeedbackConfig(
            chime=command(f"import time; open({str(tmp_path / 'on')!r}, 'w'); time.sleep(9)")
        )
        with house(tmp_path, feedback=slow) as it:
            it.feedback.tell(ACCEPTED)
            wait_until((tmp_path / "on").exists)
            started_s = time.monotonic()
        assert time.monotonic() - started_s < 1
        assert caplog.records == []
        with caplog.at_level(logging.WARNING), house(tmp_path) as it:
            it.feedback.close()
            it.feedback.tell(ACCEPTED)  # does no harm


@given(st.text(), st.text())
def test_arguments_are_ours(text: str, language: str) -> None:
    """Whatever is said, the arguments are those of the configuration, and two known words."""
    signalled = module.Signal("refused", text, language, None)
    arguments = module._arguments("play --volume {kind} '{language} x'", signalled)
    assert arguments[:3] == ["play", "--volume", "refused"]
    word = arguments[3].removesuffix(" x")
    assert word in (language, "en")
    assert word[0].isalnum()
    assert len(arguments) == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("chime: 'aplay \"x'", "allowed is a program and its arguments, with every quote ended"),
        ("say: [espeak-ng]", "a list seen"),
        ("publish: true", "set mqtt.host"),
    ],
)
def test_options(tmp_path: Path, options: str, said: str) -> None:
    """What cannot work is refused at once."""
    path = tmp_path / "edgevoice.yaml"
    path.write_text(f"feedback: {{{options}}}\n")
    with pytest.raises(ConfigError, match=said):
        load(path)


def test_nobody_speaks() -> None:
    """say-again says what to set."""
    with pytest.raises(UsageError, match=r"set feedback\.say, chime or publish"):
        Commands(5.0).take("say-again", b"")


def test_service(
    child_environment: dict[str, str], edgevoice: Edgevoice, tmp_path: Path, speech: Samples
) -> None:
    """`edgevoice run` tells it on the topic and by its program, and again when asked; the intent is once."""
    log = tmp_path / "log"
    say = json.dumps(command(WRITE, log, "say"))
    with Broker() as broker, Subscriber(broker.port, "edgevoice/flat/#") as subscriber:
        config = write_config(tmp_path, broker.port, more=f"feedback: {{publish: true, say: {say}}}\n")
        with running(child_environment, "run", "--config", config, "--input", "-") as run:
            assert run.stdin is not None
            run.stdin.write(pcm(room(0.5)))
            run.stdin.flush()
            subscriber.wait_for(lambda m: m.topic.endswith("/state"), 30)
            none = edgevoice("tell", "say-again", "--config", config)
            assert (none.returncode, b"nothing was accepted yet" in none.stderr) == (2, True)
            run.stdin.write(pcm(np.concatenate([speech, room(1)])))
            run.stdin.flush()
            subscriber.wait_for(lambda m: m.topic.endswith("/feedback"), 30)
            assert edgevoice("tell", "say-again", "--config", config).returncode == 0
            wait_until(lambda: log.exists() and "desk lamp" in log.read_text())
            run.stdin.close()
            assert run.wait(20) == 0
        told = [message for message in subscriber.messages if message.topic.endswith("/feedback")]
        intents = [message.json() for message in subscriber.messages if "/intent/" in message.topic]
    for message in told:
        schemas.check(message)
        assert not message.retain
    assert [message.json()["again"] for message in told] == [False, True]
    assert [message.json()["utterance_id"] for message in told] == [intents[0]["utterance_id"]] * 2
    assert len(intents) == 1


def test_service_shows_it(
    child_environment: dict[str, str], tmp_path: Path, speech: Samples, samples: tuple[Sample, ...]
) -> None:
    """With everything heard, as by default: light while somebody speaks, and then what became of it.

    The sound comes at the pace at which it is spoken.
    """
    refused = next(each for each in samples if each.path.stem == "refused-washing-machine").read()
    with FakeLed(tmp_path / "ring") as led:
        log = tmp_path / "log"
        run = json.dumps(command(WRITE, log, "{kind}"))
        config = tmp_path / "edgevoice.yaml"
        config.write_text(f"feedback: {{led: ./ring, run: {run}}}\nmodel: {{threads: 1}}\n")
        with running(child_environment, "run", "--config", config, "--input", "-") as service:
            assert service.stdin is not None
            wait_until(lambda: led.brightness == 0, 30)
            led.changes.clear()
            spoken = np.concatenate([room(0.3), speech, room(1.2), refused, room(2.2)])
            for at in range(0, len(spoken), 1600):
                service.stdin.write(pcm(spoken[at : at + 1600]))
                service.stdin.flush()
                time.sleep(0.1)
            service.stdin.close()
            assert service.wait(20) == 0
        flashes = led.flashes()
    heard = [flashes[0], flashes[2]]
    assert all(each > 0.5 for each in heard), flashes
    assert len(flashes) == 6, flashes  # and one that lasts, then three short ones
    assert flashes[1] == pytest.approx(0.4, abs=0.1)
    assert led.brightness == 0
    kinds = [eval(line)[0][0] for line in log.read_text().splitlines()]  # noqa: S307 - our own
    assert kinds == ["hearing", "accepted", "hearing", "refused"]


def test_an_led_that_is_not_there(edgevoice: Edgevoice, tmp_path: Path, samples: tuple[Sample, ...]) -> None:
    """The service says so, and ends: it would be dark for ever."""
    config = tmp_path / "edgevoice.yaml"
    config.write_text("feedback: {led: ./ring}\n")
    done = edgevoice("run", "--config", config, "--input", samples[0].path)
    assert (done.returncode, b"there is no" in done.stderr) == (2, True)
