"""The publisher process's agent: journals in, confirmed messages out.

It reads each camera's journal behind its cursor, and sends a message for each entry (or an array for many). It moves
the cursor past an entry only after the broker has confirmed its message and all messages before it. After a kill or a
lost connection it continues from the cursors. So events are sent at least once, and in order per camera. The publisher
holds only a window of messages and one read ahead. During an outage of the broker, events wait in the journals in
Redis.

An event whose frame is gone is not sent, and counts as expired. Redis decides whether a frame is gone, not a clock,
because the machine's clock may have been set since the frame was stamped. Events that were trimmed before they were
read count too (``engine/stages/publisher/account.py``).
"""

from __future__ import annotations

import time

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.errors import BrokerUnavailable, RedisUnavailable, ServerRefused
from engine.servers.amqp.broker import Broker
from engine.servers.amqp.parameters import metadata_exchange
from engine.servers.outage import Outage
from engine.shm.site import SitePaths
from engine.shm.status_page import PublisherCount, StatusPage
from engine.stages.publisher.accounts import Accounts
from engine.stages.publisher.alert_events import AlertEvents
from engine.stages.publisher.broker_connection import BrokerConnection
from engine.stages.publisher.confirms import Confirms
from engine.stages.publisher.entry_queue import EntryQueue
from engine.stages.publisher.frame_messages import FrameMessages
from engine.stages.publisher.gops import Gops
from engine.stages.publisher.journals import Journals
from engine.stages.publisher.reads import Newest
from engine.stages.publisher.state_events import StateEvents

#: Seconds of one sleep while the broker or Redis is away.
_AWAY_SECONDS = 0.2
#: Seconds between saves of the cursors; after a kill, the events of this time are sent twice.
_SAVE_SECONDS = 0.1
#: Seconds between saves of unmoved cursors too: somebody may have removed them.
_SAVE_ALL_SECONDS = 10.0
#: Seconds between looks at lag, expired entries and the rings, and between looks at the cameras' states.
_LOOK_SECONDS = 1.0
_STATES_SECONDS = 0.25
#: Seconds that confirms may wait until they are taken, unless the window is full. Mostly the next event comes earlier,
#: so that one wake-up serves both.
_CONFIRM_SECONDS = 0.05
#: Seconds that a stop waits for parts of a cluster that are away, to learn what their journals list.
_UNSEEN_SECONDS = 2.0


