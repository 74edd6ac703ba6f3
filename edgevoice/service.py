"""The service, `edgevoice run`: the pipeline, and all that goes on beside it.

    source -> pipeline.py -> Result -> settle.py, if others may hear the same -> counted, shown, published

    floor.py says which source: the house's, or a browser's.

    beside it: commands in (commands.py), grammar reloads (reload.py), reports (health.py), Wyoming
    (wyoming_server.py), Home Assistant (discovery.py), sounds and a light (feedback.py), a page in a browser
    (web_server.py), and what systemd is told (watchdog.py)

What is opened is closed in the opposite order: nothing that could still make a result outlives the publisher.
"""

from __future__ import annotations

import dataclasses
import logging
import signal
from contextlib import ExitStack, closing, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from edgevoice import native
from edgevoice.broker import mqtt_settings
from edgevoice.commands import Commands
from edgevoice.discovery import Discovery
from edgevoice.errors import BrokerError
from edgevoice.feedback import Feedback
from edgevoice.floor import MAX_TALK_S, Floor, Talk
from edgevoice.health import Figures, Reporter
from edgevoice.hermes import speaking
from edgevoice.microphone import Microphone
from edgevoice.notify import Notifier
from edgevoice.pipeline import Pipeline, Watchers
from edgevoice.publish import ALL_BIDS, Publisher, base_topic
from edgevoice.reload import Reloader
from edgevoice.settle import Settlement
from edgevoice.signals import heard
from edgevoice.watchdog import Watchdog, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from edgevoice.capture import FrameSource
    from edgevoice.config import Config
    from edgevoice.events import Result
    from edgevoice.pipeline import Watcher
    from edgevoice.publish import State
    from edgevoice.recognise import Recogniser
    from edgevoice.records import Record
    from edgevoice.wyoming_server import WyomingServer

    OnResult = Callable[[Result], None]
    OnState = Callable[[State], None]
    OnGrammar = Callable[[dict[str, object]], None]
    OnRecord = Callable[[Record], None]

_log = logging.getLogger(__name__)
_What = TypeVar("_What")


@dataclasses.dataclass(frozen=True, slots=True)
class _Told:
    """Who is told what happens, in this order."""

    results: list[OnResult]
    states: list[OnState]
    grammars: list[OnGrammar]


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
    native.spare_memory()
    publisher = _publisher(config)
    figures = Figures()
    with heard(), closing(publisher) if publisher else nullcontext():
        with ExitStack() as stack:
            pipeline = stack.enter_context(closing(Pipeline(config, grammar)))
            keepers = stack.enter_context(_keeping(config, figures))
            others, wyoming = stack.enter_context(
                _wyoming(
                    config,
                    pipeline.recogniser,
                    grammar,
                    alone=sources is None and config.web.listen is None,  # a browser may be a microphone
                    keep=_each(keepers) if config.records.keep or config.web.listen else None,
                )
            )
            watchdog = Watchdog(Notifier(), progress(config, pipeline, others, wyoming), publisher)
            told = _Told([figures.count, show], [watchdog.tell], [])
            if publisher:
                _tell_broker(config, publisher, told)
            reloader = Reloader(
                pipeline.recogniser, _each(told.grammars), *others, choices=config.grammar.choices
            )
            stack.enter_context(closing(reloader))
            native.give_back_memory()  # what compiling took; with another grammar the reloader does it
            _reload_at_hangup(watchdog, reloader)
            commands = Commands(
                config.wake.window_s,
                (pipeline.recogniser, *others),
                publisher.set_settings if publisher else lambda _: None,
            )
            commands.reloader = reloader
            commands.feedback = stack.enter_context(_feedback(config, publisher, commands, pipeline, told))
            offer = commands.give = _each(told.results)
            figures.watch("queues", partial(_queues, pipeline, publisher))
            if publisher:
                stack.enter_context(_reporting(config, publisher, figures))
                offer = stack.enter_context(_serving(config, publisher, pipeline, commands, told))
            commands.floor = Floor()
            watch = stack.enter_context(_watching(config, pipeline, figures, commands, told, keepers=keepers))
            stack.enter_context(watchdog)
            on_state = _each(told.states)
            turns = stack.enter_context(closing(commands.floor.turns(sources(on_state) if sources else None)))
            if sources is None:
                watchdog.listens(None)
            for source in turns:
                watchdog.listens(source)
                if isinstance(source, Microphone):
                    figures.watch("audio", partial(_counters, source))
                with closing(_results(source, pipeline, on_state, commands, watch)) as results:
                    for result in results:
                        _tell_result(result, pipeline, commands, offer)
                if sources is None:  # a browser was the microphone
                    watchdog.listens(None)
                    if publisher:
                        publisher.set_state("lost")
        if publisher:
            _finish(publisher, config.mqtt.connect_timeout_s)


def _tell_result(result: Result, pipeline: Pipeline, commands: Commands, offer: OnResult) -> None:
    if commands.trials.take(result):
        pipeline.recogniser.active.begin()  # what it would ask back is not answered, either
    else:
        offer(result)


def _tell_broker(config: Config, publisher: Publisher, told: _Told) -> None:
    """Have what happens published."""
    told.results.append(publisher.publish)
    told.states.append(publisher.set_state)
    told.grammars.append(publisher.set_grammar)
    if config.home_assistant.discovery:
        discovery = Discovery(config, publisher)
        told.results.append(discovery.tell)
        told.grammars.append(discovery.set_grammar)


