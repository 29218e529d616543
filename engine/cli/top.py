"""``edge-video top``: a live view of what ``status`` says, on a terminal."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from engine.cli import top_view
from engine.cli.site_options import DEFAULT_SITE_FILE, SiteFile, load_site
from engine.cli.top_keys import View, pressed, split_keys
from engine.cli.top_rates import Looks, Rates
from engine.config import Config
from engine.errors import InputError
from engine.runtime.status import collect

_KEY_BYTES_MAX = 1024


def top(
    config: SiteFile = DEFAULT_SITE_FILE,
    interval: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between two looks.")] = 1.0,
) -> None:
    """Show a running site on the terminal, live: rates, CPU, what is wrong. Sorts, filters, follows a camera; ? lists
    the keys."""
    site_config = load_site(config)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError("top needs a terminal; edge-video status prints the same once")
    _Top(site_config, interval).run()


class _Top:
    def __init__(self, config: Config, interval: float) -> None:
        self._config = config
        self._interval = interval
        self._console = Console(markup=False, emoji=False, highlight=False)
        self._looks = Looks()
        self._view = View()
        self._report = collect(config, memory=False)
        self._rates: Rates = self._looks.take(self._report, time.monotonic())

    def run(self) -> None:
        """Look, draw, take keys, until a person or a signal ends it."""
        with _raw_terminal() as woken, Live(console=self._console, screen=True, auto_refresh=False) as live:
            next_look = time.monotonic() + self._interval
            while not self._view.ended:
                live.update(Group(*self._screen()), refresh=True)
                wait = max(next_look - time.monotonic(), 0)
                ready, _, _ = select.select([sys.stdin, woken], [], [], wait)
                if woken in ready and os.read(woken, _KEY_BYTES_MAX).strip(bytes([signal.SIGWINCH])):
                    # Another signal than a change of the terminal's size.
                    return
                if sys.stdin in ready:
                    data = os.read(sys.stdin.fileno(), _KEY_BYTES_MAX)
                    if not data:
                        return
                    self._press(data)
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + self._interval
                    if not self._view.paused:
                        self._report = collect(self._config, memory=False)
                        self._rates = self._looks.take(self._report, time.monotonic())

    def _press(self, data: bytes) -> None:
        for key in split_keys(data):
            shown = [camera.id for camera in top_view.order(self._report, self._rates, self._view)]
            self._view = pressed(self._view, key, shown, top_view.page(self._console.height))

    def _screen(self) -> list[Text]:
        size = self._console.size
        return top_view.screen(self._report, self._rates, self._looks.fps, self._view, size.width, size.height)


@contextmanager
def _raw_terminal() -> Iterator[int]:
    """Keys come one by one and are not shown. Yields a descriptor that has a byte for each signal that came; the
    signals that would end the process only do that, so that the terminal is restored."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signals = (signal.SIGWINCH, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = {number: signal.signal(number, lambda *_: None) for number in signals}
    former = signal.set_wakeup_fd(wake)
    try:
        tty.setcbreak(keyboard)
        yield woken
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        signal.set_wakeup_fd(former)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(woken)
        os.close(wake)
