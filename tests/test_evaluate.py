"""What `edgevoice eval` measures is what happened: mixing, counting, intervals, and the whole command."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevoice import cli, cli_eval, evaluate, grammar_file, mixing, recordings, scores
from edgevoice.errors import UsageError
from edgevoice.events import SAMPLE_RATE_HZ, Samples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.conftest import Edgevoice

SAMPLES = Path(__file__).parents[1] / "samples"

GRAMMAR = """
language: en
intents:
  HassTurnOn:
    data: [{sentences: ["turn on the {name}"]}]
  HassTurnOff:
    data: [{sentences: ["turn off the {name}"]}]
  HassStartTimer:
    data: [{sentences: ["set a {name} timer for {minutes} minutes"]}]
lists:
  name: {values: [desk lamp, fan, {in: pizza, out: pizza}, "on"]}
  minutes: {range: {from: 1, to: 60}}
"""

ORDERS: tuple[dict[str, object], ...] = (
    {"audio": "turn-on-desk-lamp.flac", "intent": "HassTurnOn", "slots": {"name": " desk lamp "}},
    {"audio": "set-pizza-timer-twelve.flac", "intent": "HassStartTimer", "slots": {"minutes": "12"}},
    {"audio": "what-time-is-it.flac", "intent": "HassTurnOn", "slots": {"name": "fan"}},
)


def write_manifest(path: Path, entries: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def at_samples(entries: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    return [{**entry, "audio": str(SAMPLES / str(entry["audio"]))} for entry in entries]


class TestMixing:
    """Noise at a ratio is the published benchmark's."""

    @given(
        seed=st.integers(0, 2**32 - 1),
        length=st.integers(1, 9_000),
        snr_db=st.floats(-20, 40),
        level=st.floats(1e-3, 1),
    )
    def test_ratio_and_peak(self, seed: int, length: int, snr_db: float, level: float) -> None:
        """Between the loudest frames of both the ratio is the one asked for; the peak is 0.5."""
        source = np.random.default_rng(seed)
        speech, noise = source.normal(0, [[0.1], [level]], (2, length + 1)).astype(np.float32)
        mixed = mixing.mix(speech, noise, snr_db)
        assert np.abs(mixed).max() == pytest.approx(0.5, rel=1e-4)
        parts, *_ = np.linalg.lstsq(np.stack([speech, noise], axis=1).astype(float), mixed, rcond=None)
        of_speech, of_noise = (
            np.square(parts) * [mixing.max_frame(speech), mixing.max_frame(noise)]
        ).tolist()
        assert 10 * np.log10(of_speech / of_noise) == pytest.approx(snr_db, abs=0.1)
        assert parts[0] > 0
        assert parts[1] > 0

    @given(st.integers(0, 2**32 - 1), st.floats(0.01, 100))
    def test_loudness_of_the_noise_does_not_matter(self, seed: int, factor: float) -> None:
        """A noise recorded louder gives the same mix."""
        speech, noise = np.random.default_rng(seed).normal(0, 0.1, (2, 5_000)).astype(np.float32)
        louder = (noise * factor).astype(np.float32)
        np.testing.assert_allclose(mixing.mix(speech, noise, 6), mixing.mix(speech, louder, 6), atol=1e-4)

    def test_loudest_frame(self) -> None:
        """Frames of 2048 samples from the start, the last one incomplete."""
        samples = np.zeros(2 * 2048 + 100, np.float32)
        assert mixing.max_frame(samples) == 0
        samples[2048:4096] = 0.5
        samples[-100:] = 1.0
        assert mixing.max_frame(samples) == 2048 / 4
        assert mixing.max_frame(samples[:0]) == 0

    @given(st.integers(1, 300), st.integers(1, 900), st.integers(0, 2**32 - 1))
    def test_piece_of_noise(self, noise_length: int, length: int, seed: int) -> None:
        """A piece is a stretch of the noise, going round as often as it must."""
        noise = np.arange(1, noise_length + 1, dtype=np.float32)
        piece = mixing.noise_piece(noise, length, np.random.default_rng(seed))
        steps = set(np.diff(piece).tolist())
        assert len(piece) == length
        assert steps <= ({1.0} if length <= noise_length else {1.0, 1.0 - noise_length, 0.0})

    def test_silent_stretches_are_no_noise(self) -> None:
        """A piece has noise in it; noise that has none is refused."""
        noise = np.zeros(50_000, np.float32)
        with pytest.raises(ValueError, match="silent"):
            mixing.noise_piece(noise, 1_000, np.random.default_rng(0))
        noise[-5_000:] = 0.1
        for seed in range(50):
            assert mixing.noise_piece(noise, 1_000, np.random.default_rng(seed)).any()

    def test_choices_depend_on_all_three(self) -> None:
        """The same choice for the same seed, condition and recording, and for those only."""

        def choice(*key: Any) -> int:
            return int(mixing.generator(*key).integers(2**60))

        assert choice(1, "rain 6 dB", "a.flac") == choice(1, "rain 6 dB", "a.flac")
        others = {
            choice(2, "rain 6 dB", "a.flac"),
            choice(1, "rain 9 dB", "a.flac"),
            choice(1, "rain 6 dB", "b"),
        }
        assert len(others | {choice(1, "rain 6 dB", "a.flac")}) == 4

    @settings(deadline=None, max_examples=30)  # the first call loads scipy
    @given(st.integers(0, 400), st.floats(0.1, 3))
    def test_room_keeps_place_and_level(self, delay: int, gain: float) -> None:
        """A room without echo changes nothing, however far away; with echo, length and level stay."""
        speech = (0.2 * np.sin(np.arange(4_000) / 5)).astype(np.float32)
        response = np.zeros(500, np.float32)
        response[delay] = gain
        np.testing.assert_allclose(mixing.far_field(speech, response), speech, atol=1e-5)
        response[delay + 50 :] = 0.05 * gain
        echoing = mixing.far_field(speech, response)
        assert len(echoing) == len(speech)
        assert np.std(echoing) == pytest.approx(np.std(speech), rel=0.02)


