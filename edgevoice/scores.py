"""Counting: what came out of each recording against what was said in it, with exact 95 % intervals.

All functions take and give plain values, so that results.json is what they return.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from edgevoice.evaluate import CLEAN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edgevoice.evaluate import Condition, Outcome, Task
    from edgevoice.recordings import Recording

Verdict = Literal["right", "right_refused", "wrong_accepted", "wrong_refused", "accepted", "refused", "error"]
"""Of a command the first four, of what must be refused the next two."""

PERCENTILES: Final = (50, 90, 95, 99)
THRESHOLDS: Final = (*(step / 100 for step in range(100)), *(0.99 + step / 1000 for step in range(1, 11)))
"""Of the trade-off curve; finer towards 1, where confidences crowd."""

_TAIL: Final = 0.025  # on each side of a 95 % interval

# Refusals for these reasons would have been accepted at a lower threshold.
_FOR_CONFIDENCE: Final = {None, "low_confidence", "out_of_grammar", "no_speech"}


@dataclass(frozen=True, slots=True)
class Share:
    """A proportion with its Clopper-Pearson interval."""

    count: int
    of: int
    rate: float | None
    """None when there is nothing to count."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rate:
    """Events an hour with the exact Poisson interval."""

    count: int
    hours: float
    per_hour: float | None
    """None without any time."""

    low: float
    high: float | None


@dataclass(frozen=True, slots=True)
class Record:
    """A task, its outcome, and what to think of it."""

    task: Task
    outcome: Outcome
    verdict: Verdict
    best: dict[str, Any] | None
    """The result to judge by: one wrongly accepted, else the right one, else the surest."""

    def json(self) -> dict[str, Any]:
        """As results.json has it."""
        recording = self.task.recording
        return {
            "kind": self.task.kind,
            "condition": self.task.condition.name,
            "file": str(recording.path),
            "expected": {"intent": recording.intent, "slots": recording.slots},
            "verdict": self.verdict,
            "results": list(self.outcome.results),
            "duration_s": self.outcome.duration_s,
            "spent_s": self.outcome.spent_s,
            "error": self.outcome.error,
        }


def share(count: int, of: int) -> Share:
    """Return a proportion with its exact 95 % interval."""
    from scipy.stats import beta  # noqa: PLC0415 - of the extra `eval`

    low = float(beta.ppf(_TAIL, count, of - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - _TAIL, count + 1, of - count)) if count < of else 1.0
    return Share(count, of, count / of if of else None, low, high)


def hourly(count: int, hours: float) -> Rate:
    """Return a rate with its exact 95 % interval; for no event at all that is 0 to 3.69 in the time."""
    from scipy.stats import chi2  # noqa: PLC0415

    if hours <= 0:
        return Rate(count, hours, None, 0.0, None)
    low = float(chi2.ppf(_TAIL, 2 * count)) / 2 if count else 0.0
    high = float(chi2.ppf(1 - _TAIL, 2 * count + 2)) / 2
    return Rate(count, hours, count / hours, low / hours, high / hours)


def same(said: object, understood: object) -> bool:
    """Whether a slot holds what the label says: as numbers if both are, else as text without outer space."""
    if understood is None:
        return False
    left, right = str(said).strip(), str(understood).strip()
    if left == right:
        return True
    try:
        return float(left) == float(right)
    except ValueError:
        return False


def agrees(recording: Recording, result: dict[str, Any]) -> bool:
    """Whether a result has the intent and every labelled slot, accepted or not; more slots do no harm."""
    return bool(result["intent"] == recording.intent) and all(
        same(said, result["slots"].get(name)) for name, said in recording.slots.items()
    )


def judge(task: Task, outcome: Outcome) -> Record:
    """Compare what came out with what was said."""
    results = outcome.results
    accepted = [result for result in results if result["accepted"]]
    if outcome.error:
        return Record(task, outcome, "error", None)
    if task.kind != "order":
        best = _surest(accepted) or _surest(results)
        return Record(task, outcome, "accepted" if accepted else "refused", best)
    right, wrong = _sorted_out(task.recording, results)
    wrong_accepted = [result for result in wrong if result["accepted"]]
    verdict: Verdict
    if wrong_accepted:
        verdict = "wrong_accepted"
    elif accepted:
        verdict = "right"
    else:
        verdict = "right_refused" if right else "wrong_refused"
    best = _surest(wrong_accepted) or _surest(right) or _surest(results)
    return Record(task, outcome, verdict, best)


