"""``edge-video top``: a live view of what ``status`` says. Here is its input and output: terminal, clock, signals."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live

from engine.cli.site_options import DEFAULT_SITE_FILE, SiteFile, load_site
from engine.cli.top_keys import Keys
from engine.cli.top_rates import NOTHING, History, rates
from engine.cli.top_state import View, press
from engine.cli.top_view import Frame, Look, frame
from engine.config import Config
from engine.errors import EXIT_FAILED, InputError
from engine.runtime.site_report import SiteReport
from engine.runtime.status import collect

#: Seconds between two reads of all processes' memory, which the kernel takes a while to compute.
_MEMORY_SECONDS = 30.0
#: Seconds after which an ESC that nothing followed is the key of that name.
_ESCAPE_SECONDS = 0.05
#: Bytes of keys that are read at once.
_INPUT_BYTES = 1024
_BLOCKS, _ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-=+*#%"
#: Signals that end it, as they end other commands, after the terminal is as it was.
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


def top(
    config: SiteFile = DEFAULT_SITE_FILE,
    interval: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between two looks at the site.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one screen, after one interval, and end.")] = False,
) -> None:
    """Watch a running site on the whole terminal: rates, cameras, processes. Sorts, filters, follows a camera."""
    site_config = load_site(config)
    console = Console(markup=False, emoji=False, highlight=False)
    if once:
        watch = Watch(site_config)
        running = watch.look().report.running
        if running:
            time.sleep(interval)
            watch.look()
        # Without the line of keys, and the empty lines above it.
        lines = watch.frame(View(), console, None).lines[:-1]
        while lines and not lines[-1].plain:
            lines.pop()
        for line in lines:
            line.rstrip()
            console.print(line, soft_wrap=True)
        if not running:
            raise typer.Exit(EXIT_FAILED)
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError("top needs a terminal for its screen and its keys; --once prints one screen, status the site")
    with _keyboard() as woken:
        _run(Watch(site_config), console, woken, interval)


class Watch:
    """Looks at a site again and again, and keeps what rates and curves need."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._history = History()
        self._before: SiteReport | None = None
        self._at = 0.0
        self._memory_at = -_MEMORY_SECONDS
        self._look: Look | None = None

    def look(self) -> Look:
        """Read the site's state now."""
        now = time.monotonic()
        memory_due = now >= self._memory_at + _MEMORY_SECONDS
        report = collect(self._config, memory=memory_due)
        memory = self._look.memory if self._look else {}
        if memory_due:
            self._memory_at = now
            memory = {one.pid: one.memory_mb for one in report.processes if one.alive}
        self._history.add(report)
        found = rates(self._before, report, now - self._at) if self._before else NOTHING
        self._before, self._at = report, now
        self._look = Look(report, found, self._history, memory, time.time_ns())
        return self._look

    def frame(self, view: View, console: Console, height: int | None) -> Frame:
        """The screen of the last look; ``height`` None for one as high as the site needs."""
        assert self._look is not None
        lines = height or 20 + 2 * len(self._look.report.cameras) + len(self._look.report.processes)
        return frame(self._look, view, console.width, lines, _BLOCKS if _can_draw(console) else _ASCII_BLOCKS)


def _can_draw(console: Console) -> bool:
    return codecs.lookup(console.encoding or "ascii").name == "utf-8"


def _run(watch: Watch, console: Console, woken: int, interval: float) -> None:
    """Draw and read keys until one of them, or a signal, ends it."""
    view, keys = View(), Keys()
    watch.look()
    due = time.monotonic() + interval
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while not view.quit:
            shown = watch.frame(view, console, console.height)
            view = shown.view
            live.update(Group(*shown.lines), refresh=True)
            wait = _ESCAPE_SECONDS if keys.pending else max(due - time.monotonic(), 0.0)
            pressed = _wait(keys, woken, wait)
            if pressed is None:
                return
            for key in pressed:
                view = press(view, key, shown.order, shown.rows)
            if time.monotonic() >= due:
                if not view.paused:
                    watch.look()
                due = time.monotonic() + interval


def _wait(keys: Keys, woken: int, seconds: float) -> list[str] | None:
    """The keys that come within ``seconds``; returns at once if there are any, or if the terminal has a new size. None
    if the terminal is gone."""
    ready, _, _ = select.select([0, woken], [], [], seconds)
    if woken in ready:
        os.read(woken, _INPUT_BYTES)
    if 0 not in ready:
        return keys.flush() if keys.pending and not ready else []
    try:
        data = os.read(0, _INPUT_BYTES)
    except OSError:
        return None
    return keys.feed(data) if data else None


@contextlib.contextmanager
def _keyboard() -> Iterator[int]:
    """Keys come one by one and are not shown. Yields a pipe that can be read after a signal, such as that of a new
    size. At the end the terminal is as it was, whatever ends the block."""
    before = termios.tcgetattr(0)
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    handlers = {number: signal.signal(number, _end) for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN}
    handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, _note)
    # Ctrl-Z is ignored: a stopped top would leave the shell on the alternate screen.
    handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        tty.setcbreak(0)
        yield woken
    finally:
        signal.set_wakeup_fd(-1)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(0, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(woken)
        os.close(wake)


def _end(number: int, _: FrameType | None) -> None:
    for other in _ENDING:
        # Another one must not interrupt what restores the terminal.
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _note(_number: int, _: FrameType | None) -> None:
    """Nothing: the pipe that Python writes to wakes the loop."""