class TestCounting:
    """Figures and their intervals."""

    @pytest.mark.parametrize(
        ("count", "of", "low", "high"),
        [(0, 10, 0, 0.3085), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1), (1, 100, 0.000253, 0.05446)],
    )
    def test_proportions(self, count: int, of: int, low: float, high: float) -> None:
        """Clopper-Pearson, against published values."""
        share = scores.share(count, of)
        assert (share.low, share.high) == pytest.approx((low, high), abs=1e-4)
        assert share.rate == count / of

    @pytest.mark.parametrize(
        ("count", "low", "high"), [(0, 0, 3.689), (1, 0.0253, 5.572), (10, 4.795, 18.390)]
    )
    def test_rates(self, count: int, low: float, high: float) -> None:
        """Poisson, against published values; in half the time twice the rate."""
        rate = scores.hourly(count, 0.5)
        assert (rate.low, rate.high) == pytest.approx((2 * low, 2 * high), abs=2e-3)
        assert rate.per_hour == 2 * count

    def test_nothing_counted(self) -> None:
        """Without recordings there is no rate, and anything is possible."""
        assert scores.share(0, 0) == scores.Share(0, 0, None, 0.0, 1.0)
        assert scores.hourly(0, 0.0).per_hour is None

    @pytest.mark.parametrize(
        ("said", "understood", "expected"),
        [
            ("soy milk", " soy milk", True),
            ("12", 12, True),
            (12, "12", True),
            (21.0, 21, True),
            ("12", 13, False),
            ("tea", None, False),
            ("tea", 12, False),
            ("Tea", "tea", False),
        ],
    )
    def test_slots(self, said: object, understood: object, expected: bool) -> None:
        """Numbers are equal as numbers, texts but for space around them."""
        assert scores.same(said, understood) == expected

    @pytest.mark.parametrize(
        ("results", "verdict"),
        [
            ([("Order", {"drink": "latte", "size": "large"}, None)], "right"),
            ([("Order", {"drink": "latte"}, "low_confidence")], "right_refused"),
            ([("Order", {"drink": "mocha"}, None)], "wrong_accepted"),
            ([("Order", {"drink": "mocha"}, "low_confidence")], "wrong_refused"),
            ([("Cancel", {"drink": "latte"}, None)], "wrong_accepted"),
            ([(None, {}, "no_speech")], "wrong_refused"),
            ([("Order", {"drink": "mocha"}, None), ("Order", {"drink": "latte"}, None)], "wrong_accepted"),
            ([("Order", {}, "no_speech"), ("Order", {"drink": "latte"}, None)], "right"),
            ([("Order", {"drink": "latte"}, "low_confidence"), ("Order", {}, None)], "wrong_accepted"),
        ],
    )
    def test_verdicts(
        self, results: Sequence[tuple[str | None, dict[str, str], str | None]], verdict: str
    ) -> None:
        """Right needs one accepted utterance with the intent and every labelled slot, and no other."""
        assert judged(results).verdict == verdict

    def test_curve_follows_confidence(self) -> None:
        """A refusal for its confidence counts below it, one for another reason never."""
        order = [("Order", {"drink": "latte"}, "low_confidence")]
        records = [judged(order, confidence=0.3), judged([("Order", {"drink": "latte"}, "ambiguous")])]
        curve = {point["threshold"]: point["right_clean"] for point in scores.summary(records)["curve"]}
        assert (curve[0.0], curve[0.3], curve[0.31], curve[1.0]) == (0.5, 0.5, 0.0, 0.0)


