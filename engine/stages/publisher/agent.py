"""The publisher process's agent: journals in, confirmed messages out.

It reads each camera's journal behind its cursor, sends a message for each entry (or an array for many), and moves the
cursor only past entries whose message, and all messages before it, the broker has confirmed. Killed or cut off at any
moment, it begins again at the cursors: events come at least once, per camera in order. Nothing is held but a window of
messages and one look ahead; an outage of the broker piles up in the journals, which are in Redis anyway.

An event whose frame is gone is not sent, and counts as expired. Redis says whether a frame is gone, no clock does: the
machine's may have been set since the frame was stamped. Events that were trimmed before they were read count too
(``engine/stages/publisher/account.py``).
"""

from __future__ import annotations

import time
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from engine.backoff import Backoff
from engine.config import Config
from engine.errors import BrokerUnavailable, Cause, RedisUnavailable, ServerRefused, WireError
from engine.servers.amqp.broker import Broker, metadata_exchange
from engine.servers.outage import Outage
from engine.shm.status_page import PublisherCount, StatusPage
from engine.stages.publisher.accounts import Accounts
from engine.stages.publisher.entry_queue import READ_SECONDS_MAX, EntryQueue, Item
from engine.stages.publisher.journals import Journals, Newest
from engine.wire.journal import JournalEntry
from engine.wire.metadata import FrameEvents, StatusEvent, encode_batch, encode_event
from engine.wire.rfc3339 import rfc3339
from engine.wire.state import change_of, decode_status

#: Seconds that a publisher without a broker or without Redis sleeps at a time.
_AWAY_SECONDS = 0.2
#: Seconds between writes of the cursors: what a kill can make the publisher say twice.
_SAVE_SECONDS = 0.1
#: Seconds after which cursors are written that have not moved: somebody may have removed them.
_SAVE_ALL_SECONDS = 10.0
#: Seconds between looks at states, lag and expired entries.
_LOOK_SECONDS = 0.25
#: Pauses between tries to connect, in seconds.
_BACKOFF_SECONDS_MIN = 0.5
_BACKOFF_SECONDS_MAX = 10.0


