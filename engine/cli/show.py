"""The state of a running site, redrawn in place."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from engine.cli.status_view import live_lines
from engine.config import Config
from engine.runtime.status import collect
from engine.runtime.streams import leave_terminal

#: Seconds between two drawings of the live table.
_REFRESH_SECONDS = 0.5
#: Lines of the terminal that the table must not use: for its footer and the prompt.
_FRAME_LINES = 3


class LiveTable:
    """The site on a terminal. ``refresh`` redraws it in place and may be called at any rate."""

    def __init__(self, config: Config, footer: str) -> None:
        self._config = config
        self._footer = footer
        self._console = Console(markup=False, emoji=False, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._next = 0.0
        self._gone = False

    def __enter__(self) -> LiveTable:
        self._draw(self._live.start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draw(self._live.stop)

    def _draw(self, step: Callable[[], None]) -> None:
        """Write to the terminal. It may go away at any moment; the site then continues without it."""
        try:
            step()
        except OSError:
            self._gone = True
            leave_terminal()

    def refresh(self) -> None:
        """Redraw the site if the last drawing is old enough."""
        now = time.monotonic()
        if self._gone or now < self._next:
            return
        self._next = now + _REFRESH_SECONDS
        report = collect(self._config, memory=False)
        lines = live_lines(report, self._console.width, max(self._console.height - _FRAME_LINES, 3))
        table = Group(*lines, Text(self._footer, style="dim"))
        self._draw(lambda: self._live.update(table, refresh=True))