def judged(
    results: Sequence[tuple[str | None, dict[str, str], str | None]], confidence: float = 0.9
) -> scores.Record:
    """A record of someone who said "latte"."""
    lines = tuple(
        {
            "text": "",
            "intent": intent,
            "slots": slots,
            "reason": reason,
            "accepted": reason is None,
            "confidence": confidence,
            "timings_ms": {"encode": 1.0, "total": 2.0},
        }
        for intent, slots, reason in results
    )
    order = recordings.Recording(Path("a.flac"), "a.flac", "folder", "Order", {"drink": "latte"})
    task = evaluate.Task("order", order, evaluate.CLEAN, Path("grammar.yaml"))
    return scores.judge(task, evaluate.Outcome(lines, 1.0, 0.1, 1))


class TestRecordings:
    """What may be measured on."""

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("{", "not JSON"),
            ("[1]", "no 'audio'"),
            ('{"audio": ""}', "no 'audio'"),
            ('{"audio": "a.flac"}', "--negatives"),
            ('{"audio": "a.flac", "intent": null}', "--negatives"),
            ('{"audio": "a.flac", "intent": "A", "slots": [1]}', "'slots' must be"),
            ('{"audio": "a.flac", "intent": "A", "slots": {"a": [1]}}', "'slots' must be"),
        ],
    )
    def test_bad_line(self, tmp_path: Path, line: str, says: str) -> None:
        """The error names the line."""
        manifest = tmp_path / "manifest.jsonl"
        manifest.write_text('{"audio": "b.flac", "intent": "B"}\n\n' + line + "\n", encoding="utf-8")
        with pytest.raises(UsageError, match=re.escape(f"{manifest}:3: ")) as raised:
            recordings.orders(tmp_path)
        assert says in str(raised.value)

    def test_no_manifest(self, tmp_path: Path) -> None:
        """Absent, empty or no text: the error names the file."""
        with pytest.raises(UsageError, match=r"manifest\.jsonl cannot be read"):
            recordings.orders(tmp_path)
        (tmp_path / "manifest.jsonl").write_bytes(b"\n")
        with pytest.raises(UsageError, match="names no recording"):
            recordings.orders(tmp_path)
        (tmp_path / "manifest.jsonl").write_bytes(b"\xff")
        with pytest.raises(UsageError, match="not UTF-8"):
            recordings.orders(tmp_path)

    def test_folders(self, tmp_path: Path) -> None:
        """Noises go by label; a folder without labels is one; sound files need no manifest."""
        entries = [{"audio": "a.wav", "label": "Rain"}, {"audio": "b.wav", "label": "Wind"},
                   {"audio": "c.wav", "label": "Rain"}]  # fmt: skip
        write_manifest(tmp_path / "manifest.jsonl", entries)
        rain, wind = (tmp_path / "a.wav", tmp_path / "c.wav"), (tmp_path / "b.wav",)
        assert recordings.noises(tmp_path) == {"Rain": rain, "Wind": wind}
        plain = tmp_path / "plain"
        (plain / "deeper").mkdir(parents=True)
        with pytest.raises(UsageError, match="neither"):
            recordings.others(plain)
        for name in ("deeper/x.flac", "y.WAV", "notes.txt"):
            (plain / name).touch()
        assert [other.name for other in recordings.others(plain)] == ["deeper/x.flac", "y.WAV"]
        assert list(recordings.noises(plain)) == ["plain"]
        assert recordings.noises(plain / "y.WAV") == {"y": (plain / "y.WAV",)}

    def test_rooms(self, tmp_path: Path) -> None:
        """Of a folder with other things those labelled as impulse responses."""
        entries = [{"audio": "a.wav", "label": "RIRs"}, {"audio": "b.wav", "label": "noise"}]
        write_manifest(tmp_path / "manifest.jsonl", entries)
        assert recordings.rooms(tmp_path) == (tmp_path / "a.wav",)
        write_manifest(tmp_path / "manifest.jsonl", entries[1:])
        assert recordings.rooms(tmp_path) == (tmp_path / "b.wav",)


