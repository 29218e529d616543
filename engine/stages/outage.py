"""What the log says while a server is away: the beginning, each new reason once, and the end."""

from __future__ import annotations

import re
import time

from structlog.typing import FilteringBoundLogger

#: Reasons of one outage that are worth a line each.
_REASONS_MAX = 8


class Outage:
    """Outages of one server. ``consequence`` says what they mean for frames or events."""

    def __init__(self, log: FilteringBoundLogger, server: str, consequence: str) -> None:
        self._log = log
        self._server = server
        self._consequence = consequence
        self._since = 0.0
        self._reasons: set[str] = set()

    @property
    def ongoing(self) -> bool:
        """True between ``lost`` and ``over``."""
        return bool(self._since)

    def lost(self, error: Exception) -> None:
        """It is away, or still, for this reason; numbers in it do not make it another one."""
        reason = re.sub(r"\d+", "#", str(error))
        if not self._since:
            self._since = time.monotonic()
            self._reasons = {reason}
            self._log.warning(f"{self._server} {self._consequence}", error=str(error))
        elif reason not in self._reasons and len(self._reasons) < _REASONS_MAX:
            self._reasons.add(reason)
            self._log.warning(f"{self._server} is still away", error=str(error))

    def over(self) -> None:
        """It works, as far as is known; said where it did not before."""
        if self._since:
            self._log.info(f"{self._server} is back", away_seconds=round(time.monotonic() - self._since, 1))
            self._since = 0.0
