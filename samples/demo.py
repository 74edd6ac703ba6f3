"""Speak to edgevoice from recordings and print every result as an MQTT subscriber received it.

Uses the configured broker, or starts a mosquitto of its own on a free port of this machine. Ends with
exit code 1 when a recording was understood otherwise than its manifest says.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from edgevoice import config as configuration
from edgevoice.broker import MqttSettings, mqtt_settings
from edgevoice.capture import FileSource
from edgevoice.errors import ConfigError, EdgevoiceError
from edgevoice.pipeline import Pipeline
from edgevoice.publish import Publisher, topic_level
from edgevoice.testing import Broker, Message, Subscriber

SAMPLES: Final = Path(__file__).resolve().parent
DELIVERY_S: Final = 5.0
"""A broker on the same machine answers within milliseconds."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A recording and what its manifest says of it."""

    audio: str
    said: str
    accepted: bool
    intent: str | None
    slots: dict[str, Any]

    def agrees(self, received: dict[str, Any]) -> bool:
        """Whether what the subscriber received is what was meant."""
        if not self.accepted:
            return not received["accepted"]
        return bool(received["intent"] == self.intent and received["slots"] == self.slots)


def main() -> int:
    """Run the demo and return its exit code."""
    console = Console(soft_wrap=True)
    samples = [_sample(line) for line in (SAMPLES / "manifest.jsonl").read_text("utf-8").splitlines()]
    config = configuration.load(configuration.find_config(None))
    started = time.perf_counter()
    with ExitStack() as stack:
        if config.mqtt.host is None:
            broker = stack.enter_context(Broker())
            settings = MqttSettings(host=broker.host, port=broker.port)
            console.print(f"started mosquitto on {settings.address}")
        else:
            settings = mqtt_settings(config)
            console.print(f"using the configured broker at {settings.address}")
        if settings.tls:
            raise ConfigError("the demo's subscriber speaks no TLS; turn it off, or try: edgevoice run")
        topics = f"edgevoice/{topic_level(config.site)}/#"
        login = {"username": settings.username, "password": settings.password}
        subscriber = stack.enter_context(Subscriber(settings.port, topics, host=settings.host, **login))
        publisher = Publisher(settings, config.site)
        stack.callback(publisher.close)
        publisher.connect()
        # The recordings fit the grammar that comes with edgevoice, whatever the user has configured.
        pipeline = Pipeline(configuration.Config(site=config.site, mqtt=config.mqtt))
        stack.callback(pipeline.close)
        console.print(f"model and grammar loaded in {time.perf_counter() - started:.1f} s\n")

        wrong = 0
        for sample in samples:
            for result in pipeline.results(FileSource(SAMPLES / sample.audio), publisher.set_state):
                publisher.publish(result)
                received = _await(subscriber, result.utterance_id)
                payload = received.json()
                good = sample.agrees(payload)
                wrong += not good
                said = f'"{sample.said}"' if sample.said else f"({Path(sample.audio).stem})"
                console.print(f"[bold]{said}[/bold]" + ("" if good else "  [red]WRONG[/red]"))
                console.print(f"    [cyan]{received.topic}[/cyan]  {_meaning(payload)}", highlight=False)
                console.print(f"    [dim]{_details(payload)}[/dim]", highlight=False)
    console.print(f"\n{len(samples)} recordings, {len(samples) - wrong} as they should be.")
    console.print("\nNext: say it yourself. Plug in a microphone and type\n\n    .venv/bin/edgevoice run\n")
    console.print("then write your own sentences: docs/first-grammar.md")
    return 1 if wrong else 0


def _sample(line: str) -> Sample:
    fields = json.loads(line)
    return Sample(
        fields["audio"], fields["text"], fields["accepted"], fields.get("intent"), fields.get("slots") or {}
    )


def _meaning(payload: dict[str, Any]) -> str:
    if not payload["accepted"]:
        return f"refused: {payload['reason']}"
    return " ".join(f"{name}={value}" for name, value in payload["slots"].items())


def _details(payload: dict[str, Any]) -> str:
    timings = payload["timings_ms"]
    stages = ", ".join(f"{stage} {ms:.0f}" for stage, ms in timings.items() if stage != "total")
    return f"confidence {payload['confidence']:.2f}, {timings['total']:.0f} ms ({stages})"


def _await(subscriber: Subscriber, utterance_id: str) -> Message:
    return subscriber.wait_for(lambda message: utterance_id.encode() in message.payload, DELIVERY_S)[0]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgevoiceError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
