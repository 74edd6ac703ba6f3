"""The command `edgevoice transcribe --mic`: text as it is spoken, what is certain bright, the rest dim."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from edgevoice import models, signals
from edgevoice.whisper import Model, StreamOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgevoice.capture import FrameSource
    from edgevoice.publish import State
    from edgevoice.whisper import Options, Stream, Update


class View:
    """The utterance that is being spoken; in anything but a terminal only those that have ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stable = self._tentative = ""
        self._lost = False

    def tell(self, state: State) -> None:
        """Take the state of the microphone."""
        self._lost = state == "lost"

    def take(self, update: Update) -> None:
        """Take what became of the audio."""
        self._lost = False
        self._stable, self._tentative = update.stable, update.tentative
        if update.final:
            self.end()

    def end(self) -> None:
        """Print what is certain as a line of its own."""
        text, self._stable, self._tentative = self._stable.strip(), "", ""  # once, also if Ctrl-C comes here
        if text:
            self._console.print(Text(text), soft_wrap=True)

    def __rich__(self) -> Text:
        if self._lost:
            return Text("no microphone: waiting for it", "bold red")
        stable = self._stable.lstrip()
        return Text.assemble(
            (stable, "bold"), (self._tentative if stable else self._tentative.lstrip(), "dim"), ("▏", "dim")
        )


def run(model: str, options: Options, microphone: Callable[[Callable[[State], None]], FrameSource]) -> None:
    """Show what a microphone hears until Ctrl-C."""
    console = Console()
    view = View(console)
    with (
        Model(models.find(model)) as opened,
        opened.session() as session,
        session.stream(StreamOptions(options=options)) as stream,
    ):
        source = microphone(view.tell)
        live = Live(view, console=console, transient=True, auto_refresh=False)
        print("listening; Ctrl-C ends it", file=sys.stderr, flush=True)
        try:
            with signals.heard(), live if console.is_terminal else contextlib.nullcontext():
                show(stream, source, view, live.refresh if console.is_terminal else lambda: None)
        finally:
            source.close()


def show(stream: Stream, source: FrameSource, view: View, refresh: Callable[[], None]) -> None:
    """Show what a source has to say, until it ends."""
    following = 0
    try:
        for frame in source:
            updates = stream.finish() if frame.start_samples != following else []
            following = frame.start_samples + len(frame.samples)
            for update in [*updates, *stream.push(frame.samples)]:
                view.take(update)
                refresh()
        for update in stream.finish():
            view.take(update)
    finally:
        view.end()
