"""The command `edgevoice bench`: how well and how soon a long stream of commands is answered."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgevoice.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgevoice.config import Config
    from edgevoice.endpoint import EndpointOptions
    from edgevoice.events import Samples, ScoredFrame
    from edgevoice.pipeline import Pipeline
    from edgevoice.recordings import Recording
    from edgevoice.streams import Stream
    from edgevoice.timeline import Timeline
    from edgevoice.vad import Vad

SNRS_DB: Final = (None, 20.0, 10.0, 5.0)
"""None: no noise."""

FIXED_MS: Final = 500
"""Silence after which an endpoint without a grammar ends a command: an answer is ready in time if it is there
by then."""

_PER_STREAM: Final = 20
"""Commands: a stream of two minutes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add = parser.add_argument
    add(
        "manifest",
        type=Path,
        metavar="MANIFEST",
        help="commands with speech_start and speech_end, or long recordings with segments; or its folder",
    )
    add("--grammar", type=Path, metavar="FILE", help="grammar in place of the configured one")
    add("--noise", type=Path, metavar="PATH", help="noise, or a folder of it")
    add("--snr", type=_ratios, metavar="LIST", help="dB above the noise (default clean,20,10,5)")
    add("--limit", type=int, metavar="N", help="only the first N commands")
    add("--seed", type=int, default=0, metavar="N", help="of what is chosen at random (default 0)")
    add(
        "--real-time",
        action="store_true",
        help="play them at their own pace, and measure what it takes to answer",
    )
    add("--plot", type=Path, metavar="FILE", help="draw the first stream of the last condition (PNG or SVG)")
    add("--json", action="store_true", help="as JSON in place of a table")


def run(options: argparse.Namespace, config: Config) -> int:
    """Measure and print."""
    import numpy as np  # noqa: PLC0415 - quick to say what is wrong

    from edgevoice import models, recordings, timeline, whisper  # noqa: PLC0415
    from edgevoice.audio import read_audio  # noqa: PLC0415
    from edgevoice.mixing import generator  # noqa: PLC0415
    from edgevoice.pipeline import Pipeline  # noqa: PLC0415
    from edgevoice.streams import compose  # noqa: PLC0415

    timeline.check(options.plot)
    clips = recordings.others(options.manifest, options.limit)
    segmented = any(clip.segments for clip in clips)
    orders = [] if segmented else recordings.orders(options.manifest, options.limit)
    snrs_db = options.snr or (SNRS_DB if options.noise else (None,))
    noise: Samples | None = None
    if options.noise:
        noises = [path for paths in recordings.noises(options.noise).values() for path in paths]
        generator(options.seed, "stream", "noise").shuffle(noises)
        noise = np.concatenate([read_audio(path) for path in noises])
    elif any(snr_db is not None for snr_db in snrs_db):
        raise UsageError("--snr needs noise; give it with --noise")
    if segmented:
        return _run_segments(options, config, clips, snrs_db, noise)
    rows = []
    pipeline = Pipeline(config, options.grammar)
    # With all of the encoder's window: in a short one, like the recogniser's, it may write the same twice.
    session = whisper.Model(models.find(config.model.name)).session()
    free = whisper.Options(language=pipeline.recogniser.language)
    try:
        for snr_db in snrs_db:
            name = "clean" if snr_db is None else f"{snr_db:g} dB"
            choice = generator(options.seed, "stream", name)
            streams = [
                compose(
                    orders[first : first + _PER_STREAM],
                    None if snr_db is None else noise,
                    snr_db or 0.0,
                    choice,
                )
                for first in range(0, len(orders), _PER_STREAM)
            ]
            measured, first = _measure(
                pipeline,
                streams,
                lambda samples: session.transcribe(samples, free).text,
                real_time=options.real_time,
            )
            rows.append({"condition": name, **measured})
            if not options.json:
                print(_text(rows[-1], header=len(rows) == 1), flush=True)
        if options.plot:
            timeline.draw(streams[0], first, pipeline.threshold, options.plot)
    finally:
        session.close()
        pipeline.close()
    if options.json:
        print(json.dumps(rows))
    return 0


def _measure(
    pipeline: Pipeline, streams: list[Stream], write: Callable[[Samples], str], *, real_time: bool
) -> tuple[dict[str, Any], Timeline]:
    """Counts of all streams, and how the first went."""
    from edgevoice.streams import judge  # noqa: PLC0415

    used_ms, wasted_ms = pipeline.used_ms, pipeline.wasted_ms
    total: dict[str, Any] = {}
    cpu_s = time.process_time()
    heard = [_hear(pipeline, stream.samples, real_time=real_time) for stream in streams]
    cpu_s = time.process_time() - cpu_s
    for stream, timeline in zip(streams, heard, strict=True):
        counts = {
            **judge(stream, timeline.heard, write),
            "ready_ms": [each.ready_ms for each in timeline.heard],
        }
        for key, value in counts.items():
            total[key] = total[key] + value if key in total else value
    total["used_ms"] = pipeline.used_ms - used_ms
    total["wasted_ms"] = pipeline.wasted_ms - wasted_ms
    total["cpu_s"] = cpu_s
    return total, heard[0]


def _hear(pipeline: Pipeline, samples: Samples, *, real_time: bool) -> Timeline:
    import soundfile  # noqa: PLC0415

    from edgevoice.capture import FileSource  # noqa: PLC0415
    from edgevoice.events import SAMPLE_RATE_HZ  # noqa: PLC0415
    from edgevoice.timeline import Timeline  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.wav"
        soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
        source = FileSource(path, real_time=real_time)
        timeline = Timeline(live=source.live)
        for result in pipeline.results(source, live=source.live, watch=timeline):
            timeline.resulted(result)
    return timeline


