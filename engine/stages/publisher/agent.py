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

from engine.backoff import Backoff
from engine.config import Config
from engine.errors import BrokerUnavailable, Cause, RedisUnavailable, ServerRefused
from engine.servers.amqp.broker import Broker
from engine.servers.amqp.parameters import metadata_exchange
from engine.servers.outage import Outage
from engine.shm import publish_latency
from engine.shm.site import SitePaths
from engine.shm.status_page import PublisherCount, StatusPage
from engine.stages.publisher.accounts import Accounts
from engine.stages.publisher.alert_events import AlertEvents, AlertToken
from engine.stages.publisher.entry_queue import EntryQueue, Item
from engine.stages.publisher.gops import Gops, GopToken
from engine.stages.publisher.journals import Journals
from engine.stages.publisher.reads import Newest
from engine.stages.publisher.state_events import StateEvents, StateToken
from engine.wire.journal import JournalEntry
from engine.wire.metadata import FrameEvents, encode_batch, encode_event

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
#: Pauses between tries to connect, in seconds.
_BACKOFF_SECONDS_MIN = 0.5
_BACKOFF_SECONDS_MAX = 10.0
#: Seconds without a refusal after which a broker that refused messages counts as back. It refuses within milliseconds,
#: and every try sends a window of messages again, also to queues that take them.
_TRUST_SECONDS = 1.0


