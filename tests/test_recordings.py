"""Real people, at the thresholds that are shipped: a part of what `edgevoice eval` measures in full."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from edgevoice.capture import FileSource
from edgevoice.config import Config
from edgevoice.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA: Final = os.environ.get("EDGEVOICE_EVAL_DATA", "")

pytestmark = pytest.mark.skipif(not DATA, reason="EDGEVOICE_EVAL_DATA names no folder of recordings")

EVERY: Final = 5
"""One recording in five keeps the test within half a minute."""


def manifest(folder: str) -> list[dict[str, Any]]:
    lines = (Path(DATA) / folder / "manifest.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines[::EVERY]]


@pytest.fixture(scope="module")
def coffee_pipeline(model_path: Path) -> Iterator[Pipeline]:  # noqa: ARG001 - pulls the model
    pipeline = Pipeline(Config(), Path(DATA) / "coffee_commands" / "grammar.yaml")
    yield pipeline
    pipeline.close()


def test_orders_are_understood(coffee_pipeline: Pipeline) -> None:
    """At least 95 % of clean orders are accepted with every labelled slot."""
    orders = manifest("coffee_commands")
    right = 0
    for order in orders:
        results = coffee_pipeline.results(FileSource(Path(DATA) / "coffee_commands" / order["audio"]))
        right += any(
            result.accepted
            and all(result.slots.get(name) == said.strip() for name, said in order["slots"].items())
            for result in results
        )
    assert right >= 0.95 * len(orders), f"{right} of {len(orders)}"


OTHERS: Final = (
    "read_librispeech_test_other", "read_librispeech_train_notext", "nonwake_speech_precise", "noise_esc10",
)  # fmt: skip


def test_other_sounds_are_refused(coffee_pipeline: Pipeline) -> None:
    """At most one recording of other speech or noise in a hundred is taken for an order."""
    recordings = [Path(DATA) / folder / entry["audio"] for folder in OTHERS for entry in manifest(folder)]
    accepted = [
        path.name
        for path in recordings
        if any(result.accepted for result in coffee_pipeline.results(FileSource(path)))
    ]
    assert len(accepted) <= 0.01 * len(recordings), accepted
