"""The agent of the monitor: every two seconds it looks at the site and tells which alerts were raised or cleared.

Alerts go to the log, to the file beside the rings (for ``status``, the API and the publisher), and to the webhook.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.monitor.hysteresis import Alerts
from engine.monitor.look import Looker
from engine.monitor.redis_watch import RedisWatch
from engine.shm import alerts_file
from engine.shm.site import SitePaths
from engine.shm.status_page import MonitorCount, StatusPage
from engine.wire.alert import AlertState

if TYPE_CHECKING:
    from engine.config.alerts import Webhook as Address
    from engine.monitor.webhook import Webhook

#: Seconds between two looks.
_LOOK_SECONDS = 2.0
#: Seconds of one sleep: a stop need not wait for longer.
_SLEEP_SECONDS = 0.25
#: Seconds after the start before the first look. The other processes are still starting.
_START_SECONDS = 2.0


class MonitorAgent:
    """The monitor of a site."""

    finished = False

    def __init__(self, config: Config, page: StatusPage, log: FilteringBoundLogger) -> None:
        self._config = config
        self._counts = page.counts
        self._log = log
        self._paths = SitePaths.of(config)
        self._alerts = Alerts(config.alerts, alerts_file.read(self._paths))
        self._looker = Looker(config)
        self._redis = RedisWatch(config, log)
        address = config.alerts.webhook_address
        self._webhook = _webhook(config, address, page, log) if address else None
        self._written: list[AlertState] | None = None
        self._look_at = time.monotonic() + _START_SECONDS
        self._refused = False

    def on_start(self) -> None:
        """Begin to ask Redis, and to post."""
        self._redis.start()
        if self._webhook:
            self._webhook.start()

    def do_work(self) -> int:
        """Look, if it is time."""
        now = time.monotonic()
        if now < self._look_at:
            return 0
        self._look_at = now + _LOOK_SECONDS
        facts = self._looker.look(now, self._redis.answer(now))
        changes = self._alerts.judge(facts, now, time.time_ns())
        # In this order: after a kill between the two, a change is told twice and never not at all.
        for change in changes:
            self._tell(change)
        self._write()
        self._counts[MonitorCount.LOOKS] += 1
        self._counts[MonitorCount.ACTIVE] = sum(state.state == "raised" for state in self._alerts.states)
        return 1

    def idle(self) -> None:
        """Sleep for a while."""
        time.sleep(_SLEEP_SECONDS)

    def drained(self) -> bool:
        """Nothing waits for the monitor."""
        return True

    def on_close(self) -> None:
        """Leave Redis and the webhook."""
        self._redis.end()
        if self._webhook:
            self._webhook.end()

    def _tell(self, change: AlertState) -> None:
        raised = change.state == "raised"
        self._counts[MonitorCount.RAISED if raised else MonitorCount.CLEARED] += 1
        say = self._log.warning if raised else self._log.info
        facts = {"alert": change.name, "subject": change.subject, "text": change.text}
        say("alert raised" if raised else "alert cleared", **facts, **({"advice": change.advice} if raised else {}))
        if self._webhook:
            self._webhook.put(change)

    def _write(self) -> None:
        """Replace the file if something changed. It is written again if it was removed."""
        states = self._alerts.states
        if states == self._written and self._paths.alerts.exists():
            return
        try:
            alerts_file.write(self._paths, states)
        except OSError as error:
            if not self._refused:
                self._log.warning("alerts cannot be written for other processes", error=error.strerror)
            self._refused = True
            return
        self._written, self._refused = states, False


def _webhook(config: Config, address: Address, page: StatusPage, log: FilteringBoundLogger) -> Webhook:
    """The posts to a webhook. Imported only if needed: its modules cost memory in each process of the site."""
    from engine.monitor.webhook import Webhook

    return Webhook(config, address, page, log)