class _EventMakers(dict[str, FrameEvents]):
    """By camera: makes events from its journal entries."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config

    def __missing__(self, camera: str) -> FrameEvents:
        config = self._config
        made = self[camera] = FrameEvents(config.vhost, config.prefix, camera, config.redis.ttl_seconds)
        return made


class PublisherAgent:
    """The publisher ``number`` of a site, which announces the cameras that are assigned to it."""

    def __init__(self, config: Config, page: StatusPage, log: FilteringBoundLogger, number: int = 0) -> None:
        self.finished = False
        self._config = config
        self._metadata = config.metadata
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
        self._events = _EventMakers(config)
        self._broker = Broker(config.amqp, metadata_exchange(config.metadata))
        self._queue = EntryQueue(self._journals, self._accounts)
        self._states = StateEvents(self._broker, config.metadata.status_routing_key, log)
        # Alerts are of the whole site: the first publisher sends them all.
        paths = SitePaths.of(config) if config.alerts.enabled and not number else None
        self._alerts = AlertEvents(self._broker, config.metadata.system_routing_key, config.site.name, paths)
        self._gops = (
            Gops(config, page, self._broker, log, self._say_foreign, number) if config.publishes_video else None
        )
        self._targets: dict[str, Newest] | None = None
        self._save_at = self._save_all_at = self._look_at = self._states_at = self._retry_at = 0.0
        #: True if confirms have come since the last save.
        self._unsaved = False
        #: True from refused messages on until the broker counts as back, which is not before ``_trust_at``.
        self._refused = False
        self._trust_at = 0.0
        self._backoff = Backoff(_BACKOFF_SECONDS_MIN, _BACKOFF_SECONDS_MAX)
        self._redis_outage = Outage(log, "redis", "is away; nothing to announce", page)
        #: Parts of a cluster are away.
        self._node_outage = Outage(log, "redis", "is away in part; the events of its cameras wait", page)
        self._broker_outage = Outage(log, "rabbitmq", "is away; events wait in the journals", page)

    def on_start(self) -> None:
        """Nothing is needed before the first round."""

    def do_work(self) -> int:
        """Do one round; returns 0 if there is nothing to do before the next wait."""
        now = time.monotonic()
        work = self._turn_broker(now)
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
            work += self._send()
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
            self._broker_lost(error)
        except (RedisUnavailable, ServerRefused) as error:
            self._redis_lost(error)

    def _rest_seconds(self) -> float:
        """How long a wait for entries may last."""
        if self._gops and self._gops.behind:
            return 0.0
        if self._broker.in_flight:
            return _CONFIRM_SECONDS
        return _SAVE_SECONDS if self._unsaved else _STATES_SECONDS

    def drained(self) -> bool:
        """True if all journal entries of the first call are confirmed, or cannot be confirmed for now."""
        if self._broker_outage.ongoing or self._broker.blocked or self._redis_outage.ongoing:
            return True
        if not self._broker.ready or not self._accounts.begun:
            return False
        try:
            if self._targets is None:
                self._targets = self._look()
            if self._gops and not self._gops.drained():
                return False
        except (RedisUnavailable, ServerRefused) as error:
            self._redis_lost(error)
            return True
        return (
            self._states.all_confirmed
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
        self._broker.close()
        self._disconnect()
        self._counts[PublisherCount.CONNECTED] = 0

    # Redis to broker

    def _send(self) -> int:
        """Fill the window; returns the number of messages sent."""
        self._states.send()
        queue, broker, metadata = self._queue.items, self._broker, self._metadata
        sent = events = 0
        room = self._config.publisher.window - broker.in_flight if broker.ready else 0
        while queue and sent < room and broker.ready:
            if metadata.format == "batch":
                taken = [queue.popleft() for _ in range(min(len(queue), metadata.batch_max))]
                body = encode_batch([self._events[camera].event(entry) for camera, entry, _ in taken])
                broker.publish(body, metadata.batch_routing_key, taken)
            else:
                camera, entry, _ = item = queue.popleft()
                taken = [item]
                broker.publish(encode_event(self._events[camera].event(entry)), metadata.routing_key, taken)
            events += len(taken)
            sent += 1
        self._counts[PublisherCount.PUBLISHED] += events
        return sent

    def _turn_broker(self, now: float) -> int:
        """Keep the connection, and take confirms; returns the number of confirmed messages."""
        try:
            if not self._broker.opened:
                if now < self._retry_at:
                    return 0
                self._counts[PublisherCount.CONNECTS] += 1
                self._broker.open()
            self._broker.turn()
        except (BrokerUnavailable, OSError) as error:
            self._broker_lost(error)
            return 0
        if self._broker.ready and not self._counts[PublisherCount.CONNECTED]:
            self._counts[PublisherCount.CONNECTED] = 1 + self._broker.hosts.place
            self._trust_at = now + _TRUST_SECONDS
            if not self._refused:
                self._broker_back()
        if self._broker.blocked and self._counts[PublisherCount.CONNECTED]:
            self._counts[PublisherCount.CONNECTED] = 0
            self._broker_outage.lost(
                BrokerUnavailable(f"RabbitMQ takes no messages: {self._broker.blocked}", cause=Cause.BROKER_BLOCKED)
            )
        confirmed = self._take_confirmed()
        if self._broker.nacked:
            self._refused = True
            self._counts[PublisherCount.NACKED] += self._broker.nacked
            self._broker.hosts.lost()
            self._broker_lost(
                BrokerUnavailable(f"RabbitMQ refused {self._broker.nacked} messages (nack)", cause=Cause.BROKER_BLOCKED)
            )
        elif (
            self._refused and self._broker.ready and now > self._trust_at and (confirmed or not self._broker.in_flight)
        ):
            self._refused = False
            self._broker_back()
        return confirmed

    def _take_confirmed(self) -> int:
        """Move the cursors past confirmed entries; returns the number of messages."""
        tokens: list[list[Item] | StateToken | AlertToken | GopToken] = self._broker.take_confirmed()
        newest: dict[str, JournalEntry] = {}
        counts: dict[str, int] = {}
        stored_at: list[int] = []
        messages = 0
        for token in tokens:
            if isinstance(token, StateToken):
                self._states.confirm(token)
                self._counts[PublisherCount.STATUS_EVENTS] += 1
            elif isinstance(token, AlertToken):
                self._alerts.confirm(token)
                self._counts[PublisherCount.ALERT_EVENTS] += 1
            elif isinstance(token, GopToken):
                if self._gops:
                    self._gops.confirm(token)
            else:
                for camera, entry, since in token:
                    newest[camera] = entry
                    counts[camera] = counts.get(camera, 0) + 1
                    stored_at.append(since)
                messages += 1
        for camera, entry in newest.items():
            self._accounts.by_camera[camera].confirm(counts[camera], (entry.unix_nano, entry.sequence))
        self._counts[PublisherCount.CONFIRMED] += len(stored_at)
        self._counts[PublisherCount.MESSAGES] += messages
        if stored_at:
            now = time.monotonic_ns()
            publish_latency.count(self._counts, [now - since for since in stored_at])
        self._unsaved = self._unsaved or bool(tokens)
        return len(tokens)

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
        self._unsaved = False
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

    def _broker_lost(self, error: Exception) -> None:
        self._take_confirmed()
        self._broker.close()
        self._counts[PublisherCount.CONNECTED] = 0
        self._rewind()
        pause = self._backoff.next_seconds() if self._broker.hosts.round_over else 0.0
        self._retry_at = time.monotonic() + pause
        self._broker_outage.lost(error)

    def _broker_back(self) -> None:
        self._backoff.reset()
        self._broker_outage.over()
        hosts = self._broker.hosts
        self._log.info("rabbitmq connected", **({"at": str(hosts.current)} if hosts.several else {}))

    def _redis_lost(self, error: RedisUnavailable | ServerRefused) -> None:
        self._disconnect()
        # The next round must ask Redis something before it counts Redis as back.
        self._look_at = 0.0
        # One report at a time: that of the whole says more.
        self._node_outage.over()
        self._redis_outage.lost(error)