class TestNearMisses:
    """A grammar without a value."""

    def test_only_the_value_goes(self, tmp_path: Path) -> None:
        """Each grammar lacks what is said, and keeps the rest as it was written."""
        grammar = tmp_path / "grammar.yaml"
        grammar.write_text(GRAMMAR, encoding="utf-8")
        orders = recordings.orders(write_manifest(tmp_path / "m.jsonl", at_samples(ORDERS)))
        tasks = evaluate.near_misses(orders, "name", grammar, tmp_path)
        assert [task.recording.slots["name"] for task in tasks] == ["desk lamp", "fan"]
        lamp, fan = (grammar_file.load(task.grammar).lists["name"].values for task in tasks)  # type: ignore[attr-defined]
        assert [value.value_out for value in lamp] == ["fan", "pizza", "on"]
        assert [value.value_out for value in fan] == ["desk lamp", "pizza", "on"]

    @pytest.mark.parametrize(
        ("name", "value", "says"),
        [
            ("nothing", "fan", "no recording"),
            ("minutes", "12", "with values"),
            ("name", "lava lamp", "no plain"),
        ],
    )
    def test_refused(self, tmp_path: Path, name: str, value: str, says: str) -> None:
        """A list that cannot be used is an error."""
        grammar = tmp_path / "grammar.yaml"
        grammar.write_text(GRAMMAR, encoding="utf-8")
        slots: dict[str, object] = {} if name == "nothing" else {name: value}
        order = recordings.Recording(Path("a.flac"), "a.flac", "folder", "HassTurnOn", slots)
        with pytest.raises(UsageError, match=says):
            evaluate.near_misses([order], name, grammar, tmp_path)


class TestArguments:
    """Options that make no sense are refused before anything is measured."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("6", (6,)),
            ("6,9,...,15", (6, 9, 12, 15)),
            ("0,6,9,...,12", (0, 6, 9, 12)),
            ("9,6,...,3", (9, 6, 3)),
        ],
    )
    def test_ratios(self, text: str, expected: tuple[float, ...]) -> None:
        """Numbers, also counted on."""
        assert cli_eval._ratios(text) == expected

    @pytest.mark.parametrize(
        "text",
        ["", "a", "nan", "6,...,9", "...", "1,1,...,5", "6,9,...,25", "6,9,...,0", "6,6.0000001,...,99"],
    )
    def test_no_ratios(self, text: str) -> None:
        """Anything else is an error, at once."""
        with pytest.raises(argparse.ArgumentTypeError):
            cli_eval._ratios(text)

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [(["--snr", "6"], "--noise"), (["--seed", "1"], "no effect"), (["--noise", "nowhere"], "nowhere")],
    )
    def test_useless(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
    ) -> None:
        """An option without effect, or a folder that is not there: exit code 2 and one sentence."""
        manifest = write_manifest(tmp_path / "m.jsonl", at_samples(ORDERS))
        assert cli.main(["eval", str(manifest), *arguments]) == 2
        assert says in capsys.readouterr().err

    def test_extra_is_missing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without scipy the error says what to install."""
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "scipy" else name)
        manifest = write_manifest(tmp_path / "m.jsonl", at_samples(ORDERS))
        assert cli.main(["eval", str(manifest)]) == 1
        assert "pip install 'edgevoice[eval]'" in capsys.readouterr().err


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of the command."""

    exit_code: int
    stdout: str
    stderr: str
    results: dict[str, Any]
    page: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Commands, one of them broken; a noise, a room, and recordings to refuse."""
    folder = tmp_path_factory.mktemp("eval")
    (folder / "grammar.yaml").write_text(GRAMMAR, encoding="utf-8")
    (folder / "broken.wav").write_bytes(b"RIFF nothing")
    broken = {"audio": "broken.wav", "intent": "HassTurnOn", "slots": {}}
    write_manifest(folder / "manifest.jsonl", [*at_samples(ORDERS), broken])
    noise: Samples = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE_HZ).astype(np.float32)
    soundfile.write(folder / "hiss.wav", noise, SAMPLE_RATE_HZ)
    room = np.zeros(1_600, np.float32)
    room[[100, 700]] = 0.5, 0.2
    soundfile.write(folder / "room.wav", room, SAMPLE_RATE_HZ)
    (folder / "others").mkdir()
    for name in ("refused-weather-talk.flac", "turn-off-fan.flac"):
        (folder / "others" / name).symlink_to(SAMPLES / name)
    return folder