def _sorted_out(
    recording: Recording, results: Iterable[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The right results and the others."""
    right: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for result in results:
        (right if agrees(recording, result) else others).append(result)
    return right, others


def _surest(results: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    return max(results, key=lambda result: (result["intent"] is not None, result["confidence"]), default=None)


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Everything that is counted for one model."""
    heard = [record for record in records if record.verdict != "error"]
    orders = [record for record in heard if record.task.kind == "order"]
    negatives = [record for record in heard if record.task.kind == "negative"]
    misses = [record for record in heard if record.task.kind == "near_miss"]
    chosen = list(dict.fromkeys(record.task.condition for record in records if record.task.kind == "order"))
    noises = dict.fromkeys(condition.noise for condition in chosen if condition.noise)
    ratios = dict.fromkeys(condition.snr_db for condition in chosen if condition.snr_db is not None)
    errors = [record for record in records if record.verdict == "error"]
    return {
        "conditions": [_condition(condition, orders) for condition in chosen],
        "noises": [
            _group(noise, [record for record in orders if record.task.condition.noise == noise])
            for noise in noises
        ],
        "ratios": [
            {
                **_group(
                    f"{snr_db:g} dB", [record for record in orders if record.task.condition.snr_db == snr_db]
                ),
                "snr_db": snr_db,
            }
            for snr_db in ratios
        ],
        "all_noises": _group("all noises", [record for record in orders if record.task.condition.noise])
        if noises
        else None,
        "false_accepts": _false_accepts(negatives) if negatives else None,
        "near_misses": _near_misses(misses) if misses else None,
        "curve": _curve(orders, negatives, misses),
        "confusions": _confusions(orders),
        "latency_ms": _latency(orders),
        "real_time_factor": _ratio(
            sum(record.outcome.spent_s for record in heard),
            sum(record.outcome.duration_s for record in heard),
        ),
        "peak_memory_bytes": max((record.outcome.peak_memory_bytes for record in records), default=0),
        "errors": [
            {"file": str(record.task.recording.path), "condition": record.task.condition.name,
             "error": record.outcome.error}
            for record in errors
        ],
    }  # fmt: skip


def _condition(condition: Condition, orders: Sequence[Record]) -> dict[str, Any]:
    mine = [record for record in orders if record.task.condition == condition]
    return {**_group(condition.name, mine), "noise": condition.noise, "snr_db": condition.snr_db}


def _group(name: str, records: Sequence[Record]) -> dict[str, Any]:
    """Count some recordings of commands."""

    def counted(holds: Callable[[Record], bool], among: Sequence[Record] = records) -> dict[str, Any]:
        return asdict(share(sum(map(holds, among)), len(among)))

    slots = dict.fromkeys(slot for record in records for slot in record.task.recording.slots)
    refused = [record for record in records if record.verdict in ("right_refused", "wrong_refused")]
    reasons = Counter(record.best["reason"] for record in refused if record.best)
    return {
        "name": name,
        "right": counted(lambda record: record.verdict == "right"),
        "right_before_threshold": counted(_right_before),
        "wrong_accepted": counted(lambda record: record.verdict == "wrong_accepted"),
        "refused": counted(lambda record: record.verdict in ("right_refused", "wrong_refused")),
        "intent": counted(lambda record: _understood(record)[0] == record.task.recording.intent),
        "slots": {
            slot: counted(
                lambda record, slot=slot: same(  # type: ignore[misc] # mypy cannot infer the default's type
                    record.task.recording.slots[slot], _understood(record)[1].get(slot)
                ),
                [record for record in records if slot in record.task.recording.slots],
            )
            for slot in slots
        },
        "refusals": dict(reasons.most_common()),
    }


def _right_before(record: Record) -> bool:
    return any(agrees(record.task.recording, result) for result in record.outcome.results)


def _understood(record: Record) -> tuple[str | None, dict[str, Any]]:
    """Intent and slots of the best guess, accepted or not."""
    return (record.best["intent"], record.best["slots"]) if record.best else (None, {})


def _false_accepts(negatives: Sequence[Record]) -> dict[str, Any]:
    folders = dict.fromkeys(record.task.recording.folder for record in negatives)
    return {
        **_accepted_among("all", negatives),
        "folders": [
            _accepted_among(
                folder, [record for record in negatives if record.task.recording.folder == folder]
            )
            for folder in folders
        ],
        "accepted": _accepted_lines(negatives),
    }


def _accepted_among(name: str, records: Sequence[Record]) -> dict[str, Any]:
    accepted = sum(record.verdict == "accepted" for record in records)
    utterances = sum(result["accepted"] for record in records for result in record.outcome.results)
    hours = sum(record.outcome.duration_s for record in records) / 3600
    return {
        "name": name,
        "clips": asdict(share(accepted, len(records))),
        "utterances": asdict(hourly(utterances, hours)),
    }


def _accepted_lines(records: Iterable[Record]) -> list[dict[str, Any]]:
    """What was accepted that should not have been, the surest first."""
    lines = [
        {
            "file": str(record.task.recording.path),
            "said": record.task.recording.slots,
            **{key: result[key] for key in ("text", "intent", "slots", "confidence")},
        }
        for record in records
        for result in record.outcome.results
        if result["accepted"]
    ]
    return sorted(lines, key=lambda line: -line["confidence"])


def _near_misses(misses: Sequence[Record]) -> dict[str, Any]:
    accepted = sum(record.verdict == "accepted" for record in misses)
    return {"accepted": asdict(share(accepted, len(misses))), "lines": _accepted_lines(misses)}


def _confidence(results: Iterable[dict[str, Any]]) -> float:
    """The highest threshold at which one of some results is accepted; -1 if none ever is."""
    return max(map(_threshold, results), default=-1.0)


def _threshold(result: dict[str, Any]) -> float:
    fits = result["intent"] is not None and result["reason"] in _FOR_CONFIDENCE
    return float(result["confidence"]) if fits else -1.0


def _curve(
    orders: Sequence[Record], negatives: Sequence[Record], misses: Sequence[Record]
) -> list[dict[str, Any]]:
    """What would be accepted at other thresholds, from the confidence of every utterance."""

    def right(records: Iterable[Record]) -> np.ndarray[Any, Any]:
        """Confidence of the right and of the other utterances of each recording, shape (n, 2)."""
        pairs = [
            [_confidence(results) for results in _sorted_out(record.task.recording, record.outcome.results)]
            for record in records
        ]
        return np.array(pairs).reshape(-1, 2)

    def right_share(pairs: np.ndarray[Any, Any], threshold: float) -> float | None:
        is_right = (pairs[:, 0] >= threshold) & (pairs[:, 1] < threshold)
        return _ratio(int(is_right.sum()), len(pairs))

    clean = right(record for record in orders if record.task.condition == CLEAN)
    noisy = right(record for record in orders if record.task.condition.noise)
    false = np.array([_threshold(result) for record in negatives for result in record.outcome.results])
    near = np.array([_confidence(record.outcome.results) for record in misses])
    hours = sum(record.outcome.duration_s for record in negatives) / 3600
    return [
        {
            "threshold": round(threshold, 3),
            "right_clean": right_share(clean, threshold),
            "right_noisy": right_share(noisy, threshold),
            "false_accepts_per_hour": _ratio(int((false >= threshold).sum()), hours),
            "near_misses": _ratio(int((near >= threshold).sum()), len(near)),
        }
        for threshold in THRESHOLDS
    ]


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _confusions(orders: Iterable[Record]) -> list[dict[str, Any]]:
    """What was said against what was understood instead, by intent or slot, the most frequent first."""
    counts: Counter[tuple[str, str, str | None]] = Counter()
    accepted: Counter[tuple[str, str, str | None]] = Counter()
    for record in orders:
        said = record.task.recording
        intent, slots = _understood(record)
        if intent is None:
            continue
        wrong: list[tuple[str, str, str | None]]
        if intent != said.intent:
            wrong = [("intent", str(said.intent), str(intent))]
        else:
            wrong = [
                (name, str(value), None if slots.get(name) is None else str(slots[name]))
                for name, value in said.slots.items()
                if not same(value, slots.get(name))
            ]
        counts.update(wrong)
        if record.verdict == "wrong_accepted":
            accepted.update(wrong)
    return [
        {"what": what, "said": said, "understood": understood, "count": count,
         "accepted": accepted[what, said, understood]}
        for (what, said, understood), count in counts.most_common()
    ]  # fmt: skip


def _latency(orders: Iterable[Record]) -> dict[str, dict[str, float]]:
    """Percentiles of each stage, over the utterances that Whisper heard."""
    timings = [
        result["timings_ms"]
        for record in orders
        for result in record.outcome.results
        if result["timings_ms"]["encode"] > 0
    ]
    found: dict[str, dict[str, float]] = {}
    for stage in timings[0] if timings else ():
        values = np.array([each[stage] for each in timings])
        found[stage] = {
            **{f"p{each}": float(np.percentile(values, each)) for each in PERCENTILES},
            "max": float(values.max()),
        }
    return found
