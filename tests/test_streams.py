"""Long streams are what their labels say, and what becomes of them is counted right."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from matplotlib import image
from matplotlib.colors import to_rgb

from edgevoice import recordings
from edgevoice.audio import frames, read_audio
from edgevoice.decide import Decision
from edgevoice.endpoint import EndpointOptions
from edgevoice.errors import UsageError
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame, Result, ScoredFrame, Timings, Utterance
from edgevoice.mixing import max_frame
from edgevoice.recognise import Answer
from edgevoice.streams import PAUSES_S, Heard, Said, Stream, compose, judge, judge_segments
from edgevoice.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgevoice.events import EndReason, Samples
    from edgevoice.pipeline import Pipeline
    from edgevoice.recordings import Recording
    from tests.conftest import Edgevoice, Sample

RATE = SAMPLE_RATE_HZ


def manifest(folder: Path, clips: Sequence[tuple[Samples, dict[str, Any]]]) -> Path:
    lines = []
    for number, (samples, entry) in enumerate(clips):
        soundfile.write(folder / f"{number}.wav", samples, RATE)
        lines.append(json.dumps({"audio": f"{number}.wav", "intent": "Say", **entry}))
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def tones(tmp_path: Path) -> list[Recording]:
    """Five tones of 0.6 to 1.4 s, each a second into its recording, of different loudness."""
    clips = []
    for i in range(5):
        length_s = 0.6 + 0.2 * i
        samples = np.zeros(3 * RATE, np.float32)
        t = np.arange(round(length_s * RATE)) / RATE
        samples[RATE : RATE + len(t)] = 0.1 * (i + 1) * np.sin(2 * np.pi * 440 * t)
        clips.append((samples, {"speech_start": 1.0, "speech_end": 1.0 + length_s}))
    return recordings.orders(manifest(tmp_path, clips))


def level(stream: Stream, start_s: float, end_s: float) -> float:
    return float(np.abs(stream.samples[round(start_s * RATE) : round(end_s * RATE)]).mean())


def test_speech_is_where_the_labels_say(tones: list[Recording]) -> None:
    """Loud from start to end, quiet between, and as long as in the recording."""
    stream = compose(tones, None, 0.0, np.random.default_rng(1))
    assert [said.recording for said in stream.said] == tones
    last_s = 0.0
    for said, order in zip(stream.said, tones, strict=True):
        assert order.speech_start_s is not None
        assert order.speech_end_s is not None
        assert said.end_s - said.start_s == pytest.approx(order.speech_end_s - order.speech_start_s)
        assert any(said.start_s - last_s == pytest.approx(pause_s) for pause_s in PAUSES_S)
        assert level(stream, said.start_s, said.end_s) > 100 * level(stream, last_s, said.start_s)
        last_s = said.end_s
    assert np.abs(stream.samples).max() == pytest.approx(0.5)
    assert stream.samples.dtype == np.float32
    shorter = [min(gaps) for gaps in zip(gaps_s(stream), gaps_s(stream)[1:], strict=False)]
    assert [said.pause_s for said in stream.said] == pytest.approx(shorter)


def gaps_s(stream: Stream) -> list[float]:
    starts = [*(said.start_s for said in stream.said), len(stream.samples) / RATE]
    ends = [0.0, *(said.end_s for said in stream.said)]
    return [start - end for start, end in zip(starts, ends, strict=True)]


def test_noise_is_as_far_below_every_command(tones: list[Recording]) -> None:
    """However loud a recording was; and it goes on through the pauses."""
    noise = np.random.default_rng(2).standard_normal(2 * RATE).astype(np.float32)
    clean = compose(tones, None, 0.0, np.random.default_rng(1))
    noisy = compose(tones, noise, 10.0, np.random.default_rng(1))
    assert [said.start_s for said in noisy.said] == [said.start_s for said in clean.said]
    first = noisy.said[0]
    quiet = noisy.samples[: round((first.start_s - 0.26) * RATE)]
    for said in noisy.said:
        loud = noisy.samples[round(said.start_s * RATE) : round(said.end_s * RATE)]
        snr_db = 10 * np.log10(max_frame(loud) / max_frame(quiet))
        assert snr_db == pytest.approx(10, abs=1)


def test_labels_are_needed(tmp_path: Path) -> None:
    """A recording without them is an error, and so are labels that are no times."""
    silence = np.zeros(RATE, np.float32)
    orders = recordings.orders(manifest(tmp_path, [(silence, {})]))
    with pytest.raises(UsageError, match=r"0\.wav has no speech_start"):
        compose(orders, None, 0.0, np.random.default_rng(1))
    for wrong in ("soon", -1, float("nan")):
        with pytest.raises(
            UsageError, match=r"manifest\.jsonl:1: 'speech_start' must be a number of seconds"
        ):
            recordings.orders(manifest(tmp_path, [(silence, {"speech_start": wrong})]))


def said(start_s: float, end_s: float, pause_s: float = 2.0) -> Said:
    (recording,) = [replace(RECORDING, slots={"n": start_s})]
    return Said(recording, start_s, end_s, pause_s)


RECORDING = recordings.Recording(
    path=Path(__file__).parent.parent / "samples" / "turn-on-desk-lamp.flac",
    name="a",
    folder="b",
    intent="Say",
    speech_start_s=0.5,
    speech_end_s=1.5,
)


def heard(start_s: float, end_s: float, n: float | None = None, *, accepted: bool = True) -> Heard:
    result = Result(
        utterance_id="1",
        time="now",
        start_s=start_s,
        end_s=end_s,
        text="a",
        intent="Say",
        slots={} if n is None else {"n": n},
        slots_raw={},
        confidence=1,
        accepted=accepted,
        reason=None if accepted else "low_confidence",
    )
    return Heard(result, start_s - 0.3, end_s + 0.128, end_s + 0.25)


def counted(commands: Sequence[Said], utterances: Sequence[Heard]) -> dict[str, Any]:
    stream = Stream(np.zeros(60 * RATE, np.float32), tuple(commands))
    return judge(stream, utterances, no_words)


def no_words(_samples: Samples) -> str:
    return ""


def test_whole_commands() -> None:
    """Each has its utterance, the right one, and the time it took."""
    found = counted([said(2, 4), said(6, 8)], [heard(2.1, 4.0, 2), heard(6.2, 7.9, 6)])
    assert {key: found[key] for key in ("said", "whole", "missed", "led_in", "right", "apart")} == {
        "said": 2, "whole": 2, "missed": 0, "led_in": 2, "right": 2, "apart": 2,
    }  # fmt: skip
    assert found["delays_ms"] == [250, 150]
    assert found["hours"] == pytest.approx(1 / 60)


@pytest.mark.parametrize(
    ("utterances", "key"),
    [
        ([], "missed"),
        ([heard(2.5, 4)], "cut_start"),
        ([heard(2, 3.5)], "cut_end"),
        ([heard(2, 2.8), heard(3.2, 4)], "split_or_merged"),
        ([heard(2, 8)], "split_or_merged"),
    ],
)
def test_what_goes_wrong(utterances: list[Heard], key: str) -> None:
    """It is named, and the command is not right."""
    found = counted([said(2, 4), said(6, 8)], [*utterances, *([heard(6, 8)] if len(utterances) != 1 else [])])
    assert found[key] >= 1
    assert found["right"] == 0


@pytest.mark.parametrize(
    ("start_s", "end_s", "all_words"), [(1.9, 4.1, 1), (2.4, 3.6, 1), (2.4, 3.4, 0), (2.6, 3.6, 0)]
)
def test_labels_that_begin_and_end_in_silence(
    tmp_path: Path, start_s: float, end_s: float, all_words: int
) -> None:
    """What an utterance leaves out of a label counts as lost only if something is said there."""
    t = np.arange(RATE) / RATE
    samples = np.zeros(4 * RATE, np.float32)
    samples[round(1.5 * RATE) : round(2.5 * RATE)] = 0.1 * np.sin(2 * np.pi * 440 * t)  # in a label of 2 s
    (order,) = recordings.orders(manifest(tmp_path, [(samples, {"speech_start": 1.0, "speech_end": 3.0})]))

    def write(samples: Samples) -> str:
        """As many words as there are whole tenths of a second of the tone."""
        return "la " * int(np.count_nonzero(np.abs(samples) > 1e-4) / RATE * 10 + 0.2)

    heard_of_it = replace(heard(start_s, end_s), start_s=start_s, end_s=end_s)
    found = judge(Stream(np.zeros(6 * RATE, np.float32), (Said(order, 2.0, 4.0, 2.0),)), [heard_of_it], write)
    assert found["all_words"] == all_words
    assert found["whole"] == (start_s < 2 and end_s > 4)


def test_wrong_and_refused_are_not_right() -> None:
    """Another slot, or the right one that was not accepted."""
    assert not counted([said(2, 4)], [heard(2, 4, 3)])["right"]
    assert not counted([said(2, 4)], [heard(2, 4, 2, accepted=False)])["right"]


def test_false_triggers() -> None:
    """Utterances that touch no command; accepted ones are counted again."""
    found = counted([said(2, 4)], [heard(2, 4, 2), heard(10, 11), heard(20, 21, accepted=False)])
    assert (found["false_triggers"], found["false_accepts"]) == (2, 1)


def test_short_pauses_may_be_joined() -> None:
    """They are counted apart."""
    found = counted([said(2, 4, 0.6), said(4.6, 6, 0.6)], [heard(2, 6)])
    assert (found["apart"], found["split_or_merged"], found["whole"]) == (0, 0, 2)
    assert not found["right"]


def test_timeline(pipeline: Pipeline, samples: tuple[Sample, ...]) -> None:
    """It has each frame, each recognition, also in vain, and each result with its own answer."""
    first, second = [sample for sample in samples if sample.accepted][:2]
    speech = [read_audio(sample.path) for sample in (first, second)]
    joined = np.concatenate([speech[0], speech[1]])
    timeline = Timeline(live=False)
    for result in pipeline.results(frames([joined]), watch=timeline):
        timeline.resulted(result)
    assert len(timeline.probabilities) == len(timeline.levels_dbfs) == -(-len(joined) // FRAME_SAMPLES)
    assert [each.result.intent for each in timeline.heard] == [first.intent, second.intent]
    answers = [each.answer for each in timeline.recognitions]
    for heard in timeline.heard:
        (own,) = [a for a in answers if a and a.utterance.speech_end_samples / RATE == heard.result.end_s]
        assert own.decision.meaning is not None
        assert own.decision.meaning.text == heard.result.text
        assert heard.start_s < heard.result.start_s < heard.result.end_s < heard.answered_s


@pytest.mark.parametrize(("reason", "counts"), [("silence", True), ("too_long", False)])
def test_ready_is_for_what_a_silence_ended(reason: EndReason, counts: bool) -> None:
    """An answer to what was cut off in the middle of speech cannot be there when a silence is over."""
    utterance = replace(cut(2, 4), end_reason=reason, speech_end_clock_s=time.monotonic())
    timeline = Timeline(live=True)
    timeline.recognising(utterance)
    timeline.answered(Answer(utterance, Decision(None, 0.0, None, ()), Timings(), "open"))
    timeline.resulted(heard(2, 4).result)
    (found,) = timeline.heard
    assert (found.ready_ms is not None) == counts


def cut(start_s: float, end_s: float) -> Utterance:
    """Speech from one time to another, with pre-roll and tail."""
    return Utterance(
        samples=np.zeros(round((end_s - start_s + 0.4) * RATE), np.float32),
        start_samples=round((start_s - 0.3) * RATE),
        speech_start_samples=round(start_s * RATE),
        speech_end_samples=round(end_s * RATE),
        end_reason="silence",
        sure_s=1,
    )


def judged(segments: Sequence[tuple[float, float]], utterances: Sequence[Utterance]) -> dict[str, Any]:
    """The detector hears speech from 2 to 4 s of ten."""
    scored = [
        ScoredFrame(
            Frame(np.zeros(FRAME_SAMPLES, np.float32), start), float(2 * RATE <= start + 256 < 4 * RATE)
        )
        for start in range(0, 10 * RATE, FRAME_SAMPLES)
    ]
    recording = replace(RECORDING, segments=tuple(segments))
    return judge_segments(recording, scored, utterances, EndpointOptions(silence_ms=500))


def test_whole_segments() -> None:
    """Each has its utterance; frames are compared with the labels."""
    found = judged([(2, 4), (6, 8)], [cut(2.1, 4), cut(6, 7.9)])
    assert {key: found[key] for key in ("segments", "whole", "firsts", "led_in", "utterances")} == {
        "segments": 2, "whole": 2, "firsts": 2, "led_in": 2, "utterances": 2,
    }  # fmt: skip
    assert not any(
        found[key] for key in ("missed", "cut_start", "cut_end", "split", "merged", "false_triggers")
    )
    assert found["hit_frames"] / found["speech_frames"] == pytest.approx(0.5, abs=0.02)
    assert found["alarm_frames"] == 0
    assert found["speech_frames"] + found["silent_frames"] == 313


@pytest.mark.parametrize(
    ("utterances", "key", "count"),
    [
        ([], "missed", 2),
        ([cut(2.5, 4), cut(6, 8)], "cut_start", 1),
        ([cut(2, 3.5), cut(6, 8)], "cut_end", 1),
        ([cut(2, 2.8), cut(3.2, 4), cut(6, 8)], "split", 1),
        ([cut(2, 8)], "merged", 2),
        ([cut(2, 4), cut(6, 8), cut(9, 9.5)], "false_triggers", 1),
    ],
)
def test_what_becomes_of_segments(utterances: list[Utterance], key: str, count: int) -> None:
    """It is counted under its name."""
    assert judged([(2, 4), (6, 8)], utterances)[key] == count


def test_segments_without_a_pause_are_not_merged() -> None:
    """Speakers that follow each other at once, or overlap, are one utterance rightly; the first leads it."""
    found = judged([(2, 4), (3, 5), (5.4, 6)], [cut(2, 6)])
    assert (found["whole"], found["merged"], found["firsts"]) == (3, 2, 1)  # 4 to 5.4 is a pause


@pytest.mark.parametrize("wrong", [[1], "x", [{"start": 1}], [{"start": 2, "end": 1}], [{"end": "x"}]])
def test_wrong_segments(tmp_path: Path, wrong: object) -> None:
    """They are an error with the line."""
    path = tmp_path / "manifest.jsonl"
    path.write_text(json.dumps({"audio": "a.wav", "segments": wrong}))
    with pytest.raises(UsageError, match=r"manifest\.jsonl:1: "):
        recordings.others(path)


def test_segments_command(edgevoice: Edgevoice, samples: tuple[Sample, ...], tmp_path: Path) -> None:
    """`edgevoice bench stream` finds what is labelled in a long recording, with each silence."""
    said = [sample.read() for sample in samples if sample.accepted][:3]
    pieces, segments, at_s = [], [], 0.0
    for audio in said:
        loud = np.flatnonzero(np.abs(audio) > 0.02) / RATE
        segments.append({"start": at_s + loud[0], "end": at_s + loud[-1], "text": "words"})
        pieces += [audio, np.zeros(2 * RATE, np.float32)]
        at_s += len(audio) / RATE + 2
    entry = {"segments": segments}
    path = manifest(tmp_path, [(np.concatenate(pieces), entry)])
    done = edgevoice("bench", "stream", path, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["silence_ms"] for row in rows] == [200, 500, 1200]
    for row in rows:
        assert (row["segments"], row["whole"], row["missed"], row["merged"]) == (3, 3, 0, 0)
        assert row["hit_frames"] > 0.7 * row["speech_frames"]
    soundfile.write(tmp_path / "noise.wav", 0.1 * np.random.default_rng(1).standard_normal(RATE), RATE)
    table = edgevoice("bench", "stream", path, "--noise", tmp_path / "noise.wav", "--snr", "clean,10")
    assert [line.split()[0] for line in table.stdout.decode().splitlines()[1:]] == ["clean"] * 3 + ["10"] * 3
    wrong = edgevoice("bench", "stream", path, "--real-time")
    assert wrong.returncode == 2
    assert b"leave --grammar, --real-time and --plot out" in wrong.stderr


def test_command(edgevoice: Edgevoice, samples: tuple[Sample, ...], tmp_path: Path) -> None:
    """`edgevoice bench stream` makes a stream of recordings, and all is found again."""
    clips = []
    for sample in [sample for sample in samples if sample.accepted][:3]:
        audio = read_audio(sample.path)
        loud = np.flatnonzero(np.abs(audio) > 0.02) / RATE
        clips.append(
            (
                audio,
                {
                    "intent": sample.intent,
                    "slots": sample.slots,
                    "speech_start": loud[0],
                    "speech_end": loud[-1],
                },
            )
        )
    path = manifest(tmp_path, clips)
    done = edgevoice("bench", "stream", path, "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["condition"], row["said"], row["missed"]) == ("clean", 3, 0)
    assert row["used_ms"] > 0
    again = json.loads(edgevoice("bench", "stream", path, "--json").stdout)[0]
    timed = {"used_ms", "wasted_ms", "cpu_s"}
    assert {key: value for key, value in row.items() if key not in timed} == {
        key: value for key, value in again.items() if key not in timed
    }
    picture = tmp_path / "stream.png"
    table = edgevoice("bench", "stream", path, "--limit", "2", "--plot", picture)
    pixels = image.imread(picture)[..., :3].reshape(-1, 3)
    for colour in ("#d9d9d9", "#1f77b4", "#2ca02c"):  # commands, probability, recognised
        assert (np.abs(pixels - to_rgb(colour)).max(axis=1) < 0.01).sum() > 100, colour
    assert table.stdout.decode().splitlines()[1].split()[:2] == ["clean", "2"]
    assert edgevoice("bench", "stream", path, "--snr", "5").returncode == 2
    refused = edgevoice("bench", "stream", path, "--plot", "stream.jpg")
    assert refused.returncode == 2
    assert b"stream.jpg" in refused.stderr
