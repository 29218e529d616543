"""Reports while a server is away. The log gets the beginning, each new reason once, and the end. The process's status
page gets the start and the reason, for ``edge-video status``."""

from __future__ import annotations

import re
import time

from structlog.typing import FilteringBoundLogger

from engine.errors import Audience, EngineError, WireError, explain
from engine.shm.status_page import StatusPage
from engine.wire.state import OUTAGE_CHARACTERS_MAX, ServerAway, decode_outages, encode_outages

#: Reasons of one outage that get a log line each, at most.
_REASONS_MAX = 8


class Outage:
    """Outages of one server, as the owner of ``page`` sees them. ``consequence`` says what they mean for frames or
    events."""

    def __init__(self, log: FilteringBoundLogger, server: str, consequence: str, page: StatusPage) -> None:
        self._log = log
        self._server = server
        self._consequence = consequence
        self._page = page
        self._since = 0.0
        self._reasons: set[str] = set()
        #: The outage that a former process left in the status page; valid until this process knows better.
        self._inherited = self._shown().get(server)

    @property
    def ongoing(self) -> bool:
        """True between ``lost`` and ``over``."""
        return bool(self._since)

    def lost(self, error: Exception) -> None:
        """The server is away, or still away, for this reason. Reasons that differ only in numbers count as one."""
        reason = re.sub(r"\d+", "#", error.fact if isinstance(error, EngineError) else str(error))
        text = explain(error, Audience.SITE)
        if not self._since:
            self._since = time.monotonic()
            self._reasons = {reason}
            self._log.warning(f"{self._server} {self._consequence}", error=text)
            self._show(text)
        elif reason not in self._reasons and len(self._reasons) < _REASONS_MAX:
            self._reasons.add(reason)
            self._log.warning(f"{self._server} is still away", error=text)
            self._show(text)

    def over(self) -> None:
        """The server works, as far as is known. Logged if it was away before."""
        if self._since:
            self._log.info(f"{self._server} is back", away_seconds=round(time.monotonic() - self._since, 1))
        self._end()

    def dismissed(self) -> None:
        """The server is not used any more. Logged if it was away."""
        if self._since:
            self._log.info(f"{self._server} is not used any more")
        self._end()

    def _end(self) -> None:
        if not self._since and not self._inherited:
            return
        self._since = 0.0
        self._inherited = None
        shown = self._shown()
        shown.pop(self._server, None)
        self._page.text = encode_outages(shown)

    def _show(self, error: str) -> None:
        shown = self._shown()
        since = self._inherited.since_nano if self._inherited else time.time_ns()
        self._inherited = self._inherited or ServerAway(since, "")
        shown[self._server] = ServerAway(since, error[:OUTAGE_CHARACTERS_MAX])
        self._page.text = encode_outages(shown)

    def _shown(self) -> dict[str, ServerAway]:
        try:
            return decode_outages(self._page.text)
        except WireError:
            return {}