class PublisherAgent:
    """The publisher ``number`` of a site, which announces the cameras that are assigned to it."""

    def __init__(self, config: Config, page: StatusPage, log: FilteringBoundLogger, number: int = 0) -> None:
        self.finished = False
        self._counts = page.counts
        self._log = log
        self._journals = Journals(
            config.publisher_redis_address,
            config.redis.timeout_seconds,
            config.vhost,
            config.prefix,
            [camera.id for camera in config.cameras if config.publisher_of(camera.id) == number],
            self._say_foreign,
            publisher=number,
        )
        self._accounts = Accounts(config, page, self._journals, log, number)
        self._broker = Broker(config.amqp, metadata_exchange(config.metadata))
        self._queue = EntryQueue(self._journals, self._accounts)
        self._messages = FrameMessages(config, self._broker, self._queue, page)
        self._states = StateEvents(self._broker, config.metadata.status_routing_key, log)
        # Alerts are of the whole site: the first publisher sends them all.
        paths = SitePaths.of(config) if config.alerts.enabled and not number else None
        self._alerts = AlertEvents(self._broker, config.metadata.system_routing_key, config.site.name, paths)
        self._gops = (
            Gops(config, page, self._broker, log, self._say_foreign, number) if config.publishes_video else None
        )
        self._confirms = Confirms(self._broker, self._accounts, self._states, self._alerts, self._gops, page)
        self._connection = BrokerConnection(self._broker, page, log, self._confirms.take, self._rewind)
        #: In a stop: the last entries to confirm, if those of all cameras are known, and until when (monotonic seconds)
        #: others are waited for; 0 before it begins.
        self._targets: dict[str, Newest] = {}
        self._targets_known = False
        self._targets_until = 0.0
        self._save_at = self._save_all_at = self._look_at = self._states_at = 0.0
        self._redis_outage = Outage(log, "redis", "is away; nothing to announce", page)
        #: Parts of a cluster are away.
        self._node_outage = Outage(log, "redis", "is away in part; the events of its cameras wait", page)

    def on_start(self) -> None:
        """Nothing is needed before the first round."""

    def do_work(self) -> int:
        """Do one round; returns 0 if there is nothing to do before the next wait."""
        now = time.monotonic()
        work = self._connection.turn(now)
        # Before Redis is asked: one of the alerts may say that Redis is away.
        if self._alerts.turn(now):
            self._broker.flush()
        try:
            if not self._accounts.begun:
                self._accounts.begin()
            if self._gops:
                self._gops.begin()
            if now >= self._look_at:
                self._look_at = now + _LOOK_SECONDS
                self._look()
            elif now >= self._states_at:
                self._states_at = now + _STATES_SECONDS
                self._states.look(self._journals.states())
            self._queue.fill()
            if self._gops:
                work += self._gops.do_work(now)
            self._states.send()
            work += self._messages.send()
            self._broker.flush()
            if now >= self._save_at:
                self._save_at = now + _SAVE_SECONDS
                self._save(all_of_them=now >= self._save_all_at)
                if now >= self._save_all_at:
                    self._save_all_at = now + _SAVE_ALL_SECONDS
        except (RedisUnavailable, ServerRefused) as error:
            self._redis_lost(error)
            return 0
        self._redis_outage.over()
        if away := self._journals.away:
            self._node_outage.lost(away)
        else:
            self._node_outage.over()
        return work if self._queue.items else 0

    def idle(self) -> None:
        """Wait for new entries or confirms. If queued entries cannot be sent, wait for the broker."""
        if not self._broker.opened or self._redis_outage.ongoing:
            time.sleep(_AWAY_SECONDS)
            return
        try:
            if not self._broker.ready or not self._accounts.begun or self._queue.items:
                self._broker.pump(_CONFIRM_SECONDS)
            else:
                self._queue.wait(self._rest_seconds())
        except BrokerUnavailable as error:
            self._connection.lost(error)
        except (RedisUnavailable, ServerRefused) as error:
            self._redis_lost(error)

    def _rest_seconds(self) -> float:
        """How long a wait for entries may last."""
        if self._gops and self._gops.behind:
            return 0.0
        if self._broker.in_flight:
            return _CONFIRM_SECONDS
        return _SAVE_SECONDS if self._confirms.unsaved else _STATES_SECONDS

    def drained(self) -> bool:
        """True if all journal entries of the first call are confirmed, or cannot be confirmed for now. Parts of a
        cluster that are away are waited for, but only a moment."""
        if self._connection.away or self._redis_outage.ongoing:
            return True
        if not self._broker.ready or not self._accounts.begun:
            return False
        try:
            self._targets_until = self._targets_until or time.monotonic() + _UNSEEN_SECONDS
            waits = time.monotonic() < self._targets_until
            if not self._targets_known:
                self._targets = self._look() | self._targets
                self._targets_known = not (waits and self._journals.unseen)
            if self._gops and not self._gops.drained(waits=waits):
                return False
        except (RedisUnavailable, ServerRefused) as error:
            self._redis_lost(error)
            return True
        return (
            self._targets_known
            and self._states.all_confirmed
            and self._alerts.all_confirmed
            and all(
                target.at <= account.cursor
                for camera, account in self._accounts.by_camera.items()
                if (target := self._targets.get(camera))
            )
        )

    def on_close(self) -> None:
        """Save the cursors and leave the broker."""
        try:
            self._save()
        except (RedisUnavailable, ServerRefused) as error:
            self._log.warning("cursors not written; some events will be sent again", error=error)
        self._connection.close()
        self._disconnect()

    # Periodic looks

    def _look(self) -> dict[str, Newest]:
        """Look at states, lag, new and removed cameras, and expired entries; returns the journals' last entries."""
        overview = self._journals.overview()
        self._states.look(overview.states)
        oldest = self._queue.oldest()
        self._queue.overtake(self._accounts.look(overview, oldest.keys()))
        lags = [
            newest.at[0] - (account.cursor[0] or oldest.get(camera, newest.at)[0])
            for camera, account in self._accounts.by_camera.items()
            if (newest := overview.newest.get(camera))
        ]
        self._counts[PublisherCount.LAG_NANO] = max(0, *lags, 0)
        self._queue.expire()
        if self._gops:
            self._gops.look()
        return overview.newest

    def _save(self, *, all_of_them: bool = False) -> None:
        self._confirms.unsaved = False
        self._accounts.save(all_of_them=all_of_them)
        if self._gops:
            self._gops.save(all_of_them=all_of_them)

    def _say_foreign(self, camera: str, error: str) -> None:
        if error:
            self._log.warning("passed over: the engine did not write its data in Redis", of=camera, error=error)
        else:
            self._log.info("read again: its data in Redis is valid", of=camera)

    # Outages

    def _rewind(self) -> None:
        """Forget unconfirmed entries, to read them again."""
        self._queue.clear()
        self._accounts.rewind()
        self._states.rewind()
        self._alerts.rewind()
        if self._gops:
            self._gops.rewind()

    def _disconnect(self) -> None:
        self._journals.close()
        if self._gops:
            self._gops.disconnect()

    def _redis_lost(self, error: RedisUnavailable | ServerRefused) -> None:
        self._disconnect()
        # The next round must ask Redis something before it counts Redis as back.
        self._look_at = 0.0
        # One report at a time: that of the whole says more.
        self._node_outage.over()
        self._redis_outage.lost(error)