def _text(row: dict[str, Any], *, header: bool) -> str:
    import numpy as np  # noqa: PLC0415

    said = row["said"]

    def share(count: int, of: int = said) -> str:
        return f"{100 * count / of:.1f} %" if of else "-"

    delays_ms = row["delays_ms"] or [float("nan")]
    p50, p95 = np.percentile(delays_ms, [50, 95])
    ready_ms = [each for each in row["ready_ms"] if each is not None]
    cells = {
        "": row["condition"],
        "said": str(said),
        "whole": share(row["whole"]),
        "all words": share(row["all_words"]),
        "missed": str(row["missed"]),
        "start cut": str(row["cut_start"]),
        "end cut": str(row["cut_end"]),
        "split, merged": f"{row['split_or_merged']}/{row['apart']}",
        "led in": share(row["led_in"]),
        "right": share(row["right"]),
        "false": f"{row['false_triggers']} ({row['false_accepts']})",
        "answer after ms, p50": f"{p50:.0f}",
        "p95": f"{p95:.0f}",
        "ready": share(sum(each <= FIXED_MS for each in ready_ms), len(ready_ms)),
        "wasted": share(round(row["wasted_ms"]), round(row["used_ms"])),
    }
    return _line(cells, header=header)


# ---- long recordings with labels of their own ----


def _run_segments(
    options: argparse.Namespace,
    config: Config,
    clips: Sequence[Recording],
    snrs_db: Sequence[float | None],
    noise: Samples | None,
) -> int:
    """Measure with each of the silences that may end an utterance, and print."""
    from edgevoice.pipeline import endpoint_options  # noqa: PLC0415
    from edgevoice.vad import Vad  # noqa: PLC0415

    if options.grammar or options.real_time or options.plot:
        raise UsageError(
            "recordings with segments are judged by where speech begins and ends; "
            "leave --grammar, --real-time and --plot out"
        )
    for clip in clips:
        if not clip.segments:
            raise UsageError(f"{clip.path} has no segments, others of {options.manifest} have; label it, too")
    endpoint = config.endpoint
    rows = []
    vad = Vad()
    try:
        for snr_db in snrs_db:
            scored = [
                _score(vad, clip, None if snr_db is None else noise, snr_db or 0.0, options.seed)
                for clip in clips
            ]
            for silence_ms in sorted({endpoint.finished_ms, endpoint.silence_ms, endpoint.unfinished_ms}):
                cut = replace(endpoint_options(config), silence_ms=silence_ms)
                counts = _count_segments(clips, scored, cut)
                name = "clean" if snr_db is None else f"{snr_db:g} dB"
                rows.append({"condition": name, "silence_ms": silence_ms, **counts})
                if not options.json:
                    print(_segments_text(rows[-1], header=len(rows) == 1), flush=True)
    finally:
        vad.close()
    if options.json:
        print(json.dumps(rows))
    return 0


def _score(vad: Vad, clip: Recording, noise: Samples | None, snr_db: float, seed: int) -> list[ScoredFrame]:
    from edgevoice.audio import frames, read_audio  # noqa: PLC0415
    from edgevoice.mixing import generator, mix, noise_piece  # noqa: PLC0415

    samples = read_audio(clip.path)
    if noise is not None:
        choice = generator(seed, f"{snr_db:g} dB", clip.name)
        samples = mix(samples, noise_piece(noise, len(samples), choice), snr_db)
    vad.reset()
    return [vad.score(frame) for frame in frames([samples])]


def _count_segments(
    clips: Sequence[Recording], scored: Sequence[list[ScoredFrame]], cut: EndpointOptions
) -> Counter[str]:
    from edgevoice.endpoint import Endpointer  # noqa: PLC0415
    from edgevoice.streams import judge_segments  # noqa: PLC0415

    total: Counter[str] = Counter()
    for clip, stream in zip(clips, scored, strict=True):
        utterances = [each for each in Endpointer(cut).utterances(stream) if each.end_reason != "pause"]
        total.update(judge_segments(clip, stream, utterances, cut))
    return total


def _segments_text(row: dict[str, Any], *, header: bool) -> str:
    def share(count: str, of: str) -> str:
        return f"{100 * row[count] / row[of]:.1f} %" if row[of] else "-"

    cells = {
        "": row["condition"],
        "silence ms": str(row["silence_ms"]),
        "segments": str(row["segments"]),
        "whole": share("whole", "segments"),
        "missed": str(row["missed"]),
        "start cut": str(row["cut_start"]),
        "end cut": str(row["cut_end"]),
        "split": str(row["split"]),
        "merged": str(row["merged"]),
        "led in": share("led_in", "firsts"),
        "utterances": str(row["utterances"]),
        "false": str(row["false_triggers"]),
        "speech found": share("hit_frames", "speech_frames"),
        "taken for it": share("alarm_frames", "silent_frames"),
    }
    return _line(cells, header=header)


def _line(cells: dict[str, str], *, header: bool) -> str:
    """Return a line of a table, below the names of its columns if it is the first."""
    line = "  ".join(cell.rjust(max(len(name), 7)) for name, cell in cells.items())
    return "  ".join(name.rjust(max(len(name), 7)) for name in cells) + "\n" + line if header else line


def _ratios(text: str) -> tuple[float | None, ...]:
    try:
        return tuple(None if item.strip() == "clean" else float(item) for item in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be numbers of dB or the word clean, separated by commas, got {text[:60]!r}"
        ) from None
