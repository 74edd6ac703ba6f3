"""The service, `edgevoice run`: the pipeline, and all that goes on beside it.

    source -> pipeline.py -> Result -> settle.py, if others may hear the same -> counted, shown, published

    beside it: commands in (commands.py), grammar reloads (reload.py), reports (health.py), Wyoming
    (wyoming_server.py), Home Assistant (discovery.py), sounds (feedback.py)

What is opened is closed in the opposite order: nothing that could still make a result outlives the publisher.
"""

from __future__ import annotations

import dataclasses
import logging
import signal
import threading
from contextlib import ExitStack, closing, nullcontext
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from edgevoice.broker import mqtt_settings
from edgevoice.commands import Commands
from edgevoice.discovery import Discovery
from edgevoice.errors import BrokerError
from edgevoice.feedback import Feedback
from edgevoice.health import Figures, Reporter
from edgevoice.hermes import speaking
from edgevoice.microphone import Microphone
from edgevoice.pipeline import Pipeline
from edgevoice.publish import ALL_BIDS, Publisher, topic_level
from edgevoice.reload import Reloader
from edgevoice.settle import Settlement

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from edgevoice.attention import Attention
    from edgevoice.capture import FrameSource
    from edgevoice.config import Config
    from edgevoice.events import Result
    from edgevoice.publish import State
    from edgevoice.recognise import Recogniser

    OnState = Callable[[State], None]

T = TypeVar("T")
_log = logging.getLogger(__name__)


def run(
    config: Config,
    grammar: Path | None,
    sources: Callable[[OnState], Iterable[FrameSource]] | None,
    show: Callable[[Result], None],
) -> None:
    """Serve until the sources end or a signal raises an exception.

    Args:
        config: everything else.
        grammar: a grammar file in place of the configured one.
        sources: of sound, one after the other, told where to report their state; None: only what others send.
        show: given each result.

    Raises:
        EdgevoiceError: something cannot be opened, or not every result reached the broker.
    """
    publisher = _publisher(config)
    figures = Figures()
    takers = [figures.count, show, *([publisher.publish] if publisher else [])]
    tell = partial(_to_all, takers)

    with closing(publisher) if publisher else nullcontext():
        with ExitStack() as stack:
            pipeline = stack.enter_context(closing(Pipeline(config, grammar)))
            others = stack.enter_context(
                _wyoming(config, pipeline.recogniser, grammar, alone=sources is None)
            )
            grammar_takers: list[Callable[[dict[str, object]], None]] = []
            if publisher:
                grammar_takers.append(publisher.set_grammar)
                if config.home_assistant.discovery:
                    discovery = Discovery(config, publisher)
                    grammar_takers.append(discovery.set_grammar)
                    takers.append(discovery.tell)
            reloader = stack.enter_context(
                closing(
                    Reloader(
                        pipeline.recogniser,
                        partial(_to_all, grammar_takers),
                        *others,
                        choices=config.grammar.choices,
                    )
                )
            )
            signal.signal(signal.SIGHUP, lambda *_: reloader.reload())
            commands = Commands(
                config.wake.window_s,
                (pipeline.recogniser, *others),
                publisher.set_settings if publisher else lambda _: None,
            )
            commands.reloader = reloader
            offer: Callable[[Result], None] = tell
            state_takers: list[OnState] = [publisher.set_state] if publisher else []
            if publisher:
                figures.watch("mqtt", publisher.figures)
                figures.watch("queues", partial(_queues, pipeline, publisher))
                if interval_s := config.mqtt.health_interval_s:
                    stack.enter_context(closing(Reporter(figures, publisher.set_health, interval_s)))
                takers += stack.enter_context(
                    speaking(config, publisher, pipeline.recogniser, commands.attention)
                )
                if config.mqtt.settle_ms:
                    offer = stack.enter_context(_settling(config, publisher, tell)).offer
            feedback = stack.enter_context(_feedback(config, publisher, commands.attention, pipeline))
            if feedback:
                commands.feedback = feedback
                takers.append(feedback.tell)
                state_takers.append(feedback.set_state)
            if publisher:
                publisher.serve(commands.take)
            if sources is None:
                threading.Event().wait()  # until a signal
            else:
                on_state: OnState = partial(_to_all, state_takers)
                for source in sources(on_state):
                    with closing(_results(source, pipeline, on_state, commands, figures)) as results:
                        for result in results:
                            offer(result)
        if publisher:
            _finish(publisher, config.mqtt.connect_timeout_s)


def _to_all(takers: Iterable[Callable[[T], None]], what: T) -> None:
    for take in takers:
        take(what)


def _results(
    source: FrameSource, pipeline: Pipeline, on_state: OnState, commands: Commands, figures: Figures
) -> Generator[Result]:
    """Yield what a source has to say, until it ends."""
    with closing(source):
        commands.microphone = source if isinstance(source, Microphone) else None
        if commands.microphone:
            figures.watch("audio", partial(_counters, commands.microphone))
        yield from pipeline.results(source, on_state, live=source.live, attention=commands.attention)


def _wyoming(
    config: Config, recogniser: Recogniser, grammar: Path | None, *, alone: bool
) -> AbstractContextManager[list[Recogniser]]:
    """Serve while a block runs, if that is configured."""
    if config.wyoming.listen is None:
        return nullcontext([])
    from edgevoice.wyoming_server import serving  # noqa: PLC0415 - with asyncio, a tenth of a second

    return serving(config, recogniser, grammar, alone=alone)


def _feedback(
    config: Config, publisher: Publisher | None, attention: Attention, pipeline: Pipeline
) -> AbstractContextManager[Feedback | None]:
    """Tell people what became of their commands while a block runs, if that is configured."""
    options = config.feedback
    if not (options.chime or options.say or options.publish):
        return nullcontext()
    publish = partial(publisher.send, f"edgevoice/{topic_level(config.site)}/feedback") if publisher else None
    return closing(
        Feedback(
            config, attention, lambda: pipeline.recogniser.language, publish if options.publish else None
        )
    )


def _settling(
    config: Config, publisher: Publisher, tell: Callable[[Result], None]
) -> AbstractContextManager[Settlement]:
    """Settle with other sites who answers, while a block runs."""
    settlement = Settlement(config.site, config.mqtt.settle_ms / 1000, publisher.bid, tell)
    publisher.also_take([ALL_BIDS], settlement.hear)
    return closing(settlement)


def _publisher(config: Config) -> Publisher | None:
    """Return a publisher that connects in the background, or None when no broker is configured."""
    if config.mqtt.host is None:
        _log.warning("no broker configured (mqtt.host): results are only printed")
        return None
    publisher = Publisher(mqtt_settings(config), config.site)
    publisher.start()
    return publisher


def _queues(pipeline: Pipeline, publisher: Publisher) -> dict[str, object]:
    return {"utterances": pipeline.waiting, "results": publisher.waiting}


def _counters(microphone: Microphone) -> dict[str, object]:
    return dataclasses.asdict(microphone.counters)


def _finish(publisher: Publisher, timeout_s: float) -> None:
    """Wait for the broker to have everything."""
    if publisher.flush(timeout_s):
        return
    if publisher.failure:
        raise BrokerError(f"not every result reached the broker; {publisher.failure}")
    _log.warning("not every result reached the broker: %s", publisher.counters)