@contextmanager
def _serving(
    config: Config, publisher: Publisher, pipeline: Pipeline, commands: Commands, told: _Told
) -> Iterator[OnResult]:
    """Speak Hermes, settle and take commands over MQTT while a block runs; it gets who takes results."""
    offer = _each(told.results)
    with ExitStack() as stack:
        told.results.extend(
            stack.enter_context(speaking(config, publisher, pipeline.recogniser, commands.attention))
        )
        if config.mqtt.settle_ms:
            offer = stack.enter_context(_settling(config, publisher, offer)).offer
        publisher.serve(commands.take)
        yield offer


def _reporting(config: Config, publisher: Publisher, figures: Figures) -> AbstractContextManager[object]:
    """Report how all fares while a block runs, if that is configured."""
    figures.watch("mqtt", publisher.figures)
    interval_s = config.mqtt.health_interval_s
    return closing(Reporter(figures, publisher.set_health, interval_s)) if interval_s else nullcontext()


def _reload_at_hangup(watchdog: Watchdog, reloader: Reloader) -> None:
    def reload(*_: object) -> None:
        watchdog.reloads()
        reloader.reload(watchdog.reloaded)

    signal.signal(signal.SIGHUP, reload)


def _each(takers: list[Callable[[_What], None]]) -> Callable[[_What], None]:
    """Return what tells all of them, also those that are still to come."""

    def tell(what: _What) -> None:
        for take in takers:
            take(what)

    return tell


def _results(
    source: FrameSource,
    pipeline: Pipeline,
    on_state: OnState,
    commands: Commands,
    watch: Watcher | None,
) -> Generator[Result]:
    """Yield what a source has to say, until it ends."""
    microphone = source if isinstance(source, Microphone) else None
    commands.microphone, commands.trials.source = microphone, source
    talk = source if isinstance(source, Talk) else None
    try:
        if talk:
            commands.attention.listen(MAX_TALK_S)  # who pushes a button wants to be heard
        for result in pipeline.results(
            source,
            on_state,
            live=source.live,
            watch=watch,
            attention=commands.attention,
            tell_silence=microphone is None,
        ):
            yield result
            if talk:
                talk.on_result(result)
                commands.attention.listen(MAX_TALK_S)
    finally:
        if talk:
            commands.attention.listen(0.0)
        if microphone is None:
            source.close()


@contextmanager
def _watching(
    config: Config,
    pipeline: Pipeline,
    figures: Figures,
    commands: Commands,
    told: _Told,
    *,
    keepers: list[OnRecord],
) -> Iterator[Watcher | None]:
    """Show what is heard, and have records made of it, while a block runs, if that is configured."""
    watchers: list[Watcher] = []
    with ExitStack() as stack:
        if config.web.listen is not None:
            from edgevoice.web_server import serving  # noqa: PLC0415 - it takes 10 MB

            live = stack.enter_context(serving(config, figures, commands))
            keepers.append(live.keep)
            watchers.append(live)
            told.states.append(live.tell)
        if keepers:
            from edgevoice.recorder import Recorder  # noqa: PLC0415

            def keep(record: Record) -> None:
                commands.trials.mark(record.fields)
                _each(keepers)(record)

            watchers.append(Recorder(config, pipeline.recogniser, keep))
        yield Watchers(watchers) if watchers else None


@contextmanager
def _keeping(config: Config, figures: Figures) -> Iterator[list[OnRecord]]:
    """Give a block who takes records; others may join them."""
    if not config.records.keep:
        yield []
        return
    from edgevoice.records import Keeper  # noqa: PLC0415 - most keep none

    with closing(Keeper(config.records)) as keeper:
        figures.watch("records", keeper.figures)
        yield [keeper.keep]


def _wyoming(
    config: Config,
    recogniser: Recogniser,
    grammar: Path | None,
    *,
    alone: bool,
    keep: OnRecord | None,
) -> AbstractContextManager[tuple[list[Recogniser], WyomingServer | None]]:
    """Serve while a block runs, if that is configured."""
    if config.wyoming.listen is None:
        return nullcontext(([], None))
    from edgevoice.wyoming_server import serving  # noqa: PLC0415 - with asyncio, a tenth of a second

    return serving(config, recogniser, grammar, alone=alone, keep=keep)


@contextmanager
def _feedback(
    config: Config, publisher: Publisher | None, commands: Commands, pipeline: Pipeline, told: _Told
) -> Iterator[Feedback | None]:
    """Tell people what becomes of their commands while a block runs, if that is configured."""
    options = config.feedback
    speaks = bool(options.chime or options.say or options.publish)
    if not (speaks or options.run or options.led):
        yield None
        return
    publish = None
    if publisher and options.publish:
        publish = partial(publisher.send, f"{base_topic(config.site)}/feedback")
    feedback = Feedback(config, commands.attention, lambda: pipeline.recogniser.language, publish)
    told.results.append(feedback.tell)
    told.states.append(feedback.set_state)
    with closing(feedback):
        yield feedback if speaks else None


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


def _queues(pipeline: Pipeline, publisher: Publisher | None) -> dict[str, object]:
    return {"utterances": pipeline.waiting, "results": publisher.waiting if publisher else 0}


def _counters(microphone: Microphone) -> dict[str, object]:
    return dataclasses.asdict(microphone.counters)


def _finish(publisher: Publisher, timeout_s: float) -> None:
    """Wait for the broker to have everything."""
    if publisher.flush(timeout_s):
        return
    if publisher.failure:
        raise BrokerError(f"not every result reached the broker; {publisher.failure}")
    _log.warning("not every result reached the broker: %s", publisher.counters)