def measure(edgevoice: Edgevoice, folder: Path, jobs: int) -> Measured:
    out = folder / f"out{jobs}"
    done = edgevoice(
        "eval", folder, "--grammar", folder / "grammar.yaml",
        "--noise", folder / "hiss.wav", "--snr", "3,12",
        "--rir", folder / "room.wav", "--negatives", folder / "others", "--near-misses", "name",
        "--seed", "7", "--jobs", str(jobs), "--out", out,
    )  # fmt: skip
    return Measured(
        done.returncode,
        done.stdout.decode(),
        done.stderr.decode(),
        json.loads((out / "results.json").read_text("utf-8")),
        (out / "report.html").read_text("utf-8"),
    )


@pytest.fixture(scope="module")
def measured(edgevoice: Edgevoice, folder: Path) -> Measured:
    return measure(edgevoice, folder, 1)


class TestCommand:
    """The command as users start it."""

    def test_figures(self, measured: Measured) -> None:
        """Two of three commands fit the grammar; the recording that is a command is a false accept."""
        model = measured.results["models"][0]
        names = [condition["name"] for condition in model["conditions"]]
        assert names == ["clean", "far field", "hiss 3 dB", "hiss 12 dB"]
        clean = model["conditions"][0]
        assert (clean["right"]["count"], clean["right"]["of"]) == (2, 3)
        assert clean["slots"]["minutes"]["rate"] == 1
        assert sum(clean["refusals"].values()) + clean["wrong_accepted"]["count"] == 1
        false = model["false_accepts"]
        assert (false["clips"]["count"], false["clips"]["of"]) == (1, 2)
        length_s = sum(soundfile.info(path).duration for path in (SAMPLES / "turn-off-fan.flac",
                       SAMPLES / "refused-weather-talk.flac"))  # fmt: skip
        assert false["utterances"]["hours"] * 3600 == pytest.approx(length_s, abs=0.1)
        assert [Path(line["file"]).name for line in false["accepted"]] == ["turn-off-fan.flac"]
        assert model["near_misses"]["accepted"]["of"] == 2
        assert model["latency_ms"]["total"]["p50"] > 0
        assert model["peak_memory_bytes"] > 50e6

    def test_curve_agrees_with_the_counts(self, measured: Measured) -> None:
        """At the threshold in use the curve says what was counted."""
        model = measured.results["models"][0]
        point = next(
            point for point in model["curve"] if point["threshold"] == measured.results["min_confidence"]
        )
        assert point["right_clean"] == model["conditions"][0]["right"]["rate"]
        assert point["right_noisy"] == model["all_noises"]["right"]["rate"]
        assert point["near_misses"] == model["near_misses"]["accepted"]["rate"]
        assert point["false_accepts_per_hour"] == model["false_accepts"]["utterances"]["per_hour"]

    def test_bad_recording(self, measured: Measured) -> None:
        """It is named once, the others are measured, and the exit code is that of audio."""
        assert measured.exit_code == 4
        assert measured.stderr.count("broken.wav") == 1
        assert "Traceback" not in measured.stderr
        errors = [record for record in measured.results["records"] if record["verdict"] == "error"]
        assert {Path(record["file"]).name for record in errors} == {"broken.wav"}

    def test_table(self, measured: Measured) -> None:
        """The table says for each condition how many were right."""
        assert re.search(r"clean\s+│\s+2/3 66\.7 %", measured.stdout)
        assert "false accepts: 1 of 2 recordings" in measured.stdout

    def test_records(self, measured: Measured) -> None:
        """One record for each recording and condition, with what came out."""
        records = measured.results["records"]
        assert len(records) == 4 * 4 + 2 + 2
        right = next(record for record in records if record["verdict"] == "right")
        assert right["expected"] == {"intent": "HassTurnOn", "slots": {"name": "desk lamp"}}
        assert right["results"][0]["intent"] == "HassTurnOn"

    def test_any_number_of_jobs(self, edgevoice: Edgevoice, folder: Path, measured: Measured) -> None:
        """Two processes find what one finds, in the same order, but for times."""
        assert stable(measure(edgevoice, folder, 2).results) == stable(measured.results)

    def test_report_needs_nothing_else(self, measured: Measured) -> None:
        """The page is complete HTML and asks for nothing outside itself."""
        assert not re.search(r"https?:|//[a-z]|@import|<script|<link|<img|src=", measured.page)
        assert all(
            target.startswith("#") for target in re.findall(r"(?:href=|url\()\"?([^\")]+)", measured.page)
        )
        checker = OpenTags()
        checker.feed(measured.page)
        assert checker.opened == []
        for part in (
            "Trade-off",
            "Near misses",
            "Computing time",
            "Confusions",
            "turn-off-fan.flac",
            "broken.wav",
        ):
            assert part in measured.page

    def test_json(self, edgevoice: Edgevoice, folder: Path) -> None:
        """The summary alone, and names of several models."""
        done = edgevoice("eval", folder, "--grammar", folder / "grammar.yaml", "--limit", "1", "--json",
                         "--model", "tiny.en")  # fmt: skip
        summary = json.loads(done.stdout)
        assert summary["models"][0]["conditions"][0]["right"]["count"] == 1
        assert summary["grammar"]["sha256"]
        assert "records" not in summary

    def test_interrupted(self, folder: Path, child_environment: dict[str, str], tmp_path: Path) -> None:
        """Ctrl-C ends it soon, without a traceback, and leaves no process behind."""
        manifest = write_manifest(tmp_path / "m.jsonl", at_samples(ORDERS[:1]) * 500)
        command = [
            sys.executable,
            "-m",
            "edgevoice",
            "eval",
            str(manifest),
            "--grammar",
            str(folder / "grammar.yaml"),
        ]
        # A shell starts background jobs with SIGINT ignored; children inherit that, but not a handler.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        with subprocess.Popen(
            command, env=child_environment, stderr=subprocess.PIPE, start_new_session=True
        ) as process:
            signal.signal(signal.SIGINT, before)
            time.sleep(3)
            os.killpg(process.pid, signal.SIGINT)
            _, stderr = process.communicate(timeout=10)
        assert process.returncode == 130
        assert stderr == b""
        for _ in range(50):  # helpers of multiprocessing end when they see that we did
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.1)
        pytest.fail("a process is left")


def stable(value: Any) -> Any:
    """Results without what differs between two runs: times, memory, names of the run."""
    passing = {
        *("utterance_id", "time", "date", "command", "jobs"),
        *("timings_ms", "spent_s", "latency_ms", "real_time_factor", "peak_memory_bytes"),
    }
    if isinstance(value, dict):
        return {key: stable(each) for key, each in value.items() if key not in passing}
    return [stable(each) for each in value] if isinstance(value, list) else value


class OpenTags(HTMLParser):
    """Finds elements that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        del attrs
        if tag not in {"meta", "br"}:
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """It closes the last one opened."""
        assert self.opened.pop() == tag