class _EventMakers(dict[str, FrameEvents]):
    """What makes events of a camera's entries, by camera."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config

    def __missing__(self, camera: str) -> FrameEvents:
        config = self._config
        made = self[camera] = FrameEvents(config.vhost, config.prefix, camera, config.redis.ttl_seconds)
        return made


class _StatusToken(NamedTuple):
    camera: str
    change: bytes


class PublisherAgent:
    """The publisher of a site."""

    def __init__(self, config: Config, page: StatusPage, log: FilteringBoundLogger) -> None:
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
            [camera.id for camera in config.cameras],
            self._say_foreign,
        )
        self._accounts = Accounts(config, page, self._journals, log)
        self._events = _EventMakers(config)
        self._broker = Broker(config.amqp, metadata_exchange(config.metadata))
        self._queue = EntryQueue(self._journals, self._accounts)
        self._states: dict[str, bytes] = {}
        #: The change that each state tells of, and those that were sent and confirmed.
        self._changes: dict[str, bytes] = {}
        self._states_sent: dict[str, bytes] = {}
        self._states_confirmed: dict[str, bytes] = {}
        self._targets: dict[str, Newest] | None = None
        self._save_at = self._save_all_at = self._look_at = self._retry_at = 0.0
        self._backoff = Backoff(_BACKOFF_SECONDS_MIN, _BACKOFF_SECONDS_MAX)
        self._redis_outage = Outage(log, "redis", "is away; nothing to announce", page)
        self._broker_outage = Outage(log, "rabbitmq", "is away; events wait in the journals", page)

    def on_start(self) -> None:
        """Nothing is needed before the first round."""

    def do_work(self) -> int:
        """One round: events confirmed and messages sent."""
        now = time.monotonic()
        work = self._turn_broker(now)
        try:
            if not self._accounts.begun:
                self._accounts.begin()
            if now >= self._look_at:
                self._look_at = now + _LOOK_SECONDS
                self._look()
            if now >= self._queue.read_at and self._queue.wants_entries:
                self._queue.fill()
            work += self._send()
            if now >= self._save_at:
                self._save_at = now + _SAVE_SECONDS
                self._accounts.save(all_of_them=now >= self._save_all_at)
                if now >= self._save_all_at:
                    self._save_all_at = now + _SAVE_ALL_SECONDS
        except (RedisUnavailable, ServerRefused) as error:
            self._redis_lost(error)
            return 0
        self._redis_outage.over()
        return work

    def idle(self) -> None:
        """Wait for the broker's I/O, which may bring confirms, until the next look for entries is due; with enough
        entries at hand none is."""
        if self._broker.opened and not self._redis_outage.ongoing:
            wait = self._queue.read_at - time.monotonic() if self._queue.wants_entries else READ_SECONDS_MAX
            try:
                self._broker.pump(max(wait, 0.0))
            except BrokerUnavailable as error:
                self._broker_lost(error)
        else:
            time.sleep(_AWAY_SECONDS)

    def drained(self) -> bool:
        """True when all that stood in the journals at the first call is confirmed, or cannot be for now."""
        if self._broker_outage.ongoing or self._broker.blocked or self._redis_outage.ongoing:
            return True
        if not self._broker.ready or not self._accounts.begun:
            return False
        try:
            if self._targets is None:
                self._targets = self._look()
        except (RedisUnavailable, ServerRefused) as error:
            self._redis_lost(error)
            return True
        return not any(
            self._states_confirmed.get(camera) != change for camera, change in self._changes.items()
        ) and all(
            target.at <= account.cursor
            for camera, account in self._accounts.by_camera.items()
            if (target := self._targets.get(camera))
        )

    def on_close(self) -> None:
        """Write the cursors down and leave the broker."""
        try:
            self._accounts.save()
        except (RedisUnavailable, ServerRefused) as error:
            self._log.warning("cursors not written; some events will be sent again", error=error)
        self._broker.close()
        self._journals.close()
        self._counts[PublisherCount.CONNECTED] = 0

    # Redis to broker

    def _send(self) -> int:
        """Fill the window; returns the number of messages sent."""
        self._send_states()
        queue, broker, metadata = self._queue.items, self._broker, self._metadata
        sent = events = 0
        while queue and broker.ready and broker.in_flight < self._config.publisher.window:
            if metadata.format == "batch":
                taken = [queue.popleft() for _ in range(min(len(queue), metadata.batch_max))]
                body = encode_batch([self._events[camera].event(entry) for camera, entry in taken])
                broker.publish(body, metadata.batch_routing_key, taken)
            else:
                camera, entry = item = queue.popleft()
                taken = [item]
                broker.publish(encode_event(self._events[camera].event(entry)), metadata.routing_key, taken)
            events += len(taken)
            sent += 1
        self._counts[PublisherCount.PUBLISHED] += events
        return sent

    def _send_states(self) -> None:
        for camera, change in self._changes.items():
            if not self._broker.ready or self._states_sent.get(camera) == change:
                continue
            try:
                status = decode_status(self._states[camera])
            except WireError as error:
                self._log.warning("camera state cannot be read", camera=camera, error=str(error))
                self._states_sent[camera] = self._states_confirmed[camera] = change
                continue
            if status.state == "connecting":
                continue
            event = StatusEvent(
                camera,
                rfc3339(status.timestamp_nano),
                status.timestamp_nano,
                status.state,
                status.consecutive_failures,
                status.last_error,
            )
            self._broker.publish(encode_event(event), self._metadata.status_routing_key, _StatusToken(camera, change))
            self._states_sent[camera] = change

    def _turn_broker(self, now: float) -> int:
        """Keep the connection, take what was confirmed; returns the number of confirmed messages."""
        try:
            if not self._broker.opened:
                if now < self._retry_at:
                    return 0
                self._counts[PublisherCount.CONNECTS] += 1
                self._broker.open()
            self._broker.pump(0)
        except (BrokerUnavailable, OSError) as error:
            self._broker_lost(error)
            return 0
        if self._broker.ready and not self._counts[PublisherCount.CONNECTED]:
            self._counts[PublisherCount.CONNECTED] = 1
            self._backoff.reset()
            self._broker_outage.over()
            self._log.info("rabbitmq connected")
        if self._broker.blocked and self._counts[PublisherCount.CONNECTED]:
            self._counts[PublisherCount.CONNECTED] = 0
            self._broker_outage.lost(
                BrokerUnavailable(f"RabbitMQ takes no messages: {self._broker.blocked}", cause=Cause.BROKER_BLOCKED)
            )
        confirmed = self._take_confirmed()
        if self._broker.nacked:
            self._counts[PublisherCount.NACKED] += self._broker.nacked
            self._broker_lost(
                BrokerUnavailable(f"RabbitMQ refused {self._broker.nacked} messages (nack)", cause=Cause.BROKER_BLOCKED)
            )
        return confirmed

    def _take_confirmed(self) -> int:
        """Move the cursors past what was confirmed; returns the number of messages."""
        tokens: list[list[Item] | _StatusToken] = self._broker.take_confirmed()
        newest: dict[str, JournalEntry] = {}
        counts: dict[str, int] = {}
        events = messages = 0
        for token in tokens:
            if isinstance(token, _StatusToken):
                self._states_confirmed[token.camera] = token.change
                self._counts[PublisherCount.STATUS_EVENTS] += 1
            else:
                newest.update(token)
                for camera, _ in token:
                    counts[camera] = counts.get(camera, 0) + 1
                events += len(token)
                messages += 1
        for camera, entry in newest.items():
            self._accounts.by_camera[camera].confirm(counts[camera], (entry.unix_nano, entry.sequence))
        self._counts[PublisherCount.CONFIRMED] += events
        self._counts[PublisherCount.MESSAGES] += messages
        return len(tokens)

    # What is looked at now and then

    def _look(self) -> dict[str, Newest]:
        """States, lag, cameras that come and go, and what has expired; returns the journals' last entries."""
        overview = self._journals.overview()
        self._states = overview.states
        self._changes = {camera: change_of(text) for camera, text in self._states.items()}
        oldest = self._queue.oldest()
        self._accounts.look(overview, oldest.keys())
        lags = [
            newest.at[0] - (account.cursor[0] or oldest.get(camera, newest.at)[0])
            for camera, account in self._accounts.by_camera.items()
            if (newest := overview.newest.get(camera))
        ]
        self._counts[PublisherCount.LAG_NANO] = max(0, *lags, 0)
        self._queue.expire()
        return overview.newest

    def _say_foreign(self, camera: str, error: str) -> None:
        if error:
            self._log.warning("passed over: what stands in Redis is not ours", of=camera, error=error)
        else:
            self._log.info("read again: what stands in Redis is ours", of=camera)

    # Outages

    def _rewind(self) -> None:
        """Forget what is not confirmed, and read it again."""
        self._queue.clear()
        self._accounts.rewind()
        self._states_sent = dict(self._states_confirmed)

    def _broker_lost(self, error: Exception) -> None:
        self._take_confirmed()
        self._broker.close()
        self._counts[PublisherCount.CONNECTED] = 0
        self._rewind()
        self._retry_at = time.monotonic() + self._backoff.next_seconds()
        self._broker_outage.lost(error)

    def _redis_lost(self, error: RedisUnavailable | ServerRefused) -> None:
        self._journals.close()
        # The next round asks Redis for something, and does not take its silence for an answer.
        self._look_at = 0.0
        self._redis_outage.lost(error)
